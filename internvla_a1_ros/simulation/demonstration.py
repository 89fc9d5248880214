"""One demonstration, step by step: what the expert would command, and the disturbed command that the cell follows instead.

A policy that only ever saw the expert's own way does not know what to do beside it. So the arms are pushed off the way, and what is
recorded is how the expert comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.simulation.arms import Arms
from internvla_a1_ros.simulation.config import SIDES
from internvla_a1_ros.simulation.tasks import Expert
from internvla_a1_ros.simulation.trial import Trial

RATE_HZ = 30
# A command is reached one step after it is given, along a straight line in as many parts.
PARTS = 4
HOLD_S = 0.5
_STREAM = 200  # of random numbers, apart from those of the conditions and of the appearance
RESTING_RAD = 1e-6


class Disturbance(Document):
    """How an arm is pushed off the expert's way. An episode's amplitude is drawn evenly from 0 to `most_rad` a step and joint.

    Besides white noise of it, a share of the steps begins a bump: for some steps a steady push in one random direction of the joints.
    """

    most_rad: Annotated[float, Field(ge=0.0, le=0.1)] = 0.001
    bump_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    bump_steps: Annotated[int, Field(ge=1)] = 8
    bump_size: Annotated[float, Field(ge=0.0)] = 3.0


class Pushes:
    """Draws what is added to the commands of one episode, by its seed."""

    def __init__(self, disturbance: Disturbance, arms: Arms, seed: int) -> None:
        self._kind, self._arms = disturbance, arms
        self._rng = np.random.default_rng((seed, _STREAM))
        self.amplitude_rad = float(self._rng.uniform(0.0, disturbance.most_rad))
        self._bump, self._left = np.zeros(arms.dof), 0

    def next(self, moves: FloatArray) -> FloatArray:
        """Return the push [dof] of this step, for what the expert wants to move on by [dof]: arms at rest and grippers stay untouched."""
        # Always as many draws, so that one step's push does not depend on what moved before.
        white, bump, starts = self._rng.normal(size=self._arms.dof), self._rng.normal(size=self._arms.dof), self._rng.random()
        if starts < self._kind.bump_share:
            self._bump, self._left = bump * self._kind.bump_size, self._kind.bump_steps
        push = self.amplitude_rad * (white + self._bump * (self._left > 0))
        self._left -= 1
        width = self._arms.joints + 1
        for k in range(len(SIDES)):
            arm = slice(width * k, width * k + self._arms.joints)
            if np.abs(moves[arm]).max() < RESTING_RAD:
                push[arm] = 0.0
        push[self._arms.grippers] = 0.0
        return push


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One step: measured joints and the expert's command, each [dof] in robot units; what is told, and which stage it is.

    `led`: somebody else has the arms; the command is what the expert would have done.
    """

    state: FloatArray
    action: FloatArray
    instruction: str
    stage: str
    led: bool = False


class Leads(Protocol):
    """Somebody else who has the arms for a while (`leading.Lead`, `detours.Detour`)."""

    def way(self, step: int, trial: Trial, action: FloatArray) -> FloatArray | None:
        """Return the commands [PARTS, dof] of a step in which the expert would command `action`; None where it does. Asked each step."""
        ...


def demonstrate(trial: Trial, expert: Expert, pushes: Pushes, lead: Leads | None = None) -> Iterator[Moment]:
    """Yield the moments of a trial, 1/30 s apart, with the cell as it is in each; after a success half a second more.

    The command of a moment is reached at the next one, as in recordings of ARX robots (offset 1). How it ended is `trial.outcome`.
    """
    cell = trial.cell
    steps = round(1 / RATE_HZ / cell.config.timestep_s / PARTS)
    parts = (np.arange(PARTS)[:, None] + 1) / PARTS
    step = 0
    hold = round(HOLD_S * RATE_HZ)
    while trial.outcome is None or (trial.outcome.succeeded and hold > 0):
        if trial.outcome is not None:
            hold -= 1
        before = cell.goal()
        # Before anybody looks: painting moves what the expert sees to the very moment, and a trial must be the same with it and without.
        action = expert.act(1 / RATE_HZ)
        led = lead.way(step, trial, action) if lead is not None else None
        yield Moment(cell.joint_state()[0], action, trial.instruction, trial.stage, led is not None)
        sent = action + pushes.next(action - before)
        for command in before + (sent - before) * parts if led is None else led:
            cell.command(command)
            cell.advance(steps)
        trial.look()
        step += 1
