"""The pace of the simulation, with made-up clocks."""

from __future__ import annotations

import pytest

from internvla_a1_ros.simulation.pacing import Event, Pacer

MS = 1_000_000


@pytest.mark.parametrize(("factor", "wall_ms"), [(1.0, 10.0), (2.0, 5.0), (0.5, 20.0)])
def test_simulated_time_is_spread_over_wall_time(factor: float, wall_ms: float) -> None:
    pacer = Pacer(factor)
    assert pacer.wait_ns(0, 7) == 0
    assert pacer.wait_ns(10 * MS, 7) == wall_ms * MS
    assert pacer.wait_ns(10 * MS, 7 + round(wall_ms * MS)) == 0
    assert pacer.lost_ns == 0


def test_unpaced_never_waits() -> None:
    pacer = Pacer(0.0)
    assert [pacer.wait_ns(t, 0) for t in (0, 10**9, 10**10)] == [0, 0, 0]


def test_a_short_delay_is_made_up_for() -> None:
    pacer = Pacer(1.0, slack_ns=20 * MS)
    pacer.wait_ns(0, 0)
    assert pacer.wait_ns(10 * MS, 30 * MS) == 0
    assert pacer.wait_ns(40 * MS, 30 * MS) == 10 * MS
    assert pacer.lost_ns == 0


def test_a_long_delay_is_given_up_and_counted_not_made_up_for() -> None:
    pacer = Pacer(1.0, slack_ns=20 * MS)
    pacer.wait_ns(0, 0)
    assert pacer.wait_ns(10 * MS, 510 * MS) == 0
    assert pacer.lost_ns == 500 * MS
    assert pacer.wait_ns(20 * MS, 510 * MS) == 10 * MS


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_factor_that_makes_no_sense_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="real-time factor"):
        Pacer(factor)


@pytest.mark.parametrize("rate", [30.0, 100.0, 33.3])
@pytest.mark.parametrize("phase", [0.0, 1 / 3])
def test_events_keep_their_rate_on_a_coarse_clock(rate: float, phase: float) -> None:
    event = Event("camera", rate, phase)
    step_ns = 1e9 / 480
    times = [k / 480 for k in range(4800) if event.take(round((k + 0.5) * step_ns))]
    assert len(times) == pytest.approx(10 * rate, abs=1)
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert min(gaps) > 1 / rate - 1.01 / 480 and max(gaps) < 1 / rate + 1.01 / 480
    assert times[0] == pytest.approx(phase / rate, abs=1 / 480)


def test_what_was_skipped_happens_once() -> None:
    event = Event("camera", 10.0)
    assert event.take(0)
    assert event.take(1_050 * MS)
    assert not event.take(1_060 * MS)
    assert event.due_ns == 1_100 * MS


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="camera_rate_hz: got 0.0 Hz"):
        Event("camera_rate_hz", 0.0)
