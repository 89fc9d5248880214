"""History by capture time, against a brute-force reading of its contract that keeps every frame and sorts nothing."""

from __future__ import annotations

import random
from statistics import median_high

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.history import FrameHistory, HistorySpec
from internvla_a1_ros.core.types import Frame

S = 1_000_000_000
MS = 1_000_000
SPEC = HistorySpec()
KEPT_NS = SPEC.interval_ns + 2 * SPEC.tolerance_ns + 350 * MS
PICTURE = np.zeros((1, 1, 3), np.uint8)


def frame(stamp_ns: int) -> Frame:
    return Frame("head", stamp_ns, stamp_ns, PICTURE)


def history_of(stamps_ns: list[int]) -> FrameHistory:
    history = FrameHistory(SPEC)
    for stamp in stamps_ns:
        history.add(frame(stamp))
    return history


def past_ns(history: FrameHistory, now_ns: int, known: set[int] | None = None) -> int | None:
    found = history.past(frame(now_ns), None if known is None else lambda f: f.stamp_ns in known)
    return None if found is None else found.stamp_ns


class Plain:
    """Every stamp since the camera's clock last jumped back, in no order, read anew at each question."""

    def __init__(self) -> None:
        self.stamps: set[int] = set()
        self.repeated = self.out_of_order = self.clock_jumps = 0

    def add(self, stamp: int) -> None:
        if self.stamps and stamp < max(self.stamps) - 1 * S:  # the streams below are at most 0.4 s late and jump by 2 s or more
            self.stamps.clear()
            self.clock_jumps += 1
        self.repeated += stamp in self.stamps
        self.out_of_order += bool(self.stamps) and stamp not in self.stamps and stamp < max(self.stamps)
        self.stamps.add(stamp)

    def nearest(self, stamp: int) -> int | None:
        return min(self.stamps, key=lambda s: (abs(s - stamp), s), default=None)

    def tolerance(self) -> int:
        newest = max(self.stamps)
        lately = sorted(s for s in self.stamps if s >= newest - KEPT_NS)
        if len(lately) < 2:
            return SPEC.tolerance_ns
        period = median_high(later - earlier for earlier, later in zip(lately[:-1], lately[1:], strict=True))
        return max(SPEC.tolerance_ns, min(period, 2 * SPEC.tolerance_ns))

    def past(self, now: int, known: set[int]) -> int | None:
        wanted = now - SPEC.interval_ns
        tolerance = self.tolerance()
        near = {s for s in self.stamps if abs(s - wanted) <= tolerance and s <= now}
        if near:
            return min(near & known or near, key=lambda s: (abs(s - wanted), s))
        return min(self.stamps) if wanted < min(self.stamps) else None


def arrivals(seed: int, hz: int, jitter_ms: float, drop: float, late: float, repeat: float, jumps_s: list[int]) -> list[int]:
    """Stamps in order of arrival: jittered, dropped, up to 0.4 s late, sent twice, with the clock stepping by `jumps_s`."""
    rnd = random.Random(seed)
    total = hz * 3
    steps_at = sorted(rnd.sample(range(1, total), len(jumps_s)))
    sent: list[tuple[float, int]] = []
    clock_s, tick = 100.0, 0.0
    for k in range(total):
        tick = k / hz
        clock_s += sum(jump for at, jump in zip(steps_at, jumps_s, strict=True) if at == k)
        if rnd.random() < drop:
            continue
        stamp = round((clock_s + tick) * S + rnd.uniform(-jitter_ms, jitter_ms) * MS)
        for _ in range(2 if rnd.random() < repeat else 1):
            sent.append((tick + (rnd.uniform(0, 0.4) if rnd.random() < late else 0.0), stamp))
    return [stamp for _, stamp in sorted(sent, key=lambda entry: entry[0])]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([15, 30, 90]),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0.0, 0.1]),
    st.lists(st.sampled_from([-60, -2, 3]), max_size=2),
)
def test_any_stream_against_the_plain_reading(
    seed: int, hz: int, jitter_ms: float, drop: float, late: float, repeat: float, jumps_s: list[int]
) -> None:
    history, plain = FrameHistory(SPEC), Plain()
    rnd = random.Random(seed + 1)
    for stamp in arrivals(seed, hz, jitter_ms, drop, late, repeat, jumps_s):
        history.add(frame(stamp))
        plain.add(stamp)
        newest = max(plain.stamps)
        assert history.newest is not None and history.newest.stamp_ns == newest
        now = plain.nearest(newest - rnd.randrange(350 * MS))
        assert now is not None
        asked = newest - rnd.randrange(-100 * MS, 400 * MS)
        found = history.nearest(asked)
        assert found is not None
        if newest - asked < 300 * MS:
            assert found.stamp_ns == plain.nearest(asked)
        if newest - now < 350 * MS:
            known = {s for s in plain.stamps if s % 3 == 0}
            assert past_ns(history, now) == plain.past(now, set())
            assert past_ns(history, now, known) == plain.past(now, known)
        assert len(history) <= 0.92 * 3 * hz + 2
    assert (history.repeated, history.out_of_order, history.clock_jumps) == (plain.repeated, plain.out_of_order, plain.clock_jumps)


