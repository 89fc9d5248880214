"""`internvla-a1 bag info|cut|check`: what is in a bag, a piece of it, and whether it is fit for replay and conversion."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvla_a1_ros.cli.progress import working
from internvla_a1_ros.core.errors import ConfigurationError

if TYPE_CHECKING:
    from internvla_a1_ros.bags.checking import Measured
    from internvla_a1_ros.bags.reading import Bag

bag = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Look into a bag, cut it, check it.")

BagPath = Annotated[Path, typer.Argument(help="rosbag2 folder, or its .mcap or .db3 file", metavar="BAG")]


@bag.command()
def info(
    bags: Annotated[list[Path], typer.Argument(help="rosbag2 folders, or their .mcap or .db3 files", metavar="BAG...")],
    quick: Annotated[bool, typer.Option("--quick", help="only what the index says: no gaps and sizes, no pass over the bag")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Show topics, types, counts, rates, gaps, sizes, what is lost, and what the recorder noted."""
    from internvla_a1_ros.bags.checking import measure
    from internvla_a1_ros.bags.reading import Bag

    told = []
    for path in bags:
        with Bag(path) as opened, working(f"reading {path}", 1.0) as work:
            measured = None if quick else measure(opened, None, work.at)
            told.append(_facts(opened, measured))
    if json:
        print(json_format.dumps(told, indent=1))
        return
    for each in told:
        _show(each)


@bag.command()
def cut(
    source: BagPath,
    out: Annotated[Path, typer.Argument(help="the new bag: a folder that is not there yet", metavar="OUT")],
    from_s: Annotated[float, typer.Option("--from", help="seconds from the bag's start", min=0.0)] = 0.0,
    to_s: Annotated[float | None, typer.Option("--to", help="seconds from the bag's start; default: its end")] = None,
    topics: Annotated[list[str] | None, typer.Option(help="only this topic, or pattern such as '/camera/*'; may be repeated")] = None,
    around: Annotated[str, typer.Option(help="instead of --from and --to: around a message of this topic")] = "",
    event: Annotated[int, typer.Option(help="with --around: which message of it, from 1", min=1)] = 1,
    before_s: Annotated[float, typer.Option("--before", help="with --around: seconds before it", min=0.0)] = 5.0,
    after_s: Annotated[float, typer.Option("--after", help="with --around: seconds after it", min=0.0)] = 5.0,
) -> None:
    """Write a piece of a bag as a bag (MCAP). What holds until it is said anew (/tf_static, the instruction, latched topics) is carried
    over: its last message before the piece comes first in it.
    """
    from internvla_a1_ros.bags.cutting import cut as cut_out
    from internvla_a1_ros.bags.cutting import event_ns
    from internvla_a1_ros.bags.parts import size_text
    from internvla_a1_ros.bags.reading import Bag

    if around and (from_s or to_s is not None):
        raise ConfigurationError("bag cut: got --around and --from or --to, expected one of them")
    with Bag(source) as opened, working(f"cutting {source}", 1.0) as work:
        if around:
            at_ns = event_ns(opened, around, event)
            start_ns, end_ns = at_ns - round(before_s * 1e9), at_ns + round(after_s * 1e9)
        else:
            start_ns = opened.start_ns + round(from_s * 1e9)
            end_ns = opened.end_ns + 1 if to_s is None else opened.start_ns + round(to_s * 1e9)
        done = cut_out(opened, out, start_ns, end_ns, topics or (), work.at)
        losses = list(opened.losses)
    carried = f"; carried over: {', '.join(done.carried)}" if done.carried else ""
    print(f"{out}: {done.messages} messages, {size_text(done.n_bytes)}{carried}")
    for loss in losses:
        print(f"lost: {loss}")


