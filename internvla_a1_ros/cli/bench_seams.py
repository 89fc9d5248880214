"""`internvla-a1 bench seams`: what the arms are told at chunk boundaries, over delays, without and with guidance."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvla_a1_ros.cli.progress import STOPPED, Progress
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

if TYPE_CHECKING:
    from internvla_a1_ros.evaluation.continuing import Boundaries

# Name -> (guidance, whether the timeline fades)
WAYS = {
    "none": ("off", False),
    "fade": ("off", True),
    "hard": ("hard", True),
    "soft": ("soft", True),
    "pinv": ("pinv", True),
    "hard_alone": ("hard", False),
    "soft_alone": ("soft", False),
    "pinv_alone": ("pinv", False),
}
QUANTITIES = {"apart": "apart_rad", "step": "step_rad", "jerk": "jerk_rad_s3"}


@dataclass(frozen=True, slots=True)
class Row:
    """The seams of one delay and way."""

    delay_ms: int | None  # None: the running demo
    way: str
    seams: Boundaries


def seams(
    checkpoint: Annotated[str, typer.Argument(help="model folder, or the name of a model that comes along")] = "nano",
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    seconds: Annotated[float, typer.Option(help="simulated time of each run", min=3.0)] = 8.0,
    delays: Annotated[str, typer.Option(help="from capture to take-over in ms, separated by commas")] = "0,50,100,150,200,250,300,350,400",
    ways: Annotated[str, typer.Option(help=f"what to compare: {', '.join(WAYS)} (alone: without fade)")] = "none,fade,hard,soft,pinv",
    preset: Annotated[str, typer.Option(help="how the flow is run; the manifest's default where empty")] = "",
    seed: Annotated[int, typer.Option(help="seed of the flow's noise", min=0)] = 0,
    engine: Annotated[str, typer.Option(help="what computes the model")] = "reference",
    threads: Annotated[int, typer.Option(help="threads of the model on a CPU", min=1)] = 1,
    cycles: Annotated[int, typer.Option(help="pairs of cycles that measure what guidance costs", min=1)] = 100,
    live: Annotated[float, typer.Option(help="run the demo's processes too, so many seconds for each guidance; 0: not", min=0.0)] = 0.0,
    domain_id: Annotated[int, typer.Option(help="ROS domain of the first live run; each takes the next one")] = 90,
) -> None:
    """Measure joint steps and jerk where one chunk takes over from another: no guidance, a fade alone, guidance with the fade.

    Ctrl-C ends it early and keeps the runs that are done.
    """
    asked = _asked(delays, ways)
    rows: list[Row] = []
    costs: dict[str, tuple[float, float]] = {}
    interrupted = False
    bench = _Bench(checkpoint, robot, engine, threads, preset, seed, seconds)
    with Progress() as progress:
        try:
            _measure(bench, asked, cycles, progress, rows, costs)
            if live > 0:
                _live(bench, [way for _, way in asked], live, domain_id, progress, rows)
        except KeyboardInterrupt:
            interrupted = True
    if not rows:
        raise typer.Exit(STOPPED)
    _report(bench, rows, costs, interrupted)


class _Bench:
    """One engine, one stream; a new policy for every run, so that each begins with the same noise."""

    def __init__(self, checkpoint: str, robot: str, engine: str, threads: int, preset: str, seed: int, seconds: float) -> None:
        from internvla_a1_ros.engines import make_engine
        from internvla_a1_ros.evaluation.stream import Stream
        from internvla_a1_ros.policy.manifest import load_manifest
        from internvla_a1_ros.robots.profile import load_profile
        from internvla_a1_ros.runtime.deployment import find_checkpoint

        self.folder, self.profile = find_checkpoint(checkpoint), load_profile(robot)
        self.manifest = load_manifest(self.folder)
        self._preset, self._seed, self.seconds = preset or None, seed, seconds
        self._engine = make_engine(engine, self.folder, threads=threads)
        self.stream = Stream(self.profile, self.manifest.history.spec, seconds)

    def policy(self, guidance: str):  # type: ignore[no-untyped-def]
        from internvla_a1_ros.policy.policy import load_policy

        name = self.profile.name
        return load_policy(self.folder, self.profile, name, engine=self._engine, preset=self._preset, guidance=guidance, seed=self._seed)


def _asked(delays: str, ways: str) -> list[tuple[int, str]]:
    try:
        numbers = [int(word) for word in delays.split(",")]
    except ValueError:
        raise ConfigurationError(f"--delays: got '{delays}', expected milliseconds such as 0,50,100") from None
    if min(numbers) < 0:
        raise ConfigurationError(f"--delays: got {min(numbers)} ms, expected 0 or more")
    for way in ways.split(","):
        if way not in WAYS:
            raise ConfigurationError(f"--ways: got '{way}', expected one of {', '.join(WAYS)}{suggestion(way, list(WAYS))}")
    return [(delay, way) for delay in numbers for way in ways.split(",")]


def _measure(
    bench: _Bench, asked: list[tuple[int, str]], cycles: int, progress: Progress, rows: list[Row], costs: dict[str, tuple[float, float]]
) -> None:
    from internvla_a1_ros.evaluation import continuing

    fade_ns = round(bench.profile.fade_s * 1e9)
    work = progress.work("runs", len(asked))
    for delay_ms, way in asked:
        guidance, fades = WAYS[way]
        policy = bench.policy(guidance)
        found = continuing.run(policy, bench.stream, bench.profile, delay_ms * 1_000_000, fade_ns if fades else 0, bench.seconds)
        rows.append(Row(delay_ms, way, found))
        work.advance(what=f"{delay_ms} ms, {way}")
    for guidance in dict.fromkeys(WAYS[way][0] for _, way in asked):
        if guidance != "off":
            work.at(work.done, what=f"cost of {guidance}")
            costs[guidance] = continuing.cost(bench.policy(guidance), bench.stream, cycles)


def _live(bench: _Bench, ways: list[str], seconds: float, domain_id: int, progress: Progress, rows: list[Row]) -> None:
    """Record each guidance's chunks in the running demo once, and play them with and without the fade."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    from internvla_a1_ros.cli.bench_loop import LoopBench
    from internvla_a1_ros.evaluation import continuing

    loop = LoopBench(str(bench.folder), domain_id, Path("bench_out"), progress.say)
    fade_ns = round(bench.profile.fade_s * 1e9)
    for guidance in dict.fromkeys(WAYS[way][0] for way in ways):
        work = progress.work(f"live, guidance {guidance}")
        arrivals = loop.chunks(seconds, guidance)
        work.end()
        for way in dict.fromkeys(ways):
            if WAYS[way][0] == guidance:
                rows.append(Row(None, way, continuing.replay(arrivals, bench.profile, fade_ns if WAYS[way][1] else 0)))