@pytest.mark.parametrize("hz", [15, 30, 60, 90])
@pytest.mark.parametrize("jitter_ms", [0.0, 2.0])
def test_half_a_second_is_half_a_second_at_any_rate(hz: int, jitter_ms: float) -> None:
    history = FrameHistory(SPEC)
    for k, stamp in enumerate(arrivals(7, hz, jitter_ms, 0.0, 0.0, 0.0, [])):
        history.add(frame(stamp))
        if k > 0.6 * hz:
            found = past_ns(history, stamp)
            assert found is not None, f"frame {k} has no past"
            assert abs(stamp - found - SPEC.interval_ns) <= 0.5 * S / hz + 2 * jitter_ms * MS + 1


def test_at_the_start_of_a_stream_the_past_is_the_earliest_frame() -> None:
    history = FrameHistory(SPEC)
    assert history.newest is None and history.nearest(0) is None and past_ns(history, 0) is None
    for k in range(13):  # until 400 ms the wanted moment lies before the first frame
        history.add(frame(k * 33 * MS))
        assert past_ns(history, k * 33 * MS) == 0
    history.add(frame(-10 * MS))  # an earlier one that came late
    assert past_ns(history, 12 * 33 * MS) == -10 * MS


def test_a_stream_that_paused_has_no_past_until_half_a_second_is_full_again() -> None:
    stamps = [k * 33 * MS for k in range(31)] + [2 * S + k * 33 * MS for k in range(31)]
    history = FrameHistory(SPEC)
    found = []
    for stamp in stamps:
        history.add(frame(stamp))
        found.append(past_ns(history, stamp))
    after = found[31:]
    assert after[:15] == [None] * 15  # not the earliest: this is not the start
    assert after[15:] == [2 * S + k * 33 * MS for k in range(16)]


def test_outside_the_tolerance_there_is_no_past() -> None:
    steady = [k * 30 * MS for k in range(40)]
    now = steady[-1]
    wanted = now - SPEC.interval_ns
    without = [s for s in steady if abs(s - wanted) > 2 * SPEC.tolerance_ns]
    for distance, expected in ((SPEC.tolerance_ns, True), (SPEC.tolerance_ns + 1, False)):
        for side in (-1, 1):
            history = history_of(sorted([*without, wanted + side * distance]))
            assert past_ns(history, now) == (wanted + side * distance if expected else None)


def test_a_known_frame_within_tolerance_is_preferred_to_a_nearer_one() -> None:
    history = history_of([k * 10 * MS for k in range(101)])
    now, wanted = 1000 * MS, 500 * MS
    assert past_ns(history, now) == wanted
    assert past_ns(history, now, {470 * MS, 520 * MS}) == 520 * MS
    assert past_ns(history, now, {480 * MS, 520 * MS}) == 480 * MS  # as near: the earlier one
    assert past_ns(history, now, {460 * MS, 540 * MS}) == wanted  # known, but too far


def test_between_two_frames_as_near_the_earlier_one_is_taken() -> None:
    history = history_of([0, 10, 20])
    asked = [history.nearest(t) for t in (-5, 5, 6, 15, 99)]
    assert [f.stamp_ns for f in asked if f] == [0, 0, 10, 10, 20]


def test_the_past_never_lies_after_the_present() -> None:
    history = FrameHistory(HistorySpec(interval_ns=100, tolerance_ns=500))
    for stamp in (0, 40, 80):
        history.add(frame(stamp))
    assert past_ns(history, 40) == past_ns(history, 40, {80}) == 0


def test_a_clock_that_jumps_back_starts_anew() -> None:
    history = history_of([100 * S + k * 33 * MS for k in range(30)])
    history.add(frame(50 * S))
    assert len(history) == 1 and history.clock_jumps == 1
    assert past_ns(history, 50 * S) == 50 * S
    history.add(frame(50 * S + 33 * MS))
    assert past_ns(history, 50 * S + 33 * MS) == 50 * S


def test_the_first_of_two_frames_with_one_stamp_stays() -> None:
    history = FrameHistory(SPEC)
    first, second = frame(5), frame(5)
    history.add(first)
    history.add(second)
    assert history.newest is first and history.repeated == 1 and len(history) == 1


def test_the_period_is_the_mean_of_what_is_kept() -> None:
    assert history_of([]).period_ns == 0 and history_of([5]).period_ns == 0
    assert history_of([0, 30 * MS, 100 * MS]).period_ns == 50 * MS


def test_memory_is_bounded_by_time_and_by_number() -> None:
    history = history_of([k * MS for k in range(3000)])
    assert len(history) == 256
    slow = history_of([k * 33 * MS for k in range(3000)])
    assert len(slow) == KEPT_NS // (33 * MS) + 1


def test_cleared_the_next_frame_is_the_earliest() -> None:
    history = history_of([k * 33 * MS for k in range(60)])
    history.clear()
    assert len(history) == 0 and history.newest is None
    history.add(frame(60 * 33 * MS))
    assert past_ns(history, 60 * 33 * MS) == 60 * 33 * MS


@pytest.mark.parametrize(("interval_ns", "tolerance_ns"), [(-1, 1), (1, -1)])
def test_a_senseless_spec_is_refused(interval_ns: int, tolerance_ns: int) -> None:
    with pytest.raises(ValueError, match="got interval"):
        HistorySpec(interval_ns, tolerance_ns)


def test_without_an_interval_the_past_is_the_present() -> None:
    history = FrameHistory(HistorySpec(0, 33 * MS))
    for stamp_ns in (0, 20 * MS, 40 * MS):
        history.add(frame(stamp_ns))
    assert past_ns(history, 20 * MS, known={0}) == 20 * MS
