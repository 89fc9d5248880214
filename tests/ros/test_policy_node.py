"""The policy process over DDS: the shipped model, jpegs from another process, the wires of an AC One."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import READY, Robot, listening, run_once, running, wired
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.core.types import ActionChunk
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.chunks import chunk_to_message
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.runtime.deployment import Process, find_checkpoint
from internvla_a1_ros.runtime.wire_chunks import chunk_from_message


def policy_process(**parameters: Any) -> Process:
    values = {"robot": "arx_ac_one", "checkpoint": "nano", **parameters}
    return Process("policy", "policy_node", "internvla_a1_ros.nodes.policy_node", values)


CAMERAS = Process("cameras", "", "internvla_a1_ros.nodes.bench_cameras", {"width": 320, "height": 240}, lifecycle=False)


class Rig:
    def __init__(self, robot: Robot, operator: Operator, supervisor: Any) -> None:
        self.robot, self.operator, self.supervisor = robot, operator, supervisor
        self.messages: list[tuple[float, JointTrajectory]] = []
        self.instructions: list[str] = []
        robot.node.create_subscription(JointTrajectory, "policy/chunk", lambda m: self.messages.append((time.monotonic(), m)), qos.NEWEST)
        robot.node.create_subscription(String, "policy/instruction", lambda m: self.instructions.append(m.data), qos.LATCHED)
        self.say = robot.node.create_publisher(String, "instruction", qos.COMMAND)

    def fresh(self, count: int, timeout_s: float = 30.0) -> list[tuple[float, JointTrajectory]]:
        have = len(self.messages)
        assert self.operator.wait_for(lambda: len(self.messages) >= have + count, timeout_s), "no chunks"
        return self.messages[have:]


@pytest.fixture(scope="module")
def rig(domain_id: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    logs = tmp_path_factory.mktemp("policy")
    plan = (CAMERAS, policy_process(guidance="hard"))
    with wired(domain_id) as robot, listening(domain_id) as operator, running(plan, domain_id, logs) as supervisor:
        made = Rig(robot, operator, supervisor)
        assert operator.wait_for(lambda: len(made.messages) > 3, 60.0), (logs / "policy.log").read_text()
        yield made
        assert supervisor.check() is None


def test_chunks_are_what_the_contract_says(rig: Rig) -> None:
    for received_s, message in rig.fresh(5):
        chunk = chunk_from_message(message, rig.robot.clock.from_stamp, rig.robot.profile)
        assert isinstance(chunk, ActionChunk)
        assert chunk.robot == "arx_ac_one" and chunk.joint_names == rig.robot.profile.joint_names
        assert chunk.positions.shape == (50, 14)
        assert chunk.first_ns - chunk.stamp_ns == pytest.approx(1e9 / 30, abs=1e3), "ARX labels are the next state: offset 1"
        assert 0.0 < received_s - chunk.stamp_ns * 1e-9 < 1.0


def test_cadence_and_timings_are_reported(rig: Rig) -> None:
    rig.fresh(12)
    assert rig.operator.wait_for(lambda: "policy: loop" in rig.operator.diagnostics, 3.0)
    loop, cycle = rig.operator.diagnostics["policy: loop"], rig.operator.cycle
    assert 2.0 < float(loop["rate_hz"]) <= 11.0 and float(loop["target_hz"]) == 10.0
    for step in ("decode", "prepare", "encode", "prefix", "generate", "flow", "finish", "total", "overhead", "latency"):
        assert float(cycle[f"{step}_ms"]) >= 0.0
    assert float(cycle["flow_ms"]) > 0.0
    assert sum(float(value) for key, value in loop.items() if key.startswith("share_")) == pytest.approx(1.0, abs=0.01)
    assert float(cycle["latent_hit_rate"]) > 0.3


def test_a_chunk_begins_with_what_is_committed(rig: Rig) -> None:
    """Somebody else's plan, a little off where the arms are: as a tail of each chunk, taken over 100 ms after it was seen."""
    profile, dt = rig.robot.profile, 33_333_333
    committed = rig.robot.node.create_publisher(JointTrajectory, "command/committed", qos.NEWEST)
    plan = READY + np.linspace(0.01, 0.02, 50)[:, None] * ~profile.is_gripper

    def answer(message: JointTrajectory) -> None:
        stamp_ns = rig.robot.clock.from_stamp(message.header.stamp)
        tail = ActionChunk(profile.name, profile.joint_names, stamp_ns, stamp_ns + 100_000_000, dt, plan)
        committed.publish(chunk_to_message(tail, rig.robot.clock))

    answering = rig.robot.node.create_subscription(JointTrajectory, "policy/chunk", answer, qos.NEWEST)
    try:
        for _ in range(5):
            _, message = rig.fresh(4)[-1]
            pinned = np.array([point.positions for point in message.points[:2]])
            if np.abs(pinned - plan[:2])[:, ~profile.is_gripper].max() < 0.004:
                break
        else:
            pytest.fail(f"got {pinned[0]}, expected about {plan[0]}")
        # The next time nothing is committed any more, and plans are the model's own again.
        rig.robot.node.destroy_subscription(answering)
        time.sleep(0.3)
        committed.publish(JointTrajectory())
        assert rig.operator.wait_for(lambda: rig.operator.cycle.get("guided") == "no_tail", 5.0)
    finally:
        rig.robot.node.destroy_publisher(committed)


