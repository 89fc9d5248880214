"""The ChArUco board: what it looks like, where it is in a picture, and how sharp that picture is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from internvla_a1_ros.core.types import ByteArray, FloatArray, Verdict, refused
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.wires import Positive

# Codes of 4x4 cells stay readable at 640x480 where finer ones do not.
_DICTIONARY, _CODES = cv2.aruco.DICT_4X4_100, 100
MIN_CORNERS = 8
# Edges wider than this (a Gaussian's sigma) move corners by more than calibration can bear: the board moved or is out of focus.
MAX_BLUR_PX = 2.0
# The window in which a corner is refined, half, as a share of a square's side; and how far it may go in it.
_WINDOW, _ASTRAY_PX = 0.1, 1.5
_SUB_PIX = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-3)


class Board(Document):
    """Squares and markers in metres as they are on paper: measure them after printing."""

    columns: Annotated[int, Field(ge=3)] = 9
    rows: Annotated[int, Field(ge=3)] = 6
    square_m: Positive = 0.03
    marker_m: Positive = 0.022

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Board:
        if not 0.4 <= self.marker_m / self.square_m <= 0.9:
            raise ValueError(f"marker_m: got {self.marker_m:g} in squares of {self.square_m:g}, expected 0.4 to 0.9 of a square")
        if self.columns * self.rows // 2 > _CODES:
            raise ValueError(f"board: got {self.columns} x {self.rows} squares, expected at most {2 * _CODES}: the codes do not suffice")
        return self

    def __str__(self) -> str:
        return f"ChArUco {self.columns} x {self.rows}, squares {self.square_m * 1e3:g} mm, markers {self.marker_m * 1e3:g} mm"

    @cached_property
    def pattern(self) -> Any:
        """The board as OpenCV knows it."""
        dictionary = cv2.aruco.getPredefinedDictionary(_DICTIONARY)
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, dictionary)

    @cached_property
    def corners_m(self) -> FloatArray:
        """All inner corners [n, 3] on the board, from its first square's corner, z = 0."""
        return np.asarray(self.pattern.getChessboardCorners(), dtype=np.float64).reshape(-1, 3)

    def picture(self, square_px: int) -> ByteArray:
        """Return the board without a margin [height, width], `square_px` a square."""
        return np.asarray(self.pattern.generateImage((self.columns * square_px, self.rows * square_px)), dtype=np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """The board in one picture of `size` (width, height): corner `ids` [n], `corners` [n, 2] px, edge width (sigma) in px."""

    size: tuple[int, int]
    ids: npt.NDArray[np.int64]
    corners: FloatArray
    blur_px: float

    def points_m(self, board: Board) -> FloatArray:
        """Return the corners on the board [n, 3]."""
        return board.corners_m[self.ids]


class Finder:
    """Finds one board in pictures."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._detector = cv2.aruco.CharucoDetector(board.pattern)

    def find(self, picture: ByteArray) -> Sighting | Verdict:
        """Return the board in a picture [height, width] or [height, width, 3] RGB, or why it cannot be used."""
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        found, ids, _, _ = self._detector.detectBoard(grey)
        if ids is None or len(ids) == 0:
            return refused("no_board", "no board in the picture: is it the board of these options, sharp, whole codes in view, lit evenly?")
        ids, corners = self._refined(grey, np.asarray(ids, dtype=np.int64).reshape(-1), np.asarray(found).reshape(-1, 2))
        count = len(ids)
        # Corners in one line leave the board's pose open.
        if count < MIN_CORNERS or len(set(ids % (self._board.columns - 1))) < 2 or len(set(ids // (self._board.columns - 1))) < 2:
            return refused("few_corners", f"got {count} corners of the board, expected at least {MIN_CORNERS} over two rows and columns")
        blur = _blur_px(grey, dict(zip(ids.tolist(), corners, strict=True)), self._board.columns - 1)
        if blur > MAX_BLUR_PX:
            return refused("blurred", f"got edges {blur:.1f} px wide, allowed {MAX_BLUR_PX:g}: hold the board still, focus, add light")
        height, width = grey.shape
        return Sighting((width, height), ids, corners, blur)

    def _refined(self, grey: ByteArray, ids: npt.NDArray[np.int64], rough: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Return the corners moved onto the edges' crossing, without those that went astray.

        What the detector gives is half a pixel off in OpenCV 4.11 (not in 5.0), and less exact in both.
        """
        at = dict(zip(ids.tolist(), rough, strict=True))
        sides = [float(np.linalg.norm(at[i] - at[i + 1])) for i in at if i + 1 in at and (i + 1) % (self._board.columns - 1)]
        # No wider than the white between a corner and its markers.
        half = max(2, round(_WINDOW * float(np.median(sides)))) if sides else 2
        start = rough.astype(np.float32).reshape(-1, 1, 2)
        moved = np.asarray(cv2.cornerSubPix(grey, start.copy(), (half, half), (-1, -1), _SUB_PIX), dtype=np.float64).reshape(-1, 2)
        near = np.linalg.norm(moved - rough, axis=1) <= _ASTRAY_PX
        return ids[near], moved[near]


def _blur_px(grey: ByteArray, corners: dict[int, FloatArray], columns: int) -> float:
    """Return the width (sigma) of the edges between neighbouring corners, the wider of the board's two directions.

    A step of height h blurred by a Gaussian rises by h / (sigma sqrt(2 pi)) a pixel. Motion widens the edges across it only.
    """
    widths: list[float] = []
    for step, last in ((1, columns - 1), (columns, None)):
        pairs = [(corners[i], corners[i + step]) for i in corners if i + step in corners and (last is None or i % columns != last)]
        if pairs:
            widths.append(float(np.median([_edge_px(grey, np.asarray(a), np.asarray(b)) for a, b in pairs])))
    return max(widths, default=np.inf)


def _edge_px(grey: ByteArray, one: FloatArray, other: FloatArray) -> float:
    along = other - one
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
    reach = 0.3 * float(np.linalg.norm(along))
    offsets = np.arange(-reach, reach + 0.25, 0.5)
    # Three profiles near the middle: a single one is a matter of noise.
    lines = [one + share * along + offsets[:, None] * across for share in (0.4, 0.5, 0.6)]
    places = np.stack(lines).astype(np.float32)
    profile = cv2.remap(grey, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).mean(axis=0)
    height = float(np.ptp(profile))
    slope = float(np.abs(profile[2:] - profile[:-2]).max()) if len(profile) > 2 else 0.0
    return height / (np.sqrt(2 * np.pi) * slope) if slope > 0.0 else np.inf


def pose_of_board(sighting: Sighting, board: Board, matrix: FloatArray, distortion: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return rotation vector and translation [3] in metres of the board in the camera, by least reprojection error."""
    points = sighting.points_m(board)
    _, turn, shift = cv2.solvePnP(points, sighting.corners, matrix, distortion, flags=cv2.SOLVEPNP_IPPE)
    turn, shift = cv2.solvePnPRefineLM(points, sighting.corners, matrix, distortion, turn, shift)
    return np.asarray(turn, dtype=np.float64).reshape(3), np.asarray(shift, dtype=np.float64).reshape(3)
