"""How every long command says how far it is: a bar with the time left on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

STOPPED = 130  # exit code after Ctrl-C, as a shell has it
SAY_EVERY_S = 10.0  # where there is no terminal to draw on; what takes less says nothing


class Progress:
    """Pieces of work, one after the other or side by side, on the error output. `kept`: a finished bar stays on the screen."""

    def __init__(self, console: Any = None, *, kept: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.console = console or Console(stderr=True)
        what, count = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[count]}")
        columns = (what, BarColumn(), TaskProgressColumn(), count, TimeRemainingColumn())
        self.bars = Bars(*columns, console=self.console, transient=not kept, disable=not self.console.is_terminal)

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def work(self, what: str, total: float | None = None, done: float = 0.0) -> Work:
        """Begin a piece of work. `total`: how many things it consists of; 1.0: told in shares of it; None: not known."""
        return Work(self, what, total, done)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Work:
    """One piece of work: `what` it is, and how much of it is done."""

    def __init__(self, progress: Progress, what: str, total: float | None, done: float) -> None:
        self.what, self.total, self.done = what, total, done
        self._progress, self._begun = progress, done
        self._began_s = self._said_s = time.monotonic()
        self._bar = progress.bars.add_task(what, total=total, count=self._count)
        progress.bars.update(self._bar, completed=done)

    def advance(self, by: float = 1.0, what: str = "") -> None:
        """So much more is done."""
        self.at(self.done + by, what=what)

    def at(self, done: float, total: float | None = None, what: str = "") -> None:
        """So much is done, of `total` where that is only known now; `what`: other words from now on."""
        self.done, self.total, self.what = done, total or self.total, what or self.what
        self._progress.bars.update(self._bar, completed=done, total=self.total, description=self.what, count=self._count)
        if not self._progress.console.is_terminal and time.monotonic() - self._said_s > SAY_EVERY_S:
            self.say()

    def say(self) -> None:
        """Say now how far it is, terminal or not."""
        self._said_s = time.monotonic()
        self._progress.say(f"{self.what}{self._so_far}")

    def end(self) -> None:
        """Take it off the screen."""
        self._progress.bars.remove_task(self._bar)

    @property
    def _count(self) -> str:
        return "" if self.total is None or self.total == 1.0 else f"{self.done:.0f}/{self.total:.0f}"

    @property
    def _so_far(self) -> str:
        if self.total is None:
            return ""
        share = f"{self.done / self.total:.0%}" if self.total == 1.0 else f"{self.done:.0f} of {self.total:.0f}"
        more, took_s = self.done - self._begun, time.monotonic() - self._began_s
        left = f", about {timedelta(seconds=round(took_s / more * (self.total - self.done)))} left" if more > 0 else ""
        return f": {share}{left}"


@contextmanager
def working(what: str, total: float | None = None) -> Iterator[Work]:
    """One piece of work with a progress of its own, gone from the screen afterwards."""
    with Progress() as progress:
        yield progress.work(what, total)
