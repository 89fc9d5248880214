"""One hand of the cell as an expert moves it: where it is, how firmly it holds, and bounded steps of its command towards a goal."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import SIDES
from internvla_a1_ros.simulation.kinematics import ArmKinematics

# What the command runtime lets through (robots/arx_ac_one.yaml: motion): a demonstration that is faster would not be followed.
JOINT_SPEED_RAD_S = 1.5
STROKES_PER_S = 2.2
SETTLE_S = 0.12
STILL = np.zeros(3)
# Position [3] m and rotation [3, 3] of a tool, in the world.
Pose = tuple[FloatArray, FloatArray]


def smooth(value: float, low: float, high: float) -> float:
    """Return 0 below `low`, 1 above `high`, and a smooth step between."""
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3 - 2 * t)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one hand is and is told: tool point [3] and rotation [3, 3] measured, the same as commanded, openings in metres."""

    tool: FloatArray
    facing: FloatArray
    told_tool: FloatArray
    told_facing: FloatArray
    opening_m: float
    told_m: float

    @property
    def firm(self) -> float:
        """How firmly it holds something, 0 to 1: how much further the fingers would go if nothing were between them."""
        return smooth(self.opening_m - self.told_m, 0.008, 0.02) * smooth(self.opening_m, 0.015, 0.025)

    @property
    def tight(self) -> float:
        """0 to 1: it holds something and is told to close entirely."""
        return self.firm * (1 - smooth(self.told_m, 0.0, 0.015))


class Hand:
    """Writes one arm's part of a command [dof]. It keeps nothing from call to call."""

    def __init__(self, cell: Cell, side: str) -> None:
        self._cell, self._gripper = cell, cell.arms.gripper
        first = (cell.arms.joints + 1) * SIDES.index(side)
        self.arm, self.slot = slice(first, first + cell.arms.joints), first + cell.arms.joints
        self.kinematics = ArmKinematics(cell.model, side)
        self.base = np.array([cell.config.base_forward_m, cell.config.arm_spacing_m / 2 * (1 if side == "left" else -1)])

    def look(self) -> Sight:
        """Return where the hand is now and where it is told to be."""
        measured, goal = self._cell.joint_state()[0], self._cell.goal()
        opening_m, told_m = (self._gripper.opening(float(q[self.slot])) for q in (measured, goal))
        return Sight(*self.kinematics.forward(measured[self.arm]), *self.kinematics.forward(goal[self.arm]), opening_m, told_m)

    def off_rad(self, joints: FloatArray, which: slice = slice(None)) -> float:
        """Return how far the measured joints, or those of `which`, are at most from `joints`."""
        measured = self._cell.joint_state()[0][self.arm]
        return float(np.abs(measured - joints)[which].max())

    def natural_yaw(self, point: FloatArray) -> float:
        """Return the yaw along which a hand that points down at `point` closes without turning its wrist."""
        return float(np.pi / 2 + np.arctan2(point[1] - self.base[1], point[0] - self.base[0]))

    def grip(self, command: FloatArray, closing: float, dt_s: float) -> None:
        """Close (1) or open (-1) at up to `STROKES_PER_S`."""
        told_m = self._gripper.opening(float(command[self.slot])) - closing * STROKES_PER_S * dt_s * self._gripper.opening_m
        command[self.slot] = self._gripper.readout(float(np.clip(told_m, 0.0, self._gripper.opening_m)))

    def reach(self, command: FloatArray, pose: Pose, speeds: tuple[float, float], dt_s: float, drift: FloatArray = STILL) -> None:
        """Move the tool towards a pose, settling on it, at most at `speeds` (m/s, rad/s); `drift` [3] m comes on top, as of a belt."""
        position, rotation = pose
        at, facing = self.kinematics.forward(command[self.arm])
        share = 1 - np.exp(-dt_s / SETTLE_S)
        step = share * (position - at - drift)
        step *= min(1.0, speeds[0] * dt_s / max(float(np.linalg.norm(step)), 1e-12))
        wanted = self.kinematics.solve(command[self.arm], at + drift + step, part_way(facing, rotation, share, speeds[1] * dt_s))
        command[self.arm] += bounded(wanted - command[self.arm], JOINT_SPEED_RAD_S * dt_s)

    def swing(self, command: FloatArray, joints: FloatArray, speed_rad_s: float, dt_s: float) -> None:
        """Move all joints together towards `joints`, settling on them; none faster than `speed_rad_s`."""
        step = (1 - np.exp(-dt_s / SETTLE_S)) * (joints - command[self.arm])
        step *= min(1.0, speed_rad_s * dt_s / max(float(np.abs(step).max()), 1e-12))
        command[self.arm] += step


def bounded(turn: FloatArray, most_rad: float) -> FloatArray:
    """Return a step of all joints [n] of which none is above `most_rad`.

    The last one, which rolls the hand about the tool's point, is cut by itself; the others together, so that the way stays the same.
    """
    others = turn[:-1] * min(1.0, most_rad / max(float(np.abs(turn[:-1]).max()), 1e-12))
    return np.append(others, np.clip(turn[-1], -most_rad, most_rad))


def part_way(now: FloatArray, goal: FloatArray, share: float, most_rad: float) -> FloatArray:
    """Return the rotation [3, 3] that is `share` of the way from `now` to `goal`, but at most `most_rad` away from `now`."""
    quaternion, axis, turn = np.empty(4), np.empty(3), np.empty(9)
    mujoco.mju_mat2Quat(quaternion, (goal @ now.T).reshape(9))
    mujoco.mju_quat2Vel(axis, quaternion, 1.0)
    angle = float(np.linalg.norm(axis))
    mujoco.mju_axisAngle2Quat(quaternion, axis / max(angle, 1e-12), min(share * angle, most_rad))
    mujoco.mju_quat2Mat(turn, quaternion)
    return turn.reshape(3, 3) @ now


def angle_between(a: FloatArray, b: FloatArray) -> float:
    """Return the angle between two rotations [3, 3]."""
    return float(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1.0, 1.0)))
