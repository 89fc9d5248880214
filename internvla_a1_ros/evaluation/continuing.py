"""How chunks continue each other: policy and timeline in simulated time, every chunk taken over after a fixed delay.

Deterministic. Pictures come from a recorded stream, joints from the timeline itself (arms that follow exactly), so that what one
chunk did is what the next one sees. Everything is measured on the timeline's output, before any limiter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.core.commitment import resampled
from internvla_a1_ros.core.timeline import Timeline
from internvla_a1_ros.core.types import ActionChunk, FloatArray
from internvla_a1_ros.evaluation.stream import Stream
from internvla_a1_ros.policy.policy import Policy
from internvla_a1_ros.robots.profile import RobotProfile

# A seam is what the arms do from one tick before a chunk is taken over until this much later, when the next one may come.
SEAM_NS = 100_000_000
_SETTLING = 3  # the first chunks start from rest and warm the take-over's bound


@dataclass(frozen=True, slots=True, eq=False)
class Boundaries:
    """One entry a chunk boundary, the largest of the arms' joints each time.

    `apart_rad`: new chunk minus plan, at the tick of the take-over. `step_rad`: from tick to tick. `jerk_rad_s3`: third difference of
    ticks. `reach_rad`: how far any joint ever was from its start.
    """

    apart_rad: FloatArray
    step_rad: FloatArray
    jerk_rad_s3: FloatArray
    reach_rad: float
    guided: int


class Player:
    """Plays chunks through a timeline, tick by tick, and notes what is to be known of their seams."""

    def __init__(self, profile: RobotProfile, fade_ns: int, start: FloatArray) -> None:
        self._tick_ns, self._fade_ns = profile.dt_ns, fade_ns
        self._arms = np.flatnonzero(~profile.is_gripper)
        self._timeline = Timeline(profile.dof)
        self._position, self._velocity, self._acceleration = start.copy(), np.zeros(profile.dof), np.zeros(profile.dof)
        self._seams: list[tuple[int, float]] = []  # tick of the take-over, distance there
        self.played: list[FloatArray] = []

    def take(self, chunk: ActionChunk, now_ns: int) -> ActionChunk | None:
        """Take `chunk` over at `now_ns`; returns what is committed then, None where the chunk is over already."""
        apart = None if self._timeline.empty else _apart(self._timeline, chunk, now_ns, self._arms)
        if not self._timeline.merge(chunk, now_ns, self._fade_ns, self._position):
            return None
        if apart is not None:
            self._seams.append((len(self.played), apart))
        rows = self._timeline.tail(now_ns, chunk.dt_ns, len(chunk.positions))
        return ActionChunk(chunk.robot, chunk.joint_names, chunk.stamp_ns, now_ns, chunk.dt_ns, rows)

    def tick(self, now_ns: int) -> None:
        """Play the plan at `now_ns`, one tick after the last call's."""
        self._timeline.sample(now_ns, self._position, self._velocity, self._acceleration)
        self.played.append(self._position.copy())

    def figures(self, guided: int = 0) -> Boundaries:
        """Return what was noted. Raises ValueError where there was no whole seam."""
        return _figures(np.array(self.played)[:, self._arms], self._seams[_SETTLING:], self._tick_ns, guided)


