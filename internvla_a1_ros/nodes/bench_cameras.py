"""Three cameras that cost nothing to run: jpegs encoded beforehand, published at a fixed rate. For benchmarks."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.isolation import require_localhost
from internvla_a1_ros.nodes.lifecycle import run
from internvla_a1_ros.nodes.parameters import Parameter, declare, value
from internvla_a1_ros.robots.profile import load_profile

PARAMETERS = (
    Parameter("robot", "arx_ac_one", "whose cameras to play"),
    Parameter("rate_hz", 30.0, "pictures a second of each camera", 1.0, 120.0),
    Parameter("width", 640, "width of the pictures", 16, 1920),
    Parameter("height", 480, "height of the pictures", 16, 1440),
)
_PICTURES = 15


class BenchCameras(Node):
    """Publishes one of a few moving pictures on every camera topic at each tick, all three with the same stamp."""

    def __init__(self) -> None:
        super().__init__("bench_cameras")
        require_localhost()
        declare(self, PARAMETERS)
        size = int(value(self, "height")), int(value(self, "width"))
        cameras = load_profile(value(self, "robot")).cameras
        self._pictures = [[_jpeg(size, view, k) for k in range(_PICTURES)] for view in range(len(cameras))]
        self._outlets = [self.create_publisher(CompressedImage, camera.topic, qos.SENSOR) for camera in cameras]
        self._message = CompressedImage(format="jpeg")
        self._tick = 0
        self.create_timer(1.0 / float(value(self, "rate_hz")), self._publish)

    def _publish(self) -> None:
        self._message.header.stamp = self.get_clock().now().to_msg()
        for outlet, pictures in zip(self._outlets, self._pictures, strict=True):
            self._message.data = pictures[self._tick % _PICTURES]
            outlet.publish(self._message)
        self._tick += 1

    def close(self) -> None:
        """Nothing to bring to rest."""


def _jpeg(size: tuple[int, int], view: int, k: int) -> bytes:
    """A textured picture with a box that moves along: as large, encoded, as a picture of a cell."""
    rng = np.random.default_rng(view)
    coarse = rng.integers(40, 200, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    left = (k * size[1] // _PICTURES) % (size[1] - size[1] // 6)
    cv2.rectangle(picture, (left, size[0] // 3), (left + size[1] // 6, size[0] // 2), (30, 90, 160), -1)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())


def main() -> None:
    """Entry point of the benchmark's cameras."""
    sys.exit(run(BenchCameras))


if __name__ == "__main__":
    main()
