"""What the command loop was given in each tick and what it made of it, exactly: enough to run the same ticks again.

The loop's thread notes references and two copies of positions; whoever records turns them into text, on a thread of its own.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from internvla_a1_ros.core.types import ActionChunk, FloatArray, JointState, Verdict
from internvla_a1_ros.runtime.command_io import CommandInbox, CommandOutbox, Request


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """One tick. Given: everything from `joints` to `requests`, as in `CommandInbox`. Made of it: the rest.

    `target` [dof] is the plan before the limiter (None: no plan was followed), `positions` [dof] the command (None: there was none),
    `sent` whether it went to the robot. `verdicts` are the codes of what was said to `chunks`, then to `requests`.
    """

    now_ns: int
    joints: tuple[JointState, int] | None
    heartbeat_ns: int | None
    speed_scale: float
    foreign_publisher: str | None
    instruction_epoch_ns: int
    clock_jump: bool
    estop_level: bool
    estop_edge: bool
    chunks: tuple[ActionChunk | Verdict, ...]
    requests: tuple[Request, ...]
    mode: str
    armed: bool
    sent: bool
    limited: bool
    target: FloatArray | None
    positions: FloatArray | None
    verdicts: tuple[str, ...]
    events: tuple[str, ...]

    def fill(self, inbox: CommandInbox) -> None:
        """Put into `inbox` what this tick was given."""
        for name in _LEVELS:
            setattr(inbox, name, getattr(self, name))
        inbox.chunks.extend(self.chunks)
        for request in self.requests:
            inbox.ask(request)


_LEVELS = (
    "joints", "heartbeat_ns", "speed_scale", "foreign_publisher", "instruction_epoch_ns", "clock_jump", "estop_level", "estop_edge",
)  # fmt: skip


class TickLog:
    """Notes ticks until they are drained; of those that nobody drains the oldest are dropped."""

    def __init__(self, at_most: int = 2000) -> None:
        self._ticks: deque[Tick] = deque(maxlen=at_most)
        self._given: dict[str, Any] = {}

    def before(self, inbox: CommandInbox) -> None:
        """Note the levels that the tick will see."""
        self._given = {name: getattr(inbox, name) for name in _LEVELS}

    def after(self, now_ns: int, out: CommandOutbox, target: FloatArray) -> None:
        """Note what the tick took in and what it made; `target` is the plan's position before the limiter."""
        moved = out.send or out.would_send
        self._ticks.append(
            Tick(
                now_ns=now_ns,
                **self._given,
                chunks=tuple(out.chunks),
                requests=tuple(ticket.request for ticket in out.answers),
                mode=out.mode.value,
                armed=out.armed,
                sent=out.send,
                limited=out.limited,
                target=target.copy() if moved and out.sampled_ns else None,
                positions=out.positions.copy() if moved else None,
                verdicts=tuple(v.code for v in (*out.chunk_verdicts, *(t.verdict for t in out.answers if t.verdict is not None))),
                events=tuple(event.code for event in out.events),
            )
        )

    def drain(self, most: int | None = None) -> list[Tick]:
        """Return what was noted since, oldest first, `most` at a time; safe beside the thread that notes."""
        drained: list[Tick] = []
        while self._ticks and len(drained) != most:
            drained.append(self._ticks.popleft())
        return drained


def to_json(ticks: Iterable[Tick]) -> str:
    """Return ticks as text; what is as in the tick before is left out."""
    told: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    for tick in ticks:
        plain = {field.name: _plain(getattr(tick, field.name)) for field in fields(tick)}
        told.append({name: value for name, value in plain.items() if name not in before or before[name] != value})
        before = plain
    return json.dumps(told, separators=(",", ":"))


def from_json(text: str) -> Iterator[Tick]:
    """Return the ticks of a text that `to_json` made. Raises ValueError where it is none."""
    try:
        known: dict[str, Any] = {}
        for told in json.loads(text):
            known = {**known, **told}
            yield _tick(known)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as problem:
        raise ValueError(f"ticks: got text that holds none ({problem!r})") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, ActionChunk):
        times = {"stamp_ns": value.stamp_ns, "first_ns": value.first_ns, "dt_ns": value.dt_ns}
        return {"robot": value.robot, "joint_names": list(value.joint_names), **times, "positions": value.positions.tolist()}
    if isinstance(value, Verdict):
        return {"code": value.code, "reason": value.reason}
    if isinstance(value, JointState):
        return {"stamp_ns": value.stamp_ns, "positions": value.positions.tolist()}
    if isinstance(value, Request):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _tick(told: dict[str, Any]) -> Tick:
    arrays = {name: None if told[name] is None else np.array(told[name]) for name in ("target", "positions")}
    joints = told["joints"]
    return Tick(
        **{
            **told,
            **arrays,
            "joints": None if joints is None else (JointState(joints[0]["stamp_ns"], np.array(joints[0]["positions"])), joints[1]),
            "chunks": tuple(_chunk(each) for each in told["chunks"]),
            "requests": tuple(Request(each) for each in told["requests"]),
            "verdicts": tuple(told["verdicts"]),
            "events": tuple(told["events"]),
        }
    )


def _chunk(told: dict[str, Any]) -> ActionChunk | Verdict:
    if "code" in told:
        return Verdict(False, told["code"], told["reason"])
    return ActionChunk(
        told["robot"], tuple(told["joint_names"]), told["stamp_ns"], told["first_ns"], told["dt_ns"], np.array(told["positions"])
    )
