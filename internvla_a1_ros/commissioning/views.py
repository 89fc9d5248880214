"""Which views of the board a camera's calibration still needs: covered parts of the picture, tilts, and views that bring nothing new."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from internvla_a1_ros.commissioning.charuco import Board, Sighting, pose_of_board
from internvla_a1_ros.core.types import ACCEPTED, FloatArray, Verdict, refused

GRID = (4, 6)
MIN_VIEWS = 12
MIN_COVERED = 0.8
# A focal length shows only in perspective: without tilted views it is not seen, however many views there are.
MIN_TILT_RAD = np.radians(20.0)
MIN_TILTED = 4
_MOVED = 0.04
_TURNED_RAD = np.radians(8.0)


class Views:
    """Gathers sightings of one camera and says what is missing."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.taken: list[Sighting] = []
        self._normals: list[FloatArray] = []
        self.corners_in: npt.NDArray[np.int64] = np.zeros(GRID, dtype=np.int64)

    @property
    def covered(self) -> float:
        """The share of the picture's cells in which a corner was seen."""
        return float((self.corners_in > 0).mean())

    @property
    def tilted(self) -> int:
        """How many views see the board tilted enough."""
        return sum(1 for normal in self._normals if abs(normal[2]) < np.cos(MIN_TILT_RAD))

    @property
    def enough(self) -> bool:
        return bool(self.verdict())

    def offer(self, sighting: Sighting) -> Verdict:
        """Take a sighting, unless it is of another picture size or shows what was seen already."""
        if self.taken and sighting.size != self.taken[0].size:
            got, expected = ("x".join(map(str, size)) for size in (sighting.size, self.taken[0].size))
            return refused("size", f"got a picture of {got}, expected {expected} as before: keep the camera's resolution")
        normal = self._normal(sighting)
        if any(self._alike(sighting, normal, i) for i in range(len(self.taken))):
            return refused("same_view", f"seen already: {self.advice()}")
        self.taken.append(sighting)
        self._normals.append(normal)
        np.add.at(self.corners_in, self._cells(sighting), 1)
        return ACCEPTED

    def verdict(self) -> Verdict:
        """Return whether the views suffice."""
        if len(self.taken) < MIN_VIEWS:
            return refused("few_views", f"got {len(self.taken)} different views of the board, expected at least {MIN_VIEWS}")
        if self.covered < MIN_COVERED:
            return refused("coverage", f"got corners in {self.covered:.0%} of the picture, expected {MIN_COVERED:.0%}: {self.advice()}")
        if self.tilted < MIN_TILTED:
            return refused(
                "tilt", f"got {self.tilted} views tilted by {np.degrees(MIN_TILT_RAD):.0f} degrees or more, expected {MIN_TILTED}"
            )
        return ACCEPTED

    def advice(self) -> str:
        """Return what to do next with the board."""
        if self.covered < MIN_COVERED:
            empty = np.argwhere(self.corners_in == 0)
            row, column = empty[np.argmax(np.abs(empty - (np.array(GRID) - 1) / 2).sum(axis=1))]
            return f"bring the board to the {_part(row, GRID[0], 'top', 'bottom')} {_part(column, GRID[1], 'left', 'right')} of the picture"
        if self.tilted < MIN_TILTED:
            return f"tilt the board by {np.degrees(MIN_TILT_RAD):.0f} to 45 degrees, another way each time"
        if len(self.taken) < MIN_VIEWS:
            return "move and tilt the board a little further"
        return "enough"

    def _normal(self, sighting: Sighting) -> FloatArray:
        """Return the board's normal in the camera [3], under a guess of the focal length that is good enough for a tilt."""
        width, height = sighting.size
        guess = np.array([[0.9 * width, 0.0, width / 2], [0.0, 0.9 * width, height / 2], [0.0, 0.0, 1.0]])
        turn, _ = pose_of_board(sighting, self._board, guess, np.zeros(5))
        return np.asarray(cv2.Rodrigues(turn)[0][:, 2], dtype=np.float64)

    def _alike(self, sighting: Sighting, normal: FloatArray, i: int) -> bool:
        moved = np.linalg.norm(sighting.corners.mean(axis=0) - self.taken[i].corners.mean(axis=0)) / sighting.size[0]
        turned = np.arccos(np.clip(normal @ self._normals[i], -1.0, 1.0))
        return bool(moved < _MOVED and turned < _TURNED_RAD)

    def _cells(self, sighting: Sighting) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        shares = sighting.corners / np.array(sighting.size)
        rows, columns = (np.clip((shares[:, axis] * n).astype(np.int64), 0, n - 1) for axis, n in ((1, GRID[0]), (0, GRID[1])))
        return rows, columns


def _part(index: int, count: int, first: str, last: str) -> str:
    if index < count / 3:
        return first
    return last if index >= 2 * count / 3 else "middle"
