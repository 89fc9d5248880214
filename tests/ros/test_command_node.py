"""The command process over DDS, against the bare wires of an AC One."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arx5_arm_msg.msg import RobotStatus
from harness import READY, Feeder, Robot, command_process, listening, run_once, running, wave, wired
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from std_msgs.msg import Bool, Empty, String
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.core.types import ActionChunk
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.runtime.wire_chunks import chunk_from_message


class Rig:
    """A live command process, its robot and its operator."""

    def __init__(self, robot: Robot, operator: Operator, supervisor: Any) -> None:
        self.robot, self.operator, self.supervisor = robot, operator, supervisor

    def mode(self, wanted: str, timeout_s: float = 5.0) -> bool:
        return self.operator.wait_for(lambda: self.operator.state.get("mode") == wanted, timeout_s)

    def back_to_hold(self) -> None:
        """Whatever the test before did: unarmed hold, nobody pressing."""
        self.robot.silent, self.robot.poison = False, None
        self.operator.press_estop(False)
        self.operator.call("command/disarm")
        assert self.operator.wait_for(lambda: self.operator.state.get("at_rest") == "True", 5.0)
        if self.operator.state.get("mode") in ("stop", "fault", "pause"):
            self.operator.call("command/reset")
        assert self.mode("hold"), self.operator.state


@pytest.fixture(scope="module")
def shared_rig(domain_id: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    logs = tmp_path_factory.mktemp("command")
    with wired(domain_id) as robot, listening(domain_id) as operator, running((command_process(),), domain_id, logs) as supervisor:
        rig = Rig(robot, operator, supervisor)
        assert rig.mode("hold", 30.0), (logs / "command.log").read_text()
        yield rig
        assert supervisor.check() is None


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    shared_rig.back_to_hold()
    return shared_rig


def arm(rig: Rig) -> None:
    deadline = time.monotonic() + 5.0
    accepted, message = rig.operator.call("command/arm")
    while not accepted and time.monotonic() < deadline:
        time.sleep(0.2)
        accepted, message = rig.operator.call("command/arm")
    assert accepted, (message, rig.operator.state)


def differences(robot: Robot, since_s: float) -> np.ndarray[Any, Any]:
    _, joints = robot.arm_commands(1, since_s)
    return np.abs(np.diff(joints[:, :6], axis=0)).max(axis=1)


def test_nothing_is_sent_before_arming(rig: Rig) -> None:
    since = time.monotonic()
    feeder = Feeder(rig.robot)
    time.sleep(0.5)
    feeder.stop()
    assert rig.robot.arm_commands(1, since)[0].size == 0


def test_armed_it_follows_the_plan_within_limits(rig: Rig) -> None:
    feeder = Feeder(rig.robot)
    arm(rig)
    assert rig.mode("run")
    since = time.monotonic()
    time.sleep(1.0)
    feeder.stop()
    arrivals, joints = rig.robot.arm_commands(1, since)
    assert 60 <= arrivals.size <= 130
    profile = rig.robot.profile
    assert (joints >= profile.lower[7:] - 1e-9).all() and (joints <= profile.upper[7:] + 1e-9).all()
    assert np.abs(np.diff(joints[:, :6], axis=0)).max() <= profile.max_velocity[7] * 0.01 * 1.001
    assert np.ptp(joints[:, 0]) > 0.05, "the arm did not move"


def test_it_says_what_it_will_execute_and_when_it_will_not(rig: Rig) -> None:
    tails: list[Any] = []
    rig.robot.node.create_subscription(JointTrajectory, "command/committed", tails.append, qos.NEWEST)
    feeder = Feeder(rig.robot)
    arm(rig)
    assert rig.mode("run")
    assert rig.operator.wait_for(lambda: len(tails) > 3, 3.0)
    tail = chunk_from_message(tails[-1], rig.robot.clock.from_stamp, rig.robot.profile)
    assert isinstance(tail, ActionChunk) and tail.robot == rig.robot.profile.name
    assert 0.05 < (tail.first_ns - tail.stamp_ns) * 1e-9 < 0.3, "from the observation to the take-over"
    time.sleep(rig.robot.profile.ramp_s)
    np.testing.assert_allclose(tail.positions[:20], wave((tail.first_ns + tail.dt_ns * np.arange(20)) * 1e-9), atol=0.01)
    rig.operator.call("command/pause")
    feeder.stop()
    assert rig.operator.wait_for(lambda: not tails[-1].points, 2.0)


def test_estop_brakes_latches_and_needs_a_reset(rig: Rig) -> None:
    feeder = Feeder(rig.robot, lambda t: wave(t, 0.5, 0.4))
    arm(rig)
    assert rig.mode("run")
    rig.operator.press_estop(True)
    assert rig.mode("stop")
    assert rig.operator.wait_for(lambda: rig.operator.state.get("at_rest") == "True", 2.0)
    since = time.monotonic() + 0.1
    time.sleep(0.5)
    assert rig.robot.arm_commands(1, since)[0].size == 0, "commands after the stop came to rest"
    accepted, message = rig.operator.call("command/reset")
    assert not accepted and "e-stop" in message
    accepted, _ = rig.operator.call("command/arm")
    assert not accepted
    rig.operator.press_estop(False)
    time.sleep(0.2)
    assert rig.operator.state["mode"] == "stop", "releasing the e-stop alone must not clear it"
    assert rig.operator.call("command/reset")[0]
    assert rig.mode("hold") and rig.operator.state["armed"] == "False"
    feeder.stop()


def test_one_button_does_not_release_another(rig: Rig) -> None:
    """It is pressed while anybody says so; of one that has gone, until somebody says otherwise."""
    button = rig.robot.node.create_publisher(Bool, "e_stop", qos.COMMAND)
    assert rig.operator.wait_for(lambda: button.get_subscription_count() > 0, 5.0)
    button.publish(Bool(data=True))
    assert rig.mode("stop")
    rig.operator.press_estop(False)
    time.sleep(1.5)  # it is known by then who is there
    accepted, message = rig.operator.call("command/reset")
    assert not accepted and "e-stop" in message
    button.publish(Bool(data=False))
    assert rig.operator.wait_for(lambda: rig.operator.call("command/reset")[0], 5.0)
    button.publish(Bool(data=True))
    assert rig.mode("stop")
    rig.robot.node.destroy_publisher(button)
    time.sleep(1.5)
    assert not rig.operator.call("command/reset")[0]
    rig.operator.press_estop(False)
    assert rig.operator.wait_for(lambda: rig.operator.call("command/reset")[0], 5.0)
    assert rig.mode("hold")


def test_no_more_chunks_hold_the_last_pose(rig: Rig) -> None:
    feeder = Feeder(rig.robot)
    arm(rig)
    assert rig.mode("run")
    feeder.stop()
    assert rig.mode("hold", 3.0)
    assert rig.operator.wait_for(lambda: rig.operator.state.get("at_rest") == "True", 1.0)
    since = time.monotonic()
    time.sleep(0.3)
    _, joints = rig.robot.arm_commands(1, since)
    assert joints.shape[0] > 10 and np.ptp(joints, axis=0).max() < 1e-6, "armed and holding it goes on sending the same pose"


def test_silent_joints_hold_and_come_back(rig: Rig) -> None:
    feeder = Feeder(rig.robot)
    arm(rig)
    assert rig.mode("run")
    rig.robot.silent = True
    assert rig.mode("hold", 2.0) and "joint" in rig.operator.state["reason"]
    rig.robot.silent = False
    assert rig.mode("run", 5.0)
    feeder.stop()


def test_a_joint_that_is_not_a_number_never_reaches_the_robot(rig: Rig) -> None:
    feeder = Feeder(rig.robot)
    arm(rig)
    assert rig.mode("run")
    rig.robot.poison = float("nan")
    assert rig.mode("hold", 2.0)
    feeder.stop()
    assert all(np.isfinite(values).all() for _, _, values in list(rig.robot.commands))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"robot": "another"}, "robot"),
        ({"joint_names": ("a",) * 14}, "names"),
        ({"age_s": 5.0}, "old"),
        ({"age_s": -5.0}, "future"),
    ],
)
def test_a_wrong_chunk_is_refused_whole(rig: Rig, change: dict[str, Any], code: str) -> None:
    arm(rig)
    before = sum_refused(rig)
    since = time.monotonic()
    for _ in range(3):
        rig.robot.send_chunk(wave, **dict(change))
        time.sleep(0.05)
    assert rig.operator.wait_for(lambda: sum_refused(rig) >= before + 3, 3.0), rig.operator.diagnostics
    assert rig.operator.state["mode"] == "hold"
    _, joints = rig.robot.arm_commands(1, since)
    assert joints.size == 0 or np.ptp(joints, axis=0).max() < 1e-6


def sum_refused(rig: Rig) -> int:
    loop = rig.operator.diagnostics.get("command: loop", {})
    return sum(int(count) for key, count in loop.items() if key.startswith("refused_"))


def test_pause_and_resume(rig: Rig) -> None:
    feeder = Feeder(rig.robot)
    arm(rig)
    assert rig.mode("run")
    assert rig.operator.call("command/pause")[0] and rig.mode("pause")
    assert rig.operator.wait_for(lambda: rig.operator.state.get("at_rest") == "True", 1.0)
    since = time.monotonic() + 0.05
    time.sleep(0.3)
    assert rig.robot.arm_commands(1, since)[0].size == 0
    assert rig.operator.call("command/resume")[0] and rig.mode("run")
    feeder.stop()


def test_a_second_publisher_forbids_arming(rig: Rig) -> None:
    intruder = rig.robot.node.create_publisher(RobotStatus, "/arm_master_r_status", qos.COMMAND)
    try:
        assert rig.operator.wait_for(lambda: not rig.operator.call("command/arm")[0], 5.0)
        accepted, message = rig.operator.call("command/arm")
        assert not accepted and "/arm_master_r_status" in message and "robot" in message
        assert rig.operator.state["armed"] == "False"
    finally:
        rig.robot.node.destroy_publisher(intruder)
    arm(rig)


def test_a_policy_started_anew_with_another_instruction_is_not_followed_until_it_is_told(rig: Rig) -> None:
    def announces(text: str) -> Any:
        made = rig.robot.node.create_publisher(String, "policy/instruction", qos.LATCHED)
        made.publish(String(data=text))
        return made

    first = announces("place it")
    arm(rig)
    feeder = Feeder(rig.robot)
    try:
        assert rig.mode("run")
        rig.robot.node.destroy_publisher(first)
        second = announces("pick it")
        assert rig.mode("hold"), rig.operator.state
        time.sleep(0.5)
        assert rig.operator.state["mode"] == "hold" and rig.operator.state["armed"] == "True"
        second.publish(String(data="place it"))  # as a cell tells it again
        assert rig.mode("run")
        rig.robot.node.destroy_publisher(second)
        third = announces("pick it")
        assert rig.mode("hold")
        assert rig.operator.call("command/disarm")[0]
        assert rig.operator.wait_for(lambda: rig.operator.state.get("at_rest") == "True", 5.0)
        arm(rig)
        assert rig.mode("run"), "a person has armed them anew"
        rig.robot.node.destroy_publisher(third)
    finally:
        feeder.stop()


def test_a_second_source_of_plans_stops_the_arms(rig: Rig) -> None:
    arm(rig)
    feeder = Feeder(rig.robot)
    intruder = Node("intruder", context=rig.robot.node.context)
    try:
        assert rig.operator.wait_for(lambda: rig.operator.state["mode"] == "run", 5.0)
        intruder.create_publisher(JointTrajectory, "policy/chunk", qos.NEWEST)
        assert rig.operator.wait_for(lambda: rig.operator.state["mode"] == "fault", 5.0)
        assert "/intruder and /robot both send plans" in rig.operator.state["reason"]
    finally:
        feeder.stop()
        intruder.destroy_node()
    assert rig.operator.wait_for(lambda: rig.operator.call("command/reset")[0], 5.0)


def test_go_to_ready_is_slow_and_arrives(rig: Rig) -> None:
    rig.robot.positions[:] = READY + 0.1
    time.sleep(0.2)
    arm(rig)
    since = time.monotonic()
    assert rig.operator.call("command/ready")[0]
    assert rig.operator.wait_for(lambda: abs(rig.robot.positions[8] - READY[8]) < 1e-3, 8.0)
    assert differences(rig.robot, since).max() <= rig.robot.profile.max_velocity[7] * rig.robot.profile.ready_speed * 0.01 * 1.01


@pytest.mark.parametrize("ended", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_in_motion_comes_to_rest_first(
    domain_id: int, tmp_path: Path, ended: signal.Signals, request: pytest.FixtureRequest
) -> None:
    # Below `nohup` it is ignored, and so it is in children.
    request.addfinalizer(partial(signal.signal, ended, signal.signal(ended, signal.SIG_DFL)))
    domain = domain_id + (1 if ended is signal.SIGTERM else 6)
    with wired(domain) as robot, listening(domain) as operator, running((command_process(),), domain, tmp_path) as supervisor:
        rig = Rig(robot, operator, supervisor)
        assert rig.mode("hold", 30.0)
        feeder = Feeder(robot, lambda t: wave(t, 0.5, 0.4))
        arm(rig)
        assert rig.mode("run")
        time.sleep(0.5)
        supervisor.children["command"].send_signal(ended)
        assert supervisor.children["command"].wait(timeout=10.0) == 0
        feeder.stop()
        _, joints = robot.arm_commands(1)
        steps = np.abs(np.diff(joints[:, :6], axis=0)).max(axis=1)
        # The last command is the pose of rest. A brake of jerk J that ends within the last period covers at most J dt^3 / 6 in it.
        assert steps[-1] <= robot.profile.max_jerk[7] * 0.01**3 / 6 + 1e-9, "it did not come to rest before it ended"
        assert steps.max() <= robot.profile.max_velocity[7] * 0.01 * 1.001


def test_dry_run_has_no_publisher_on_the_robots_topics(domain_id: int, tmp_path: Path) -> None:
    domain = domain_id + 2
    with wired(domain) as robot, listening(domain) as operator, running((command_process(dry_run=True),), domain, tmp_path) as supervisor:
        rig = Rig(robot, operator, supervisor)
        assert rig.mode("hold", 30.0)
        feeder = Feeder(robot)
        arm(rig)
        assert rig.mode("run")
        feeder.stop()
        assert robot.node.count_publishers("/arm_master_r_status") == 0
        assert robot.commands == []


def test_a_silent_heartbeat_is_an_estop(domain_id: int, tmp_path: Path) -> None:
    domain = domain_id + 3
    process = command_process(heartbeat_timeout_s=0.5)
    with wired(domain) as robot, listening(domain) as operator, running((process,), domain, tmp_path) as supervisor:
        rig = Rig(robot, operator, supervisor)
        pulse = robot.node.create_publisher(Empty, "command/heartbeat", qos.COMMAND)
        timer = robot.node.create_timer(0.1, lambda: pulse.publish(Empty()))
        assert operator.wait_for(lambda: operator.state.get("mode") in ("hold", "stop"), 30.0)
        time.sleep(0.6)
        until = time.monotonic() + 10.0  # refused until the first beat is heard, which on a busy machine comes late
        while not rig.mode("hold", 0.5) and time.monotonic() < until:
            operator.call("command/reset")
        assert rig.mode("hold"), operator.state
        arm(rig)
        timer.cancel()
        assert rig.mode("stop", 3.0) and "heartbeat" in operator.state["reason"]


def test_an_estop_that_was_pressed_before_is_heard_and_outlasts_the_lifecycle(domain_id: int, tmp_path: Path) -> None:
    """A button that latches its level was pressed before anybody listened; and what is latched is reset by a person alone."""
    domain = domain_id + 5
    with wired(domain) as robot, listening(domain) as operator:
        button = robot.node.create_publisher(Bool, "e_stop", qos.LATCHED)
        button.publish(Bool(data=True))
        with running((command_process(),), domain, tmp_path):
            rig = Rig(robot, operator, None)
            assert rig.mode("stop", 30.0), operator.state
            lifecycle = robot.node.create_client(ChangeState, "command/change_state")
            assert lifecycle.wait_for_service(10.0)

            def change(transition: int) -> None:
                future = lifecycle.call_async(ChangeState.Request(transition=Transition(id=transition)))
                assert operator.wait_for(future.done, 10.0) and future.result().success

            change(Transition.TRANSITION_DEACTIVATE)
            button.publish(Bool(data=False))
            time.sleep(0.3)
            for transition in (Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                change(transition)
            operator.state.clear()
            assert rig.mode("stop", 5.0), operator.state
            assert not operator.call("command/arm")[0] and operator.call("command/reset")[0]
            assert rig.mode("hold", 5.0)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"robot": "arx_ac_onee"}, "did you mean 'arx_ac_one'"),
        ({"robot": "/nowhere/robot.yaml"}, "cannot be read"),
    ],
)
def test_what_cannot_be_configured_ends_with_one_sentence(domain_id: int, parameters: dict[str, Any], sentence: str) -> None:
    result = run_once(command_process(**parameters), domain_id + 4)
    said = result.stdout + result.stderr
    assert result.returncode == 2, said
    assert sentence in said and "Traceback" not in said


def test_the_command_process_survives_a_stopped_listener(rig: Rig) -> None:
    """A process that listens and is stopped (SIGSTOP) must not hold up the loop."""
    import subprocess
    import sys

    code = (
        "import rclpy; from rclpy.node import Node; from arx5_arm_msg.msg import RobotStatus; rclpy.init(); n=Node('l');"
        "n.create_subscription(RobotStatus,'/arm_master_r_status',lambda m: None,1); print('up',flush=True); rclpy.spin(n)"
    )
    listener = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ, text=True)
    try:
        assert listener.stdout is not None and listener.stdout.readline().strip() == "up"
        feeder = Feeder(rig.robot)
        arm(rig)
        assert rig.mode("run")
        listener.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        since = time.monotonic()
        time.sleep(1.0)
        arrivals, _ = rig.robot.arm_commands(1, since)
        feeder.stop()
        assert arrivals.size >= 60 and np.diff(arrivals).max() < 0.3
    finally:
        listener.kill()
        listener.wait()
