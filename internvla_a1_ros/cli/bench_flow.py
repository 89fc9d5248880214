"""`internvla-a1 bench flow`: the flow's error over evaluations of the network, as a table, a picture and a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvla_a1_ros.cli.progress import STOPPED, working
from internvla_a1_ros.core.errors import ConfigurationError

if TYPE_CHECKING:
    from internvla_a1_ros.evaluation.flow_error import FlowBench, Result
    from internvla_a1_ros.model.integrators import FlowPlan

SHOWN_EVALUATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)


def flow(
    checkpoint: Annotated[str, typer.Argument(help="model folder, or the name of a model that comes along")] = "nano",
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    observations: Annotated[int, typer.Option(help="moments of the simulated stream", min=1)] = 4,
    seeds: Annotated[int, typer.Option(help="draws of noise for each moment", min=1)] = 4,
    steps: Annotated[str, typer.Option(help="step counts: 1-20, or 2,4,10")] = "1-20",
    methods: Annotated[str, typer.Option(help="integrators, separated by commas; empty: all")] = "",
    spacings: Annotated[str, typer.Option(help="spacings of the steps, separated by commas; empty: all")] = "",
    most: Annotated[int, typer.Option(help="leave out plans of more evaluations than this", min=10)] = 20,
    tolerance: Annotated[float, typer.Option(help="error in rad that 'fast' may have, where 'exact' has less", min=0.0)] = 0.002,
    engine: Annotated[str, typer.Option(help="what computes the model")] = "reference",
    threads: Annotated[int, typer.Option(help="threads of the model on a CPU", min=1)] = 1,
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("bench_out/flow.png"),
) -> None:
    """Measure how far each way to run the flow is from its solution (midpoint, 64 steps), in radians at the arms.

    Ctrl-C ends it early and keeps the cases that are done.
    """
    from internvla_a1_ros.engines import make_engine
    from internvla_a1_ros.evaluation.flow_error import FlowBench
    from internvla_a1_ros.robots.profile import load_profile
    from internvla_a1_ros.runtime.deployment import find_checkpoint

    plans = asked_plans(methods, steps, spacings, most)
    folder = find_checkpoint(checkpoint)
    bench = FlowBench(folder, load_profile(robot), make_engine(engine, folder, threads=threads), plans)
    interrupted = False
    with working(f"{len(plans)} plans, {observations} x {seeds} cases", observations * seeds * (len(plans) + 1)) as work:
        try:
            for case in bench.draw(observations, seeds):
                for _ in bench.measure(case):
                    work.advance()
        except KeyboardInterrupt:
            interrupted = True
    if not bench.cases:
        raise typer.Exit(STOPPED)
    report(bench, picture, tolerance, interrupted)


def asked_plans(methods: str, steps: str, spacings: str, most: int) -> list[FlowPlan]:
    """Return the plans asked for, Euler 10 always among them. Raises ConfigurationError for what is no plan."""
    from internvla_a1_ros.model.integrators import METHODS, SPACINGS, make_plan

    try:
        if "-" in steps:
            low, high = (int(word) for word in steps.split("-"))
            counts = list(range(low, high + 1))
        else:
            counts = [int(word) for word in steps.split(",")]
    except ValueError:
        raise ConfigurationError(f"--steps: got '{steps}', expected such as 1-20 or 2,4,10") from None
    chosen = [words.split(",") if words else list(known) for words, known in ((methods, METHODS), (spacings, SPACINGS))]
    plans = [make_plan(method, count, spacing) for method in chosen[0] for spacing in chosen[1] for count in counts]
    kept = dict.fromkeys([make_plan(), *(plan for plan in plans if len(plan.evaluations) <= most)])
    return list(kept)


def report(bench: FlowBench, picture: Path, tolerance_rad: float, interrupted: bool) -> None:
    """Print table, recommendation and JSON; write the picture."""
    from rich.console import Console
    from rich.table import Table

    from internvla_a1_ros.evaluation.drawing import log_log
    from internvla_a1_ros.evaluation.flow_error import SECOND, SOLUTION, cheapest
    from internvla_a1_ros.model.integrators import METHODS, make_plan

    console = Console(width=120)
    results = list(bench.results.values())
    uniform = {method: best_of(results, method, "uniform") for method in METHODS}
    any_spacing = {method: best_of(results, method, None) for method in METHODS}
    note = "" if bench.manifest.trained else ", UNTRAINED: drawn weights, whose velocity is rough in time; trained ones differ"
    title = f"{bench.manifest.name}{note}"
    table = Table(
        "evaluations", *METHODS, "best of all spacings", title=f"flow error in rad: {title}; {bench.cases} cases", title_justify="left"
    )
    for count in SHOWN_EVALUATIONS:
        here = [result for result in results if result.evaluations == count]
        if here:
            cells = [f"{uniform[method][count].error_rad:.2e}" if count in uniform[method] else "" for method in METHODS]
            best = min(here, key=lambda result: result.error_rad)
            table.add_row(str(count), *cells, f"{best.error_rad:.2e}  {best.plan}")
    console.print(table)
    exact = bench.results[make_plan()]
    fast = cheapest(results, max(exact.error_rad, tolerance_rad))
    known_rad = bench.second.error_rad
    console.print(
        f"root mean square over arm joints, chunk and cases; solution: {SOLUTION}, {SECOND} is {known_rad:.2e} from it", highlight=False
    )
    if known_rad > 0.3 * exact.error_rad:
        console.print("The solution itself is not known much better than that: do not read differences below it.", highlight=False)
    console.print(
        f"one evaluation: {bench.evaluation_ms:.2f} ms. For manifest.yaml (fast: fewest evaluations within {tolerance_rad:g} rad):",
        highlight=False,
    )
    console.print(f"  exact: {{method: euler, steps: 10, error_rad: {exact.error_rad:.2g}}}", highlight=False)
    where = "" if fast.plan.spacing == "uniform" else f", spacing: {fast.plan.spacing}"
    console.print(
        f"  fast: {{method: {fast.plan.method}, steps: {fast.plan.steps}{where}, error_rad: {fast.error_rad:.2g}}}", highlight=False
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    lines, dashed = ({m: line(found) for m, found in which.items() if found} for which in (uniform, any_spacing))
    log_log(picture, title.split(":")[0], "evaluations of the network; dashed: best spacing", "error [rad]", lines or dashed, dashed)
    console.print(f"picture: {picture}", highlight=False)
    found = [
        {
            "method": result.plan.method,
            "steps": result.plan.steps,
            "spacing": result.plan.spacing,
            "evaluations": result.evaluations,
            "error_rad": float(f"{result.error_rad:.3g}"),
            "worst_rad": float(f"{result.worst_rad:.3g}"),
        }
        for result in results
    ]
    told = {
        "model": bench.manifest.name,
        "trained": bench.manifest.trained,
        "cases": bench.cases,
        "interrupted": interrupted,
        "solution": str(SOLUTION),
        "second_solution_rad": float(f"{known_rad:.3g}"),
        "evaluation_ms": round(bench.evaluation_ms, 3),
        "tolerance_rad": tolerance_rad,
        "exact": str(exact.plan),
        "fast": str(fast.plan),
        "results": found,
    }
    print(json.dumps(told))


def best_of(results: list[Result], method: str, spacing: str | None) -> dict[int, Result]:
    """Return by number of evaluations the most exact result of `method`, of one spacing or of any."""
    found: dict[int, Result] = {}
    for result in sorted(results, key=lambda result: -result.error_rad):
        if result.plan.method == method and spacing in (None, result.plan.spacing):
            found[result.evaluations] = result
    return dict(sorted(found.items()))


def line(found: dict[int, Result]) -> list[tuple[float, float]]:
    return [(count, result.error_rad) for count, result in found.items()]
