"""Pictures, joint logs, hand poses and points from files, for calibrations without a robot at hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from internvla_a1_ros.commissioning.delays import Recording
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray, FloatArray
from internvla_a1_ros.robots.document import write_whole

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture [height, width, 3] RGB of a file, decoded when asked."""

    path: Path

    @property
    def rgb(self) -> ByteArray:
        import cv2

        found = cv2.imread(str(self.path), cv2.IMREAD_COLOR_RGB)
        if found is None:
            raise ConfigurationError(f"{self.path}: does not decode as a picture")
        return np.asarray(found, dtype=np.uint8)


def pictures_of(folder: Path) -> list[Picture]:
    """Return a folder's pictures in the order of their names. Raises ConfigurationError where there are none."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder, expected one with pictures ({', '.join(_PICTURES)})")
    found = [Picture(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURES]
    if not found:
        raise ConfigurationError(f"{folder}: got no pictures, expected some ({', '.join(_PICTURES)})")
    return found


def stamps_of(pictures: Sequence[Picture], rate_hz: float) -> FloatArray:
    """Return the pictures' times [n] in s: their names in nanoseconds, or evenly spaced by `rate_hz` where that is above 0."""
    if rate_hz > 0:
        return np.arange(len(pictures)) / rate_hz
    try:
        return np.array([int(picture.path.stem) for picture in pictures]) * 1e-9
    except ValueError:
        raise ConfigurationError(f"{pictures[0].path}: the name is no time in nanoseconds: name pictures so, or give --rate") from None


def read_table(path: Path, columns: Sequence[str]) -> dict[str, Any]:
    """Return columns by name of a CSV file with a header, as lists of words. Raises ConfigurationError for a missing column."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = list(reader)
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {problem.strerror}") from None
    missing = [name for name in columns if name not in names]
    if missing:
        raise ConfigurationError(f"{path}: got columns {names}, expected {', '.join(columns)}")
    return {name: [row[name] for row in rows] for name in names}


def numbers(path: Path, table: dict[str, Any], columns: Sequence[str]) -> FloatArray:
    """Return columns of a table as numbers [n, c]. Raises ConfigurationError naming the first that is none."""
    made = np.empty((len(table[columns[0]]), len(columns)))
    for c, name in enumerate(columns):
        for r, word in enumerate(table[name]):
            try:
                made[r, c] = float(word)
            except (TypeError, ValueError):
                made[r, c] = np.nan
            if not np.isfinite(made[r, c]):
                raise ConfigurationError(f"{path}, line {r + 2}: got '{word}' as {name}, expected a finite number")
    return made


def read_joints(path: Path, joint_names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return times [n] in s, rising, and positions [n, dof] of a CSV file with `time_s` and a column a joint."""
    table = read_table(path, ["time_s", *joint_names])
    found = numbers(path, table, ["time_s", *joint_names])
    order = np.argsort(found[:, 0], kind="stable")
    return found[order, 0], found[order, 1:]


def read_recording(path: Path) -> Recording:
    """Return a recording of `internvla-a1 calibrate delays --record`. Raises ConfigurationError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            cameras = [str(name) for name in found["cameras"]]
            pictures = {name: (found[f"camera_{name}_s"], found[f"camera_{name}"]) for name in cameras}
            names = tuple(str(name) for name in found["joint_names"])
            return Recording(names, found["command_s"], found["commands"], found["joint_s"], found["joints"], pictures)
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (KeyError, ValueError) as problem:
        raise ConfigurationError(f"{path}: is no recording of `internvla-a1 calibrate delays --record`: {problem}") from None


def write_recording(path: Path, recording: Recording) -> None:
    """Write a recording as one .npz file."""
    arrays: dict[str, Any] = {
        "joint_names": np.array(recording.joint_names),
        "command_s": recording.command_s,
        "commands": recording.commands,
        "joint_s": recording.joint_s,
        "joints": recording.joints,
        "cameras": np.array(list(recording.pictures), dtype=np.str_),
    }
    for name, (stamps, pictures) in recording.pictures.items():
        arrays[f"camera_{name}_s"], arrays[f"camera_{name}"] = stamps, pictures
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    write_whole(path, packed.getvalue())
