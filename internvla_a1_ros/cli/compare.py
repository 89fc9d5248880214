"""`internvla-a1 compare A B`: is B worse than A on these bags? A table for people, JSON and an exit code for machines."""

from __future__ import annotations

import json as json_format
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from internvla_a1_ros.cli.progress import STOPPED
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

if TYPE_CHECKING:
    from internvla_a1_ros.evaluation.paired import Comparison

METRICS = ("mse", "mae")
_COLOURS = {"better": "green", "worse": "bold red"}


def compare(
    a: Annotated[str, typer.Argument(help="CHECKPOINT[@ENGINE[:PRECISION][,PRESET]], or the folder of a finished replay")],
    b: Annotated[str, typer.Argument(help="the same, to be judged against the first")],
    more: Annotated[list[Path] | None, typer.Argument(help="further bags, so that several may follow --bags", show_default=False)] = None,
    bags: Annotated[list[Path] | None, typer.Option("--bags", help="bags (rosbag2) or dataset folders")] = None,
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    seeds: Annotated[int, typer.Option(help="draws of noise for each observation", min=1)] = 3,
    stride: Annotated[int | None, typer.Option(help="actions from one observation to the next; else a whole chunk of A", min=1)] = None,
    as_online: Annotated[bool, typer.Option("--as-online", help="at each observation that the live loop would have used")] = False,
    horizon: Annotated[int, typer.Option(help="actions of each chunk that count; 0: all of A's", min=0)] = 0,
    truth: Annotated[str, typer.Option(help="what the robot did: state or command; empty: what A's labels mean")] = "",
    instruction: Annotated[str, typer.Option(help="empty: the recording's own, else the manifest's first")] = "",
    threads: Annotated[int | None, typer.Option(help="threads of the model on a CPU; else the library's choice", min=1)] = None,
    metric: Annotated[str, typer.Option(help="mse or mae, in robot units")] = "mse",
    margin: Annotated[float, typer.Option(help="how much worse B may be, as a share of A's error", min=0.0)] = 0.01,
    out: Annotated[Path | None, typer.Option(help="keep both results, and compare.json, in this folder")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace earlier results there")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Compare two checkpoints, engines or presets on the same bags, or two finished results (of two commits), observation by observation.

    Exits 0 where B is not found worse than A by more than the margin, 1 where it is, 2 where they could not be compared.
    """
    if metric not in METRICS:
        raise ConfigurationError(f"--metric: got '{metric}', expected {' or '.join(METRICS)}{suggestion(metric, list(METRICS))}")
    if as_online and stride is not None:
        raise ConfigurationError("--as-online and --stride: got both, expected one of them")
    sides = [Side.read(a, "a"), Side.read(b, "b")]
    settings = Settings(robot, seeds, 0 if as_online else stride, horizon, truth, instruction, threads)
    recordings = [*(bags or []), *(more or [])]
    if not recordings and any(side.result is None for side in sides):
        raise ConfigurationError("compare: got no --bags, expected at least one where A or B is a checkpoint")

    from internvla_a1_ros.evaluation.open_loop_result import Result
    from internvla_a1_ros.evaluation.paired_results import compare_results

    with TemporaryDirectory(prefix="compare-") as scratch:
        results: list[Result] = []
        for side in sides:
            if results:
                settings = settings.like(results[0].metrics["what"])
            folder = side.result or side.run(recordings, settings, (out or Path(scratch)) / side.name, force)
            results.append(Result(folder))
        found = compare_results(results[0], results[1], metric)
    told = _told(sides, [each.metrics for each in results], found, metric, margin)
    if out is not None:
        from internvla_a1_ros.robots.document import write_whole

        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "compare.json", (json_format.dumps(told, indent=1, allow_nan=False) + "\n").encode())
    if json:
        print(json_format.dumps(told, allow_nan=False))
    else:
        _show(told)
    raise typer.Exit(int(told["verdict"] == "worse"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What both sides share."""

    robot: str
    seeds: int
    stride: int | None
    horizon: int
    truth: str
    instruction: str
    threads: int | None

    def like(self, what: dict[str, Any]) -> Settings:
        """Return the settings with which A was run."""
        truth = what["truth"] if what["truth"] in ("state", "command") else self.truth
        return Settings(self.robot, len(what["seeds"]), what["stride"] or 0, what["horizon"], truth, self.instruction, self.threads)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a finished result, or a checkpoint with the way it is run."""

    name: str
    text: str
    result: Path | None
    checkpoint: str = ""
    engine: str = "torch"
    preset: str = ""

    @classmethod
    def read(cls, text: str, name: str) -> Side:
        """Return what CHECKPOINT[@ENGINE[:PRECISION][,PRESET]] says; a folder with metrics.json is a result. Raises ConfigurationError."""
        if (Path(text) / "metrics.json").is_file():
            return cls(name, text, Path(text))
        checkpoint, _, way = text.partition("@")
        engine, _, preset = way.partition(",")
        if not checkpoint or ("@" in text and not way):
            raise ConfigurationError(f"compare: got '{text}', expected CHECKPOINT[@ENGINE[:PRECISION][,PRESET]] or the folder of a replay")
        from internvla_a1_ros.engines import engine_and_precision
        from internvla_a1_ros.runtime.deployment import find_checkpoint

        engine_and_precision(engine or "torch")
        find_checkpoint(checkpoint)
        return cls(name, text, None, checkpoint, engine or "torch", preset)

    def run(self, bags: list[Path], settings: Settings, place: Path, force: bool) -> Path:
        """Run the open loop and return where its result is."""
        from internvla_a1_ros.cli.replay_open_loop import make_order, run_order

        order = make_order(
            self.checkpoint,
            settings.robot,
            engine=self.engine,
            preset=self.preset,
            seeds=settings.seeds,
            stride=settings.stride,
            horizon=settings.horizon,
            truth=settings.truth,
            instruction=settings.instruction,
            threads=settings.threads,
            pictures=0,
        )
        found, metrics = run_order(order, bags, place, force)
        if metrics["partial"]:
            raise typer.Exit(STOPPED)
        return found


def _told(sides: list[Side], metrics: list[dict[str, Any]], found: Comparison, metric: str, margin: float) -> dict[str, Any]:
    from internvla_a1_ros.evaluation.paired import to_json

    both = zip(sides, metrics, strict=True)
    return {
        "version": 1,
        **{side.name: {"given": side.text, "what": each["what"], "partial": each["partial"]} for side, each in both},
        "metric": metric,
        "margin": margin,
        "verdict": found.of("all").verdict(margin).value,
        **to_json(found, margin),
    }


def _show(told: dict[str, Any]) -> None:
    console = Console(width=120)
    title = f"A: {told['a']['given']}\nB: {told['b']['given']}"
    metric = str(told["metric"]).upper()
    table = Table("", f"{metric} of A", "of B", "B - A", "95 % interval", "of A", "B is", title=escape(title), title_justify="left")
    for group, each in told["groups"].items():
        low, high = each["interval"]
        share = f"{each['difference'] / each['a']:+.1%}" if each["a"] else "-"
        verdict = each["verdict"]
        colour = _COLOURS.get(verdict, "")
        cells = [f"{each['a']:.3g}", f"{each['b']:.3g}", f"{each['difference']:+.2g}", f"{low:+.2g} .. {high:+.2g}", share]
        table.add_row(group, *cells, f"[{colour}]{verdict}[/]" if colour else verdict)
    console.print(table)
    bags, seeds = told["recordings"], told["seeds"]
    how = "recordings, then runs of neighbouring observations" if bags > 1 else "observations of one recording: it says nothing of others"
    console.print(
        f"{told['observations']} observations of {bags} recording{'s' * (bags > 1)}, {seeds} seed{'s' * (seeds > 1)}, "
        f"{told['unpaired']} rows left out that only one has; interval by {told['draws']} draws of {how}.",
        highlight=False,
        soft_wrap=True,
    )
    colour = _COLOURS.get(told["verdict"], "")
    worse = "worse" if told["verdict"] == "worse" else "not found worse"
    console.print(f"B is {worse} than A by more than {told['margin']:.1%}.", style=colour, highlight=False)
