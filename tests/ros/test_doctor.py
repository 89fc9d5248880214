"""`internvla-a1 doctor` over DDS: the simulated cell in a process of its own, healthy and with faults, and `~/doctor` of our nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rclpy
from harness import command_process, listening, running
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.commissioning.doctor_findings import Finding, Level, from_json
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.robots.wires import TRAJECTORY
from internvla_a1_ros.runtime.deployment import Process

# Some of the ten that conftest.py keeps for this run.
DOMAIN = 10 + (os.getpid() * 10) % 60 + 5
EMPTY_DOMAIN = DOMAIN + 1
PROFILE = load_profile("arx_ac_one")
CAMERAS = [camera.topic for camera in PROFILE.cameras]
COMMANDS = [command.topic for command in PROFILE.commands]
STATUS = PROFILE.commands[0].type
ACTION = "/gripper/follow_joint_trajectory"
# Slow and small, and faster than the profile says: what is tested is what is said, on a machine that does other things too.
SIMULATED = {"camera_rate_hz": 15.0, "width": 160, "height": 120, "niceness": 0}


def write_profile(path: Path, size: tuple[int, int] = (160, 120), wires: str = "") -> Path:
    cameras = "\n".join(
        f"  - {{name: {c.name}, rate_hz: 10, size: [{size[0]}, {size[1]}]}}"
        if c.name == "right"
        else f"  - {{name: {c.name}, rate_hz: 10}}"
        for c in PROFILE.cameras
    )
    path.write_text(f"base: arx_ac_one\nmax_state_age_s: 0.5\ncameras:\n{cameras}\n{wires}")
    return path


def command_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "internvla_a1_ros.cli.main", "doctor", *words]


def start(*words: str, domain: int = DOMAIN, columns: int = 250) -> subprocess.Popen[str]:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "COLUMNS": str(columns)}
    return subprocess.Popen(command_line(*words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@dataclass
class Result:
    code: int
    text: str
    findings: list[Finding]

    def of(self, level: Level) -> set[tuple[str, str]]:
        return {(finding.check, finding.subject) for finding in self.findings if finding.level is level}

    def one(self, check: str, subject: str) -> Finding:
        (found,) = [each for each in self.findings if (each.check, each.subject) == (check, subject)]
        return found


def finish(process: subprocess.Popen[str]) -> Result:
    text, errors = process.communicate(timeout=40)
    assert process.returncode in (0, 1), errors
    findings = from_json(json.loads(text)) if text.startswith("{") else []
    return Result(process.returncode, text, findings)


class Bystander:
    """A node beside the cell, that waits for things."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("teleop", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.pictures: list[Any] = []
        self.node.create_subscription(CompressedImage, CAMERAS[0], self.pictures.append, qos.SENSOR)

    def until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def set(self, **parameters: Any) -> None:
        client = self.node.create_client(SetParameters, "/sim_node/set_parameters")
        assert client.wait_for_service(timeout_sec=10)
        answer = client.call_async(
            SetParameters.Request(parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in parameters.items()])
        )
        self.until(answer.done, 10, "set_parameters answers")
        assert all(result.successful for result in answer.result().results)


@pytest.fixture(scope="module")
def bystander() -> Iterator[Bystander]:
    made = Bystander()
    yield made
    made.executor.shutdown(timeout_sec=0.5)
    made.context.try_shutdown()


