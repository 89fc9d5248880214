"""Whatever stream of plans, joints, clocks and stops comes: what is sent keeps every limit, and nothing is sent that should not be.

And the other way round: a stream inside the limits is passed on unchanged, nothing safe is blocked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from command_rig import ACTION_NS, HOME, Rig, small_profile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.types import FloatArray, JointState, Mode, refused
from internvla_a1_ros.runtime.command_io import Request

MS = 1_000_000
QUIET = (Mode.INACTIVE, Mode.PAUSE, Mode.STOP, Mode.FAULT)
# Longest way to rest: full speed at the normal limits (1.5 / 10 + 10 / 500 s), or the retreat to a pose measured elsewhere.
BRAKING_TICKS = 40
RETREAT_TICKS = 600

vectors = st.lists(
    st.one_of(st.floats(-4, 4), st.floats(-0.2, 0.2), st.sampled_from([0.0, -1.0, 2.0, -0.05, 3.0, -3.4, 2.1, 3.1, -1.1])),
    min_size=3,
    max_size=3,
).map(np.array)
inside = st.tuples(st.floats(-1.0, 2.0), st.floats(-0.05, 3.0), st.floats(-3.4, 0.0)).map(np.array)

chunks = st.fixed_dictionaries(
    {
        "towards": st.one_of(inside, inside, vectors),
        "shape": st.sampled_from(["smooth", "step", "noise", "saw"]),
        "length": st.integers(1, 60),
        "age_ms": st.one_of(st.integers(0, 300), st.integers(-100, 2000)),
        "lead_ms": st.one_of(st.just(33), st.integers(-2000, 2000)),
        "dt_ms": st.sampled_from([33, 33, 10, 3, 100, 500]),
        "robot": st.sampled_from(["cell_1"] * 9 + ["cell_2"]),
    }
)
requests = st.sampled_from([*Request, Request.ARM, Request.ARM, Request.RESUME, Request.ACTIVATE, Request.RESET])
operations = st.one_of(
    st.tuples(st.just("chunk"), chunks),
    st.tuples(st.just("tick"), st.integers(1, 40)),
    st.tuples(st.just("follow plans"), st.tuples(inside, st.integers(1, 8))),
    st.tuples(st.just("follow plans"), st.tuples(inside, st.integers(1, 8))),
    st.tuples(st.just("ask"), requests),
    st.tuples(st.just("ask"), requests),
    st.tuples(st.just("garbage"), st.none()),
    st.tuples(st.just("estop"), st.booleans()),
    st.tuples(st.just("joints"), st.booleans()),
    st.tuples(st.just("follow"), st.booleans()),
    st.tuples(st.just("moved"), vectors),
    st.tuples(st.just("strange joints"), st.sampled_from(["wide", "future", "ancient"])),
    st.tuples(st.just("speed"), st.one_of(st.floats(0, 1), st.sampled_from([math.nan, math.inf, -1.0]))),
    st.tuples(st.just("jump"), st.none()),
    st.tuples(st.just("foreign"), st.sampled_from(["/teleop", None, None])),
    st.tuples(st.just("clock"), st.sampled_from([20 * MS, 500 * MS, 2000 * MS, -10 * MS, -500 * MS])),
    st.tuples(st.just("instruction"), st.none()),
)


class Watched(Rig):
    """A rig that judges every tick by what may be sent in it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.joints_fixed = False
        self.history: list[tuple[FloatArray, bool]] = []  # what was sent without a gap, and whether the stop limits held
        self.may_begin = False
        self.ever_armed = False
        self.quiet_sends = 0
        self.last_sent: FloatArray | None = None

    def tick(self, count: int = 1) -> Any:
        for _ in range(count):
            before = self.measured.copy()
            state_before = self.loop._state
            out = super().tick()
            accepted = [t.request for t in out.answers if t.verdict]
            self.ever_armed |= Request.ARM in accepted
            if {Request.ARM, Request.RESUME, Request.READY} & set(accepted):
                self.may_begin = True
            moved = out.send or out.would_send
            assert not (out.send and self.loop.dry_run) and not (out.would_send and not self.loop.dry_run)
            if moved:
                assert self.ever_armed
                self._judge(out, before, state_before)
            else:
                self.history.clear()
                self.quiet_sends = 0
                assert out.mode not in (Mode.RAMP_IN, Mode.RUN) and not (out.mode is Mode.HOLD and out.armed)
        return out

    def _judge(self, out: Any, measured: FloatArray, state_before: Any) -> None:
        profile = self.profile
        command = out.positions.copy()
        assert np.isfinite(command).all()
        if not self.history:
            assert self.may_begin, "commands began again without being asked for"
            first = command if self.last_sent is None else self.last_sent
            # From the measured pose after arming, from where they stopped after resuming.
            assert np.abs(command - measured).max() <= 1e-3 or np.abs(command - first).max() <= 1e-3
            self.history = [(command, False)] * 3
        self.may_begin = False
        quiet = out.mode in QUIET or not out.armed
        self.quiet_sends = self.quiet_sends + 1 if quiet else 0
        retreat = out.mode is Mode.FAULT or state_before.mode is Mode.FAULT
        assert self.quiet_sends <= (RETREAT_TICKS if retreat else BRAKING_TICKS)
        stop = self.loop._state.latched
        self.history.append((command, stop))
        self.history = self.history[-4:]
        positions = np.array([c for c, _ in self.history])
        rate = 1e9 / profile.dt_ns
        speed = np.diff(positions, axis=0) * rate
        acceleration = np.diff(speed, axis=0) * rate
        jerk = np.diff(acceleration, axis=0) * rate
        assert (np.abs(speed[-1]) <= profile.max_velocity * (1 + 1e-6)).all()
        allowed = profile.stop_acceleration if stop else profile.max_acceleration
        assert (np.abs(acceleration[-1]) <= allowed * (1 + 1e-6)).all()
        allowed = profile.stop_jerk if stop else profile.max_jerk
        assert (np.abs(jerk[-1]) <= allowed * (1 + 1e-5)).all()
        previous = self.history[-2][0]
        assert (command >= np.minimum(profile.lower, previous) - 1e-7).all()
        assert (command <= np.maximum(profile.upper, previous) + 1e-7).all()
        self.last_sent = command

    def chunk_of(self, spec: dict[str, Any]) -> Any:
        n, towards = spec["length"], spec["towards"]
        rng = np.random.default_rng(n)
        x = np.arange(1, n + 1)[:, None] / n
        share = {"smooth": x * x * (3 - 2 * x), "step": np.ones((n, 1)), "noise": rng.random((n, 3)), "saw": (x * 7) % 1.0}[spec["shape"]]
        stamp = self.now_ns - spec["age_ms"] * MS
        return self.chunk(
            robot=spec["robot"],
            stamp_ns=stamp,
            first_ns=stamp + spec["lead_ms"] * MS,
            dt_ns=spec["dt_ms"] * MS,
            positions=HOME + share * (towards - HOME),
        )

    def do(self, kind: str, value: Any) -> None:
        inbox = self.inbox
        if kind == "chunk":
            inbox.chunks.append(self.chunk_of(value))
        elif kind == "follow plans":
            for _ in range(value[1]):
                inbox.chunks.append(self.chunk(value[0]))
                self.tick(10)
        elif kind == "garbage":
            inbox.chunks.append(refused("not_finite", "plan: got nan"))
        elif kind == "ask":
            inbox.ask(value)
        elif kind == "estop":
            inbox.estop(value)
        elif kind == "joints":
            self.joints_alive = value
        elif kind == "follow":
            self.arms_follow = value
        elif kind == "moved":
            self.measured = value
        elif kind == "strange joints":
            positions, stamp = {
                "wide": (np.zeros(5), self.now_ns),
                "future": (HOME, self.now_ns + 10**12),
                "ancient": (HOME, 0),
            }[value]
            inbox.see_joints(JointState(stamp, positions), self.now_ns)
        elif kind == "speed":
            inbox.speed_scale = value
        elif kind == "jump":
            inbox.clock_jump = True
        elif kind == "foreign":
            inbox.foreign_publisher = value
        elif kind == "clock":
            self.now_ns += value
        elif kind == "instruction":
            inbox.instruction_epoch_ns = self.now_ns
        self.tick(value if kind == "tick" else 1)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, max_size=40), st.booleans(), st.booleans(), st.sampled_from([None, 0.3]))
