"""From recorded commands: when braking began, how long it took, when the arms were at rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from internvla_a1_ros.core.types import FloatArray


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop: onset from the event to the first braking command's arrival, and how long to rest against speed / deceleration."""

    onset_ms: float
    speed_rad_s: float
    rest_s: float
    rest_ratio: float


def measure_stop(received_s: FloatArray, stamps_s: FloatArray, joints: FloatArray, event_s: float, deceleration: float) -> Stop:
    """Read one stop off the commands [n, joints] of an arm.

    The first braking command is the first received after the event whose step is shorter than the one before by more than half
    of what `deceleration` (rad/s^2) takes off in a period, in the joint that was fastest. Raises ValueError where there is none,
    or where it was not fast enough to tell.
    """
    steps = np.diff(joints, axis=0)
    after = np.flatnonzero(received_s[1:] >= event_s)
    if after.size == 0:
        raise ValueError("no command was received after the event")
    fastest = int(np.abs(steps[after[0]]).argmax())
    period = float(np.median(np.diff(stamps_s)))
    speed = np.abs(steps[:, fastest]) / period
    lost = (speed[:-1] - speed[1:]) / period
    braking = [int(i) for i in after if i > 0 and lost[i - 1] > 0.5 * deceleration]
    if not braking:
        raise ValueError(f"no braking command after the event: largest deceleration {lost.max():.1f} rad/s^2, expected {deceleration:.1f}")
    first = braking[0]
    before = float(speed[first - 1])
    # Braking starts at the command before the first braking one and ends at the last that moved: at rest commands cease.
    resting = np.flatnonzero(speed[first:] < 1e-3)
    moved = int(resting[0]) if resting.size else len(speed) - first
    rest_s = float(stamps_s[first + moved] - stamps_s[first])
    return Stop((float(received_s[first + 1]) - event_s) * 1e3, before, rest_s, rest_s / (before / deceleration))


def rest_time(received_s: FloatArray, joints: FloatArray, event_s: float, tolerance_rad: float = 1e-5) -> float:
    """Return seconds from the event to the arrival of the last command that still moved an arm."""
    moved = np.abs(np.diff(joints, axis=0)).max(axis=1) > tolerance_rad
    late = np.flatnonzero(moved & (received_s[1:] >= event_s))
    return float(received_s[1:][late[-1]] - event_s) if late.size else 0.0
