"""The timeline is one C2 curve through the actions, continuous in value and velocity where a chunk is faded in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.timeline import Timeline, fade_weight
from internvla_a1_ros.core.types import ActionChunk, FloatArray

S = 1_000_000_000
MS = 1_000_000
DT = 33_333_333
TICK = 10 * MS
DOF = 3
REST = np.zeros(DOF)


def chunk(positions: FloatArray, first_ns: int = DT, dt_ns: int = DT) -> ActionChunk:
    """A chunk of `positions` [H] or [H, DOF]; one value per action is meant for every joint."""
    rows = np.asarray(positions, dtype=np.float64)
    if rows.ndim == 1:
        rows = np.repeat(rows[:, None], DOF, axis=1)
    return ActionChunk("r", ("a", "b", "c"), first_ns - dt_ns, first_ns, dt_ns, rows)


def at(timeline: Timeline, t_ns: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Position, velocity and acceleration [DOF] at `t_ns`."""
    state = np.full((3, DOF), np.nan)
    timeline.sample(t_ns, state[0], state[1], state[2])
    return state[0], state[1], state[2]


def track(timeline: Timeline, times_ns: range) -> FloatArray:
    """Position, velocity and acceleration [n, 3, DOF] at many times."""
    return np.array([at(timeline, t) for t in times_ns])


def wave(t_s: npt.NDArray[Any]) -> FloatArray:
    """A motion [n, DOF] as arms make them: up to about 1 rad/s, three joints out of phase."""
    result: FloatArray = 0.4 * np.sin(2.0 * t_s[:, None] + np.array([0.0, 1.0, 2.0])) + 0.05 * np.sin(7.0 * t_s[:, None])
    return result


def waves(first_ns: int, count: int = 50, offset: float = 0.0) -> ActionChunk:
    return chunk(wave((first_ns + DT * np.arange(count)) * 1e-9) + offset, first_ns)


def running(fade_ns: int = 0) -> Timeline:
    """A timeline that has been following the wave since 0."""
    timeline = Timeline(DOF)
    timeline.merge(waves(DT), 0, fade_ns, wave(np.zeros(1))[0])
    return timeline


# The curve


def test_an_empty_timeline_writes_nothing() -> None:
    timeline = Timeline(DOF)
    assert timeline.empty and timeline.end_ns == 0 and timeline.tail(0, DT, 5).shape == (0, DOF)
    assert np.isnan(at(timeline, 0)).all()
    assert timeline.sample(0, REST.copy(), REST.copy(), REST.copy()) is False


