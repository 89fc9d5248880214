"""The simulated cell on the vendor's own topics: arm states and pictures out, arm set-points in.

The main thread takes set-points, runs physics and pictures, paced; a second one spins for parameters. Like the vendor's driver it
holds the last set-point for ever and checks no limits; a set-point that is not finite is refused and counted.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.nodes import isolation, qos
from internvla_a1_ros.nodes.entities import Entities
from internvla_a1_ros.nodes.graph import foreign_publishers
from internvla_a1_ros.nodes.parameters import Parameter, declare, value
from internvla_a1_ros.nodes.sim_plc import RATE_HZ as PLC_RATE_HZ
from internvla_a1_ros.nodes.sim_plc import SimPlc
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS, SIDES
from internvla_a1_ros.simulation.pacing import Event, Pacer
from internvla_a1_ros.simulation.parcels import Parcel

PARAMETERS = (
    Parameter("seed", 0, "seed of the parcels"),
    Parameter("belt_speed", 0.08, "speed of the belt in m/s", 0.0, 0.3, read_only=False),
    Parameter("arm_rate_hz", 100.0, "arm states a second", 1.0, 480.0),
    Parameter("camera_rate_hz", 30.0, "pictures a second of each camera", 1.0, 120.0),
    Parameter("width", 320, "width of the pictures", 16, 1920),
    Parameter("height", 240, "height of the pictures", 16, 1440),
    Parameter("jpeg_quality", 90, "quality of the pictures", 1, 100),
    Parameter("stagger_cameras", True, "take the three pictures a third of a period apart, like cameras without a trigger line"),
    Parameter("drop_camera", "", "cameras that fall silent, separated by commas: head, left, right", read_only=False),
    Parameter("time_source", "wall", "stamps: 'wall' is ROS time at capture, 'simulated' the cell's own time, published on /clock"),
    Parameter("real_time_factor", 1.0, "simulated seconds per second; 0 is as fast as it can", 0.0, 100.0),
    Parameter("plc", False, "play the PLC too: a photo-eye, a heartbeat, and a belt that does what belt/run and belt/speed say"),
    Parameter("niceness", 10, "how far the process lowers its own priority", 0, 19),
    Parameter("discovery_wait_s", 1.5, "how long to look for foreign endpoints before starting", 0.0, 30.0),
    Parameter("state_topics", ["/arm_slave_l_status", "/arm_slave_r_status"], "arm states, left and right"),
    Parameter("command_topics", ["/arm_master_l_status", "/arm_master_r_status"], "arm set-points, left and right"),
    Parameter("camera_topics", [f"/camera/camera_{c}/color/image_rect_raw/compressed" for c in "hlr"], "pictures: head, left, right"),
)
STATUS_RATE_HZ = 2.0
# A stamp of zero means "no clock" in ROS: simulated time starts here.
SIMULATED_START_NS = 1_000_000_000


class SimNode(Node):
    """Publishers, set-points and what arrived last; `run` belongs to the main thread, changes of parameters to the spinning one."""

    def __init__(self) -> None:
        """Raises ConfigurationError where a parameter, a missing package or a foreign endpoint forbids the start."""
        super().__init__("sim_node")
        declare(self, PARAMETERS)
        states, commands, pictures = (self._topics(f"{kind}_topics", n) for kind, n in (("state", 2), ("command", 2), ("camera", 3)))
        time_source = value(self, "time_source")
        if time_source not in ("wall", "simulated"):
            raise ConfigurationError(f"time_source: got '{time_source}', expected 'wall' or 'simulated'")
        self._dropped = _camera_names(value(self, "drop_camera"))
        self._status_type = message_class("arx5_arm_msg/msg/RobotStatus")
        isolation.refuse_foreign(self, [*states, *pictures], commands, float(value(self, "discovery_wait_s")))

        self._foreign: str | None = None
        self._speaks_on = [*states, *pictures]
        self.cell = Cell(seed=int(value(self, "seed")))
        self._belt_speed = float(value(self, "belt_speed"))
        self._goals: list[FloatArray | None] = [None, None]
        self._tally = {"commands": 0, "rejected_commands": 0}
        self._spent_s = dict.fromkeys(("physics", *CAMERAS, "jpeg"), 0.0)
        self._frames = dict.fromkeys(CAMERAS, 0)
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, int(value(self, "jpeg_quality"))]
        self._size = (int(value(self, "width")), int(value(self, "height")))

        self._to_states = [self.create_publisher(self._status_type, topic, qos.COMMAND) for topic in states]
        by_name = dict(zip(CAMERAS, pictures, strict=True))
        self._to_cameras = {name: self.create_publisher(CompressedImage, topic, qos.SENSOR) for name, topic in by_name.items()}
        self._to_status = self.create_publisher(String, "~/status", qos.COMMAND)
        self._to_clock = self.create_publisher(Clock, "/clock", qos.NEWEST) if time_source == "simulated" else None
        self._entities = Entities(self)
        for side, topic in enumerate(commands):
            self._entities.polled(self._status_type, topic, partial(self._store, side), qos.COMMAND)
        self._plc = SimPlc(self._entities) if value(self, "plc") else None
        self.add_on_set_parameters_callback(self._change)

    def _topics(self, name: str, count: int) -> list[str]:
        names = [self.resolve_topic_name(each) for each in value(self, name)]
        if len(set(names)) != count or len(names) != count:
            raise ConfigurationError(f"{name}: got {names}, expected {count} different names")
        return names

    def _store(self, side: int, message: Any, _: int) -> None:
        goal = np.array(message.joint_pos, dtype=np.float64)
        if not np.isfinite(goal).all():
            self._tally["rejected_commands"] += 1
            sentence = f"{SIDES[side]} arm: set-point refused, got {goal.tolist()}, expected finite numbers"
            self.get_logger().warning(sentence, throttle_duration_sec=1.0)
            return
        self._tally["commands"] += 1
        self._goals[side] = goal

    def _change(self, parameters: list[Any]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.name == "drop_camera":
                    self._dropped = _camera_names(parameter.value)
                if parameter.name == "belt_speed":
                    self._belt_speed = float(parameter.value)
        except ConfigurationError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        return SetParametersResult(successful=True)

    def run(self, stop: threading.Event) -> None:
        """Simulate and publish until `stop` is set.

        Raises ConfigurationError where no picture can be rendered or someone else begins to publish on the same topics.
        """
        for name in CAMERAS:  # the first picture compiles shaders: some 0.2 s
            self.cell.render(name, *self._size)
        third = 1 / 3 if value(self, "stagger_cameras") else 0.0
        pacer = Pacer(float(value(self, "real_time_factor")))
        arms, status = Event("arm_rate_hz", float(value(self, "arm_rate_hz"))), Event("status", STATUS_RATE_HZ, phase=1.0)
        plc = Event("plc", PLC_RATE_HZ)
        rate = float(value(self, "camera_rate_hz"))
        cameras = {name: Event("camera_rate_hz", rate, phase) for name, phase in zip(CAMERAS, (third, 0.0, 2 * third), strict=True)}
        step_ns, steps = self.cell.config.timestep_s * 1e9, 0
        before = (time.monotonic(), 0.0, 0.0)
        while not stop.is_set():
            target = round(min(event.due_ns for event in (arms, status, *cameras.values())) / step_ns)
            wait_ns = pacer.wait_ns(round(target * step_ns), time.monotonic_ns())
            if wait_ns and stop.wait(wait_ns * 1e-9):
                return
            self._advance(target - steps)
            steps = target
            # Events are planned in nanoseconds and physics moves in steps: what falls into this step is due.
            until_ns = round((steps + 0.5) * step_ns)
            stamp = self._stamp(round(steps * step_ns))
            if arms.take(until_ns):
                self._publish_arms(stamp)
            for name, event in cameras.items():
                if event.take(until_ns) and name not in self._dropped:
                    self._publish_picture(name, stamp)
            if self._plc is not None and plc.take(until_ns):
                self._plc.publish(self.cell.parcels())
            if status.take(until_ns):
                self._stay_alone()
                now = (time.monotonic(), self.cell.time_s, time.process_time())
                self._publish_status(now[0] - before[0], now[1] - before[1], now[2] - before[2], pacer.lost_ns)
                before = now

    def _stay_alone(self) -> None:
        """Discovery may have been slow, or a robot be switched on later: two sources of one state must not go on."""
        foreign = foreign_publishers(self, self._speaks_on, own=True)
        # Twice in a row: the graph may know an endpoint before its node's name.
        before, self._foreign = self._foreign, foreign
        if foreign is not None and before is not None:
            raise ConfigurationError(f"the simulation ends beside a real robot or a second simulation: {foreign}")

    def _advance(self, n_steps: int) -> None:
        began = time.perf_counter()
        self._entities.take()
        if self._plc is not None and self._plc.belt_speed_m_s is not None:
            self._belt_speed = min(self._plc.belt_speed_m_s, self.cell.config.belt.max_speed_m_s)
        positions = self.cell.goal()
        for side, goal in enumerate(self._goals):
            if goal is not None:
                positions[7 * side : 7 * side + 7] = goal
        self.cell.command(positions)
        self.cell.belt_speed_m_s = self._belt_speed
        self.cell.advance(n_steps)
        self._spent_s["physics"] += time.perf_counter() - began

    def _stamp(self, simulated_ns: int) -> Time:
        if self._to_clock is None:
            return self.get_clock().now().to_msg()
        stamp_ns = SIMULATED_START_NS + simulated_ns
        stamp = Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
        self._to_clock.publish(Clock(clock=stamp))
        return stamp

    def _publish_arms(self, stamp: Time) -> None:
        positions, velocities = self.cell.joint_state()
        for side, publisher in enumerate(self._to_states):
            message = self._status_type()
            message.header.stamp = stamp
            message.joint_pos = positions[7 * side : 7 * side + 7]
            message.joint_vel = velocities[7 * side : 7 * side + 7]
            message.end_pos = self.cell.tool_pose(SIDES[side])
            publisher.publish(message)

    def _publish_picture(self, name: str, stamp: Time) -> None:
        began = time.perf_counter()
        rgb = self.cell.render(name, *self._size)
        rendered = time.perf_counter()
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), self._quality)
        self._spent_s[name] += rendered - began
        self._spent_s["jpeg"] += time.perf_counter() - rendered
        self._frames[name] += 1
        message = CompressedImage(format="rgb8; jpeg compressed bgr8")  # as compressed_image_transport writes it
        message.header.stamp = stamp
        message.header.frame_id = f"camera_{name[0]}_color_optical_frame"
        message.data = array.array("B", encoded.tobytes())
        self._to_cameras[name].publish(message)

    def _publish_status(self, wall_s: float, simulated_s: float, cpu_s: float, lost_ns: int) -> None:
        """Ground truth for the demo and the costs since the last status."""
        spent, frames = self._spent_s, self._frames
        report = {
            "time_s": round(self.cell.time_s, 3),
            "real_time_factor": round(simulated_s / wall_s, 3),
            "keeps_up": simulated_s >= 0.95 * wall_s * float(value(self, "real_time_factor")),
            "lost_s": round(lost_ns * 1e-9, 3),
            "cpu_share": round(cpu_s / wall_s, 3),
            "physics_ms_per_frame": round(spent["physics"] / max(simulated_s, 1e-9) / 30 * 1e3, 3),
            "render_ms": {name: round(spent[name] / frames[name] * 1e3, 3) if frames[name] else None for name in CAMERAS},
            "jpeg_ms": round(spent["jpeg"] / sum(frames.values()) * 1e3, 3) if any(frames.values()) else None,
            "belt_speed_m_s": self.cell.belt_speed_m_s,
            "dropped_cameras": sorted(self._dropped),
            **self._tally,
            **asdict(self.cell.counts),
            "parcels": [_told(parcel) for parcel in self.cell.parcels()],
        }
        self._to_status.publish(String(data=json.dumps(report)))
        if not report["keeps_up"]:
            pace, lost_s = report["real_time_factor"], report["lost_s"]
            sentence = f"the simulation cannot keep up: {pace} simulated seconds per second, {lost_s} s given up so far"
            self.get_logger().warning(sentence, throttle_duration_sec=10.0)
        self._spent_s, self._frames = dict.fromkeys(spent, 0.0), dict.fromkeys(frames, 0)


def _camera_names(text: str) -> frozenset[str]:
    names = frozenset(filter(None, (part.strip() for part in text.split(","))))
    if names - set(CAMERAS):
        raise ConfigurationError(f"drop_camera: got '{text}', expected any of {', '.join(CAMERAS)} separated by commas")
    return names


def _told(parcel: Parcel) -> dict[str, Any]:
    told = {name: getattr(parcel, name) for name in ("code", "destination", "face", "place")}
    return {**told, "position_m": parcel.position_m.round(4).tolist()}


def _lower_priority(niceness: int) -> None:
    """Commands and policy go first. Whoever started this process may have lowered it already: the two do not add up."""
    present = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(present, niceness))


def _spin(executor: Executor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def main(arguments: list[str] | None = None) -> int:
    """Run the simulated cell until SIGINT or SIGTERM; return the exit code, 1 with one sentence where it may not start."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        isolation.require_localhost()
        rclpy.init(args=arguments if arguments is not None else sys.argv, signal_handler_options=SignalHandlerOptions.NO)
        node = SimNode()
        _lower_priority(int(value(node, "niceness")))
    except ConfigurationError as problem:
        print(f"sim_node: {problem}", file=sys.stderr)
        return 1
    # Not the events executor: it polls with Python's lock held, which slowed this loop to a tenth of real time.
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor,), name="spin", daemon=True)
    spinner.start()
    try:
        node.run(stop)
    except ConfigurationError as problem:
        print(f"sim_node: {problem}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
        spinner.join(timeout=1.0)
        node.cell.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
