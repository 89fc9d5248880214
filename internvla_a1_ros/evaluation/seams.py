"""How much a change of plan shows in the timeline's output, before any limiter: recorded chunks, replayed by their arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from internvla_a1_ros.core.timeline import Timeline
from internvla_a1_ros.core.types import ActionChunk, FloatArray

# What a start from rest does to the curve fades by 0.27 from action to action.
_LEAD = 10


@dataclass(frozen=True, slots=True)
class Seams:
    """Steps from tick to tick in radians: the largest inside any chunk, the largest across a seam, and what is beyond."""

    chunks: int
    inside_rad: float
    across_rad: float

    @property
    def excess_rad(self) -> float:
        return max(0.0, self.across_rad - self.inside_rad)


def measure(arrivals: Sequence[tuple[int, ActionChunk]], dt_ns: int, fade_ns: int, joints: Sequence[int]) -> Seams:
    """Replay `arrivals` (arrival time, chunk) in order at a tick of `dt_ns`; steps of `joints` after a merge, until the fade is
    over and two actions beyond (the curve's way to the next one), count as across the seam. Raises ValueError for fewer than
    two chunks."""
    if len(arrivals) < 2:
        raise ValueError(f"seams: got {len(arrivals)} chunks, expected at least 2")
    columns = list(joints)
    inside = max(_largest_step(chunk, dt_ns, columns) for _, chunk in arrivals)
    dof = arrivals[0][1].positions.shape[1]
    timeline = Timeline(dof)
    position, velocity, acceleration = np.zeros(dof), np.zeros(dof), np.zeros(dof)
    last: FloatArray | None = None
    across, seam_end, waiting = 0.0, 0, list(arrivals)
    now = waiting[0][0]
    end = waiting[-1][0] + dt_ns + fade_ns + 2 * waiting[-1][1].dt_ns
    while now <= end:
        while waiting and waiting[0][0] <= now:
            chunk = waiting.pop(0)[1]
            first = timeline.empty
            timeline.merge(chunk, now, fade_ns, chunk.positions[0] if first else position)
            if not first:
                seam_end = now + fade_ns + 2 * chunk.dt_ns
        timeline.sample(now, position, velocity, acceleration)
        if last is not None and now <= seam_end:
            across = max(across, float(np.abs(position - last)[columns].max()))
        last = position.copy()
        now += dt_ns
    return Seams(len(arrivals), inside, across)


def _largest_step(chunk: ActionChunk, dt_ns: int, columns: list[int]) -> float:
    """The largest step of one chunk played alone, led into along its first step: started from rest the curve would ring."""
    first_step = np.diff(chunk.positions[:2], axis=0).sum(axis=0)
    lead = chunk.positions[0] + np.arange(-_LEAD, 0)[:, None] * first_step
    whole = replace(chunk, first_ns=chunk.first_ns - _LEAD * chunk.dt_ns, positions=np.concatenate((lead, chunk.positions)))
    alone = Timeline(chunk.positions.shape[1], len(whole.positions))
    alone.merge(whole, whole.first_ns, 0, whole.positions[0])
    rows = alone.tail(chunk.first_ns, dt_ns, (chunk.end_ns - chunk.first_ns) // dt_ns)
    return float(np.abs(np.diff(rows, axis=0))[:, columns].max())
