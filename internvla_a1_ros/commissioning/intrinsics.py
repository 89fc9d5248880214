"""A camera's intrinsics from views of the board (Zhang's method as in cv2.calibrateCamera)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from internvla_a1_ros.commissioning.charuco import Board, Sighting
from internvla_a1_ros.commissioning.views import MIN_VIEWS, Views
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray

MAX_REPROJECTION_PX = 0.8
# One standard deviation of a focal length: three of them are then within the 0.5 % that grasping needs.
MAX_FOCAL_SIGMA = 0.0017
# A view this far above the others' error was taken in motion, or with codes taken for others.
_OUTLIER = 3.0
_SHOWN_FROM = 4
_FLAGS = cv2.CALIB_FIX_K3


@dataclass(frozen=True, slots=True, eq=False)
class PinholeFit:
    """Camera `matrix` [3, 3], `distortion` [5] (k1 k2 p1 p2 k3), and how well they explain the views that were `used`."""

    size: tuple[int, int]
    matrix: FloatArray
    distortion: FloatArray
    reprojection_px: float
    focal_sigma: float
    used: int


def fit_intrinsics(views: Views, board: Board) -> PinholeFit:
    """Return the intrinsics that explain the views with the least reprojection error; k3 stays 0, which a board does not show.

    A view that fits far worse than the others is dropped once. Raises ConfigurationError where views, coverage or tilts do not
    suffice, or the answer is not certain enough.
    """
    enough = views.verdict()
    if not enough:
        raise ConfigurationError(f"intrinsics: {enough.reason}")
    fit, errors = _fit(views.taken, board)
    good = errors <= max(_OUTLIER * float(np.median(errors)), 0.3)
    if not good.all() and good.sum() >= MIN_VIEWS:
        fit, _ = _fit([view for view, keep in zip(views.taken, good, strict=True) if keep], board)
    if not fit.reprojection_px <= MAX_REPROJECTION_PX:
        raise ConfigurationError(
            f"intrinsics: got a reprojection error of {fit.reprojection_px:.2f} px, allowed {MAX_REPROJECTION_PX:g}: "
            "is the board flat, and are its squares all of one size?"
        )
    if not fit.focal_sigma <= MAX_FOCAL_SIGMA:
        raise ConfigurationError(
            f"intrinsics: the focal length is known to {fit.focal_sigma:.2%} only, expected {MAX_FOCAL_SIGMA:.2%}: "
            "add views closer to the camera and tilted more"
        )
    return fit


def residual_so_far(views: Views, board: Board) -> float | None:
    """Return the reprojection error in px of the views taken yet, for whoever gathers them; None while they are too few to say."""
    return _fit(views.taken, board)[0].reprojection_px if len(views.taken) >= _SHOWN_FROM else None


def _fit(sightings: list[Sighting], board: Board) -> tuple[PinholeFit, FloatArray]:
    """Return the fit and each view's error [n] in px (root mean square)."""
    points = [sighting.points_m(board).astype(np.float32) for sighting in sightings]
    corners = [sighting.corners.astype(np.float32).reshape(-1, 1, 2) for sighting in sightings]
    size = sightings[0].size
    found = cv2.calibrateCameraExtended(points, corners, size, np.eye(3), np.zeros(5), flags=_FLAGS)
    error, matrix, distortion, _, _, sigmas, _, per_view = found
    matrix = np.asarray(matrix, dtype=np.float64)
    sigma = float(max(sigmas.reshape(-1)[0] / matrix[0, 0], sigmas.reshape(-1)[1] / matrix[1, 1]))
    fit = PinholeFit(size, matrix, np.asarray(distortion, dtype=np.float64).reshape(-1)[:5], float(error), sigma, len(sightings))
    return fit, np.asarray(per_view, dtype=np.float64).reshape(-1)
