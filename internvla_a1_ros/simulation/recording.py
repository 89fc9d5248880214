"""Demonstrations to a LeRobot dataset: what is recorded, and one part of it, trial after trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, get_args

import cv2
import numpy as np
from pydantic import Field, model_validator

from internvla_a1_ros.bags.converting_keys import Columns, columns_of
from internvla_a1_ros.bags.datasets import DatasetWriter, Feature
from internvla_a1_ros.core.types import ByteArray, FloatArray
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.profile import load_usable_profile
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS, CellConfig, Range
from internvla_a1_ros.simulation.demonstration import RATE_HZ, Disturbance, Leads, Moment, Pushes, demonstrate
from internvla_a1_ros.simulation.detours import Detours
from internvla_a1_ros.simulation.leading import Lead, Leading, Stretch
from internvla_a1_ros.simulation.seen import FIELDS, seen
from internvla_a1_ros.simulation.sorting import Stage
from internvla_a1_ros.simulation.tasks import expert_of, start_trial
from internvla_a1_ros.simulation.trial import ROLLOUT_SEEDS, TASKS, Conditions, Task, Trial
from internvla_a1_ros.simulation.variation import Variation

PROFILE = "arx_ac_one"
STAGES: tuple[str, ...] = get_args(Stage)
LED = "led"  # a trial that ended while the policy had the arms
SEEN, TARGET, BELT_SPEED, STAGE = "simulation.seen", "simulation.target", "simulation.belt_speed", "simulation.stage"
LED_STEP = "simulation.led"


class Plan(Document):
    """What is recorded: trial i has the seed `seed + i` and, of several tasks, the next in turn. The same plan, the same dataset.

    `size` is that of the pictures (width, height), each rendered `supersample` times as large and averaged; it stands for `hold` steps,
    as with a camera that is slower. `variation`: 0 to 1. `belt_m_s`: speeds to draw from in place of the task's.
    `lead`: a policy that has the arms for a while; without one there are `detours`.
    """

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = TASKS
    episodes: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    disturbance: Disturbance = Disturbance()
    belt_m_s: Range | None = None
    variation: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    size: tuple[int, int] = (160, 120)
    supersample: Annotated[int, Field(ge=1, le=8)] = 2
    hold: Annotated[int, Field(ge=1)] = 1
    keep_failures: bool = False
    codec: str = ""
    lead: Leading | None = None
    detours: Detours = Detours()

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
        return Conditions.drawn(self.tasks[i % len(self.tasks)], self.seed + i, self.belt_m_s)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one trial; `kept`: it is an episode of the dataset, of `frames` steps.

    `lead`: when a policy had the arms; the episode begins with `lead.first_recorded`.
    """

    conditions: Conditions
    amplitude_rad: float
    frames: int
    grasped: bool
    succeeded: bool
    failure: str
    kept: bool
    lead: Stretch | None = None

    def row(self) -> dict[str, Any]:
        """Return it flat, as a line of `episodes.jsonl`."""
        table = asdict(self)
        conditions: dict[str, Any] = table.pop("conditions")
        if self.lead is None:
            del table["lead"]
        return conditions | table


class Leader(Protocol):
    """Who has the policy (`leader.Leader`)."""

    def lead(self, seed: int, stretch: Stretch, look: Callable[[str], ByteArray]) -> Lead:
        """Return the lead of one trial; `look` takes a camera's picture."""
        ...


