"""One trial of a task in the simulated cell: conditions drawn from declared ranges, instructions stage by stage, and a judge.

Demonstrations and rollouts are the same trials: the one follows an expert, the other a policy. Stages go on by what the cell's own
steps would see (a hand holds, a label is shown), here taken from the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import FOOD, Parcels, Range
from internvla_a1_ros.simulation.parcels import Parcel

Task = Literal["ingredient_picking", "express_sorting"]
TASKS: tuple[Task, ...] = ("ingredient_picking", "express_sorting")
PARCEL = "parcel"
# A trial's seeds below this are for demonstrations, those from it on for rollouts: what is judged was never shown.
ROLLOUT_SEEDS = 1_000_000_000

# Where the first parcel lies on a belt that stands still: within reach of the right arm, whose base is at -0.24 m.
_STILL_Y_M: Range = (-0.36, -0.12)

HELD_S = 0.3  # as long as the cell's steps want a hand to hold
LIFTED_M, LIFTED_S = 0.08, 0.5
PASSED_M = 0.27  # downstream of the right arm's base
# As the cells' documents say it (launch/cells).
PICK = {
    PARCEL: "Track the parcel on the belt and grasp it with the right arm.",
    "bread": "Pick up a slice of bread from the moving belt.",
    "steak": "Pick up the steak from the moving belt.",
    "lettuce": "Pick up a lettuce leaf from the moving belt.",
}


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a trial's conditions are drawn from, evenly."""

    belt_speed_m_s: Range = (0.05, 0.15)
    first_y_m: Range = (-0.05, 0.22)
    spacing_m: Range = (0.30, 0.45)
    time_limit_s: float = 20.0


RANGES: dict[Task, Ranges] = {
    "ingredient_picking": Ranges(time_limit_s=12.0),
    "express_sorting": Ranges(time_limit_s=40.0),
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one trial begins. `kind`: a parcel or a piece of food; `label`: where the label lies, none on food; `route`: the bin."""

    task: Task
    seed: int
    belt_speed_m_s: float
    kind: str
    label: Literal["up", "down", ""]
    route: str
    first_y_m: float

    @classmethod
    def drawn(cls, task: Task, seed: int, belt_m_s: Range | None = None) -> Conditions:
        """Draw by `seed`: the same, the same again. Raises ConfigurationError for a task that there is not.

        Where `belt_m_s` is given the belt's speed is stretched to it and all else stays as drawn, but for where the first parcel lies
        on a belt that stands still: that is within reach.
        """
        if task not in TASKS:
            raise ConfigurationError(f"task: got '{task}', expected one of {', '.join(TASKS)}{suggestion(task, list(TASKS))}")
        rng, ranges = np.random.default_rng((seed, TASKS.index(task))), RANGES[task]
        speed, first_y_m = float(rng.uniform(*ranges.belt_speed_m_s)), float(rng.uniform(*ranges.first_y_m))
        kinds = (PARCEL, *FOOD) if task == "ingredient_picking" else (PARCEL,)
        kind = str(rng.choice(kinds))
        label: Literal["up", "down", ""] = "" if kind != PARCEL else "up" if rng.random() < 0.5 else "down"
        drawn = cls(task, seed, speed, kind, label, str(rng.choice(("left", "right"))), first_y_m)
        if belt_m_s is None:
            return drawn
        begins_m = first_y_m if belt_m_s[1] > 0 else _stretched(first_y_m, ranges.first_y_m, _STILL_Y_M)
        return replace(drawn, belt_speed_m_s=_stretched(speed, ranges.belt_speed_m_s, belt_m_s), first_y_m=begins_m)

    @property
    def parcels(self) -> Parcels:
        """What comes along the belt: the target first, then others like it."""
        faces = (0.0, 0.0, 1.0) if self.label == "down" else (1.0, 0.0, 0.0)
        y = self.first_y_m
        return Parcels(kinds=(self.kind,), faces=faces, first_y_m=(y, y), spacing_m=RANGES[self.task].spacing_m, destinations=(self.route,))


def _stretched(value: float, of: Range, to: Range) -> float:
    return to[0] + (value - of[0]) / (of[1] - of[0]) * (to[1] - to[0])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial; `failure` is empty on success, else one word: passed, dropped, fallen, misplaced, time."""

    grasped: bool
    succeeded: bool
    failure: str
    duration_s: float


class Trial:
    """Runs one trial in `cell`, which it resets. Call `look` after every step of the cell; `instruction` is what applies then."""

    stage = "grasp"

    def __init__(self, cell: Cell, conditions: Conditions) -> None:
        self.cell, self.conditions = cell, conditions
        cell.reset(conditions.seed, conditions.parcels)
        cell.belt_speed_m_s = conditions.belt_speed_m_s
        first = min(cell.parcels(), key=lambda parcel: float(parcel.position_m[1]))
        self.slot, self._code = first.slot, first.code
        self.grasped = False
        self.outcome: Outcome | None = None
        self._since_s: dict[str, float] = {}

    @property
    def instruction(self) -> str:
        """What the policy is told in this stage."""
        raise NotImplementedError

    def target(self) -> Parcel | None:
        """Return the truth of what is to be taken, None once it has left the cell."""
        found = (parcel for parcel in self.cell.parcels() if parcel.slot == self.slot and parcel.code == self._code)
        return next(found, None)

    def look(self) -> None:
        """Take in what the cell has come to: the stage goes on, and in the end there is an outcome."""
        if self.outcome is not None:
            return
        target = self.target()
        if target is not None and self.lasting("held", target.place == "held") >= HELD_S:
            self.grasped = True
        self.judge(target)
        if self.outcome is None and self.cell.time_s > RANGES[self.conditions.task].time_limit_s:
            self.end("time")

    def judge(self, target: Parcel | None) -> None:
        """Move the stage on, or call `end`."""
        raise NotImplementedError

    def end(self, failure: str = "") -> None:
        """The trial is over: a success unless `failure` says why not."""
        self.outcome = Outcome(self.grasped, not failure, failure, self.cell.time_s)

    def lasting(self, what: str, holds: bool) -> float:
        """Return for how many seconds `what` has held without a break; below 0 where it does not hold now."""
        if not holds:
            self._since_s.pop(what, None)
            return -1.0
        return self.cell.time_s - self._since_s.setdefault(what, self.cell.time_s)

    def above_belt_m(self, target: Parcel) -> float:
        """How far the lowest point of the target is above the belt."""
        return float(target.position_m[2] - target.half_height_m - self.cell.config.belt.top_m)

    def passed(self, target: Parcel) -> bool:
        """Whether the belt has carried the target out of the right arm's reach."""
        return target.place == "belt" and float(target.position_m[1]) < -self.cell.config.arm_spacing_m / 2 - PASSED_M


class PickingTrial(Trial):
    """Take a piece off the moving belt with the right arm and hold it up."""

    @property
    def instruction(self) -> str:
        return PICK[self.conditions.kind]

    def judge(self, target: Parcel | None) -> None:
        if target is None:
            self.end("fallen")
        elif self.passed(target):
            self.end("passed")
        elif self.grasped and target.place == "table":
            self.end("dropped")
        elif self.lasting("lifted", target.place == "held" and self.above_belt_m(target) > LIFTED_M) >= LIFTED_S:
            self.end()
