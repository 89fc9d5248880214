"""A cell for the doctor: its robots with their topics where the cell has them, and the cell's own wires to PLC and belt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from internvla_a1_ros.commissioning.doctor_facts import Ends, Facts
from internvla_a1_ros.commissioning.doctor_findings import Finding, ok, stop, warning
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.cell import CellSpec
from internvla_a1_ros.runtime.cell_parts import CellRobot, below

CELL_NODE = "cell"
# What the cell says; all other wires are what it hears.
_SAID = {("belt", "run"), ("belt", "speed"), ("plc", "result"), ("plc", "route"), ("plc", "help")}


@dataclass(frozen=True, slots=True)
class Wire:
    """One topic between the cell and its surroundings; `said`: by the cell."""

    key: str
    topic: str
    type: str
    said: bool


def wires(cell: CellSpec) -> list[Wire]:
    """Return the wires that the cell's description names."""
    return [
        Wire(f"{part}.{key}", below("", wire.topic), wire.type, (part, key) in _SAID)
        for part, wires_of in (("belt", cell.belt), ("plc", cell.plc), ("signals", cell.signals))
        for key, wire in (wires_of.items() if isinstance(wires_of, dict) else dict(wires_of or {}).items())
        if hasattr(wire, "topic")
    ]


def moved(robot: CellRobot, profile: RobotProfile) -> RobotProfile:
    """Return the robot's profile with its topics where they lie in this cell."""
    parts = {
        part: tuple(wire.model_copy(update={"topic": robot.topic(wire.topic)}) for wire in getattr(profile, part))
        for part in ("states", "commands", "cameras")
    }
    return profile.model_copy(update=parts)


def check_wires(all_wires: Iterable[Wire], facts: Facts) -> list[Finding]:
    """Return the findings on the cell's wires: each there, of its type, and said by one side alone."""
    return [finding for wire in all_wires for finding in _check_wire(wire, facts)]


def _check_wire(wire: Wire, facts: Facts) -> Iterator[Finding]:
    subject = f"wire {wire.key}"
    if facts.wires is None:
        types = facts.topics.get(wire.topic, ())
    else:
        seen = facts.wires.get(wire.topic, Ends())
        types = tuple(sorted({end.type for end in (seen.listeners if wire.said else seen.publishers)}))
        if len(seen.publishers) > 1 or (wire.said and any(end.node.rsplit("/", 1)[-1] != CELL_NODE for end in seen.publishers)):
            who = ", ".join(sorted({end.node for end in seen.publishers}))
            yield stop("source", subject, f"{wire.topic} is published by {who}", "end all but the one that belongs there")
            return
    others = [kind for kind in types if kind != wire.type]
    if others:
        yield stop("type", subject, f"{wire.topic} is of type {others[0]}, the cell says {wire.type}", "correct the type in the cell")
    elif not types:
        nobody = "not in the bag" if facts.wires is None else "nobody listens" if wire.said else "nobody publishes it"
        yield warning(
            "present", subject, f"{wire.topic}: {nobody}", "start the PLC's bridge or the belt's driver, or correct the topic in the cell"
        )
    else:
        yield ok("present", subject, f"{wire.topic}, {wire.type}")
