"""What `internvla-a1 evaluate rollouts` does: measure a cycle, run the trials with progress, write the folder, print the table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from internvla_a1_ros.cli.progress import Progress
from internvla_a1_ros.evaluation.open_loop_folder import REPORT_FILE, check_place, written
from internvla_a1_ros.evaluation.report_rollouts import GROUPS, by_word, percent, share
from internvla_a1_ros.evaluation.rollout_rig import Order, Rig
from internvla_a1_ros.evaluation.rollout_trials import seeds
from internvla_a1_ros.evaluation.rollouts import Rollouts, Series, model_of
from internvla_a1_ros.robots.profile import load_usable_profile


def run_rollouts(order: Order, series: Series, workers: int, out: Path | None, force: bool, *, measure: bool, command: str) -> bool:
    """Run them and print what came of it; return whether all were run.

    Raises ConfigurationError, having written nothing unless rollouts were done before: those are kept, as of an interrupted run.
    """
    model = model_of(order.checkpoint)
    place = place_of(order, series, str(model["model"]), out, force)
    console = Console(stderr=True)
    if measure:
        with console.status("measuring a cycle"):
            order = replace(order, compute_ms=_measured_ms(order, series))
        again = f"with --compute {order.compute_ms:g} this run comes out the same again on this machine"
        console.print(f"a cycle takes {order.compute_ms:g} ms here; {again}")
    told = {**model, "command": command}
    return kept(order, series, place, force, told, lambda rollouts: _run(rollouts, workers))


def kept(order: Order, series: Series, place: Path, force: bool, told: dict[str, Any], run: Callable[[Rollouts], None]) -> bool:
    """Let `run` do the rollouts, write what there is of them whatever ends it, and print it; return whether it came to its end.

    Raises what `run` raises, KeyboardInterrupt only where nothing was done yet; an empty result is not written.
    """
    problem: Exception | None = None
    interrupted = True
    with written(place, force) as folder:
        rollouts = Rollouts(order, series, folder)
        try:
            run(rollouts)
            interrupted = False
        except KeyboardInterrupt:
            if not rollouts.rows:
                raise
        except Exception as found:
            if not rollouts.rows:
                raise
            problem = found
        metrics = rollouts.metrics(told, interrupted)
        show(metrics)  # before a full disk can lose it
        rollouts.write(metrics)
    Console(width=120).print(f"{place / REPORT_FILE}", highlight=False, soft_wrap=True)
    if problem is not None:
        raise problem
    return not interrupted


def _measured_ms(order: Order, series: Series) -> float:
    """Up to whole ticks of the command process, which is when a chunk is taken."""
    rig = Rig(order)
    tick_ms = load_usable_profile(order.robot).dt_ns * 1e-6
    try:
        return math.ceil(rig.compute_ms(seeds(series.seed, 1)[0]) / tick_ms) * tick_ms
    finally:
        rig.close()


def _run(rollouts: Rollouts, workers: int) -> None:
    with Progress(kept=True) as progress:
        work = progress.work("rollouts", len(rollouts.series.jobs))
        rollouts.run(workers, lambda _: work.advance(what=succeeded(rollouts)))


def succeeded(rollouts: Rollouts) -> str:
    return f"{sum(row['succeeded'] for row in rollouts.rows)} of {len(rollouts.rows)} succeeded"


def place_of(order: Order, series: Series, model: str, out: Path | None, force: bool) -> Path:
    """Return where the result goes: by default a place that depends on what was asked and on nothing else."""
    told = {**asdict(order), "checkpoint": str(order.checkpoint), **asdict(series)}
    mark = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    place = out or Path("runs") / f"rollouts-{order.task}-{model}-{mark}"
    check_place(place, force)
    return place


def show(metrics: dict[str, Any]) -> None:
    """Print the table."""
    console = Console(width=120)
    what = metrics["what"]
    title = f"{what['model']}: {what['task']}, seed {what['seed']}"
    table = Table("", "", "n", "success (95 %)", "grasped (95 %)", "failures", "holds", "limited", title=title)
    _add(table, "all", "", metrics)
    for name, title in GROUPS.items():
        groups = metrics["by"][name]
        for key, told in groups.items() if len(groups) > 1 else ():
            _add(table, title, key, told)
    console.print(table)
    if not what["trained"]:
        console.print("The model is untrained: its motions mean nothing.", style="yellow")
    if metrics["partial"]:
        console.print(f"Interrupted after {metrics['n']} rollouts.", style="yellow")


def _add(table: Table, title: str, key: str, told: dict[str, Any]) -> None:
    shares, holds = (percent(told, what) for what in ("success", "grasp")), str(sum(told["holds"].values()))
    table.add_row(title, key, str(told["n"]), *shares, by_word(told["failures"]), holds, share(told["limited"]))
