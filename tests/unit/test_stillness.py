"""Whether the arms rest, by measurements some time apart."""

from __future__ import annotations

import numpy as np
import pytest
from command_rig import HOME, START_NS, small_profile

from internvla_a1_ros.core.types import JointState
from internvla_a1_ros.safety.stillness import Stillness

MS = 1_000_000


def seen(speed: float, until_ms: int, every_ms: int = 10, joint: int = 1) -> tuple[Stillness, JointState]:
    """Measurements of one joint at a constant speed."""
    still = Stillness(small_profile())
    state = JointState(START_NS, HOME)
    for ms in range(0, until_ms + 1, every_ms):
        positions = HOME.copy()
        positions[joint] += speed * ms * 1e-3
        state = JointState(START_NS + ms * MS, positions)
        still.see(state)
    return still, state


@pytest.mark.parametrize("speed", [0.076, -0.076, 1.0])
def test_a_joint_faster_than_a_twentieth_of_its_limit_moves(speed: float) -> None:
    still, state = seen(speed, 200)
    verdict = still.check(state)
    assert not verdict and verdict.code == "moving"
    assert f"joint 'elbow' moves by {abs(speed):.3f} per second, allowed 0.075: let go" in verdict.reason


@pytest.mark.parametrize("speed", [0.0, 0.074, -0.074])
def test_a_slower_one_rests(speed: float) -> None:
    still, state = seen(speed, 200)
    assert still.check(state)


def test_each_joint_is_held_against_its_own_limit() -> None:
    still, state = seen(0.5, 200, joint=2)
    assert still.check(state), "a gripper's limit is 12"


def test_too_little_or_too_long_ago_says_nothing() -> None:
    still, state = seen(1.0, 40)
    assert still.check(state), "less than 50 ms"
    still, state = seen(1.0, 60)
    assert not still.check(state)
    assert still.check(JointState(state.stamp_ns + 1000 * MS, state.positions + 1.0)), "a mean over a gap"
    still.reset()
    assert still.check(state)


def test_noise_is_no_motion() -> None:
    draw, still = np.random.default_rng(0), Stillness(small_profile())
    for ms in range(0, 2000, 10):
        state = JointState(START_NS + ms * MS, HOME + draw.uniform(-0.001, 0.001, 3))
        still.see(state)
        assert still.check(state)
