"""A drift is followed, a step is told: ClockOffset against the plain reading of its contract."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.core.clock import ClockOffset

S = 1_000_000_000
MS = 1_000_000


def test_asked_before_the_first_reading_it_raises() -> None:
    clock = ClockOffset()
    with pytest.raises(RuntimeError, match="before the first update"):
        clock.to_monotonic(0)
    with pytest.raises(RuntimeError, match="before the first update"):
        clock.to_ros(0)


def test_a_stamp_goes_there_and_back() -> None:
    clock = ClockOffset()
    before = clock.known
    assert clock.update(1_700_000_000 * S, 5 * S)
    assert (before, clock.known) == (False, True)
    assert clock.to_monotonic(1_700_000_001 * S) == 6 * S
    assert clock.to_ros(6 * S) == 1_700_000_001 * S


def test_a_drift_is_followed_however_far_it_goes() -> None:
    clock = ClockOffset(tolerance_ns=MS)
    for second in range(1000):  # 500 ppm, read once a second: half a tolerance each, half a second in all
        assert clock.update(second * S + second * MS // 2, second * S)
    assert clock.jumps == 0
    assert clock.to_monotonic(999 * S + 999 * MS // 2) == 999 * S


@pytest.mark.parametrize(
    ("step_ns", "said"), [(3 * S, r"jumped by \+3\.000 s"), (-2 * S, r"jumped by -2\.000 s"), (-51 * MS, r"-0\.051 s")]
)
def test_a_step_is_told_once_with_its_sign_and_taken_over(step_ns: int, said: str) -> None:
    clock = ClockOffset()
    clock.update(100 * S, 10 * S)
    verdict = clock.update(101 * S + step_ns, 11 * S)
    assert not verdict and verdict.code == "clock_jump" and clock.jumps == 1
    assert re.search(said, verdict.reason)
    assert "allowed 0.050 s" in verdict.reason
    assert clock.to_monotonic(101 * S + step_ns) == 11 * S
    assert clock.update(102 * S + step_ns, 12 * S) and clock.jumps == 1


def test_the_tolerance_itself_is_still_a_drift() -> None:
    clock = ClockOffset(tolerance_ns=10)
    clock.update(0, 0)
    assert clock.update(-10, 0) and clock.update(0, 0)
    assert not clock.update(11, 0) and clock.jumps == 1


@given(st.lists(st.tuples(st.integers(-(10**19), 10**19), st.integers(0, 10**18)), min_size=1, max_size=30), st.integers(0, 10**9))
def test_every_reading_is_judged_against_the_one_before(readings: list[tuple[int, int]], tolerance_ns: int) -> None:
    clock = ClockOffset(tolerance_ns)
    jumps = 0
    for k, (ros_ns, monotonic_ns) in enumerate(readings):
        expected = k == 0 or abs((monotonic_ns - ros_ns) - (readings[k - 1][1] - readings[k - 1][0])) <= tolerance_ns
        jumps += not expected
        assert bool(clock.update(ros_ns, monotonic_ns)) == expected
        assert clock.jumps == jumps
        assert clock.to_monotonic(ros_ns) == monotonic_ns and clock.to_ros(monotonic_ns) == ros_ns
