"""Makes the chunks of a recording again from what each was made from, and says how far they are from those that were sent.

On the same machine and number of threads they are the same to the bit.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from internvla_a1_ros.bags.reading import Bag, Record
from internvla_a1_ros.bags.robot_stream import RobotStream, stamp_of
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ActionChunk, Frame, JointState, Observation
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.wire_chunks import chunk_from_message

# A stamp that went into the loop's time and back, while the offset between the clocks was being tracked.
SAME_NS = 2_000_000
_KEPT_FRAMES, _KEPT_TAILS = 400, 200
T = TypeVar("T")


class Infers(Protocol):
    """What is needed of a policy."""

    def infer(
        self, observation: Observation, instruction: str, *, imagine: bool = False, tail: Callable[[], ActionChunk | None] | None = None
    ) -> Inference:
        """Return the chunk for `observation`."""

    def skip(self, draws: int) -> None:
        """Drop noise that was drawn before the recording began."""


@dataclass(frozen=True, slots=True)
class Remade:
    """One chunk, observed at `stamp_ns`: how far it is from the recorded one (robot units), or why it could not be made again."""

    stamp_ns: int
    draw: int
    apart: float
    why_not: str = ""


def remake(bag: Bag, profile: RobotProfile, policy: Infers, namespace: str = "") -> Iterator[Remade]:
    """Yield the recording's chunks as the policy makes them today, in order. Raises ConfigurationError where the bag holds no cycles.

    The policy must be fresh and have the recorded seed: noise is drawn in order, that of cycles which are missing is skipped.
    """
    place = f"/{namespace.strip('/')}/".replace("//", "/")
    cycle, chunk = (bag.need(f"{place}{name}").name for name in ("policy/cycle", "policy/chunk"))
    committed = f"{place}command/committed"  # absent where the arms never followed a plan
    stream = RobotStream(bag, profile)
    memory = _Memory(profile)
    if not memory.cameras:
        raise ConfigurationError(f"robot '{profile.name}' has no cameras")
    drawn = 0
    for record in bag.records([*stream.topics, cycle, chunk, committed]):
        if record.topic == cycle:
            told = {each.key: each.value for each in record.message.values}
            if "draw" not in told:
                raise ConfigurationError(f"bag '{bag.path}': '{cycle}' does not say what a chunk was made from: it was recorded too early")
            draw = int(told["draw"])
            policy.skip(max(0, draw - drawn - 1))
            yield (made := memory.remade(told, policy))
            drawn = draw - bool(made.why_not)
        elif record.topic == chunk:
            memory.sent(record)
        elif record.topic == committed:
            memory.committed(record)
        elif isinstance(what := stream.heard(record).what, Frame):
            memory.frames.append(what)


class _Memory:
    """What was heard of late."""

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        self.cameras = tuple(camera.name for camera in profile.cameras)
        self.frames: deque[Frame] = deque(maxlen=_KEPT_FRAMES)
        self._tails: deque[ActionChunk] = deque(maxlen=_KEPT_TAILS)
        self._chunks: deque[ActionChunk] = deque(maxlen=20)

    def sent(self, record: Record) -> None:
        self._keep(record, self._chunks)

    def committed(self, record: Record) -> None:
        self._keep(record, self._tails)

    def _keep(self, record: Record, where: deque[ActionChunk]) -> None:
        message = record.message
        if message.points:
            chunk = chunk_from_message(message, lambda _: stamp_of(message, record.received_ns), self._profile)
            if isinstance(chunk, ActionChunk):
                where.append(chunk)

    def remade(self, told: dict[str, str], policy: Infers) -> Remade:
        stamp_ns, draw = int(told["observed"]), int(told["draw"])
        was = _nearest(self._chunks, stamp_ns, lambda chunk: chunk.stamp_ns)
        if was is None:
            return Remade(stamp_ns, draw, np.inf, "its chunk is not in the bag")
        try:
            observation, tail = self._observation(told, stamp_ns), self._tail(told, stamp_ns)
        except LookupError as problem:
            return Remade(stamp_ns, draw, np.inf, str(problem.args[0]))
        inference = policy.infer(observation, told["instruction"], tail=lambda: tail)
        return Remade(stamp_ns, draw, float(np.abs(inference.chunk.positions - was.positions).max()))

    def _observation(self, told: dict[str, str], stamp_ns: int) -> Observation:
        current, past = (tuple(self._frame(told, which, camera) for camera in self.cameras) for which in ("frame", "past"))
        joints = JointState(int(told["joints_stamp"]), np.array(json.loads(told["joints"])))
        return Observation(stamp_ns, current, past, joints, 0)

    def _frame(self, told: dict[str, str], which: str, camera: str) -> Frame | None:
        if f"{which}_{camera}" not in told:
            return None
        stamp_ns = int(told[f"{which}_{camera}"])
        found = _nearest([frame for frame in self.frames if frame.camera == camera], stamp_ns, lambda frame: frame.stamp_ns)
        if found is None:
            raise LookupError(f"the picture of camera '{camera}' it was made from is not in the bag")
        return found

    def _tail(self, told: dict[str, Any], stamp_ns: int) -> ActionChunk | None:
        if not told["tail"]:
            return None
        tail = _nearest(self._tails, int(told["tail"]), lambda tail: tail.first_ns)
        if tail is None:
            raise LookupError("the committed actions it continued are not in the bag")
        # When it was on the loop's own clock, against which ROS time moves by some microseconds.
        return replace(tail, first_ns=stamp_ns + int(told["tail_after"]), stamp_ns=stamp_ns - int(told["tail_age"]))


def _nearest(those: Iterable[T], stamp_ns: int, of: Callable[[T], int]) -> T | None:
    """The one nearest to a time: after a stall two may lie within what is taken for the same."""
    near = [each for each in those if abs(of(each) - stamp_ns) <= SAME_NS]
    return min(near, key=lambda each: abs(of(each) - stamp_ns)) if near else None
