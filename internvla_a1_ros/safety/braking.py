"""Ruckig, asked two questions: how does a joint come to rest, and how does it reach a moving target."""

from __future__ import annotations

import ruckig

from internvla_a1_ros.core.types import FloatArray

# What ruckig answers where it has a trajectory.
_FOUND = (ruckig.Result.Working, ruckig.Result.Finished)


def _calculate(planner: ruckig.Ruckig, question: ruckig.InputParameter, answer: ruckig.Trajectory) -> bool:
    try:
        return planner.calculate(question, answer) in _FOUND
    except (ruckig.RuckigError, ValueError):  # ValueError: an error code that the bindings do not know (-101, seen)
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

    @property
    def duration_s(self) -> float:
        """How long the planned way to rest takes."""
        return float(self._trajectory.duration)

    def at(self, after_s: float) -> tuple[list[float], list[float], list[float]]:
        """Return position, velocity and acceleration `after_s` seconds into the plan."""
        position, velocity, acceleration = self._trajectory.at_time(after_s)
        return position, velocity, acceleration


class Pursuit:
    """The way of one joint to a moving target, time-optimal but never shorter than one tick.

    Asked in the frame that moves with the target, where the target rests and the limits of speed are shifted: planned to
    where a moving target is now, the joint would follow it late for ever.
    """

    # Of the speed limit a target may use: the rest is what a joint catches up with.
    MAX_TARGET_SPEED = 0.999

    def __init__(self, max_velocity: float, max_acceleration: float, max_jerk: float, dt_s: float) -> None:
        self._velocity, self._acceleration, self._jerk, self._dt_s = max_velocity, max_acceleration, max_jerk, dt_s
        self._planner = ruckig.Ruckig(1)
        self._trajectory = ruckig.Trajectory(1)
        self._question = ruckig.InputParameter(1)
        self._question.max_acceleration = [max_acceleration]
        self._question.max_jerk = [max_jerk]
        self._question.minimum_duration = dt_s

    def step(
        self, state: tuple[float, float, float], target: tuple[float, float, float], scale: float
    ) -> tuple[float, float, float] | None:
        """Return the joint's state after one tick, None where ruckig has no answer.

        `state` and `target` are position, velocity and acceleration, the target's one tick from now; `scale` 0..1 of the
        speed limit.
        """
        limit = self._velocity * scale
        top = limit * self.MAX_TARGET_SPEED
        position, velocity, acceleration = target
        velocity = min(max(velocity, -top), top)
        # What ruckig accepts of a target: its own brake must not pass the speed limit.
        room = min(self._acceleration, (2.0 * self._jerk * (limit - abs(velocity))) ** 0.5)
        question = self._question
        question.max_velocity = [limit - velocity]
        question.min_velocity = [-limit - velocity]
        question.current_position = [state[0] - position + velocity * self._dt_s]
        question.current_velocity = [state[1] - velocity]
        question.current_acceleration = [state[2]]
        question.target_acceleration = [min(max(acceleration, -room), room)]
        if not _calculate(self._planner, question, self._trajectory):
            # Seen once in some hundred targets far away; there the acceleration does not matter.
            question.target_acceleration = [0.0]
            if not _calculate(self._planner, question, self._trajectory):
                return None
        reached = self._trajectory.at_time(self._dt_s)
        return reached[0][0] + position, reached[1][0] + velocity, reached[2][0]