@bag.command()
def check(
    source: BagPath,
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    json: Annotated[bool, typer.Option("--json", help="print the findings as JSON, as `internvla-a1 doctor` does")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="exit 1 with a warning too")] = False,
) -> None:
    """Say whether a bag is fit for replay and conversion: ok, warning or stop, and what to do.

    Exits 0 without a stop, 1 with one (with --strict: with a warning too), 2 where it cannot look at all.
    """
    from internvla_a1_ros.bags.reading import Bag
    from internvla_a1_ros.cli.doctor import show_findings
    from internvla_a1_ros.commissioning.bag_fitness import examine_bag
    from internvla_a1_ros.commissioning.doctor_findings import Level, to_json, worst
    from internvla_a1_ros.robots.profile import load_profile

    profile = load_profile(robot)
    with Bag(source) as opened, working(f"checking {source}", 1.0) as work:
        findings = examine_bag(opened, profile, work.at)
        seconds = (opened.end_ns - opened.start_ns) * 1e-9
    if json:
        print(json_format.dumps(to_json(findings, of=profile.name, source="bag", seconds=seconds), indent=1))
    else:
        show_findings(findings, f"{profile.name}, {source}")
    bad = (Level.STOP, Level.WARNING) if strict else (Level.STOP,)
    raise typer.Exit(int(worst(findings) in bad))


def _facts(opened: Bag, measured: Measured | None) -> dict[str, Any]:
    """All that is shown of one bag, as plain data; `null` where only a pass over the bag would tell."""
    span_s = (opened.end_ns - opened.start_ns) * 1e-9
    rows: list[dict[str, Any]] = []
    for topic in opened.topics.values():
        pulse = None if measured is None else measured.pulses[topic.name]
        count = topic.count if pulse is None else pulse.count
        rate_hz = pulse.rate_hz if pulse is not None else (count - 1) / span_s if span_s > 0 and count > 1 else 0.0
        row = {"topic": topic.name, "type": topic.type, "count": count, "rate_hz": round(rate_hz, 3), "gap_s": None, "bytes": None}
        if pulse is not None:
            row |= {"gap_s": round(pulse.gap_ns * 1e-9, 4), "bytes": pulse.n_bytes, "frame_ids": pulse.frames}
        rows.append(row)
    return {
        "bag": str(opened.path),
        "files": [file.name for file in opened.files],
        "bytes": sum(file.stat().st_size for file in opened.files),
        "start_ns": opened.start_ns,
        "seconds": round(span_s, 4),
        "messages": sum(row["count"] for row in rows),
        "topics": rows,
        "losses": opened.losses,
        "notes": {name: dict(note) for name, note in opened.notes.items()},
    }


def _show(told: dict[str, Any]) -> None:
    from datetime import datetime, timezone

    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from internvla_a1_ros.bags.parts import size_text

    console = Console()
    start = datetime.fromtimestamp(told["start_ns"] * 1e-9, timezone.utc)
    files = told["files"][0] if len(told["files"]) == 1 else f"{len(told['files'])} files"
    title = f"{told['bag']}: {told['seconds']:.2f} s from {start:%Y-%m-%d %H:%M:%S} UTC, {told['messages']} messages, "
    right = [Column(name, justify="right") for name in ("messages", "Hz", "longest gap", "size")]
    table = Table(Column("topic, type", overflow="fold"), *right, box=box.SIMPLE_HEAD)
    for row in told["topics"]:
        gap = "" if row["gap_s"] is None or row["count"] < 2 else f"{row['gap_s'] * 1e3:.0f} ms"
        size = "" if row["bytes"] is None else size_text(row["bytes"])
        rate = f"{row['rate_hz']:.1f}" if row["count"] > 1 else ""
        table.add_row(f"{escape(row['topic'])}\n[dim]{row['type']}[/]", str(row["count"]), rate, gap, size)
    console.print(f"{title}{size_text(told['bytes'])} in {files}", highlight=False, markup=False)
    console.print(table)
    for name, note in told["notes"].items():
        console.print(f"noted: {name}: {', '.join(f'{key}={value}' for key, value in note.items())}", highlight=False, markup=False)
    for loss in told["losses"]:
        console.print(f"[yellow]lost[/]: {escape(loss)}", highlight=False)
