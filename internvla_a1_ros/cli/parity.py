"""`internvla-a1 parity DIR`: our model against a folder of reference numbers, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.comparison import MAX_ERROR, Limits, Numbers, Row
from internvla_a1_ros.evaluation.parity import ModelParity
from internvla_a1_ros.evaluation.parity_transforms import transform_rows


def parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a reference folder: a checkpoint or stats.json, with io.safetensors")],
    tolerance: Annotated[float, typer.Option(help="largest absolute error; a wider one widens the rest too")] = MAX_ERROR,
    engine: Annotated[str, typer.Option(help="the engine to compare")] = "reference",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, or a GPU such as cuda:0")] = "cpu",
) -> None:
    """Compare the model with reference numbers of the released code, stage by stage.

    Prints one line per quantity; exits 1 where one is beyond the tolerance (max 5e-5 and cosine 0.999999 in float32), 2 where
    the folder cannot be used.
    """
    if not tolerance > 0:
        raise ConfigurationError(f"--tolerance: got {tolerance}, expected a number above 0")
    if not folder.is_dir():
        raise ConfigurationError(f"'{folder}' is not a folder")
    limits = Limits.of(tolerance)
    if (folder / "config.json").is_file():
        run = ModelParity(folder, engine, precision, device, limits)
        rows, unseen = list(run.rows()), run.io.unasked("out.")
    else:
        io = Numbers(folder)
        rows, unseen = list(transform_rows(folder, io, limits)), io.unasked()
    if not rows:
        raise ConfigurationError(f"'{folder}': io.safetensors holds nothing to compare")
    show(folder, rows, limits)
    console = Console()
    if unseen:
        console.print(f"not compared: {', '.join(unseen)}", soft_wrap=True, highlight=False)
    failed = sum(not row.ok for row in rows)
    if failed:
        console.print(f"[red]{failed} of {len(rows)} beyond the tolerance[/red]")
        raise typer.Exit(1)
    console.print(f"all {len(rows)} within the tolerance")


def show(folder: Path, rows: Iterable[Row], limits: Limits) -> None:
    table = Table(title=f"{folder}: cosine at least {limits.min_cosine:.9g}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("stage", "quantity"):
        table.add_column(heading, overflow="fold")
    for heading in ("max error", "allowed", "1 - cosine", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        distance = "" if row.cosine is None else f"{max(0.0, 1 - row.cosine):.1e}"
        verdict = "ok" if row.ok else "[red]FAIL[/red]"
        name = row.name + (f": {row.trouble}" if row.trouble else "")
        table.add_row(row.stage, name, f"{row.error:.1e}", f"{row.allowed:.1e}", distance, verdict)
    Console(width=max(100, Console().width)).print(table)
