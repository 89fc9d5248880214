"""The simulated cell on a robot's own topics and types, as its profile has them: joint states and pictures out, set-points in.

The main thread takes set-points, runs physics and pictures, paced; a second one spins for parameters. Like the vendor's driver it
holds the last set-point for ever and checks no limits; a set-point that is not finite is refused and counted.
"""

from __future__ import annotations

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

import rclpy
from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.nodes import isolation, qos, robot_wires
from internvla_a1_ros.nodes.entities import Entities
from internvla_a1_ros.nodes.graph import foreign_publishers
from internvla_a1_ros.nodes.outputs import quality
from internvla_a1_ros.nodes.parameters import Parameter, declare, value
from internvla_a1_ros.nodes.robot_wires import Obeyed, PictureMessage, StateMessage
from internvla_a1_ros.nodes.sim_plc import RATE_HZ as PLC_RATE_HZ
from internvla_a1_ros.nodes.sim_plc import SimPlc
from internvla_a1_ros.nodes.sim_trials import SimTrials
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import RobotProfile, load_usable_profile
from internvla_a1_ros.robots.wires import Camera, Command, JointTopic
from internvla_a1_ros.runtime.wire_commands import CommandReader
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS
from internvla_a1_ros.simulation.pacing import Event, Pacer
from internvla_a1_ros.simulation.parcels import Parcel
from internvla_a1_ros.simulation.profile_joints import CellJoints, cell_of

