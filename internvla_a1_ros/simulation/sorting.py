"""Express sorting as a trial: a parcel is taken off the belt, turned where its label lies down, and put into the bin it is for."""

from __future__ import annotations

from typing import Literal

import mujoco
import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.parcels import Parcel
from internvla_a1_ros.simulation.trial import HELD_S, PARCEL, PICK, Conditions, Trial

Stage = Literal["grasp", "flip", "show", "place", "place_flipped"]
# As launch/cells/express_sorting.yaml says it, step by step.
SAID: dict[Stage, str] = {
    "grasp": PICK[PARCEL],
    "flip": "Flip the parcel with the right arm and take it over with the left arm.",
    "show": "Lift the parcel and show its label to the head camera.",
    "place": "Place the parcel in the {route} bin.",
    "place_flipped": "Place the parcel in the {route} bin.",
}

# A label is shown where the head camera sees it at less than this angle, which leaves 0.7 of its width,
SHOWN_DEG = 45.0
# from so near that the modules of the smallest label (39 mm / 16) still cover two pixels of 640x480,
SHOWN_M = 0.52
# and with nothing before it, for so long.
SHOWN_S = 0.3
_GRID = (-0.8, 0.0, 0.8)

LOST_S = 0.5
OPEN_SHARE = 0.9  # as the cell's steps tell an open gripper from one that holds


class SortingTrial(Trial):
    """Take the parcel with the right arm; where its label lies down, hand it over, show its label; put it into its bin."""

    def __init__(self, cell: Cell, conditions: Conditions) -> None:
        super().__init__(cell, conditions)
        self.stage: Stage = "grasp"
        self._bin = ""

    @property
    def instruction(self) -> str:
        return SAID[self.stage].format(route=self.conditions.route)

    def judge(self, target: Parcel | None) -> None:
        if target is not None and target.place.startswith("bin "):
            self._bin = target.place.removeprefix("bin ")
        elif target is not None:
            self._bin = ""
        if self._bin:
            self._judge_binned()
        elif target is None:
            self.end("fallen")
        elif self.passed(target):
            self.end("passed")
        elif self.lasting("lost", not target.held_by and (self.grasped or target.place == "table")) >= LOST_S:
            self.end("dropped" if self.grasped else "fallen")
        else:
            self._go_on(target)

    def _judge_binned(self) -> None:
        """Whatever lies in a bin is judged once the hands have been open: it may be taken away before."""
        if not self.stage.startswith("place"):
            self.end("misplaced")
        elif self.lasting("open", self._hands_open()) >= HELD_S:
            self.end("" if self._bin == self.conditions.route else "misplaced")

    def _go_on(self, target: Parcel) -> None:
        if self.stage == "grasp" and self.lasting("right", "right" in target.held_by) >= HELD_S:
            self.stage = "flip" if self.conditions.label == "down" else "place"
        elif self.stage == "flip" and self.lasting("left", target.held_by == {"left"}) >= HELD_S:
            self.stage = "show"
        elif self.stage == "show" and self.lasting("shown", self.shown(target)) >= SHOWN_S:
            self.stage = "place_flipped"

    def shown(self, target: Parcel) -> bool:
        """Whether the head camera could read the target's label."""
        camera = self.cell.data.camera("head")
        half, normal = target.size_m / 2, target.rotation[:, 2]
        label = target.position_m + normal * half[2]
        away = camera.xpos - label
        distance = float(np.linalg.norm(away))
        # A camera looks along its own -z; a picture is at least as wide as it is high.
        off_deg, turned_deg = (float(np.degrees(np.arccos(np.clip(axis @ away / distance, -1, 1)))) for axis in (camera.xmat[2::3], normal))
        if distance > SHOWN_M or turned_deg > SHOWN_DEG or off_deg > self.cell.model.camera("head").fovy[0] / 2:
            return False
        edge = 0.92 * min(half[0], half[1])
        points = (label + target.rotation[:, 0] * (u * edge) + target.rotation[:, 1] * (v * edge) for u in _GRID for v in _GRID)
        return all(self._sees(camera.xpos, point, target.slot) for point in points)

    def _sees(self, camera: FloatArray, point: FloatArray, slot: int) -> bool:
        """Whether nothing but the target itself lies between the camera and a point."""
        body, geom = self.cell.model.body(f"parcel{slot}").id, np.empty(1, np.int32)
        free = mujoco.mj_ray(self.cell.model, self.cell.data, camera, point - camera, None, 1, body, geom)
        return free < 0.0 or free > 1.0

    def _hands_open(self) -> bool:
        gripper, measured = self.cell.arms.gripper, self.cell.joint_state()[0]
        return all(gripper.opening(float(measured[k])) > OPEN_SHARE * gripper.opening_m for k in self.cell.arms.grippers)
