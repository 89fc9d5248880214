"""A stream of observations that is the same every time: pictures of the simulated cell, joints as asked for."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.core.types import ByteArray, FloatArray, Frame, JointState, Observation
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.simulation.cell import DOF, Cell
from internvla_a1_ros.simulation.config import CAMERAS

PICTURE_RATE_HZ = 30
_SIZE = (160, 120)
_SWING_RAD, _SWING_HZ = 0.15, 0.4


class Stream:
    """`seconds` of pictures at 30 Hz, taken once while the cell's arms swing about the ready pose; times begin at 0.

    A robot's cameras show the cell's head, left and right view in this order, whatever robot it is. Raises ConfigurationError
    for another number of cameras.
    """

    def __init__(self, profile: RobotProfile, history: HistorySpec, seconds: float, seed: int = 0) -> None:
        names = tuple(camera.name for camera in profile.cameras)
        if len(names) != len(CAMERAS):
            raise ConfigurationError(f"simulated stream: robot '{profile.name}' has {len(names)} cameras, the cell has {len(CAMERAS)}")
        self._profile, self._interval_ns = profile, history.interval_ns
        self._names = names
        cell = Cell(seed=seed)
        try:
            self._pictures = [self._look(cell, k / PICTURE_RATE_HZ) for k in range(int(seconds * PICTURE_RATE_HZ) + 1)]
        finally:
            cell.close()

    def _look(self, cell: Cell, at_s: float) -> list[ByteArray]:
        if self._profile.dof == DOF:
            cell.command(self.swing(at_s))
        cell.step(at_s - cell.time_s)
        return [cell.render(camera, *_SIZE) for camera in CAMERAS]

    def swing(self, at_s: float) -> FloatArray:
        """Return the pose [dof] of a slow swing about the ready pose, grippers half open."""
        middle = self._profile.ready_from((self._profile.lower + self._profile.upper) / 2)
        phase = np.arange(self._profile.dof)
        wave = _SWING_RAD * np.sin(2 * np.pi * _SWING_HZ * at_s + phase) * ~self._profile.is_gripper
        return np.clip(middle + wave, self._profile.lower, self._profile.upper)

    def newest_ns(self, now_ns: int) -> int:
        """When the newest picture at `now_ns` was taken."""
        k = (now_ns + 1) * PICTURE_RATE_HZ // 1_000_000_000  # stamps are rounded down: one nanosecond more is this picture still
        return min(k, len(self._pictures) - 1) * 1_000_000_000 // PICTURE_RATE_HZ

    def observe(self, stamp_ns: int, joints: FloatArray) -> Observation:
        """Return the observation of the newest picture at `stamp_ns`, with `joints` [dof]."""
        stamp_ns = self.newest_ns(stamp_ns)
        past_ns = self.newest_ns(max(0, stamp_ns - self._interval_ns))
        return Observation(stamp_ns, self._frames(stamp_ns), self._frames(past_ns), JointState(stamp_ns, joints), 0)

    def _frames(self, stamp_ns: int) -> tuple[Frame, ...]:
        pictures = self._pictures[round(stamp_ns * PICTURE_RATE_HZ / 1e9)]
        return tuple(Frame(name, stamp_ns, stamp_ns, rgb) for name, rgb in zip(self._names, pictures, strict=True))