def _report(bench: _Bench, rows: list[Row], costs: dict[str, tuple[float, float]], interrupted: bool) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    console = Console(width=120)
    note = "" if bench.manifest.trained else ", UNTRAINED: its chunks are noise about where the arms are"
    title = f"{bench.manifest.name}{note}; largest of the arms' joints at each boundary, median / p99"
    table = Table("delay [ms]", "way", "boundaries", "apart [rad]", "step [rad a tick]", "jerk [rad/s3]", "reach [rad]", title=title)
    told = []
    for row in rows:
        figures = {}
        for name, attribute in QUANTITIES.items():
            values = getattr(row.seams, attribute)
            figures[name] = [float(f"{np.percentile(values, q):.4g}") for q in (50, 99)]
        cells = [f"{low:.4f} / {high:.4f}" for low, high in (figures["apart"], figures["step"])]
        jerk = f"{figures['jerk'][0]:.0f} / {figures['jerk'][1]:.0f}"
        table.add_row(
            "live" if row.delay_ms is None else str(row.delay_ms),
            row.way,
            str(len(row.seams.apart_rad)),
            *cells,
            jerk,
            f"{row.seams.reach_rad:.3f}",
        )
        told.append(
            {"delay_ms": row.delay_ms, "way": row.way, **figures, "reach": round(row.seams.reach_rad, 4), "guided": row.seams.guided}
        )
    console.print(table)
    for guidance, (free_ms, more_ms) in costs.items():
        share = 100 * more_ms / free_ms
        console.print(f"{guidance} costs {more_ms:.2f} ms of a cycle of {free_ms:.1f} ms: {share:.1f} %", highlight=False)
    price = {guidance: {"cycle_ms": round(free, 3), "more_ms": round(more, 3)} for guidance, (free, more) in costs.items()}
    head = {"model": bench.manifest.name, "trained": bench.manifest.trained, "interrupted": interrupted, "fade_s": bench.profile.fade_s}
    print(json.dumps({**head, "seconds": bench.seconds, "cost": price, "results": told}))
