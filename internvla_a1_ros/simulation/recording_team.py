"""Several processes record the parts of a plan side by side; whole parts survive an interruption, and in the end become one dataset."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2

from internvla_a1_ros.bags.datasets import merge
from internvla_a1_ros.core.alone import alone
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.document import write_whole
from internvla_a1_ros.robots.profile import load_usable_profile
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.recording import PROFILE, Attempt, Leader, Part, Plan

# Trials in a part: so few that little is lost when it ends early, and that processes have equally much to do.
MOST_A_PART, FEWEST_PARTS = 8, 8
NICENESS = 10
LOG, PLAN = "episodes.jsonl", "plan.json"
_PATIENCE_S, _LAST_S = 0.2, 20.0


class Stopped(Exception):
    """Somebody asked to stop; whole parts are kept."""


class Workshop:
    """The parts of a dataset `out` that is being recorded, in a hidden folder beside it.

    Raises ConfigurationError where `out` exists, or parts of it that are not to be resumed or were recorded by another plan.
    """

    def __init__(self, plan: Plan, out: Path, *, resume: bool) -> None:
        self.plan, self.out, self.folder = plan, out, out.with_name(f".{out.name}.parts")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigurationError(f"dataset '{out}': exists already, expected a new folder")
        path = self.folder / PLAN
        if path.exists():
            if not resume:
                raise ConfigurationError(f"'{self.folder}': holds parts of '{out}', expected none: --resume goes on, or remove the folder")
            if different := _first_difference(plan, path):
                raise ConfigurationError(f"--resume: {different}, as in '{path}': what was begun goes on only as it was begun")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ConfigurationError(f"dataset '{out}': cannot be written: {problem.strerror}") from None
        write_whole(path, (plan.model_dump_json(indent=1) + "\n").encode())

    @property
    def parts(self) -> list[range]:
        """The trials of each part, whoever records it."""
        n = self.plan.episodes
        size = max(1, min(MOST_A_PART, n // FEWEST_PARTS))
        return [range(first, min(first + size, n)) for first in range(0, n, size)]

    def place(self, part: range) -> Path:
        return self.folder / f"{part.start:07d}"

    def log(self, part: range) -> Path:
        return self.folder / f"{part.start:07d}.jsonl"

    def missing(self) -> list[range]:
        """Return the parts that are not done yet."""
        return [part for part in self.parts if not self.log(part).exists()]

    @property
    def done(self) -> int:
        """Trials in parts that are done."""
        return self.plan.episodes - sum(len(part) for part in self.missing())

    def join(self) -> None:
        """Make one dataset of all parts. Raises ConfigurationError where no trial was kept or the disk is full; the parts stay."""
        folders = [place for part in self.parts if (place := self.place(part)).exists()]
        if not folders:
            words = Counter(json.loads(line)["failure"] for part in self.parts for line in self.log(part).read_text().splitlines())
            shutil.rmtree(self.folder)
            counted = ", ".join(f"{n} {word}" for word, n in words.most_common())
            raise ConfigurationError(f"dataset '{self.out}': got no trial that succeeded ({counted}), expected one of {self.plan.episodes}")
        whole = self.folder / "whole"
        merge(folders, whole)
        write_whole(whole / LOG, b"".join(self.log(part).read_bytes() for part in self.parts))
        try:
            if self.out.is_dir():
                self.out.rmdir()  # empty, as was seen at the start
            os.replace(whole, self.out)
        except OSError as problem:
            raise ConfigurationError(f"dataset '{self.out}': cannot be written: {problem.strerror}") from None
        shutil.rmtree(self.folder)

    def tidy(self) -> None:
        """Leave nothing behind where no part is done."""
        if not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, nobody else records here, and what an interruption left unfinished is gone.

        Raises ConfigurationError where another command is at work.
        """
        with alone(self.folder, f"'{self.folder}': another record-sim is at work on '{self.out}', expected to be alone"):
            self._clear()
            yield

    def _clear(self) -> None:
        """Remove what an interruption left unfinished."""
        missing = set(self.missing())
        done = {self.place(part) for part in self.parts if part not in missing}
        for path in self.folder.iterdir():
            if path.is_dir() and path not in done:
                shutil.rmtree(path)


