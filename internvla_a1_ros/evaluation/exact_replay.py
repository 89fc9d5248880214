"""A recording's own run again, from what the recording notes of itself: every tick of the command loop, every chunk of the policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from internvla_a1_ros.bags.reading import Bag
from internvla_a1_ros.core.checksum import sha256_of
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.cycle_replay import Remade, remake
from internvla_a1_ros.evaluation.tick_replay import Difference, differences, run_again
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.runtime.tick_log import Tick, from_json

# Another processor adds up in another order.
TOLERANCE = 1e-4


@dataclass(slots=True)
class Again:
    """What one robot's processes did again: `ticks` and where they differ, and the chunks that were made again."""

    robot: str
    ticks: int = 0
    tick_differences: list[Difference] = field(default_factory=list)
    chunks: list[Remade] = field(default_factory=list)
    note: str = ""

    @property
    def chunks_from_the_first(self) -> bool:
        """Whether the recording holds every chunk from the first on: what the policy knew before it otherwise is not in the bag."""
        return [each.draw for each in self.chunks if not each.why_not] == list(range(1, len(self.chunks) + 1))

    @property
    def same(self) -> bool:
        """Whether everything that can be judged is as recorded."""
        chunks = self.chunks if self.chunks_from_the_first else []
        return not self.tick_differences and all(each.apart <= TOLERANCE for each in chunks)


@dataclass(slots=True)
class Exactly:
    """All robots of a recording."""

    robots: list[Again]

    @property
    def same(self) -> bool:
        """Whether all is as recorded; not where nothing could be judged."""
        judged = any(robot.ticks or (robot.chunks and robot.chunks_from_the_first) for robot in self.robots)
        return judged and all(robot.same for robot in self.robots)

    def lines(self) -> Iterator[str]:
        """One line for the ticks, one for the chunks, and the first differences."""
        for each in self.robots:
            off = len(each.tick_differences)
            outcome = "none run again" if not each.ticks else f"{off} differences" if off else "all the same to the bit"
            yield f"{each.robot}: {each.ticks} ticks, {outcome}{each.note}"
            yield from (f"  {difference}" for difference in each.tick_differences[:5])
            made: list[float] = [chunk.apart for chunk in each.chunks if not chunk.why_not]
            bits = sum(apart == 0.0 for apart in made)
            if each.chunks:
                furthest = f", the furthest {max(made, default=0.0):.2g} off" if bits < len(made) else ""
                yield f"{each.robot}: {len(made)} of {len(each.chunks)} chunks made again, {bits} the same to the bit{furthest}"
            if each.chunks and not each.chunks_from_the_first:
                yield f"{each.robot}: chunks are not judged: the recording does not hold every one from the first on"
            reasons = {chunk.why_not for chunk in each.chunks if chunk.why_not}
            yield from (f"  not made again: {reason}" for reason in sorted(reasons))


def run_exactly(bag: Bag, *, checkpoint: str = "", threads: int | None = None) -> Exactly:
    """Run every robot of a recording again; `checkpoint` is for one that lies elsewhere now.

    Raises ConfigurationError where the bag notes nothing of the processes that made it, or their checkpoint is another by now.
    """
    processes = {name: json.loads(text) for name, text in bag.notes.get("processes", {}).items()}
    robots = bag.notes.get("robots", {})
    if not processes or not robots:
        raise ConfigurationError(f"bag '{bag.path}': notes no processes, expected a recording made with record:=true")
    found = []
    for name, told in robots.items():
        profile, given = RobotProfile.model_validate_json(told), processes[name]
        namespace, beside = str(given.get("namespace", "")), name.removesuffix("command") + "policy"
        again = Again(str(given.get("instance") or profile.name))
        _ticks(bag, profile, given, namespace, again)
        _chunks(bag, profile, processes.get(beside), namespace, again, checkpoint, threads)
        found.append(again)
    return Exactly(found)


def _ticks(bag: Bag, profile: RobotProfile, given: dict[str, Any], namespace: str, again: Again) -> None:
    topic = f"/{namespace}/command/ticks".replace("//", "/")
    if topic not in bag.topics:
        again.note = f"; no topic '{topic}'"
        return
    recorded: list[Tick] = [tick for record in bag.records([topic]) for tick in from_json(record.message.data)]
    again.ticks = len(recorded)
    if not recorded or recorded[0].mode not in ("inactive", "hold") or not recorded[0].requests:
        again.ticks, again.note = 0, f"; {len(recorded)} ticks begin in the middle of a run, the state before is not known"
        return
    heartbeat = float(given.get("heartbeat_timeout_s", 0.0)) or None
    made = run_again(recorded, profile, again.robot, dry_run=bool(given.get("dry_run", True)), heartbeat_timeout_s=heartbeat)
    again.tick_differences = differences(recorded, made)
    spacing = np.diff([tick.now_ns for tick in recorded])
    lost = int((spacing > 5 * profile.dt_ns).sum())
    again.note = f"; {lost} gaps of more than 5 ticks" if lost else ""


def _chunks(
    bag: Bag, profile: RobotProfile, given: dict[str, Any] | None, namespace: str, again: Again, checkpoint: str, threads: int | None
) -> None:
    if given is None or f"/{namespace}/policy/cycle".replace("//", "/") not in bag.topics:
        return
    folder = find_checkpoint(checkpoint or str(given["checkpoint"]))
    _check_same(bag, folder)
    torch.set_num_threads(threads or int(given.get("threads", 1)))
    policy = load_policy(
        folder,
        profile,
        again.robot,
        engine=str(given.get("engine") or "torch"),
        preset=str(given.get("preset") or "") or None,
        guidance=str(given.get("guidance") or "") or None,
        threads=threads or int(given.get("threads", 1)),
        seed=int(given.get("seed", 0)),
    )
    policy.warm_up("as the node does")
    again.chunks = list(remake(bag, profile, policy, namespace))


def _check_same(bag: Bag, folder: Path) -> None:
    for path, digest in bag.notes.get("checksums", {}).items():
        now = sha256_of(folder / Path(path).name)
        if now and now != digest and Path(path).suffix == ".safetensors":
            raise ConfigurationError(f"'{folder / Path(path).name}': got sha256 {now[:12]}, expected {digest[:12]}: not what was recorded")
