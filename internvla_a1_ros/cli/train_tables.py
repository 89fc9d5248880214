"""What `internvla-a1 train` prints before and beside training: the load table, the memory plan, and the rates of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from internvla_a1_ros.learning.measuring import Rates
    from internvla_a1_ros.learning.planning import Plan
    from internvla_a1_ros.learning.recipe import Recipe
    from internvla_a1_ros.learning.running import Prepared
    from internvla_a1_ros.model.sizes import Architecture

GIB = 2**30
GPUS_GB = (24, 48, 80)


def tell_load(prepared: Prepared, console: Console) -> None:
    """Say what is learned from: who holds which dataset, how often it is drawn, and which episodes were left out."""
    table = Table("worker", "dataset", "episodes", "frames", "of all", "left out", "asked", "drawn", box=None)
    everything = sum(prepared.assignment.frames)
    for worker, share in enumerate(prepared.assignment.shares):
        for i in share:
            material = prepared.materials[i]
            counts = (len(material.episodes), material.frames, f"{material.frames / everything:.1%}", len(material.left_out))
            weights = f"{prepared.asked[i]:.1%}", f"{prepared.weights[i]:.1%}"
            table.add_row(str(worker), material.dataset.folder.name, *map(str, counts), *weights)
        frames = prepared.assignment.frames[worker]
        table.add_row(str(worker), "[bold]together[/bold]", "", str(frames), f"{frames / everything:.1%}", end_section=True)
    console.print(table)
    furthest = max(abs(drawn - asked) for drawn, asked in zip(prepared.weights, prepared.asked, strict=True))
    fullest = f"fullest worker against the mean: {prepared.assignment.imbalance:.2f}"
    console.print(f"{fullest}; drawn against asked: {furthest:.1%} apart at most")
    left_out = [f"left out: {sentence}" for material in prepared.materials for sentence in material.left_out]
    for sentence in (*left_out, *prepared.remarks):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    moving = sum(weight.numel() for weight in prepared.trainer.weights.values())
    whole = sum(weight.numel() for weight in prepared.trainer.model.parameters())
    where = f"{prepared.trainer.team.size} process(es) on {prepared.trainer.team.device}"
    console.print(f"{moving / 1e6:.2f} M of {whole / 1e6:.2f} M weights move, {where}; `--plan` says what memory it takes", soft_wrap=True)
    if prepared.resumed:
        console.print(f"going on from step {prepared.resumed}")


def tell_plan(recipe: Recipe, sizes: Architecture, what: str, console: Console) -> None:
    """Print what a step takes in either precision, with and without gradient checkpointing."""
    title = f"{what}: GiB for {recipe.batch} samples at once, freeze {recipe.freeze}"
    columns = ("", "weights", "gradients", "moments", "mean", "activations", "together", *(f"{size} GB" for size in GPUS_GB))
    table = Table(*columns, title=title, title_justify="left", box=None)
    with console.status("going through steps without contents"):
        for name, plan in plans(recipe, sizes):
            parts = (plan.weights, plan.gradients, plan.moments, plan.mean, plan.activations, plan.total)
            gpus = (plan.gpus(size * 1e9) for size in GPUS_GB)
            table.add_row(name, *(f"{part / GIB:.2f}" for part in parts), *("too small" if n is None else str(n) for n in gpus))
    Console(width=max(130, console.width)).print(table)
    print("Last: how many GPUs of that size, each with so many samples; more than one hold the model in shards (`sharded: true`).")


def plans(recipe: Recipe, sizes: Architecture) -> Iterator[tuple[str, Plan]]:
    from internvla_a1_ros.learning.planning import plan

    for precision in ("float32", "bf16"):
        for checkpointing in (False, True):
            chosen = (recipe.precision, recipe.gradient_checkpointing) == (precision, checkpointing)
            name = f"{precision}{', checkpointing' if checkpointing else ''}{' (the recipe)' if chosen else ''}"
            yield name, plan(sizes, recipe.model_copy(update={"precision": precision, "gradient_checkpointing": checkpointing}))


def tell_rates(rates: Rates, recipe: Recipe, console: Console) -> dict[str, Any]:
    """Print samples a second of each, and which keeps up with the step."""
    table = Table("samples a second", "", "keeps up", box=None)
    found = {"decoded and encoded by one thread": rates.decoded, "from the cache": rates.cached}
    for name, rate in found.items():
        row = ("no cache in the recipe", "") if rate is None else (f"{rate:.3g}", f"{rate / rates.step:.1f} x the step")
        table.add_row(name, *row)
    table.add_row(f"taken by a step of {recipe.samples_a_step}, samples aside", f"{rates.step:.3g}", "")
    console.print(table)
    return {"decoded_hz": round(rates.decoded, 2), "cached_hz": rates.cached and round(rates.cached, 2), "step_hz": round(rates.step, 2)}
