"""Every robot profile end to end over DDS: a simulated robot on its topics and types, the command process, a plan that arrives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from harness import command_process, listening, running
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.core.types import ActionChunk, FloatArray
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.chunks import chunk_to_message
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import RobotProfile, load_profile, profile_names
from internvla_a1_ros.runtime.applications import application
from internvla_a1_ros.runtime.deployment import Options, Process
from internvla_a1_ros.runtime.wire_joints import JointAssembler
from internvla_a1_ros.runtime.wire_pictures import picture_decoder

# What the owner of a Genie-1 has to find out, as one of the three contested answers: 0 to 120.
SETTLED = {"genie1": {"commanded": {"scale": 120.0, "offset": 0.0}}}
WAIT_S = 30.0


def drivable(name: str, folder: Path) -> tuple[str, RobotProfile]:
    """Name or path of a profile that can be driven, and the profile."""
    if name in SETTLED:
        joints = [{"name": gripper.joint, **SETTLED[name]} for gripper in load_profile(name).grippers]
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"base": name, "joints": joints}), encoding="utf-8")
        name = str(path)
    return name, load_profile(name)


class Ear:
    """Reads the robot's states and pictures as the policy process does, and sends plans as it would."""

    def __init__(self, node: Any, profile: RobotProfile) -> None:
        self.profile, self.clock = profile, NodeClock(node)
        self._assembler = JointAssembler(profile)
        self.positions: FloatArray | None = None
        self.pictures: dict[str, tuple[int, ...]] = {}
        for i, topic in enumerate(profile.states):
            node.create_subscription(message_class(topic.type), topic.topic, lambda m, i=i: self._on_joints(i, m), qos.SENSOR)
        for camera in profile.cameras:
            kind = message_class("sensor_msgs/msg/CompressedImage" if camera.type == "compressed" else "sensor_msgs/msg/Image")
            node.create_subscription(kind, camera.topic, lambda m, name=camera.name: self._on_picture(name, m), qos.SENSOR)
        self._plans = node.create_publisher(JointTrajectory, "policy/chunk", qos.NEWEST)
        self._goal: FloatArray | None = None
        self._start: FloatArray | None = None
        node.create_timer(0.1, self._send)

    def _on_joints(self, index: int, message: Any) -> None:
        state = self._assembler.add(index, message, self.clock.now_ns())
        self.positions = self.positions if state is None else state.positions

    def _on_picture(self, name: str, message: Any) -> None:
        if name not in self.pictures:
            self.pictures[name] = picture_decoder(message, name)().shape

    def ask(self, goal: FloatArray) -> None:
        """Send plans that lead there, ten a second."""
        self._goal = goal

    def _send(self) -> None:
        if self._goal is None:
            return
        seen, dt, goals = self.clock.now_ns() - 50_000_000, 33_333_333, np.tile(self._goal, (50, 1))
        chunk = ActionChunk(self.profile.name, self.profile.joint_names, seen, seen, dt, goals)
        self._plans.publish(chunk_to_message(chunk, self.clock))


def follows_a_plan(operator: Operator, profile: RobotProfile, within: float) -> Ear:
    """Arm the robot, send it a plan that moves every joint, and see it there."""
    ear = Ear(operator.node, profile)
    assert operator.wait_for(lambda: ear.positions is not None, WAIT_S), "no joint states"
    assert operator.wait_for(lambda: operator.state.get("mode") == "hold", WAIT_S), operator.state
    start = ear.positions
    assert start is not None
    # Each joint somewhere else, so that a joint that is taken for another is seen; away from the end a gripper may stand at.
    shift = np.where(profile.is_gripper, 0.2, 0.05) * (0.5 + np.arange(profile.dof) / profile.dof) * (profile.upper - profile.lower) / 4
    shift = np.minimum(shift, 0.3) * np.where(start + shift > profile.upper, -1, 1)
    goal = start + shift
    ear.ask(goal)
    accepted, message = operator.call("command/arm")
    assert accepted, (message, operator.state)
    reached = operator.wait_for(lambda: np.abs(ear.positions - goal).max() < within, WAIT_S)
    assert reached, (ear.positions - goal).round(4).tolist()
    assert operator.wait_for(lambda: len(ear.pictures) == len(profile.cameras), WAIT_S), ear.pictures
    return ear


