"""What all calibrations of the command line share: whose robot it is, how steps are told and answered, and the result written."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.commissioning.calibration_file import NAME_PATTERN, Calibration, save_calibration
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.robots.profile import RobotProfile, load_profile

RobotOption = Annotated[str, typer.Option("--robot", help="robot profile: its name or the path of a YAML file")]
InstanceOption = Annotated[str, typer.Option("--instance", help="this robot's own name; the profile's name where empty")]
FolderOption = Annotated[Path, typer.Option("--folder", help="where calibrations lie, a folder a robot instance")]
BoardOption = Annotated[str, typer.Option("--board", help="squares of the printed board, columns x rows")]
SquareOption = Annotated[float, typer.Option("--square-mm", help="a square's side as measured on paper")]

DEFAULT_ROBOT = "arx_ac_one"
DEFAULT_FOLDER = Path("calibration")
DEFAULT_BOARD, DEFAULT_SQUARE_MM = "9x6", 30.0
# Of a square, as on the board that `board` draws.
_MARKER = 22 / 30

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Target:
    """The robot that is calibrated, and where its calibrations lie."""

    profile: RobotProfile
    instance: str
    folder: Path

    def signed(self, method: str, samples: int, residuals: dict[str, float]) -> dict[str, Any]:
        """Return what every calibration document says beside its numbers, dated now."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        rounded = {name: round(value, 6) for name, value in residuals.items()}
        common = {"robot": self.instance, "profile": self.profile.name, "date": now, "method": method}
        return {**common, "samples": samples, "residuals": rounded}

    def save(self, calibration: Calibration) -> None:
        """Write the calibration and say what it holds, how good it is and where it lies."""
        table = Table("what", "value", title=f"{calibration.stem} of {calibration.robot}")
        for name, value in calibration.model_dump(mode="json", exclude={"robot", "profile", "residuals"}).items():
            table.add_row(name, str(value))
        for name, value in calibration.residuals.items():
            table.add_row(f"residual {name}", f"{value:g}")
        console.print(table)
        console.print(f"written: {save_calibration(self.folder, calibration)}", soft_wrap=True)

    def camera(self, name: str) -> str:
        """Return the camera's name. Raises ConfigurationError where the profile has no such camera."""
        known = [camera.name for camera in self.profile.cameras]
        if name not in known:
            raise ConfigurationError(f"unknown camera '{name}'{suggestion(name, known)} (known: {', '.join(known)})")
        return name


def target(robot: str, instance: str, folder: Path) -> Target:
    """Return the robot of the options. Raises ConfigurationError for an unknown one, or a name that is none of a folder."""
    profile = load_profile(robot)
    name = instance or profile.name
    if not re.match(NAME_PATTERN, name):
        raise ConfigurationError(f"--instance: got '{name}', expected letters, digits, _ and -: it names a folder")
    return Target(profile, name, folder)


def board_of(squares: str, square_mm: float) -> Any:
    """Return the board of the options. Raises ConfigurationError where it cannot be drawn."""
    from internvla_a1_ros.commissioning.charuco import Board
    from internvla_a1_ros.robots.document import parse_document

    columns, cross, rows = squares.lower().partition("x")
    if not (cross and columns.isdigit() and rows.isdigit()):
        raise ConfigurationError(f"--board: got '{squares}', expected columns x rows such as {DEFAULT_BOARD}")
    square_m = square_mm / 1e3
    document = {"columns": int(columns), "rows": int(rows), "square_m": square_m, "marker_m": _MARKER * square_m}
    return parse_document(document, Board, "--board, --square-mm")


def ask(text: str) -> str:
    """Tell what to do and wait for Enter; return what was typed. Raises ConfigurationError where nobody can answer."""
    console.print(f"[bold]{text}[/bold], then press Enter", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        raise ConfigurationError(f"nobody answers at '{text}': run this in a terminal, or give pictures or a log")
    return answer.strip()


@contextmanager
def listening(target: Target, cameras: tuple[str, ...] = (), *, commands: bool = False) -> Iterator[Any]:
    """Give an ear on the live topics. ROS is imported here: offline calibrations need none."""
    from internvla_a1_ros.nodes.calibration_ear import CalibrationEar

    ear = CalibrationEar(target.profile, target.instance, cameras, commands=commands)
    try:
        yield ear
    finally:
        ear.close()
