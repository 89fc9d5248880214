"""How fast and where to a belt runs, from pictures: rectified to the belt's plane, then shifted onto each other.

Phase correlation finds the shift wherever it is, and is drawn towards zero by its window; the enhanced correlation coefficient
(cv2.findTransformECC), which compares only what both pictures show, makes it exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray, FloatArray

MIN_PAIRS = 10
MIN_CORRELATION = 0.5
MIN_TEXTURE = 3.0
MAX_SPREAD = 0.1
MIN_SPEED_M_S = 0.002
_MAX_SIDE_PX = 400
# A pair apart by this share of the view is measured finest: further apart too little is common to both, closer a pixel's error weighs more.
_BEST_SHARE = 0.2
_ECC = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-5)


@dataclass(frozen=True, slots=True, eq=False)
class BeltView:
    """A rectangle on the belt as a camera sees it: `picture_from_plane` [3, 3] takes metres to pixels of an undistorted picture.

    The plane's x and y run along the rectangle's sides, from `corner_m` on, `size_m` far.
    """

    picture_from_plane: FloatArray
    corner_m: tuple[float, float]
    size_m: tuple[float, float]


@dataclass(frozen=True, slots=True)
class BeltFit:
    """Speed, heading from the plane's x axis to its y axis, the spread of single pairs about them, and how many pairs were used."""

    speed_m_s: float
    heading_rad: float
    speed_spread_m_s: float
    heading_spread_rad: float
    pairs: int


def view_of_points(points_px: FloatArray, points_m: FloatArray, matrix: FloatArray, distortion: FloatArray) -> BeltView:
    """Return the view of four points or more on the belt: pixels [n, 2] in the camera's picture, places [n, 2] on the belt in metres.

    Raises ConfigurationError for fewer than four, for points in one line, or for points that do not lie in one plane.
    """
    if len(points_px) < 4 or len(points_px) != len(points_m):
        raise ConfigurationError(f"belt: got {len(points_px)} pixels and {len(points_m)} places, expected four or more of each")
    straight = cv2.undistortPoints(points_px.reshape(-1, 1, 2), matrix, distortion, P=matrix).reshape(-1, 2)
    homography, _ = cv2.findHomography(points_m, straight)
    if homography is None or not np.isfinite(homography).all():
        raise ConfigurationError("belt: the points lie in one line, expected the corners of a rectangle or more points around it")
    drawn = cv2.perspectiveTransform(points_m.reshape(-1, 1, 2).astype(np.float64), homography).reshape(-1, 2)
    off_px = float(np.linalg.norm(drawn - straight, axis=1).max())
    if off_px > 3.0:
        raise ConfigurationError(f"belt: a point is {off_px:.1f} px beside where the others put it, allowed 3: is one of them mistaken?")
    low, high = points_m.min(axis=0), points_m.max(axis=0)
    if (high - low <= 0).any():
        raise ConfigurationError("belt: the points lie in one line, expected the corners of a rectangle or more points around it")
    return BeltView(homography, (float(low[0]), float(low[1])), (float(high[0] - low[0]), float(high[1] - low[1])))


def fit_belt(stamps_s: FloatArray, pictures: list[ByteArray], view: BeltView, matrix: FloatArray, distortion: FloatArray) -> BeltFit:
    """Return how the belt moves in the pictures [height, width(, 3)] taken at `stamps_s` [n], rising.

    Raises ConfigurationError for too few pictures, a belt without marks, one that stands, or pictures that do not agree.
    """
    if len(pictures) < MIN_PAIRS + 1:
        raise ConfigurationError(f"belt: got {len(pictures)} pictures, expected {MIN_PAIRS + 1} or more")
    if not (np.diff(stamps_s) > 0).all():
        raise ConfigurationError("belt: got stamps that do not rise, expected pictures in the order in which they were taken")
    scale = _picture_scale(view)
    flat = [_rectified(picture, view, scale, matrix, distortion) for picture in pictures]
    texture = float(np.median([picture.std() for picture in flat]))
    if texture < MIN_TEXTURE:
        raise ConfigurationError(
            f"belt: got a belt without marks (contrast {texture:.1f} of 255, expected {MIN_TEXTURE:g}): put tape on it"
        )
    first = _velocities(stamps_s, flat, 1, scale)
    speed = float(np.linalg.norm(np.median(first, axis=0)))
    if speed < MIN_SPEED_M_S:
        raise ConfigurationError(f"belt: it moves at {speed:.4f} m/s, expected {MIN_SPEED_M_S:g} or more: is it running?")
    step_m = speed * float(np.median(np.diff(stamps_s)))
    apart = int(np.clip(_BEST_SHARE * min(view.size_m) / step_m, 1, len(pictures) - MIN_PAIRS))
    found = first if apart == 1 else _velocities(stamps_s, flat, apart, scale)
    return _agreed(found)


