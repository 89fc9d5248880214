"""The command loop on a simulated clock: every way in, every way out, and what is sent on the way."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from command_rig import ACTION_NS, HOME, ROBOT, Rig, assert_within, small_document, small_profile

from internvla_a1_ros.core.types import FloatArray, JointState, Mode, Verdict, refused
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.command_io import Request
from internvla_a1_ros.runtime.command_loop import CommandLoop
from internvla_a1_ros.safety.limiter import Limiter

THERE = np.array([1.2, 2.0, -0.7])
TICK = 10_000_000


def until_rest(rig: Rig, at_most: int = 100) -> int:
    """Tick until nothing moves; return the ticks it took."""
    for ticks in range(1, at_most + 1):
        if rig.tick().at_rest:
            return ticks
    raise AssertionError("still moving")


def test_the_command_process_imports_none_of_the_heavy_things() -> None:
    code = (
        "import sys; import internvla_a1_ros.runtime.command_loop, internvla_a1_ros.robots.profile;"
        "bad = {'torch', 'transformers', 'onnxruntime', 'tensorrt', 'mujoco', 'rclpy', 'cv2', 'scipy'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(bad)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# -- the way in ------------------------------------------------------------------------------------


def test_from_start_to_run() -> None:
    rig = Rig()
    assert rig.tick().mode is Mode.INACTIVE
    assert rig.ask(Request.ACTIVATE).verdict == Verdict(True, "ok", "hold: activated")
    assert rig.loop.mode is Mode.HOLD and not rig.loop.armed and not rig.sent
    assert rig.ask(Request.ARM).verdict == Verdict(True, "ok", "hold: armed")
    assert rig.loop.armed and [c.tolist() for c in rig.sent] == [HOME.tolist()]
    rig.tick(5)
    assert len(rig.sent) == 6 and rig.loop.mode is Mode.HOLD
    out = rig.plan(THERE)
    assert out.mode is Mode.RAMP_IN and out.chunk_verdicts == [Verdict(True)]
    assert out.sampled_ns == rig.now_ns + 30_000_000
    for _ in range(30):
        rig.tick(9)
        rig.plan(THERE)
    assert rig.loop.mode is Mode.RUN
    assert rig.modes.index(Mode.RUN) - rig.modes.index(Mode.RAMP_IN) == 50  # ramp_s
    assert (np.abs(rig.sent[-1] - HOME) > 0.3).all()
    assert_within(rig.profile, HOME, rig.sent)
    assert rig.codes == ["activate", "arm", "plan", "ramped"]
    assert rig.loop.counters.sent == len(rig.sent) and rig.loop.counters.ticks == len(rig.modes)
    assert rig.loop.counters.chunks_accepted == 31 and not rig.loop.counters.chunks_refused


def test_the_plan_is_passed_on_unchanged_once_the_ramp_is_over() -> None:
    rig = Rig().running(THERE)
    before = rig.loop.counters.limited_ticks
    position, velocity, acceleration = (np.zeros(3) for _ in range(3))
    for k in range(60):
        out = rig.plan(THERE) if k % 10 == 0 else rig.tick()
        rig.loop._timeline.sample(out.sampled_ns, position, velocity, acceleration)
        assert np.abs(out.positions - position).max() <= 1e-6
        assert not out.limited
    assert rig.loop.counters.limited_ticks == before == 0


def test_the_first_command_is_the_measured_pose() -> None:
    rig = Rig()
    rig.measured = np.array([-0.3, 0.4, -1.0])
    rig.armed()
    assert rig.sent[0].tolist() == [-0.3, 0.4, -1.0]


def test_a_plan_far_away_is_ramped_into() -> None:
    rig = Rig().armed()
    far = np.tile([1.9, 2.9, -0.1], (50, 1))
    for k in range(200):
        if k % 10 == 0:
            rig.inbox.chunks.append(rig.chunk(positions=far))
        rig.tick()
    assert_within(rig.profile, HOME, rig.sent)
    assert np.abs(rig.sent[-1] - far[0]).max() < 0.02


@pytest.mark.parametrize(
    ("spoil", "code", "reason"),
    [
        ({"foreign": "/teleop on /command"}, "foreign_publisher", "someone else can command the arms: /teleop on /command"),
        ({"estop": True}, "arm_refused", "the e-stop is latched: release it and reset first"),
        ({"joints": None}, "no_joints", "no joint state was received yet"),
        ({"joints": "stale"}, "stale_joints", "the joint state is 0.101 s old, allowed 0.100 s"),
        ({"joints": "frozen stamp"}, "stale_joints", "the joint state is 0.500 s old, allowed 0.100 s"),
        ({"joints": "narrow"}, "joints", "joint state: got 2 joints, expected 3"),
        ({"pose": 2.2}, "pose", None),
    ],
)
def test_arming_is_refused(spoil: dict[str, Any], code: str, reason: str | None) -> None:
    rig = Rig()
    rig.tick()
    rig.ask(Request.ACTIVATE)
    rig.joints_alive = False
    after = rig.now_ns + TICK
    states = {
        "stale": (JointState(after - 1000, HOME), after - 101_000_000),
        "frozen stamp": (JointState(after - 500_000_000, HOME), after),
        "narrow": (JointState(after, HOME[:2]), after),
    }
    if "joints" in spoil:
        rig.inbox.joints = states.get(spoil["joints"])
    if "pose" in spoil:
        rig.inbox.see_joints(JointState(after, np.array([spoil["pose"], 1.0, -1.7])), after)
    rig.inbox.foreign_publisher = spoil.get("foreign")
    rig.inbox.estop(bool(spoil.get("estop")))
    verdict = rig.ask(Request.ARM).verdict
    assert verdict is not None and not verdict and verdict.code == code
    assert reason is None or verdict.reason == reason
    assert not rig.loop.armed and not rig.sent


def test_a_measurement_on_the_edge_of_stale_still_arms() -> None:
    rig = Rig()
    rig.tick()
    rig.ask(Request.ACTIVATE)
    rig.joints_alive = False
    rig.inbox.see_joints(JointState(rig.now_ns + TICK - 100_000_000, HOME), rig.now_ns)
    assert rig.ask(Request.ARM).verdict


def test_arming_waits_for_the_arms_to_rest() -> None:
    rig = Rig().running(THERE)
    rig.inbox.ask(Request.DISARM)
    verdict = rig.ask(Request.ARM).verdict
    assert verdict is not None and verdict.code == "moving" and not rig.loop.armed
    until_rest(rig)
    rig.tick(10)  # and are seen to
    assert rig.ask(Request.ARM).verdict


def test_what_the_state_machine_refuses_says_why() -> None:
    rig = Rig()
    rig.tick()
    for request in (Request.ARM, Request.PAUSE, Request.RESUME, Request.RESET, Request.READY):
        verdict = rig.ask(request).verdict
        assert verdict == Verdict(False, f"{request.value}_refused", "not active: activate first")
    assert rig.ask(Request.DISARM).verdict == Verdict(True, "ok", "inactive: disarmed")
    out = rig.loop.step(rig.inbox, rig.now_ns + TICK)
    assert not out.answers and not out.events


def test_answers_are_listed_in_the_tick_in_which_they_are_given() -> None:
    rig = Rig()
    rig.inbox.ask(Request.ACTIVATE)
    second = rig.inbox.ask(Request.ACTIVATE)
    out = rig.tick()
    assert [(t.request, bool(t.verdict)) for t in out.answers] == [(Request.ACTIVATE, True), (Request.ACTIVATE, False)]
    assert out.answers[1] is second and not rig.inbox.requests


# -- plans that are not followed -------------------------------------------------------------------


def test_refused_plans_are_counted_and_said_once_per_change() -> None:
    rig = Rig().running()
    rig.texts.clear()
    rig.codes.clear()
    for _ in range(3):
        out = rig.plan(robot="cell_2")
    assert out.chunk_verdicts[0].code == "robot"
    for _ in range(2):
        rig.plan(positions=np.full((50, 3), 9.0))
    rig.inbox.chunks.append(refused("not_finite", "plan: got nan"))
    rig.tick()
    rig.plan()
    rig.plan()
    assert rig.codes == ["robot", "beyond_limit", "not_finite", "plans_accepted"]
    assert rig.texts[0] == "plan: got one for robot 'cell_2', expected 'cell_1'"
    assert rig.loop.counters.chunks_refused == {"robot": 3, "beyond_limit": 2, "not_finite": 1}
    assert rig.loop.mode is Mode.RUN


@pytest.mark.parametrize("event", ["arm", "resume", "reset", "instruction", "clock_jump"])
def test_observations_from_before_do_not_count(event: str) -> None:
    rig = Rig().armed()
    old = rig.chunk()
    rig.tick()
    if event == "arm":
        rig.ask(Request.DISARM)
        rig.ask(Request.ARM)
    elif event == "resume":
        rig.ask(Request.PAUSE)
        rig.ask(Request.RESUME)
    elif event == "reset":
        rig.inbox.estop(True)
        rig.tick()
        rig.inbox.estop(False)
        rig.ask(Request.RESET)
    elif event == "instruction":
        rig.inbox.instruction_epoch_ns = rig.now_ns
    else:
        rig.inbox.clock_jump = True
    rig.inbox.chunks.append(old)
    assert rig.tick().chunk_verdicts[0].code == f"before_{event}"
    assert rig.loop.mode is not Mode.RAMP_IN
    out = rig.plan()
    assert out.chunk_verdicts[0] and (out.mode is Mode.RAMP_IN or event == "reset")


def test_what_an_operator_caused_is_not_warned_about() -> None:
    rig = Rig().armed()
    old = rig.chunk()
    rig.tick()
    rig.inbox.instruction_epoch_ns = rig.now_ns
    rig.inbox.chunks.append(old)
    assert [(e.level, e.code) for e in rig.tick().events] == [("info", "before_instruction")]
    assert [e.code for e in rig.plan().events] == ["plan"]  # and nothing is said of plans being accepted "again"


def test_a_plan_without_a_future_is_refused() -> None:
    rig = Rig().armed()
    # Its last action lies within the actuation delay: it has not ended, but nothing of it can be reached.
    out = rig.plan(first_ns=rig.now_ns + TICK + 20_000_000 - 49 * ACTION_NS)
    assert out.chunk_verdicts == [refused("too_old", "plan: none of its actions lies ahead")]
    assert out.mode is Mode.HOLD


def test_plans_are_checked_but_not_kept_where_they_are_not_followed() -> None:
    rig = Rig()
    rig.tick()
    rig.ask(Request.ACTIVATE)
    assert rig.plan().chunk_verdicts == [Verdict(True)]
    assert rig.loop._timeline.empty
    rig.ask(Request.ARM)
    rig.ask(Request.PAUSE)
    assert rig.plan().chunk_verdicts == [Verdict(True)]
    assert rig.loop._timeline.empty and rig.loop.plan_end_ns == 0
    assert rig.loop.counters.chunks_accepted == 2


# -- holding ---------------------------------------------------------------------------------------


def hold_after(rig: Rig, code: str) -> None:
    """Check that the arms hold for the reason `code`, said once, within the limits, where they came to rest."""
    assert rig.loop.mode is Mode.HOLD and rig.loop.armed
    assert rig.codes.count(code) == 1 and rig.loop.counters.holds[code] == 1
    assert_within(rig.profile, HOME, rig.sent)
    resting = rig.sent[-1].tolist()
    sent = len(rig.sent)
    rig.tick(10)
    assert [c.tolist() for c in rig.sent[sent:]] == [resting] * 10


def test_when_the_plan_ends_the_last_pose_is_held() -> None:
    rig = Rig(small_profile(max_open_loop_s=5.0)).running(THERE)
    rig.tick(200)
    hold_after(rig, "exhausted")
    assert rig.texts[-1] == "hold: the plan ended and no new one came"
    assert rig.loop.step(rig.inbox, rig.now_ns + TICK).reason == "the plan ended and no new one came"


def test_when_the_policy_is_gone_the_arms_rest_in_time() -> None:
    rig = Rig().running(THERE)
    chunk = rig.chunk(THERE)
    rig.inbox.chunks.append(chunk)
    rig.tick()
    arrived = rig.now_ns
    while rig.loop.mode is Mode.RUN:
        rig.tick()
    assert rig.now_ns - arrived == 1_010_000_000
    until_rest(rig)
    assert rig.now_ns - arrived <= 1_500_000_000
    hold_after(rig, "policy_gone")
    assert rig.texts[-1] == "hold: no new plan for 1.00 s"


def test_an_older_plan_takes_nothing_over_from_a_newer_one() -> None:
    rig = Rig().running(THERE)
    end_ns = rig.loop.plan_end_ns
    before = rig.now_ns - 200_000_000
    out = rig.plan(HOME, stamp_ns=before, first_ns=before + ACTION_NS)
    assert [verdict.code for verdict in out.chunk_verdicts] == ["superseded"] and rig.loop.plan_end_ns == end_ns
    assert "0.1" in out.chunk_verdicts[0].reason and "before that of the plan that is followed" in out.chunk_verdicts[0].reason
    assert rig.plan(THERE).chunk_verdicts == [Verdict(True)]


def test_the_same_observation_again_is_no_sign_of_life() -> None:
    """A plan that is repeated for ever, by whomever: the arms rest as if it had been said once."""
    rig = Rig(small_profile(max_open_loop_s=0.5)).running(THERE)
    chunk = rig.chunk(THERE)
    seen_ns = rig.now_ns
    while rig.loop.mode is Mode.RUN:
        rig.inbox.chunks.append(chunk)
        assert rig.tick().chunk_verdicts == [Verdict(True)] and rig.now_ns - seen_ns < 1_000_000_000
    assert rig.codes[-1] == "policy_gone" and rig.now_ns - seen_ns <= 520_000_000 + TICK


def test_joints_from_ahead_are_not_fresh() -> None:
    rig = Rig().running(THERE)
    rig.joints_alive = False
    rig.inbox.see_joints(JointState(rig.now_ns + 400_000_000, rig.measured), rig.now_ns + 400_000_000)
    rig.tick()
    assert rig.codes[-1] == "stale_joints" and "comes from 0.390 s ahead" in rig.texts[-1]


def test_stale_joints_hold() -> None:
    rig = Rig().running(THERE)
    rig.joints_alive = False
    for _ in range(5):
        rig.plan(THERE)
        rig.tick(9)
    hold_after(rig, "stale_joints")
    # Plans alone do not start it again, plans and joints do, through the ramp.
    rig.plan(THERE)
    assert rig.loop.mode is Mode.HOLD
    rig.joints_alive = True
    assert rig.plan(THERE).mode is Mode.RAMP_IN


def test_after_a_hold_fresh_plans_are_ramped_into_again() -> None:
    rig = Rig().running(THERE)
    rig.tick(160)
    assert rig.loop.mode is Mode.HOLD
    for _ in range(10):
        rig.plan(THERE)
        rig.tick(9)
    assert rig.loop.mode is Mode.RUN
    assert rig.codes == ["activate", "arm", "plan", "ramped", "policy_gone", "plan", "ramped"]
    assert_within(rig.profile, HOME, rig.sent)


def test_a_plan_that_comes_while_braking_waits_for_rest() -> None:
    rig = Rig().running(THERE)
    rig.joints_alive = False
    while rig.loop.mode is Mode.RUN:
        rig.plan(THERE)
    rig.joints_alive = True
    assert not rig.plan(THERE).at_rest and rig.loop.mode is Mode.HOLD
    while not rig.loop.at_rest:
        rig.tick()
    assert rig.tick().mode is Mode.RAMP_IN


def test_a_plan_that_was_kept_while_holding_grows_old() -> None:
    rig = Rig().armed()
    rig.joints_alive = False
    rig.tick(20)
    rig.plan()
    assert not rig.loop._timeline.empty
    rig.tick(170)
    assert rig.loop._timeline.empty


def test_a_clock_jump_holds_and_clears() -> None:
    rig = Rig().running(THERE)
    rig.inbox.clock_jump = True
    out = rig.tick()
    assert rig.inbox.clock_jump is False and out.events[0].level == "warn"
    assert rig.texts[-1] == "hold: the clock jumped: plans from before are dropped"
    assert rig.loop._timeline.empty
    rig.tick(30)
    hold_after(rig, "clock_jump")
    assert rig.plan(THERE).mode is Mode.RAMP_IN


def test_a_clock_jump_forgets_the_measurement() -> None:
    rig = Rig().armed()
    rig.joints_alive = False
    rig.inbox.clock_jump = True
    rig.tick()
    assert rig.inbox.joints is None


def test_when_the_loops_own_time_jumps_back_no_time_from_before_counts() -> None:
    rig = Rig(heartbeat_timeout_s=0.1)
    rig.inbox.heartbeat_ns = rig.now_ns
    rig.armed()
    rig.inbox.heartbeat_ns = rig.now_ns
    rig.inbox.instruction_epoch_ns = rig.now_ns
    rig.now_ns -= 5_000_000_000  # simulated time was reset
    rig.inbox.clock_jump = True
    rig.inbox.chunks.append(rig.chunk())
    assert rig.tick().chunk_verdicts[0].code == "before_clock_jump"
    assert rig.inbox.heartbeat_ns is None
    assert rig.plan().mode is Mode.RAMP_IN
    rig.tick(8)
    assert rig.loop.mode is Mode.RAMP_IN
    rig.tick(5)
    assert rig.loop.mode is Mode.STOP  # the heartbeat has the same patience from the jump on


def test_grippers_keep_what_they_were_told() -> None:
    rig = Rig().armed()
    for _ in range(8):
        rig.plan(np.array([1.2, 2.0, -0.7]))
        rig.tick(9)
    gripper = rig.sent[-1][2]
    rig.inbox.estop(True)
    rig.tick(50)
    rig.inbox.estop(False)
    assert abs(rig.sent[-1][2] - gripper) < 0.15 and rig.sent[-1][2] != 0.0


# -- pause, resume, ready, disarm, deactivate ------------------------------------------------------


def test_pause_brakes_and_then_nothing_is_sent() -> None:
    rig = Rig().running(THERE)
    rig.ask(Request.PAUSE)
    until_rest(rig)
    sent = len(rig.sent)
    for _ in range(10):
        assert not rig.plan(THERE).send
    assert len(rig.sent) == sent and rig.loop.armed and rig.loop.mode is Mode.PAUSE
    assert_within(rig.profile, HOME, rig.sent)
    assert rig.ask(Request.RESUME).verdict
    assert rig.loop.mode is Mode.HOLD and len(rig.sent) == sent + 1
    assert rig.sent[-1].tolist() == rig.sent[-2].tolist()
    for _ in range(8):
        rig.plan(THERE)
        rig.tick(9)
    assert rig.loop.mode is Mode.RUN
    assert_within(rig.profile, HOME, rig.sent)


def test_pausing_at_rest_says_the_pose_once_more_and_stops() -> None:
    rig = Rig().armed()
    sent = len(rig.sent)
    rig.ask(Request.PAUSE)
    rig.tick(10)
    assert len(rig.sent) == sent + 1


def test_resuming_while_still_braking_goes_on_within_the_limits() -> None:
    rig = Rig().running(THERE)
    rig.ask(Request.PAUSE)
    rig.ask(Request.RESUME)
    for _ in range(8):
        rig.plan(THERE)
        rig.tick(9)
    assert rig.loop.mode is Mode.RUN
    assert_within(rig.profile, HOME, rig.sent)


def test_resume_is_refused_where_the_arms_were_moved_meanwhile() -> None:
    rig = Rig().armed()
    rig.ask(Request.PAUSE)
    rig.tick()
    rig.measured = HOME + np.array([0.0, 0.3, 0.0])
    verdict = rig.ask(Request.RESUME).verdict
    assert verdict == refused("moved", "joint 'elbow' is at 1.3000, commanded 1.0000, allowed distance 0.2000: disarm and arm again")
    assert not rig.ask(Request.READY).verdict
    rig.ask(Request.DISARM)
    rig.tick(10)
    assert rig.ask(Request.ARM).verdict
    assert rig.sent[-1].tolist() == [0.5, 1.3, -1.7]


@pytest.mark.parametrize("request_", [Request.RESUME, Request.READY])
def test_moving_again_needs_fresh_joints(request_: Request) -> None:
    rig = Rig().armed()
    rig.ask(Request.PAUSE)
    rig.joints_alive = False
    rig.tick(15)
    verdict = rig.ask(request_).verdict
    assert verdict is not None and verdict.code == "stale_joints"


def test_ready_needs_fresh_joints_also_while_commands_flow() -> None:
    rig = Rig().armed()
    rig.joints_alive = False
    rig.tick(15)
    verdict = rig.ask(Request.READY).verdict
    assert verdict is not None and verdict.code == "stale_joints"


@pytest.mark.parametrize("paused", [False, True])
def test_go_to_ready(paused: bool) -> None:
    rig = Rig()
    rig.measured = start = np.array([-0.6, 2.0, -1.1])
    rig.armed()
    if paused:
        rig.ask(Request.PAUSE)
        rig.tick(5)
    sent = len(rig.sent)
    assert rig.ask(Request.READY).verdict == Verdict(True, "ok", "hold: going to the ready pose")
    for _ in range(400):
        rig.plan(THERE)  # does not interfere
        if "arrived" in rig.codes:
            break
    assert rig.loop.mode is (Mode.PAUSE if paused else Mode.HOLD)
    assert rig.sent[-1] == pytest.approx([0.5, 1.0, -1.1], abs=1e-6)  # the gripper stays
    assert_within(rig.profile, start, rig.sent)
    speed = np.abs(np.diff(np.array(rig.sent[sent:]), axis=0)).max(axis=0) / 0.01
    assert speed[0] == pytest.approx(0.75) and speed[2] == 0.0  # half of 1.5
    assert rig.loop.counters.limited_ticks == 0  # our own motion is no intervention
    rig.tick(5)
    assert rig.tick().send is not paused


def test_ready_is_not_interrupted_by_itself_but_by_pause_and_stale_joints() -> None:
    rig = Rig()
    rig.measured = np.array([-0.6, 2.0, -1.1])
    rig.armed()
    rig.ask(Request.READY)
    rig.tick(20)
    goal = rig.loop._goal.tolist()
    assert rig.ask(Request.READY).verdict
    assert rig.loop._goal.tolist() == goal
    rig.joints_alive = False
    rig.tick(20)
    assert rig.loop.mode is Mode.HOLD and "stale_joints" in rig.codes and rig.loop.counters.holds == {}
    rig.joints_alive = True
    rig.tick()
    rig.ask(Request.READY)
    rig.tick(10)
    rig.ask(Request.PAUSE)
    until_rest(rig)
    assert rig.loop.mode is Mode.PAUSE
    assert_within(rig.profile, np.array([-0.6, 2.0, -1.1]), rig.sent)


def test_ready_is_slowed_by_the_operators_scale() -> None:
    rig = Rig()
    rig.measured = np.array([-0.6, 2.0, -1.1])
    rig.inbox.speed_scale = 0.5
    rig.armed()
    rig.ask(Request.READY)
    rig.tick(60)
    assert np.abs(np.diff(np.array(rig.sent), axis=0)).max() / 0.01 == pytest.approx(0.375)


@pytest.mark.parametrize("request_", [Request.DISARM, Request.DEACTIVATE])
def test_letting_go_brakes_and_holds_last(request_: Request) -> None:
    rig = Rig().running(THERE)
    moving = rig.sent[-1] - rig.sent[-2]
    assert np.abs(moving).max() > 1e-3
    rig.ask(request_)
    assert not rig.loop.armed and not rig.loop.at_rest
    until_rest(rig)
    assert rig.sent[-1].tolist() != rig.sent[-5].tolist()
    sent = len(rig.sent)
    rig.tick(10)
    assert len(rig.sent) == sent and not rig.loop._live
    assert_within(rig.profile, HOME, rig.sent)
    assert rig.loop.mode is (Mode.HOLD if request_ is Request.DISARM else Mode.INACTIVE)


def test_letting_go_at_rest_says_the_pose_once_more() -> None:
    rig = Rig().armed()
    sent = len(rig.sent)
    out_send = []
    rig.inbox.ask(Request.DEACTIVATE)
    for _ in range(3):
        out_send.append(rig.tick().send)
    assert out_send == [True, False, False] and rig.sent[sent].tolist() == HOME.tolist()


# -- stop and fault --------------------------------------------------------------------------------


def test_estop_brakes_from_the_very_next_tick_and_latches() -> None:
    rig = Rig().running(THERE)
    before = (rig.sent[-1] - rig.sent[-2]) / 0.01
    stop_from = len(rig.sent)
    rig.inbox.estop(True)
    out = rig.tick()
    assert out.mode is Mode.STOP and not out.armed and out.send and out.reason == "the e-stop is pressed"
    assert (np.abs((rig.sent[-1] - rig.sent[-2]) / 0.01) < np.abs(before))[:2].all()
    assert [(e.level, e.code, e.text) for e in out.events] == [("error", "estop", "stop: the e-stop is pressed")]
    until_rest(rig)
    assert_within(rig.profile, HOME, rig.sent, stop_from=stop_from)
    sent = len(rig.sent)
    rig.tick(10)
    assert len(rig.sent) == sent and rig.codes.count("estop") == 1
    assert rig.ask(Request.RESET).verdict == refused("estop", "the e-stop is pressed")
    rig.inbox.estop(False)
    rig.tick(5)
    assert rig.loop.mode is Mode.STOP
    assert rig.ask(Request.RESET).verdict == Verdict(True, "ok", "hold: reset")
    assert rig.loop.mode is Mode.HOLD and not rig.loop.armed and len(rig.sent) == sent


@pytest.mark.parametrize("speed", [0.5, 1.0, 1.5])
def test_estop_comes_to_rest_within_what_was_promised(speed: float) -> None:
    profile = load_profile("arx_ac_one")
    limiter = Limiter(profile)
    pose = (profile.lower + profile.upper) / 2
    limiter.reset(pose)
    velocity = np.where(profile.is_gripper, 0.0, speed)
    for k in range(60):
        limiter.step(pose + velocity * 0.01 * k, velocity, np.zeros(14))
    ticks = 0
    while not limiter.at_rest:
        limiter.brake(stop=True)
        ticks += 1
    assert ticks * 0.01 / (speed / 20.0) <= 1.2 + 1e-9


def test_a_press_shorter_than_a_tick_is_not_lost() -> None:
    rig = Rig().running()
    rig.inbox.estop(True)
    rig.inbox.estop(False)
    assert rig.tick().mode is Mode.STOP
    assert not rig.inbox.estop_edge
    # Pressed in the very tick in which a reset is asked for: not reset.
    until_rest(rig)
    rig.inbox.estop(True)
    rig.inbox.estop(False)
    assert rig.ask(Request.RESET).verdict == refused("estop", "the e-stop is pressed")


def test_reset_waits_for_rest() -> None:
    rig = Rig().running(THERE)
    rig.inbox.estop(True)
    rig.inbox.estop(False)
    rig.tick()
    assert rig.ask(Request.RESET).verdict == refused("moving", "the arms are still braking: try again in a moment")
    until_rest(rig)
    assert rig.ask(Request.RESET).verdict


def test_a_latch_outlives_deactivation() -> None:
    rig = Rig().armed()
    rig.inbox.estop(True)
    rig.tick(3)
    rig.inbox.estop(False)
    rig.ask(Request.DEACTIVATE)
    assert rig.loop.mode is Mode.INACTIVE
    rig.ask(Request.ACTIVATE)
    assert rig.loop.mode is Mode.STOP and not rig.ask(Request.ARM).verdict


def test_deactivating_in_the_middle_of_a_stop_keeps_the_stops_limits() -> None:
    rig = Rig().running(THERE)
    stop_from = len(rig.sent)
    rig.inbox.estop(True)
    rig.tick()
    rig.ask(Request.DEACTIVATE)
    until_rest(rig)
    assert_within(rig.profile, HOME, rig.sent, stop_from=stop_from)
    assert "assertion_failed" not in rig.codes


def test_a_silent_heartbeat_is_an_estop() -> None:
    rig = Rig(heartbeat_timeout_s=0.1)
    rig.tick(50)
    assert rig.loop.mode is Mode.INACTIVE  # not yet anybody's business
    rig.ask(Request.ACTIVATE)
    for _ in range(10):
        assert rig.tick().mode is Mode.HOLD
    assert rig.tick().mode is Mode.STOP  # never heard since activation
    assert rig.texts[-1] == "stop: the e-stop's heartbeat is silent for 0.110 s, allowed 0.100 s"
    assert not rig.ask(Request.RESET).verdict
    rig.inbox.heartbeat_ns = rig.now_ns
    assert rig.ask(Request.RESET).verdict
    assert rig.ask(Request.ARM).verdict
    for _ in range(30):
        rig.inbox.heartbeat_ns = rig.now_ns
        rig.tick()
    assert rig.loop.armed
    rig.tick(11)
    assert rig.loop.mode is Mode.STOP


def test_without_its_heartbeat_nothing_is_armed_or_reset() -> None:
    """The patience after activation is for starting: nothing may move in it."""
    rig = Rig(heartbeat_timeout_s=0.1)
    rig.tick()
    assert rig.ask(Request.ACTIVATE).verdict
    assert rig.ask(Request.ARM).verdict == refused("heartbeat", "the e-stop's heartbeat was never heard")
    rig.inbox.heartbeat_ns = rig.now_ns - 120_000_000
    told = rig.ask(Request.ARM).verdict
    assert told is not None and told.reason == "the e-stop's heartbeat is silent for 0.130 s, allowed 0.100 s"
    rig.tick(10)
    assert rig.loop.mode is Mode.STOP
    for request in (Request.DEACTIVATE, Request.ACTIVATE):
        assert rig.ask(request).verdict
    told = rig.ask(Request.RESET).verdict
    assert told is not None and told.code == "heartbeat" and rig.loop.mode is Mode.STOP
    rig.inbox.heartbeat_ns = rig.now_ns
    assert rig.ask(Request.RESET).verdict and rig.ask(Request.ARM).verdict


def test_what_was_latched_is_latched_in_the_next_loop() -> None:
    rig = Rig()
    rig.tick()
    rig.ask(Request.ACTIVATE)
    rig.inbox.estop(True)
    rig.tick()
    rig.inbox.estop(False)
    rig.ask(Request.DEACTIVATE)
    rig.loop = CommandLoop(rig.profile, ROBOT, dry_run=False, state=rig.loop.state)
    assert rig.tick().mode is Mode.INACTIVE
    assert rig.ask(Request.ACTIVATE).verdict and rig.loop.mode is Mode.STOP
    assert not rig.ask(Request.ARM).verdict and rig.ask(Request.RESET).verdict and rig.ask(Request.ARM).verdict


def test_without_a_heartbeat_configured_silence_means_nothing() -> None:
    rig = Rig().armed()
    rig.inbox.heartbeat_ns = rig.now_ns
    rig.tick(500)
    assert rig.loop.armed


def test_someone_else_publishing_is_a_fault_while_armed_only() -> None:
    rig = Rig()
    rig.tick()
    rig.ask(Request.ACTIVATE)
    rig.inbox.foreign_publisher = "/teleop on /command"
    assert rig.tick().mode is Mode.HOLD
    rig.inbox.foreign_publisher = None
    rig.ask(Request.ARM)
    for _ in range(8):
        rig.plan(THERE)
        rig.tick(9)
    rig.inbox.foreign_publisher = "/teleop on /command"
    stop_from = len(rig.sent)
    out = rig.tick()
    assert out.mode is Mode.FAULT and out.events[0].level == "error"
    assert rig.texts[-1] == "fault: someone else can command the arms: /teleop on /command"
    until_rest(rig)
    assert_within(rig.profile, HOME, rig.sent, stop_from=stop_from)
    sent = len(rig.sent)
    rig.tick(10)
    assert len(rig.sent) == sent and rig.loop.counters.faults == {"foreign_publisher": 1}
    assert rig.ask(Request.RESET).verdict
    assert not rig.ask(Request.ARM).verdict


def test_arms_that_do_not_follow_are_a_fault_and_the_command_goes_to_where_they_are() -> None:
    rig = Rig().armed()
    rig.arms_follow = False
    stuck = rig.measured.copy()
    stop_from = 0
    for k in range(300):
        if k % 10 == 0:
            # plans go on from what was commanded, as a policy with a lagging arm would have it
            rig.inbox.chunks.append(rig.chunk(positions=np.tile(THERE, (50, 1))))
        rig.tick()
        if rig.loop.mode is Mode.FAULT:
            stop_from = len(rig.sent)
            break
    assert rig.codes[-1] == "tracking_failed" and "allowed 0.2000 for 0.30 s" in rig.texts[-1]
    assert np.abs(rig.sent[-1] - stuck).max() > 0.2
    grip = rig.sent[-1][2]
    until_rest(rig, 200)
    assert rig.sent[-1][:2] == pytest.approx(stuck[:2], abs=1e-6)
    assert rig.sent[-1][2] == pytest.approx(grip, abs=0.02) and abs(grip - stuck[2]) > 0.1, "what it holds is not let go"
    assert_within(rig.profile, HOME, rig.sent, stop_from=stop_from - 1)
    sent = len(rig.sent)
    rig.tick(10)
    assert len(rig.sent) == sent and rig.loop.counters.faults == {"tracking_failed": 1}


def gated(max_step: float) -> Rig:
    motion = small_document()["motion"]
    motion["arm"]["max_step"] = max_step
    return Rig(small_profile(motion=motion))


def test_a_command_as_far_from_the_arm_as_the_robot_would_refuse_is_a_fault_at_once() -> None:
    rig = gated(0.1).armed()
    rig.arms_follow = False
    stuck = rig.measured.copy()
    for k in range(300):
        if k % 10 == 0:
            rig.inbox.chunks.append(rig.chunk(positions=np.tile(THERE, (50, 1))))
        rig.tick()
        if rig.loop.mode is Mode.FAULT:
            break
    furthest = np.abs(np.array(rig.sent) - stuck)[:, :2].max()
    assert rig.codes[-1] == "tracking_failed" and "allowed below 0.1000" in rig.texts[-1]
    assert 0.1 <= furthest < 0.1 + 2 * 1.5 * 0.01, "at most two ticks at full speed beyond"
    until_rest(rig, 200)
    assert rig.sent[-1][:2] == pytest.approx(stuck[:2], abs=1e-6)


def test_arms_that_follow_are_never_gated() -> None:
    rig = gated(0.05).running(THERE)
    assert rig.loop.counters.faults == {}
    assert np.abs(rig.sent[-1] - HOME).max() > 0.1


def test_the_loop_says_how_it_would_come_to_rest() -> None:
    rig = Rig().running(THERE)
    assert rig.loop.target == pytest.approx(rig.sent[-1], abs=1e-6), "inside the limits the command is the plan's"
    times, positions, velocities = rig.loop.way_to_rest(0.02)
    assert times[0] == 0.0 and positions[0] == pytest.approx(rig.sent[-1]) and not velocities[-1].any()


def test_an_estop_ends_the_retreat() -> None:
    rig = Rig().armed()
    rig.arms_follow = False
    while rig.loop.mode is not Mode.FAULT:
        rig.plan(positions=np.tile(THERE, (50, 1)))
    rig.tick(3)
    rig.inbox.estop(True)
    assert rig.tick().mode is Mode.STOP
    assert not rig.loop._retreating
    until_rest(rig, 20)
    assert np.abs(rig.sent[-1] - HOME).max() > 0.05


def wrong(rig: Rig) -> None:
    rig.measured = HOME + 0.5


def stale(rig: Rig) -> None:
    rig.joints_alive = False


def foreign(rig: Rig) -> None:
    rig.inbox.foreign_publisher = "node /x publishes"


@pytest.mark.parametrize("then", [wrong, stale, foreign])
def test_a_retreat_goes_on_only_while_the_arms_are_seen_where_they_were(then: Any) -> None:
    rig = Rig().armed()
    rig.arms_follow = False
    while rig.loop.mode is not Mode.FAULT:
        rig.plan(positions=np.tile(THERE, (50, 1)))
    left = np.abs(rig.sent[-1] - HOME).max()
    rig.tick(2)
    then(rig)
    rig.tick(20)
    assert not rig.loop._retreating and rig.loop.mode is Mode.FAULT
    until_rest(rig, 200)
    assert np.abs(rig.sent[-1] - HOME).max() > 0.5 * left, "it came to rest on the way"
    assert "assertion_failed" not in rig.codes


def test_one_wrong_sample_sends_the_arms_nowhere() -> None:
    """Where a single measurement is a fault (`max_step`): the next one tells where they are."""
    rig = gated(0.1).running(HOME)
    there, rig.arms_follow = rig.measured, False
    rig.measured = np.array([1.4, 0.2, -1.0])
    rig.tick()
    assert rig.loop.mode is Mode.FAULT and rig.codes[-1] == "tracking_failed"
    rig.measured = there
    until_rest(rig, 200)
    assert rig.sent[-1] == pytest.approx(there, abs=2e-3)


def test_a_retreat_leads_to_no_pose_that_is_unknown_and_is_as_slow_as_asked() -> None:
    rig = gated(0.1).running(HOME)
    there, rig.arms_follow = rig.measured, False
    rig.measured = np.full(3, 1e6)
    rig.tick(50)
    assert rig.loop.mode is Mode.FAULT and rig.sent[-1] == pytest.approx(there, abs=2e-3)
    ways = []
    for scale in (1.0, 0.1):
        slow = Rig().armed()
        slow.arms_follow = False
        while slow.loop.mode is not Mode.FAULT:
            slow.plan(positions=np.tile(THERE, (50, 1)))
        slow.inbox.speed_scale = scale
        until_rest(slow, 2000)
        ways.append(len(slow.sent))
        assert slow.sent[-1][:2] == pytest.approx(HOME[:2], abs=1e-6)
    assert ways[1] > ways[0] + 50


def test_after_a_fault_everything_begins_anew() -> None:
    rig = Rig().armed()
    rig.arms_follow = False
    while rig.loop.mode is not Mode.FAULT:
        rig.plan(positions=np.tile(THERE, (50, 1)))
    until_rest(rig, 200)
    rig.arms_follow = True
    assert rig.ask(Request.RESET).verdict and rig.ask(Request.ARM).verdict
    for _ in range(8):
        rig.plan(THERE)
        rig.tick(9)
    assert rig.loop.mode is Mode.RUN


def test_a_command_that_fails_the_last_assertion_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig().running(THERE)
    good = len(rig.sent)
    monkeypatch.setattr(Limiter, "step", lambda self, *_: self.positions + 0.5)
    out = rig.tick()
    assert out.mode is Mode.FAULT and not out.send and out.at_rest
    assert out.events[-1].code == "assertion_failed" and out.events[-1].text.startswith("fault: last assertion: ")
    rig.tick(20)
    assert len(rig.sent) == good and rig.loop.counters.faults == {"assertion_failed": 1}
    monkeypatch.undo()
    assert rig.ask(Request.RESET).verdict and rig.ask(Request.ARM).verdict


# -- dry run, speed, committed ---------------------------------------------------------------------


def test_dry_run_sends_nothing_and_shows_everything() -> None:
    rig = Rig(dry_run=True)
    rig.tick()
    assert rig.ask(Request.ACTIVATE).verdict
    assert rig.ask(Request.ARM).verdict == Verdict(True, "ok", "hold: armed (dry run: nothing is sent to the robot)")
    would = []
    for k in range(120):
        out = rig.plan(positions=np.tile(THERE, (50, 1))) if k % 10 == 0 else rig.tick()
        assert not out.send and out.would_send
        would.append(out.positions.copy())
    assert rig.loop.mode is Mode.RUN  # the arms do not follow, and that is no fault
    assert np.abs(would[-1] - HOME).max() > 0.4
    assert_within(rig.profile, HOME, would)
    assert rig.ask(Request.PAUSE).verdict
    until_rest(rig)
    assert not rig.tick().would_send
    assert rig.ask(Request.RESUME).verdict  # where the arms really are does not matter
    assert rig.loop.counters.sent == 0 and not rig.sent


def test_dry_run_is_the_default() -> None:
    from internvla_a1_ros.runtime.command_loop import CommandLoop

    assert CommandLoop(small_profile(), ROBOT).dry_run


def test_unarmed_nothing_is_sent_whatever_comes() -> None:
    rig = Rig()
    rig.tick()
    rig.ask(Request.ACTIVATE)
    for _ in range(50):
        out = rig.plan(THERE)
        assert not out.send and not out.would_send
    assert rig.loop.mode is Mode.HOLD


@pytest.mark.parametrize("scale", [0.2, 0.0, math.nan, -3.0])
def test_speed_scale(scale: float) -> None:
    rig = Rig().armed()
    rig.inbox.speed_scale = scale
    for _ in range(8):
        rig.plan(THERE)
        rig.tick(9)
    speed = np.abs(np.diff(np.array(rig.sent), axis=0)).max(axis=0) / 0.01
    allowed = 0.2 if scale == 0.2 else 0.0
    assert (speed <= rig.profile.max_velocity * allowed + 1e-9).all()
    assert rig.loop.mode is Mode.RUN


def test_clamped_and_limited_ticks_are_counted() -> None:
    rig = Rig().armed()
    for _ in range(15):
        rig.plan(positions=np.tile([2.05, 1.0, -1.7], (50, 1)))
        rig.tick(9)
    assert rig.loop.counters.clamped_ticks > 10 and rig.loop.counters.limited_ticks > 10
    assert rig.sent[-1][0] == pytest.approx(2.0, abs=1e-6)
    assert rig.tick().limited
    assert_within(rig.profile, HOME, rig.sent)


def test_committed_is_what_will_be_executed() -> None:
    rig = Rig()
    assert rig.loop.committed(rig.now_ns) is None
    rig.armed()
    assert rig.loop.committed(rig.now_ns) is None
    for _ in range(8):
        rig.plan(THERE)
        rig.tick(9)
    from_ns = rig.now_ns + 4 * TICK
    tail = rig.loop.committed(from_ns)
    assert tail is not None and rig.loop._chunk is not None
    assert (tail.robot, tail.joint_names, tail.first_ns, tail.dt_ns) == (ROBOT, rig.profile.joint_names, from_ns, ACTION_NS)
    assert tail.stamp_ns == rig.loop._chunk.stamp_ns
    assert 45 <= len(tail.positions) <= 50 and tail.end_ns <= rig.loop.plan_end_ns
    rig.tick()  # the plan's time is the tick's plus the actuation delay
    assert rig.sent[-1] == pytest.approx(tail.positions[0], abs=1e-9)
    assert rig.loop.committed(rig.loop.plan_end_ns + 1) is None
    rig.ask(Request.PAUSE)
    assert rig.loop.committed(rig.now_ns) is None


def test_limiter_errors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig().running(THERE)
    rig.loop._limiter.errors = 7
    rig.tick()
    assert rig.loop.counters.limiter_errors == 7


def test_the_loop_is_deterministic() -> None:
    def run() -> tuple[list[list[float]], list[str]]:
        rig = Rig().running(THERE)
        rig.ask(Request.PAUSE)
        rig.tick(30)
        rig.ask(Request.RESUME)
        rig.plan(HOME)
        rig.tick(150)
        rig.inbox.estop(True)
        rig.tick(20)
        return [c.tolist() for c in rig.sent], rig.texts

    assert run() == run()


def test_missed_ticks_keep_the_limits() -> None:
    rig = Rig().armed()
    rng = np.random.default_rng(3)
    for _ in range(60):
        rig.plan(THERE)
        rig.now_ns += TICK * int(rng.integers(0, 6))
        rig.tick(3)
    assert_within(rig.profile, HOME, rig.sent)


def test_fourteen_joints_at_every_allowed_rate() -> None:
    for rate in (60, 200):
        document = load_profile("arx_ac_one").model_dump()
        profile = load_profile("arx_ac_one").model_validate({**document, "control_rate_hz": rate})
        rig = Rig(profile)
        rig.measured = home = profile.ready_from((profile.lower + profile.upper) / 2)
        rig.armed()
        goal: FloatArray = home + 0.3
        for _ in range(15):
            rig.plan(goal)
            rig.tick(rate // 10)
        assert rig.loop.mode is Mode.RUN
        assert_within(profile, home, rig.sent)
        assert rig.loop.counters.limited_ticks == 0


@pytest.mark.parametrize("dry_run", [False, True])
def test_arms_that_something_else_moves_are_not_armed(dry_run: bool) -> None:
    rig = Rig(dry_run=dry_run)
    rig.tick()
    assert rig.ask(Request.ACTIVATE).verdict
    for _ in range(20):
        rig.measured = rig.measured + np.array([0.01, 0.0, 0.0])
        rig.tick()
    if dry_run:  # nothing is sent, and a bag that is played moves them as it was
        assert rig.ask(Request.ARM).verdict
        return
    ticket = rig.ask(Request.ARM)
    assert ticket.verdict is not None and ticket.verdict.code == "moving"
    assert "joint 'shoulder' moves by 0.857 per second" in ticket.verdict.reason
    rig.tick(20)
    assert rig.ask(Request.ARM).verdict, "and armed once they rest"


@pytest.mark.parametrize("jump_s", [-5.0, 0.6, 5.0])
def test_a_clock_jump_is_no_silence_of_the_heartbeat(jump_s: float) -> None:
    """What was heard before it has no time any more; the silence begins anew."""
    rig = Rig(heartbeat_timeout_s=0.5)
    rig.tick()
    rig.ask(Request.ACTIVATE)
    rig.inbox.heartbeat_ns = rig.now_ns
    assert rig.ask(Request.ARM).verdict
    rig.now_ns += round(jump_s * 1e9)
    rig.inbox.clock_jump = True
    out = rig.tick()
    assert out.mode is Mode.HOLD and rig.codes[-1] != "estop"
    rig.tick(51)
    assert rig.loop.mode is Mode.STOP and "silent for 0.51" in rig.texts[-1]


def test_a_disarm_and_an_arm_in_one_tick_begin_at_the_measured_pose() -> None:
    rig = Rig().armed()
    rig.tick(20)
    rig.arms_follow = False
    rig.measured = HOME + np.array([0.02, 0.0, 0.0])
    rig.tick(20)
    rig.inbox.ask(Request.DISARM)
    assert rig.ask(Request.ARM).verdict
    rig.tick(5)
    assert rig.loop.mode is Mode.HOLD and rig.loop.armed and rig.loop.counters.faults == {}
    assert rig.sent[-1] == pytest.approx(rig.measured)
