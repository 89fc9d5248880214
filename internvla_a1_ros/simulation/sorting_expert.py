"""A scripted expert that sees the truth and sorts: what it does follows smoothly from the cell's state and from the trial's stage."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.config import SIDES
from internvla_a1_ros.simulation.hand import Hand, Sight, angle_between, smooth
from internvla_a1_ros.simulation.kinematics import facing_down
from internvla_a1_ros.simulation.scripted import PickFromBelt
from internvla_a1_ros.simulation.sorting import SortingTrial

# Height of the tool's point: clear of bins and belt, and where it lets go.
CARRY_M, DROP_M = 0.22, 0.085
# Of a hand, m/s and rad/s; of joints that swing together, rad/s.
SPEEDS = (0.40, 1.5)
LIFT_M = 0.06
SWING_RAD_S = 1.2

# Joints in rad. The hand-over was found by a search over places and tilts (both arms' inverse kinematics) for the most room to every
# joint's limits, 0.9 rad: the hands meet at right angles above (0.24, 0.02, 0.28), both pointing down and towards each other.
GIVE = np.array([0.522, 1.391, 1.073, -0.703, -0.566, -1.106])
GIVEN = np.array([0.276, 1.303, 1.313, -1.190, -0.678, -1.377])
TAKE = np.array([-0.397, 1.146, 0.909, -0.654, 0.597, 0.957])
# The label 18 degrees off the direction to the head camera, 0.45 m from it, with the joints turned as little as that takes.
SHOW = np.array([0.131, 1.519, 1.245, -1.411, 1.379, -0.500])
# Above the bin and in it, with the parcel tilted by some 30 degrees so that it falls flat.
OVER = {"left": np.array([0.049, 1.670, 0.745, -1.392, 0.876, -0.693]), "right": np.array([-0.736, 2.096, 1.379, -1.256, 1.056, -1.112])}
INTO = {"left": np.array([0.049, 2.057, 0.649, -0.910, 0.876, -0.693]), "right": np.array([-0.736, 2.327, 1.289, -0.935, 1.056, -1.112])}
# Leaves the end of the parcel to the left hand.
ASIDE_M = -0.012
BACK_M = 0.08


class SortingExpert:
    """Acts in one trial. It keeps nothing from call to call, so it goes on from wherever noise or a policy has brought it."""

    def __init__(self, trial: SortingTrial) -> None:
        self._trial, self._cell = trial, trial.cell
        self._left, self._right = (Hand(trial.cell, side) for side in SIDES)
        self._pick = PickFromBelt(trial.cell, "right", trial.slot, ASIDE_M if trial.conditions.label == "down" else 0.0)
        self._bins = {name: np.array(box.centre_m) for name, box in trial.cell.config.bins.items()}
        self._taking = self._left.kinematics.forward(TAKE)
        self._ready = np.array(trial.cell.config.start_rad)

    def act(self, dt_s: float) -> FloatArray:
        """Return the command [dof], in robot units, to be reached `dt_s` from now."""
        stage = self._trial.stage
        command = self._pick.act(dt_s) if stage == "grasp" else self._cell.goal()
        if stage == "place":
            self._place(command, dt_s)
        elif stage == "flip":
            self._flip(command, dt_s)
        elif stage == "show":
            self._show(command, dt_s)
        elif stage == "place_flipped":
            self._place_flipped(command, dt_s)
        if stage != "flip":
            self._rest(self._left if stage in ("grasp", "place") else self._right, command, dt_s)
        return command

    def _rest(self, hand: Hand, command: FloatArray, dt_s: float) -> None:
        """The hand that has nothing to do goes out of the other one's way."""
        hand.swing(command, self._ready, SWING_RAD_S, dt_s)
        hand.grip(command, -1.0, dt_s)

    def _place(self, command: FloatArray, dt_s: float) -> None:
        """The right hand goes up, over its bin, down, opens, and goes up again."""
        hand = self._right
        sight, bin_m = hand.look(), self._bins[self._trial.conditions.route]
        off_m = float(np.linalg.norm(sight.tool[:2] - bin_m))
        in_place = (1 - smooth(off_m, 0.015, 0.03)) * (1 - smooth(sight.tool[2] - DROP_M, 0.015, 0.03))
        opening = max(in_place, 1 - sight.firm)
        hand.grip(command, 1 - 2 * opening, dt_s)
        low = (1 - smooth(off_m, 0.015, 0.08)) * (1 - smooth(sight.told_m, 0.07, 0.082))
        height = CARRY_M + (DROP_M - CARRY_M) * low
        # Upwards first: sideways only as the parcel gets clear of the bins' walls.
        clear = max(smooth(sight.tool[2], 0.10, 0.16), 1 - smooth(off_m, 0.03, 0.06))
        goal = np.array([*(sight.told_tool[:2] + clear * (bin_m - sight.told_tool[:2])), height])
        hand.reach(command, (goal, facing_down(hand.natural_yaw(sight.told_tool))), SPEEDS, dt_s)

    def _flip(self, command: FloatArray, dt_s: float) -> None:
        """The right hand lifts the parcel to where the left one waits; that takes its end; the right one lets go and goes back."""
        right, left = self._right.look(), self._left.look()
        taken = left.tight
        self._right.grip(command, 1 - 2 * taken, dt_s)
        given = taken * smooth(right.told_m, 0.06, 0.08)
        clear = max(smooth(right.tool[2], 0.09, 0.15), taken)
        up = right.told_tool + np.array([0.0, 0.0, LIFT_M * (1 - clear)])
        self._right.reach(command, (up, right.told_facing), SPEEDS, dt_s)
        self._right.swing(command, GIVE + given * (GIVEN - GIVE), clear * SWING_RAD_S, dt_s)

        held_out = max(taken, right.firm * (1 - smooth(self._right.off_rad(GIVE), 0.05, 0.15)))
        self._take(command, left, held_out, dt_s)

    def _take(self, command: FloatArray, left: Sight, held_out: float, dt_s: float) -> None:
        """The left hand stands back on a line through the parcel; along that line it goes to take it, where it is on it."""
        place, facing = self._taking
        beside = left.tool - place
        back_m = float(-beside @ facing[:, 0])
        off_m = float(np.linalg.norm(beside + back_m * facing[:, 0])) + 0.05 * angle_between(left.facing, facing)
        near = max(left.tight, held_out * (1 - smooth(off_m, 0.008, 0.025)))
        goal = place - BACK_M * (1 - near) * facing[:, 0]
        self._left.reach(command, (goal, facing), SPEEDS, dt_s)
        around = near * (1 - smooth(back_m, 0.006, 0.015))
        self._left.grip(command, 2 * max(around, left.tight) - 1, dt_s)

    def _show(self, command: FloatArray, dt_s: float) -> None:
        """The left hand turns the label to the head camera."""
        self._left.grip(command, 1.0, dt_s)
        self._left.swing(command, SHOW, SWING_RAD_S, dt_s)

    def _place_flipped(self, command: FloatArray, dt_s: float) -> None:
        """The left hand goes over the bin, down, opens, and goes up again."""
        route = self._trial.conditions.route
        sight = self._left.look()
        in_place = 1 - smooth(self._left.off_rad(INTO[route]), 0.05, 0.12)
        self._left.grip(command, 1 - 2 * max(in_place, 1 - sight.firm), dt_s)
        beside = self._left.off_rad(OVER[route], slice(0, 1))
        low = (1 - smooth(beside, 0.05, 0.2)) * (1 - smooth(sight.told_m, 0.07, 0.082))
        self._left.swing(command, OVER[route] + low * (INTO[route] - OVER[route]), SWING_RAD_S, dt_s)
