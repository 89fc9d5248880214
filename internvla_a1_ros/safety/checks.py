"""What may be planned, armed, reset, resumed: small predicates, each with what was got and what is allowed in its reason.

Nothing is repaired here. A plan is taken whole or refused whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from internvla_a1_ros.core.types import ACCEPTED, ActionChunk, FloatArray, Verdict, refused
from internvla_a1_ros.robots.profile import RobotProfile

# What the timeline has room for; the policies of this family plan 50.
MAX_ACTIONS = 256
# Two clocks of one machine, read one after the other, differ by less.
FUTURE_TOLERANCE_NS = 20_000_000
# No robot is told what to do more often; closer knots are too close for the plan's spline.
MIN_STEP_NS = 1_000_000
# Times on the wire are whole nanoseconds of k * dt, rounded.
_SPACING_TOLERANCE_NS = 1_000


def wire_chunk(
    profile: RobotProfile,
    robot: str,
    names: Sequence[str],
    stamp_ns: int,
    offsets_ns: Sequence[int],
    positions: Sequence[Sequence[float]] | FloatArray,
) -> ActionChunk | Verdict:
    """Return what came over a wire as a chunk in the profile's joint order, or why it is none.

    `offsets_ns` [H] are the actions' times after `stamp_ns`, evenly spaced; `positions` [H, dof] in the order of `names`.
    """
    if sorted(names) != sorted(profile.joint_names):
        return refused("names", f"plan: got joints {_difference(names, profile.joint_names)}")
    if len(offsets_ns) < 2 or len(offsets_ns) != len(positions):
        return refused("malformed", f"plan: got {len(positions)} actions with {len(offsets_ns)} times, expected at least 2, as many")
    dt_ns = offsets_ns[1] - offsets_ns[0]
    if dt_ns <= 0 or any(abs(b - a - dt_ns) > _SPACING_TOLERANCE_NS for a, b in pairwise(offsets_ns)):
        return refused("malformed", "plan: got unevenly spaced times, expected them rising by a constant step")
    try:
        values = np.array(positions, dtype=np.float64)
    except (TypeError, ValueError):
        return refused("malformed", f"plan: got actions that are not {profile.dof} numbers each")
    if values.shape != (len(offsets_ns), profile.dof):
        return refused("malformed", f"plan: got positions of shape {values.shape}, expected {(len(offsets_ns), profile.dof)}")
    order = [names.index(name) for name in profile.joint_names]
    finite = np.isfinite(values[:, order])
    if not finite.all():
        step, joint = (int(i) for i in np.argwhere(~finite)[0])
        got = values[step, order[joint]]
        return refused("not_finite", f"plan: got {got} for joint '{profile.joint_names[joint]}' at action {step}, expected a finite number")
    return ActionChunk(robot, profile.joint_names, stamp_ns, stamp_ns + offsets_ns[0], dt_ns, values[:, order])


def check_chunk(chunk: ActionChunk, profile: RobotProfile, robot: str, now_ns: int, epochs: Mapping[str, int]) -> Verdict:
    """Return whether a chunk may become part of the plan at `now_ns`.

    `epochs` says when something happened before which no observation counts: the chunk must not be stamped before any of them.
    """
    return (
        _of_robot(chunk, robot)
        and _of_joints(chunk, profile)
        and _of_some_size(chunk)
        and _not_before(chunk, epochs)
        and _not_in_future(chunk, profile, now_ns)
        and _not_too_old(chunk, profile, now_ns)
        and _within_margin(chunk, profile)
    )


def _of_robot(chunk: ActionChunk, robot: str) -> Verdict:
    if chunk.robot == robot:
        return ACCEPTED
    return refused("robot", f"plan: got one for robot '{chunk.robot}', expected '{robot}'")


def _of_joints(chunk: ActionChunk, profile: RobotProfile) -> Verdict:
    if chunk.joint_names == profile.joint_names:
        return ACCEPTED
    if sorted(chunk.joint_names) == sorted(profile.joint_names):
        return refused("names", "plan: got the joints in another order than the profile's")
    return refused("names", f"plan: got joints {_difference(chunk.joint_names, profile.joint_names)}")


def _of_some_size(chunk: ActionChunk) -> Verdict:
    if chunk.dt_ns < MIN_STEP_NS:
        return refused("malformed", f"plan: got actions {chunk.dt_ns} ns apart, expected at least {MIN_STEP_NS}")
    if len(chunk.positions) <= MAX_ACTIONS:
        return ACCEPTED
    return refused("malformed", f"plan: got {len(chunk.positions)} actions, allowed {MAX_ACTIONS}")


def _not_before(chunk: ActionChunk, epochs: Mapping[str, int]) -> Verdict:
    for name, epoch_ns in epochs.items():
        if chunk.stamp_ns < epoch_ns:
            early_s = (epoch_ns - chunk.stamp_ns) * 1e-9
            return refused(
                f"before_{name}",
                f"plan: its observation is from {early_s:.3f} s before the last {name.replace('_', ' ')}, expected one after",
            )
    return ACCEPTED


def _not_in_future(chunk: ActionChunk, profile: RobotProfile, now_ns: int) -> Verdict:
    ahead_ns = chunk.stamp_ns - now_ns
    if ahead_ns > FUTURE_TOLERANCE_NS:
        return refused(
            "future", f"plan: its observation is {ahead_ns * 1e-9:.3f} s in the future, allowed {FUTURE_TOLERANCE_NS * 1e-9:.3f} s"
        )
    starts_s = (chunk.first_ns - now_ns) * 1e-9
    if starts_s > profile.max_open_loop_s:
        return refused("future", f"plan: it starts in {starts_s:.3f} s, allowed {profile.max_open_loop_s:.3f} s")
    return ACCEPTED


def _not_too_old(chunk: ActionChunk, profile: RobotProfile, now_ns: int) -> Verdict:
    age_s = (now_ns - chunk.stamp_ns) * 1e-9
    if age_s > profile.max_chunk_age_s:
        return refused("too_old", f"plan: its observation is {age_s:.3f} s old, allowed {profile.max_chunk_age_s:.3f} s")
    over_ns = now_ns - chunk.end_ns
    if over_ns >= 0:
        return refused("too_old", f"plan: it ended {over_ns * 1e-9:.3f} s ago")
    return ACCEPTED


def _within_margin(chunk: ActionChunk, profile: RobotProfile) -> Verdict:
    lowest, highest = profile.lower - profile.margin, profile.upper + profile.margin
    beyond = (chunk.positions < lowest) | (chunk.positions > highest)
    if not beyond.any():
        return ACCEPTED
    step, joint = (int(i) for i in np.argwhere(beyond)[0])
    return refused(
        "beyond_limit",
        f"plan: got {chunk.positions[step, joint]:.4f} for joint '{profile.joint_names[joint]}' at action {step}, "
        f"allowed {lowest[joint]:.4f} to {highest[joint]:.4f} (limits with margin)",
    )


def check_estop(level: bool, edge: bool, silent_s: float | None, timeout_s: float | None) -> Verdict:
    """Return whether the e-stop is released: not pressed now or since the last tick, its heartbeat not silent for too long."""
    if level or edge:
        return refused("estop", "the e-stop is pressed")
    return ACCEPTED if silent_s is None else check_heartbeat(silent_s, timeout_s)


def check_heartbeat(silent_s: float | None, timeout_s: float | None) -> Verdict:
    """Return whether the e-stop's heartbeat, last heard `silent_s` ago (None = never), is there; all is well where none is expected."""
    if timeout_s is None:
        return ACCEPTED
    if silent_s is None:
        return refused("heartbeat", "the e-stop's heartbeat was never heard")
    if silent_s > timeout_s:
        return refused("heartbeat", f"the e-stop's heartbeat is silent for {silent_s:.3f} s, allowed {timeout_s:.3f} s")
    return ACCEPTED


