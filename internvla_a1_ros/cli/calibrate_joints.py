"""`internvla-a1 calibrate grippers`, `joint-zeros`, `delays`: what is read from joints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from internvla_a1_ros.cli.calibrate_guide import (
    DEFAULT_FOLDER,
    DEFAULT_ROBOT,
    FolderOption,
    InstanceOption,
    RobotOption,
    Target,
    ask,
    console,
    listening,
    target,
)
from internvla_a1_ros.commissioning.calibration_file import Delays, Grippers, JointZeros
from internvla_a1_ros.commissioning.grippers import ends_of, gripper_readings
from internvla_a1_ros.commissioning.joint_zeros import MIN_REPEATS, in_reference, joint_zeros
from internvla_a1_ros.commissioning.motion import DEFAULT_AMPLITUDE_RAD, MAX_AMPLITUDE_RAD, WHOLE_S
from internvla_a1_ros.commissioning.resting import MIN_REST_S, resting
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.core.types import FloatArray

LogOption = Annotated[Path | None, typer.Option("--log", help="a CSV file with time_s and a column a joint, instead of live topics")]
# Of a joint at rest: noise and a hand's tremor, as a share of a gripper's way and in rad.
_GRIPPER_RESTS, _ARM_RESTS_RAD = 0.03, 0.01
_READ_S = MIN_REST_S + 0.2


def grippers(
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    log: LogOption = None,
    repeats: Annotated[int, typer.Option(min=1, max=10, help="how many times closed and open")] = 2,
) -> None:
    """What the grippers' motors read closed and open, both sides at once; by hand, or driven by the vendor's own tool."""
    goal = target(robot, instance, folder)
    names = [gripper.joint for gripper in goal.profile.grippers]
    if log is not None:
        readings = _resting(goal, names, *_log(goal, log))
        ends = [ends_of(readings[:, goal.profile.joint_names.index(g.joint)], g) for g in goal.profile.grippers]
    else:
        with listening(goal) as ear:
            shut, wide = [], []
            for turn in range(1, repeats + 1):
                shut.append(_read(goal, names, ear, f"{turn} of {repeats}: close {' and '.join(names)} fully, nothing between the fingers"))
                wide.append(_read(goal, names, ear, f"{turn} of {repeats}: open {' and '.join(names)} fully"))
        slots = [goal.profile.joint_names.index(name) for name in names]
        ends = [(np.array(shut)[:, slot], np.array(wide)[:, slot]) for slot in slots]
    found = {g.joint: gripper_readings(*each, g) for g, each in zip(goal.profile.grippers, ends, strict=True)}
    spreads = {f"{name}_spread": spread for name, (_, spread) in found.items()}
    method = f"median of {'a log' if log else 'guided'} readings at rest, closed and open"
    signed = goal.signed(method, min(len(each) for pair in ends for each in pair), spreads)
    goal.save(Grippers(**signed, readings={name: reading for name, (reading, _) in found.items()}))


def zeros(
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    log: LogOption = None,
    reference: Annotated[str, typer.Option(help="the reference pose, joint=rad separated by commas; all arm joints at 0 where empty")] = "",
    repeats: Annotated[int, typer.Option(min=MIN_REPEATS, max=20, help="how many times the arm is brought there")] = MIN_REPEATS,
) -> None:
    """How far the arm joints read beside the truth, in a pose whose angles are known: a jig, marks, a mechanical stop."""
    goal = target(robot, instance, folder)
    wanted = _reference(goal, reference)
    if log is not None:
        readings = in_reference(_resting(goal, list(wanted), *_log(goal, log)), wanted, goal.profile)
    else:
        with listening(goal) as ear:
            told = "bring the arms into the reference pose anew and let them rest"
            readings = np.array([_read(goal, list(wanted), ear, f"{turn} of {repeats}: {told}") for turn in range(1, repeats + 1)])
    offsets, spreads = joint_zeros(readings, wanted, goal.profile)
    rounded = {name: round(offset, 5) for name, offset in offsets.items()}
    signed = goal.signed("median of readings at rest in the reference pose", len(readings), {"spread_rad": max(spreads.values())})
    goal.save(JointZeros(**signed, offsets_rad=rounded))


def delays(
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    log: Annotated[list[Path] | None, typer.Option("--log", help="a file of --record instead of live topics; may be repeated")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="a camera that sees the motion; may be repeated; none: the arm alone")] = None,
    move: Annotated[
        list[str] | None, typer.Option(help="move this joint a little, through the armed command process; may be repeated")
    ] = None,
    amplitude_rad: Annotated[float, typer.Option(help=f"how far it moves, at most {MAX_AMPLITUDE_RAD:g}")] = DEFAULT_AMPLITUDE_RAD,
    seconds: Annotated[float, typer.Option(min=3.0, max=12.0, help="how long to record where something else moves the arm")] = 10.0,
    record: Annotated[str, typer.Option(help="keep what was recorded as this name with 1.npz, 2.npz, ... behind it")] = "",
) -> None:
    """How late the arm follows its commands, and how late each camera's stamps are, from one small motion or several."""
    from internvla_a1_ros.cli.calibrate_files import read_recording, write_recording
    from internvla_a1_ros.commissioning.delays import fit_delays

    goal = target(robot, instance, folder)
    cameras = tuple(goal.camera(name) for name in camera or ())
    recordings = [read_recording(path) for path in log] if log else _recorded(goal, cameras, move or [], amplitude_rad, seconds)
    for number, each in enumerate(recordings if record else [], start=1):
        write_recording(Path(f"{record}{number}.npz"), each)
    arm, seen = fit_delays(recordings, cameras)
    table = Table("what", "delay", "standard deviation", "explained", "samples")
    named = [(f"actuation, {r.joint_names[r.moving]}", found) for r, found in zip(recordings, arm, strict=True)]
    for what, found in [*named, *((f"camera {name}", found) for name, found in seen.items())]:
        table.add_row(what, f"{found.delay_s * 1e3:.1f} ms", f"{found.sigma_s * 1e3:.1f} ms", f"{found.explained:.0%}", str(found.samples))
    console.print(table)
    residuals = {"actuation_sigma_s": max(found.sigma_s for found in arm)}
    residuals |= {f"camera_{name}_sigma_s": found.sigma_s for name, found in seen.items()}
    method = "shift of least squares between commands and joint, and between joint and pictures"
    signed = goal.signed(method, sum(found.samples for found in arm), residuals)
    actuation_s = float(np.mean([found.delay_s for found in arm]))
    goal.save(Delays(**signed, actuation_s=round(actuation_s, 5), cameras_s={name: round(d.delay_s, 5) for name, d in seen.items()}))


