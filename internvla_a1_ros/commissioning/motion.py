"""The small motion that delays are measured from: its shape, when it may be made, and the plan that makes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from internvla_a1_ros.core.types import ACCEPTED, ActionChunk, FloatArray, Verdict, refused
from internvla_a1_ros.robots.profile import RobotProfile

DEFAULT_AMPLITUDE_RAD, MAX_AMPLITUDE_RAD = 0.03, 0.1
# Rest before it lets the command process ramp into the plan first, rest after it lets the slowest camera see its end.
STILL_S = 1.2
MOVING_S = 5.0
WHOLE_S = MOVING_S + 2 * STILL_S
# A beat of two frequencies repeats nowhere within the motion: one shift fits, and none a period further.
_HZ = (0.7, 1.13)
_ACTIONS, _DT_NS = 50, 33_333_333
# The command process says its state ten times a second.
MAX_STATE_AGE_S = 1.0


def small_motion(elapsed_s: FloatArray) -> FloatArray:
    """Return a smooth motion at times [n] from its start, between -1 and 1: at rest for the first and the last `STILL_S`."""
    t = np.clip(elapsed_s - STILL_S, 0.0, MOVING_S)
    window = np.sin(np.pi * t / MOVING_S) ** 2
    return np.asarray(window * sum(np.sin(2 * np.pi * hz * t) for hz in _HZ) / len(_HZ))


def check_motion(profile: RobotProfile, pose: FloatArray, joint: str, amplitude_rad: float) -> Verdict:
    """Return whether `joint` may be moved by the amplitude about the `pose` [dof]."""
    arms = [each.name for each in profile.joints if each.kind == "arm"]
    if joint not in arms:
        return refused("joint", f"move: got joint '{joint}', expected an arm joint: {', '.join(arms)}")
    if not 0.0 < amplitude_rad <= MAX_AMPLITUDE_RAD:
        return refused("amplitude", f"move: got an amplitude of {amplitude_rad:g} rad, allowed up to {MAX_AMPLITUDE_RAD:g}")
    i = profile.joint_names.index(joint)
    if not profile.lower[i] + amplitude_rad <= pose[i] <= profile.upper[i] - amplitude_rad:
        return refused(
            "limit",
            f"move: joint '{joint}' is at {pose[i]:.3f}, {amplitude_rad:g} rad about it must lie within "
            f"{profile.lower[i]:g} to {profile.upper[i]:g}: move it away from its limit",
        )
    return ACCEPTED


def check_armed(state: Mapping[str, str], instance: str, age_s: float) -> Verdict:
    """Return whether the command process, `state` heard `age_s` ago, would carry out a plan for this robot instance."""
    if not state or age_s > MAX_STATE_AGE_S:
        return refused("silent", "move: the command process does not say its state: start it, then arm it")
    if state.get("instance") != instance:
        return refused("instance", f"move: the command process drives '{state.get('instance')}', expected '{instance}': see --instance")
    if state.get("dry_run") != "False":
        return refused("dry_run", "move: the command process runs dry, so nothing would move: start it with dry_run:=false")
    if state.get("armed") != "True":
        return refused("not_armed", "move: the command process is not armed: call /command/arm first")
    if state.get("mode") not in ("hold", "ramp_in", "run"):
        return refused("mode", f"move: the command process is in '{state.get('mode')}', expected hold or run: {state.get('reason', '')}")
    return ACCEPTED


def motion_chunk(
    profile: RobotProfile, instance: str, pose: FloatArray, joint: str, amplitude_rad: float, began_ns: int, now_ns: int
) -> ActionChunk:
    """Return the next 1.7 s of the motion that began at `began_ns` at the `pose` [dof], every other joint staying there."""
    first_ns = now_ns + _DT_NS
    elapsed_s = np.asarray((first_ns - began_ns + _DT_NS * np.arange(_ACTIONS)) * 1e-9, dtype=np.float64)
    positions = np.tile(pose, (_ACTIONS, 1))
    positions[:, profile.joint_names.index(joint)] += amplitude_rad * small_motion(elapsed_s)
    return ActionChunk(instance, profile.joint_names, now_ns, first_ns, _DT_NS, positions)
