"""`internvla-a1 train`: teach a model by a recipe, and go on where the last run stopped."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvla_a1_ros.cli.progress import STOPPED
from internvla_a1_ros.cli.train_processes import beside
from internvla_a1_ros.cli.train_progress import Bars, Interrupt, preparing
from internvla_a1_ros.core.errors import ConfigurationError

if TYPE_CHECKING:
    from internvla_a1_ros.learning.recipe import Recipe


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="the recipe (docs/train.md)")],
    plan: Annotated[bool, typer.Option("--plan", help="print what memory it takes, and end")] = False,
    layout: Annotated[str, typer.Option(help="with --plan: 3b or 2b, released sizes in place of the start's")] = "",
    measure: Annotated[int, typer.Option(help="do so many steps, keep nothing, print whether samples keep up, and end", min=0)] = 0,
) -> None:
    """Train by a recipe. The same command again goes on from the last save, to the bit on the same machine.

    Ctrl-C ends the step at hand, saves and exits with 130; a second one ends at once, and the former save stays.

    The least that a recipe says (--plan tells what memory it takes, docs/train.md what else there is to say):

    \b
    name: parcels           # of the model
    start: nano             # a model that comes along, or a checkpoint folder
    stats: stats.json       # from `internvla-a1 stats`
    mixture: mixture.yaml   # which datasets, how much of each
    out: runs/parcels
    steps: 20000
    """
    from internvla_a1_ros.learning.running import read_recipe
    from internvla_a1_ros.learning.stages import read_stage

    stage = read_stage(config)
    if stage is not None:
        from internvla_a1_ros.cli.train_stage import train_stage

        asked = [name for name, given in (("--plan", plan), ("--layout", layout), ("--measure", measure)) if given]
        if asked:
            raise ConfigurationError(f"{config}: got {asked[0]} with a recipe of stage '{stage.stage}', expected it with a policy's")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigurationError(f"{config}: got {os.environ['WORLD_SIZE']} processes for stage '{stage.stage}', expected one")
        train_stage(stage)
        return
    recipe = read_recipe(config)
    if layout and not plan:
        raise ConfigurationError(f"--layout: got '{layout}' without --plan; a run takes its sizes from the recipe's start")
    if plan and measure:
        raise ConfigurationError(f"--plan: got --measure {measure} with it, expected one of the two")
    if plan:
        _plan(recipe, layout)
        return
    several = recipe.processes > 1 and "WORLD_SIZE" not in os.environ  # else who started this has said with whom
    words = ["train", str(config), *(["--measure", str(measure)] if measure else [])]
    share = recipe.threads or max(1, (os.cpu_count() or 1) // recipe.processes)
    with beside(words, recipe.processes, share) if several else nullcontext():
        complete = _taught(recipe, measure, share if several else recipe.threads)
    if not complete:
        raise typer.Exit(STOPPED)


def _taught(recipe: Recipe, measure: int, threads: int | None) -> bool:
    """Do the run, or measure it, as the process that the environment says this is. Returns whether nothing is left to do.

    `threads` None: as many as torch takes by itself, or the environment says.
    """
    import torch
    from rich.console import Console

    from internvla_a1_ros.cli.train_tables import tell_load
    from internvla_a1_ros.learning.checkpoints import at_work
    from internvla_a1_ros.learning.running import prepare, run
    from internvla_a1_ros.learning.team import Team

    team = Team.joined(os.environ, recipe.device, recipe.sharded)
    if threads is not None:  # after accelerate, which chooses its own
        torch.set_num_threads(threads)
    console = Console(stderr=True, quiet=not team.leads)
    mine = team.leads and not measure  # what is measured is kept nowhere
    with at_work(Path(recipe.out)) if mine else nullcontext(), Bars(console, recipe) as bars:
        with preparing():
            prepared = prepare(recipe, bars, team)
        if team.leads:
            tell_load(prepared, console)
        if measure:
            _measure(prepared, measure)
            return True
        bars.begin(prepared.resumed)
        with Interrupt() as interrupt:
            complete = run(prepared, bars, interrupt.asked)
    if not team.leads:
        return True
    trainer = prepared.trainer
    if trainer.undecoded:
        count = sum(count for count, _ in trainer.undecoded.values())
        print(f"left out on the way: {count} samples of {len(trainer.undecoded)} episodes that could not be decoded")
    print(f"{recipe.out}: step {trainer.step} of {recipe.steps}{'' if complete else ', stopped; the same command goes on'}")
    return complete


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