def check_joints(age_s: float | None, profile: RobotProfile) -> Verdict:
    """Return whether the last measurement, `age_s` old (None = none yet), says where the arms are."""
    if age_s is None:
        return refused("no_joints", "no joint state was received yet")
    if age_s > profile.max_state_age_s:
        return refused("stale_joints", f"the joint state is {age_s:.3f} s old, allowed {profile.max_state_age_s:.3f} s")
    if age_s < -profile.max_state_age_s:  # both its stamp and its receipt: time has gone back
        return refused("stale_joints", f"the joint state comes from {-age_s:.3f} s ahead, allowed {profile.max_state_age_s:.3f} s")
    return ACCEPTED


def check_alone(foreign_publisher: str | None) -> Verdict:
    """Return whether nobody else can command the arms."""
    if foreign_publisher is None:
        return ACCEPTED
    return refused("foreign_publisher", f"someone else can command the arms: {foreign_publisher}")


def check_rest(at_rest: bool) -> Verdict:
    """Return whether the arms have come to rest."""
    return ACCEPTED if at_rest else refused("moving", "the arms are still braking: try again in a moment")


def check_pose(measured: FloatArray, profile: RobotProfile) -> Verdict:
    """Return whether a measured pose [dof] is one the profile knows: outside its limits by at most the margin."""
    lowest, highest = profile.lower - profile.margin, profile.upper + profile.margin
    for i in np.flatnonzero((measured < lowest) | (measured > highest)):
        return refused(
            "pose",
            f"joint '{profile.joint_names[i]}' is at {measured[i]:.4f}, "
            f"allowed {lowest[i]:.4f} to {highest[i]:.4f} (limits with margin): move it by hand or correct the profile",
        )
    return ACCEPTED


def check_moved(commanded: FloatArray, measured: FloatArray, profile: RobotProfile) -> Verdict:
    """Return whether the arms still are where they were commanded, within the allowed tracking error [dof]."""
    for i in np.flatnonzero(np.abs(commanded - measured) > profile.max_tracking_error):
        return refused(
            "moved",
            f"joint '{profile.joint_names[i]}' is at {measured[i]:.4f}, commanded {commanded[i]:.4f}, "
            f"allowed distance {profile.max_tracking_error[i]:.4f}: disarm and arm again",
        )
    return ACCEPTED


def _difference(got: Sequence[str], expected: Sequence[str]) -> str:
    missing = [name for name in expected if name not in got]
    unknown = [name for name in got if name not in expected]
    twice = sorted({name for name in got if got.count(name) > 1})
    parts = [f"{what} {names}" for what, names in (("without", missing), ("with unknown", unknown), ("with repeated", twice)) if names]
    return " and ".join(parts)
