"""The scripted expert in a policy's place: its chunk is what it would demonstrate from here on, tried out on a copy of the trial.

It shows what can be reached through the command runtime at all: where it fails, no policy is to blame.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from itertools import islice

import numpy as np

from internvla_a1_ros.core.types import ActionChunk, Frame, Observation
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.simulation.demonstration import RATE_HZ, Disturbance, Pushes, demonstrate
from internvla_a1_ros.simulation.profile_joints import CellJoints
from internvla_a1_ros.simulation.tasks import expert_of
from internvla_a1_ros.simulation.trial import Trial

ACTIONS = 50


class ExpertPolicy:
    """Answers as a policy does (`Infers`); it looks at no picture and follows no instruction, but at the truth of `trial`."""

    def __init__(self, trial: Trial, joints: CellJoints, profile: RobotProfile) -> None:
        self._trial, self._joints, self._profile = trial, joints, profile
        self._undisturbed = Disturbance(most_rad=0.0, bump_share=0.0)

    def infer(
        self, observation: Observation, instruction: str, *, imagine: bool = False, tail: Callable[[], ActionChunk | None] | None = None
    ) -> Inference:
        """Return the expert's next 50 commands: command k, given at `stamp + k dt`, is to be reached at `stamp + (k + 1) dt`."""
        began = time.perf_counter()
        ahead = copied(self._trial)
        moments = demonstrate(ahead, expert_of(ahead), Pushes(self._undisturbed, ahead.cell.arms, 0))
        commands = [self._joints.to_robot(moment.action) for moment in islice(moments, ACTIONS)]
        commands += [commands[-1]] * (ACTIONS - len(commands))  # a trial that ends goes on as it is, like the labels of an episode
        stamp_ns, dt_ns = observation.stamp_ns, round(1e9 / RATE_HZ)
        chunk = ActionChunk(self._profile.name, self._profile.joint_names, stamp_ns, stamp_ns + dt_ns, dt_ns, np.array(commands))
        return Inference(chunk, {"expert": time.perf_counter() - began})

    def knows(self, frame: Frame) -> bool:
        return False

    def look_ahead(self, frame: Frame) -> None:
        return

    def forget(self) -> None:
        return


def copied(trial: Trial) -> Trial:
    """Return a trial that goes on from where this one is, in a cell of its own that paints nothing."""
    # An OpenGL context cannot be copied, nor is it needed; how the cell looked when built nobody changes.
    cell = trial.cell
    return copy.deepcopy(trial, {id(cell._painters): {}, id(cell.pristine): cell.pristine})