def _agreed(velocities: FloatArray) -> BeltFit:
    middle = np.median(velocities, axis=0)
    speed, heading = float(np.linalg.norm(middle)), float(np.arctan2(middle[1], middle[0]))
    along = velocities @ middle / speed
    across = (velocities @ np.array([-middle[1], middle[0]])) / speed
    # The median's distance from the median, as a standard deviation: one pair in four may be wrong.
    spreads = [1.4826 * float(np.median(np.abs(each - np.median(each)))) for each in (along, across)]
    if max(spreads) > MAX_SPREAD * speed:
        raise ConfigurationError(
            f"belt: single pairs of pictures differ by {max(spreads) / speed:.0%} of the speed, allowed {MAX_SPREAD:.0%}: "
            "does it run evenly, are the stamps right, is only the belt in the rectangle?"
        )
    return BeltFit(speed, heading, spreads[0], spreads[1] / speed, len(velocities))


def _velocities(stamps_s: FloatArray, flat: list[FloatArray], apart: int, scale: float) -> FloatArray:
    """Return the belt's velocity [k, 2] in m/s from pictures `apart` places from each other."""
    window = cv2.createHanningWindow(flat[0].shape[::-1], cv2.CV_32F)
    found = []
    for i in range(len(flat) - apart):
        shift = _shift_px(flat[i], flat[i + apart], window)
        if shift is not None:
            found.append(shift / scale / (stamps_s[i + apart] - stamps_s[i]))
    if len(found) < MIN_PAIRS:
        raise ConfigurationError(
            f"belt: {len(found)} pairs of pictures show the same belt, expected {MIN_PAIRS} or more: "
            "less speed, more pictures a second, or more marks on the belt"
        )
    return np.array(found)


def _shift_px(before: FloatArray, after: FloatArray, window: FloatArray) -> FloatArray | None:
    """Return by how much what `before` shows has moved in `after` [2], or None where they show nothing alike."""
    # Without its mean a picture has no window of its own to be found in place.
    coarse, _ = cv2.phaseCorrelate(before - before.mean(), after - after.mean(), window)
    warp = np.array([[1.0, 0.0, coarse[0]], [0.0, 1.0, coarse[1]]], dtype=np.float32)
    try:
        alike, warp = cv2.findTransformECC(before, after, warp, cv2.MOTION_TRANSLATION, _ECC, None, 3)
    except cv2.error:  # it does not converge
        return None
    return np.asarray(warp[:, 2], dtype=np.float64) if alike >= MIN_CORRELATION else None


def _picture_scale(view: BeltView) -> float:
    """Return how many px the camera has for a metre of the belt, at the rectangle's middle: finer invents detail, coarser loses it."""
    middle = np.array(view.corner_m) + np.array(view.size_m) / 2
    ends = np.array([middle, middle + (1e-3, 0.0), middle + (0.0, 1e-3)]).reshape(-1, 1, 2)
    at = cv2.perspectiveTransform(ends, view.picture_from_plane).reshape(-1, 2)
    finest = max(float(np.linalg.norm(at[k] - at[0])) for k in (1, 2)) / 1e-3
    return min(finest, _MAX_SIDE_PX / max(view.size_m))


def _rectified(picture: ByteArray, view: BeltView, scale: float, matrix: FloatArray, distortion: FloatArray) -> FloatArray:
    """Return the rectangle as seen from straight above, `scale` px a metre."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    straight = cv2.undistort(grey, matrix, distortion)
    metres = np.array([[1 / scale, 0.0, view.corner_m[0]], [0.0, 1 / scale, view.corner_m[1]], [0.0, 0.0, 1.0]])
    size = (max(round(view.size_m[0] * scale), 16), max(round(view.size_m[1] * scale), 16))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpPerspective(straight, view.picture_from_plane @ metres, size, flags=flags), dtype=np.float32)
