"""A hand is carried off on its way, the expert begins again from there, and the dataset says when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.demonstration import RATE_HZ, Disturbance, Moment, Pushes, demonstrate
from internvla_a1_ros.simulation.detours import Detours
from internvla_a1_ros.simulation.hand import Hand
from internvla_a1_ros.simulation.tasks import expert_of, start_trial
from internvla_a1_ros.simulation.trial import Conditions, Task, Trial

STILL = Disturbance(most_rad=0.0)
ALWAYS = Detours(share=1.0)


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def shown(cell: Cell, seed: int, detours: Detours, task: Task = "ingredient_picking") -> tuple[Trial, list[Moment], list[FloatArray]]:
    """Return a trial that is over, its moments, and the cell's goal at each."""
    trial = start_trial(cell, Conditions.drawn(task, seed))
    moments, goals = [], []
    for moment in demonstrate(trial, expert_of(trial), Pushes(STILL, cell.arms, seed), detours.of(trial, seed)):
        moments.append(moment)
        goals.append(cell.goal())
    return trial, moments, goals


def test_a_trial_begins_somewhere_else(cell: Cell) -> None:
    hand, begins = Hand(cell, "right"), []
    for seed in range(6):
        _, moments, goals = shown(cell, seed, ALWAYS)
        led = [moment.led for moment in moments]
        first = led.index(False)
        assert led[0] and 5 <= first <= 24
        assert all(np.array_equal(goal[:7], goals[0][:7]) for goal in goals)  # the left arm rests
        place, facing = hand.kinematics.forward(goals[first][hand.arm])
        begins.append([*place, np.arctan2(facing[1, 1], facing[0, 1])])
    assert (np.std(begins, axis=0) > (0.02, 0.02, 0.01, 0.2)).all()


def test_the_expert_comes_back_and_is_recorded_alone(cell: Cell) -> None:
    succeeded, detours = 0, 0
    for seed in range(8):
        trial, moments, goals = shown(cell, seed, ALWAYS)
        assert trial.outcome is not None
        succeeded += trial.outcome.succeeded
        led = np.array([moment.led for moment in moments])
        detours += int((np.diff(led.astype(int), prepend=0) == 1).sum())
        for moment, goal in zip(np.array(moments)[:-1][~led[:-1]], np.array(goals)[1:][~led[:-1]], strict=True):
            np.testing.assert_allclose(goal, moment.action, atol=1e-12)  # what is not led is as the expert says
    assert succeeded >= 7 and 16 <= detours <= 8 * ALWAYS.most


def test_near_the_belt_it_is_carried_off_often_and_not_far(cell: Cell) -> None:
    hand, belt_m, near = Hand(cell, "right"), cell.config.belt.top_m, []
    for seed in range(12):
        trial, moments, goals = shown(cell, seed, Detours(share=1.0, most=12))
        belt_m_a_step = trial.cell.belt_speed_m_s / RATE_HZ
        led = np.array([moment.led for moment in moments] + [False])
        begins = np.flatnonzero(led[:-1] & ~np.roll(led, 1)[:-1])
        for begin, before in zip(begins[1:], begins[:-1], strict=True):
            end = begin + int(np.argmin(led[begin:]))
            free = int(begin - before - np.argmin(led[before:]))
            tools = [hand.kinematics.forward(goals[min(step, len(goals) - 1)][hand.arm])[0] for step in (begin, end)]
            if tools[0][2] - belt_m < 0.2:  # off the parcel, which goes on meanwhile
                across_m, along_m = (tools[1] - tools[0])[:2] + (0.0, belt_m_a_step * (end - begin))
                near.append((free, abs(across_m), abs(along_m), tools[1][2] - belt_m))
    assert len(near) >= 24  # two a trial
    free, *sideways_m, above_m = np.array(near).T
    assert np.median(free) <= 20 and np.max(sideways_m) < 0.05
    assert np.std(sideways_m) > 0.008 and above_m.min() > 0.08


def test_what_is_learned_begins_where_joints_say_all(cell: Cell) -> None:
    """Servos are some 40 ms behind: a hand that is still being carried off is not where it is told to be, and nobody sees it."""
    for seed in range(4):
        _, moments, goals = shown(cell, seed, Detours(share=1.0, most=12))
        led = np.array([moment.led for moment in moments])
        behind = np.abs(np.stack([moment.state for moment in moments]) - np.stack(goals))[:, 7:13].max(axis=1)
        ends = np.flatnonzero(led[:-1] & ~led[1:]) + 1
        assert behind[ends].max() < 0.02 < 0.06 < behind[led].max()


def test_no_hand_that_holds_is_carried_off(cell: Cell) -> None:
    for seed in range(3):
        trial = start_trial(cell, Conditions.drawn("express_sorting", seed))
        hands = (Hand(cell, "left"), Hand(cell, "right"))
        for moment in demonstrate(trial, expert_of(trial), Pushes(STILL, cell.arms, seed), ALWAYS.of(trial, seed)):
            if moment.led:
                goal = cell.goal()
                off = [hand for hand in hands if not np.allclose(goal[hand.arm], moment.action[hand.arm], atol=1e-12)]
                assert off and any(hand.look().firm < 0.5 for hand in off)


def test_the_same_seed_the_same_way(cell: Cell) -> None:
    one, two = (np.stack(shown(cell, 5, ALWAYS)[2]) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, np.stack(shown(cell, 5, Detours(share=1.0, most=1))[2])[: len(one)])


@pytest.mark.parametrize("none", [{"share": 0.0}, {"most": 0}])
def test_none(cell: Cell, none: dict[str, Any]) -> None:
    _, moments, _ = shown(cell, 1, Detours(**none))
    assert not any(moment.led for moment in moments)


def test_joints_are_carried_no_faster_than_two_radians_a_second(cell: Cell) -> None:
    _, moments, goals = shown(cell, 2, ALWAYS)
    steps = np.abs(np.diff(np.stack(goals), axis=0))[np.array([moment.led for moment in moments])[:-1]]
    arm = [k for k in range(14) if k not in (6, 13)]
    assert steps[:, arm].max() * RATE_HZ < 3.0  # the few that are longer than 24 steps at 2 rad/s are cut to them


@pytest.mark.parametrize("wrong", [{"share": 1.1}, {"share": -0.1}, {"most": -1}])
def test_what_there_is_not(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Detours(**wrong)