def test_every_action_is_reached_at_its_time() -> None:
    rng = np.random.default_rng(0)
    plan = chunk(rng.normal(size=(50, DOF)))
    timeline = Timeline(DOF)
    assert timeline.merge(plan, 0, 0, REST)
    assert timeline.end_ns == plan.end_ns and not timeline.empty
    for k in range(50):
        np.testing.assert_allclose(at(timeline, plan.time_of(k))[0], plan.positions[k], atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_the_curve_is_the_spline_that_these_conditions_leave_no_other(count: int) -> None:
    """It passes the knots (above), starts as told, ends without acceleration, is cubic between knots and C2 across them."""
    plan = chunk(np.random.default_rng(count).normal(size=(count, DOF)))
    timeline = Timeline(DOF)
    timeline.merge(plan, 10 * MS, 0, np.full(DOF, 0.3))
    start = at(timeline, 10 * MS)
    np.testing.assert_allclose(start[0], 0.3, atol=1e-12)
    np.testing.assert_allclose(start[1], 0.0, atol=1e-12)
    knots = [10 * MS, *(plan.time_of(k) for k in range(count))]
    largest_jerk = 0.0
    for a, b in zip(knots[:-1], knots[1:], strict=True):
        inside = track(timeline, range(a, b, (b - a) // 5))[:5]
        h = (b - a) // 5 * 1e-9
        jerk = np.diff(inside[:, 2], axis=0) / h
        np.testing.assert_allclose(jerk, np.broadcast_to(jerk[0], jerk.shape), rtol=1e-6, atol=1e-6 * np.abs(inside[:, 2]).max() / h)
        taylor = inside[0, 0] + h * inside[0, 1] + h**2 / 2 * inside[0, 2] + h**3 / 6 * jerk[0]
        np.testing.assert_allclose(inside[1, 0], taylor, atol=1e-9)
        np.testing.assert_allclose(inside[1, 1], inside[0, 1] + h * inside[0, 2] + h**2 / 2 * jerk[0], rtol=1e-9, atol=1e-7)
        largest_jerk = max(largest_jerk, float(np.abs(jerk).max()))
    for b in knots[1:-1]:
        before, after = np.array(at(timeline, b - 1)), np.array(at(timeline, b))
        bound = 2e-9 * np.array([np.abs(after[1]).max(), np.abs(after[2]).max(), largest_jerk]) + 1e-9
        assert (np.abs(after - before).max(axis=1) <= bound).all()
    assert np.abs(at(timeline, knots[-1] - 1)[2]).max() <= 2e-9 * largest_jerk + 1e-9


def test_cubic_data_is_reproduced_exactly() -> None:
    plan_s = DT * 1e-9 * np.arange(1, 41)
    end = plan_s[-1]
    scale = np.array([0.5, -1.0, 2.0])

    def cubic(x: npt.NDArray[Any]) -> FloatArray:  # at rest where it starts, without acceleration where it ends
        return np.stack(
            [scale * (x**2 * (3 * end - x))[:, None], scale * (6 * end * x - 3 * x**2)[:, None], scale * (6 * end - 6 * x)[:, None]], 1
        )

    timeline = Timeline(DOF)
    timeline.merge(chunk(cubic(plan_s)[:, 0]), 0, 0, REST)
    times = range(0, 40 * DT, 7 * MS)
    np.testing.assert_allclose(track(timeline, times), cubic(np.array(times) * 1e-9), atol=1e-10)


def test_before_its_start_it_gives_what_holds_at_its_start() -> None:
    timeline = running()
    timeline.merge(waves(10 * DT), 10 * DT + 5 * MS, 100 * MS, REST)
    np.testing.assert_array_equal(at(timeline, 3 * DT), at(timeline, 10 * DT + 5 * MS))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_over_it_holds_its_last_position_at_rest(count: int) -> None:
    plan = chunk(np.linspace(0.1, 1.0, count))
    timeline = Timeline(DOF)
    timeline.merge(plan, 0, 0, REST)
    state = np.full((3, DOF), np.nan)
    assert timeline.sample(plan.end_ns - 1, *state)
    for t in (plan.end_ns, plan.end_ns + 1, plan.end_ns + 100 * S):
        assert not timeline.sample(t, *state)
        np.testing.assert_array_equal(state[0], plan.positions[-1])
        np.testing.assert_array_equal(state[1:], 0.0)


def test_after_the_end_a_new_chunk_starts_from_rest_where_it_ended() -> None:
    timeline = Timeline(DOF)
    timeline.merge(chunk(np.linspace(0.0, 1.0, 10)), 0, 0, REST)
    now = 5 * S
    assert timeline.merge(chunk(np.full(10, 2.0), now - 50 * MS), now, 200 * MS, np.full(DOF, 77.0))
    position, velocity, _ = at(timeline, now)
    np.testing.assert_allclose(position, 1.0, atol=1e-12)
    np.testing.assert_allclose(velocity, 0.0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("from_ns", [0, 20 * MS, DT - DT // 4])
def test_chunks_of_one_and_two_actions_are_smooth(count: int, from_ns: int) -> None:
    timeline = Timeline(DOF)
    assert timeline.merge(chunk(np.full(count, 0.5)), from_ns, 0, REST)
    positions = track(timeline, range(from_ns, count * DT, MS))[:, 0]
    assert np.isfinite(positions).all() and positions.min() >= 0.0
    np.testing.assert_allclose(at(timeline, DT)[0], 0.5, atol=1e-12)
    assert np.abs(np.diff(positions, axis=0)).max() < 0.1


# Seams


def test_the_weight_of_the_fade_and_its_first_two_derivatives_vanish_at_both_ends() -> None:
    np.testing.assert_allclose(fade_weight(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0.0, 0.0, 0.5, 1.0, 1.0], atol=1e-15)
    x = np.linspace(0.0, 1.0, 1001)
    w = fade_weight(x)
    assert (np.diff(w) >= 0.0).all()
    np.testing.assert_allclose(w + w[::-1], 1.0, atol=1e-12)
    first, second = np.diff(w) / 1e-3, np.diff(w, 2) / 1e-6
    assert max(abs(first[0]), abs(first[-1])) < 1e-4 and max(abs(second[0]), abs(second[-1])) < 0.1
    assert first.max() == pytest.approx(1.875, abs=1e-3)


@pytest.mark.parametrize("fade_ns", [0, 100 * MS, 300 * MS])
@pytest.mark.parametrize("from_ns", [300 * MS, 10 * DT, 10 * DT + 1, 10 * DT - DT // 4, 11 * DT - DT // 4 - 1])
def test_value_and_velocity_are_continuous_at_a_seam(fade_ns: int, from_ns: int) -> None:
    timeline = running()
    before = at(timeline, from_ns)
    assert timeline.merge(waves(5 * DT, offset=0.3), from_ns, fade_ns, np.full(DOF, 9.0))
    after = at(timeline, from_ns)
    np.testing.assert_allclose(after[0], before[0], atol=1e-12)
    np.testing.assert_allclose(after[1], before[1], atol=1e-10)


def test_with_a_fade_the_acceleration_is_nearly_continuous_too() -> None:
    steps = {}
    for fade_ns in (0, 300 * MS):
        timeline = running()
        before = at(timeline, 300 * MS)[2]
        timeline.merge(waves(5 * DT, offset=0.1), 300 * MS, fade_ns, REST)
        steps[fade_ns] = float(np.abs(at(timeline, 300 * MS)[2] - before).max())
    assert steps[300 * MS] < 5.0 < 50.0 < steps[0]  # rad/s^2, for a chunk 0.1 rad beside the plan


def test_the_fade_weighs_old_and_new_by_the_time_since_the_seam() -> None:
    timeline = Timeline(DOF)
    timeline.merge(chunk(np.full(50, 1.0)), 0, 0, np.ones(DOF))
    new = chunk(np.full(50, 3.0), 150 * MS)
    timeline.merge(new, 200 * MS, 400 * MS, REST)
    times = [new.time_of(k) for k in range(2, 50)]
    expected = [1.0 + 2.0 * float(fade_weight(np.array((t - 200 * MS) / (400 * MS)))) for t in times]
    np.testing.assert_allclose([at(timeline, t)[0][0] for t in times], expected, atol=1e-12)
    assert at(timeline, 200 * MS + 450 * MS)[0] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("fade_ns", [0, 200 * MS])
@pytest.mark.parametrize("from_ns", [300 * MS, 301 * MS, 310 * MS])  # the next action, at 333 ms, is near but not too near
def test_a_chunk_that_says_what_is_planned_changes_nothing(fade_ns: int, from_ns: int) -> None:
    timeline = running()
    times = range(from_ns, 50 * DT, 7 * MS)
    before = track(timeline, times)
    assert timeline.merge(waves(DT), from_ns, fade_ns, REST)
    np.testing.assert_allclose(track(timeline, times), before, atol=1e-9)


def test_the_step_across_seams_is_small_with_a_fade_and_not_without() -> None:
    """Chunks 0.02 rad beside each other, ten a second: the step per tick beyond that of the motion itself."""
    excess = {}
    for fade_ns in (0, 200 * MS):
        timeline = running()
        positions = []
        for k in range(300):
            now = 100 * MS + k * TICK
            if k % 10 == 0:
                timeline.merge(waves(now - 60 * MS, offset=0.01 * (-1) ** (k // 10)), now, fade_ns, REST)
            positions.append(at(timeline, now)[0])
        truth = wave((100 * MS + TICK * np.arange(300)) * 1e-9)
        excess[fade_ns] = float(np.abs(np.diff(positions, axis=0) - np.diff(truth, axis=0)).max())
    assert excess[200 * MS] < 0.002 < 0.005 < excess[0]


def test_an_empty_timeline_starts_at_rest_where_the_robot_is_and_fades_to_the_chunk() -> None:
    timeline = Timeline(DOF)
    start = np.array([0.1, -0.2, 0.3])
    assert timeline.merge(chunk(np.full(50, 1.0), -100 * MS), 0, 500 * MS, start)
    state = at(timeline, 0)
    np.testing.assert_allclose(state[0], start, atol=1e-12)
    np.testing.assert_allclose(state[1], 0.0, atol=1e-12)
    assert np.abs(state[2]).max() < 1.0
    np.testing.assert_allclose(at(timeline, 600 * MS)[0], 1.0, atol=1e-3)


# What does not fit


@pytest.mark.parametrize("from_ns", [50 * DT, 50 * DT + 1, 50 * DT - DT // 4 + 1, 100 * S])
def test_a_chunk_of_the_past_is_ignored(from_ns: int) -> None:
    timeline = running()
    before = track(timeline, range(0, 2 * S, 50 * MS))
    assert timeline.merge(waves(DT, offset=1.0), from_ns, 0, REST) is False
    np.testing.assert_array_equal(track(timeline, range(0, 2 * S, 50 * MS)), before)
    empty = Timeline(DOF)
    assert empty.merge(waves(DT), from_ns, 0, REST) is False and empty.empty


def test_an_action_too_near_the_start_is_left_out() -> None:
    plan = waves(DT)
    quarter = plan.time_of(10) - DT // 4
    for from_ns, kept in ((quarter, True), (quarter + 1, False)):
        timeline = Timeline(DOF)
        timeline.merge(plan, from_ns, 0, plan.positions[9])
        reached = bool(np.allclose(at(timeline, plan.time_of(10))[0], plan.positions[10], atol=1e-12))
        assert reached == kept


def test_however_near_the_next_action_the_acceleration_stays_in_bounds() -> None:
    plan = waves(DT, offset=0.01)
    largest = []
    for ahead_ns in (1, 1000, MS, DT // 4, DT // 4 + 1, DT // 2, DT - 1):
        timeline = running()
        from_ns = plan.time_of(10) - ahead_ns
        timeline.merge(plan, from_ns, 0, REST)
        largest.append(float(np.abs(track(timeline, range(from_ns, from_ns + 3 * DT, MS))[:, 2]).max()))
    # From value and velocity to a place 0.01 rad away within a quarter of a step: about 6 x / h^2.
    assert max(largest) < 8.0 * 0.01 / (0.25 * DT * 1e-9) ** 2


def test_until_a_chunk_starts_the_old_plan_goes_on() -> None:
    timeline = running()
    times = range(100 * MS, 20 * DT, 7 * MS)
    before = track(timeline, times)[:, 0]
    assert timeline.merge(waves(22 * DT, offset=0.2), 100 * MS, 0, REST)
    np.testing.assert_allclose(track(timeline, times)[:, 0], before, atol=0.02)
    np.testing.assert_allclose(track(timeline, times)[: len(before) // 2, 0], before[: len(before) // 2], atol=1e-5)
    np.testing.assert_allclose(at(timeline, 22 * DT)[0], wave(np.array([22 * DT * 1e-9]))[0] + 0.2, atol=1e-12)


def test_a_chunk_that_starts_later_is_faded_in_from_one_step_before_it() -> None:
    timeline = Timeline(DOF)
    new = chunk(np.full(50, 1.0), 10 * DT)
    timeline.merge(new, 0, 200 * MS, REST)
    expected = fade_weight(DT * np.arange(1, 51) / (200 * MS))
    np.testing.assert_allclose([at(timeline, new.time_of(k))[0][0] for k in range(50)], expected, atol=1e-12)


def test_until_its_first_chunk_starts_it_holds() -> None:
    timeline = Timeline(DOF)
    assert timeline.merge(chunk(np.full(50, 1.0), 2 * S), 0, 200 * MS, np.full(DOF, 0.5))
    np.testing.assert_allclose(track(timeline, range(0, 1900 * MS, 20 * MS))[:, 0], 0.5, atol=1e-4)
    np.testing.assert_allclose(at(timeline, 2300 * MS)[0], 1.0, atol=1e-3)


def test_more_steps_than_there_is_room_for_are_refused() -> None:
    timeline = Timeline(DOF, max_actions=50)
    assert timeline.merge(waves(DT), 0, 0, REST)
    end = timeline.end_ns
    assert not timeline.merge(waves(DT, count=51), 0, 0, REST)
    assert not timeline.merge(waves(3 * DT), 0, 0, REST)  # begins two steps ahead
    assert not timeline.merge(waves(10**9 * S), 0, 0, REST)
    assert timeline.end_ns == end
    assert timeline.merge(waves(3 * DT), 2 * DT, 0, REST)


# The tail, clearing


def test_the_tail_is_what_will_be_sampled_and_ends_where_the_plan_ends() -> None:
    timeline = running()
    tail = timeline.tail(105 * MS, 20 * MS, 8)
    np.testing.assert_allclose(tail, [at(timeline, 105 * MS + 20 * MS * k)[0] for k in range(8)], atol=1e-12)
    end = timeline.end_ns
    assert timeline.tail(end - 2 * DT, DT, 10).shape == (3, DOF)
    np.testing.assert_allclose(timeline.tail(end - 2 * DT, DT, 10)[-1], at(timeline, end)[0], atol=1e-12)
    assert timeline.tail(end - 2 * DT + 1, DT, 10).shape == (2, DOF)
    assert timeline.tail(end, DT, 10).shape == (1, DOF)
    assert timeline.tail(end + 1, DT, 10).shape == timeline.tail(end + S, DT, 10).shape == timeline.tail(0, DT, 0).shape == (0, DOF)


def test_cleared_is_empty_and_starts_anew() -> None:
    timeline = running()
    timeline.clear()
    assert timeline.empty and timeline.end_ns == 0
    assert timeline.merge(waves(DT), 0, 0, np.full(DOF, 0.25))
    np.testing.assert_allclose(at(timeline, 0)[0], 0.25, atol=1e-12)


# Whatever comes


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0, 50 * MS, 200 * MS, 500 * MS]),
    st.sampled_from([10 * MS, DT, 66_666_667]),
    st.sampled_from([1, 2, 10, 50]),
)
def test_whatever_stream_of_chunks_comes_the_curve_is_one_curve(seed: int, fade_ns: int, dt_ns: int, longest: int) -> None:
    rng = np.random.default_rng(seed)
    timeline = Timeline(DOF)
    start = rng.uniform(-1, 1, DOF)
    position = start
    state = np.zeros((3, DOF))
    state[0] = start
    now, merged = 50 * S, 0
    for _ in range(150):
        now += TICK
        planned = np.array(at(timeline, now)) if not timeline.empty else state.copy()
        if rng.random() < 0.15:
            count = int(rng.integers(1, longest + 1))
            plan = chunk(rng.uniform(-1, 1, (count, DOF)), now + int(rng.integers(-600 * MS, 200 * MS)), dt_ns)
            start = state[0].copy()
            was_empty = timeline.empty
            if timeline.merge(plan, now, fade_ns, start):
                merged += 1
                assert timeline.end_ns == plan.end_ns > now
                expected = np.array([start, REST]) if was_empty else planned[:2]
                np.testing.assert_allclose(at(timeline, now)[:2], expected, rtol=1e-9, atol=1e-9)
            else:
                np.testing.assert_array_equal(np.array(at(timeline, now)) if not timeline.empty else planned, planned)
        if rng.random() < 0.02:
            timeline.clear()
        alive = timeline.sample(now, *state)
        assert alive == (now < timeline.end_ns)
        if timeline.empty:
            state[1:] = 0.0
        assert np.isfinite(state).all()
        # Actions are anywhere between -1 and 1, so a spline overshoots; over 600 streams by 1.1 rad at most, with a fade by 0.2.
        reach, speed = (1.5, 4.0) if fade_ns >= 200 * MS else (4.0, 16.0)
        assert np.abs(state[0]).max() < reach
        assert np.abs(state[0] - position).max() < speed * TICK / dt_ns
        position = state[0].copy()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([100 * MS, 200 * MS, 400 * MS]))
def test_chunks_that_agree_within_a_little_never_step_by_more(seed: int, fade_ns: int) -> None:
    """Late, early, short and long chunks of one motion, each up to 5 mrad beside it: no tick leaves the motion by much more."""
    rng = np.random.default_rng(seed)
    steepest = 1.875 * 0.01 * TICK / fade_ns  # of one fade between chunks 0.01 rad apart
    timeline = running()
    last: FloatArray | None = None
    now = 100 * MS
    for _ in range(300):
        now += TICK
        if rng.random() < 0.12 or now > timeline.end_ns - fade_ns - 100 * MS:  # an old plan that ends within the fade is held
            shift = int(rng.integers(-250 * MS, 30 * MS))
            timeline.merge(waves(now + shift, int(rng.integers(30, 60)), float(rng.uniform(-0.005, 0.005))), now, fade_ns, REST)
        beside: FloatArray = at(timeline, now)[0] - wave(np.array([now * 1e-9]))[0]
        assert np.abs(beside).max() < 0.012
        assert last is None or np.abs(beside - last).max() < 1.5 * steepest
        last = beside
