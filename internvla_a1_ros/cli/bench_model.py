"""`internvla-a1 bench model`: engines side by side on one model, against the released way to compute and the machine's floor."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines import BUILT, ENGINES
from internvla_a1_ros.evaluation.engine_bench import STAGES
from internvla_a1_ros.runtime.deployment import find_checkpoint

if TYPE_CHECKING:
    from internvla_a1_ros.evaluation.engine_bench import Result
    from internvla_a1_ros.model.sizes import Architecture

# MODEL.md 9: what the released code takes on two AVX2 cores with 141 GFLOP/s of sgemm. Its stages and ours are cut alike, but for
# the vision tower, which belongs to the prefix.
RELEASED_S, RELEASED_RATE = {"encode": 4.0, "prefix": 11.5, "generate": 1.3, "flow": 8.4}, 141e9
KEPT = Path("~/.cache/internvla_a1_ros/drawn")
CONTESTANT = f"engine[:precision][@preset], the engine one of {', '.join(ENGINES)}"
COLUMNS = ("engine", "median s", "p10-p90 s", *STAGES, "x floor", "speed-up", "first s", "peak GiB", "cosine", "L-inf")
TOGETHER = 0.6  # of the memory that is free may be filled with models


def model(
    size: Annotated[str, typer.Option(help="3b or 2b (drawn weights), nano, or a checkpoint folder")] = "nano",
    engines: Annotated[
        str, typer.Option(help=f"engine[:precision][@preset], separated by commas; engines: {', '.join(ENGINES)}")
    ] = "reference,torch,onnx,onnx:int8@fast",
    chunks: Annotated[int, typer.Option(help="chunks each engine makes, after one to warm up", min=2)] = 10,
    threads: Annotated[int, typer.Option(help="threads on a CPU", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="the observation and drawn weights come from it")] = 0,
    drawn: Annotated[Path, typer.Option(help="where checkpoints with drawn weights are kept (13 GB for 3b)")] = KEPT,
) -> None:
    """Time whole chunks and their stages: medians and spread, memory, time to the first chunk, and how far answers are apart.

    `reference` computes as the released code does: scores written out, last layers finished, both frames encoded. The others keep
    the past frame's latents. The floor is arithmetic at the fastest float32 product this machine shows, plus bytes.
    """
    import psutil
    import torch

    from internvla_a1_ros.engines.building import Order, ensure_built
    from internvla_a1_ros.evaluation import engine_bench as eb
    from internvla_a1_ros.model.checkpoint import WEIGHTS, load_architecture

    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigurationError(f"--device: got '{device}', but torch finds no CUDA device here; use --device cpu")
    contestants = [eb.Contestant.parse(text.strip()) for text in engines.split(",")]
    console = Console(stderr=True)
    folder = folder_of(size, drawn.expanduser(), seed, console)
    sizes = load_architecture(folder)
    task = eb.Task(folder, threads, device, seed, presets(folder, [contestant.preset for contestant in contestants]))

    with console.status("") as status:
        for contestant in contestants:
            if contestant.engine in BUILT:  # not within what is timed
                ensure_built(Order.of_checkpoint(contestant.engine, contestant.precision, folder), status.update)

    rates, memory = eb.sgemm_rates(threads), eb.memory_rate(threads)
    read = eb.read_s(folder / WEIGHTS)
    needed = len(contestants) * (folder / WEIGHTS).stat().st_size
    together = needed < TOGETHER * psutil.virtual_memory().available
    with console.status("starting") as status:
        results = eb.compete(contestants, task, chunks, together, status.update)
    floors = floors_s(sizes, max(rates), memory, task.flow[contestants[0].preset])
    report(size, sizes, results, rates, memory, floors, read, (folder / WEIGHTS).stat().st_size / eb.GIB, threads)


def folder_of(size: str, kept: Path, seed: int, console: Console) -> Path:
    """Return the checkpoint folder, drawing one of a released size where it is not there yet."""
    from internvla_a1_ros.engines.weights import DrawnSource
    from internvla_a1_ros.evaluation.drawn import write_drawn
    from internvla_a1_ros.model.released import RELEASED, released_sizes

    if size not in RELEASED:
        return find_checkpoint(size)
    folder = kept / f"{size}-{seed}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with console.status("drawing weights") as status:
            write_drawn(folder, DrawnSource(released_sizes(size), seed), lambda share: status.update(f"drawing weights: {share:.0%}"))
    except OSError as error:
        free = shutil.disk_usage(kept if kept.is_dir() else kept.anchor).free / 1e9
        raise ConfigurationError(f"--drawn: '{folder}' cannot be written ({error.strerror}; {free:.0f} GB are free there)") from None
    return folder


def presets(folder: Path, wanted: list[str]) -> dict[str, tuple[str, int, str]]:
    """Method, steps and spacing of each preset: the checkpoint's own, else the shipped model's. Raises ConfigurationError."""
    from internvla_a1_ros.policy.manifest import load_manifest

    told = load_manifest(folder if (folder / "manifest.yaml").is_file() else find_checkpoint("nano")).presets
    for name in wanted:
        if name not in told:
            raise ConfigurationError(f"--engines: preset '{name}': got an unknown one, expected one of {', '.join(told)}")
    return {name: (told[name].method, told[name].steps, told[name].spacing) for name in wanted}


def floors_s(sizes: Architecture, rate: float, memory: float, flow: tuple[str, int, str]) -> tuple[float, float]:
    """Seconds of arithmetic and of reading weights, of the prompt's valid tokens only, with the past frame's latents at hand.

    First the one after the other, then as if all reading happened during arithmetic, below which no program can go.
    """
    from dataclasses import replace

    from internvla_a1_ros.evaluation.given import shown_tokens
    from internvla_a1_ros.evaluation.roofline import stage_costs
    from internvla_a1_ros.model.integrators import make_plan

    evaluations = len(make_plan(*flow).evaluations)
    costs = stage_costs(replace(sizes, prompt_tokens=shown_tokens(sizes)), evaluations, cached_past=True)
    needed = [cost for stage, cost in costs.items() if stage != "decode"]
    one_by_one = sum(cost.flop / rate + cost.reading_s(memory) for cost in needed)
    return one_by_one, sum(cost.floor_s(rate, memory) for cost in needed)


def report(
    size: str,
    sizes: Architecture,
    results: dict[str, Result],
    rates: tuple[float, float],
    memory: float,
    floors: tuple[float, float],
    read: float,
    weights_gib: float,
    threads: int,
) -> None:
    yardstick, (floor, overlapped) = next(iter(results.values())), floors
    shares = "x floor", "x overlapped", "speed-up"
    table = Table(
        "engine", "median s", "p10-p90 s", *STAGES, *shares, "first s", "peak GiB", "cosine", "L-inf", title=f"{size}"
    )
    told: dict[str, Any] = {}
    for name, result in results.items():
        cosine, furthest = apart(result.actions, yardstick.actions)
        low, high = spread(result.chunks_s)
        median, first = result.median_s, statistics.median(result.load_to_first_s)
        table.add_row(
            name,
            f"{median:.4g}",
            f"{low:.4g}-{high:.4g}",
            *(f"{result.stage_s(stage):.4g}" for stage in STAGES),
            f"{median / floor:.2f}",
            f"{median / overlapped:.2f}",
            f"{yardstick.median_s / median:.2f}",
            f"{first:.3g}",
            f"{result.peak_gib:.2f}",
            f"{cosine:.6f}",
            f"{furthest:.1e}",
        )
        told[name] = {
            "median_s": round(median, 5),
            "p10_s": round(low, 5),
            "p90_s": round(high, 5),
            "load_to_first_s": round(first, 3),
            "peak_gib": round(result.peak_gib, 3),
            "cosine": round(cosine, 8),
            "speed_up": round(yardstick.median_s / median, 3),
        }
    console = Console(width=max(150, Console().width))
    console.print(table)
    plain, packed = (rate / 1e9 for rate in rates)
    notes = [
        f"floor {floor:.4g} s, arithmetic and then reading; {overlapped:.4g} s if all reading were hidden",
        f"{threads} threads, float32 products {plain:.0f} GFLOP/s, {packed:.0f} with weights laid out beforehand, "
        f"memory {memory / 1e9:.0f} GB/s; weights {weights_gib:.2f} GiB, read in {read:.3g} s",
        f"speed-up, cosine and L-inf (of normalised actions) against {next(iter(results))}",
    ]
    if size == "3b" and "reference" in results:
        scale, stage_s = rates[0] / RELEASED_RATE, results["reference"].stage_s
        stages = " ".join(f"{stage} {stage_s(stage) * scale:.1f} of {at_most}" for stage, at_most in RELEASED_S.items())
        notes.append(f"reference scaled to {RELEASED_RATE / 1e9:.0f} GFLOP/s, of the released code's seconds: {stages}")
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    floors_told = {"floor_s": round(floor, 5), "overlapped_floor_s": round(overlapped, 5)}
    figures = {**floors_told, "sgemm_gflops": [round(plain), round(packed)], "read_s": round(read, 3), "engines": told}
    print(json.dumps(figures))


def apart(actions: list[float], expected: list[float]) -> tuple[float, float]:
    """Cosine and largest difference of two chunks."""
    import torch

    a, b = torch.tensor(actions).double(), torch.tensor(expected).double()
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0)), float((a - b).abs().max())


def spread(seconds: list[float]) -> tuple[float, float]:
    """10th and 90th percentile."""
    deciles = statistics.quantiles(seconds, n=10, method="inclusive")
    return deciles[0], deciles[-1]
