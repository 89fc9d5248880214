"""Where a camera is, on the hand or beside the arm, from views of a board and the hand's poses at them.

On the hand the board stands still: base_from_hand X camera_from_board = Z with X = hand_from_camera, Z = base_from_board.
Beside the arm the hand holds the board: hand_from_base X camera_from_board = Z with X = base_from_camera, Z = hand_from_board.
Both are A_i X B_i = Z. Park and Martin's closed form (IEEE Trans. Robotics and Automation 10(5), 1994) starts it; Gauss-Newton on
the corners, weighted by what they and the hand's poses err by, finishes it. OpenCV's calibrateHandEye, the same closed form, is
missing in the Python of OpenCV 5.0 (opencv issue 29565).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from internvla_a1_ros.commissioning.charuco import Board, Sighting, pose_of_board
from internvla_a1_ros.commissioning.poses import distance, inverse, pose, rotation_vector
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray

MIN_POSES = 10
# Rotations about one axis leave the camera's place along that axis open.
MIN_TURN_RAD = np.radians(20.0)
MIN_SECOND_AXIS = 0.08
MAX_OFF_M, MAX_OFF_RAD = 0.006, np.radians(1.0)
MAX_SIGMA_M = 0.0015
_STEP = 1e-6
# What corners and hand poses err by: a found corner, an arm's repeatability with the sag and play of its joints.
_CORNER_PX, _HAND_M, _HAND_RAD = 0.3, 0.0005, 0.001


@dataclass(frozen=True, slots=True, eq=False)
class HandEyeFit:
    """`parent_from_camera` [4, 4] and the root mean square by which single views miss it: on the board in m and rad, in the picture in px.

    `sigma_m` is the standard deviation of the camera's place, all three directions together.
    """

    parent_from_camera: FloatArray
    off_m: float
    off_rad: float
    reprojection_px: float
    sigma_m: float
    used: int


def fit_hand_eye(
    base_from_hand: FloatArray, sightings: list[Sighting], board: Board, matrix: FloatArray, distortion: FloatArray, *, on_hand: bool
) -> HandEyeFit:
    """Return where the camera is: in the hand's frame where it sits `on_hand`, else in the base's.

    `base_from_hand` [n, 4, 4] in metres, one for each sighting. Raises ConfigurationError for too few poses, rotations that are
    too small or about one axis, or an answer that the views do not agree on.
    """
    if len(base_from_hand) != len(sightings):
        raise ConfigurationError(f"hand-eye: got {len(base_from_hand)} poses for {len(sightings)} pictures, expected as many")
    if len(sightings) < MIN_POSES:
        raise ConfigurationError(f"hand-eye: got {len(sightings)} poses with the board in view, expected at least {MIN_POSES}")
    a = base_from_hand if on_hand else np.stack([inverse(each) for each in base_from_hand])
    _refuse_degenerate(a)
    b = np.stack([pose(*pose_of_board(sighting, board, matrix, distortion)) for sighting in sightings])
    x = _closed_form(a, b)
    z = a[0] @ x @ b[0]
    views = _Views(a, sightings, board, matrix, distortion, on_hand)
    x, z, covariance = _refine(views, x, z)
    sigma_m = float(np.sqrt(np.trace(covariance[3:6, 3:6])))
    off = np.array([distance(one @ x @ other, z) for one, other in zip(a, b, strict=True)])
    off_m, off_rad = np.sqrt((off**2).mean(axis=0))
    if off_m > MAX_OFF_M or off_rad > MAX_OFF_RAD:
        raise ConfigurationError(
            f"hand-eye: single views miss the answer by {off_m * 1e3:.1f} mm and {np.degrees(off_rad):.2f} degrees, allowed "
            f"{MAX_OFF_M * 1e3:g} mm and {np.degrees(MAX_OFF_RAD):g}: did the board move, or are the poses of another moment, arm or unit?"
        )
    if sigma_m > MAX_SIGMA_M:
        raise ConfigurationError(
            f"hand-eye: the camera's place is known to {sigma_m * 1e3:.1f} mm only, expected {MAX_SIGMA_M * 1e3:g}: "
            "turn the hand further between the views, about different axes"
        )
    return HandEyeFit(x, float(off_m), float(off_rad), views.reprojection_px(x, z), sigma_m, len(sightings))


def _refuse_degenerate(a: FloatArray) -> None:
    turns = np.array([rotation_vector(one[:3, :3].T @ other[:3, :3]) for i, one in enumerate(a) for other in a[:i]])
    largest = float(np.linalg.norm(turns, axis=1).max())
    if largest < MIN_TURN_RAD:
        raise ConfigurationError(
            f"hand-eye: the hand turned by {np.degrees(largest):.0f} degrees at most between the views, "
            f"expected {np.degrees(MIN_TURN_RAD):.0f} or more"
        )
    spread = np.linalg.svd(turns, compute_uv=False)
    if spread[1] < MIN_SECOND_AXIS * spread[0]:
        raise ConfigurationError("hand-eye: the hand turned about one axis only, expected turns about two axes or more: bend the wrist too")


def _closed_form(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return X of A_i X B_i = Z from motions between views: (A_j^-1 A_i) X = X (B_j B_i^-1)."""
    count = len(a)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    hand = [inverse(a[j]) @ a[i] for i, j in pairs]
    eye = [b[j] @ inverse(b[i]) for i, j in pairs]
    moment = np.zeros((3, 3))
    for one, other in zip(hand, eye, strict=True):
        moment += np.outer(rotation_vector(other[:3, :3]), rotation_vector(one[:3, :3]))
    u, _, vt = np.linalg.svd(moment.T)
    rotation = u @ np.diag((1.0, 1.0, np.linalg.det(u @ vt))) @ vt
    left = np.concatenate([one[:3, :3] - np.eye(3) for one in hand])
    right = np.concatenate([rotation @ other[:3, 3] - one[:3, 3] for one, other in zip(hand, eye, strict=True)])
    return pose(rotation, np.linalg.lstsq(left, right, rcond=None)[0])


