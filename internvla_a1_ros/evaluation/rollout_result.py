"""Rows of rollouts summed up: success and grasp with Wilson intervals, by latency, belt speed, label side and kind; failures by word."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from internvla_a1_ros.evaluation.wilson import Share

Row = dict[str, Any]
BANDS = 3
# Beyond any speed of a belt; the last band takes its upper end in.
_ROUNDING = 1e-9


def summed(rows: Sequence[Row], belt_m_s: tuple[float, float]) -> dict[str, Any]:
    """Return the figures of all rows and of each group of them; `belt_m_s` is cut into three bands."""
    groupings: dict[str, Callable[[Row], str]] = {
        "latency_ms": lambda row: f"{row['latency_ms']:g}",
        "belt_m_s": lambda row: band(row["conditions"]["belt_speed_m_s"], belt_m_s),
        "label": lambda row: row["conditions"]["label"] or "none",
        "kind": lambda row: row["conditions"]["kind"],
    }
    by = {name: {key: of(group) for key, group in grouped(rows, key_of)} for name, key_of in groupings.items()}
    return {**of(rows), "by": by}


def of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of some rows."""
    succeeded, grasped = (Share(sum(bool(row[key]) for row in rows), len(rows)) for key in ("succeeded", "grasped"))
    lasted = [row["duration_s"] for row in rows if row["succeeded"]]
    return {
        "n": len(rows),
        "success_rate": succeeded.rate,
        "success_interval": list(succeeded.interval),
        "grasp_rate": grasped.rate,
        "grasp_interval": list(grasped.interval),
        "failures": failures(rows),
        "success_s": statistics.median(lasted) if lasted else None,
        "limited": limited(rows),
        "holds": _added(row["holds"] for row in rows),
        "faults": _added(row["faults"] for row in rows),
        "refused": _added(row["refused"] for row in rows),
    }


def limited(rows: Sequence[Row]) -> float | None:
    """Return the mean share of a rollout's ticks in which limits changed the plan, None where no row says it."""
    known = [float(row["limited"]) for row in rows if row["limited"] is not None]
    return statistics.fmean(known) if known else None


def failures(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many failed, by word, the most frequent first."""
    return dict(Counter(row["failure"] for row in rows if row["failure"]).most_common())


def grouped(rows: Sequence[Row], key_of: Callable[[Row], str]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each key, keys that are numbers in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key_of(row), []).append(row)
    return sorted(groups.items(), key=lambda item: (_number(item[0]), item[0]))


def band(speed_m_s: float, belt_m_s: tuple[float, float]) -> str:
    """Return which third of the belt's range a speed lies in, as its ends in words."""
    low, high = belt_m_s
    width = (high - low) / BANDS
    if width <= 0:
        return f"{low:.3f}"
    k = min(BANDS - 1, max(0, int((speed_m_s - low) / width + _ROUNDING)))
    return f"{low + k * width:.3f}-{low + (k + 1) * width:.3f}"


def _number(text: str) -> float:
    try:
        return float(text.split("-")[0])
    except ValueError:
        return float("inf")


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
