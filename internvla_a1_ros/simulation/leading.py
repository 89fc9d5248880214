"""A policy has the arms for a while in a demonstration; where it has brought them, the expert takes over and shows the way back.

As in HG-DAgger (arXiv 1810.02890), with a drawn time in place of a human who takes over. The policy drives as in a rollout: it sees
what was so long ago, its chunk comes late, is faded into the plan by time, and the plan is followed within the limits of the profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.timeline import Timeline
from internvla_a1_ros.core.types import ActionChunk, ByteArray, FloatArray, Frame, JointState, Observation
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.policy_loop import Infers
from internvla_a1_ros.safety.limiter import Limiter
from internvla_a1_ros.simulation.demonstration import PARTS, RATE_HZ
from internvla_a1_ros.simulation.trial import Trial

LEAD_IN = 15  # steps before the take-over that are recorded: the past that a policy sees is then a true one
MIDDLE_S = (0.5, 1.5)
MOST_LATE = 9  # steps, 300 ms
_STREAM = 300  # of random numbers, apart from the others of a trial
_START_NS = 1_000_000_000
_S_NS = 1_000_000_000


class Leading(Document):
    """Who leads, and when: from the start for `from_s` to `to_s`; in the share `middle` of the trials somewhere on the way, 0.5 to 1.5 s.

    `policy` is a checkpoint folder, `checksum` that of its files.
    """

    policy: str
    checksum: str
    from_s: Annotated[float, Field(ge=0.0)] = 0.0
    to_s: Annotated[float, Field(ge=0.0, le=60.0)] = 4.0
    middle: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5

    @model_validator(mode="after")
    def _in_order(self) -> Leading:
        if self.from_s > self.to_s:
            raise ValueError(f"from_s: got {self.from_s:g} to {self.to_s:g}, expected the first to be no more than the second")
        return self

    def drawn(self, seed: int, alone: Callable[[], int]) -> Stretch:
        """Draw by `seed`. `alone` is asked for how many steps the expert alone needs, where the policy leads on the way."""
        rng = np.random.default_rng((seed, _STREAM))
        late, middle = int(rng.integers(MOST_LATE + 1)), bool(rng.random() < self.middle)
        share, length_s = float(rng.random()), float(rng.uniform(*(MIDDLE_S if middle else (self.from_s, self.to_s))))
        begin = int(share * alone()) if middle else 0
        return Stretch(begin, begin + round(length_s * RATE_HZ), late)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The policy leads from step `begin` to before step `end`; a chunk comes `late` steps after what it was made from."""

    begin: int
    end: int
    late: int

    @property
    def first_recorded(self) -> int:
        """The step with which the episode begins."""
        return max(0, self.end - LEAD_IN)


@dataclass(frozen=True, slots=True)
class Habits:
    """How the policy called `name` is run: steps from one look to the next, unless it takes longer, and back to the past frame."""

    name: str
    period: int
    back: int


class Lead:
    """One trial's lead. Asked step by step; asked again from the first step on, it answers as before, and looks at nothing."""

    def __init__(self, policy: Infers, habits: Habits, profile: RobotProfile, stretch: Stretch, look: Callable[[str], ByteArray]) -> None:
        """`look` takes a camera's picture."""
        self.stretch = stretch
        self._policy, self._back, self._look, self._name = policy, habits.back, look, habits.name
        self._profile = profile.model_copy(update={"control_rate_hz": RATE_HZ * PARTS})
        # The first plan is there when the lead begins, if the trial is old enough for it.
        self._thinks = range(max(0, stretch.begin - stretch.late), stretch.end, max(1, habits.period, stretch.late))
        self._looks = {max(0, step - back) for step in self._thinks for back in (0, self._back)}
        self._frames: dict[int, tuple[Frame, ...]] = {}
        self._timeline, self._limiter = Timeline(profile.dof), Limiter(self._profile)
        self._coming: tuple[int, ActionChunk] | None = None
        self._tail: ActionChunk | None = None
        self._instruction = ""
        self._next, self._ways = 0, dict[int, FloatArray]()

    def way(self, step: int, trial: Trial, action: FloatArray) -> FloatArray | None:
        """Return the commands [PARTS, dof] of a step, evenly spaced from its begin on; None where the expert has the arms (`action`).

        Raises ConfigurationError where the policy's answer is not finite.
        """
        if step >= self._next:
            self._next = step + 1
            self._go_on(step, trial)
        return self._ways.get(step)

    def _go_on(self, step: int, trial: Trial) -> None:
        if step in self._looks:
            now_ns = _stamp_ns(step)
            self._frames[step] = tuple(Frame(camera.name, now_ns, now_ns, self._look(camera.name)) for camera in self._profile.cameras)
        if trial.instruction != self._instruction:  # what was thought before is for something else
            self._instruction, self._coming, self._tail = trial.instruction, None, None
        if step == self.stretch.begin:
            self._limiter.reset(trial.cell.goal())
        self._take(step)
        if step in self._thinks:
            self._think(step, trial)
            self._take(step)
        if self.stretch.begin <= step < self.stretch.end:
            self._ways[step] = np.stack([self._tick(_stamp_ns(step) + k * self._profile.dt_ns) for k in range(PARTS)])

    def _think(self, step: int, trial: Trial) -> None:
        stamp_ns = _stamp_ns(step)
        joints = JointState(stamp_ns, trial.cell.joint_state()[0])
        seen = Observation(stamp_ns, self._frames[step], self._frames[max(0, step - self._back)], joints, 0)
        try:
            chunk = self._policy.infer(seen, self._instruction, tail=lambda: self._tail).chunk
        except ValueError as problem:
            raise ConfigurationError(f"{self._name}: in {trial.conditions.task}, seed {trial.conditions.seed}: {problem}") from None
        self._coming = (step + self.stretch.late, chunk)

    def _take(self, step: int) -> None:
        """Fade in a chunk that has come."""
        if self._coming is None or step < self._coming[0]:
            return
        (_, chunk), self._coming = self._coming, None
        profile, from_ns = self._profile, _stamp_ns(step) + round(self._profile.actuation_delay_s * _S_NS)
        if self._timeline.merge(chunk, from_ns, round(profile.fade_s * _S_NS), self._limiter.positions):
            rest = self._timeline.tail(from_ns, chunk.dt_ns, len(chunk.positions))
            self._tail = ActionChunk(chunk.robot, chunk.joint_names, chunk.stamp_ns, from_ns, chunk.dt_ns, rest)

    def _tick(self, now_ns: int) -> FloatArray:
        if self._timeline.empty:  # nothing has come yet
            return self._limiter.brake().copy()
        position, velocity, acceleration = np.zeros((3, self._profile.dof))
        self._timeline.sample(now_ns + round(self._profile.actuation_delay_s * _S_NS), position, velocity, acceleration)
        return self._limiter.step(position, velocity, acceleration).copy()


def _stamp_ns(step: int) -> int:
    return _START_NS + step * _S_NS // RATE_HZ