def _recorded(goal: Target, cameras: tuple[str, ...], move: list[str], amplitude_rad: float, seconds: float) -> list[Any]:
    with listening(goal, cameras, commands=True) as ear:
        if not move:
            ask(f"let the arm be commanded, and move, for {seconds:g} s")
            return [ear.record(seconds)]
        recordings = []
        for joint in move:
            console.print(f"moving {joint} by {amplitude_rad:g} rad about where it is, for {WHOLE_S:.0f} s: keep clear", soft_wrap=True)
            recordings.append(ear.record(seconds, joint, amplitude_rad))
        return recordings


def _read(goal: Target, names: list[str], ear: Any, told: str) -> FloatArray:
    """Return what the joints [dof] read after a step that was told; it is told again where those of `names` do not rest."""
    while True:
        ask(told)
        readings = _resting(goal, names, *ear.joints(_READ_S))
        if len(readings):
            shown = [f"{name} {readings[-1][goal.profile.joint_names.index(name)]:.3f}" for name in names]
            console.print(f"read: {', '.join(shown)}", style="dim", soft_wrap=True)
            return np.asarray(readings[-1])
        console.print("something moved while it was read: hold it still", style="yellow")


def _resting(goal: Target, names: list[str], stamps_s: FloatArray, positions: FloatArray) -> FloatArray:
    """Return readings [k, dof] where the joints of `names` rest; what the others do does not matter."""
    ways = {gripper.joint: abs(gripper.open - gripper.closed) for gripper in goal.profile.grippers}
    rests = {name: _GRIPPER_RESTS * ways[name] if name in ways else _ARM_RESTS_RAD for name in names}
    return resting(stamps_s, positions, np.array([rests.get(name, np.inf) for name in goal.profile.joint_names]))


def _log(goal: Target, path: Path) -> tuple[FloatArray, FloatArray]:
    from internvla_a1_ros.cli.calibrate_files import read_joints

    return read_joints(path, goal.profile.joint_names)


def _reference(goal: Target, text: str) -> dict[str, float]:
    arms = [joint.name for joint in goal.profile.joints if joint.kind == "arm"]
    if not text:
        return dict.fromkeys(arms, 0.0)
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in arms:
            raise ConfigurationError(f"--reference: got joint '{name}'{suggestion(name, arms)}, expected any of {', '.join(arms)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigurationError(f"--reference: got '{part.strip()}', expected joint=rad such as {arms[0]}=0.5") from None
    return found
