"""What the doctor says: one finding per check and subject, sorted, as JSON and back. Imports nothing, so that every node can say it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

JSON_VERSION = 1


class Level(str, Enum):
    """How bad: with a `stop` nothing may move, a `warning` is for a person to weigh."""

    STOP = "stop"
    WARNING = "warning"
    OK = "ok"


_ORDER = tuple(Level)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. `check` and `subject` are stable names; `what` was seen; `remedy` is what to do, empty where ok."""

    check: str
    subject: str
    level: Level
    what: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if (self.level is Level.OK) != (not self.remedy):
            raise ValueError(f"finding '{self.check}' of {self.subject}: got level {self.level.value} and remedy '{self.remedy}'")


def ok(check: str, subject: str, what: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, subject, Level.OK, what)


def warning(check: str, subject: str, what: str, remedy: str) -> Finding:
    """Return a finding for a person to weigh."""
    return Finding(check, subject, Level.WARNING, what, remedy)


def stop(check: str, subject: str, what: str, remedy: str) -> Finding:
    """Return a finding with which nothing may move."""
    return Finding(check, subject, Level.STOP, what, remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level among `findings`, ok where there is none."""
    return min((finding.level for finding in findings), key=_ORDER.index, default=Level.OK)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the worst first; within a level in the order in which they were found."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.level))


def to_json(findings: Iterable[Finding], **about: Any) -> dict[str, Any]:
    """Return the findings as plain data (docs/doctor.md); `about` (of, source, seconds) is added beside them."""
    found = list(findings)
    rows = [{**asdict(finding), "level": finding.level.value} for finding in found]
    return {"version": JSON_VERSION, **about, "level": worst(found).value, "findings": rows}


def from_json(content: dict[str, Any]) -> list[Finding]:
    """Return the findings of `to_json`. Raises ValueError for another version."""
    if content.get("version") != JSON_VERSION:
        raise ValueError(f"doctor's report: got version {content.get('version')}, expected {JSON_VERSION}")
    return [Finding(**{**row, "level": Level(row["level"])}) for row in content["findings"]]
