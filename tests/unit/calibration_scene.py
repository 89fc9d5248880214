"""A camera, boards and a belt whose truth is known, rendered with noise and blur, for tests of calibration."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from internvla_a1_ros.commissioning.charuco import Board, Finder, Sighting
from internvla_a1_ros.commissioning.poses import inverse, pose
from internvla_a1_ros.core.types import ByteArray, FloatArray

BOARD = Board()
DISTORTION = np.array([-0.11, 0.06, 0.0008, -0.0006, 0.0])
_FINER = 2


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with distortion."""

    width: int = 640
    height: int = 480
    fx: float = 561.0
    fy: float = 558.0
    cx: float = 326.5
    cy: float = 236.0

    @property
    def matrix(self) -> FloatArray:
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def rays(self) -> FloatArray:
        """Undistorted rays [h, w, 2] of a picture twice as fine."""
        rows, columns = np.mgrid[: self.height * _FINER, : self.width * _FINER].astype(np.float64)
        pixels = np.stack([columns, rows], axis=-1) / _FINER - (1 - 1 / _FINER) / 2
        bent = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        straight = bent
        k1, k2, p1, p2, _ = DISTORTION
        for _ in range(20):  # the distortion has no closed inverse
            x, y = straight[..., 0], straight[..., 1]
            r2 = x * x + y * y
            tangential = np.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=-1)
            straight = (bent - tangential) / (1 + k1 * r2 + k2 * r2 * r2)[..., None]
        return np.asarray(straight)

    def render(
        self,
        plane: ByteArray,
        metres_per_px: float,
        camera_from_plane: FloatArray,
        rng: np.random.Generator,
        *,
        blur_px: float = 0.6,
        noise: float = 2.0,
        rays: FloatArray | None = None,
        origin_m: tuple[float, float] = (0.0, 0.0),
    ) -> ByteArray:
        """Return the picture [h, w] of a plane painted with `plane` from `origin_m` on, grey where it ends."""
        rays = self.rays if rays is None else rays
        # A ray (x, y, 1) s meets the plane at R (u, v, 0) + t: two columns of R and t are the homography of plane to ray.
        to_ray = np.column_stack([camera_from_plane[:3, 0], camera_from_plane[:3, 1], camera_from_plane[:3, 3]])
        met = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1) @ np.linalg.inv(to_ray).T
        at = met[..., :2] / met[..., 2:]
        # Pixel k of the plane covers k to k + 1 of its lengths.
        place = ((at - np.array(origin_m)) / metres_per_px - 0.5).astype(np.float32)
        fine = cv2.remap(plane, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=150)
        picture = cv2.resize(fine, (self.width, self.height), interpolation=cv2.INTER_AREA).astype(np.float64)
        if blur_px > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), blur_px)
        return np.clip(40 + 0.7 * picture + rng.normal(0.0, noise, picture.shape), 0, 255).astype(np.uint8)


SQUARE_PX = 40
BOARD_PICTURE = BOARD.picture(SQUARE_PX)


def facing(rng: np.random.Generator, place_m: tuple[float, float, float], tilt_deg: float, turn_deg: float = 20.0) -> FloatArray:
    """Return camera_from_board of a board centred at `place_m`, tilted about a random axis in it, turned by up to `turn_deg`."""
    angle = rng.uniform(0, 2 * np.pi)
    tilt = pose(np.radians(tilt_deg) * np.array([np.cos(angle), np.sin(angle), 0.0]), np.zeros(3))
    turn = pose(np.array([0.0, 0.0, np.radians(rng.uniform(-turn_deg, turn_deg))]), np.zeros(3))
    centre = np.array([BOARD.columns, BOARD.rows, 0.0]) * BOARD.square_m / 2
    return pose(np.zeros(3), np.array(place_m)) @ tilt @ turn @ pose(np.zeros(3), -centre)


def render_board(camera: Camera, camera_from_board: FloatArray, rng: np.random.Generator, rays: FloatArray, **how: float) -> ByteArray:
    """Return a picture of the board."""
    return camera.render(BOARD_PICTURE, BOARD.square_m / SQUARE_PX, camera_from_board, rng, rays=rays, **how)  # type: ignore[arg-type]


def guided_poses(rng: np.random.Generator, tilts_deg: tuple[float, float] = (20.0, 40.0)) -> list[FloatArray]:
    """Return camera_from_board of the views a guided person shows: every part of the picture, tilted, near and far."""
    places = [(x, y, 0.45) for y in (-0.12, 0.0, 0.12) for x in (-0.17, 0.0, 0.17)] + [(0.0, 0.0, 0.33)] * 4 + [(0.02, 0.0, 0.6)] * 3
    return [facing(rng, tuple(np.array(place) + rng.normal(0, 0.006, 3)), rng.uniform(*tilts_deg)) for place in places]  # type: ignore[arg-type]


def sighted(camera: Camera, camera_from_board: FloatArray, rng: np.random.Generator, noise_px: float) -> Sighting:
    """Return the whole board as seen without rendering: projected corners with pixel noise."""
    turn, shift = cv2.Rodrigues(camera_from_board[:3, :3])[0], camera_from_board[:3, 3]
    corners = cv2.projectPoints(BOARD.corners_m, turn, shift, camera.matrix, DISTORTION)[0].reshape(-1, 2)
    noisy = corners + rng.normal(0.0, noise_px, corners.shape)
    return Sighting((camera.width, camera.height), np.arange(len(corners)), noisy, 0.7)


def hand_eye_scene(
    rng: np.random.Generator, camera: Camera, count: int, *, on_hand: bool, noise_px: float = 0.3, arm_noise_m: float = 0.0
) -> tuple[FloatArray, list[Sighting], FloatArray]:
    """Return base_from_hand [n, 4, 4], off by `arm_noise_m` (and as many rad) a direction, sightings and the true parent_from_camera."""
    truth = pose(rng.normal(0, 0.6, 3), rng.uniform(-0.12, 0.12, 3)) if on_hand else pose(rng.normal(0, 0.6, 3), rng.uniform(-0.6, 0.6, 3))
    board = pose(rng.normal(0, 0.5, 3), rng.uniform(-0.3, 0.3, 3))
    hands, sightings = [], []
    for _ in range(count):
        seen = facing(rng, (rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), rng.uniform(0.35, 0.6)), rng.uniform(10, 40), 60.0)
        # on the hand: base_from_hand X seen = Z; beside the arm: inverse(base_from_hand) X seen = Z
        solved = board @ inverse(seen) @ inverse(truth)
        hand = solved if on_hand else inverse(solved)
        hands.append(hand @ pose(rng.normal(0.0, arm_noise_m, 3), rng.normal(0.0, arm_noise_m, 3)))
        sightings.append(sighted(camera, seen, rng, noise_px))
    return np.array(hands), sightings, truth


FINDER = Finder(BOARD)


def belt_picture(rng: np.random.Generator, length_m: float, width_m: float, px_per_m: float) -> ByteArray:
    """Return a worn belt: smooth stains over fine grain."""
    size = (round(width_m * px_per_m), round(length_m * px_per_m))
    stains = cv2.GaussianBlur(rng.normal(0, 1, size), (0, 0), 12)
    grain = cv2.GaussianBlur(rng.normal(0, 1, size), (0, 0), 2)
    return np.clip(120 + 35 * stains / stains.std() + 20 * grain / grain.std(), 0, 255).astype(np.uint8)
