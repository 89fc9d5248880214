"""`internvla-a1 train`: teach a model by a recipe, and go on where the last run stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from internvla_a1_ros.core.errors import ConfigurationError

STOPPED = 130  # as a shell has it after Ctrl-C


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="the recipe (docs/train.md)")],
    plan: Annotated[bool, typer.Option("--plan", help="print what memory it takes, and end")] = False,
    layout: Annotated[str, typer.Option(help="with --plan: 3b or 2b, released sizes in place of the start's")] = "",
    measure: Annotated[int, typer.Option(help="do so many steps, keep nothing, print whether samples keep up, and end", min=0)] = 0,
) -> None:
    """Train by a recipe. The same command again goes on from the last save, to the bit on the same machine.

    Ctrl-C ends the step at hand, saves and exits with 130; a second one ends at once, and the former save stays.
    """
    import torch
    from rich.console import Console

    from internvla_a1_ros.cli.train_tables import tell_load
    from internvla_a1_ros.learning.running import prepare, read_recipe, run
    from internvla_a1_ros.learning.stages import read_stage
    from internvla_a1_ros.learning.team import Team

    stage = read_stage(config)
    if stage is not None:
        from internvla_a1_ros.cli.train_stage import train_stage

        train_stage(stage)
        return
    recipe = read_recipe(config)
    if layout and not plan:
        raise ConfigurationError(f"--layout: got '{layout}' without --plan; a run takes its sizes from the recipe's start")
    if plan:
        _plan(recipe, layout)
        return
    team = Team.joined(os.environ, recipe.device, recipe.sharded)
    if recipe.threads is not None:  # after accelerate, which chooses its own
        torch.set_num_threads(recipe.threads)
    console = Console(stderr=True, quiet=not team.leads)
    with _Bars(console, recipe) as bars:
        prepared = prepare(recipe, bars, team)
        if team.leads:
            tell_load(prepared, console)
        if measure:
            _measure(prepared, measure)
            return
        bars.begin(prepared.resumed)
        with _Interrupt() as interrupt:
            complete = run(prepared, bars, interrupt.asked)
    trainer = prepared.trainer
    if not team.leads:
        return
    if trainer.undecoded:
        print(f"left out on the way: {trainer.undecoded} samples that could not be decoded")
    print(f"{recipe.out}: step {trainer.step} of {recipe.steps}{'' if complete else ', stopped; the same command goes on'}")
    if not complete:
        raise typer.Exit(STOPPED)


def _plan(recipe: Any, layout: str) -> None:
    from rich.console import Console

    from internvla_a1_ros.cli.train_tables import tell_plan
    from internvla_a1_ros.learning.running import start_of
    from internvla_a1_ros.model.checkpoint import load_architecture
    from internvla_a1_ros.model.released import released_sizes

    sizes = released_sizes(layout) if layout else load_architecture(start_of(recipe))
    tell_plan(recipe, sizes, layout or recipe.start, Console(stderr=True))


def _measure(prepared: Any, steps: int) -> None:
    from rich.console import Console

    from internvla_a1_ros.cli.train_tables import tell_rates
    from internvla_a1_ros.learning.measuring import measured

    rates = measured(prepared, steps)
    if prepared.trainer.team.leads:
        print(json.dumps(tell_rates(rates, prepared.recipe, Console())))


class _Bars:
    """The progress of a run on a terminal, or a line now and then where there is none."""

    def __init__(self, console: Any, recipe: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console, self._steps, self._samples, self._said_at = console, recipe.steps, recipe.samples_a_step, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bar: Any = None

    def __enter__(self) -> _Bars:
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
        losses = f"loss {report.loss:.4f} (action {report.action:.4f}, future {report.generation:.4f})"
        text = f"{losses}, {report.seconds * 1e3:.0f} ms a step, {self._samples / report.seconds:.0f} samples/s"
        self._progress.update(self._bar, completed=report.step, description=text)
        if not self._console.is_terminal and (time.monotonic() - self._said_at > 10 or report.step == self._steps):
            self._said_at = time.monotonic()
            self._console.print(
                f"step {report.step} of {self._steps}: {text}, {report.data_s * 1e3:.0f} of them data", highlight=False, soft_wrap=True
            )


class _Interrupt:
    """The first Ctrl-C asks for an end between two steps; then the usual handling is back."""

    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> _Interrupt:
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
