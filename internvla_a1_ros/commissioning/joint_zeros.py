"""How far a unit's arm joints read beside the truth, from readings in a pose whose angles are known (a jig, marks, a mechanical stop)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.profile import RobotProfile

MIN_REPEATS = 3
# Between repeats: more is play in the joint or in the jig.
MAX_SPREAD_RAD = 0.02
# More is another pose, not a zero that is off.
MAX_OFFSET_RAD = 0.2


def joint_zeros(
    readings: FloatArray, reference_rad: Mapping[str, float], profile: RobotProfile
) -> tuple[dict[str, float], dict[str, float]]:
    """Return offset (reading minus truth) and spread in rad by arm joint, for the joints that `reference_rad` names.

    `readings` [n, dof] are resting readings, the arm brought into the reference anew for each. Raises ConfigurationError for too
    few of them, readings that do not repeat, an offset that is another pose, or a name that is no arm joint.
    """
    arms = [joint.name for joint in profile.joints if joint.kind == "arm"]
    for name in reference_rad:
        if name not in arms:
            raise ConfigurationError(f"joint zeros: got a reference for '{name}', expected an arm joint: {', '.join(arms)}")
    if not reference_rad:
        raise ConfigurationError("joint zeros: got no joint with a reference, expected one or more")
    if len(readings) < MIN_REPEATS:
        raise ConfigurationError(
            f"joint zeros: got {len(readings)} readings at rest, expected {MIN_REPEATS} or more, "
            "the arm brought into the reference anew for each"
        )
    offsets, spreads = {}, {}
    for name, true_rad in reference_rad.items():
        column = readings[:, profile.joint_names.index(name)]
        offsets[name] = float(np.median(column) - true_rad)
        spreads[name] = float(np.ptp(column))
        if spreads[name] > MAX_SPREAD_RAD:
            raise ConfigurationError(
                f"joint zeros: '{name}' read {column.min():.4f} to {column.max():.4f} in the same pose, allowed a difference of "
                f"{MAX_SPREAD_RAD:g} rad: is there play in the joint or the jig?"
            )
        if abs(offsets[name]) > MAX_OFFSET_RAD:
            raise ConfigurationError(
                f"joint zeros: '{name}' reads {offsets[name]:+.3f} rad beside its reference, allowed {MAX_OFFSET_RAD:g}: "
                "the arm is in another pose, or the zero must be set in the driver"
            )
    return offsets, spreads


def in_reference(readings: FloatArray, reference_rad: Mapping[str, float], profile: RobotProfile) -> FloatArray:
    """Return those of the resting readings [n, dof] of a log that can be of the reference pose; between them the arm was elsewhere."""
    slots = [profile.joint_names.index(name) for name in reference_rad if name in profile.joint_names]
    truth = np.array([reference_rad[profile.joint_names[slot]] for slot in slots])
    near = (np.abs(readings[:, slots] - truth) <= MAX_OFFSET_RAD).all(axis=1)
    return np.asarray(readings[near])
