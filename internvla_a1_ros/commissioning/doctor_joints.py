"""Checks of what the joints measure: readable, inside their limits, not resting at one, and grippers that are the profile's."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.commissioning.doctor_facts import Facts, Joints, Stream
from internvla_a1_ros.commissioning.doctor_findings import Finding, ok, stop, warning
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.policy.agreement import GRIPPER_SLACK, check_robot_type, check_statistics
from internvla_a1_ros.policy.manifest import Manifest
from internvla_a1_ros.policy.statistics import Statistics
from internvla_a1_ros.robots.parts import Gripper
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Affine, JointTopic

# Encoders at rest are quiet to some milliradians; a joint that moved further during the window is not at rest.
REST_RAD = 0.02
# So close to a limit an arm leans on its stop, or its zero is wrong; the ready and home poses of the profiles are farther.
AT_LIMIT_RAD = 0.02
# Readouts of closed and open differ this share of the range from unit to unit without harm; then the gripper wants its own numbers.
GRIPPER_TOLERANCE = 0.05


def check_joints(profile: RobotProfile, facts: Facts) -> list[Finding]:
    """Return the findings on every state topic from which something came."""
    found = []
    for wire in profile.states:
        stream, joints = facts.streams[wire.topic], facts.joints[wire.topic]
        if len(stream.received_ns) == 0:
            continue
        found.append(check_readable(wire, stream, joints))
        if len(joints.positions) == 0:
            continue
        if not joints.positions.any():
            what = "every joint reads exactly 0: nothing measures"
            found.append(warning("range", f"joints {wire.topic}", what, "switch the arm on; look at its CAN bus and the driver's log"))
            continue
        found += check_range(profile, wire, joints)
        found += [check_gripper(profile, gripper, wire, joints) for gripper in profile.grippers if gripper.joint in wire.joints]
    return found


def check_readable(wire: JointTopic, stream: Stream, joints: Joints) -> Finding:
    """Do the messages hold the profile's joints, by name where they carry names, as finite numbers?"""
    subject = f"joints {wire.topic}"
    if stream.refused:
        what = f"{stream.refused} of {len(stream.received_ns)} messages refused: {stream.refusal}"
        bad = warning if len(joints.positions) else stop
        return bad("names", subject, what, "correct names, field or order in the profile, or look at the driver's log")
    if joints.names:
        return ok("names", subject, f"{len(wire.joints)} joints, by their names")
    return ok("names", subject, f"{len(wire.joints)} joints, by their place (the message has no names)")


def check_range(profile: RobotProfile, wire: JointTopic, joints: Joints) -> list[Finding]:
    """Are the arms' joints inside their limits, and if they rest, not at one? (A gripper may rest at its ends.)"""
    found: list[Finding] = []
    reads: list[str] = []
    for column, name in enumerate(wire.joints):
        i = profile.joint_names.index(name)
        if profile.is_gripper[i]:
            continue
        low, high = float(joints.positions[:, column].min()), float(joints.positions[:, column].max())
        lower, upper, margin = float(profile.lower[i]), float(profile.upper[i]), float(profile.margin[i])
        place = f"reads {low:.3f} to {high:.3f}, limits {lower:g} to {upper:g}"
        reads.append(f"{high:.2f}")
        if low < lower - margin or high > upper + margin:
            remedy = "arming is refused there: check zero, sign and unit of this joint, or move it inside by hand"
            found.append(stop("range", f"joint {name}", f"{place}: beyond by more than the margin {margin:g}", remedy))
        elif low < lower or high > upper:
            remedy = "move it inside by hand; where it is well, correct the limit in the profile"
            found.append(warning("range", f"joint {name}", f"{place}: beyond, within the margin", remedy))
        elif high - low < REST_RAD and min(low - lower, upper - high) < AT_LIMIT_RAD:
            remedy = "move it away from its stop; where it is not near one, check this joint's zero"
            found.append(warning("rest", f"joint {name}", f"{place}: rests at a limit", remedy))
    return found or [ok("range", f"joints {wire.topic}", f"inside their limits: {', '.join(reads)} rad")]


def check_gripper(profile: RobotProfile, gripper: Gripper, wire: JointTopic, joints: Joints) -> Finding:
    """Does the gripper read what the profile says it reads between closed and open?"""
    subject = f"gripper {gripper.joint}"
    readings = joints.positions[:, wire.joints.index(gripper.joint)]
    low, high = float(readings.min()), float(readings.max())
    beyond = _beyond(readings, gripper.closed, gripper.open)
    what = f"reads {low:.2f} to {high:.2f}, the profile {gripper.closed:g} closed and {gripper.open:g} open"
    if beyond > GRIPPER_SLACK:
        return stop("gripper", subject, what, "another generation of gripper: use the profile of this robot, or correct closed and open")
    if beyond > GRIPPER_TOLERANCE:
        return warning("gripper", subject, what, "read it closed and open on this unit and write both into the profile")
    return ok("gripper", subject, what)


def check_model(profile: RobotProfile, facts: Facts, manifest: Manifest, statistics: Statistics) -> list[Finding]:
    """Do profile, checkpoint and `stats.json` speak of one robot, and do the grippers read what was recorded?"""
    subject = f"checkpoint {manifest.name}"
    try:
        profile.require_known()
        check_robot_type(manifest, profile)
        check_statistics(statistics, statistics.action.width, profile)
    except ConfigurationError as problem:
        return [stop("statistics", subject, str(problem), "choose the checkpoint made for this robot, or correct the profile")]
    found = [ok("statistics", subject, f"made for {manifest.robot_type}; grippers were recorded within the profile's readings")]
    for gripper in profile.grippers:
        wire = next(wire for wire in profile.states if gripper.joint in wire.joints)
        positions = facts.joints[wire.topic].positions
        # A reading that cannot be the profile's was said already; what the model reads as 0 was not recorded.
        readings = positions[:, wire.joints.index(gripper.joint)]
        if len(readings) and not gripper.zero_state and _beyond(readings, gripper.closed, gripper.open) <= GRIPPER_TOLERANCE:
            found.append(_recorded(profile, gripper, readings, statistics))
    return found


def _recorded(profile: RobotProfile, gripper: Gripper, readings: FloatArray, statistics: Statistics) -> Finding:
    i = profile.joint_names.index(gripper.joint)
    assert isinstance(gripper.state, Affine)
    seen = gripper.state.scale * readings + gripper.state.offset
    low, high = float(statistics.state.minimum[i]), float(statistics.state.maximum[i])
    what = f"reads {float(np.median(seen)):.2f} in the model's unit, recorded were {low:.2f} to {high:.2f}"
    if _beyond(seen, low, high) > GRIPPER_SLACK:
        remedy = "the model never saw this: check the gripper map of the profile and what the recordings hold"
        return warning("statistics", f"gripper {gripper.joint}", what, remedy)
    return ok("statistics", f"gripper {gripper.joint}", what)


def _beyond(readings: FloatArray, end: float, other: float) -> float:
    """Return how far readings [n] lie outside the range between two ends, as a share of it."""
    low, high = sorted((end, other))
    outside = max(low - float(readings.min()), float(readings.max()) - high, 0.0)
    return outside / (high - low) if high > low else float(outside > 0)
