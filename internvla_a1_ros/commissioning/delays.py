"""Delays from a small motion: of the arm behind its commands, and of a camera's stamp behind the light it shows.

What follows is fitted with a polynomial of what leads, shifted in time; the shift with the least squares is the delay. Nothing is
resampled: the leader is interpolated at the follower's own stamps, so jitter and unequal rates do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray, FloatArray

SEARCHED_S = (-0.06, 0.5)
# The motion is of a second: a coarse search finds the valley, a fine one its floor.
_COARSE_S, _STEP_S = 0.01, 0.002
MIN_MOTION_RAD = 0.006
MIN_EXPLAINED = 0.6
MAX_SIGMA_S = 0.003
# A delay this little below zero is one of none, measured; more means stamps that contradict each other.
_BELOW_ZERO_S = 0.005
_SMALL_PX = (24, 18)
_COMPONENTS = 3
# The sum of squares of something that stands: rounding of numbers.
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class Delay:
    """`delay_s`, its standard deviation, and the share of the follower's motion that the leader explains."""

    delay_s: float
    sigma_s: float
    explained: float
    samples: int


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One motion: commands [n, dof] and joints [m, dof] with their times in s, and small pictures [k, p] by camera with theirs."""

    joint_names: tuple[str, ...]
    command_s: FloatArray
    commands: FloatArray
    joint_s: FloatArray
    joints: FloatArray
    pictures: Mapping[str, tuple[FloatArray, FloatArray]]

    @property
    def moving(self) -> int:
        """Which joint was commanded to move furthest."""
        return int(np.ptp(self.commands, axis=0).argmax()) if len(self.commands) else 0


def fit_delays(recordings: Sequence[Recording], cameras: Sequence[str]) -> tuple[list[Delay], dict[str, Delay]]:
    """Return the actuation delay of each recording and the delay of each camera, from the recording whose motion it saw best.

    Raises ConfigurationError where a recording says no actuation delay, or no recording says a camera's.
    """
    actuation = []
    for each in recordings:
        i = each.moving
        actuation.append(actuation_delay(each.command_s, each.commands[:, i], each.joint_s, each.joints[:, i]))
    return actuation, {camera: _best_seen(recordings, camera) for camera in cameras}


def _best_seen(recordings: Sequence[Recording], camera: str) -> Delay:
    found: list[Delay] = []
    problem = ConfigurationError(f"camera '{camera}': got no pictures, expected some of each motion")
    for each in recordings:
        if camera in each.pictures:
            try:
                found.append(camera_delay(camera, *each.pictures[camera], each.joint_s, each.joints[:, each.moving]))
            except ConfigurationError as refusal:  # the other arm's motion; one of the recordings must do
                problem = refusal
    if not found:
        raise problem
    return max(found, key=lambda delay: delay.explained)


def actuation_delay(command_s: FloatArray, commanded: FloatArray, joint_s: FloatArray, measured: FloatArray) -> Delay:
    """Return how far a measured joint [m] lags behind its commands [n], rad.

    Commands are taken as a curve through their points: that a driver holds each until the next is part of the delay. Raises
    ConfigurationError where nothing moved, or the joint did not follow.
    """
    found = _delay("actuation", "the joint", command_s, commanded, joint_s, measured[:, None], powers=1)
    return _not_negative("actuation", found)


def camera_delay(camera: str, picture_s: FloatArray, pictures: FloatArray, joint_s: FloatArray, measured: FloatArray) -> Delay:
    """Return how much later a camera's pictures are stamped than what they show happened.

    `pictures` [n, k] are small grey pictures (`shrunk`), `measured` [m] the moving joint in rad. What changes in the pictures most
    is taken for the motion and must follow the joint. Raises ConfigurationError where nothing moved, or it did not.
    """
    # The motion's bend within the picture (pixels are no linear gauge of an angle) is what the square is for.
    moving = _components(pictures)
    found = _delay(f"camera '{camera}'", "the picture", joint_s, measured, picture_s, moving, powers=2)
    return _not_negative(f"camera '{camera}'", found)


def shrunk(picture: ByteArray) -> FloatArray:
    """Return a picture [height, width(, 3)] small, grey, blurred and flat [k]: a small motion then changes it almost linearly."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, _SMALL_PX, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), dtype=np.float64).reshape(-1)


def _components(pictures: FloatArray) -> FloatArray:
    """Return the strongest changes of the pictures over time [n, 3], each weighted as it is strong."""
    if len(pictures) < _COMPONENTS:
        return np.zeros((len(pictures), 1))
    change = pictures - pictures.mean(axis=0)
    # Eigenvectors of the pixels' moments: far cheaper than to decompose hundreds of pictures themselves.
    _, vectors = np.linalg.eigh(change.T @ change)
    return np.asarray(change @ vectors[:, : -_COMPONENTS - 1 : -1])


