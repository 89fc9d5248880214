"""What a calibration leaves behind: one YAML document a kind and robot instance, read with an age limit, written whole or not at all."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import AwareDatetime, Field, field_validator, model_validator

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.document import Document, read_document, write_whole
from internvla_a1_ros.robots.wires import NonEmpty, NotNegative, Positive

# Instances and cameras become names of folders and files.
NAME_PATTERN = r"^\w[\w-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Delay = Annotated[float, Field(ge=0, le=0.5)]

MAX_AGE = timedelta(days=180)
# Two machines' clocks may differ a little; more is a wrong clock, and then no age means anything.
_AHEAD = timedelta(minutes=10)


class Calibration(Document):
    """Whose it is, when and how it was measured, and how well: `residuals` carry their unit in their name."""

    robot: Name
    profile: NonEmpty
    date: AwareDatetime
    method: NonEmpty
    samples: Annotated[int, Field(ge=1)]
    residuals: dict[str, NotNegative]

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return next(kind for kind, found in KINDS.items() if isinstance(self, found))


class OfCamera(Calibration):
    """A calibration of one camera; each camera has a file of its own."""

    camera: Name

    @property
    def stem(self) -> str:
        return f"{super().stem}_{self.camera}"


class Intrinsics(OfCamera):
    """A pinhole camera with the distortion k1 k2 p1 p2 k3 of OpenCV (ROS: plumb_bob), for pictures of `width` x `height` px."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    fx_px: Positive
    fy_px: Positive
    cx_px: float
    cy_px: float
    distortion: tuple[float, float, float, float, float]

    @property
    def matrix(self) -> FloatArray:
        """The camera matrix [3, 3]."""
        return np.array([[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]])


class HandEye(OfCamera):
    """Where a camera (its optical frame) is: in the frame `parent`, an arm's hand or its base."""

    parent: NonEmpty
    position_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]

    @field_validator("quaternion_xyzw")
    @classmethod
    def _is_a_rotation(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if abs(float(np.linalg.norm(value)) - 1.0) > 1e-3:
            raise ValueError(f"got {list(value)} of length {np.linalg.norm(value):.4f}, expected a quaternion of length 1")
        return value


class GripperReadings(Document):
    """What one gripper's motor reads at its two ends."""

    closed: float
    open: float

    @model_validator(mode="after")
    def _ends_differ(self) -> GripperReadings:
        if self.closed == self.open:
            raise ValueError(f"got {self.closed:g} closed and open, expected two readings")
        return self


class Grippers(Calibration):
    """Readings by gripper joint."""

    readings: Annotated[dict[str, GripperReadings], Field(min_length=1)]


class JointZeros(Calibration):
    """What each arm joint reads where it truly is at zero."""

    offsets_rad: Annotated[dict[str, float], Field(min_length=1)]


class Delays(Calibration):
    """From a command to the motion, and from light to a picture's stamp for each camera."""

    actuation_s: Delay
    cameras_s: dict[str, Delay] = {}


class Belt(OfCamera):
    """How fast and where to a belt runs; the heading is from the plane's x axis towards its y axis."""

    speed_m_s: Positive
    heading_rad: Annotated[float, Field(ge=-3.1416, le=3.1416)]


KINDS: dict[str, type[Calibration]] = {
    "intrinsics": Intrinsics,
    "hand_eye": HandEye,
    "grippers": Grippers,
    "joint_zeros": JointZeros,
    "delays": Delays,
    "belt": Belt,
}


def load_calibration(folder: Path, instance: str, kind: str, now: datetime, max_age: timedelta = MAX_AGE) -> Calibration:
    """Return the calibration `kind` (a file's stem: `grippers`, `intrinsics_head`) of one robot instance.

    Raises ConfigurationError where there is none or it is malformed, of another robot or camera, older than `max_age`, or from
    the future.
    """
    path = folder / instance / f"{kind}.yaml"
    found = read_document(path, _document_of(kind))
    if found.robot != instance:
        raise ConfigurationError(f"{path}: got a calibration of robot '{found.robot}', expected one of '{instance}': calibrate this robot")
    if found.stem != kind:
        raise ConfigurationError(f"{path}: got the calibration '{found.stem}', expected '{kind}'")
    age = now - found.date
    if age > max_age:
        verb = kind.removesuffix(f"_{getattr(found, 'camera', '')}").replace("_", "-")
        raise ConfigurationError(
            f"{path}: got a calibration of {found.date:%Y-%m-%d}, {age / timedelta(days=1):.1f} days old, allowed "
            f"{max_age / timedelta(days=1):g}: repeat `internvla-a1 calibrate {verb}`"
        )
    if age < -_AHEAD:
        raise ConfigurationError(f"{path}: got a calibration of {found.date:%Y-%m-%d %H:%M} UTC, which is in the future: set this clock")
    return found


def present(folder: Path, instance: str) -> list[str]:
    """Return the kinds there are for a robot instance; former files, which carry a date in their name, are left out."""
    return sorted(path.stem for path in (folder / instance).glob("*.yaml") if "." not in path.stem)


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write a calibration to its place and return it; the former file is kept beside it under its own date.

    At every instant there is a whole file at the place, the former or the new one, if there was one before. Raises
    ConfigurationError where it cannot be written.
    """
    path = folder / calibration.robot / f"{calibration.stem}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigurationError(f"{path.parent}: cannot be made: {problem.strerror}") from None
    if path.exists():
        write_whole(_place_of_former(path), path.read_bytes())
    text = yaml.safe_dump(calibration.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
    write_whole(path, text.encode())
    return path


def _document_of(kind: str) -> type[Calibration]:
    for name, found in KINDS.items():
        if kind == name and not issubclass(found, OfCamera):
            return found
        if kind.startswith(f"{name}_") and issubclass(found, OfCamera):
            return found
    known = [f"{name}_CAMERA" if issubclass(found, OfCamera) else name for name, found in KINDS.items()]
    raise ConfigurationError(f"unknown calibration '{kind}'{suggestion(kind, known)} (known: {', '.join(known)})")


def _place_of_former(path: Path) -> Path:
    """Return a free name with the date in the file, or of the file where it cannot be read."""
    date = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    with contextlib.suppress(ConfigurationError):
        date = read_document(path, _document_of(path.stem)).date.astimezone(timezone.utc)
    name = f"{path.stem}.{date:%Y-%m-%dT%H-%M-%SZ}"
    places = (path.with_name(f"{name}{more}.yaml") for more in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(place for place in places if not place.exists())
