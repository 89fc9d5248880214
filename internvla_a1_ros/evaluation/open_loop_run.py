"""One open loop from order to folder: opens what was asked for, runs it, writes tables, metrics and report."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from internvla_a1_ros import __version__
from internvla_a1_ros.core.checksum import sha256_of
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.open_loop import Asked, OpenLoop, Outcome, Row, truth_of
from internvla_a1_ros.evaluation.open_loop_bag import BagRecording
from internvla_a1_ros.evaluation.open_loop_dataset import episodes
from internvla_a1_ros.evaluation.open_loop_folder import REPORT_FILE, write_metrics
from internvla_a1_ros.evaluation.open_loop_metrics import figures
from internvla_a1_ros.evaluation.open_loop_pictures import Gallery, Moment
from internvla_a1_ros.evaluation.open_loop_policy import Predicts
from internvla_a1_ros.evaluation.open_loop_result import Result
from internvla_a1_ros.evaluation.open_loop_sources import Recording, Rhythm
from internvla_a1_ros.evaluation.open_loop_tables import Tables
from internvla_a1_ros.evaluation.open_loop_units import Units, groups_of
from internvla_a1_ros.evaluation.report import render
from internvla_a1_ros.evaluation.report_open_loop import report
from internvla_a1_ros.evaluation.report_pictures import PictureRow, rows_of
from internvla_a1_ros.policy.agreement import check_robot_type
from internvla_a1_ros.policy.manifest import Manifest, load_manifest
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.robots.profile import RobotProfile


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be evaluated on what. `stride` in actions (0: as online), `horizon` 0: the whole chunk; `pictures`: moments imagined."""

    checkpoint: Path
    profile: RobotProfile
    engine: str = "torch"
    preset: str = ""
    seeds: int = 1
    stride: int | None = None
    horizon: int = 0
    truth: str = ""
    instruction: str = ""
    threads: int | None = None
    pictures: int = 6


