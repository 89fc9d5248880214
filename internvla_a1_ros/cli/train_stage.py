"""`internvla-a1 train` with the recipe of a stage that comes before the policy's (docs/nano.md)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from internvla_a1_ros.cli.train_progress import STOPPED, Bars, Interrupt

if TYPE_CHECKING:
    from internvla_a1_ros.learning.stages_loop import StageReport
    from internvla_a1_ros.learning.stages_recipe import StageRecipe


def train_stage(recipe: StageRecipe) -> None:
    """Do a stage, or what is left of it; Ctrl-C ends the step at hand, saves and exits with 130."""
    import torch
    from rich.console import Console

    from internvla_a1_ros.learning.stages import prepare_stage, run_stage

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    console = Console(stderr=True)
    with StageBars(console, recipe) as bars:
        prepared = prepare_stage(recipe, bars)
        for line in prepared.told:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        bars.begin(prepared.resumed)
        with Interrupt() as interrupt:
            complete = run_stage(prepared, bars, interrupt.asked)
    print(f"{recipe.out}: step {prepared.course.step} of {recipe.steps}{'' if complete else ', stopped; the same command goes on'}")
    if not complete:
        raise typer.Exit(STOPPED)


class StageBars(Bars):
    """Says besides how good the model is on what is kept back, whenever that was measured."""

    def stepped(self, report: StageReport) -> None:
        self._progress.update(self._bar, completed=report.step, description=report.text)
        if report.measured or (not self._console.is_terminal and time.monotonic() - self._said_at > 10):
            self._said_at = time.monotonic()
            self._console.print(f"step {report.step} of {self._steps}: {report.text}", highlight=False, soft_wrap=True)