@pytest.fixture(scope="module")
def cell(bystander: Bystander, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    logs = tmp_path_factory.mktemp("cell")
    process = Process("sim", "sim_node", "internvla_a1_ros.nodes.sim_node", SIMULATED, lifecycle=False)
    with running((process,), DOMAIN, logs):
        bystander.until(lambda: len(bystander.pictures) > 2, 60, "the cell's first pictures")
        yield


def test_a_healthy_cell(bystander: Bystander, cell: None, tmp_path: Path) -> None:
    """No stop, every subject looked at, and while it looks the doctor offers nothing to the robot."""
    process = start("--robot", str(write_profile(tmp_path / "robot.yaml")), "--seconds", "2", "--json", "--record-folder", str(tmp_path))
    offered: set[str] = set()
    heard = False
    while process.poll() is None and not heard:  # every publisher of a node is known with its listeners
        bystander.executor.spin_once(timeout_sec=0.02)
        heard = bystander.node.count_subscribers(CAMERAS[1]) > 0 and "doctor" in bystander.node.get_node_names()
    if heard:
        offered = {name for name, _ in bystander.node.get_publisher_names_and_types_by_node("doctor", "/")}
    result = finish(process)
    assert heard, result.text
    assert offered <= {"/parameter_events"}
    assert result.code == 0 and result.of(Level.STOP) == set(), result.text
    assert {("engine", "policy"), ("command", "command process")} <= result.of(Level.WARNING)
    fine = result.of(Level.OK)
    for check in ("present", "source", "stamps", "encoding", "size", "exposure", "sharpness", "frozen"):
        assert {(check, f"camera {camera.name}") for camera in PROFILE.cameras} <= fine, check
    for check in ("present", "source", "names", "range"):
        assert {(check, f"joints {wire.topic}") for wire in PROFILE.states} <= fine, check
    for name in COMMANDS:
        assert {("publishers", f"command {name}"), ("listeners", f"command {name}")} <= fine
    assert {("gripper", "gripper left_gripper"), ("statistics", "gripper right_gripper"), ("discovery", "graph")} <= fine
    assert ("clock", "clock of /sim_node") in fine | result.of(Level.WARNING), "under load the quickest message may take longer"
    assert ("disk", f"disk {tmp_path}") in fine
    assert "from /sim_node (best_effort, volatile)" in result.one("source", "camera head").what
    assert result.one("size", "camera right").what == "160x120" and "jpeg" in result.one("encoding", "camera head").what
    assert "/sim_node" in result.one("discovery", "graph").what and f"domain {DOMAIN}" in result.one("discovery", "graph").what
    assert json.loads(result.text)["source"] == "live"


def test_faults_are_found_and_nothing_else(bystander: Bystander, cell: None, tmp_path: Path) -> None:
    """A dead camera, a picture of another shape, a vendor package that is not there, and someone else on a command topic and an action."""
    left, right = (f"joints: [{', '.join(joints)}]" for joints in (PROFILE.joint_names[:7], PROFILE.joint_names[7:13]))
    arm = f"type: {STATUS}, field: joint_pos"
    wires = "\n".join(
        (
            "states:",
            f"  - {{topic: /arm_slave_l_status, {arm}, {left}}}",
            f"  - {{topic: /arm_slave_r_status, {arm}, {right}}}",
            "  - {topic: /gripper, type: someones_msgs/msg/State, field: position, joints: [right_gripper]}",
            "commands:",
            f"  - {{topic: {COMMANDS[0]}, {arm}, {left}}}",
            f"  - {{topic: {COMMANDS[1]}, {arm}, {right}}}",
            f"  - {{topic: {ACTION}, type: control_msgs/action/FollowJointTrajectory, joints: [right_gripper]}}",
        )
    )
    profile = write_profile(tmp_path / "robot.yaml", (160, 90), wires)
    bystander.set(drop_camera="left")
    intruder = bystander.node.create_publisher(message_class(STATUS), COMMANDS[1], qos.COMMAND)
    goals = bystander.node.create_client(Trigger, f"{ACTION}/_action/send_goal")
    beside = bystander.node.create_publisher(JointTrajectory, ACTION.replace("follow_", ""), 1)  # of the same controller
    try:
        result = finish(start("--robot", str(profile), "--seconds", "2", "--json"))
    finally:
        bystander.node.destroy_publisher(intruder)
        bystander.node.destroy_client(goals)
        bystander.node.destroy_publisher(beside)
        bystander.set(drop_camera="")
    assert result.code == 1
    assert result.of(Level.STOP) == {
        ("present", "camera left"),
        ("size", "camera right"),
        ("type", "joints /gripper"),
        ("publishers", f"command {COMMANDS[1]}"),
        ("publishers", f"command {ACTION}"),
    }
    assert "published by /sim_node, but nothing came in 2 s" in result.one("present", "camera left").what
    assert result.one("size", "camera right").what.startswith("160x120, the profile says 160x90")
    assert "'someones_msgs' is not on the Python path" in result.one("type", "joints /gripper").what
    assert result.one("publishers", f"command {COMMANDS[1]}").what == "/teleop can command it too"
    who = f"/teleop, /teleop (by {TRAJECTORY}) can command it too"
    assert result.one("publishers", f"command {ACTION}").what == who
    assert ("publishers", f"command {COMMANDS[0]}") in result.of(Level.OK)


def test_nobody_is_there(tmp_path: Path) -> None:
    """As a table: the wrong domain is named, and exit code 1."""
    result = finish(start("--seconds", "1", "--record-folder", str(tmp_path), domain=EMPTY_DOMAIN))
    assert result.code == 1
    assert f"no other node in domain {EMPTY_DOMAIN}, range LOCALHOST" in result.text
    assert "set ROS_DOMAIN_ID" in result.text and result.text.count("nobody publishes it") == 5


def test_our_nodes_are_asked_and_answer(bystander: Bystander, cell: None, tmp_path: Path) -> None:
    """Policy and command (a dry run) beside the cell: the doctor sees them, and each tells what it knows when it is asked."""
    profile = str(write_profile(tmp_path / "robot.yaml"))
    parameters = {"robot": profile, "checkpoint": "nano", "threads": 1}
    policy = Process("policy", "policy_node", "internvla_a1_ros.nodes.policy_node", parameters)
    with listening(DOMAIN) as operator, running((command_process(robot=profile, dry_run=True), policy), DOMAIN, tmp_path / "logs"):
        assert operator.wait_for(lambda: operator.cycles > 3 and bool(operator.state), 60), (tmp_path / "logs/policy.log").read_text()
        answers = {name: operator.call(f"{name}/doctor") for name in ("policy", "command")}
        operator.press_estop(True)
        assert operator.wait_for(lambda: operator.state.get("mode") == "stop", 10)
        stopped = operator.call("command/doctor")
        result = finish(start("--robot", profile, "--seconds", "2", "--json"))
    good, text = answers["policy"]
    assert good and "ok: engine: warm" in text and "ok: camera head" in text and "accepted, refused: " in text
    good, text = answers["command"]
    assert good and "ok: command topics: nobody else publishes" in text and "ok: loop: hold" in text and "scheduling: " in text
    assert not stopped[0] and stopped[1].startswith("stop: loop: stop")
    assert result.of(Level.STOP) == {("command", "command process")}, result.text
    assert result.one("command", "command process").what.startswith("stop, not armed, dry run")
    assert result.one("engine", "policy").what.startswith("warm, ") or result.one("engine", "policy").level is Level.WARNING
