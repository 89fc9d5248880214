"""Trajectories that end at rest: what a controller is sent, when, and what it does when nothing follows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_rig import HOME, small_document
from hypothesis import example, given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.nodes import outputs
from internvla_a1_ros.nodes.outputs import TrajectoryMessage
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.wire_commands import CommandReader
from internvla_a1_ros.safety.limiter import Limiter
from internvla_a1_ros.simulation.joint_robot import JointRobot, Trajectory


def with_trajectories(**command: Any) -> RobotProfile:
    document = small_document()
    document["commands"] = [
        {"topic": "/c", "type": "trajectory_msgs/msg/JointTrajectory", "joints": ["gripper", "shoulder", "elbow"], **command}
    ]
    document["joints"][0]["measured"] = {"scale": -1.0}
    return RobotProfile.model_validate(document)


def moving(profile: RobotProfile, ticks: int, speed: FloatArray) -> Limiter:
    limiter = Limiter(profile)
    limiter.reset(HOME)
    for k in range(1, ticks + 1):
        limiter.step(HOME + speed * k * profile.dt_ns * 1e-9, speed, np.zeros(3))
    return limiter


@settings(max_examples=60, deadline=None)
@example(16, [0.0, 0.5, 0.0], False, 0.005)
@given(st.integers(0, 40), st.lists(st.floats(-1.4, 1.4), min_size=3, max_size=3), st.booleans(), st.sampled_from([0.005, 0.02, 0.05]))
def test_the_way_to_rest_is_the_brakes_own(ticks: int, speed: list[float], stop: bool, spacing_s: float) -> None:
    profile = with_trajectories()
    limiter = moving(profile, ticks, np.array(speed))
    if stop:
        limiter.brake(stop=True)
    before = limiter.positions.copy()
    times, positions, velocities = limiter.way_to_rest(spacing_s)
    assert np.array_equal(limiter.positions, before), "asking moves nothing"
    assert times[0] == 0.0 and (np.diff(times) > 0).all() and np.array_equal(positions[0], before) and not velocities[-1].any()
    low, high = profile.lower - 1e-6, profile.upper + 1e-6
    assert (positions >= low).all() and (positions <= high).all()
    while not limiter.at_rest:
        limiter.brake(stop=stop)
    assert positions[-1] == pytest.approx(limiter.positions, abs=2e-4), "where the arm would come to rest by itself"


def test_points_are_in_the_topics_order_and_units_and_come_back() -> None:
    profile = with_trajectories()
    limiter = moving(profile, 30, np.array([0.5, -0.3, 1.0]))
    way = limiter.way_to_rest(0.02)
    message = TrajectoryMessage(profile.commands[0], profile).of(*way)
    assert list(message.joint_names) == ["gripper", "shoulder", "elbow"]
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
    assert message.points[0].positions[1] == pytest.approx(-limiter.positions[0]), "the shoulder turns the other way on the wire"
    times, positions, velocities = CommandReader(profile.commands[0], profile).trajectory(message)
    slots = [2, 0, 1]
    assert times == pytest.approx(way[0] + 0.02, abs=1e-9)
    assert positions == pytest.approx(way[1][:, slots]) and velocities == pytest.approx(way[2][:, slots])


def test_every_few_ticks_and_at_once_when_it_matters() -> None:
    message = TrajectoryMessage(with_trajectories(every=3, lead_s=0.05).commands[0], with_trajectories())
    rest = np.zeros(1), np.zeros((1, 3)), np.zeros((1, 3))
    sent = [message.due(lambda _: rest, urgent=k == 4) is not None for k in range(10)]
    assert sent == [True, False, False, True, True, False, False, True, False, False]


def test_a_controller_that_hears_nothing_more_comes_to_rest_inside_the_limits() -> None:
    profile = with_trajectories()
    message, reader = TrajectoryMessage(profile.commands[0], profile), CommandReader(profile.commands[0], profile)
    robot, now = JointRobot(HOME, lag_s=0.001), 0.0
    limiter, speed, dt = Limiter(profile), np.array([0.6, 0.8, -2.0]), profile.dt_ns * 1e-9
    limiter.reset(HOME)
    robot.step(now)
    for k in range(1, 41):
        limiter.step(HOME + speed * k * dt, speed, np.zeros(3))
        robot.follow(reader.slots, *reader.trajectory(message.of(*limiter.way_to_rest(0.02))), now)
        now += dt
        robot.step(now)
    assert robot.positions == pytest.approx(limiter.positions - speed * 0.02, abs=0.03), "it follows, the lead behind"
    last = []
    while now < 1.2:  # the command process is gone
        now += 0.002
        robot.step(now)
        last.append(robot.positions.copy())
    assert np.abs(np.diff(last, axis=0))[-100:].max() < 1e-9, "at rest"
    while not limiter.at_rest:
        limiter.brake()
    assert last[-1] == pytest.approx(limiter.positions, abs=1e-3)


@pytest.mark.parametrize(
    ("times", "speed", "sentence"),
    [
        ([], 0.0, "no points"),
        ([0.0], 0.0, "rise from above 0"),
        ([0.2, 0.1], 0.0, "rise from above 0"),
        ([0.1], 0.1, "at its end, expected none"),
    ],
)
def test_the_simulated_controller_refuses_what_a_real_one_does(times: list[float], speed: float, sentence: str) -> None:
    n = len(times)
    with pytest.raises(ValueError, match=sentence):
        Trajectory(np.zeros(1), np.zeros(1), np.array(times), np.zeros((n, 1)), np.full((n, 1), speed))


def test_a_simulated_robot_takes_nothing_that_is_not_finite() -> None:
    robot = JointRobot(np.zeros(2))
    with pytest.raises(ValueError, match="expected finite numbers"):
        robot.set_points(np.array([0, 1]), np.array([0.1, np.nan]))
    robot.step(0.0)
    robot.step(1.0)
    assert robot.positions.tolist() == [0.0, 0.0]


class FakeAction:
    """Stands in for control_msgs' action and a controller's server: the wheels have neither."""

    class Goal:
        def __init__(self, trajectory: Any) -> None:
            self.trajectory = trajectory

    def __init__(self, accepts: bool, answers: bool = True) -> None:
        self.accepts, self.answers, self.goals = accepts, answers, []

    def action_client(self, kind: type, name: str) -> FakeAction:
        return self

    def send_goal_async(self, goal: Any) -> FakeAction:
        self.goals.append(goal.trajectory)
        return self

    def add_done_callback(self, callback: Any) -> None:
        if self.answers:
            callback(self)

    def result(self) -> Any:
        return SimpleNamespace(accepted=self.accepts)


@pytest.mark.parametrize("accepts", [True, False])
def test_through_a_stand_in_for_the_action_goals_replace_each_other_and_a_refusal_is_said(
    accepts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = with_trajectories(type="control_msgs/action/FollowJointTrajectory", every=5, lead_s=0.06)
    monkeypatch.setattr(outputs, "message_class", lambda _: FakeAction)
    action, said, limiter = FakeAction(accepts), [], moving(with_trajectories(), 20, np.array([0.5, 0.5, 0.5]))
    output = outputs.make_output(profile.commands[0], profile, action, said.append)  # type: ignore[arg-type]
    for _ in range(10):
        output.send(limiter.positions, None, limiter.way_to_rest, urgent=False)
    assert len(action.goals) == 2 and not any(action.goals[0].points[-1].velocities)
    assert said == ([] if accepts else ["/c: the controller refused a trajectory; is it active, and does it know these joints?"] * 2)


def test_a_controller_that_does_not_answer_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = with_trajectories(type="control_msgs/action/FollowJointTrajectory", every=1, lead_s=0.06)
    monkeypatch.setattr(outputs, "message_class", lambda _: FakeAction)
    action, said, limiter = FakeAction(True, answers=False), [], moving(with_trajectories(), 20, np.array([0.5, 0.5, 0.5]))
    output = outputs.make_output(profile.commands[0], profile, action, said.append)  # type: ignore[arg-type]

    def send(count: int, urgent: bool = False) -> int:
        for _ in range(count):
            output.send(limiter.positions, None, limiter.way_to_rest, urgent=urgent)
        return len(action.goals)

    assert send(1000) == 19 + 1000 // 20
    assert said == ["/c: the controller has not answered the last 20 trajectories; is it there?"]
    before = len(action.goals)
    assert send(1, urgent=True) == before + 1, "a stop is always sent"
    action.answers = True
    send(40)
    before = len(action.goals)
    assert send(10) == before + 10, "it is there again"
