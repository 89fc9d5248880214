"""A robot profile with this unit's calibration in it. Pure: loads neither OpenCV nor ROS, so that the command process may use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from internvla_a1_ros.commissioning.calibration_file import (
    MAX_AGE,
    Calibration,
    Delays,
    Grippers,
    JointZeros,
    load_calibration,
    present,
)
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.robots.document import parse_document
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Affine

# What changes a profile; intrinsics, hand-eye and belt are read by whoever needs a place in space.
APPLIED = ("grippers", "joint_zeros", "delays")


def calibrated_profile(profile: RobotProfile, folder: Path, instance: str, now: datetime, max_age: timedelta = MAX_AGE) -> RobotProfile:
    """Return the profile with what lies in `folder` for this robot instance applied; unchanged where nothing lies there.

    Raises ConfigurationError in one sentence for a calibration of another robot, a stale one, or one that does not fit.
    """
    kinds = [kind for kind in present(folder, instance) if kind in APPLIED]
    return applied(profile, [load_calibration(folder, instance, kind, now, max_age) for kind in kinds])


def applied(profile: RobotProfile, calibrations: Iterable[Calibration]) -> RobotProfile:
    """Return the profile with calibrations applied and everything in it checked again; kinds that change no profile are passed over."""
    for calibration in calibrations:
        if calibration.profile != profile.name:
            raise ConfigurationError(
                f"calibration '{calibration.stem}' of '{calibration.robot}': got one made with the profile '{calibration.profile}', "
                f"expected '{profile.name}'"
            )
        if isinstance(calibration, Grippers):
            profile = with_grippers(profile, calibration)
        elif isinstance(calibration, JointZeros):
            profile = with_joint_zeros(profile, calibration)
        elif isinstance(calibration, Delays):
            profile = with_delays(profile, calibration)
    return profile


def with_grippers(profile: RobotProfile, calibration: Grippers) -> RobotProfile:
    """Return the profile whose gripper positions are its own closed and open ones where this unit's readings are closed and open.

    A command map that the profile gives itself stays: its ends are the command's own.
    """
    nominal = {gripper.joint: gripper for gripper in profile.grippers}
    _known(calibration, calibration.readings, list(nominal))
    bends = {}
    for name, found in calibration.readings.items():
        scale = (nominal[name].open - nominal[name].closed) / (found.open - found.closed)
        bends[name] = Affine(scale=scale, offset=nominal[name].closed - scale * found.closed)
    return _bent(profile, bends, calibration, commands=False)


def with_joint_zeros(profile: RobotProfile, calibration: JointZeros) -> RobotProfile:
    """Return the profile whose joint positions are the true ones; what is commanded is moved back by as much."""
    _known(calibration, calibration.offsets_rad, [joint.name for joint in profile.joints if joint.kind == "arm"])
    bends = {name: Affine(offset=-offset) for name, offset in calibration.offsets_rad.items()}
    return _bent(profile, bends, calibration, commands=True)


def with_delays(profile: RobotProfile, calibration: Delays) -> RobotProfile:
    """Return the profile with the measured delays of actuation and cameras; a camera that was not measured keeps its own."""
    _known(calibration, calibration.cameras_s, [camera.name for camera in profile.cameras])
    document = profile.model_dump()
    document["actuation_delay_s"] = calibration.actuation_s
    for camera in document["cameras"]:
        camera["delay_s"] = calibration.cameras_s.get(camera["name"], camera["delay_s"])
    return _checked(document, calibration)


def _bent(profile: RobotProfile, bends: Mapping[str, Affine], calibration: Calibration, *, commands: bool) -> RobotProfile:
    """Return the profile with `bends` taken after what measures a joint, and with `commands` undone before what commands it."""
    document = profile.model_dump()
    for joint, told in zip(profile.joints, document["joints"], strict=True):
        bend = bends.get(joint.name)
        if bend is None:
            continue
        told["measured"] = {"scale": bend.scale * joint.measured.scale, "offset": bend.scale * joint.measured.offset + bend.offset}
        if commands and isinstance(joint.commanded, Affine):
            back = bend.inverse
            told["commanded"] = {
                "scale": joint.commanded.scale * back.scale,
                "offset": joint.commanded.scale * back.offset + joint.commanded.offset,
            }
    return _checked(document, calibration)


def _known(calibration: Calibration, names: Mapping[str, object], known: list[str]) -> None:
    for name in names:
        if name not in known:
            near = suggestion(name, known) or f", expected any of {', '.join(known)}"
            raise ConfigurationError(f"calibration '{calibration.stem}' of '{calibration.robot}': got '{name}'{near}")


def _checked(document: dict[str, Any], calibration: Calibration) -> RobotProfile:
    where = f"profile '{document['name']}' with calibration '{calibration.stem}' of '{calibration.robot}'"
    return parse_document(document, RobotProfile, where)
