"""What is recorded is the expert's own command, what is done is that and a push; the expert comes back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.arm import X5
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.demonstration import HOLD_S, RATE_HZ, Disturbance, Moment, Pushes, demonstrate
from internvla_a1_ros.simulation.tasks import expert_of, start_trial
from internvla_a1_ros.simulation.trial import Conditions, Trial

NOTHING = Disturbance(most_rad=0.0)
STRONG = Disturbance(most_rad=0.004)  # four times what is usual


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def shown(cell: Cell, seed: int, disturbance: Disturbance) -> tuple[Trial, list[tuple[Moment, FloatArray, float]]]:
    """Return a trial that is over, and its moments, each with the cell's goal and time."""
    trial = start_trial(cell, Conditions.drawn("ingredient_picking", seed))
    pushes = Pushes(disturbance, cell.arms, seed)
    return trial, [(moment, cell.goal(), cell.time_s) for moment in demonstrate(trial, expert_of(trial), pushes)]


def test_a_command_is_reached_one_step_later(cell: Cell) -> None:
    trial, moments = shown(cell, 1, NOTHING)
    assert trial.outcome is not None and trial.outcome.succeeded
    times = [time_s for _, _, time_s in moments]
    np.testing.assert_allclose(np.diff(times), 1 / RATE_HZ, atol=1e-9)
    for (moment, _, _), (_, goal, _) in zip(moments, moments[1:], strict=False):
        np.testing.assert_allclose(goal, moment.action, atol=1e-12)
    # The hand that moved followed: measured joints are near what was commanded a little before.
    states = np.stack([moment.state for moment, _, _ in moments])
    assert np.abs(states[4:, 7:13] - np.stack([moment.action for moment, _, _ in moments])[2:-2, 7:13]).max() < 0.06


def test_the_way_to_a_command_is_a_straight_line(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = start_trial(cell, Conditions.drawn("ingredient_picking", 1))
    said: list[FloatArray] = []
    command = cell.command
    monkeypatch.setattr(cell, "command", lambda goal: (said.append(goal), command(goal)))
    moments = demonstrate(trial, expert_of(trial), Pushes(Disturbance(), cell.arms, 1))
    for _ in range(4):
        next(moments)
    before = cell.goal()
    said.clear()
    next(moments)
    assert len(said) == 4
    np.testing.assert_allclose(np.diff([before, *said], axis=0), np.tile((said[-1] - before) / 4, (4, 1)), atol=1e-12)


def test_after_a_success_it_holds(cell: Cell) -> None:
    trial, moments = shown(cell, 1, Disturbance())
    assert trial.outcome is not None and trial.outcome.succeeded
    after = [time_s for _, _, time_s in moments if time_s >= trial.outcome.duration_s]
    assert len(after) == round(HOLD_S * RATE_HZ)
    held = trial.target()
    assert held is not None and held.place == "held"


def test_a_failure_ends_at_once(cell: Cell) -> None:
    trial, moments = shown(cell, 1, Disturbance(most_rad=0.1, bump_share=0.5, bump_steps=20))
    assert trial.outcome is not None and not trial.outcome.succeeded
    assert moments[-1][2] < trial.outcome.duration_s


def test_what_is_recorded_is_clean_and_the_expert_comes_back(cell: Cell) -> None:
    pushed, succeeded = [], 0
    for seed in range(4):
        trial, moments = shown(cell, seed, STRONG)
        assert trial.outcome is not None
        succeeded += trial.outcome.succeeded
        goals, actions = np.stack([goal for _, goal, _ in moments]), np.stack([moment.action for moment, _, _ in moments])
        off = goals[1:] - actions[:-1]
        assert np.abs(off[:, :7]).max() < 1e-12 and np.abs(off[:, 13]).max() < 1e-12  # the left arm rests; grippers are not pushed
        pushed.append(np.abs(off[:, 7:13]).mean())
    assert succeeded >= 3
    assert max(pushed) > 0.001 and max(pushed) < 0.02


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), moving=st.lists(st.sampled_from(["left", "right", "both", "none"]), min_size=1, max_size=20))
def test_pushes(seed: int, moving: list[str]) -> None:
    one, two, steady = (Pushes(STRONG, X5, seed) for _ in range(3))
    assert 0 <= one.amplitude_rad <= STRONG.most_rad
    left, right = slice(0, 6), slice(7, 13)
    for which in moving:
        moves = np.zeros(14)
        moves[left] = 0.01 * (which in ("left", "both"))
        moves[right] = 0.01 * (which in ("right", "both"))
        push = one.next(moves)
        np.testing.assert_array_equal(push, two.next(moves))
        always = steady.next(np.full(14, 0.01))
        np.testing.assert_array_equal(push, np.where(moves != 0, always, 0.0))
        assert push[6] == push[13] == 0
    assert not Pushes(NOTHING, X5, seed).next(np.full(14, 0.01)).any()


def test_a_bump_lasts() -> None:
    pushes = Pushes(Disturbance(bump_share=0.02, bump_steps=8, bump_size=1000.0), X5, 3)
    large = [bool(np.abs(pushes.next(np.full(14, 0.01))).max() > 50 * pushes.amplitude_rad) for _ in range(2000)]
    runs = [len(run) for run in "".join("x" if each else " " for each in large).split()]
    assert min(runs[:-1]) == 8
    assert 0.02 * 2000 * 8 * 0.5 < sum(runs) < 0.02 * 2000 * 8 * 1.3


@pytest.mark.parametrize("wrong", [{"most_rad": -1.0}, {"most_rad": 1.0}, {"bump_share": 2.0}, {"bump_steps": 0}, {"bump_size": -1.0}])
def test_disturbances_that_there_are_not(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Disturbance(**wrong)
