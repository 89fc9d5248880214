"""An experiment carried out: every training and every run of rollouts as a command line of its own, each done once.

What is done is kept: whatever the same folder holds already is not done again, and a training that was stopped goes on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from internvla_a1_ros.core.alone import alone
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.experiment_plan import POLICIES, Job, Plan, Policy, Rolled
from internvla_a1_ros.evaluation.experiment_result import Found
from internvla_a1_ros.evaluation.open_loop_folder import read_metrics
from internvla_a1_ros.robots.document import write_whole

STOPPED = 130  # as a shell has it after Ctrl-C
LEDGER = "done.jsonl"
BEGUN = "begun"
_KEYS = {"key", "kind", "seconds", "units"}
_STEPS_LOOKED_AT = 200
# Runs the words after `internvla-a1` and returns the exit code, STOPPED where a person stopped it.
Runner = Callable[[Sequence[str]], int]


class Ledger:
    """What was begun and done in a folder, a line each: `key`, `kind`, `seconds`, `units` (steps or rollouts).

    A line cut short counts as not there; what was begun once more after it was done is not done.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / LEDGER
        self._lines = [told for line in _lines_of(self._path) if (told := _told(line)).keys() >= _KEYS]

    def has(self, job: Job) -> bool:
        """Whether a job was done and its result is there. Rollouts appear whole; a policy's folder is there from its first save on."""
        last = next((line["kind"] for line in reversed(self._lines) if line["key"] == job.key), BEGUN)
        return job.is_there and (isinstance(job, Rolled) or last != BEGUN)

    def begin(self, job: Job) -> None:
        """Raises ConfigurationError where it cannot be written."""
        self._add(job, BEGUN, 0.0, 0)

    def add(self, job: Job, seconds: float) -> None:
        """Raises ConfigurationError where it cannot be written."""
        self._add(job, type(job).__name__, seconds, job.units)

    def _add(self, job: Job, kind: str, seconds: float, units: int) -> None:
        line = {"key": job.key, "kind": kind, "seconds": round(seconds, 3), "units": units, "told": job.told}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(line)}")  # begins a line: the last one may have been cut short
        except OSError as problem:
            raise ConfigurationError(f"{self._path}: cannot be written: {problem.strerror or problem}") from None
        self._lines.append(line)

    @property
    def seconds_a_rollout(self) -> float | None:
        """Of the last that were run."""
        rolled = [line["seconds"] / line["units"] for line in self._lines if line["kind"] == Rolled.__name__]
        return rolled[-1] if rolled else None


def carry_out(plan: Plan, runner: Runner, workers: int, stop: Callable[[], bool], say: Callable[[str], None]) -> bool:
    """Do what is not done yet; return whether everything is.

    Raises ConfigurationError where something is missing, another one works in the same folder, or a command fails; what was done is kept.
    """
    if plan.missing:
        raise ConfigurationError(f"experiment '{plan.experiment.name}': {plan.missing[0]}")
    with _alone(plan.root):
        write_recipes(plan)
        ledger = Ledger(plan.root)
        waiting = [job for job in plan.jobs if not ledger.has(job)]
        for i, job in enumerate(waiting):
            if stop():
                return False
            say(f"{i + 1} of {len(waiting)}: {job.told}{Pace.measured(plan, ledger).told(waiting[i:])}")
            ledger.begin(job)
            began_s = time.monotonic()
            code = runner([*job.words, *_more_words(job, workers)])
            if code == STOPPED:
                return False
            if code or not job.is_there:
                what = f"ended with exit code {code}" if code else "left no result"
                raise ConfigurationError(f"experiment '{plan.experiment.name}': `internvla-a1 {' '.join(job.words)}` {what}")
            ledger.add(job, time.monotonic() - began_s)
    return True


def _more_words(job: Job, workers: int) -> list[str]:
    """How, not what: rollouts come out the same with any number of workers; a result that was cut short is replaced."""
    return [] if isinstance(job, Policy) else ["--workers", str(workers), "--force"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a step of training and a rollout took when they were last measured; None where never."""

    step_s: float | None
    rollout_s: float | None

    @classmethod
    def measured(cls, plan: Plan, ledger: Ledger) -> Pace:
        return cls(seconds_a_step(plan), ledger.seconds_a_rollout)

    def seconds(self, job: Job) -> float | None:
        """Return about how long a job takes."""
        each_s = self.rollout_s if isinstance(job, Rolled) else self.step_s
        return None if each_s is None else each_s * job.units

    def told(self, jobs: Sequence[Job]) -> str:
        """Say how long the first job takes and what is left with it; nothing where it is not known."""
        known = [self.seconds(job) for job in jobs]
        if known[0] is None:
            return ""
        left = sum(each for each in known if each is not None)
        return f", about {in_words(known[0])}; {in_words(left)} left{' and what was never measured' if None in known else ''}"


def in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds_a_step(plan: Plan) -> float | None:
    """Return the median of the last steps of the newest run of a policy in this folder, else of the base recipe's own."""
    logs = [*(plan.root / POLICIES).glob("*/log.jsonl"), *_log_of_base(plan)]
    newest = sorted((log for log in logs if log.is_file()), key=lambda log: log.stat().st_mtime)
    for log in reversed(newest):
        steps = [told["seconds"] for line in _lines_of(log)[-_STEPS_LOOKED_AT:] if (told := _told(line)) and "seconds" in told]
        if steps:
            return statistics.median(steps)
    return None


def _log_of_base(plan: Plan) -> list[Path]:
    out = yaml.safe_load(Path(plan.experiment.base).read_text(encoding="utf-8")).get("out")
    return [Path(out) / "log.jsonl"] if out else []


def write_recipes(plan: Plan) -> None:
    """Write recipe and manifest of every policy, each whole. Raises ConfigurationError where that cannot be."""
    for policy in plan.policies:
        manifest = yaml.safe_dump(dict(policy.manifest), sort_keys=False, allow_unicode=True)
        write_whole(Path(str(policy.recipe.manifest)), manifest.encode(), parents=True)
        content = policy.recipe.model_dump(mode="json", exclude_defaults=True)
        text = f"# Written by `internvla-a1 experiment`: {policy.told}.\n{yaml.safe_dump(content, sort_keys=False)}"
        write_whole(policy.file, text.encode(), parents=True)


def gathered(plan: Plan) -> list[Found]:
    """Return the rows of all rollouts that are there and whole."""
    found = []
    for each in plan.rolled:
        if each.is_there:
            metrics = read_metrics(each.place)
            found.append(Found(each.variant, each.policy.recipe.seed, each.cell, metrics["trials"], float(metrics["what"]["compute_ms"])))
    return found


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two that share a folder would train the same policy into the same place."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigurationError(f"output folder '{root}': cannot be written: {problem.strerror or problem}") from None
    with alone(root, f"'{root}': another experiment is at work in it, expected none: wait, or name another --out"):
        yield


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _told(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