def _delay(what: str, who: str, lead_s: FloatArray, lead: FloatArray, follow_s: FloatArray, follow: FloatArray, *, powers: int) -> Delay:
    inside = _shared(what, lead_s, lead, follow_s)
    follow_s, follow = follow_s[inside], follow[inside] - follow[inside].mean(axis=0)
    shifts, errors = _valley(lead_s, lead, follow_s, follow, powers)
    best = int(errors.argmin())
    total = float((follow**2).sum())
    explained = 1.0 - float(errors[best]) / total if total > _NOTHING else 0.0
    if explained < MIN_EXPLAINED:
        raise ConfigurationError(
            f"{what}: the motion explains {max(explained, 0.0):.0%} of how {who} changes, expected {MIN_EXPLAINED:.0%}: "
            "does it move with this joint, and does nothing else move?"
        )
    if not 0 < best < len(shifts) - 1:
        raise ConfigurationError(f"{what}: got no delay within {SEARCHED_S[0]:g} to {SEARCHED_S[1]:g} s: are all stamps of one clock?")
    before, at, after = errors[best - 1 : best + 2]
    bend = before - 2.0 * at + after
    delay = float(shifts[best] + 0.5 * _STEP_S * (before - after) / bend) if bend > 0 else np.nan
    # Near its least the sum of squares is at + bend/2 (shift/step)^2: it grows by one variance within one standard deviation.
    variance = at / max(follow.size - follow.shape[1] * (powers + 1) - 1, 1)
    sigma = float(_STEP_S * np.sqrt(2.0 * variance / bend)) if bend > 0 else np.inf
    if sigma > MAX_SIGMA_S:
        raise ConfigurationError(
            f"{what}: got a delay known to {sigma * 1e3:.1f} ms only, expected {MAX_SIGMA_S * 1e3:g}: move further or longer"
        )
    return Delay(delay, sigma, explained, int(inside.sum()))


def _shared(what: str, lead_s: FloatArray, lead: FloatArray, follow_s: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which of the follower's samples [n] the leader covers whatever the delay. Raises ConfigurationError for too few."""
    inside = (follow_s >= lead_s[0] + SEARCHED_S[1]) & (follow_s <= lead_s[-1] + SEARCHED_S[0]) if len(lead_s) else np.zeros(0, bool)
    if len(lead_s) < 50 or inside.sum() < 50:
        raise ConfigurationError(
            f"{what}: got {len(lead_s)} and {int(inside.sum())} samples of the same time, expected 50 or more of each: record for longer"
        )
    moved = float(np.ptp(lead))
    if moved < MIN_MOTION_RAD:
        raise ConfigurationError(
            f"{what}: the joint moved by {moved:.4f} rad, expected {MIN_MOTION_RAD:g} or more: there is no motion in the log"
        )
    return np.asarray(inside)


def _valley(lead_s: FloatArray, lead: FloatArray, follow_s: FloatArray, follow: FloatArray, powers: int) -> tuple[FloatArray, FloatArray]:
    """Return delays about the best one, `_STEP_S` apart, and the sums of squares that they leave."""

    def misfits(shifts: FloatArray) -> FloatArray:
        return np.array([_misfit(lead_s, lead, follow_s - shift, follow, powers) for shift in shifts])

    coarse = np.arange(SEARCHED_S[0], SEARCHED_S[1], _COARSE_S)
    near = coarse[misfits(coarse).argmin()] + np.arange(-_COARSE_S, 1.5 * _COARSE_S, _STEP_S)
    fine = near[(near >= SEARCHED_S[0]) & (near <= SEARCHED_S[1])]
    return fine, misfits(fine)


def _misfit(lead_s: FloatArray, lead: FloatArray, at_s: FloatArray, follow: FloatArray, powers: int) -> float:
    """Return the sum of squares left of `follow` [n, c] after fitting it with powers of the leader at `at_s` [n]."""
    shifted = np.interp(at_s, lead_s, lead)
    shifted = shifted - shifted.mean()
    basis = np.stack([shifted**power for power in range(powers + 1)], axis=1)
    left = follow - basis @ np.linalg.lstsq(basis, follow, rcond=None)[0]
    return float((left**2).sum())


def _not_negative(what: str, found: Delay) -> Delay:
    if found.delay_s < -_BELOW_ZERO_S:
        raise ConfigurationError(
            f"{what}: got a delay of {found.delay_s * 1e3:.1f} ms, expected none below zero: it is stamped before it happens, "
            "so the joints' stamps are late or the clocks differ"
        )
    return Delay(max(found.delay_s, 0.0), found.sigma_s, found.explained, found.samples)
