"""The report of rollouts: shares with their intervals by latency, belt, label and kind; every trial; the videos that were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from internvla_a1_ros.evaluation.report import Cards, Figure, Figures, Films, Page, Section, Table
from internvla_a1_ros.evaluation.report_figures import BLUE, GREEN

VIDEOS = "videos"  # the folder beside the report
GROUPS = {"latency_ms": "added latency (ms)", "belt_m_s": "belt speed (m/s)", "label": "label side", "kind": "kind"}
_INTERVALS = "Whiskers are Wilson's 95 % intervals. Rollouts of one trial at several latencies begin alike: no independent draws."


def report(metrics: Mapping[str, Any]) -> Page:
    """Return the page of what `metrics.json` holds."""
    what = metrics["what"]
    figures = [_bars(title, metrics["by"][name]) for name, title in GROUPS.items() if metrics["by"][name]]
    sections = [
        Section("Shares", [Cards(_cards(metrics)), Figures(figures)], _INTERVALS),
        Section("Why not", [Table(("", "rollouts"), [(word, str(n)) for word, n in metrics["failures"].items()])]),
        Section("Trials", [Table(_HEADINGS, [_row(row) for row in metrics["trials"]])], folded=True),
        Section("What was run", [Table(("", ""), [(key, str(value)) for key, value in what.items()], words=True)], folded=True),
    ]
    if films := [(_told(row), f"{VIDEOS}/{row['video']}") for row in metrics["trials"] if row["video"]]:
        sections.insert(2, Section("Videos", [Films(films)], "Head, left and right camera, the last seconds of each."))
    warnings = [] if what["trained"] else ["The model is untrained: its motions mean nothing."]
    warnings += ["Interrupted: not all of what was asked for was run."] if metrics["partial"] else []
    subtitle = f"{what['task']}, seed {what['seed']}, {metrics['n']} rollouts"
    return Page(f"Rollouts: {what['model']}", subtitle, sections, warnings)


def percent(figures: Mapping[str, Any], what: str) -> str:
    """Return a share with its interval in words."""
    if figures[f"{what}_rate"] is None:
        return "-"
    low, high = figures[f"{what}_interval"]
    return f"{100 * figures[f'{what}_rate']:.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def by_word(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {n}" for word, n in counts.items()) or "-"


def share(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.0f} %"


def _cards(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    lasted = metrics["success_s"]
    return [
        ("success", percent(metrics, "success"), f"of {metrics['n']} rollouts"),
        ("grasped", percent(metrics, "grasp"), "held for a moment, whatever came after"),
        ("time", "-" if lasted is None else f"{lasted:.1f} s", "of a success, median"),
        ("held", str(sum(metrics["holds"].values())), "times; the arms came to rest and waited for a plan"),
        ("faults", str(sum(metrics["faults"].values())), "of the command process"),
        ("limited", share(metrics["limited"]), "of the ticks of a rollout, mean: limits changed the plan"),
    ]


def _bars(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Figure:
    names = [f"{key} (n={told['n']})" for key, told in groups.items()]
    bars = [_bar(what, name, colour, names, list(groups.values())) for what, name, colour in _SHARES]
    axes = {"yaxis": {"title": {"text": "%"}, "range": [0, 105]}, "xaxis": {"type": "category"}, "barmode": "group"}
    return Figure(f"by {title}", bars, axes)


def _told(row: Mapping[str, Any]) -> str:
    conditions = row["conditions"]
    label = f", label {conditions['label']}" if conditions["label"] else ""
    belt = f"belt {conditions['belt_speed_m_s']:.2f} m/s, {row['latency_ms']:g} ms added"
    return f"{row['failure'] or 'success'}: {conditions['kind']}{label}, {belt}, seed {row['seed']}"


_SHARES = (("success", "success", BLUE), ("grasp", "grasped", GREEN))


def _bar(what: str, name: str, colour: str, names: list[str], told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [100 * each[f"{what}_rate"] for each in told]
    ends = [[100 * end for end in each[f"{what}_interval"]] for each in told]
    up = [round(high - rate, 2) for rate, (_, high) in zip(rates, ends, strict=True)]
    down = [round(rate - low, 2) for rate, (low, _) in zip(rates, ends, strict=True)]
    error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    heights = [round(rate, 2) for rate in rates]
    return {"type": "bar", "name": name, "x": names, "y": heights, "error_y": error, "marker": {"color": colour}}


_HEADINGS = ("seed", "latency ms", "belt m/s", "kind", "label", "outcome", "s", "chunks", "late ms", "holds", "limited", "video")


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    conditions, late_ms = row["conditions"], row["late_ms"]
    return (
        str(row["seed"]),
        f"{row['latency_ms']:g}",
        f"{conditions['belt_speed_m_s']:.3f}",
        conditions["kind"],
        conditions["label"] or "-",
        row["failure"] or "success",
        f"{row['duration_s']:.1f}",
        str(row["chunks"]),
        "-" if late_ms is None else f"{late_ms:.0f}",
        str(sum(row["holds"].values())),
        share(row["limited"]),
        row["video"] or "",
    )
