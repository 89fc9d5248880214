"""Express sorting in the simulated cell: its expert does the whole of it, and its judge says in a word what went wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml

from internvla_a1_ros.cli.make_nano import instructions
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import SIDES
from internvla_a1_ros.simulation.labels import read_labels
from internvla_a1_ros.simulation.sorting import SAID, SortingTrial
from internvla_a1_ros.simulation.sorting_expert import SortingExpert
from internvla_a1_ros.simulation.tasks import expert_of, start_trial
from internvla_a1_ros.simulation.trial import PICK, Conditions, Outcome

RATE_HZ = 30
ARMS = [*range(6), *range(7, 13)]
STEPS_DOWN = ("grasp", "flip", "show", "place_flipped")


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell()


def conditions(seed: int, label: Literal["up", "down"], speed_m_s: float, route: str, first_y_m: float = 0.1) -> Conditions:
    drawn = Conditions.drawn("express_sorting", seed)
    return replace(drawn, label=label, belt_speed_m_s=speed_m_s, route=route, first_y_m=first_y_m)


@dataclass
class Run:
    """One trial run to its end: where it went, and the largest step of a joint in rad."""

    trial: SortingTrial
    outcome: Outcome
    stages: list[str]
    largest_step_rad: float


def run(
    cell: Cell,
    at: Conditions,
    noise_rad: float = 0.0,
    expert: Callable[[SortingTrial], SortingExpert] = SortingExpert,
    look: Callable[[SortingTrial], None] = lambda trial: None,
) -> Run:
    """Follow an expert that is replaced by a fresh one every third step, with noise on what both arms are told."""
    trial, rng = start_trial(cell, at), np.random.default_rng(at.seed)
    assert isinstance(trial, SortingTrial)
    stages, largest = [trial.stage], 0.0
    for step in itertools.count():
        if trial.outcome is not None:
            return Run(trial, trial.outcome, stages, largest)
        if step % 3 == 0:
            acting = expert(trial)
        before = cell.goal()
        command = acting.act(1 / RATE_HZ)
        largest = max(largest, float(np.abs(command - before)[ARMS].max()))
        command[ARMS] += rng.normal(size=len(ARMS)) * noise_rad
        for share in (0.25, 0.5, 0.75, 1.0):
            cell.command(before + share * (command - before))
            cell.advance(4)
        trial.look()
        look(trial)
        if trial.stage != stages[-1]:
            stages.append(trial.stage)
    raise AssertionError("a trial ends by its time limit")


def test_it_says_what_the_cell_says() -> None:
    document = yaml.safe_load((Path(__file__).parents[2] / "launch/cells/express_sorting.yaml").read_text())
    assert {step["id"]: step["instruction"] for step in document["steps"] if "instruction" in step} == SAID


@pytest.mark.parametrize(("seed", "speed", "route"), [(1, 0.05, "left"), (2, 0.1, "right"), (3, 0.15, "left")])
def test_a_parcel_with_its_label_up_is_put_into_its_bin(cell: Cell, seed: int, speed: float, route: str) -> None:
    done = run(cell, conditions(seed, "up", speed, route), noise_rad=0.004)
    assert (done.outcome.failure, done.outcome.grasped) == ("", True)
    assert done.stages == ["grasp", "place"]
    assert done.outcome.duration_s < 10
    assert done.largest_step_rad <= load_profile("arx_ac_one").motion["arm"].max_velocity / RATE_HZ + 1e-9


@pytest.mark.parametrize(("seed", "speed", "route"), [(4, 0.05, "right"), (5, 0.1, "left"), (6, 0.15, "right")])
def test_a_parcel_with_its_label_down_is_handed_over_shown_and_put_into_its_bin(cell: Cell, seed: int, speed: float, route: str) -> None:
    read: list[str] = []

    def look(trial: SortingTrial) -> None:
        if trial.stage == "place_flipped" and not read:
            read.extend(read_labels(cell.render("head", 640, 480)))

    done = run(cell, conditions(seed, "down", speed, route), noise_rad=0.004, look=look)
    assert (done.outcome.failure, done.outcome.grasped) == ("", True)
    assert tuple(done.stages) == STEPS_DOWN
    assert done.outcome.duration_s < 16
    assert done.largest_step_rad <= load_profile("arx_ac_one").motion["arm"].max_velocity / RATE_HZ + 1e-9
    # What the judge calls shown can be read.
    assert read and read[0].startswith(route[0].upper())


class Misled:
    """A trial as somebody sees it who takes it for another route."""

    def __init__(self, trial: SortingTrial) -> None:
        self._trial = trial
        self.conditions = replace(trial.conditions, route="left" if trial.conditions.route == "right" else "right")

    def __getattr__(self, name: str) -> object:
        return getattr(self._trial, name)


def test_the_wrong_bin_is_misplaced(cell: Cell) -> None:
    done = run(cell, conditions(7, "up", 0.08, "left"), expert=lambda trial: SortingExpert(Misled(trial)))  # type: ignore[arg-type]
    assert (done.outcome.failure, done.outcome.grasped, done.outcome.succeeded) == ("misplaced", True, False)


def test_a_parcel_nobody_takes_has_passed(cell: Cell) -> None:
    trial = start_trial(cell, conditions(8, "up", 0.15, "left", first_y_m=-0.05))
    while trial.outcome is None:
        cell.step(0.1)
        trial.look()
    assert (trial.outcome.failure, trial.outcome.grasped) == ("passed", False)


def test_a_parcel_let_go_is_dropped(cell: Cell) -> None:
    trial = start_trial(cell, conditions(9, "down", 0.08, "left"))
    expert = expert_of(trial)
    while trial.outcome is None:
        command = expert.act(1 / RATE_HZ)
        if trial.stage == "show":
            command[6] = cell.arms.gripper.open
        cell.command(command)
        cell.step(1 / RATE_HZ)
        trial.look()
    assert (trial.outcome.failure, trial.outcome.grasped) == ("dropped", True)


def test_both_hands_are_told_apart(cell: Cell) -> None:
    seen: set[frozenset[str]] = set()

    def look(trial: SortingTrial) -> None:
        target = trial.target()
        if target is not None:
            seen.add(target.held_by)

    run(cell, conditions(10, "down", 0.1, "left"), look=look)
    assert seen == {frozenset(), frozenset({"right"}), frozenset({"left", "right"}), frozenset({"left"})}


def test_the_small_model_knows_every_word_of_every_trial() -> None:
    """Its tokenizer was made from these sentences, and none is cut."""
    told = {*PICK.values(), *(text.format(route=side) for text in SAID.values() for side in SIDES)}
    assert told <= set(instructions())
    nano = find_checkpoint("nano")
    sizes = load_architecture(nano)
    read = PrefixTokenizer.load(nano, sizes)
    for text in told:
        words = read(text, np.ones(sizes.views, bool)).attention_mask[-sizes.prompt_tokens :]
        assert words.sum() < sizes.prompt_tokens, text
