"""What one process needs to run rollouts one after another: a cell, a model in its engine, and what was ordered."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.core.sync import CameraSpec, ObservationBuilder
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.evaluation.rollout import Made, Rollout
from internvla_a1_ros.evaluation.rollout_expert import ExpertPolicy
from internvla_a1_ros.evaluation.rollout_film import Film, taken, unseen
from internvla_a1_ros.evaluation.rollout_timing import Timed
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.policy import Policy, load_policy
from internvla_a1_ros.robots.profile import load_usable_profile
from internvla_a1_ros.runtime.policy_loop import Infers, PolicyLoop
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import Range
from internvla_a1_ros.simulation.profile_joints import CellJoints, cell_of
from internvla_a1_ros.simulation.tasks import start_trial
from internvla_a1_ros.simulation.trial import Conditions, Task, Trial
from internvla_a1_ros.simulation.variation import Variation

_MEASURED_S = 2.0
_EXPERT_HZ = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What all rollouts of one run have in common. `checkpoint` None: the expert. `fade_s` None: the profile's."""

    task: Task
    robot: str
    checkpoint: Path | None
    engine: str = "torch"
    preset: str | None = None
    guidance: str | None = None
    compute_ms: float = 0.0
    variation: float = 1.0
    belt_m_s: Range | None = None
    fade_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout: which trial, and what is added between an observation and its chunk.

    `film`: where its video goes if it fails, or in any case where `film_success`.
    """

    seed: int
    latency_ms: float
    film: Path | None = None
    film_success: bool = False


class Rig:
    """Runs jobs. Belongs to one thread, which paints. Raises ConfigurationError where the order cannot be carried out."""

    def __init__(self, order: Order) -> None:
        self._order, profile = order, load_usable_profile(order.robot)
        self._profile = profile if order.fade_s is None else profile.model_copy(update={"fade_s": order.fade_s})
        self._cell = Cell(cell_of(profile))
        self._joints = CellJoints(profile, self._cell.arms)
        self._cameras = tuple(camera.name for camera in profile.cameras)
        self._history, self._rate_hz = HistorySpec(), _EXPERT_HZ
        self._engine: Any = None
        if order.checkpoint is not None:
            manifest = load_manifest(order.checkpoint)
            self._history, self._rate_hz = manifest.history.spec, manifest.target_rate_hz
            self._engine = make_engine(order.engine, order.checkpoint, threads=1)
            self._policy(order.checkpoint, 0).warm_up(manifest.instructions[0])

    def run(self, job: Job) -> dict[str, Any]:
        """Run one rollout and return its row."""
        trial, conditions = self._begun(job.seed)
        film = None if job.film is None else Film()
        made = self._rolled(trial, self._thinker(trial, job.seed), job.latency_ms + self._order.compute_ms, film).run()
        outcome = made.outcome
        assert outcome is not None
        video = None
        if film is not None and job.film is not None and (job.film_success or not outcome.succeeded):
            word = outcome.failure or "success"
            try:
                film.write(job.film, f"seed {job.seed}, {job.latency_ms:g} ms added, belt {conditions.belt_speed_m_s:.2f} m/s: {word}")
                video = job.film.name
            except OSError as problem:  # a full disk: what the trial came to is worth more
                print(f"{job.film}: cannot be written: {problem.strerror or problem}", file=sys.stderr, flush=True)
        return {
            "seed": job.seed,
            "latency_ms": job.latency_ms,
            "conditions": {key: value for key, value in asdict(conditions).items() if key not in ("task", "seed")},
            **asdict(outcome),
            **_told(made),
            "video": video,
        }

    def compute_ms(self, seed: int) -> float:
        """Return what a cycle costs here, median in ms of processor time, in the first seconds of a trial."""
        trial, _ = self._begun(seed)
        timed = Timed(self._thinker(trial, seed))
        self._rolled(trial, timed, 0.0, None).run(_MEASURED_S)
        return statistics.median(timed.spent_s) * 1e3

    def close(self) -> None:
        """Free what paints."""
        self._cell.close()

    def _begun(self, seed: int) -> tuple[Trial, Conditions]:
        conditions = Conditions.drawn(self._order.task, seed, self._order.belt_m_s)
        Variation.drawn(seed, self._order.variation).apply(self._cell)
        return start_trial(self._cell, conditions), conditions

    def _rolled(self, trial: Trial, thinker: Infers, latency_ms: float, film: Film | None) -> Rollout:
        builder = ObservationBuilder(tuple(CameraSpec(name) for name in self._cameras), self._history)
        loop = PolicyLoop(thinker, builder, self._cameras, self._rate_hz)
        nobody_looks = self._engine is None and film is None
        camera: Callable[[int], Any] = partial(unseen, self._cameras) if nobody_looks else partial(taken, self._cell, self._cameras)
        return Rollout(trial, self._joints, self._profile, loop, camera, round(latency_ms * 1e6), film.see if film else None)

    def _thinker(self, trial: Trial, seed: int) -> Infers:
        """A policy for each trial, so that its noise depends on the trial alone, not on what was tried before."""
        checkpoint = self._order.checkpoint
        return ExpertPolicy(trial, self._joints, self._profile) if checkpoint is None else self._policy(checkpoint, seed)

    def _policy(self, checkpoint: Path, seed: int) -> Policy:
        name, order = self._profile.name, self._order
        return load_policy(checkpoint, self._profile, name, engine=self._engine, preset=order.preset, guidance=order.guidance, seed=seed)


def _told(made: Made) -> dict[str, Any]:
    late_ms = [round(late_ns * 1e-6, 3) + 0.0 for late_ns in made.late_ns]
    return {
        "chunks": made.chunks,
        "guided": made.guided,
        "late_ms": statistics.fmean(late_ms) if late_ms else None,
        "holds": dict(made.holds),
        "faults": dict(made.faults),
        "refused": dict(made.refused),
        "no_chunk": dict(made.no_chunk),
        "limited": made.limited_ticks / made.ticks,
        "clamped": made.clamped_ticks / made.ticks,
        "instructions": [[round(time_s, 3), text] for time_s, text in made.instructions],
    }
