"""How `internvla-a1 train` shows a run and lets it be stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

STOPPED = 130  # as a shell has it after Ctrl-C


class Bars:
    """The progress of a run on a terminal, or a line now and then where there is none."""

    def __init__(self, console: Any, recipe: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console, self._steps, self._samples, self._said_at = console, recipe.steps, recipe.samples_a_step, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bar: Any = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def caching(self, name: str, steps: int) -> Callable[[int], None]:
        bar = self._progress.add_task(f"pictures of {name}", total=steps, visible=False)
        return lambda done: self._progress.update(bar, advance=done, visible=True)

    def begin(self, step: int) -> None:
        self._bar = self._progress.add_task("steps", total=self._steps, completed=step)

    def stepped(self, report: Any) -> None:
        motion = f", motion {report.motion:.4f}" if report.motion else ""
        losses = f"loss {report.loss:.4f} (action {report.action:.4f}, future {report.generation:.4f}{motion})"
        text = f"{losses}, {report.seconds * 1e3:.0f} ms a step, {self._samples / report.seconds:.0f} samples/s"
        self._progress.update(self._bar, completed=report.step, description=text)
        if not self._console.is_terminal and (time.monotonic() - self._said_at > 10 or report.step == self._steps):
            self._said_at = time.monotonic()
            self._console.print(
                f"step {report.step} of {self._steps}: {text}, {report.data_s * 1e3:.0f} of them data", highlight=False, soft_wrap=True
            )


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