@dataclass(slots=True)
class Evaluation:
    """An order on its way: `manifest` and `units` of its checkpoint, `chunk` and `predictor` once the engine is loaded."""

    order: Order
    predictor: Predicts
    chunk: int
    manifest: Manifest = field(init=False)
    units: Units = field(init=False)
    what: dict[str, Any] = field(init=False)
    partial: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigurationError where checkpoint, statistics and robot do not fit, or more actions are asked for than a chunk has."""
        self.manifest, self.units = read_units(self.order)
        if not 0 <= self.order.horizon <= self.chunk:
            raise ConfigurationError(f"--horizon: got {self.order.horizon}, expected 1 to {self.chunk}, the actions of a chunk")
        self.what = described(self.order, self.manifest, self.chunk)

    @property
    def asked(self) -> Asked:
        order, actions = self.order, self.manifest.actions
        ahead_ns = round(self.manifest.history.ahead_s * 1e9)
        return Asked(order.horizon or self.chunk, tuple(range(order.seeds)), actions.offset, order.truth, ahead_ns)

    @property
    def rhythm(self) -> Rhythm:
        stride = self.chunk if self.order.stride is None else self.order.stride
        return Rhythm(round(stride * self.manifest.actions.dt_s * 1e9))

    def run(self, recordings: Sequence[Recording], folder: Path, progress: Callable[[str, float], None]) -> dict[str, Any]:
        """Run all recordings, write the result into `folder` and return its metrics; `progress` hears recording and seconds done.

        Ctrl-C ends it early and keeps what was done, unless that is nothing. Raises ConfigurationError where no recording gave anything.
        """
        profile, asked = self.order.profile, self.asked
        groups = groups_of(profile)
        tables = Tables(folder, profile.joint_names, groups, self.units)
        gallery = Gallery(self.order.pictures, asked.ahead_ns)
        timings = _Timings()

        def keep(row: Row) -> None:
            tables.add(row)
            timings.add(row.timings_s)

        loop = OpenLoop(self.predictor, self.units, asked, self.rhythm, groups, gallery, keep)
        try:
            for recording in recordings:
                loop.progress = lambda done_s, name=recording.name: progress(name, done_s)  # type: ignore[misc]
                loop.run(recording)
        except KeyboardInterrupt:
            self.partial = True
            if not loop.total.observations:
                raise
        loop.require_some()
        tables.close()
        pictures = self._pictures(gallery.moments)
        metrics = self._metrics(loop, timings, recordings)
        write_metrics(folder, metrics)
        page = report(Result(folder), pictures)
        (folder / REPORT_FILE).write_text(render(page), encoding="utf-8")
        return metrics

    def _metrics(self, loop: OpenLoop, timings: _Timings, recordings: Sequence[Recording]) -> dict[str, Any]:
        profile, asked, total, actions, groups = self.order.profile, self.asked, loop.total, self.manifest.actions, loop.groups
        return {
            "kind": "open_loop",
            "partial": self.partial,
            "what": self.what,
            "joints": list(profile.joint_names),
            "grippers": [name for name, gripper in zip(profile.joint_names, profile.is_gripper, strict=True) if gripper],
            "groups": {name: list(which) for name, which in groups.items()},
            "times_s": [round((k + actions.offset) * actions.dt_s, 6) for k in range(asked.horizon)],
            "count": {"observations": total.observations, "actions": total.actions, "without_truth": total.without_truth},
            "errors": figures(total, groups, profile.joint_names),
            "timings_s": timings.table(),
            "recordings": [_of_recording(each) for each in loop.outcomes],
            "not_reached": [each.name for each in recordings[len(loop.outcomes) :]],
        }

    def _pictures(self, moments: Sequence[Moment]) -> list[PictureRow]:
        rows: list[PictureRow] = []
        try:
            for moment in moments:
                imagined = self.predictor.predict(moment.observation, moment.instruction, 0, imagine=True).imagined
                if imagined is not None:
                    rows += rows_of(moment, imagined, self.order.profile)
        except KeyboardInterrupt:
            self.partial = True
        return rows


def read_units(order: Order) -> tuple[Manifest, Units]:
    """Return what the checkpoint says of itself, having compared it with the robot. Raises ConfigurationError."""
    manifest = load_manifest(order.checkpoint)
    check_robot_type(manifest, order.profile)
    return manifest, Units.of(order.profile, manifest, StatisticsFile(order.checkpoint / "stats.json").of(manifest.robot_type))


def open_recordings(paths: Sequence[Path], order: Order, manifest: Manifest) -> list[Recording]:
    """Return bags, and every episode of datasets (folders with `meta/info.json`).

    Raises ConfigurationError for one that cannot be read, is of another robot, or lacks the truth asked for.
    """
    found: list[Recording] = []
    for path, name in zip(paths, unique_names(paths), strict=True):
        if (path / "meta" / "info.json").is_file():
            found += episodes(path, name, order.profile, manifest, order.instruction)
        else:
            found.append(BagRecording(path, name, order.profile, manifest, order.instruction))
    if not found:
        raise ConfigurationError("replay: got no bag, expected at least one bag or dataset folder")
    for recording in found:
        truth_of(order.truth, manifest.actions.offset, recording)
    return found


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, told apart by a number where two are the same."""
    names: list[str] = []
    for path in paths:
        name = path.resolve().name
        same = sum(each == name or each.startswith(f"{name} (") for each in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def described(order: Order, manifest: Manifest, chunk: int) -> dict[str, Any]:
    """Return what was run, for metrics.json and for a place that depends on it."""
    return {
        "model": manifest.name,
        "trained": manifest.trained,
        "checkpoint": str(order.checkpoint),
        "sha256": sha256_of(order.checkpoint / "model.safetensors", manifest.sha256 or ""),
        "robot": order.profile.name,
        "engine": order.engine,
        "preset": order.preset or manifest.default_preset,
        "seeds": list(range(order.seeds)),
        "as_online": order.stride == 0,
        "stride": (chunk if order.stride is None else order.stride) or None,
        "horizon": order.horizon or chunk,
        "truth": order.truth or "by the manifest",
        "instruction": order.instruction or "the recording's own",
        "versions": {
            "internvla_a1_ros": __version__,
            "commit": _commit(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "torch")},
        },
    }


def _commit() -> str:
    """The commit of this checkout, marked where it was changed; empty outside of one."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


class _Timings:
    """Seconds of each stage; a run of hours is some ten thousand numbers."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def add(self, timings_s: Any) -> None:
        for name, seconds in {**timings_s, "total": sum(timings_s.values())}.items():
            self._seconds.setdefault(name, []).append(seconds)

    def table(self) -> dict[str, dict[str, float]]:
        return {name: {"median": float(np.median(each)), "p95": float(np.percentile(each, 95))} for name, each in self._seconds.items()}


def _of_recording(outcome: Outcome) -> dict[str, Any]:
    recording, notes = outcome.recording, outcome.recording.notes
    return {
        "name": recording.name,
        "place": recording.place,
        "start_ns": recording.start_ns,
        "seconds": recording.seconds,
        "truth": outcome.truth,
        "observations": outcome.observations,
        "actions": outcome.actions,
        "without_truth": outcome.without_truth,
        "undecodable": outcome.undecodable,
        "instructions": notes.instructions,
        "losses": notes.losses,
        "refused": dict(notes.refused),
        "reasons": notes.reasons,
        "trouble": outcome.trouble,
        "errors": outcome.errors,
    }
