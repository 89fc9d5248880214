"""Detours in a demonstration: a hand that is on its way is carried off to somewhere near, and the expert begins again from there.

Where every demonstration begins in the same pose, the joints of an arm soon tell where the expert is going, and a policy learns to read
them and not the pictures: it then goes on wherever it happened to begin. After a detour they tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.document import Document
from internvla_a1_ros.simulation.config import SIDES, Range
from internvla_a1_ros.simulation.demonstration import PARTS, RATE_HZ, RESTING_RAD
from internvla_a1_ros.simulation.hand import Hand, smooth
from internvla_a1_ros.simulation.trial import Trial

_STREAM = 400  # of random numbers, apart from the others of a trial
_SPEED_RAD_S = 1.6  # on the mean of its way
_FEWEST, _MOST = 5, 24  # steps
# Steps at its end in which the hand does no more than go along with the belt, if it is near: its joints say nothing of their speed, and
# what is to be learned is the way back from a place, not out of a motion that nobody sees.
_SETTLED = 4
# Above the belt: below the first a hand hovers or comes down; below the second its fingers might push what lies there.
_NEAR_M, _LOW_M = 0.20, 0.085
_OPEN = 0.6  # of the gripper's whole opening
_LAST_M = 0.05  # downstream of the arm's base: later there would be no time to come back


@dataclass(frozen=True, slots=True)
class _Reach:
    sideways_m: float
    up_m: Range
    turn_rad: float
    tilt_rad: float


# How far a hand is carried off: at the start of a trial, on its way, and near the belt.
_AT_START = _Reach(0.10, (-0.08, 0.05), 1.3, 0.15)
_LATER = _Reach(0.05, (-0.01, 0.06), 0.9, 0.10)
_NEAR = _Reach(0.04, (-0.01, 0.04), 0.4, 0.05)


class Detours(Document):
    """`share` of the trials begin with a detour; others follow in those, up to `most` in all, `gap_s` after the former one.

    Near the belt they are short and come `near_gap_s` after one another: an expert that follows a parcel is right above it, and only
    a hand that is beside it shows how to get there.
    """

    share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    gap_s: Range = (0.4, 1.6)
    near_gap_s: Range = (0.2, 0.6)
    most: Annotated[int, Field(ge=0)] = 7

    def of(self, trial: Trial, seed: int) -> Detour:
        return Detour(self, trial, seed)


@dataclass(frozen=True, slots=True)
class _Off:
    """One hand carried off: from step `begin` on, along a straight line of its joints; after `steps` it settles, `on` further each step."""

    hand: Hand
    begin: int
    steps: int
    start: FloatArray
    to: FloatArray
    on: FloatArray

    def at(self, step: float) -> FloatArray:
        way = self.start + smooth(step - self.begin, 0, self.steps) * (self.to - self.start)
        return np.asarray(way + max(0.0, step - self.begin - self.steps) * self.on)

    @property
    def over(self) -> int:
        """The first step after it."""
        return self.begin + self.steps + _SETTLED


class Detour:
    """The detours of one trial (`demonstration.Leads`). Hands at rest, closed ones and those that hold something are left alone."""

    def __init__(self, plan: Detours, trial: Trial, seed: int) -> None:
        self._plan, self._rng = plan, np.random.default_rng((seed, _STREAM))
        self._hands = tuple(Hand(trial.cell, side) for side in SIDES)
        self._left = int(self._rng.integers(1, plan.most, endpoint=True)) if plan.most and self._rng.random() < plan.share else 0
        self._next = {hand: 0 for hand in self._hands}
        self._off: dict[Hand, _Off] = {}

    def way(self, step: int, trial: Trial, action: FloatArray) -> FloatArray | None:
        """Return the commands [PARTS, dof] of a step in which a hand is carried off, the rest following `action`; else None."""
        before = trial.cell.goal()
        self._off = {hand: off for hand, off in self._off.items() if step < off.over}
        for hand in self._hands:
            if hand not in self._off and step >= self._next[hand]:
                self._begin(hand, step, trial, before, action)
        if not self._off:
            return None
        parts = (np.arange(PARTS)[:, None] + 1) / PARTS
        way = before + (action - before) * parts
        for hand, off in self._off.items():
            way[:, hand.arm] = [off.at(step + (k + 1) / PARTS) for k in range(PARTS)]
        return way

    def _begin(self, hand: Hand, step: int, trial: Trial, before: FloatArray, action: FloatArray) -> None:
        height = float(hand.look().told_tool[2]) - trial.cell.config.belt.top_m
        near = height < _NEAR_M
        gap = round(float(self._rng.uniform(*(self._plan.near_gap_s if near else self._plan.gap_s))) * RATE_HZ)
        draws = self._rng.uniform(-1.0, 1.0, size=6)
        self._next[hand] = step + gap
        gripper, sight = trial.cell.arms.gripper, hand.look()
        moves = float(np.abs(action[hand.arm] - before[hand.arm]).max()) > RESTING_RAD
        gone = hand.base[1] - sight.told_tool[1] > _LAST_M
        if self._left == 0 or not moves or gone or sight.firm > 0 or sight.told_m < _OPEN * gripper.opening_m:
            return
        reach = _AT_START if step == 0 else _NEAR if near else _LATER
        low, high = reach.up_m
        by = np.array([*(reach.sideways_m * draws[:2]), low + (high - low) * (draws[2] + 1) / 2])
        by[2] = max(by[2], _LOW_M - height)
        belt = np.array([0.0, -trial.cell.belt_speed_m_s / RATE_HZ * near, 0.0])  # in a step
        turn = _turned(reach.turn_rad * draws[3]) @ _tilted(reach.tilt_rad * draws[4], reach.tilt_rad * draws[5])
        start = before[hand.arm].copy()
        place, facing = sight.told_tool + by + _FEWEST * belt, turn @ sight.told_facing
        to, later = (hand.kinematics.solve(start, place + k * belt, facing, iterations=30) for k in (0, _SETTLED))
        steps = int(np.clip(np.ceil(np.abs(to - start).max() / _SPEED_RAD_S * RATE_HZ), _FEWEST, _MOST))
        self._off[hand] = off = _Off(hand, step, steps, start, to, (later - to) / _SETTLED)
        self._next[hand] = off.over + gap
        self._left -= 1


def _turned(yaw_rad: float) -> FloatArray:
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _tilted(about_x_rad: float, about_y_rad: float) -> FloatArray:
    cx, sx, cy, sy = np.cos(about_x_rad), np.sin(about_x_rad), np.cos(about_y_rad), np.sin(about_y_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]]) @ np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
