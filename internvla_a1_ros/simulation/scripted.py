"""A scripted expert that sees the truth: it takes a parcel off the moving belt and lifts it.

Every quantity follows smoothly from errors (how far off, how low, how firm), not from phases with thresholds, so that a policy
can learn the same motion from pictures.
"""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.hand import Hand, smooth
from internvla_a1_ros.simulation.kinematics import facing_down
from internvla_a1_ros.simulation.parcels import Parcel

HOVER_M = 0.11
LIFT_M = 0.14
# The fingers end 33 mm below the tool's point: 9 mm stay between them and the belt.
GRIP_ABOVE_BELT_M = 0.042
# Servos follow some 40 ms late: aim at where the parcel will be.
LEAD_S = 0.045
HAND_SPEED_M_S = 0.45
LIFT_SPEED_M_S = 0.20
TURN_RAD_S = 5.0
# Along the belt, from the arm's base, upstream and downstream of it.
REACH_M = (0.16, 0.20)
# Of the two ways to close across a parcel the hand turns to the nearer one that is not too far from this: half-way between the ends
# of where parcels are gripped.
USUAL_YAW_RAD = np.pi / 2 - 0.1
MOST_OFF_RAD = np.pi / 2 + 0.15


class PickFromBelt:
    """Follows one parcel with one arm; call `act` at a fixed rate and command what it returns.

    It keeps nothing from one call to the next: where the arm is told to be is read from the cell, so that it goes on from wherever
    noise, another expert or a policy has brought it. `aside_m` is how far from the parcel's middle it grips, along the hand's z.
    """

    def __init__(self, cell: Cell, side: str, slot: int, aside_m: float = 0.0) -> None:
        self._cell, self._slot, self._aside_m = cell, slot, aside_m
        self._hand = Hand(cell, side)

    def act(self, dt_s: float) -> FloatArray:
        """Return the command [dof] for the next `dt_s`: this arm's motion, the other one's goal unchanged."""
        command = self._cell.goal()
        parcel = next((p for p in self._cell.parcels() if p.slot == self._slot), None)
        if parcel is not None:
            self._follow(parcel, command, dt_s)
        return command

    def _follow(self, parcel: Parcel, command: FloatArray, dt_s: float) -> None:
        """Write this arm's part of the command."""
        sight = self._hand.look()
        yaw = _closing_yaw(parcel, sight.told_facing)
        # The hand's own z lies along the parcel.
        spot = parcel.position_m + self._aside_m * np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        off_m = float(np.linalg.norm(sight.tool[:2] - spot[:2])) + 0.05 * _angle(sight.facing[:, 1], yaw)
        height = self._cell.config.belt.top_m + GRIP_ABOVE_BELT_M
        above_m = float(sight.tool[2]) - height
        in_place = (1 - smooth(off_m, 0.008, 0.02)) * (1 - smooth(above_m, 0.008, 0.02))
        carried = sight.firm * smooth(above_m, 0.0, 0.03)
        # Closing takes some time at the parcel's side; closed on nothing, or not in place, the hand opens again.
        self._hand.grip(command, 2 * max(in_place, sight.firm) - 1, dt_s)

        aim = spot + LEAD_S * parcel.velocity_m_s
        base_y = float(self._hand.base[1])
        y = float(np.clip(aim[1], base_y - REACH_M[1], base_y + REACH_M[0]))
        # Down only where the fingers pass by the parcel: one that is touched topples.
        hover_m = HOVER_M * smooth(off_m, 0.009, 0.028) * (1 - sight.firm)
        goal = np.array([aim[0], y, height + hover_m + LIFT_M * sight.tight])
        goal[:2] += carried * (sight.told_tool[:2] - goal[:2])
        # The belt's own motion is no error to be settled: the hand drifts along with a parcel in reach.
        following = (1 - carried) * (1 - smooth(abs(aim[1] - y), 0.0, 0.02))
        drift = np.array([0.0, -self._cell.belt_speed_m_s * dt_s * following, 0.0])
        speed = HAND_SPEED_M_S + (LIFT_SPEED_M_S - HAND_SPEED_M_S) * sight.tight
        self._hand.reach(command, (goal, facing_down(yaw)), (speed, TURN_RAD_S), dt_s, drift)


def _closing_yaw(parcel: Parcel, facing: FloatArray) -> float:
    """Across the parcel's long side, the way round that is nearer to a hand `facing` [3, 3] so: once begun, a turn goes on."""
    along = parcel.rotation[:, 0]
    off = (np.arctan2(along[1], along[0]) + np.pi / 2 - USUAL_YAW_RAD) % np.pi - np.pi  # from the usual one, -pi to 0
    now = (np.arctan2(facing[1, 1], facing[0, 1]) - USUAL_YAW_RAD + np.pi) % (2 * np.pi) - np.pi
    possible = [way for way in (off, off + np.pi) if abs(way) <= MOST_OFF_RAD]
    return float(USUAL_YAW_RAD + min(possible, key=lambda way: abs(way - now)))


def _angle(direction: FloatArray, yaw_rad: float) -> float:
    """Angle between a direction's horizontal part and a yaw, either way round."""
    difference = (np.arctan2(direction[1], direction[0]) - yaw_rad + np.pi / 2) % np.pi - np.pi / 2
    return float(abs(difference))
