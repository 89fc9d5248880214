"""`internvla-a1 calibrate ...`: what is particular to one robot, measured step by step and written to `calibration/<instance>/`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated

import typer
from rich.table import Table

from internvla_a1_ros.cli.calibrate_cameras import board, intrinsics
from internvla_a1_ros.cli.calibrate_guide import DEFAULT_FOLDER, DEFAULT_ROBOT, FolderOption, InstanceOption, RobotOption, console, target
from internvla_a1_ros.cli.calibrate_joints import delays, grippers, zeros
from internvla_a1_ros.cli.calibrate_places import belt, hand_eye
from internvla_a1_ros.commissioning.calibration_file import MAX_AGE, load_calibration, present
from internvla_a1_ros.core.errors import ConfigurationError

calibrate = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Calibrate one robot.")


@calibrate.callback()
def _calibrate() -> None:
    """Measure what is particular to one robot, guided step by step; docs/calibrate.md says in which order.

    Bad data is refused with a sentence, a result is written whole or not at all, and the former file is kept under its date.
    """


calibrate.command()(board)
calibrate.command()(intrinsics)
calibrate.command("hand-eye")(hand_eye)
calibrate.command()(grippers)
calibrate.command("joint-zeros")(zeros)
calibrate.command()(delays)
calibrate.command()(belt)


@calibrate.command()
def show(
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    max_age_days: Annotated[float, typer.Option(min=0.0, help="what is older is stale")] = MAX_AGE / timedelta(days=1),
) -> None:
    """List a robot's calibrations: date, method, residuals; exits 1 where one is stale, of another robot or malformed."""
    goal, now, problems = target(robot, instance, folder), datetime.now(timezone.utc), 0
    table = Table("what", "age", "samples", "residuals", "method", title=f"{goal.instance} ({goal.folder / goal.instance})")
    kinds = present(goal.folder, goal.instance)
    if not kinds:
        console.print(f"{goal.folder / goal.instance}: nothing calibrated yet", soft_wrap=True)
        return
    for kind in kinds:
        try:
            found = load_calibration(goal.folder, goal.instance, kind, now, timedelta(days=max_age_days))
        except ConfigurationError as problem:
            problems += 1
            table.add_row(kind, f"[red]{problem}[/red]")
            continue
        residuals = ", ".join(f"{name} {value:g}" for name, value in found.residuals.items())
        table.add_row(kind, f"{(now - found.date) / timedelta(days=1):.1f} d", str(found.samples), residuals, found.method)
    console.print(table)
    raise typer.Exit(1 if problems else 0)
