"""A result as a folder: it appears whole at its place or not at all, and is never written over unasked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError

METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
VERSION = 1


def check_place(place: Path, force: bool) -> None:
    """Raise ConfigurationError where `place` may not be written: it holds something, and `force` is not given or it is no result."""
    if place.exists() and not place.is_dir():
        raise ConfigurationError(f"output folder '{place}': there is a file of this name, expected a folder or nothing")
    if not place.is_dir() or not any(place.iterdir()):
        return
    if not force:
        raise ConfigurationError(f"output folder '{place}' is not empty: name another with --out, or replace it with --force")
    if not (place / METRICS_FILE).is_file():
        raise ConfigurationError(f"output folder '{place}' holds no result (no {METRICS_FILE}): not replaced, name another with --out")


@contextlib.contextmanager
def written(place: Path, force: bool = False) -> Iterator[Path]:
    """Yield a folder beside `place` to write into; it takes its place at the end, and is removed where an exception comes instead.

    Raises ConfigurationError where the place is taken, or cannot be written (a full disk says so).
    """
    check_place(place, force)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        try:
            part.mkdir(parents=True)
            yield part
            if place.exists():
                _set_aside(place)
            os.replace(part, place)
        except OSError as problem:
            raise ConfigurationError(f"output folder '{place}': cannot be written: {_reason(problem)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _set_aside(place: Path) -> None:
    if any(place.iterdir()):
        old = place.with_name(f".{place.name}.{os.getpid()}.old")
        os.replace(place, old)
        shutil.rmtree(old, ignore_errors=True)
    else:
        place.rmdir()


def _reason(problem: OSError) -> str:
    """Libraries wrap the system's reason in theirs."""
    if problem.errno == errno.ENOSPC or "No space left" in str(problem):
        return "the disk is full, nothing was kept"
    return problem.strerror or str(problem)


def write_metrics(folder: Path, content: dict[str, Any]) -> None:
    """Write `metrics.json`; a number that is not finite is an error."""
    text = json.dumps({"version": VERSION, **content}, indent=1, allow_nan=False)
    (folder / METRICS_FILE).write_text(text + "\n", encoding="utf-8")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return `metrics.json` of a finished result. Raises ConfigurationError where there is none, or one of another version."""
    path = folder / METRICS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise ConfigurationError(f"{path}: is no JSON: {problem}") from None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        got = content.get("version") if isinstance(content, dict) else type(content).__name__
        raise ConfigurationError(f"{path}: got version {got}, expected {VERSION}")
    return content


def default_place(told: dict[str, Any]) -> Path:
    """Return a place that depends on what was asked and on nothing else."""
    mark = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    words = [str(told["model"]), *(str(each) for each in told["recordings"][:1])]
    name = "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in word) for word in words)
    return Path("runs") / f"replay-{name}-{mark}"
