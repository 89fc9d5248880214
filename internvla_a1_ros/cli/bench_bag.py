"""`internvla-a1 bench bag`: how fast a bag of three cameras is read and decoded, and what memory that takes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvla_a1_ros.cli.progress import working

if TYPE_CHECKING:
    from collections.abc import Iterator

    from internvla_a1_ros.robots.profile import RobotProfile

# Distinct pictures of each camera: a scene that moves, gone through again and again.
_PICTURES = 30
_BEGIN_NS = 1_790_000_000_000_000_000


def bag(
    seconds: Annotated[float, typer.Option(help="length of the bag that is made", min=1.0)] = 60.0,
    threads: Annotated[int, typer.Option(help="threads that decode", min=1)] = 2,
    robot: Annotated[str, typer.Option(help="robot profile with compressed pictures: its name or the path of a YAML file")] = "arx_ac_one",
    camera_hz: Annotated[int, typer.Option(help="pictures a second and camera", min=1)] = 30,
    joints_hz: Annotated[int, typer.Option(help="states a second and topic", min=1)] = 100,
    width: Annotated[int, typer.Option(help="pixels", min=16)] = 640,
    height: Annotated[int, typer.Option(help="pixels", min=16)] = 480,
    compression: Annotated[str, typer.Option(help="of the chunks: none or zstd")] = "none",
    folder: Annotated[Path | None, typer.Option(help="where the bag is made, and left; default: a temporary folder")] = None,
) -> None:
    """Make a bag of rendered pictures (jpeg) and joints, then read it through the live nodes' readers, every picture decoded."""
    from rich.console import Console

    from internvla_a1_ros.robots.profile import load_profile

    profile = load_profile(robot)
    with tempfile.TemporaryDirectory(prefix="internvla_a1_bench_") as temporary:
        place = folder or Path(temporary) / "bag"
        made = make_bag(place, profile, seconds, camera_hz, joints_hz, (width, height), compression)
        figures = {**made, **read_bag(place, profile, threads), "threads": threads}
    figures["times_real_time"] = figures["bag_s"] / figures["read_s"]
    # What it would be if nothing else ran: on a busy machine the clock measures the others too.
    figures["times_by_cpu"] = figures["bag_s"] * threads / figures["cpu_s"]
    Console().print(
        f"{figures['pictures']} pictures of {figures['jpeg_kb']:.0f} kB and {figures['states']} joint states, {figures['bag_s']:.0f} s: "
        f"read and decoded in {figures['read_s']:.2f} s, {figures['times_real_time']:.1f} times real time "
        f"({figures['times_by_cpu']:.1f} by the CPU time it took, {threads} cores free); {figures['mb_s']:.1f} MB/s, "
        f"{figures['pictures_s']:.0f} pictures/s, {figures['cpu_s'] / max(figures['pictures'], 1) * 1e3:.2f} ms of CPU a picture; "
        f"memory grew by {figures['memory_mb']:.0f} MB",
        highlight=False,
    )
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))


def make_bag(
    path: Path, profile: RobotProfile, seconds: float, camera_hz: int, joints_hz: int, size: tuple[int, int], compression: str
) -> dict[str, float]:
    """Write the bag. Raises ConfigurationError where it cannot be written, or the profile's cameras are not compressed."""
    from internvla_a1_ros.bags.types import known_types
    from internvla_a1_ros.bags.writing import BagWriter
    from internvla_a1_ros.core.errors import ConfigurationError

    if compression not in ("none", "zstd"):
        raise ConfigurationError(f"--compression: got '{compression}', expected none or zstd")
    if any(camera.type != "compressed" for camera in profile.cameras):
        raise ConfigurationError(f"robot '{profile.name}': got cameras that are not compressed, expected jpeg")
    types = known_types(wire.type.split("/")[0] for wire in profile.states)
    pictures = [list(rendered(size, seed)) for seed in range(len(profile.cameras))]
    kinds = {wire.topic: wire.type for wire in profile.states}
    definitions = {kind: types.generate_msgdef(kind, ros_version=2)[0] for kind in {_IMAGE, *kinds.values()}}
    sources = [(camera.topic, n, camera_hz) for n, camera in enumerate(profile.cameras)] + [(topic, -1, joints_hz) for topic in kinds]
    ticks = sorted((round(k * 1e9 / hz), topic, n, k) for topic, n, hz in sources for k in range(int(seconds * hz)))
    with BagWriter(path, compression="zstd" if compression == "zstd" else "none") as writer, working("making the bag", len(ticks)) as work:
        for at_ns, topic, camera, k in ticks:
            now_ns, kind = _BEGIN_NS + at_ns, kinds.get(topic, _IMAGE)
            fields = {"format": "jpeg", "data": pictures[camera][k % _PICTURES]} if camera >= 0 else {}
            data = bytes(types.serialize_cdr(_message(types, kind, now_ns, fields), kind))
            writer.write(topic, kind, definitions[kind], data, now_ns, now_ns)
            work.advance()
    if writer.stopped:
        raise ConfigurationError(writer.stopped)
    jpeg_kb = [len(jpeg) * 1e-3 for jpegs in pictures for jpeg in jpegs]
    return {"bag_s": seconds, "jpeg_kb": sum(jpeg_kb) / len(jpeg_kb)}


