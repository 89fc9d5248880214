"""`internvla-a1 doctor`: look at everything before anything moves."""

from __future__ import annotations

import json as json_format
import os
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from internvla_a1_ros.cli.progress import working
from internvla_a1_ros.core.errors import ConfigurationError

if TYPE_CHECKING:
    from internvla_a1_ros.commissioning.doctor import Model
    from internvla_a1_ros.commissioning.doctor_cell import Wire
    from internvla_a1_ros.commissioning.doctor_facts import Facts
    from internvla_a1_ros.commissioning.doctor_findings import Finding
    from internvla_a1_ros.robots.profile import RobotProfile

_COLOURS = {"stop": "bold red", "warning": "yellow", "ok": "green"}


def doctor(
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    cell: Annotated[str, typer.Option(help="look at all robots of this cell, and at its wires, instead of one robot")] = "",
    checkpoint: Annotated[str, typer.Option(help="model folder, or the name of a model that comes along")] = "nano",
    calibration: Annotated[Path | None, typer.Option(help="folder of the robots' calibrations, as the nodes are given it")] = None,
    namespace: Annotated[str, typer.Option(help="where policy and command node of the robot lie")] = "",
    seconds: Annotated[float, typer.Option(help="how long to listen, or how much of the bag to read", min=1.0, max=3600.0)] = 5.0,
    bag: Annotated[Path | None, typer.Option(help="look into this bag (rosbag2, MCAP or SQLite) instead; needs no ROS")] = None,
    record_folder: Annotated[Path, typer.Option(help="where recordings will go, for the room on that disk")] = Path(),
    json: Annotated[bool, typer.Option("--json", help="print the findings as JSON instead of a table")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="exit 1 with a warning too")] = False,
) -> None:
    """Look at topics, pictures, joints, grippers, clocks, this host and our nodes, and say of each: ok, warning or stop, and what to do.

    Nothing is ever published. Exits 0 without a stop, 1 with one (with --strict: with a warning too), 2 where it cannot look at all.
    """
    from internvla_a1_ros.commissioning.doctor import examine
    from internvla_a1_ros.commissioning.doctor_findings import Level, ordered, to_json, worst

    patients = _of_cell(cell, checkpoint, calibration) if cell else [_patient(robot, checkpoint, calibration, namespace)]
    findings: list[Finding] = []
    for patient in patients:
        facts = patient.look_live(seconds, record_folder) if bag is None else patient.look_into(bag, seconds)
        of_one = examine(facts, patient.profile, patient.model, patient.wires)
        findings += [replace(each, subject=f"{patient.instance}: {each.subject}") for each in of_one] if len(patients) > 1 else of_one
    findings = ordered(findings)
    name = cell or patients[0].profile.name
    if json:
        print(json_format.dumps(to_json(findings, of=name, source="live" if bag is None else "bag", seconds=seconds), indent=1))
    else:
        show_findings(findings, f"{name}, {'live' if bag is None else bag}")
    bad = (Level.STOP, Level.WARNING) if strict else (Level.STOP,)
    raise typer.Exit(int(worst(findings) in bad))


def _patient(robot: str, checkpoint: str, calibration: Path | None, namespace: str, instance: str = "") -> Patient:
    from internvla_a1_ros.commissioning.application import calibrated_profile
    from internvla_a1_ros.commissioning.doctor import read_model
    from internvla_a1_ros.robots.profile import load_profile
    from internvla_a1_ros.runtime.deployment import find_checkpoint

    profile = load_profile(robot)
    if calibration is not None:
        profile = calibrated_profile(profile, calibration.expanduser(), instance or profile.name, datetime.now(timezone.utc))
    return Patient(profile, read_model(find_checkpoint(checkpoint)), namespace, instance)


def _of_cell(name: str, checkpoint: str, calibration: Path | None) -> list[Patient]:
    """Every robot of a cell, its topics where the cell has them; the first is looked at with the cell's own wires."""
    from internvla_a1_ros.commissioning.doctor_cell import moved, wires
    from internvla_a1_ros.runtime.cell import load_cell

    cell = load_cell(name)
    found: list[Patient] = []
    for robot in cell.robots:
        patient = _patient(robot.profile, robot.checkpoint or checkpoint, calibration, robot.namespace, robot.instance)
        its_wires = () if found else tuple(wires(cell))
        found.append(replace(patient, profile=moved(robot, patient.profile), wires=its_wires))
    return found


@dataclass(frozen=True, slots=True)
class Patient:
    """One robot to be looked at; `instance` is its own name in a cell of several."""

    profile: RobotProfile
    model: Model
    namespace: str
    instance: str = ""
    wires: tuple[Wire, ...] = ()

    def look_live(self, seconds: float, record_folder: Path) -> Facts:
        """Listen for `seconds`. Raises ConfigurationError where there is no ROS."""
        from internvla_a1_ros.commissioning.doctor_host import HostWatch

        try:
            from internvla_a1_ros.nodes.doctor_ear import DoctorEar
        except ImportError as problem:
            raise ConfigurationError(f"doctor: {problem}: source ROS 2 and this workspace, or look into a bag with --bag") from None
        watch = HostWatch()
        ear = DoctorEar(self.profile, os.environ, self.namespace, self.instance, [wire.topic for wire in self.wires])
        try:
            with working("listening", 1.0) as work:
                facts = ear.listen(seconds, work.at)
        finally:
            ear.close()
        return replace(facts, machine=watch.seen(record_folder))

    def look_into(self, bag: Path, seconds: float) -> Facts:
        """Read the first `seconds` of a bag. Raises ConfigurationError where it cannot be read."""
        from internvla_a1_ros.commissioning.doctor_bag import read_bag
        from internvla_a1_ros.runtime.wire_joints import joint_values
        from internvla_a1_ros.runtime.wire_pictures import picture_decoder

        with working(f"reading {bag}"):
            return read_bag(bag, self.profile, picture_decoder, joint_values, seconds)


def show_findings(findings: list[Finding], title: str) -> None:
    """Print the table: subject by subject, the worst first; what is ok of one subject in one row."""
    console = Console()
    table = Table(Column(""), Column("what"), Column("seen, and what to do", overflow="fold"), box=box.SIMPLE_HEAD, title=escape(title))
    for subject in dict.fromkeys(finding.subject for finding in findings):
        mine = [finding for finding in findings if finding.subject == subject]
        for finding in mine:
            if finding.remedy:
                text = f"{escape(finding.what)}\n[bold]->[/] {escape(finding.remedy)}"
                table.add_row(f"[{_COLOURS[finding.level.value]}]{finding.level.value}[/]", escape(subject), text)
        good = "; ".join(finding.what for finding in mine if not finding.remedy)
        if good:
            table.add_row(f"[{_COLOURS['ok']}]ok[/]", escape(subject), escape(good))
    console.print(table)
    counts = {level: sum(finding.level.value == level for finding in findings) for level in _COLOURS}
    console.print(", ".join(f"{n} {level}" for level, n in counts.items()), highlight=False)
