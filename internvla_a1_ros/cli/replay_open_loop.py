"""The open loop of `internvla-a1 replay` and `compare`: loads, runs with a progress bar, prints the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.cli.progress import STOPPED, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from internvla_a1_ros.evaluation.open_loop_run import Order
    from internvla_a1_ros.evaluation.open_loop_sources import Recording


def make_order(
    checkpoint: str,
    robot: str,
    *,
    engine: str,
    preset: str,
    seeds: int,
    stride: int | None,
    horizon: int,
    truth: str,
    instruction: str,
    threads: int | None,
    pictures: int,
) -> Order:
    """Return what is asked for. Raises ConfigurationError for an unknown checkpoint, robot or engine."""
    from internvla_a1_ros.engines import engine_and_precision
    from internvla_a1_ros.evaluation.open_loop_run import Order
    from internvla_a1_ros.robots.profile import load_usable_profile
    from internvla_a1_ros.runtime.deployment import find_checkpoint

    engine_and_precision(engine)
    folder, profile = find_checkpoint(checkpoint), load_usable_profile(robot)
    return Order(folder, profile, engine, preset, seeds, stride, horizon, truth, instruction, threads, pictures)


def run_order(order: Order, paths: Sequence[Path], out: Path | None, force: bool) -> tuple[Path, dict[str, Any]]:
    """Run one open loop and return its folder and metrics. Raises ConfigurationError in one sentence, having written nothing."""
    from internvla_a1_ros.evaluation.open_loop_folder import check_place, default_place, written
    from internvla_a1_ros.evaluation.open_loop_policy import SeededPolicy
    from internvla_a1_ros.evaluation.open_loop_run import Evaluation, open_recordings, read_units

    manifest, _ = read_units(order)
    recordings = open_recordings(paths, order, manifest)  # what cannot be read is said before a model of gigabytes is loaded
    if out is not None:
        check_place(out, force)
    predictor = SeededPolicy(
        order.checkpoint, order.profile, order.profile.name, engine=order.engine, preset=order.preset or None, threads=order.threads
    )
    evaluation = Evaluation(order, predictor, predictor.chunk)
    told = {**evaluation.what, "recordings": [each.name for each in recordings]}
    place = out or default_place({key: value for key, value in told.items() if key not in ("checkpoint", "versions")})
    with written(place, force) as folder:
        try:
            predictor.warm_up(order.instruction or manifest.instructions[0])
            with _progress(recordings) as heard:
                return place, evaluation.run(recordings, folder, heard)
        except KeyboardInterrupt:
            raise typer.Exit(STOPPED) from None


@contextmanager
def _progress(recordings: Sequence[Recording]) -> Iterator[Callable[[str, float], None]]:
    """How far it is in the seconds of all recordings."""
    begins, total = {}, 0.0
    for recording in recordings:
        begins[recording.name], total = total, total + recording.seconds
    with working("replay", total) as work:

        def heard(name: str, done_s: float) -> None:
            now = begins[name] + done_s
            if not 0 <= now - work.done < 0.2:
                work.at(now, what=name)

        yield heard


def show(place: Path, metrics: dict[str, Any]) -> None:
    """Print the errors by group, and where the rest is."""
    from internvla_a1_ros.evaluation.report_open_loop import shown

    console = Console(width=120)
    errors = metrics["errors"]["robot"]
    headings = ("", "MSE", "hold still", "last velocity", "MAE", "hold still", "last velocity")
    what = metrics["what"]
    table = Table(*headings, title=f"{what['model']} on {what['robot']}, {what['engine']}, {what['preset']}", title_justify="left")
    who = ("model", "hold_still", "last_velocity")
    for group in metrics["groups"]:
        cells = [errors[each]["groups"][group][metric] for metric in ("mse", "mae") for each in who]
        table.add_row(group, *(shown(cell) for cell in cells))
    console.print(table)
    count = metrics["count"]
    seeds = len(what["seeds"])
    console.print(
        f"{count['observations']} observations, {seeds} seed{'s' * (seeds > 1)}; {count['without_truth']} of {count['actions']} actions "
        "have no truth and are left out",
        highlight=False,
        soft_wrap=True,
    )
    for each in metrics["recordings"]:
        for note in filter(None, [each["trouble"], *each["losses"]]):
            console.print(f"{each['name']}: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if not what["trained"]:
        console.print("The model is untrained: its motions mean nothing.", style="yellow")
    if metrics["partial"]:
        console.print("Partial: interrupted, what was done until then is kept.", style="yellow")
    console.print(f"{place / 'report.html'}", highlight=False, soft_wrap=True)