def read_bag(path: Path, profile: RobotProfile, threads: int) -> dict[str, float]:
    """Read the bag, every picture decoded, and measure."""
    import os
    import time

    import cv2
    import psutil

    from internvla_a1_ros.bags.reading import Bag
    from internvla_a1_ros.bags.robot_stream import RobotStream
    from internvla_a1_ros.core.types import Frame, JointState

    cv2.setNumThreads(1)
    process = psutil.Process()
    pictures = states = 0
    with Bag(path) as opened:
        before, cpu, begin = process.memory_info().rss, sum(os.times()[:2]), time.perf_counter()
        most = before
        for heard in RobotStream(opened, profile).decoded(threads):
            if isinstance(heard.what, Frame):
                pictures += 1
                if pictures % 50 == 0:
                    most = max(most, process.memory_info().rss)
            states += isinstance(heard.what, JointState)
        spent = time.perf_counter() - begin
        cpu = sum(os.times()[:2]) - cpu
    n_bytes = sum(each.stat().st_size for each in path.iterdir())
    return {
        "pictures": pictures,
        "states": states,
        "read_s": spent,
        "mb_s": n_bytes / spent / 1e6,
        "pictures_s": pictures / spent,
        "cpu_s": cpu,
        "memory_mb": (most - before) / 1e6,
    }


_IMAGE = "sensor_msgs/msg/CompressedImage"


def rendered(size: tuple[int, int], seed: int) -> Iterator[Any]:
    """Yield jpegs (quality 85) as bytes [n]: a lit ground, soft shapes of every size that move, sharp edges, a sensor's noise."""
    import cv2
    import numpy as np

    width, height = size
    noise = np.random.default_rng(seed)
    ramp = np.linspace(60, 190, width)[None, :, None] * np.linspace(0.8, 1.1, height)[:, None, None] * np.array([0.9, 1.0, 1.05])
    soft = sum(
        cv2.resize(noise.normal(0, 14, (height // cell + 2, 2 * width // cell + 2, 3)), (2 * width, height), interpolation=cv2.INTER_CUBIC)
        for cell in (160, 80, 40, 20, 10, 5)
    )
    for k in range(_PICTURES):
        picture = ramp + soft[:, 4 * k : 4 * k + width]
        for box in range(4):
            left, top = (width // 5 * (box + 1) + 3 * k) % width, height // 5 * (box + 1)
            picture[top : top + height // 8, left : left + width // 8] = (40 + 50 * box, 200 - 40 * box, 90)
        picture = np.clip(picture + noise.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
        yield np.frombuffer(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(), np.uint8)


def _message(types: Any, kind: str, now_ns: int, fields: dict[str, Any]) -> Any:
    """A message of `kind` with a stamp, zeros but for `fields`."""
    import numpy as np

    classes = types.types
    stamp = classes["builtin_interfaces/msg/Time"](sec=now_ns // 10**9, nanosec=now_ns % 10**9)
    header = classes["std_msgs/msg/Header"](stamp=stamp, frame_id="")
    if fields:
        return classes[kind](header=header, **fields)
    return classes[kind](header=header, end_pos=np.zeros(6), joint_pos=np.zeros(7), joint_vel=np.zeros(7), joint_cur=np.zeros(7))