def run(policy: Policy, stream: Stream, profile: RobotProfile, delay_ns: int, fade_ns: int, seconds: float) -> Boundaries:
    """Let `policy` work for `seconds`: a new observation once the last chunk is taken over, at most at the manifest's rate."""
    period_ns = round(1e9 / policy.manifest.target_rate_hz)
    player = Player(profile, fade_ns, stream.swing(0.0))
    waiting: tuple[int, ActionChunk] | None = None
    tails: list[ActionChunk] = []
    observed_ns, guided = -period_ns, 0

    def newest() -> ActionChunk | None:
        return tails[-1] if tails else None

    for now in range(0, round(seconds * 1e9), profile.dt_ns):
        if waiting is None and now - observed_ns >= period_ns:
            observed_ns = now
            seen = min(stream.newest_ns(now) // profile.dt_ns, len(player.played) - 1)
            joints = player.played[seen] if player.played else stream.swing(0.0)
            inference = policy.infer(stream.observe(now, joints), policy.manifest.instructions[0], tail=newest)
            guided += inference.guidance == "guided"
            waiting = (now + delay_ns, inference.chunk)
        if waiting is not None and waiting[0] <= now:
            committed = player.take(waiting[1], now)
            tails.extend([] if committed is None else [committed])
            waiting = None
        player.tick(now)
    return player.figures(guided)


def replay(arrivals: Sequence[tuple[int, ActionChunk]], profile: RobotProfile, fade_ns: int) -> Boundaries:
    """Play recorded chunks again, each taken over when it was. Raises ValueError for too few of them."""
    if not arrivals:
        raise ValueError("seams: got no chunk")
    player, waiting = Player(profile, fade_ns, arrivals[0][1].positions[0]), list(arrivals)
    for now in range(arrivals[0][0], arrivals[-1][0] + 2 * SEAM_NS, profile.dt_ns):
        while waiting and waiting[0][0] <= now:
            at_ns, chunk = waiting.pop(0)
            player.take(chunk, at_ns)
        player.tick(now)
    return player.figures()


def _apart(timeline: Timeline, chunk: ActionChunk, now_ns: int, arms: npt.NDArray[np.int64]) -> float:
    """Return the distance of plan and chunk at `now_ns`, or where the chunk begins if that is later."""
    at = np.array([max(now_ns, chunk.first_ns)])
    new, _ = resampled(chunk, at)
    return float(np.abs(new - timeline.tail(int(at[0]), chunk.dt_ns, 1))[:, arms].max(initial=0.0))


def _figures(played: FloatArray, seams: Sequence[tuple[int, float]], tick_ns: int, guided: int) -> Boundaries:
    """Reduce positions [ticks, joints] to the seams'. Raises ValueError where there is none."""
    width = SEAM_NS // tick_ns
    whole = [(at, apart) for at, apart in seams if at >= 3 and at + width < len(played)]
    if not whole:
        raise ValueError("seams: got no whole one, expected a run of several chunks")
    steps = np.abs(np.diff(played, axis=0)).max(axis=1)  # from tick i to i + 1
    jerks = np.abs(np.diff(played, n=3, axis=0)).max(axis=1) / (tick_ns * 1e-9) ** 3  # over ticks i to i + 3
    return Boundaries(
        apart_rad=np.array([apart for _, apart in whole]),
        step_rad=np.array([steps[at - 1 : at + width].max() for at, _ in whole]),
        jerk_rad_s3=np.array([jerks[at - 3 : at + width - 3].max() for at, _ in whole]),
        reach_rad=float(np.abs(played - played[0]).max()),
        guided=guided,
    )


def cost(policy: Policy, stream: Stream, cycles: int) -> tuple[float, float]:
    """Return how long a free cycle takes and how much longer a guided one, both in ms of this process's CPUs.

    Medians of pairs on one observation, in turns: what else the machine does meets both alike.
    """
    instruction = policy.manifest.instructions[0]
    joints = stream.swing(1.0)
    observation = stream.observe(1_000_000_000, joints)
    first = policy.infer(observation, instruction).chunk
    tail = ActionChunk(
        first.robot, first.joint_names, observation.stamp_ns - 200_000_000, observation.stamp_ns, first.dt_ns, first.positions
    )

    def total_ms(committed: ActionChunk | None) -> float:
        policy.forget()
        began = time.process_time()
        policy.infer(observation, instruction, tail=lambda: committed)
        return 1e3 * (time.process_time() - began)

    pairs = []
    for k in range(cycles):
        order = (None, tail) if k % 2 == 0 else (tail, None)
        taken = [total_ms(committed) for committed in order]
        pairs.append(taken if k % 2 == 0 else taken[::-1])
    free, guided = np.array(pairs).T
    return float(np.median(free)), float(np.median(guided - free))
