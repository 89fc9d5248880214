"""A robot without physics: joints that follow what they are told, each with a lag, and a controller that plays trajectories.

Like the vendors' drivers it knows no limits and holds the last set-point for ever. Vectors [dof] are a profile's positions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.types import FloatArray

Slots = npt.NDArray[np.int64]


class Trajectory:
    """What a joint_trajectory_controller of Humble to Kilted makes of one message: cubics from where it is now through the points.

    `times` [n] s from now on, `positions` and `velocities` [n, joints]. Raises ValueError for what such a controller refuses.
    """

    def __init__(self, start: FloatArray, speed: FloatArray, times: FloatArray, positions: FloatArray, velocities: FloatArray) -> None:
        if not len(times):
            raise ValueError("trajectory: got no points")
        if times[0] <= 0.0 or (np.diff(times) <= 0.0).any():
            raise ValueError(f"trajectory: got times {times.tolist()}, expected them to rise from above 0")
        if np.any(velocities[-1] != 0.0):
            raise ValueError(f"trajectory: got velocity {velocities[-1].tolist()} at its end, expected none")
        self._times = np.concatenate(([0.0], times))
        self._positions = np.vstack((start, positions))
        self._velocities = np.vstack((speed, velocities))

    def at(self, time_s: float) -> tuple[FloatArray, FloatArray]:
        """Return positions and velocities [joints] `time_s` after the message came; after its end it is held."""
        if time_s >= self._times[-1]:
            return self._positions[-1], self._velocities[-1]
        i = int(np.searchsorted(self._times, time_s, side="right")) - 1
        span = self._times[i + 1] - self._times[i]
        u = (time_s - self._times[i]) / span
        a, b = self._positions[i], self._positions[i + 1]
        m, n = self._velocities[i] * span, self._velocities[i + 1] * span
        bend = b - a
        place = a + u * (m + u * (3 * bend - 2 * m - n + u * (m + n - 2 * bend)))
        speed = (m + u * (2 * (3 * bend - 2 * m - n) + u * 3 * (m + n - 2 * bend))) / span
        return np.asarray(place), np.asarray(speed)


class JointRobot:
    """Joints that come after their goals with the time constant `lag_s`. Time is an argument in seconds."""

    def __init__(self, positions: FloatArray, lag_s: float = 0.02) -> None:
        if not lag_s > 0.0:
            raise ValueError(f"lag: got {lag_s} s, expected above 0")
        self.positions = np.array(positions, dtype=np.float64)
        self.velocities = np.zeros_like(self.positions)
        self._goals = self.positions.copy()
        self._lag_s = lag_s
        self._now_s: float | None = None
        self._playing: dict[bytes, tuple[Slots, Trajectory, float]] = {}

    def set_points(self, slots: Slots, goals: FloatArray) -> None:
        """Tell the joints at `slots` where to be. Raises ValueError for a goal that is not finite; the joints keep theirs."""
        if not np.isfinite(goals).all():
            raise ValueError(f"set-point: got {goals.tolist()}, expected finite numbers")
        self._goals[slots] = goals

    def follow(self, slots: Slots, times: FloatArray, positions: FloatArray, velocities: FloatArray, now_s: float) -> None:
        """Play a trajectory on the joints at `slots` from now on; what they played before is forgotten. Raises ValueError."""
        key = slots.tobytes()
        start, speed = self._goals[slots], np.zeros(len(slots))
        if key in self._playing:
            _, before, since_s = self._playing[key]
            start, speed = before.at(now_s - since_s)
        if not (np.isfinite(positions).all() and np.isfinite(velocities).all()):
            raise ValueError("trajectory: got a number that is not finite")
        self._playing[key] = slots, Trajectory(start, speed, times, positions, velocities), now_s

    def step(self, now_s: float) -> None:
        """Let the time until `now_s` pass."""
        dt = 0.0 if self._now_s is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s
        for slots, trajectory, since_s in self._playing.values():
            self._goals[slots] = trajectory.at(now_s - since_s)[0]
        before = self.positions.copy()
        self.positions += (self._goals - self.positions) * (1.0 - math.exp(-dt / self._lag_s))
        if dt > 0.0:
            self.velocities = (self.positions - before) / dt