PARAMETERS = (
    *robot_wires.PARAMETERS,
    Parameter("seed", 0, "seed of the parcels; of trials, which run of them"),
    Parameter("task", "", "run trials of this task, one after the other, and judge them: ingredient_picking or express_sorting"),
    Parameter("variation", 0.0, "of light, cameras and things about in the trials", 0.0, 1.0),
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
        time_source = value(self, "time_source")
        if time_source not in ("wall", "simulated"):
            raise ConfigurationError(f"time_source: got '{time_source}', expected 'wall' or 'simulated'")
        self._dropped = _camera_names(value(self, "drop_camera"))
        profile = load_usable_profile(value(self, "robot"))
        config = cell_of(profile)
        topics = [*(state.topic for state in profile.states), *(camera.topic for camera in profile.cameras)]
        self._speaks_on = [self.resolve_topic_name(topic) for topic in topics]
        obeys = [self.resolve_topic_name(command.topic) for command in profile.commands]
        isolation.refuse_foreign(self, self._speaks_on, obeys, float(value(self, "discovery_wait_s")))

        self.cell = Cell(config, seed=int(value(self, "seed")))
        self._joints = CellJoints(profile, self.cell.arms)
        self._goal, self._goal_is_new = self._joints.to_robot(self.cell.goal()), False
        self._foreign: str | None = None
        self._belt_speed = float(value(self, "belt_speed"))
        self._size = (int(value(self, "width")), int(value(self, "height")))
        self._obeyed = Obeyed(self, profile)
        self._entities = Entities(self)

        self._states = [self._state(topic, profile) for topic in profile.states]
        self._cameras = {camera.name: self._camera(camera) for camera in profile.cameras}
        for command in profile.commands:
            self._listen(command, profile)
        self._spent_s = dict.fromkeys(("physics", *self._cameras, "jpeg"), 0.0)
        self._frames = dict.fromkeys(self._cameras, 0)
        self._to_status = self.create_publisher(String, "~/status", qos.COMMAND)
        self._to_clock = self.create_publisher(Clock, "/clock", qos.NEWEST) if time_source == "simulated" else None
        self._plc = SimPlc(self._entities) if value(self, "plc") else None
        self._trials = self._trials_of(str(value(self, "task")))
        self.add_on_set_parameters_callback(self._change)

    def _trials_of(self, task: str) -> SimTrials | None:
        if not task:
            return None
        return SimTrials(self._entities, self.cell, task, int(value(self, "seed")), float(value(self, "variation")))

    def _state(self, topic: JointTopic, profile: RobotProfile) -> tuple[Any, StateMessage, str | None]:
        """Publisher, message, and the side whose tool the message has a place for, as ARX's has."""
        message = StateMessage(topic, profile, permute=value(self, "permute"))
        tells_tool = "end_pos" in message.kind.get_fields_and_field_types()
        tool = self._joints.side(int(message.slots[0])) if tells_tool else None
        return self.create_publisher(message.kind, topic.topic, qos.COMMAND), message, tool

    def _camera(self, camera: Camera) -> tuple[Any, PictureMessage]:
        if camera.name not in CAMERAS:
            raise ConfigurationError(f"camera '{camera.name}': the cell has {', '.join(CAMERAS)}")
        picture = PictureMessage(camera, value(self, "encoding"), int(value(self, "jpeg_quality")))
        return self.create_publisher(picture.kind, camera.topic, qos.SENSOR), picture

    def _listen(self, command: Command, profile: RobotProfile) -> None:
        if command.is_trajectory:
            raise ConfigurationError(f"{command.topic}: got {command.type}, the cell takes set-points; robot_sim_node plays trajectories")
        answer = partial(self._store, command.topic, CommandReader(command, profile))
        self._entities.polled(message_class(command.type), command.topic, answer, quality(command.qos))

    def _store(self, topic: str, reader: CommandReader, message: Any, _: int) -> None:
        def obey() -> None:
            self._goal[reader.slots] = reader.set_point(message)
            self._goal_is_new = True

        self._obeyed.take(topic, obey)

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
        for name in self._cameras:  # the first picture compiles shaders: some 0.2 s
            self.cell.render(name, *self._size)
        third = 1 / 3 if value(self, "stagger_cameras") else 0.0
        pacer = Pacer(float(value(self, "real_time_factor")))
        arms, status = Event("arm_rate_hz", float(value(self, "arm_rate_hz"))), Event("status", STATUS_RATE_HZ, phase=1.0)
        plc = Event("plc", PLC_RATE_HZ)
        rate = float(value(self, "camera_rate_hz"))
        phases = dict(zip(CAMERAS, (third, 0.0, 2 * third), strict=True))
        cameras = {name: Event("camera_rate_hz", rate, phases[name]) for name in self._cameras}
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
                now = (time.monotonic(), steps * step_ns * 1e-9, time.process_time())
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
        if self._goal_is_new:
            self.cell.command(self._joints.to_cell(self._goal))
            self._goal_is_new = False
        if self._trials is not None:
            self._belt_speed = self._trials.belt_speed_m_s
        self.cell.belt_speed_m_s = self._belt_speed
        if self._trials is None or self._trials.running:
            self.cell.advance(n_steps)
        if self._trials is not None:
            self._trials.look()
        self._spent_s["physics"] += time.perf_counter() - began

    def _stamp(self, simulated_ns: int) -> Time:
        if self._to_clock is None:
            return self.get_clock().now().to_msg()
        stamp_ns = SIMULATED_START_NS + simulated_ns
        stamp = Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
        self._to_clock.publish(Clock(clock=stamp))
        return stamp

    def _publish_arms(self, stamp: Time) -> None:
        positions, speeds = self.cell.joint_state()
        positions, speeds = self._joints.to_robot(positions), self._joints.speeds_to_robot(speeds)
        for publisher, state, tool in self._states:
            message = state.of(positions, stamp, speeds)
            if tool is not None:
                message.end_pos = self.cell.tool_pose(tool)
            publisher.publish(message)

    def _publish_picture(self, name: str, stamp: Time) -> None:
        began = time.perf_counter()
        rgb = self.cell.render(name, *self._size)
        rendered = time.perf_counter()
        publisher, picture = self._cameras[name]
        message = picture.of(rgb, stamp)
        self._spent_s[name] += rendered - began
        self._spent_s["jpeg"] += time.perf_counter() - rendered
        self._frames[name] += 1
        publisher.publish(message)

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
            "render_ms": {name: round(spent[name] / frames[name] * 1e3, 3) if frames[name] else None for name in frames},
            "jpeg_ms": round(spent["jpeg"] / sum(frames.values()) * 1e3, 3) if any(frames.values()) else None,
            "belt_speed_m_s": self.cell.belt_speed_m_s,
            "dropped_cameras": sorted(self._dropped),
            "commands": sum(self._obeyed.on.values()),
            "rejected_commands": self._obeyed.refused,
            **asdict(self.cell.counts),
            "parcels": [_told(parcel) for parcel in self.cell.parcels()],
        }
        if self._trials is not None:
            report["trial"] = self._trials.status()
            self._trials.instruct()
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
