"""Grippers between the robot's positions and the unit the checkpoint was trained on; state and action apart."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Affine


class GripperMap:
    """The profile's maps as vectors over all joints; arms pass unchanged. Raises ConfigurationError where one is still required."""

    def __init__(self, profile: RobotProfile) -> None:
        profile.require_known()
        self._state = np.stack([np.ones(profile.dof), np.zeros(profile.dof)])
        self._action = self._state.copy()
        self._unseen = np.zeros(profile.dof, dtype=np.bool_)
        self._two_places: list[tuple[int, float, float, float]] = []  # joint, threshold, position below it, position above it
        for gripper in profile.grippers:
            i = profile.joint_names.index(gripper.joint)
            assert isinstance(gripper.state, Affine) and isinstance(gripper.action, Affine)
            self._state[:, i] = gripper.state.scale, gripper.state.offset
            self._action[:, i] = gripper.action.scale, gripper.action.offset
            self._unseen[i] = gripper.zero_state
            if gripper.binarize is not None:
                places = (gripper.closed, gripper.open) if gripper.above == "open" else (gripper.open, gripper.closed)
                self._two_places.append((i, gripper.binarize, *places))

    def state(self, positions: FloatArray) -> FloatArray:
        """Return measured positions [dof] in the checkpoint's units."""
        return np.where(self._unseen, 0.0, self._state[0] * positions + self._state[1])

    def action(self, positions: FloatArray) -> FloatArray:
        """Return predicted positions [H, dof] in the robot's units."""
        moved = np.asarray(self._action[0] * positions + self._action[1])
        for joint, threshold, below, above in self._two_places:
            moved[..., joint] = np.where(positions[..., joint] > threshold, above, below)
        return moved

    def action_inverse(self, positions: FloatArray) -> FloatArray:
        """Return positions [H, dof] that were to be commanded in the checkpoint's units (a binarized gripper's by its action map)."""
        return np.asarray((positions - self._action[1]) / self._action[0])