def simulated(robot: str, **parameters: Any) -> Process:
    told = {"robot": robot, "scale": 0.1, **parameters}
    return Process("robot", "robot_sim_node", "internvla_a1_ros.nodes.robot_sim_node", told, lifecycle=False)


@contextmanager
def intruding(node: Any, door: str, action: bool) -> Iterator[str]:
    """Inside, `node` can command there; yields what is said of it. Goals go through a service; control_msgs is not here."""
    made = node.create_client(Trigger, f"{door}/_action/send_goal") if action else node.create_publisher(JointTrajectory, door, 1)
    try:
        yield f"node /{node.get_name()} {'is a client of the action' if action else 'publishes on'} {door}"
    finally:
        (node.destroy_client if action else node.destroy_publisher)(made)


def test_who_else_can_command_a_controller_forbids_arming(domain_id: int, tmp_path: Path) -> None:
    """By its topic, which is ours too, or by its action."""
    name = "jtc_dual_arm"
    doors = load_profile(name).commands[0].doors
    assert [action for _, action in doors] == [False, True]
    with running((simulated(name), command_process(robot=name)), domain_id, tmp_path / "logs"), listening(domain_id) as operator:
        assert operator.wait_for(lambda: operator.state.get("mode") == "hold", WAIT_S), operator.state
        for door, action in doors:
            with intruding(operator.node, door, action) as sentence:
                operator.wait_for(lambda: False, 1.0)  # until it is found: once armed, it would be a fault
                accepted, message = operator.call("command/arm")
                assert not accepted and message.endswith(f"someone else can command the arms: {sentence}"), message
                assert operator.state["armed"] == "False"
            assert operator.wait_for(lambda: operator.call("command/arm")[0], WAIT_S), operator.call("command/arm")
            with intruding(operator.node, door, action) as sentence:
                assert operator.wait_for(lambda: operator.state["mode"] == "fault", WAIT_S), operator.state
                assert sentence in str(operator.state), operator.state
            assert operator.wait_for(lambda: operator.call("command/reset")[0], WAIT_S), operator.state


@pytest.mark.parametrize("name", profile_names())
def test_a_plan_reaches_every_robot_and_its_joints_come_back(name: str, domain_id: int, tmp_path: Path) -> None:
    name, profile = drivable(name, tmp_path)
    processes = simulated(name, permute=True), command_process(robot=name)
    with running(processes, domain_id, tmp_path / "logs"), listening(domain_id) as operator:
        ear = follows_a_plan(operator, profile, within=2e-3)
        for camera in profile.cameras:
            wide, high = camera.size or (640, 480)
            assert ear.pictures[camera.name] == (max(16, round(high * 0.1)), max(16, round(wide * 0.1)), 3)


@pytest.mark.parametrize("name", ["genie1", "genie1_sim"])
def test_genie1s_arms_in_the_cell_follow_a_plan_on_exactly_the_profiles_wires(name: str, domain_id: int, tmp_path: Path) -> None:
    path, profile = drivable(name, tmp_path)
    small = {"permute": True, "width": 96, "height": 96, "camera_rate_hz": 5.0}
    plan = application("sim_cell", Options(robot=path, sim=True, simulation=small))
    assert plan.process("sim").executable == "sim_node"
    with running((*plan.processes, command_process(robot=path)), domain_id, tmp_path / "logs"), listening(domain_id) as operator:
        ear = follows_a_plan(operator, profile, within=5e-3)
        assert set(ear.pictures.values()) == {(96, 96, 3)}
        told = dict(operator.node.get_publisher_names_and_types_by_node("sim_node", "/"))
        heard = dict(operator.node.get_subscriber_names_and_types_by_node("sim_node", "/"))
    own = {"/parameter_events": ["rcl_interfaces/msg/ParameterEvent"], "/rosout": ["rcl_interfaces/msg/Log"]}
    own["/sim_node/status"] = ["std_msgs/msg/String"]
    kinds = {"compressed": "sensor_msgs/msg/CompressedImage", "image": "sensor_msgs/msg/Image"}
    wires = {state.topic: [state.type] for state in profile.states} | {camera.topic: [kinds[camera.type]] for camera in profile.cameras}
    assert told == own | wires
    assert {topic: kind for topic, kind in heard.items() if topic != "/parameter_events"} == {c.topic: [c.type] for c in profile.commands}
