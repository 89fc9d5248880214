"""The figures that the benchmark reports, on made-up recordings whose answers are known."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from internvla_a1_ros.core.types import ActionChunk, FloatArray
from internvla_a1_ros.evaluation.braking import measure_stop, rest_time
from internvla_a1_ros.evaluation.seams import measure
from internvla_a1_ros.nodes import pacing
from internvla_a1_ros.nodes.pacing import Pacer

MS = 1_000_000
DT_NS = 10 * MS
ACTION_NS = 40 * MS


def line(stamp_ns: int, first: float, slope_rad_s: float, steps: int = 50) -> ActionChunk:
    """Return a plan of two joints: a straight line from `first` at its first action, and one at rest."""
    t = np.arange(steps) * ACTION_NS * 1e-9
    return ActionChunk("cell", ("moving", "still"), stamp_ns, stamp_ns, ACTION_NS, np.stack((first + slope_rad_s * t, np.zeros(steps)), 1))


# Seams


def test_a_plan_that_continues_the_one_before_has_no_seam() -> None:
    arrivals = [(k * 400 * MS, line(k * 400 * MS, 0.5 + 0.2 * k, 0.5)) for k in range(4)]
    seams = measure(arrivals, DT_NS, 200 * MS, (0, 1))
    assert seams.chunks == 4
    assert seams.inside_rad == pytest.approx(0.005)
    assert seams.across_rad == pytest.approx(0.005, abs=1e-4)
    assert seams.excess_rad < 1e-4


def test_without_a_fade_a_jump_between_plans_is_seen_and_with_one_it_is_spread() -> None:
    arrivals = [(0, line(0, 0.5, 0.0)), (405 * MS, line(400 * MS, 0.6, 0.0))]
    off = measure(arrivals, DT_NS, 0, (0,))
    assert off.inside_rad == pytest.approx(0.0, abs=1e-12)
    # It is merged at 410 ms, the next action is 30 ms away: some tick goes more than its share, none the whole way.
    assert 0.1 / 3 < off.excess_rad < 0.1
    slow = measure(arrivals, DT_NS, 400 * MS, (0,))
    assert slow.excess_rad == pytest.approx(0.1 * 1.875 * 10 / 400, rel=0.05)  # quintic: 1.875 times the mean speed
    assert measure(arrivals, DT_NS, 800 * MS, (0,)).excess_rad < slow.excess_rad < off.excess_rad


def test_only_the_joints_asked_for_count() -> None:
    arrivals = [(0, line(0, 0.5, 0.0)), (400 * MS, line(400 * MS, 0.9, 0.0))]
    assert measure(arrivals, DT_NS, 0, (1,)).excess_rad == 0.0
    assert measure(arrivals, DT_NS, 0, (0, 1)).excess_rad > 0.1  # 0.4 in 40 ms


def test_plans_that_come_before_the_next_tick_count_too() -> None:
    arrivals = [(0, line(0, 0.5, 0.0)), (401 * MS, line(400 * MS, 0.5, 0.0)), (402 * MS, line(400 * MS, 0.8, 0.0))]
    assert measure(arrivals, DT_NS, 0, (0,)).excess_rad > 0.05


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_plans_have_no_seam_to_measure(count: int) -> None:
    with pytest.raises(ValueError, match=f"got {count} chunks"):
        measure([(0, line(0, 0.5, 0.0))] * count, DT_NS, 0, (0,))


# Braking


def braked(speed: float, deceleration: float, before: int = 50, after: int = 5) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return received, stamps and joints [n, 2] of a motion at `speed` that brakes after `before` commands at a constant rate."""
    period = 0.01
    steps = [speed * period] * before
    now = speed - deceleration * period
    while now > 1e-9:
        steps.append(now * period)
        now -= deceleration * period
    positions = np.cumsum([0.0, *steps, *[0.0] * after])
    stamps = 100.0 + period * np.arange(len(positions))
    return stamps + 0.002, stamps, np.stack((positions, 0.3 * positions), 1)


