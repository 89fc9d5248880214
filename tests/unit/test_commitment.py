"""The committed tail on a new chunk's times, the bound of the take-over, the weights, and what of it the flow is given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.core.commitment import TakeOver, chunk_times, pin_weights, resampled
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ActionChunk, FloatArray, Frame, JointState, Observation
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.policy.guiding import Continued, GuidanceMode, Guide, check_mode
from internvla_a1_ros.policy.transforms import MeanStd, Pad, action_transform
from internvla_a1_ros.robots.profile import load_profile

MS = 1_000_000
DT = 33_333_333
NOW = 5_000 * MS
ARX = load_profile("arx_ac_one")


def tail(positions: FloatArray, first_ns: int = NOW, stamp_ns: int | None = None, names: tuple[str, ...] | None = None) -> ActionChunk:
    names = names or tuple(f"j{i}" for i in range(positions.shape[1]))
    return ActionChunk("cell", names, first_ns - 100 * MS if stamp_ns is None else stamp_ns, first_ns, DT, positions)


# On the chunk's times


def test_at_its_own_times_the_tail_is_itself() -> None:
    positions = np.random.default_rng(0).normal(size=(20, 3))
    got, known = resampled(tail(positions), chunk_times(NOW, DT, 20))
    assert known.all()
    np.testing.assert_allclose(got, positions, atol=1e-12)


@given(st.integers(-2 * DT, 40 * DT))
def test_a_line_stays_a_line_wherever_it_is_known(shift_ns: int) -> None:
    line = np.arange(20.0)[:, None] * [0.01, -0.02]
    times = chunk_times(NOW + shift_ns, DT, 50)
    got, known = resampled(tail(line), times)
    steps = (times - NOW) / DT
    assert (known == ((steps >= -2) & (steps <= 19))).all()
    np.testing.assert_allclose(got[known], steps[known, None] * [0.01, -0.02], atol=1e-9)


def test_between_points_it_follows_the_curve() -> None:
    """A motion of 0.25 rad at 0.5 Hz, as smooth as arms move: within a tenth of a milliradian, where a line is 0.3 off."""
    at = np.arange(30) * DT * 1e-9
    times = chunk_times(NOW + DT // 2, DT, 28)
    got, _ = resampled(tail(0.25 * np.sin(np.pi * at)[:, None]), times)
    np.testing.assert_allclose(got[1:-1, 0], 0.25 * np.sin(np.pi * (times[1:-1] - NOW) * 1e-9), atol=1e-5)


def test_a_tail_of_one_point_is_known_there_alone() -> None:
    got, known = resampled(tail(np.ones((1, 2))), chunk_times(NOW, DT, 3))
    assert known.tolist() == [True, False, False] and got.shape == (3, 2)


# How much each counts


def test_weights_by_hand() -> None:
    times = np.arange(6, dtype=np.int64) * 100
    known = np.array([True, True, True, True, True, False])
    assert pin_weights(times, known, 150, 150).tolist() == [1, 1, 0, 0, 0, 0]
    half = 0.5 * np.expm1(0.5) / np.expm1(1.0)
    assert pin_weights(times, known, 100, 300) == pytest.approx([1, 1, half, 0, 0, 0])
    assert pin_weights(times, known, 1000, 1000).tolist() == [1, 1, 1, 1, 1, 0], "what the tail does not know is free"
    assert pin_weights(times, ~known, -1, -1).tolist() == [0] * 6


@given(st.integers(-100, 2000), st.integers(0, 2000))
def test_weights_fall_from_one_to_zero(fixed: int, soft: int) -> None:
    times = np.arange(0, 1500, 33, dtype=np.int64)
    weights = pin_weights(times, np.ones(len(times), dtype=bool), fixed, fixed + soft)
    assert ((weights >= 0) & (weights <= 1)).all() and (np.diff(weights) <= 0).all()
    assert (weights[times <= fixed] == 1).all() and (weights[times >= fixed + max(soft, 1)] == 0).all()


# How long the take-over takes


def taken(stamp: int, after_ms: float) -> ActionChunk:
    return tail(np.zeros((2, 1)), first_ns=stamp * MS + round(after_ms * MS), stamp_ns=stamp * MS)


def test_the_bound_is_a_high_percentile_without_the_warm_up() -> None:
    bound = TakeOver(400 * MS)
    assert bound.bound_ns == 0
    for k in range(3):
        bound.note(taken(k, 300.0))
    assert bound.bound_ns == 300 * MS, "there is nothing else yet"
    for k in range(3, 40):
        bound.note(taken(k, 100.0 + k % 2 * 10))
    assert 105 * MS < bound.bound_ns <= 110 * MS


def test_the_bound_is_bounded_and_no_outlier_lasts() -> None:
    bound = TakeOver(400 * MS)
    for k in range(10):
        bound.note(taken(k, 3000.0))
    assert bound.bound_ns == 400 * MS
    for k in range(10, 45):
        bound.note(taken(k, 80.0))
    assert bound.bound_ns == pytest.approx(80 * MS, abs=2)


def test_the_same_chunk_counts_once() -> None:
    bound = TakeOver(400 * MS)
    for stamp in (7, 7, 7, 7, 7, 8, 8, 9):
        bound.note(taken(stamp, 90.0))
    assert bound.bound_ns == 90 * MS
    bound.note(taken(10, 50.0))
    assert bound.bound_ns == 50 * MS, "the fourth chunk ends the warm-up"


# What the flow is given


H, MODEL_WIDTH = 50, 20


def guide(mode: GuidanceMode = "hard", soft_s: float = 0.3, action_mode: str = "delta") -> Guide:
    scale = MeanStd(np.full(14, 0.2), np.full(14, 0.5))
    transform = action_transform(action_mode, ARX.is_delta, scale, Pad(14, MODEL_WIDTH))  # type: ignore[arg-type]
    return Guide(mode, "cell", ARX.joint_names, transform, GripperMap(ARX), soft_s)


def observation(stamp_ns: int = NOW) -> Observation:
    frame = Frame("head", stamp_ns, stamp_ns, np.zeros((1, 1, 3), np.uint8))
    return Observation(stamp_ns, (frame,), (frame,), JointState(stamp_ns, np.full(14, 0.3)), 0)


def ask(made: Guide, committed: ActionChunk | None, now_ns: int = NOW) -> Continued:
    return made.guidance(committed, observation(now_ns), now_ns + DT, DT, H)


def full(value: float = 1.3, stamp_ns: int = NOW - 120 * MS, **changes: object) -> ActionChunk:
    return tail(np.full((H, 14), value), NOW, stamp_ns, **{"names": ARX.joint_names, **changes})  # type: ignore[arg-type]


def test_units_are_the_models_and_joints_are_found_by_name() -> None:
    positions = np.tile(np.arange(14.0), (H, 1))
    shuffled = list(range(14))[::-1]
    names = tuple(ARX.joint_names[i] for i in shuffled)
    for committed in (tail(positions, NOW, NOW - 120 * MS, ARX.joint_names), tail(positions[:, shuffled], NOW, NOW - 120 * MS, names)):
        found = ask(guide(), committed).guidance
        assert found is not None and found.actions.shape == (H, MODEL_WIDTH) and found.gradient_clip is None
        want = (np.arange(14.0) - 0.3 * ARX.is_delta - 0.2) / (0.5 + 1e-6)  # relative to the joints seen now; grippers absolute
        np.testing.assert_allclose(found.actions[5, :14], want, atol=1e-5)
        assert not found.actions[:, 14:].any()
        assert found.weights.tolist() == [1.0] * 4 + [0.0] * 46  # 120 ms until it is taken over: 33, 67, 100, and one beyond


def test_soft_modes_go_on_after_what_is_pinned() -> None:
    for mode, clip in (("soft", None), ("pinv", 5.0)):
        found = ask(guide(mode), full()).guidance  # type: ignore[arg-type]
        assert found is not None and found.gradient_clip == clip
        assert found.weights[:4].tolist() == [1, 1, 1, 1] and (np.diff(found.weights[3:13]) < 0).all() and not found.weights[13:].any()


def test_a_whole_chunk_may_be_pinned_and_none() -> None:
    made = guide("soft", soft_s=5.0)
    found = ask(made, full()).guidance
    assert found is not None and (found.weights[:48] > 0.3).all()
    over = tail(np.zeros((3, 14)), NOW - 90 * MS, NOW - 300 * MS, ARX.joint_names)  # ends before the chunk begins
    assert ask(made, over) == Continued(None, "over")
    assert ask(made, full()).code == "guided" and ask(guide("hard"), full()).pinned == 4


@pytest.mark.parametrize(
    ("reason", "committed"),
    [
        ("no_tail", None),
        ("stale", full(stamp_ns=NOW - 1001 * MS)),
        ("stale", full(stamp_ns=NOW)),  # of this very observation, or of a later one: a clock went back
        ("other_robot", ActionChunk("other", ARX.joint_names, NOW - MS, NOW, DT, np.zeros((H, 14)))),
        ("other_robot", ActionChunk("cell", ARX.joint_names[:13], NOW - MS, NOW, DT, np.zeros((H, 13)))),
    ],
)
def test_what_is_not_continued(reason: str, committed: ActionChunk | None) -> None:
    made = guide()
    assert ask(made, committed) == Continued(None, reason)
    assert made.take_over.bound_ns == 0


def test_numbers_that_are_not_finite_never_get_that_far() -> None:
    with pytest.raises(ValueError, match="action chunk: got nan"):
        full(np.nan)


def test_off_is_off() -> None:
    made = guide("off")
    assert ask(made, full()) == Continued(None, "off")


def test_modes_are_checked() -> None:
    assert check_mode("pinv", differentiable=True) == "pinv" and check_mode("soft", differentiable=False) == "soft"
    with pytest.raises(ConfigurationError, match="^guidance: got 'sofd', expected one of off, hard, soft, pinv, did you mean 'soft'"):
        check_mode("sofd", differentiable=True)
    with pytest.raises(ConfigurationError, match="^guidance: 'pinv' asks for an engine with gradients"):
        check_mode("pinv", differentiable=False)
