"""Real processes over real DDS for tests: they start what a deployment says, in a domain of their own on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.core.types import ActionChunk
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.chunks import chunk_to_message
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import RobotProfile, load_profile
from internvla_a1_ros.runtime.deployment import Deployment, Process
from internvla_a1_ros.runtime.supervisor import Supervisor, command_line

# Tests count and difference what is commanded: of a process that stalls for seconds, nothing may be lost.
EVERY_COMMAND = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5000, reliability=ReliabilityPolicy.RELIABLE)
READY = np.array([0.0, 0.948, 0.858, -0.573, 0.0, 0.0, -1.7] * 2)


class Robot:
    """The wires of an AC One without physics: answers with what it was last told, records every command with its arrival."""

    def __init__(self, domain_id: int, profile: RobotProfile, rate_hz: float = 100.0) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("robot", context=self._context)
        self.clock = NodeClock(self.node)
        self.profile = profile
        self.positions = READY.copy()
        self.commands: list[tuple[float, int, np.ndarray[Any, Any]]] = []
        self.silent = False
        self.poison: float | None = None
        self._states = []
        for arm, topic in enumerate(profile.commands):
            kind = message_class(topic.type)
            self.node.create_subscription(kind, topic.topic, lambda m, arm=arm: self._on_command(arm, m), EVERY_COMMAND)
            self._states.append((self.node.create_publisher(kind, profile.states[arm].topic, qos.COMMAND), kind()))
        self.chunks = self.node.create_publisher(JointTrajectory, "policy/chunk", qos.NEWEST)
        self.node.create_timer(1.0 / rate_hz, self._publish)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except Exception:
            if self._context.ok():
                raise

    def _on_command(self, arm: int, message: Any) -> None:
        values = np.array(message.joint_pos[:7])
        self.commands.append((time.monotonic(), arm, values))
        if np.isfinite(values).all():
            self.positions[7 * arm : 7 * arm + 7] = values

    def _publish(self) -> None:
        if self.silent:
            return
        for arm, (publisher, message) in enumerate(self._states):
            message.joint_pos[:] = self.positions[7 * arm : 7 * arm + 7]
            if self.poison is not None and arm == 0:
                message.joint_pos[2] = self.poison
            message.header.stamp = self.node.get_clock().now().to_msg()
            publisher.publish(message)

    def send_chunk(self, plan: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], age_s: float = 0.06, **change: Any) -> None:
        """Publish 50 actions of `plan` (monotonic seconds [n] -> [n, dof]), observed `age_s` ago; `change` alters the chunk."""
        now = self.clock.now_ns()
        stamp, dt = now - round(age_s * 1e9), 33_333_333
        times = (stamp + dt * np.arange(1, 51)) * 1e-9
        names = change.pop("joint_names", self.profile.joint_names)
        robot = change.pop("robot", self.profile.name)
        chunk = ActionChunk(robot, names, stamp, stamp + dt, dt, plan(times))
        self.chunks.publish(chunk_to_message(chunk, self.clock))

    def arm_commands(self, arm: int = 1, since_s: float = 0.0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return arrival times [n] and joints [n, 7] of one arm's commands."""
        rows = [(t, v) for t, a, v in list(self.commands) if a == arm and t >= since_s]
        return np.array([t for t, _ in rows]), np.array([v for _, v in rows]).reshape(-1, 7)

    def close(self) -> None:
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)
        self._executor.shutdown(timeout_sec=0.5)


def wave(times: np.ndarray[Any, Any], amplitude: float = 0.25, hz: float = 0.3) -> np.ndarray[Any, Any]:
    """A smooth motion of all joints around the ready pose."""
    return READY + amplitude * np.sin(2 * np.pi * hz * times)[:, None] * np.array([1, 0.5, 0.5, 0.5, 1, 1, 1] * 2)


class Feeder:
    """Sends chunks at 10 Hz until stopped."""

    def __init__(self, robot: Robot, plan: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = wave) -> None:
        self._stop = threading.Event()
        self._robot, self._plan = robot, plan
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self._robot.send_chunk(self._plan)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)


@contextmanager
def running(processes: tuple[Process, ...], domain_id: int, logs: Path) -> Iterator[Supervisor]:
    """Start processes for a test and end them whatever happens."""
    environment = {"ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    supervisor = Supervisor(Deployment("test", processes, environment), logs=logs)
    try:
        supervisor.start()
        yield supervisor
    finally:
        supervisor.stop()


@contextmanager
def listening(domain_id: int) -> Iterator[Operator]:
    """An operator's ear for a test."""
    operator = Operator(domain_id)
    try:
        yield operator
    finally:
        operator.close()


@contextmanager
def wired(domain_id: int, rate_hz: float = 100.0) -> Iterator[Robot]:
    """A robot's wires for a test."""
    robot = Robot(domain_id, load_profile("arx_ac_one"), rate_hz)
    try:
        yield robot
    finally:
        robot.close()


def command_process(**parameters: Any) -> Process:
    """The command node with parameters of a test; live unless told otherwise: its robot is the test's own."""
    values: Mapping[str, Any] = {"robot": "arx_ac_one", "dry_run": False, **parameters}
    return Process("command", "command_node", "internvla_a1_ros.nodes.command_node", values)


def run_once(process: Process, domain_id: int, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run one node that is expected to end by itself; return code and what it said."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return subprocess.run(
        command_line(process), env=environment, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False
    )


PYTHON = sys.executable