def test_the_instruction_changes_while_running(rig: Rig) -> None:
    assert rig.operator.wait_for(lambda: bool(rig.instructions), 3.0)
    rig.say.publish(String(data="Pick up the bread with left arm"))
    assert rig.operator.wait_for(lambda: rig.instructions[-1] == "Pick up the bread with left arm", 3.0)
    rig.fresh(3)
    client = rig.robot.node.create_client(SetParameters, "policy/set_parameters")
    assert client.wait_for_service(timeout_sec=5.0)
    for text, good in (("", False), ("Place it in the bin", True)):
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)
        future = client.call_async(SetParameters.Request(parameters=[Parameter(name="instruction", value=value)]))
        assert rig.operator.wait_for(future.done, 5.0)
        assert future.result().results[0].successful is good
    assert rig.operator.wait_for(lambda: rig.instructions[-1] == "Place it in the bin", 3.0)


def test_the_future_is_imagined_on_request_only(rig: Rig) -> None:
    rig.fresh(3)
    assert "imagine_ms" not in rig.operator.cycle
    pictures: list[Any] = []
    stop = rig.operator.pictures("policy/imagined/head/compressed", pictures.append)
    assert rig.operator.wait_for(lambda: len(pictures) >= 2, 10.0)
    assert bytes(pictures[0].data[:2]) == b"\xff\xd8"
    stop()


def test_joints_that_are_not_numbers_stop_the_chunks(rig: Rig) -> None:
    rig.robot.poison = float("nan")
    quiet_since, have = time.monotonic(), len(rig.messages)
    deadline = time.monotonic() + 20.0
    while time.monotonic() - quiet_since < 1.0 and time.monotonic() < deadline:
        time.sleep(0.05)
        if len(rig.messages) > have:
            quiet_since, have = time.monotonic(), len(rig.messages)
    assert time.monotonic() - quiet_since >= 1.0, "chunks went on without joints"
    rig.robot.poison = None
    rig.fresh(3)


def test_a_reset_is_survived(rig: Rig) -> None:
    assert rig.operator.call("policy/reset")[0]
    rig.fresh(3)


def test_without_cameras_there_are_no_chunks_and_a_reason(domain_id: int, tmp_path: Path) -> None:
    domain = domain_id + 1
    plan = (policy_process(),)
    with wired(domain) as robot, listening(domain) as operator, running(plan, domain, tmp_path) as supervisor:
        rig = Rig(robot, operator, supervisor)
        assert operator.wait_for(lambda: "policy: loop" in operator.diagnostics, 60.0)
        time.sleep(1.0)
        assert rig.messages == []
        assert "camera 'head': nothing received yet" in operator.diagnostics["policy: loop"]["message"]
        assert "camera 'head'" in (tmp_path / "policy.log").read_text()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"checkpoint": "nanoo"}, "did you mean 'nano'"),
        ({"checkpoint": "/nowhere/at/all"}, "no such folder"),
        ({"engine": "referense"}, "did you mean 'reference'"),
        ({"preset": "exakt"}, "did you mean 'exact'"),
        ({"guidance": "sofd"}, "did you mean 'soft'"),
        ({"robot": "arx"}, "unknown robot 'arx'"),
    ],
)
def test_what_cannot_be_configured_ends_with_one_sentence(domain_id: int, parameters: dict[str, Any], sentence: str) -> None:
    result = run_once(policy_process(**parameters), domain_id + 2)
    said = result.stdout + result.stderr
    assert result.returncode == 2, said
    assert sentence in said and "Traceback" not in said


def test_a_checkpoint_of_another_robot_is_named(domain_id: int, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for file in (find_checkpoint("nano")).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("robot_type: ARX AC One", "robot_type: Genie-1"))
    result = run_once(policy_process(checkpoint=str(folder)), domain_id + 3)
    assert result.returncode == 2 and "Genie-1" in result.stdout + result.stderr
