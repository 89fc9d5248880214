"""Rollouts by the dozen: the same trials at each latency, summed up, with videos of those that failed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from internvla_a1_ros.core.checksum import sha256_of
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.open_loop_folder import REPORT_FILE, write_metrics
from internvla_a1_ros.evaluation.report import render
from internvla_a1_ros.evaluation.report_rollouts import VIDEOS, report
from internvla_a1_ros.evaluation.rollout_result import Row, summed
from internvla_a1_ros.evaluation.rollout_rig import Job, Order
from internvla_a1_ros.evaluation.rollout_trials import seeds
from internvla_a1_ros.evaluation.rollout_workers import run_jobs
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.simulation.trial import RANGES

Kept = Literal["failures", "all", "none"]
KEPT: tuple[Kept, ...] = get_args(Kept)


@dataclass(frozen=True, slots=True)
class Series:
    """Which trials: `n` of run `seed`, each at every latency (ms); of which videos are kept, and how many at most."""

    seed: int
    n: int
    latencies_ms: tuple[float, ...]
    videos: Kept = "failures"
    most_videos: int = 10

    def __post_init__(self) -> None:
        if not self.latencies_ms or not all(0 <= latency_ms < math.inf for latency_ms in self.latencies_ms):
            raise ConfigurationError(f"latency: got {list(self.latencies_ms)} ms, expected at least one, each finite and none below 0")
        if len(set(self.latencies_ms)) < len(self.latencies_ms):
            raise ConfigurationError(f"latency: got {list(self.latencies_ms)} ms, expected each once")
        seeds(self.seed, self.n)

    @property
    def jobs(self) -> list[Job]:
        """Trial by trial at each latency, so that a run that is cut short has as many of each."""
        return [Job(seed, latency_ms) for seed in seeds(self.seed, self.n) for latency_ms in self.latencies_ms]


@dataclass(slots=True)
class Rollouts:
    """Carries out an order in `folder`, where videos go. `rows` are in the order of the jobs, whoever was first."""

    order: Order
    series: Series
    folder: Path
    rows: list[Row] = field(default_factory=list)
    _filmed: int = 0

    def run(self, workers: int, told: Callable[[Row], None]) -> None:
        """Run all of it, telling each row as it comes. What was done before an interruption is kept."""
        jobs = self.series.jobs
        place = {(job.seed, job.latency_ms): i for i, job in enumerate(jobs)}
        waiting = iter(jobs)
        (self.folder / VIDEOS).mkdir(exist_ok=True)
        try:
            for row in run_jobs(self.order, lambda: self._next(waiting), min(workers, len(jobs))):
                self.rows.append(self._kept(row))
                told(self.rows[-1])
        finally:
            self.rows.sort(key=lambda row: place[row["seed"], row["latency_ms"]])
            for part in (self.folder / VIDEOS).glob("*.part"):  # of a worker that was stopped
                part.unlink()
            if not any((self.folder / VIDEOS).iterdir()):
                (self.folder / VIDEOS).rmdir()

    def _next(self, waiting: Any) -> Job | None:
        job: Job | None = next(waiting, None)
        if job is None:
            return None
        if self.series.videos == "none" or self._filmed >= self.series.most_videos:
            return job
        path = self.folder / VIDEOS / f"{job.seed}-{job.latency_ms:g}ms.mp4"
        return Job(job.seed, job.latency_ms, path, self.series.videos == "all")

    def _kept(self, row: Row) -> Row:
        """Drop the video where there are enough: while there is room all that are at work are filmed, for nobody knows which will fail."""
        if row["video"] is None:
            return row
        if self._filmed < self.series.most_videos:
            self._filmed += 1
            return row
        (self.folder / VIDEOS / row["video"]).unlink()
        return {**row, "video": None}

    def metrics(self, what: dict[str, Any], interrupted: bool) -> dict[str, Any]:
        """Return what `metrics.json` holds of the rows that are there."""
        belt = self.order.belt_m_s or RANGES[self.order.task].belt_speed_m_s
        return {
            "kind": "rollouts",
            "partial": interrupted,
            **summed(self.rows, belt),
            "what": {**_ordered(self.order), **asdict(self.series), **what},
            "ranges": {**asdict(RANGES[self.order.task]), "belt_speed_m_s": belt},
            "trials": self.rows,
        }

    def write(self, metrics: dict[str, Any]) -> None:
        """Write `metrics.json` and `report.html` into the folder."""
        write_metrics(self.folder, metrics)
        (self.folder / REPORT_FILE).write_text(render(report(metrics)), encoding="utf-8")


def _ordered(order: Order) -> dict[str, Any]:
    told = asdict(order)
    told["checkpoint"] = None if order.checkpoint is None else str(order.checkpoint)
    return told


def model_of(checkpoint: Path | None) -> dict[str, Any]:
    """Return which model it is: its name, whether it is trained, the checksum of its weights."""
    if checkpoint is None:
        return {"model": "expert", "trained": True, "sha256": ""}
    manifest = load_manifest(checkpoint)
    return {"model": manifest.name, "trained": manifest.trained, "sha256": sha256_of(checkpoint / "model.safetensors")}
