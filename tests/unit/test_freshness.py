"""Freshness is three facts: alive, frequency ok, valid."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.core.freshness import Freshness, Health

S = 1_000_000_000
MS = 1_000_000


def fed(stream: Freshness, start_ns: int, period_ns: int, count: int) -> int:
    """Feed `count` arrivals and return the time of the last."""
    for k in range(count):
        stream.received(start_ns + k * period_ns)
    return start_ns + (count - 1) * period_ns


def test_nothing_yet_is_not_alive() -> None:
    health = Freshness(100 * MS).health(0)
    assert not health.alive and not health.ok and health.age_ns is None and health.rate_hz == 0.0
    assert health.reason("joints") == "joints: nothing received yet"


def test_alive_until_the_age_allowed_and_not_a_nanosecond_longer() -> None:
    stream = Freshness(100 * MS)
    stream.received(1 * S)
    assert stream.health(1 * S + 100 * MS).ok
    late = stream.health(1 * S + 100 * MS + 1)
    assert not late.alive and not late.ok and late.age_ns == 100 * MS + 1
    assert late.reason("joints") == "joints: last received 0.10 s ago"


def test_a_refused_message_keeps_a_stream_alive_but_not_valid() -> None:
    stream = Freshness(100 * MS)
    stream.received(0, valid=False)
    health = stream.health(1)
    assert health.alive and not health.valid and not health.ok
    assert health.reason("chunks") == "chunks: the last message was refused"
    stream.received(2)
    assert stream.health(3).ok and stream.health(3).reason("chunks") == ""


def test_a_stream_that_is_too_slow_says_its_rate() -> None:
    stream = Freshness(1 * S, min_rate_hz=20.0)
    now = fed(stream, 0, 100 * MS, 20)
    health = stream.health(now)
    assert health.alive and not health.frequency_ok and not health.ok
    assert abs(health.rate_hz - 10.0) < 1e-9
    assert health.reason("left") == "left: 10.0 Hz is below what is needed"


def test_the_first_two_arrivals_and_a_burst_tell_no_rate() -> None:
    stream = Freshness(10 * S, min_rate_hz=20.0)
    stream.received(0)
    assert stream.health(0).frequency_ok
    stream.received(500 * MS)
    assert stream.health(500 * MS).frequency_ok
    burst = Freshness(10 * S, min_rate_hz=20.0)
    fed(burst, 0, 0, 5)  # a queue emptied in one go
    assert burst.health(0).frequency_ok


def test_slower_than_once_a_second_is_seen_too() -> None:
    stream = Freshness(10 * S, min_rate_hz=1.0)
    now = fed(stream, 0, 2 * S, 2)
    assert not stream.health(now).frequency_ok


def test_a_stall_is_held_against_a_stream_for_one_second() -> None:
    stream = Freshness(1 * S, min_rate_hz=4.0)
    fed(stream, 0, 200 * MS, 40)
    back = 20 * S
    assert not _at(stream, back).frequency_ok
    healthy = [_at(stream, back + k * 200 * MS).frequency_ok for k in range(1, 10)]
    assert healthy == [False] * 4 + [True] * 5


def test_a_stream_that_becomes_slow_is_found_within_a_second() -> None:
    stream = Freshness(1 * S, min_rate_hz=20.0)
    now = fed(stream, 0, 10 * MS, 300)
    assert stream.health(now).frequency_ok
    now = fed(stream, now + 400 * MS, 400 * MS, 3)
    assert not stream.health(now).frequency_ok


def test_cleared_is_as_new() -> None:
    stream = Freshness(1 * S)
    stream.received(0, valid=False)
    stream.clear()
    health = stream.health(1)
    assert health.age_ns is None and health.valid and not health.ok


@given(st.lists(st.integers(0, 1500 * MS), min_size=1, max_size=60), st.floats(0.0, 50.0), st.integers(0, 2 * S))
def test_against_the_plain_reading(gaps_ns: list[int], min_rate_hz: float, wait_ns: int) -> None:
    stream = Freshness(1 * S, min_rate_hz, window=1000)
    times = [sum(gaps_ns[: k + 1]) for k in range(len(gaps_ns))]
    for time_ns in times:
        stream.received(time_ns)
    last = times[-1]
    before = [t for t in times[:-1] if t <= last - S]
    counted = before[-1:] + [t for k, t in enumerate(times) if t > last - S or k == len(times) - 1]
    health = stream.health(last + wait_ns)
    span_s = (last - counted[0]) * 1e-9
    assert health.alive == (wait_ns <= S) and health.age_ns == wait_ns
    if span_s > 0.0:
        assert abs(health.rate_hz - (len(counted) - 1) / span_s) <= 1e-9 * health.rate_hz
    if span_s >= 1.0 or (span_s > 0.0 and len(counted) >= 3):
        assert health.frequency_ok == (health.rate_hz >= min_rate_hz)
    else:
        assert health.frequency_ok


def _at(stream: Freshness, now_ns: int) -> Health:
    stream.received(now_ns)
    return stream.health(now_ns)
