"""`internvla-a1 stats`: stats.json of LeRobot datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from internvla_a1_ros.cli.progress import working
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

MODES = ("delta", "abs")


def stats(
    datasets: Annotated[list[Path], typer.Argument(help="folders of LeRobot datasets")],
    output: Annotated[Path, typer.Option("--output", "-o", help="where the file goes")] = Path("stats.json"),
    mode: Annotated[str, typer.Option(help="the checkpoint's actions: delta (minus the state at the observation) or abs")] = "delta",
    chunk: Annotated[int, typer.Option(help="actions in a chunk; episodes shorter than it are left out, as released", min=1)] = 50,
    by_step: Annotated[
        bool, typer.Option("--by-step", help="mean and spread of each step of a chunk besides, for `normalisation: mean_std_by_step`")
    ] = False,
) -> None:
    """Compute what a checkpoint normalises by: min, max, mean, std and count of every key, by robot type, in one pass.

    Exits 1 where an episode could not be read; the file then holds the others.
    """
    from internvla_a1_ros.bags.dataset_statistics import count
    from internvla_a1_ros.bags.datasets import Dataset
    from internvla_a1_ros.robots.document import write_whole

    if mode not in MODES:
        raise ConfigurationError(f"--mode: got '{mode}', expected one of {', '.join(MODES)}{suggestion(mode, list(MODES))}")
    opened = [Dataset.open(folder) for folder in datasets]
    with working("episodes", sum(len(dataset.episodes) for dataset in opened)) as work:
        found = count(opened, "delta" if mode == "delta" else "abs", chunk, work.advance, by_step=by_step)
    write_whole(output, (json.dumps(found.as_table(), indent=1) + "\n").encode())
    for sentence in found.unusable:
        print(f"left out: {sentence}")
    if found.short:
        print(f"left out: {found.short} episodes shorter than {chunk} steps")
    print(f"{output}: {', '.join(found.table)}: {found.episodes} episodes, actions {mode}, chunks of {chunk}")
    raise typer.Exit(int(bool(found.unusable)))