def test_whatever_comes(stream: list[tuple[str, Any]], dry_run: bool, begin_running: bool, heartbeat_s: float | None) -> None:
    rig = Watched(dry_run=dry_run, heartbeat_timeout_s=heartbeat_s)
    if begin_running:
        for kind, value in (("ask", Request.ACTIVATE), ("ask", Request.ARM)):
            rig.do(kind, value)
        rig.inbox.chunks.append(rig.chunk(np.array([1.2, 2.0, -0.7])))
        rig.tick(25)
    for kind, value in stream:
        rig.do(kind, value)
    # However it was left: it can be brought to rest, and then nothing is sent.
    rig.inbox.estop(True)
    rig.tick(BRAKING_TICKS)
    out = rig.tick()
    assert out.at_rest and not out.send and not out.would_send and not out.armed
    assert rig.loop.mode in (Mode.STOP, Mode.INACTIVE)
    assert sum(rig.loop.counters.faults.values()) == sum(rig.codes.count(c) for c in rig.loop.counters.faults)
    assert rig.loop.counters.faults["assertion_failed"] == 0


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    amplitude=st.floats(0.05, 0.4),
    phase=st.floats(0, 6.28),
    frequency_hz=st.floats(0.05, 0.6),
    every_ticks=st.integers(3, 25),
    latency_ms=st.integers(5, 250),
    dt_ms=st.sampled_from([20, 33, 50]),
    rate_hz=st.sampled_from([60, 100, 125, 200]),
    phase_of_ticks_ns=st.integers(0, 9_999_999),
)
def test_a_stream_inside_the_limits_is_passed_on_unchanged(
    amplitude: float,
    phase: float,
    frequency_hz: float,
    every_ticks: int,
    latency_ms: int,
    dt_ms: int,
    rate_hz: int,
    phase_of_ticks_ns: int,
) -> None:
    omega = 2 * math.pi * frequency_hz
    # The ramp adds its own motion: 1.9 times the way into the plan, over its duration.
    amplitude = min(amplitude, 0.25, 0.3 * 1.5 / omega, 0.3 * 10.0 / omega**2)
    rig = Rig(small_profile(control_rate_hz=rate_hz, ramp_s=1.5))
    rig.now_ns += phase_of_ticks_ns
    begin = rig.now_ns

    def curve(t_ns: Any) -> FloatArray:
        x = omega * (np.asarray(t_ns, dtype=np.float64) - begin) * 1e-9 + phase
        return HOME + amplitude * np.stack((np.sin(x), np.cos(x), np.sin(x + 1.0)), axis=-1)

    rig.measured = curve(begin)
    rig.armed()
    position, velocity, acceleration = (np.zeros(3) for _ in range(3))
    unchanged = 0
    for k in range(int(2.8 * rate_hz)):
        if k % every_ticks == 0:
            stamp = rig.now_ns - latency_ms * MS
            times = stamp + dt_ms * MS * np.arange(1, 51, dtype=np.int64)
            rig.inbox.chunks.append(rig.chunk(stamp_ns=stamp, first_ns=int(times[0]), dt_ns=dt_ms * MS, positions=curve(times)))
        out = rig.tick()
        assert all(out.chunk_verdicts) or k < latency_ms * rate_hz / 1000 + 2  # observations from before arming
        if out.mode is Mode.RUN:
            rig.loop._timeline.sample(out.sampled_ns, position, velocity, acceleration)
            assert np.abs(out.positions - position).max() <= 1e-6
            assert np.abs(out.positions - curve(out.sampled_ns)).max() <= 1e-4  # what the spline leaves out
            unchanged += 1
    assert unchanged > 0.8 * rate_hz
    assert rig.loop.counters.limited_ticks == rig.loop.counters.clamped_ticks == 0
    assert not rig.loop.counters.holds and not rig.loop.counters.faults


