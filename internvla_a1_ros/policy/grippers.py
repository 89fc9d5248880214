"""Grippers between the robot's readout and the unit the checkpoint was trained on; state and action apart."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.profile import RobotProfile


class GripperMap:
    """The profile's affine maps as vectors over all joints; arms pass unchanged."""

    def __init__(self, profile: RobotProfile) -> None:
        self._state = np.stack([np.ones(profile.dof), np.zeros(profile.dof)])
        self._action = self._state.copy()
        for gripper in profile.grippers:
            i = profile.joint_names.index(gripper.joint)
            self._state[:, i] = gripper.state.scale, gripper.state.offset
            self._action[:, i] = gripper.action.scale, gripper.action.offset

    def state(self, positions: FloatArray) -> FloatArray:
        """Return measured positions [dof] in the checkpoint's units."""
        return np.asarray(self._state[0] * positions + self._state[1])

    def action(self, positions: FloatArray) -> FloatArray:
        """Return predicted positions [H, dof] in the robot's units."""
        return np.asarray(self._action[0] * positions + self._action[1])

    def action_inverse(self, positions: FloatArray) -> FloatArray:
        """Return positions [H, dof] that were to be commanded in the checkpoint's units."""
        return np.asarray((positions - self._action[1]) / self._action[0])