class Part:
    """Writes the trials `numbers` of a plan, done in `cell`, into the dataset `folder`; `leader`: where the plan has a lead."""

    def __init__(self, plan: Plan, numbers: range, folder: Path, cell: Cell, leader: Leader | None = None) -> None:
        self._plan, self._numbers, self._folder, self._cell, self._leader = plan, numbers, folder, cell, leader
        self._columns: Columns = columns_of(profile := load_usable_profile(PROFILE))
        self._features, self._names = self._columns.features(profile.joint_names)
        slots = self._cell.config.parcels.slots
        self._features |= {
            SEEN: Feature("float32", (len(CAMERAS) * slots * len(FIELDS),)),
            TARGET: Feature("int64", (1,)),
            BELT_SPEED: Feature("float32", (1,)),
            STAGE: Feature("int64", (1,)),
            LED_STEP: Feature("int64", (1,)),
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
        lead = self._lead(conditions, go_on)
        if not self._plan.keep_failures:
            # Pictures cost ten times what the rest does: gone through once without, a trial is only shown where it will succeed.
            attempt, _ = self._run(conditions, lead, lambda trial, moment: None, go_on)
            if not attempt.succeeded:
                return attempt

        shown: dict[str, ByteArray] = {}
        truth: FloatArray = np.empty(0)
        steps = 0

        def write(trial: Trial, moment: Moment) -> None:
            nonlocal shown, truth, steps
            if steps % self._plan.hold == 0:
                shown, truth = self._pictures(), self._seen()
            steps += 1
            writer.add(self._numbers_of(trial, moment) | {SEEN: truth}, shown)

        attempt, tasks = self._run(conditions, lead, write, go_on)
        if attempt.succeeded or (self._plan.keep_failures and attempt.failure != LED):
            writer.end_episode(tasks)
            return replace(attempt, kept=True)
        writer.discard_episode()
        return attempt

    def _lead(self, conditions: Conditions, go_on: Callable[[], None]) -> Lead | None:
        if self._plan.lead is None:
            return None
        assert self._leader is not None
        pushes, trial = self._begun(conditions)

        def alone() -> int:
            steps = 0
            for _ in demonstrate(trial, expert_of(trial), pushes):
                go_on()
                steps += trial.outcome is None
            return steps

        look = partial(picture, self._cell, size=self._plan.size, supersample=self._plan.supersample)
        return self._leader.lead(conditions.seed, self._plan.lead.drawn(conditions.seed, alone), look)

    def _begun(self, conditions: Conditions) -> tuple[Pushes, Trial]:
        return Pushes(self._plan.disturbance, self._cell.arms, conditions.seed), start_trial(self._cell, conditions)

    def _run(
        self, conditions: Conditions, lead: Lead | None, look: Callable[[Trial, Moment], None], go_on: Callable[[], None]
    ) -> tuple[Attempt, list[str]]:
        """Go through a trial, looking at what is recorded; return what became of it, not kept yet, and what was told in each step."""
        pushes, trial = self._begun(conditions)
        stretch = None if lead is None else lead.stretch
        first, told = (0 if stretch is None else stretch.first_recorded), list[str]()
        leads: Leads = self._plan.detours.of(trial, conditions.seed) if lead is None else lead
        for step, moment in enumerate(demonstrate(trial, expert_of(trial), pushes, leads)):
            go_on()
            if step >= first:
                look(trial, moment)
                told.append(moment.instruction)
        outcome = trial.outcome
        assert outcome is not None
        succeeded, failure = outcome.succeeded, outcome.failure
        if stretch is not None and outcome.duration_s * RATE_HZ < stretch.end + 0.5:
            succeeded, failure = False, LED
        return Attempt(conditions, pushes.amplitude_rad, len(told), outcome.grasped, succeeded, failure, kept=False, lead=stretch), told

    def _numbers_of(self, trial: Trial, moment: Moment) -> dict[str, Any]:
        return self._columns.step(moment.state, moment.action) | {
            TARGET: trial.slot,
            BELT_SPEED: self._cell.belt_speed_m_s,
            STAGE: STAGES.index(moment.stage),
            LED_STEP: int(moment.led),
        }

    def _seen(self) -> FloatArray:
        """What the pictures show: as old as they are."""
        width, height = self._plan.size
        return seen(self._cell, width / height).reshape(-1)

    def _pictures(self) -> dict[str, ByteArray]:
        return {key: picture(self._cell, name, self._plan.size, self._plan.supersample) for name, key in self._columns.cameras.items()}


def picture(cell: Cell, camera: str, size: tuple[int, int], supersample: int) -> ByteArray:
    """Return a picture [height, width, 3] of `size` (width, height) that was rendered `supersample` times as large and averaged."""
    rgb = cell.render(camera, size[0] * supersample, size[1] * supersample)
    return rgb if supersample == 1 else np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