@pytest.mark.parametrize(("speed", "deceleration"), [(1.0, 20.0), (1.5, 20.0), (0.5, 10.0)])
def test_onset_and_rest_of_a_stop_at_constant_deceleration(speed: float, deceleration: float) -> None:
    received, stamps, joints = braked(speed, deceleration)
    event = received[51] - 0.004  # 4 ms before the first slower command arrives
    stop = measure_stop(received, stamps, joints, event, deceleration)
    assert stop.onset_ms == pytest.approx(4.0, abs=1e-6)
    assert stop.speed_rad_s == pytest.approx(speed)
    assert stop.rest_s == pytest.approx(speed / deceleration, abs=0.0101)
    assert stop.rest_ratio == pytest.approx(stop.rest_s * deceleration / speed)
    assert 0.8 < stop.rest_ratio <= 1.0 + 1e-9


def test_a_stop_that_takes_twice_as_long_has_twice_the_ratio() -> None:
    received, stamps, joints = braked(1.2, 20.0)
    slow = measure_stop(received, stamps, joints, received[51] - 0.001, 40.0 - 1e-6)
    fast = measure_stop(received, stamps, joints, received[51] - 0.001, 20.0)
    assert slow.rest_ratio == pytest.approx(2 * fast.rest_ratio, rel=1e-6)


def test_commands_between_the_event_and_braking_lengthen_the_onset() -> None:
    received, stamps, joints = braked(1.0, 20.0)
    assert measure_stop(received, stamps, joints, received[51] - 0.034, 20.0).onset_ms == pytest.approx(34.0, abs=1e-6)


def test_commands_that_cease_at_rest_are_a_whole_stop_too() -> None:
    whole = measure_stop(*braked(1.0, 20.0, after=5), 100.5, 20.0)
    assert measure_stop(*braked(1.0, 20.0, after=0), 100.5, 20.0) == whole


def test_what_is_no_stop_is_said() -> None:
    received, stamps, joints = braked(1.0, 20.0)
    with pytest.raises(ValueError, match="no command was received after the event"):
        measure_stop(received, stamps, joints, received[-1] + 1.0, 20.0)
    with pytest.raises(ValueError, match="no braking command after the event: largest deceleration 0.0"):
        measure_stop(received[:40], stamps[:40], joints[:40], received[30], 20.0)


def test_rest_is_the_last_command_that_moved() -> None:
    received, _, joints = braked(1.0, 20.0, after=30)
    moved = int(np.flatnonzero(np.diff(joints[:, 0]))[-1]) + 1
    assert rest_time(received, joints, received[40]) == pytest.approx(received[moved] - received[40])
    assert rest_time(received, joints, received[moved] + 1e-6) == 0.0
    assert rest_time(received, joints + 1e-6 * np.arange(len(joints))[:, None], received[40]) == pytest.approx(
        received[moved] - received[40]
    )


# Pace


