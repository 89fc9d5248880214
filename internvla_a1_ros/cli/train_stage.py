"""`internvla-a1 train` with the recipe of a stage that comes before the policy's (docs/nano.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from internvla_a1_ros.cli.progress import STOPPED
from internvla_a1_ros.cli.train_progress import Bars, Interrupt, preparing

if TYPE_CHECKING:
    from internvla_a1_ros.learning.stages_loop import StageReport
    from internvla_a1_ros.learning.stages_recipe import StageRecipe


def train_stage(recipe: StageRecipe) -> None:
    """Do a stage, or what is left of it; Ctrl-C ends the step at hand, saves and exits with 130."""
    import torch
    from rich.console import Console

    from internvla_a1_ros.learning.checkpoints import at_work
    from internvla_a1_ros.learning.stages import prepare_stage, run_stage

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    console = Console(stderr=True)
    with at_work(Path(recipe.out)), StageBars(console, recipe) as bars:
        with preparing():
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
        self.told(report.step, report.text, now=bool(report.measured))
