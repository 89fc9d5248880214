"""What `internvla-a1 evaluate imagined` does: measure with progress, print the table, write the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.cli.progress import working
from internvla_a1_ros.evaluation.imagined import RATIOS, measure, summarise
from internvla_a1_ros.evaluation.rollouts import model_of
from internvla_a1_ros.robots.document import write_whole
from internvla_a1_ros.runtime.deployment import find_checkpoint


def run_imagined(dataset: Path, model: str, every: int, most: int, led: str, threads: int, out: Path | None, command: str) -> None:
    """Raises ConfigurationError, having written nothing."""
    torch.set_num_threads(threads)
    checkpoint = find_checkpoint(model)
    told = model_of(checkpoint)
    with working("moments") as work:
        measured = measure(dataset, checkpoint, every, most, work.at, led)
    figures = {**told, "dataset": str(dataset), "led": led, "command": command, **summarise(measured)}
    _show(figures)  # first: it took minutes, and the disk may be full
    if out is not None:
        write_whole(out, (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode(), parents=True)


def _show(figures: dict[str, Any]) -> None:
    console = Console(width=120)
    title = f"{figures['model']}: {figures['n']} moments of {figures['episodes']} episodes; root mean square of pixels 0 to 1"
    table = Table("view", "imagined", "copied", "autoencoder", *(f"{name}: ratio (95 %)" for name in RATIOS), title=title)
    for view, told in figures["views"].items():
        errors = [f"{told['errors'][name] ** 0.5:.4f}" for name in ("imagined", "copied", "reconstructed")]
        table.add_row(view, *errors, *(_ratio(told["ratios"][name]) for name in RATIOS))
    console.print(table)
    for sentence in figures["left_out"]:
        console.print(f"left out: {sentence}", highlight=False, markup=False, soft_wrap=True)
    if not figures["trained"]:
        console.print("The model is untrained: what it imagines means nothing.", style="yellow")


def _ratio(told: dict[str, Any]) -> str:
    if told["ratio"] is None:
        return "-"
    low, high = told["interval"]
    return f"{told['ratio']:.2f} ({low:.2f}-{high:.2f})"
