"""The pictures of a rollout: made for the policy as demonstrations were recorded, and kept as a film with captions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from internvla_a1_ros.bags.datasets.encoding import ClipEncoder
from internvla_a1_ros.core.types import ByteArray, Frame, Mode
from internvla_a1_ros.evaluation.rollout import CAMERA_HZ
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.recording import Plan, picture
from internvla_a1_ros.simulation.trial import Trial

SIZE: tuple[int, int] = Plan.model_fields["size"].default
SUPERSAMPLE: int = Plan.model_fields["supersample"].default
LAST_S = 20.0
_EVERY = 2  # of the pictures is in the film
_LARGER = 2
_BAR = 40


def taken(cell: Cell, cameras: Sequence[str], stamp_ns: int) -> list[Frame]:
    """Return what the cameras see now."""
    return [Frame(name, stamp_ns, stamp_ns, picture(cell, name, SIZE, SUPERSAMPLE)) for name in cameras]


def unseen(cameras: Sequence[str], stamp_ns: int) -> list[Frame]:
    """Return frames for who does not look at them."""
    nothing = np.zeros((1, 1, 3), np.uint8)
    return [Frame(name, stamp_ns, stamp_ns, nothing) for name in cameras]


class Film:
    """Keeps the last seconds of a rollout, to be written if they are worth it."""

    def __init__(self) -> None:
        self._kept: deque[tuple[list[Frame], str]] = deque(maxlen=round(LAST_S * CAMERA_HZ / _EVERY))
        self._seen = 0

    def see(self, trial: Trial, mode: Mode, frames: list[Frame]) -> None:
        """Take in one moment."""
        if self._seen % _EVERY == 0:
            self._kept.append((frames, f"{trial.cell.time_s:5.1f} s  {mode.value}  {trial.instruction}"))
        self._seen += 1

    def write(self, path: Path, title: str) -> None:
        """Write what was kept as `path` (mp4, h264), the views side by side under what was told."""
        part = path.with_suffix(".part")
        width, height = SIZE[0] * _LARGER * len(self._kept[0][0]), SIZE[1] * _LARGER + _BAR
        encoder = ClipEncoder(part, Fraction(CAMERA_HZ, _EVERY), "h264", (height, width))
        try:
            for frames, caption in self._kept:
                encoder.add(_shown([frame.rgb for frame in frames], (title, caption)))
        except BaseException:
            encoder.abandon()
            raise
        encoder.close()
        part.replace(path)


def _shown(views: Sequence[ByteArray], texts: Sequence[str]) -> ByteArray:
    row = cv2.resize(np.concatenate(views, 1), None, fx=_LARGER, fy=_LARGER, interpolation=cv2.INTER_LINEAR)
    bar = np.zeros((_BAR, row.shape[1], 3), np.uint8)
    for i, text in enumerate(texts):
        cv2.putText(bar, text, (6, 15 + 18 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    whole: ByteArray = np.concatenate([bar, row])
    return whole