@dataclass
class FakeClock:
    """A clock that goes on while the pacer sleeps; `overslept` are the lengths by which it sleeps too long, one a sleep."""

    now: int = 1_000 * MS
    simulated: bool = False
    overslept: list[int] = field(default_factory=list)
    slept: list[int] = field(default_factory=list)

    def now_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds * 1e9))
        self.now += self.slept[-1] + (self.overslept.pop(0) if self.overslept else 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(pacing.time, "sleep", clock.sleep)
    return clock


@pytest.fixture
def going() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def started(clock: FakeClock, keep: int = 100) -> Pacer:
    pacer = Pacer(DT_NS, keep)
    pacer.start(clock)  # type: ignore[arg-type]
    return pacer


def test_ticks_lie_on_a_grid_whatever_the_work_takes(clock: FakeClock, going: threading.Event) -> None:
    pacer, ticks = started(clock), []
    for work_ms in (3, 9, 0, 5):
        ticks.append(pacer.wait(clock, going))  # type: ignore[arg-type]
        clock.now += work_ms * MS
    assert ticks == [(1_000 * MS + (k + 1) * DT_NS, 0) for k in range(4)]
    assert clock.slept == [10 * MS, 7 * MS, 1 * MS, 10 * MS]


def test_a_tick_that_comes_late_is_made_up_for(clock: FakeClock, going: threading.Event) -> None:
    clock.overslept = [0, 4 * MS]
    pacer = started(clock)
    scheduled = [pacer.wait(clock, going) for _ in range(4)]  # type: ignore[arg-type]
    assert scheduled == [(1_000 * MS + (k + 1) * DT_NS, 0) for k in range(4)]
    assert clock.slept[2] == 6 * MS


@pytest.mark.parametrize(("late_ms", "missed"), [(9, 0), (10, 1), (19, 1), (25, 2), (1_000, 100)])
def test_missed_ticks_are_counted_and_the_grid_begins_anew(clock: FakeClock, going: threading.Event, late_ms: int, missed: int) -> None:
    clock.overslept = [late_ms * MS]
    pacer = started(clock)
    assert pacer.wait(clock, going) == (1_000 * MS + DT_NS + late_ms * MS, missed)  # type: ignore[arg-type]
    assert pacer.wait(clock, going) == (1_000 * MS + 2 * DT_NS + late_ms * MS, 0)  # type: ignore[arg-type]


def test_simulated_time_that_stands_still_keeps_nobody(clock: FakeClock, going: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell has ended before the command process: no tick will ever come, and the thread must not outlive what it listens to."""
    clock.simulated = True
    pacer, polls = started(clock), []

    def asleep(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            going.clear()

    monkeypatch.setattr(pacing.time, "sleep", asleep)
    pacer.wait(clock, going)  # type: ignore[arg-type]
    assert polls == [Pacer.SIMULATED_POLL_S] * 3


def test_statistics_of_jitter_and_lateness(clock: FakeClock, going: threading.Event) -> None:
    pacer = started(clock)
    assert pacer.statistics() == {"measured_ticks": 0.0}
    clock.overslept = [0, 0, 2 * MS, 0, 0]  # the third tick is late, the fourth follows early
    for _ in range(5):
        pacer.wait(clock, going)  # type: ignore[arg-type]
    got = pacer.statistics()
    assert got["measured_ticks"] == 4 and got["jitter_ms_max"] == pytest.approx(2.0) and got["late_ms_max"] == pytest.approx(2.0)
    assert got["jitter_ms_p99"] == pytest.approx(np.percentile([0, 2, 2, 0], 99))
    assert got["late_ms_p99"] == pytest.approx(np.percentile([0, 2, 0, 0], 99))
    pacer.reset_statistics()
    assert pacer.statistics() == {"measured_ticks": 0.0}


def test_statistics_forget_what_is_long_past(clock: FakeClock) -> None:
    pacer = started(clock, keep=4)
    clock.overslept = [0, 5 * MS]
    for _ in range(8):
        pacer.wait(clock, going)  # type: ignore[arg-type]
    assert pacer.statistics() == {"measured_ticks": 4.0, "jitter_ms_p99": 0.0, "jitter_ms_max": 0.0, "late_ms_p99": 0.0, "late_ms_max": 0.0}


@pytest.mark.parametrize(("jump_ms", "missed"), [(-5_000, 0), (5_000, 500)])
def test_simulated_time_that_jumps_starts_a_new_grid(clock: FakeClock, going: threading.Event, jump_ms: int, missed: int) -> None:
    clock.simulated = True
    pacer = started(clock)
    assert pacer.wait(clock, going) == (1_010 * MS, 0)  # type: ignore[arg-type]
    clock.now += jump_ms * MS
    now = clock.now
    scheduled, counted = pacer.wait(clock, going)  # type: ignore[arg-type]
    assert abs(scheduled - now) < DT_NS and counted in (missed - 1, missed)
    assert pacer.wait(clock, going) == (scheduled + DT_NS, 0)  # type: ignore[arg-type]


def test_simulated_time_is_waited_for_in_small_steps_of_real_time(clock: FakeClock, going: threading.Event) -> None:
    clock.simulated = True
    pacer = started(clock)
    pacer.wait(clock, going)  # type: ignore[arg-type]
    assert clock.slept == [MS] * 10
