"""What a gripper's motor reads closed and open: units of one type differ, and generations differ in size and sign."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.commissioning.calibration_file import GripperReadings
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.parts import Gripper

# Shares of the distance between the ends.
MAX_SPREAD = 0.05
_AT_END = 0.15
# Of the profile's distance between the ends: less is a gripper that was not opened, more another generation.
_SHORTEST, _LONGEST = 0.5, 1.5


def gripper_readings(closed: FloatArray, opened: FloatArray, gripper: Gripper) -> tuple[GripperReadings, float]:
    """Return a gripper's readings and their spread between repeats, from one reading or more at each end [n], [m].

    Raises ConfigurationError where the ends read alike, are confused, are far from the profile's, or do not repeat.
    """
    if len(closed) == 0 or len(opened) == 0:
        missing = "closed" if len(closed) == 0 else "open"
        raise ConfigurationError(f"gripper '{gripper.joint}': got no reading at rest while {missing}, expected one or more")
    at = float(np.median(closed)), float(np.median(opened))
    range_, expected = at[1] - at[0], gripper.open - gripper.closed
    said = f"gripper '{gripper.joint}': got {at[0]:.3f} closed and {at[1]:.3f} open"
    if abs(range_) < 0.05 * abs(expected):
        raise ConfigurationError(f"{said}, expected two readings some {abs(expected):g} apart: did it move?")
    if range_ * expected < 0:
        raise ConfigurationError(
            f"{said}, the profile says {gripper.closed:g} and {gripper.open:g}: "
            "were the two confused, or is it another generation of gripper?"
        )
    if not _SHORTEST <= range_ / expected <= _LONGEST:
        raise ConfigurationError(
            f"{said}, a distance of {abs(range_):.3f} where the profile's is {abs(expected):g}: open and close it fully, "
            "or choose the profile of this generation of gripper"
        )
    spread = max(float(np.ptp(closed)), float(np.ptp(opened)))
    if spread > MAX_SPREAD * abs(range_):
        raise ConfigurationError(
            f"{said}, which differ by {spread:.3f} from one time to the next, allowed {MAX_SPREAD * abs(range_):.3f}: "
            "was something between the fingers?"
        )
    return GripperReadings(closed=at[0], open=at[1]), spread


def ends_of(readings: FloatArray, gripper: Gripper) -> tuple[FloatArray, FloatArray]:
    """Return which of the resting readings [n] of a gripper are closed and which open; those between are neither.

    The profile says which end is which: a log alone cannot.
    """
    if len(readings) == 0:
        return readings, readings
    low, high = float(readings.min()), float(readings.max())
    near = _AT_END * (high - low)
    at_low, at_high = readings[readings <= low + near], readings[readings >= high - near]
    return (at_low, at_high) if gripper.open > gripper.closed else (at_high, at_low)