@settings(max_examples=40, deadline=None)
@given(towards=inside, ticks=st.integers(0, 120), last=st.integers(0, 9))
def test_without_a_policy_the_arms_rest_in_time(towards: FloatArray, ticks: int, last: int) -> None:
    rig = Watched(dry_run=False)
    rig.armed()
    for k in range(ticks + 1):
        if k % 10 == 0:
            rig.inbox.chunks.append(rig.chunk(towards))
        rig.tick()
    for _ in range(last):
        rig.tick()
    rig.inbox.chunks.append(rig.chunk(towards))
    rig.tick()
    gone = rig.now_ns
    resting_since = rig.now_ns
    for _ in range(200):
        before = rig.sent[-1]
        rig.tick()
        if np.abs(rig.sent[-1] - before).max() > 1e-9:
            resting_since = rig.now_ns
    assert resting_since - gone <= 1_500 * MS
    assert rig.loop.mode is Mode.HOLD and rig.loop.armed


@pytest.mark.parametrize("action_ms", [20, 33, 50])
def test_a_plan_at_the_speed_limit_is_not_blocked(action_ms: int) -> None:
    rig = Rig(small_profile(max_chunk_age_s=5.0, fade_s=0.0, ramp_s=0.1))
    rig.measured = np.array([-0.95, 0.0, -1.7])
    rig.armed()
    # Rises to 1.49 rad/s with accelerations of at most 6, cruises and comes to rest.
    t = np.arange(1, 60) * action_ms / 1000
    x = np.clip(t / 0.6, 0, 1)
    cruise = 1.49 * (0.6 * (x**3 - x**4 / 2) + np.clip(t - 0.6, 0, 1.0))
    y = np.clip((t - 1.6) / 0.6, 0, 1)
    path = cruise + 1.49 * 0.6 * (y - y**3 + y**4 / 2)
    positions = rig.measured + path[:, None] * np.array([1.0, 1.0, 0.0])
    rig.inbox.chunks.append(rig.chunk(dt_ns=action_ms * MS, first_ns=rig.now_ns + 150 * MS, positions=positions))
    peak = 0.0
    for _ in range(110):
        rig.tick()
        peak = max(peak, float(np.abs(rig.sent[-1] - rig.sent[-2]).max()) * 100 if len(rig.sent) > 1 else 0.0)
    assert rig.loop.counters.limited_ticks == 0
    assert peak > 1.3 or action_ms == 20


def test_the_action_period_of_the_rig_is_that_of_the_policy() -> None:
    assert round(1e9 / 30) == ACTION_NS
