"""Demonstrations to a LeRobot dataset: what is recorded, and one part of it, trial after trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import cv2
import numpy as np
from pydantic import Field, model_validator

from internvla_a1_ros.bags.converting_keys import Columns, columns_of
from internvla_a1_ros.bags.datasets import DatasetWriter, Feature
from internvla_a1_ros.core.types import ByteArray
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.profile import load_usable_profile
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS, CellConfig
from internvla_a1_ros.simulation.demonstration import RATE_HZ, Disturbance, Moment, Pushes, demonstrate
from internvla_a1_ros.simulation.seen import FIELDS, seen
from internvla_a1_ros.simulation.sorting import Stage
from internvla_a1_ros.simulation.tasks import expert_of, start_trial
from internvla_a1_ros.simulation.trial import ROLLOUT_SEEDS, TASKS, Conditions, Task, Trial
from internvla_a1_ros.simulation.variation import Variation

PROFILE = "arx_ac_one"
STAGES: tuple[str, ...] = get_args(Stage)
SEEN, TARGET, BELT_SPEED, STAGE = "simulation.seen", "simulation.target", "simulation.belt_speed", "simulation.stage"


class Plan(Document):
    """What is recorded: trial i has the seed `seed + i` and, of several tasks, the next in turn. The same plan, the same dataset.

    `size` is that of the pictures (width, height), each rendered `supersample` times as large and averaged. `variation`: 0 to 1.
    """

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = TASKS
    episodes: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    disturbance: Disturbance = Disturbance()
    variation: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    size: tuple[int, int] = (160, 120)
    supersample: Annotated[int, Field(ge=1, le=8)] = 2
    keep_failures: bool = False
    codec: str = ""

    @model_validator(mode="after")
    def _possible(self) -> Plan:
        last = self.seed + self.episodes - 1
        if last >= ROLLOUT_SEEDS:
            raise ValueError(f"seed: got {self.seed} to {last}, expected seeds below {ROLLOUT_SEEDS}: those from it on are for rollouts")
        most = [side // self.supersample for side in CellConfig().max_picture]
        if any(side % 2 or not 16 <= side <= limit for side, limit in zip(self.size, most, strict=True)):
            got = "x".join(map(str, self.size))
            raise ValueError(
                f"size: got {got}, {self.supersample} times as large rendered, expected even sides, 16x16 to {most[0]}x{most[1]}"
            )
        return self

    def conditions(self, i: int) -> Conditions:
        """Return how trial `i` begins."""
        return Conditions.drawn(self.tasks[i % len(self.tasks)], self.seed + i)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one trial; `kept`: it is an episode of the dataset."""

    conditions: Conditions
    amplitude_rad: float
    frames: int
    grasped: bool
    succeeded: bool
    failure: str
    kept: bool

    def row(self) -> dict[str, Any]:
        """Return it flat, as a line of `episodes.jsonl`."""
        table = asdict(self)
        conditions: dict[str, Any] = table.pop("conditions")
        return conditions | table


class Part:
    """Writes the trials `numbers` of a plan, done in `cell`, into the dataset `folder`."""

    def __init__(self, plan: Plan, numbers: range, folder: Path, cell: Cell) -> None:
        self._plan, self._numbers, self._folder, self._cell = plan, numbers, folder, cell
        self._columns: Columns = columns_of(profile := load_usable_profile(PROFILE))
        self._features, self._names = self._columns.features(profile.joint_names)
        slots = self._cell.config.parcels.slots
        self._features |= {
            SEEN: Feature("float32", (len(CAMERAS) * slots * len(FIELDS),)),
            TARGET: Feature("int64", (1,)),
            BELT_SPEED: Feature("float32", (1,)),
            STAGE: Feature("int64", (1,)),
        }
        self._names[SEEN] = tuple(f"{camera}.{slot}.{name}" for camera in CAMERAS for slot in range(slots) for name in FIELDS)

    def record(self, ended: Callable[[Attempt], None], go_on: Callable[[], None] = lambda: None) -> list[Attempt]:
        """Record and return what became of every trial; where none is kept there is no dataset.

        `ended` hears of each trial. `go_on` is called at every step and may raise: then nothing is left behind.
        """
        columns, attempts = self._columns, []
        keys = list(columns.cameras.values())
        writer = DatasetWriter(self._folder, RATE_HZ, columns.robot_type, self._features, keys, names=self._names, codec=self._plan.codec)
        try:
            for i in self._numbers:
                attempts.append(self._trial(i, writer, go_on))
                ended(attempts[-1])
            if writer.episodes:
                writer.finish()
        finally:
            writer.abandon()
        return attempts

    def _trial(self, i: int, writer: DatasetWriter, go_on: Callable[[], None]) -> Attempt:
        conditions = self._plan.conditions(i)
        Variation.drawn(conditions.seed, self._plan.variation).apply(self._cell)
        kept = self._plan.keep_failures
        if not kept:
            # Pictures cost ten times what the rest does: gone through once without, a trial is only shown where it will succeed.
            attempt, _ = self._run(conditions, lambda trial, moment: go_on())
            if not attempt.succeeded:
                return attempt

        def write(trial: Trial, moment: Moment) -> None:
            writer.add(self._numbers_of(trial, moment), self._pictures())
            go_on()

        attempt, tasks = self._run(conditions, write)
        if kept or attempt.succeeded:
            writer.end_episode(tasks)
            return replace(attempt, kept=True)
        writer.discard_episode()
        return attempt

    def _run(self, conditions: Conditions, look: Callable[[Trial, Moment], None]) -> tuple[Attempt, list[str]]:
        """Go through a trial, looking at every moment; return what became of it, not kept yet, and what was told in each."""
        trial = start_trial(self._cell, conditions)
        pushes = Pushes(self._plan.disturbance, self._cell.arms, conditions.seed)
        told = []
        for moment in demonstrate(trial, expert_of(trial), pushes):
            look(trial, moment)
            told.append(moment.instruction)
        outcome = trial.outcome
        assert outcome is not None
        attempt = Attempt(conditions, pushes.amplitude_rad, len(told), outcome.grasped, outcome.succeeded, outcome.failure, kept=False)
        return attempt, told

    def _numbers_of(self, trial: Trial, moment: Moment) -> dict[str, Any]:
        width, height = self._plan.size
        return self._columns.step(moment.state, moment.action) | {
            SEEN: seen(self._cell, width / height).reshape(-1),
            TARGET: trial.slot,
            BELT_SPEED: self._cell.belt_speed_m_s,
            STAGE: STAGES.index(moment.stage),
        }

    def _pictures(self) -> dict[str, ByteArray]:
        return {key: picture(self._cell, name, self._plan.size, self._plan.supersample) for name, key in self._columns.cameras.items()}


def picture(cell: Cell, camera: str, size: tuple[int, int], supersample: int) -> ByteArray:
    """Return a picture [height, width, 3] of `size` (width, height) that was rendered `supersample` times as large and averaged."""
    rgb = cell.render(camera, size[0] * supersample, size[1] * supersample)
    return rgb if supersample == 1 else np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
