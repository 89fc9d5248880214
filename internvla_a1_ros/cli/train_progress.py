"""How `internvla-a1 train` shows a run and lets it be stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from internvla_a1_ros.cli.progress import STOPPED, Progress, Work


class Bars:
    """Who watches a run: its progress, losses, and how fast it is."""

    def __init__(self, console: Any, recipe: Any) -> None:
        self.progress = Progress(console, kept=True)
        self._steps, self._samples = recipe.steps, recipe.samples_a_step
        self._work: Work | None = None

    def __enter__(self) -> Bars:
        self.progress.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self.progress.__exit__(*problem)

    def caching(self, name: str, steps: int) -> Callable[[int], None]:
        work: list[Work] = []

        def advance(done: int) -> None:
            if not work:  # what is there already takes no time
                work.append(self.progress.work(f"pictures of {name}", steps))
            work[0].advance(done)

        return advance

    def begin(self, step: int) -> None:
        self._work = self.progress.work("steps", self._steps, step)

    def stepped(self, report: Any) -> None:
        motion = f", motion {report.motion:.4f}" if report.motion else ""
        losses = f"loss {report.loss:.4f} (action {report.action:.4f}, future {report.generation:.4f}{motion})"
        pace = f"{report.seconds * 1e3:.0f} ms a step, {report.data_s * 1e3:.0f} of them data"
        self.told(report.step, f"{losses}, {pace}, {self._samples / report.seconds:.0f} samples/s", now=report.step == self._steps)

    def left_out(self, why: str) -> None:
        self.progress.say(f"left out: {why}")

    def told(self, step: int, text: str, *, now: bool) -> None:
        """So many steps are done, `text` of the last; `now`: worth a line where there is no terminal."""
        assert self._work is not None
        self._work.at(step, what=text)
        if now and not self.progress.console.is_terminal:
            self._work.say()


class Interrupt:
    """The first Ctrl-C asks for an end between two steps; then the usual handling is back."""

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> Interrupt:
        self._former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._former:
            signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self._asked = True
        signal.signal(number, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)


@contextmanager
def preparing() -> Iterator[None]:
    """Inside, Ctrl-C says what becomes of the work before the first step, and exits with 130."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped before the first step: what was whole in the cache stays there; the same command goes on")
        raise typer.Exit(STOPPED) from None
