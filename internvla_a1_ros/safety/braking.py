"""Ruckig, asked two questions: how does a joint come to rest, and how does it reach a moving target."""

from __future__ import annotations

import ruckig

from internvla_a1_ros.core.types import FloatArray

# What ruckig answers where it has a trajectory.
_FOUND = (ruckig.Result.Working, ruckig.Result.Finished)


def _calculate(planner: ruckig.Ruckig, question: ruckig.InputParameter, answer: ruckig.Trajectory) -> bool:
    try:
        return planner.calculate(question, answer) in _FOUND
    except ruckig.RuckigError:
        return False


class Brake:
    """The time-optimal way of every joint to rest under limits of acceleration and jerk [dof]; joints do not wait for each other."""

    def __init__(self, max_acceleration: FloatArray, max_jerk: FloatArray) -> None:
        dof = len(max_jerk)
        self._planner = ruckig.Ruckig(dof)
        self._trajectory = ruckig.Trajectory(dof)
        self._question = ruckig.InputParameter(dof)
        self._question.control_interface = ruckig.ControlInterface.Velocity
        self._question.synchronization = ruckig.Synchronization.No
        self._question.max_acceleration = max_acceleration.tolist()
        self._question.max_jerk = max_jerk.tolist()

    def plan(self, position: FloatArray, velocity: FloatArray, acceleration: FloatArray) -> bool:
        """Plan from a state [dof] each; False where ruckig has no answer."""
        self._question.current_position = position.tolist()
        self._question.current_velocity = velocity.tolist()
        self._question.current_acceleration = acceleration.tolist()
        return _calculate(self._planner, self._question, self._trajectory)

    def extrema(self, lowest: FloatArray, highest: FloatArray) -> None:
        """Write the lowest and highest position [dof] on the planned way to rest."""
        bounds = self._trajectory.position_extrema
        lowest[:] = [bound.min for bound in bounds]
        highest[:] = [bound.max for bound in bounds]

    def at(self, after_s: float) -> tuple[list[float], list[float], list[float]]:
        """Return position, velocity and acceleration `after_s` seconds into the plan."""
        position, velocity, acceleration = self._trajectory.at_time(after_s)
        return position, velocity, acceleration


class Pursuit:
    """The way of one joint to a moving target, time-optimal but never shorter than one tick."""

    # Beyond this the target's velocity says nothing about where it will be.
    MAX_LEAD_S = 0.1

    def __init__(self, max_velocity: float, max_acceleration: float, max_jerk: float, dt_s: float) -> None:
        self._velocity, self._acceleration, self._jerk, self._dt_s = max_velocity, max_acceleration, max_jerk, dt_s
        self._planner = ruckig.Ruckig(1)
        self._trajectory = ruckig.Trajectory(1)
        self._question = ruckig.InputParameter(1)
        self._question.max_acceleration = [max_acceleration]
        self._question.max_jerk = [max_jerk]
        self._question.minimum_duration = dt_s

    def step(
        self, state: tuple[float, float, float], target: tuple[float, float, float], bounds: tuple[float, float], scale: float
    ) -> tuple[float, float, float] | None:
        """Return the joint's state after one tick, None where ruckig has no answer.

        `state` and `target` are position, velocity and acceleration, the target's one tick from now; `bounds` the position
        limits; `scale` 0..1 of the speed limit. A target that cannot be met in one tick is met where it will be by then:
        planned to where it is now, the arm would follow a moving target late for ever.
        """
        limit = self._velocity * scale
        position, velocity, acceleration = target
        velocity = min(max(velocity, -limit), limit)
        # What ruckig accepts of a target: its own brake must not pass the speed limit.
        room = min(self._acceleration, (2.0 * self._jerk * (limit - abs(velocity))) ** 0.5)
        acceleration = min(max(acceleration, -room), room)
        question = self._question
        question.max_velocity = [limit]
        question.current_position, question.current_velocity, question.current_acceleration = ([x] for x in state)
        if not self._plan(position, velocity, acceleration):
            return None
        lead_s = min(self._trajectory.duration - self._dt_s, self.MAX_LEAD_S)
        if lead_s > 0.0:
            ahead = position + velocity * lead_s
            if not bounds[0] < ahead < bounds[1]:
                ahead, velocity = min(max(ahead, bounds[0]), bounds[1]), 0.0
            if not self._plan(ahead, velocity, 0.0):
                return None
        reached = self._trajectory.at_time(self._dt_s)
        return reached[0][0], reached[1][0], reached[2][0]

    def _plan(self, position: float, velocity: float, acceleration: float) -> bool:
        """Plan to a target; where ruckig has no answer for its acceleration (seen once in some hundred far targets), to one without."""
        self._question.target_position = [position]
        self._question.target_velocity = [velocity]
        self._question.target_acceleration = [acceleration]
        if _calculate(self._planner, self._question, self._trajectory):
            return True
        self._question.target_acceleration = [0.0]
        return _calculate(self._planner, self._question, self._trajectory)
