"""`internvla-a1 roofline`: the time below which no machine can go, from the sizes and published peak rates."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.evaluation.roofline import MACHINES, PRECISIONS, Cost, stage_costs
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.model.released import released_sizes
from internvla_a1_ros.runtime.deployment import find_checkpoint

ASSUMPTIONS = """\
Assumed: peak rates are reached; weights and activations cross memory once a call (in the flow once an evaluation), all but
products, convolutions and attentions being fused into them; nothing overlaps; launching costs nothing. Not needed for control:
decode, the imagined pictures."""
CONTROL = ("vision", "prefix", "encode", "generate", "flow")


def roofline(
    checkpoint: Annotated[str, typer.Argument(help="model folder, or the name of a model that comes along; else --size")] = "",
    size: Annotated[str, typer.Option(help="a released size, no checkpoint needed")] = "3b",
    precision: Annotated[str, typer.Option(help=", ".join(PRECISIONS))] = "bfloat16",
    evaluations: Annotated[int, typer.Option(help="evaluations of the flow's network a chunk")] = 10,
    cached_past: Annotated[bool, typer.Option(help="latents of past frames are kept, so half the frames are encoded")] = True,
) -> None:
    """Print what each stage of a chunk costs, and its floor on machines by their published peak rates."""
    if precision not in PRECISIONS:
        raise ConfigurationError(
            f"--precision: got '{precision}', expected one of {', '.join(PRECISIONS)}{suggestion(precision, list(PRECISIONS))}"
        )
    if evaluations < 1:
        raise ConfigurationError(f"--evaluations: got {evaluations}, expected at least 1")
    sizes = load_architecture(find_checkpoint(checkpoint)) if checkpoint else released_sizes(size)
    costs = stage_costs(sizes, evaluations, cached_past, precision)
    print_table(checkpoint or size, precision, evaluations, costs)


def print_table(what: str, precision: str, evaluations: int, costs: dict[str, Cost]) -> None:
    title = f"{what}, {precision}, {evaluations} evaluations of the flow: floor in ms"
    table = Table("stage", "GFLOP", "weights MB", "activations MB", *(machine.name for machine in MACHINES), title=title)
    whole = sum((costs[stage] for stage in CONTROL), Cost(0, 0, 0))
    floors = {
        m.name: {stage: 1e3 * cost.floor_s(m.flop_per_s(precision), m.bytes_per_s) for stage, cost in costs.items()} for m in MACHINES
    }
    for stage in (*CONTROL, "chunk", "decode"):
        cost = whole if stage == "chunk" else costs[stage]
        times = [sum(floors[m.name][s] for s in (CONTROL if stage == "chunk" else (stage,))) for m in MACHINES]
        numbers = (cost.flop / 1e9, cost.weight_bytes / 1e6, cost.activation_bytes / 1e6)
        table.add_row(stage, *(f"{number:,.0f}" for number in numbers), *(f"{time:.2f}" for time in times))
    console = Console(width=max(110, Console().width))
    console.print(table)
    console.print(ASSUMPTIONS, highlight=False, soft_wrap=True)
    for machine in MACHINES:
        half, byte, memory = machine.half_flop_per_s / 1e12, machine.byte_flop_per_s / 1e12, machine.bytes_per_s / 1e9
        console.print(
            f"{machine.name}: {half:g} / {byte:g} TFLOP/s in 16 / 8 bits, {memory:g} GB/s ({machine.source})",
            highlight=False,
            soft_wrap=True,
        )