def _refine(views: _Views, x: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return X, Z and the covariance [12, 12] of turn and shift of both, after Gauss-Newton steps on what the views see."""
    whiteners = views.whiteners(x, z)

    def residual(small: FloatArray) -> FloatArray:
        x_moved, z_moved = x @ pose(small[:3], small[3:6]), z @ pose(small[6:9], small[9:])
        return np.concatenate([white @ views.error(i, x_moved, z_moved) for i, white in enumerate(whiteners)])

    now = residual(np.zeros(12))
    for _ in range(20):
        jacobian = np.stack([(residual(step) - now) / _STEP for step in _STEP * np.eye(12)], axis=1)
        step = np.asarray(np.linalg.lstsq(jacobian, -now, rcond=None)[0], dtype=np.float64)
        then = residual(step)
        if not then @ then < (1.0 - 1e-9) * (now @ now):
            break
        x, z, now = x @ pose(step[:3], step[3:6]), z @ pose(step[6:9], step[9:]), then
    # Where the views agree less than expected, the answer is less certain in proportion; never more.
    variance = max(1.0, float(now @ now) / max(len(now) - 12, 1))
    return x, z, np.asarray(variance * np.linalg.pinv(jacobian.T @ jacobian), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Views:
    """What was seen, and how: A_i [n, 4, 4] of A_i X B_i = Z beside sightings, board and lens."""

    a: FloatArray
    sightings: list[Sighting]
    board: Board
    matrix: FloatArray
    distortion: FloatArray
    on_hand: bool

    def error(self, i: int, x: FloatArray, z: FloatArray, hand: FloatArray | None = None) -> FloatArray:
        """Return how far the corners of view `i` are from where X and Z put them [2 m] in px, with the hand moved by `hand` [4, 4]."""
        moved = np.eye(4) if hand is None else hand
        a = self.a[i] @ moved if self.on_hand else inverse(moved) @ self.a[i]
        sighting = self.sightings[i]
        drawn = _project(inverse(a @ x) @ z, sighting.points_m(self.board), self.matrix, self.distortion)
        return np.asarray((drawn - sighting.corners).reshape(-1), dtype=np.float64)

    def whiteners(self, x: FloatArray, z: FloatArray) -> list[FloatArray]:
        """Return for each view what makes its errors [2 m, 2 m] independent and of one size.

        A corner errs by itself, an arm that is a millimetre elsewhere moves all corners of a view together: taken alike, the arm's
        errors would be read as turns of the camera.
        """
        sigmas = np.repeat((_HAND_RAD, _HAND_M), 3)
        whiteners = []
        for i in range(len(self.a)):
            still = self.error(i, x, z)
            moves = [(self.error(i, x, z, pose(step[:3], step[3:])) - still) / _STEP for step in _STEP * np.eye(6)]
            spread = np.stack(moves, axis=1) * sigmas
            covariance = _CORNER_PX**2 * np.eye(len(still)) + spread @ spread.T
            whiteners.append(np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)), dtype=np.float64))
        return whiteners

    def reprojection_px(self, x: FloatArray, z: FloatArray) -> float:
        """Return the root mean square distance of the corners from where X and Z put them."""
        errors = np.concatenate([self.error(i, x, z) for i in range(len(self.a))])
        return float(np.sqrt(2.0 * (errors**2).mean()))


def _project(camera_from_board: FloatArray, points: FloatArray, matrix: FloatArray, distortion: FloatArray) -> FloatArray:
    # Turned here: as a vector OpenCV takes a turn below 1e-5 rad for none, ten of the steps that derivatives are taken over.
    seen = points @ camera_from_board[:3, :3].T + camera_from_board[:3, 3]
    return np.asarray(cv2.projectPoints(seen, np.zeros(3), np.zeros(3), matrix, distortion)[0], dtype=np.float64).reshape(-1, 2)