def _first_difference(now: Plan, path: Path) -> str:
    """Return in words where a plan differs from the one that was written to `path`, nothing where it does not."""
    before, after = _flat(json.loads(path.read_text())), _flat(json.loads(now.model_dump_json()))
    keys = [key for key in {**after, **before} if before.get(key) != after.get(key)]
    return f"{keys[0]}: got {json.dumps(after.get(keys[0]))}, expected {json.dumps(before.get(keys[0]))}" if keys else ""


def _flat(plan: dict[str, Any]) -> dict[str, Any]:
    """Name what a plan says of its lead one by one."""
    return plan | {f"lead.{key}": value for key, value in (plan.pop("lead", None) or {}).items()}


def record(workshop: Workshop, workers: int, ended: Callable[[Attempt], None]) -> None:
    """Record what is missing in `workers` processes; `ended` hears of every trial.

    Raises Stopped after Ctrl-C, with the parts at hand given up, and ConfigurationError where a process fails.
    """
    missing = workshop.missing()
    context = multiprocessing.get_context("spawn")
    todo, told, stop = context.Queue(), context.Queue(), context.Event()
    for part in [*missing, *[None] * workers]:
        todo.put(part)
    team = [context.Process(target=_work, args=(workshop, todo, told, stop, os.getpid())) for _ in range(min(workers, len(missing)))]
    try:
        _start(team)
        left = len(missing)
        while left:
            said = _next(told, team)
            if isinstance(said, Attempt):
                ended(said)
            elif isinstance(said, str):
                raise ConfigurationError(said)
            else:
                left -= 1
    except KeyboardInterrupt:
        raise Stopped from None
    finally:
        stop.set()
        todo.cancel_join_thread()
        _dismiss(told, team)


def _start(team: Sequence[BaseProcess]) -> None:
    """Ctrl-C on a terminal reaches every process; only the first shall hear it, the others not even in their first moments."""
    hearing = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for process in team:
            process.start()
    finally:
        signal.signal(signal.SIGINT, hearing)


def _next(told: Any, team: Sequence[BaseProcess]) -> Attempt | str | None:
    """Wait for a word of the team: a trial that ended, a sentence why there are no more, or None for a part that is done."""
    while True:
        # Asked before the queue is: a process that is gone has said everything.
        codes = [process.exitcode for process in team if process.exitcode]
        with contextlib.suppress(queue.Empty):
            said: Attempt | str | None = told.get(timeout=_PATIENCE_S)
            return said
        if codes:
            return f"a recording process ended with code {codes[0]}, expected it to go on until all trials are recorded"


def _dismiss(told: Any, team: Sequence[BaseProcess]) -> None:
    """Wait for the processes to end. What they still say must be taken so that they can; one that cannot is ended."""
    for _ in range(round(_LAST_S / _PATIENCE_S)):
        if not any(process.is_alive() for process in team):
            break
        with contextlib.suppress(queue.Empty):
            while True:
                told.get(timeout=_PATIENCE_S)
    for process in team:
        if process.is_alive():
            process.terminate()
        if process.pid is not None:
            process.join()


def _work(workshop: Workshop, todo: Any, told: Any, stop: Any, parent: int) -> None:
    """What a process does: one part after the other, until there are none or `stop` is set, or its parent is gone."""
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), NICENESS))
    cv2.setNumThreads(1)

    def go_on() -> None:
        if stop.is_set() or os.getppid() != parent:
            raise Stopped

    cell = Cell()
    try:
        leader = _leader(workshop.plan)
        while (part := todo.get()) is not None:
            attempts = Part(workshop.plan, part, workshop.place(part), cell, leader).record(told.put, go_on)
            rows = "".join(json.dumps(attempt.row()) + "\n" for attempt in attempts)
            write_whole(workshop.log(part), rows.encode())  # last: with it the part is done
            told.put(None)
    except Stopped:
        pass
    except ConfigurationError as problem:
        told.put(str(problem))
    finally:
        cell.close()


def _leader(plan: Plan) -> Leader | None:
    if plan.lead is None:
        return None
    from internvla_a1_ros.simulation import leader  # torch, which only those need whom a policy leads

    if leader.checksum(Path(plan.lead.policy)) != plan.lead.checksum:
        raise ConfigurationError(f"checkpoint '{plan.lead.policy}': got other files than the recording began with, expected the same")
    return leader.Leader(plan.lead, load_usable_profile(PROFILE))
