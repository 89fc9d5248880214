"""`internvla-a1 build`: export, verify against the eager reference, measure, and keep what is close enough."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.core.errors import ConfigurationError

if TYPE_CHECKING:
    from internvla_a1_ros.engines.building import Order
    from internvla_a1_ros.evaluation.verification import Gates, Measured, Outcome, Radians
    from internvla_a1_ros.policy.manifest import Tolerances

HALF = ("float16", "bfloat16")


def build(
    checkpoint: Annotated[str, typer.Argument(help="model folder, or the name of a model that comes along; else --size")] = "",
    engine: Annotated[str, typer.Option(help="onnx or tensorrt")] = "onnx",
    precision: Annotated[str, typer.Option(help="onnx: float32 or int8; tensorrt: float16, bfloat16 or float32")] = "float32",
    size: Annotated[str, typer.Option(help="build with drawn weights of a released size, 3b or 2b, instead of a checkpoint")] = "",
    seed: Annotated[int, typer.Option(help="of drawn weights")] = 0,
    threads: Annotated[int, typer.Option(help="of reference and engine where they are compared", min=1)] = 2,
    steps: Annotated[int, typer.Option(help="Euler steps of the compared chunk", min=1, max=64)] = 10,
    force: Annotated[bool, typer.Option("--force", help="build even where it is built already")] = False,
    compile_only: Annotated[bool, typer.Option("--compile-only", help="tensorrt: compile each stage, keep nothing; needs no GPU")] = False,
    layers: Annotated[int, typer.Option(help="--compile-only: layers of each stack, to spare memory; 0: all", min=0)] = 0,
) -> None:
    """Export a model, verify the engine stage by stage against the eager reference, measure it, and keep it if it is close enough.

    Exits 1 where a threshold of the manifest is missed; what was built before then stays. Ctrl-C leaves nothing half-written.
    """
    from internvla_a1_ros.engines import BUILT, check_engine
    from internvla_a1_ros.engines.artefact import stale

    if bool(checkpoint) == bool(size):
        raise ConfigurationError("build: expected a checkpoint or --size, one of the two")
    check_engine(engine, precision)
    if engine not in BUILT:
        raise ConfigurationError(f"engine '{engine}' needs no building, it runs from the checkpoint")
    order = _order(engine, precision, checkpoint, size, seed)
    console = Console()
    if compile_only:
        if engine != "tensorrt":
            raise ConfigurationError(f"--compile-only: engine '{engine}' compiles nothing, expected tensorrt")
        _compile(order, layers, console)
        return
    if order.key.is_built and not force:
        console.print(f"built already, nothing has changed: {order.key.folder} (--force builds it anew)", soft_wrap=True, highlight=False)
        return
    for old in stale(order.key):
        console.print(f"{old.name} is of another state of this checkpoint or machine and is not used", soft_wrap=True, highlight=False)
    _Build(order, threads, steps, console).run()


def _order(engine: str, precision: str, checkpoint: str, size: str, seed: int) -> Order:
    from internvla_a1_ros.engines.building import Order
    from internvla_a1_ros.engines.weights import DrawnSource
    from internvla_a1_ros.model.released import released_sizes
    from internvla_a1_ros.runtime.deployment import find_checkpoint

    if checkpoint:
        return Order.of_checkpoint(engine, precision, find_checkpoint(checkpoint))
    return Order(engine, precision, DrawnSource(released_sizes(size), seed), f"--size {size} --seed {seed}")


def _compile(order: Order, layers: int, console: Console) -> None:
    """Compile one stage after the other, each in a process of its own: the compiler does not give back all its memory."""
    import multiprocessing

    from internvla_a1_ros.engines.building import Compiled, compile_one
    from internvla_a1_ros.engines.graph_engine import STAGES

    headings = ("stage", "layers", "nodes", "s to write", "s to compile", "plan MB", "peak GiB")
    table = Table(*headings, title=f"{order.place}: TensorRT, {order.precision}, compiled and not run")
    figures = {}
    with console.status("") as status:
        for stage in STAGES:
            status.update(f"compiling {stage}")
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                made: Compiled = pool.apply(compile_one, (order.recipe(layers), stage))
            figures[stage] = made
            peak, megabytes = f"{made.peak_bytes / 2**30:.1f}", f"{made.plan_bytes / 1e6:.0f}"
            table.add_row(stage, str(made.layers), str(made.nodes), f"{made.write_s:.1f}", f"{made.compile_s:.1f}", megabytes, peak)
    console.print(table)
    print(json.dumps({stage: {"compile_s": round(made.compile_s, 1), "plan_bytes": made.plan_bytes} for stage, made in figures.items()}))


class _Build:
    def __init__(self, order: Order, threads: int, steps: int, console: Console) -> None:
        self.order, self.threads, self.steps, self.console = order, threads, steps, console
        self.gates, self.radians = gates_of(order)
        self.seconds: dict[str, dict[str, float]] = {}

    def run(self) -> None:
        from internvla_a1_ros.engines.building import build as make

        with self.console.status("") as status:

            def say(text: str) -> None:
                status.update(text)
                if not self.console.is_terminal:
                    self.console.print(text, highlight=False)

            folder = make(self.order, say, lambda built: self.check(built, say))
        self.console.print(f"kept: {folder}", soft_wrap=True, highlight=False)
        print(json.dumps({"engine": self.order.engine, "precision": self.order.precision, "ms": self.seconds}))

    def check(self, folder: Path, say: Callable[[str], None]) -> None:
        """Show how the engine in `folder` compares. Raises typer.Exit where it is not close enough."""
        from internvla_a1_ros.engines.building import load_from
        from internvla_a1_ros.evaluation.verification import measure, verify

        say("running the eager reference")
        expected = self.expected()
        gc.collect()
        say("comparing the engine with it")
        outcome = verify(expected, lambda: load_from(folder, self.order, self.threads), self.steps, self.gates, self.radians)
        say("measuring the engine")
        engine = load_from(folder, self.order, self.threads)
        times = [measure(engine, 0, self.steps)[1] for _ in range(3)]
        self.seconds["engine"] = {stage: round(1e3 * min(each[stage] for each in times), 3) for stage in times[0]}
        self.show(outcome)
        if outcome.troubles:
            for trouble in outcome.troubles:
                self.console.print(f"[red]{trouble}[/red]")
            self.console.print("not kept; what was built before, if anything, stays as it is")
            raise typer.Exit(1)

    def expected(self) -> list[Measured]:
        """What the reference gives; it is gone from memory afterwards."""
        import torch

        from internvla_a1_ros.engines.reference import ReferenceEngine
        from internvla_a1_ros.evaluation.verification import SEEDS, measure

        torch.set_num_threads(self.threads)
        reference = ReferenceEngine(self.order.source.whole(torch.float32))
        found = [measure(reference, seed, self.steps) for seed in SEEDS]
        times = [each[1] for each in found]
        self.seconds["reference"] = {stage: round(1e3 * min(each[stage] for each in times), 3) for stage in times[0]}
        return [each[0] for each in found]

    def show(self, outcome: Outcome) -> None:
        table = Table(
            "stage", "cosine", "at least", "L1", "L-inf", title=f"{self.order.engine} {self.order.precision} against the reference"
        )
        for line in outcome.lines:
            floor = "" if line.floor is None else f"{line.floor:g}"
            mark = f"{line.cosine:.7f}" if line.ok else f"[red]{line.cosine:.7f}[/red]"
            table.add_row(line.stage, mark, floor, f"{line.l1:.1e}", f"{line.largest:.1e}")
        self.console.print(table)
        if outcome.joint_rad is not None:
            allowed = "" if self.gates.joint_rad is None else f", at most {self.gates.joint_rad}"
            self.console.print(f"largest joint error of a chunk: {outcome.joint_rad:.2e} rad{allowed}", highlight=False)
        elif self.gates.joint_rad is not None:
            self.console.print("joint error in radians: not known, drawn weights have no statistics", highlight=False)
        for who, stages in self.seconds.items():
            parts = ", ".join(f"{stage} {ms:.1f}" for stage, ms in stages.items())
            self.console.print(f"{who}, {self.threads} threads, ms: {parts}; together {sum(stages.values()):.1f}", highlight=False)


def gates_of(order: Order) -> tuple[Gates, Radians | None]:
    """Return the manifest's thresholds for an order's precision, and how to turn actions into radians where its statistics tell."""
    from internvla_a1_ros.evaluation.verification import STAGES, Gates
    from internvla_a1_ros.policy.manifest import Tolerances, load_manifest

    folder = Path(order.place)
    manifest = load_manifest(folder) if (folder / "manifest.yaml").is_file() else None
    told: Tolerances = manifest.tolerances if manifest else Tolerances()
    radians = radians_of(folder) if manifest else None
    if order.precision == "float32":
        return Gates(dict.fromkeys(STAGES, told.float32_cosine)), radians
    if order.precision in HALF:
        return Gates({"prefix KV": told.half_prefix_cosine, "chunk": told.half_chunk_cosine}), radians
    return Gates({"chunk": told.int8_chunk_cosine}, told.int8_joint_rad), radians


def radians_of(folder: Path) -> Radians:
    """Return what a difference of normalised actions [H, D] is at the arms' joints [H, arms] in radians."""
    import numpy as np

    from internvla_a1_ros.policy.manifest import load_manifest
    from internvla_a1_ros.policy.statistics import StatisticsFile, layout_of
    from internvla_a1_ros.policy.transforms import delta_mask

    manifest = load_manifest(folder)
    statistics = StatisticsFile(folder / "stats.json").of(manifest.robot_type)
    scale, arms = statistics.action.scale(manifest.actions.normalisation), delta_mask(layout_of(manifest.robot_type).delta_runs)

    def radians(off: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (scale.inverse(off[:, : arms.size]) - scale.inverse(np.zeros(arms.size)))[:, arms]
        return moved

    return radians
