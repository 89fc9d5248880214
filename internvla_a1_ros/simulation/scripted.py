"""A scripted expert that sees the truth: it takes a parcel off the moving belt and lifts it.

Every quantity follows smoothly from errors (how far off, how low, how firm), not from phases with thresholds, so that a policy
can learn the same motion from pictures.
"""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import SIDES
from internvla_a1_ros.simulation.kinematics import ArmKinematics, facing_down
from internvla_a1_ros.simulation.parcels import Parcel

HOVER_M = 0.11
LIFT_M = 0.14
# The fingers end 33 mm below the tool's point: 9 mm stay between them and the belt.
GRIP_ABOVE_BELT_M = 0.042
# Servos follow some 40 ms late: aim at where the parcel will be.
LEAD_S = 0.045
HAND_SPEED_M_S = 0.45
LIFT_SPEED_M_S = 0.20
JOINT_SPEED_RAD_S = 2.5
CLOSE_PER_S = 3.0
SETTLE_S = 0.12
# Along the belt, from the arm's base, upstream and downstream of it.
REACH_M = (0.16, 0.20)


def smooth(value: float, low: float, high: float) -> float:
    """Return 0 below `low`, 1 above `high`, and a smooth step between."""
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3 - 2 * t)


class PickFromBelt:
    """Follows one parcel with one arm; call `act` at a fixed rate and command what it returns.

    It keeps nothing from one call to the next: where the arm is told to be is read from the cell, so that it goes on from wherever
    noise, another expert or a policy has brought it.
    """

    def __init__(self, cell: Cell, side: str, slot: int) -> None:
        self._cell, self._slot = cell, slot
        self._gripper = cell.arms.gripper
        first = (cell.arms.joints + 1) * SIDES.index(side)
        self._arm, self._hand_slot = slice(first, first + cell.arms.joints), first + cell.arms.joints
        self._kinematics = ArmKinematics(cell.model, side)
        self._base_y = cell.config.arm_spacing_m / 2 * (1 if side == "left" else -1)

    def act(self, dt_s: float) -> FloatArray:
        """Return the command [dof] for the next `dt_s`: this arm's motion, the other one's goal unchanged."""
        command = self._cell.goal()
        parcel = next((p for p in self._cell.parcels() if p.slot == self._slot), None)
        if parcel is not None:
            self._follow(parcel, command, dt_s)
        return command

    def _follow(self, parcel: Parcel, command: FloatArray, dt_s: float) -> None:
        """Write this arm's part of the command."""
        measured, _ = self._cell.joint_state()
        tool, facing = self._kinematics.forward(measured[self._arm])
        hand, _ = self._kinematics.forward(command[self._arm])
        opening_m, told_m = (self._gripper.opening(float(q[self._hand_slot])) for q in (measured, command))
        yaw = self._closing_yaw(parcel)
        off_m = float(np.linalg.norm(tool[:2] - parcel.position_m[:2])) + 0.03 * _angle(facing[:, 1], yaw)
        height = self._cell.config.belt.top_m + GRIP_ABOVE_BELT_M
        in_place = (1 - smooth(off_m, 0.008, 0.02)) * (1 - smooth(tool[2] - height, 0.008, 0.02))
        # Firm is how much further the fingers would go if nothing were between them.
        firm = smooth(opening_m - told_m, 0.008, 0.02) * smooth(opening_m, 0.015, 0.025)
        carried = firm * smooth(tool[2] - height, 0.0, 0.03)
        # Closing takes some time at the parcel's side; closed on nothing, or not in place, the hand opens again.
        closing = CLOSE_PER_S * dt_s * self._gripper.opening_m * (2 * max(in_place, firm) - 1)
        command[self._hand_slot] = self._gripper.readout(float(np.clip(told_m - closing, 0.0, self._gripper.opening_m)))

        aim = parcel.position_m + LEAD_S * parcel.velocity_m_s
        y = float(np.clip(aim[1], self._base_y - REACH_M[1], self._base_y + REACH_M[0]))
        lifting = firm * (1 - smooth(told_m, 0.0, 0.015))
        goal = np.array([aim[0], y, height + HOVER_M * smooth(off_m, 0.012, 0.05) * (1 - firm) + LIFT_M * lifting])
        goal[:2] += carried * (hand[:2] - goal[:2])
        # The belt's own motion is no error to be settled: the hand drifts along with a parcel in reach.
        following = (1 - carried) * (1 - smooth(abs(aim[1] - y), 0.0, 0.02))
        drift = np.array([0.0, -self._cell.belt_speed_m_s * dt_s * following, 0.0])
        step = (goal - hand - drift) * (1 - np.exp(-dt_s / SETTLE_S))
        speed = HAND_SPEED_M_S + (LIFT_SPEED_M_S - HAND_SPEED_M_S) * lifting
        step *= min(1.0, speed * dt_s / max(float(np.linalg.norm(step)), 1e-12))
        wanted = self._kinematics.solve(command[self._arm], hand + drift + step, facing_down(yaw))
        reach = JOINT_SPEED_RAD_S * dt_s
        command[self._arm] += np.clip(wanted - command[self._arm], -reach, reach)

    def _closing_yaw(self, parcel: Parcel) -> float:
        """Across the parcel's long side, of the two ways the one that turns the wrist less."""
        along = parcel.rotation[:, 0]
        natural = np.pi / 2 + np.arctan2(parcel.position_m[1] - self._base_y, parcel.position_m[0])
        yaw = np.arctan2(along[1], along[0]) + np.pi / 2
        return float(natural + (yaw - natural + np.pi / 2) % np.pi - np.pi / 2)


def _angle(direction: FloatArray, yaw_rad: float) -> float:
    """Angle between a direction's horizontal part and a yaw, either way round."""
    difference = (np.arctan2(direction[1], direction[0]) - yaw_rad + np.pi / 2) % np.pi - np.pi / 2
    return float(abs(difference))
