"""Checks: on the boundary, one step beyond it, and the sentence that says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from command_rig import ACTION_NS, HOME, ROBOT, small_document, small_profile

from internvla_a1_ros.core.types import ActionChunk, JointState, Verdict
from internvla_a1_ros.safety import checks
from internvla_a1_ros.safety.assertion import LastAssertion
from internvla_a1_ros.safety.tracking import Tracking

PROFILE = small_profile()
NAMES = PROFILE.joint_names
NOW = 50_000_000_000
MS = 1_000_000
NO_EPOCHS: dict[str, int] = {}


def chunk(**changes: Any) -> ActionChunk:
    """Return a plan of ten actions at home, observed 100 ms ago."""
    stamp = changes.pop("stamp_ns", NOW - 100 * MS)
    values = {
        "robot": ROBOT,
        "joint_names": NAMES,
        "stamp_ns": stamp,
        "first_ns": stamp + ACTION_NS,
        "dt_ns": ACTION_NS,
        "positions": np.tile(HOME, (10, 1)),
    }
    return ActionChunk(**{**values, **changes})


def check(plan: ActionChunk, epochs: dict[str, int] = NO_EPOCHS) -> Verdict:
    return checks.check_chunk(plan, PROFILE, ROBOT, NOW, epochs)


def at(joint: int, value: float, step: int = 4) -> ActionChunk:
    positions = np.tile(HOME, (10, 1))
    positions[step, joint] = value
    return chunk(positions=positions)


def test_a_good_plan_is_accepted() -> None:
    assert check(chunk()) == Verdict(True, "ok", "")


@pytest.mark.parametrize(
    ("plan", "code", "reason"),
    [
        (chunk(robot="cell_2"), "robot", "plan: got one for robot 'cell_2', expected 'cell_1'"),
        (
            chunk(joint_names=("elbow", "shoulder", "gripper")),
            "names",
            "plan: got the joints in another order than the profile's",
        ),
        (
            chunk(joint_names=("shoulder", "elbow", "claw")),
            "names",
            "plan: got joints without ['gripper'] and with unknown ['claw']",
        ),
        (chunk(positions=np.tile(HOME, (257, 1))), "malformed", "plan: got 257 actions, allowed 256"),
        (chunk(dt_ns=999_999), "malformed", "plan: got actions 999999 ns apart, expected at least 1000000"),
        (
            chunk(stamp_ns=NOW + 20 * MS + 1),
            "future",
            "plan: its observation is 0.020 s in the future, allowed 0.020 s",
        ),
        (chunk(first_ns=NOW + 1000 * MS + 1000), "future", "plan: it starts in 1.000 s, allowed 1.000 s"),
        (
            chunk(stamp_ns=NOW - 800 * MS - 1000, first_ns=NOW),
            "too_old",
            "plan: its observation is 0.800 s old, allowed 0.800 s",
        ),
        (chunk(first_ns=NOW - 9 * ACTION_NS), "too_old", "plan: it ended 0.000 s ago"),
        (chunk(first_ns=NOW - 15 * ACTION_NS), "too_old", "plan: it ended 0.200 s ago"),
        (
            at(0, 2.1 + 1e-9),
            "beyond_limit",
            "plan: got 2.1000 for joint 'shoulder' at action 4, allowed -1.1000 to 2.1000 (limits with margin)",
        ),
        (
            at(1, -0.16),
            "beyond_limit",
            "plan: got -0.1600 for joint 'elbow' at action 4, allowed -0.1500 to 3.1000 (limits with margin)",
        ),
        (
            at(2, 0.31),
            "beyond_limit",
            "plan: got 0.3100 for joint 'gripper' at action 4, allowed -3.7000 to 0.3000 (limits with margin)",
        ),
    ],
)
def test_a_plan_is_refused_whole(plan: ActionChunk, code: str, reason: str) -> None:
    assert check(plan) == Verdict(False, code, reason)


@pytest.mark.parametrize(
    "plan",
    [
        chunk(positions=np.tile(HOME, (256, 1))),
        chunk(stamp_ns=NOW + 20 * MS),
        chunk(first_ns=NOW + 1000 * MS),
        chunk(stamp_ns=NOW - 800 * MS, first_ns=NOW),
        chunk(first_ns=NOW - 9 * ACTION_NS + 1),
        at(0, 2.1),
        at(0, -1.1),
        at(2, -3.6999),
    ],
)
def test_on_the_boundary_it_is_accepted(plan: ActionChunk) -> None:
    assert check(plan)


@pytest.mark.parametrize("epoch", ["arm", "reset", "resume", "instruction", "clock_jump"])
def test_an_observation_from_before_does_not_count(epoch: str) -> None:
    said = epoch.replace("_", " ")
    verdict = check(chunk(), {"other": NOW - 200 * MS, epoch: NOW - 99 * MS})
    reason = f"plan: its observation is from 0.001 s before the last {said}, expected one after"
    assert verdict == Verdict(False, f"before_{epoch}", reason)
    assert check(chunk(), {epoch: NOW - 100 * MS})


def test_the_order_of_the_checks() -> None:
    """The first thing that is wrong is said: what it is before when it is from, when before what it asks."""
    wrong: dict[str, Any] = {"robot": "x", "joint_names": NAMES[::-1], "positions": np.full((300, 3), 9.0)}
    epochs = {"arm": NOW + 2_000 * MS}
    got = []
    for fixed in ({}, {"robot": ROBOT}, {"joint_names": NAMES}, {"positions": np.full((10, 3), 9.0)}):
        wrong.update(fixed)
        got.append(check(chunk(stamp_ns=NOW + 1_000 * MS, **wrong), epochs).code)
    got.append(check(chunk(stamp_ns=NOW + 1_000 * MS, **wrong), {}).code)
    got.append(check(chunk(stamp_ns=NOW - 1_000 * MS, **wrong), {}).code)
    got.append(check(chunk(**wrong), {}).code)
    assert got == ["robot", "names", "malformed", "before_arm", "future", "too_old", "beyond_limit"]


# -- from the wire ---------------------------------------------------------------------------------

OFFSETS = [k * ACTION_NS + ACTION_NS for k in range(3)]
ROWS = [[0.1, 0.2, -0.3], [0.4, 0.5, -0.6], [0.7, 0.8, -0.9]]


def wire(**changes: Any) -> ActionChunk | Verdict:
    values = {"names": list(NAMES), "stamp_ns": NOW, "offsets_ns": OFFSETS, "positions": ROWS, **changes}
    return checks.wire_chunk(PROFILE, ROBOT, **values)


def test_a_plan_from_the_wire() -> None:
    plan = wire()
    assert isinstance(plan, ActionChunk)
    assert (plan.robot, plan.joint_names, plan.stamp_ns, plan.first_ns, plan.dt_ns) == (ROBOT, NAMES, NOW, NOW + ACTION_NS, ACTION_NS)
    assert plan.positions.tolist() == ROWS


def test_joints_are_matched_by_name() -> None:
    plan = wire(names=["gripper", "shoulder", "elbow"])
    assert isinstance(plan, ActionChunk) and plan.joint_names == NAMES
    assert plan.positions[0].tolist() == [0.2, -0.3, 0.1]


def test_two_actions_and_a_rounded_step_are_enough() -> None:
    assert isinstance(wire(offsets_ns=OFFSETS[:2], positions=ROWS[:2]), ActionChunk)
    assert isinstance(wire(offsets_ns=[0, ACTION_NS, 2 * ACTION_NS + 1000]), ActionChunk)
    assert isinstance(wire(offsets_ns=[0, 1, 2]), ActionChunk)


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"names": ["shoulder", "elbow"]}, "names", "plan: got joints without ['gripper']"),
        ({"names": [*NAMES, "elbow"]}, "names", "plan: got joints with repeated ['elbow']"),
        ({"names": [*NAMES, "tail"]}, "names", "plan: got joints with unknown ['tail']"),
        (
            {"names": ["elbow", "elbow", "tail"]},
            "names",
            "plan: got joints without ['shoulder', 'gripper'] and with unknown ['tail'] and with repeated ['elbow']",
        ),
        (
            {"offsets_ns": OFFSETS[:1], "positions": ROWS[:1]},
            "malformed",
            "plan: got 1 actions with 1 times, expected at least 2, as many",
        ),
        ({"positions": ROWS[:2]}, "malformed", "plan: got 2 actions with 3 times, expected at least 2, as many"),
        ({"offsets_ns": [0, 0, 0]}, "malformed", "plan: got unevenly spaced times, expected them rising by a constant step"),
        ({"offsets_ns": [0, -5, -10]}, "malformed", "plan: got unevenly spaced times, expected them rising by a constant step"),
        (
            {"offsets_ns": [0, ACTION_NS, 2 * ACTION_NS + 1001]},
            "malformed",
            "plan: got unevenly spaced times, expected them rising by a constant step",
        ),
        (
            {"offsets_ns": [0, ACTION_NS, 2 * ACTION_NS - 1001]},
            "malformed",
            "plan: got unevenly spaced times, expected them rising by a constant step",
        ),
        ({"positions": [[0.1, 0.2], [0.3], [0.4]]}, "malformed", "plan: got actions that are not 3 numbers each"),
        ({"positions": [["a", "b", "c"]] * 3}, "malformed", "plan: got actions that are not 3 numbers each"),
        ({"positions": [None] * 3}, "malformed", "plan: got positions of shape (3,), expected (3, 3)"),
        ({"positions": [[0.1, 0.2]] * 3}, "malformed", "plan: got positions of shape (3, 2), expected (3, 3)"),
        (
            {"positions": [ROWS[0], [0.4, math.nan, -0.6], ROWS[2]]},
            "not_finite",
            "plan: got nan for joint 'elbow' at action 1, expected a finite number",
        ),
        (
            {"positions": [ROWS[0], ROWS[1], [0.1, -math.inf, 0.2]], "names": ["elbow", "gripper", "shoulder"]},
            "not_finite",
            "plan: got -inf for joint 'gripper' at action 2, expected a finite number",
        ),
    ],
)
def test_what_is_no_plan_is_said(changes: dict[str, Any], code: str, reason: str) -> None:
    assert wire(**changes) == Verdict(False, code, reason)


# -- what people may ask ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "edge", "silent_s", "timeout_s", "expected"),
    [
        (False, False, None, None, Verdict(True)),
        (False, False, 99.0, None, Verdict(True)),
        (False, False, None, 0.5, Verdict(True)),
        (False, False, 0.5, 0.5, Verdict(True)),
        (False, False, 0.501, 0.5, Verdict(False, "heartbeat", "the e-stop's heartbeat is silent for 0.501 s, allowed 0.500 s")),
        (True, False, 0.0, 0.5, Verdict(False, "estop", "the e-stop is pressed")),
        (False, True, None, None, Verdict(False, "estop", "the e-stop is pressed")),
    ],
)
def test_estop(level: bool, edge: bool, silent_s: float | None, timeout_s: float | None, expected: Verdict) -> None:
    assert checks.check_estop(level, edge, silent_s, timeout_s) == expected


def test_joints() -> None:
    assert checks.check_joints(None, PROFILE) == Verdict(False, "no_joints", "no joint state was received yet")
    assert checks.check_joints(0.1, PROFILE) == Verdict(True)
    assert checks.check_joints(0.1004, PROFILE) == Verdict(False, "stale_joints", "the joint state is 0.100 s old, allowed 0.100 s")


def test_alone_and_at_rest() -> None:
    assert checks.check_alone(None) == Verdict(True)
    assert checks.check_alone("/teleop on /command") == Verdict(
        False, "foreign_publisher", "someone else can command the arms: /teleop on /command"
    )
    assert checks.check_rest(True) == Verdict(True)
    assert checks.check_rest(False) == Verdict(False, "moving", "the arms are still braking: try again in a moment")


def test_pose() -> None:
    assert checks.check_pose(np.array([2.1, -0.15, 0.3]), PROFILE) == Verdict(True)
    assert checks.check_pose(np.array([-1.1, 3.1, -3.6999]), PROFILE) == Verdict(True)
    for joint, value, allowed in ((0, 2.11, "-1.1000 to 2.1000"), (1, -0.16, "-0.1500 to 3.1000")):
        pose = HOME.copy()
        pose[joint] = value
        assert checks.check_pose(pose, PROFILE) == Verdict(
            False,
            "pose",
            f"joint '{NAMES[joint]}' is at {value:.4f}, allowed {allowed} (limits with margin): move it by hand or correct the profile",
        )


def test_moved() -> None:
    commanded = np.array([0.0, 1.0, -1.7])
    assert checks.check_moved(commanded, commanded + [0.2, -0.2, 5.0], PROFILE) == Verdict(True)
    for sign in (1.0, -1.0):
        assert checks.check_moved(commanded, commanded + [0.0, 0.2001 * sign, 0.0], PROFILE) == Verdict(
            False,
            "moved",
            f"joint 'elbow' is at {1 + 0.2001 * sign:.4f}, commanded 1.0000, allowed distance 0.2000: disarm and arm again",
        )


# -- the last assertion ----------------------------------------------------------------------------

DT = 0.01


def judged(commands: list[list[float]], *, stop: bool = False, start: list[float] | None = None) -> Verdict:
    """Return the verdict on the last of some commands after a rest; the others must be accepted."""
    assertion = LastAssertion(PROFILE)
    assertion.reset(np.array(start or [0.0, 1.0, -1.7]))
    for command in commands[:-1]:
        assert assertion.check(np.array(command), stop=stop)
    return assertion.check(np.array(commands[-1]), stop=stop)


def full_speed(last: float) -> list[list[float]]:
    """Return commands that rise to 1.5 rad/s within the limits, and one `last` further."""
    p = v = 0.0
    out = []
    for a in (4.0, *[8.0] * 17, 6.0, 4.0):
        v += a * DT
        p += v * DT
        out.append([p, 1.0, -1.7])
    return [*out, [p + last, 1.0, -1.7]]


def test_a_rest_may_go_on() -> None:
    assert judged([[0.0, 1.0, -1.7]] * 5) == Verdict(True)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("stop", [False, True])
def test_jerk_on_and_beyond_the_boundary(sign: float, stop: bool) -> None:
    allowed = 6000.0 if stop else 500.0
    share = min(allowed, (20.0 if stop else 10.0) / DT)  # the acceleration of the first step is jerk times a tick
    step = share * DT**3
    assert judged([[sign * step, 1.0, -1.7]], stop=stop)
    if not stop:
        verdict = judged([[sign * step * 1.00001, 1.0, -1.7]])
        assert verdict == Verdict(
            False,
            "assert_jerk",
            f"last assertion: jerk of joint 'shoulder' would be {sign * 500.005:.4f}, allowed at most 500.0005; not sent",
        )


@pytest.mark.parametrize("stop", [False, True])
def test_acceleration_on_and_beyond_the_boundary(stop: bool) -> None:
    limit = 20.0 if stop else 10.0
    rising = []
    p = v = 0.0
    for a in (limit / 2, limit):
        v += a * DT
        p += v * DT
        rising.append([p, 1.0, -1.7])
    v += limit * DT
    assert judged([*rising, [p + v * DT, 1.0, -1.7]], stop=stop)
    verdict = judged([*rising, [p + v * DT + limit * 2e-6 * DT * DT, 1.0, -1.7]], stop=stop)
    allowed = f"{limit * (1 + 1e-6):.4f}"
    text = f"last assertion: acceleration of joint 'shoulder' would be {limit * (1 + 2e-6):.4f}, allowed at most {allowed}; not sent"
    assert verdict == Verdict(False, "assert_acceleration", text)


def test_speed_on_and_beyond_the_boundary() -> None:
    assert judged(full_speed(1.5 * DT))
    verdict = judged(full_speed(1.500003 * DT))
    text = "last assertion: speed of joint 'shoulder' would be 1.5000, allowed at most 1.5000; not sent"
    assert verdict == Verdict(False, "assert_speed", text)


def test_the_worst_is_not_needed_to_be_first() -> None:
    # The elbow alone is too fast: its name is said, with its own limit.
    assert "acceleration of joint 'elbow' would be 10000.0000, allowed at most 10.0000" in judged(
        [[0.0, 2.0, -1.7]], stop=False
    ).reason or ("speed of joint 'elbow' would be 100.0000, allowed at most 1.5000" in judged([[0.0, 2.0, -1.7]]).reason)
    assert judged([[0.0, 1.0, -3.0]]).reason.startswith(
        "last assertion: speed of joint 'gripper' would be -130.0000, allowed at most 12.0000"
    )


@pytest.mark.parametrize("joint", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_command_that_is_no_number(joint: int, value: float) -> None:
    command = [0.0, 1.0, -1.7]
    command[joint] = value
    text = f"last assertion: position of joint '{NAMES[joint]}' would be {value:.4f}, allowed a finite number; not sent"
    assert judged([command]) == Verdict(False, "assert_position", text)


@pytest.mark.parametrize(("joint", "limit", "outwards"), [(0, -1.0, -1.0), (0, 2.0, 1.0), (1, -0.05, -1.0), (2, 0.0, 1.0)])
def test_position_limits(joint: int, limit: float, outwards: float) -> None:
    start = [0.0, 1.0, -1.7]
    start[joint] = limit
    command = list(start)
    command[joint] = limit + 0.9e-6 * outwards
    assert LastAssertion(PROFILE).check(np.array(command), stop=False).code != "assert_position"
    command[joint] = limit + 1.1e-6 * outwards
    text = f"last assertion: position of joint '{NAMES[joint]}' would be {command[joint]:.4f}, allowed a place inside the limits; not sent"
    assert judged([command], start=start) == Verdict(False, "assert_position", text)


@pytest.mark.parametrize(("outside", "outwards"), [(2.05, 1.0), (-1.05, -1.0)])
def test_outside_only_inwards(outside: float, outwards: float) -> None:
    start = [outside, 1.0, -1.7]
    inwards = [outside - 4e-4 * outwards, 1.0, -1.7]
    assert judged([inwards], start=start)
    assert judged([[outside + 1.1e-6 * outwards, 1.0, -1.7]], start=start).code == "assert_position"
    # What was won is not given back.
    slower = [[outside - x * outwards, 1.0, -1.7] for x in (4e-4, 8e-4, 8e-4 - 2e-6)]
    assert judged(slower, start=start).code == "assert_position"


def test_a_refused_command_does_not_count_as_sent() -> None:
    assertion = LastAssertion(PROFILE)
    start = np.array([0.0, 1.0, -1.7])
    assertion.reset(start)
    assert not assertion.check(start + [1.0, 0.0, 0.0], stop=False)
    for _ in range(5):
        assert assertion.check(start, stop=False)
    assert assertion.check(start + [4e-4, 0.0, 0.0], stop=False)


def test_reset_forgets_the_motion() -> None:
    assertion = LastAssertion(PROFILE)
    assertion.reset(np.array([0.0, 1.0, -1.7]))
    for k in range(1, 4):
        assertion.check(np.array([4e-4 * k, 1.0, -1.7]), stop=False)
    assertion.reset(np.array([0.5, 1.0, -1.7]))
    assert assertion.check(np.array([0.5, 1.0, -1.7]), stop=False)


def test_the_rate_of_the_profile_counts() -> None:
    slow = LastAssertion(small_profile(control_rate_hz=60))
    slow.reset(np.array([0.0, 1.0, -1.7]))
    step = 500.0 / 60.0**3
    assert slow.check(np.array([step * 0.9999, 1.0, -1.7]), stop=False)
    slow.reset(np.array([0.0, 1.0, -1.7]))
    assert not slow.check(np.array([step * 1.0001, 1.0, -1.7]), stop=False)


# -- tracking --------------------------------------------------------------------------------------

TICK = PROFILE.dt_ns
DELAY = 30 * MS


class Follows:
    """Commands that ramp up by 0.01 a tick, and what is said to measurements of them."""

    def __init__(self) -> None:
        self.tracking = Tracking(PROFILE)
        self.now = NOW

    def command(self, k: int) -> np.ndarray:
        return HOME + np.array([0.01 * k, 0.0, 0.0])

    def run(self, ticks: int, error: float = 0.0, joint: int = 0, late_ns: int = 0) -> list[Verdict]:
        """Return the verdicts on arms that were where they were told `DELAY` before, off by `error`, seen `late_ns` ago."""
        out = []
        for _ in range(ticks):
            self.now += TICK
            k = (self.now - NOW) // TICK
            measured = self.command((self.now - late_ns - DELAY - NOW) // TICK)
            measured[joint] += error
            out.append(self.tracking.check(JointState(self.now - late_ns, measured), self.now))
            self.tracking.commanded(self.command(k), self.now)
        return out


@pytest.mark.parametrize("late_ns", [0, 3 * MS, 40 * MS, 95 * MS])
def test_arms_that_follow(late_ns: int) -> None:
    assert all(Follows().run(100, late_ns=late_ns))
    assert all(Follows().run(100, 0.1999, late_ns=late_ns - late_ns % TICK))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_arms_that_do_not_follow(sign: float) -> None:
    follows = Follows()
    assert all(follows.run(20))
    verdicts = follows.run(40, 0.2001 * sign)
    # The first deviation is seen at once, and believed once it lasts longer than 0.3 s.
    assert [bool(v) for v in verdicts] == [True] * 31 + [False] * 9
    assert verdicts[31] == Verdict(False, "tracking", "joint 'shoulder' is 0.2001 from its command, allowed 0.2000 for 0.30 s")


def test_a_late_measurement_is_compared_with_the_command_of_its_time() -> None:
    follows = Follows()
    assert all(follows.run(20, late_ns=90 * MS))
    assert not any(follows.run(40, 0.21, late_ns=90 * MS)[31:])


def test_a_deviation_that_ends_starts_anew() -> None:
    follows = Follows()
    follows.run(20)
    assert all(follows.run(30, 0.3)) and all(follows.run(1)) and all(follows.run(31, 0.3))
    assert not any(follows.run(2, 0.3))


def test_a_gripper_may_be_blocked() -> None:
    assert all(Follows().run(100, 2.0, joint=2))


def test_before_the_first_command_counts_nothing() -> None:
    tracking = Tracking(PROFILE)
    for k in range(100):
        assert tracking.check(JointState(NOW + k * TICK, HOME + 1.0), NOW + k * TICK)
    tracking.commanded(HOME, NOW + 100 * TICK)
    assert tracking.check(JointState(NOW + 100 * TICK + DELAY - 1, HOME + 1.0), NOW + 103 * TICK)
    assert tracking._since_ns is None
    assert tracking.check(JointState(NOW + 100 * TICK + DELAY, HOME + 1.0), NOW + 103 * TICK)
    assert tracking._since_ns == NOW + 103 * TICK


def test_reset_forgets_commands_and_deviations() -> None:
    follows = Follows()
    follows.run(20)
    follows.run(25, 0.3)
    follows.tracking.reset()
    assert all(follows.run(34, 0.3))  # three ticks until a command is old enough, then 0.3 s


def test_the_newest_command_that_old_is_the_one() -> None:
    tracking = Tracking(PROFILE)
    for k in range(6):
        tracking.commanded(HOME + 0.3 * k, NOW + k * TICK)
    assert tracking.check(JointState(NOW + 2 * TICK + DELAY, HOME + 0.6), NOW + 5 * TICK)
    assert tracking._since_ns is None
    tracking.check(JointState(NOW + 2 * TICK + DELAY, HOME + 0.3), NOW + 5 * TICK)
    assert tracking._since_ns is not None


def test_the_step_gate_refuses_exactly_what_the_robot_would() -> None:
    motion = small_document()["motion"]
    motion["arm"]["max_step"] = 0.125
    tracking = Tracking(small_profile(motion=motion))
    tracking.commanded(HOME, NOW)
    assert tracking.check(JointState(NOW, HOME + np.array([0.1249, -0.1249, 5.0])), NOW), "a gripper has no gate here"
    for sign in (1.0, -1.0):
        verdict = tracking.check(JointState(NOW, np.array([0.5, 1.0 + 0.125 * sign, -1.7])), NOW)
        assert verdict == Verdict(False, "step", "joint 'elbow' is 0.1250 from its command, allowed below 0.1250")
