"""`internvla-a1 evaluate ...`: does the model do its work, and does it see what will come?"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from internvla_a1_ros.cli.progress import STOPPED
from internvla_a1_ros.cli.ranges import BELT_HELP, belt_m_s
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.runtime.deployment import SIMULATION_DOMAIN_ID

evaluate = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="Try a model in simulation.")


@evaluate.callback()
def _evaluate() -> None:
    """Try a model in the simulated cell, or its imagination on recordings that it never saw."""


@evaluate.command()
def rollouts(
    task: Annotated[str, typer.Option(help="ingredient_picking or express_sorting")] = "ingredient_picking",
    n: Annotated[int, typer.Option(help="trials, each run at every latency", min=1, max=1000)] = 30,
    seed: Annotated[int, typer.Option(help="which trials: any whole number, disjoint from training's", min=0)] = 0,
    model: Annotated[str, typer.Option(help="model folder, or the name of a model that comes along")] = "nano",
    policy: Annotated[str, typer.Option(help="model, or expert: the script that made the demonstrations, an upper bound")] = "model",
    robot: Annotated[str, typer.Option(help="robot profile with arms in the cell")] = "arx_ac_one",
    latency: Annotated[str, typer.Option(help="ms added between observation and chunk, separated by commas")] = "0",
    compute: Annotated[float | None, typer.Option(help="ms that a cycle takes; else what it takes here, measured", min=0)] = None,
    preset: Annotated[str, typer.Option(help="a preset of the model's manifest; empty: its default")] = "",
    guidance: Annotated[str, typer.Option(help="off, hard, soft or pinv; empty: the manifest's way")] = "",
    fade: Annotated[float | None, typer.Option(help="s in which a chunk is faded in; else the robot profile's", min=0)] = None,
    engine: Annotated[str, typer.Option(help="what computes the model, with its precision: torch, onnx:int8, ...")] = "torch",
    variation: Annotated[float, typer.Option(help="of light, cameras, things about: 0 none, 1 as in training", min=0, max=1)] = 1.0,
    belt: Annotated[str, typer.Option(help=BELT_HELP)] = "",
    videos: Annotated[str, typer.Option(help="which rollouts are filmed: failures, all or none")] = "failures",
    most_videos: Annotated[int, typer.Option(help="how many videos are kept", min=0)] = 10,
    workers: Annotated[int, typer.Option(help="processes", min=1, max=256)] = 1,
    live: Annotated[bool, typer.Option("--live", help="the demo's processes over DDS and in real time, no simulated clock")] = False,
    pace: Annotated[float, typer.Option(help="simulated seconds a second of --live, for slow machines", min=0.05, max=1)] = 1.0,
    domain_id: Annotated[int, typer.Option(help="ROS domain of --live, away from any robot's")] = SIMULATION_DOMAIN_ID,
    out: Annotated[Path | None, typer.Option(help="folder of the result; else one below runs/ that depends on what is asked")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier result")] = False,
) -> None:
    """Run trials in the cell through the policy and command loops on a simulated clock: metrics.json, report.html, videos/.

    The same seed, model and --compute give the same outcomes on one machine. Ctrl-C keeps what was done, marks it as partial
    and exits with 130.
    """
    _one_of("--policy", policy, ("model", "expert"))
    if policy == "expert":
        of_models = {"--preset": preset, "--guidance": guidance, "--engine": engine != "torch", "--model": model != "nano"}
        _not_with("--policy expert", of_models)
    if not live:
        for option in (name for name, given in (("--pace", pace != 1), ("--domain-id", domain_id != SIMULATION_DOMAIN_ID)) if given):
            raise ConfigurationError(f"{option}: got it without --live, expected --live too: nothing else runs by a clock or over DDS")
    if live:
        unlike = {"--policy expert": policy == "expert", "--belt": belt, "--fade": fade is not None, "--latency": latency != "0"}
        unlike |= {"--compute": compute is not None, "--videos all": videos == "all", "--workers": workers > 1}
        _not_with("--live", unlike, ": it runs what a robot runs, as fast as it runs here")
    from internvla_a1_ros.cli.evaluate_rollouts import run_rollouts
    from internvla_a1_ros.evaluation.rollout_rig import Order
    from internvla_a1_ros.evaluation.rollouts import KEPT, Series
    from internvla_a1_ros.runtime.deployment import find_checkpoint
    from internvla_a1_ros.simulation.trial import TASKS

    _one_of("--task", task, TASKS)
    for what, number in (("--compute", compute), ("--fade", fade)):
        if number is not None and not math.isfinite(number):
            raise ConfigurationError(f"{what}: got {number}, expected a number that is finite")
    _one_of("--videos", videos, KEPT)
    order = Order(
        task=cast(Any, task),
        robot=robot,
        checkpoint=find_checkpoint(model) if policy == "model" else None,
        engine=engine,
        preset=preset or None,
        guidance=guidance or None,
        compute_ms=compute or 0.0,
        variation=variation,
        belt_m_s=belt_m_s(belt),
        fade_s=fade,
    )
    series = Series(seed, n, _numbers(latency), cast(Any, videos), most_videos)
    if live:
        from internvla_a1_ros.cli.evaluate_live import run_live

        complete = run_live(order, series, out, force, domain_id, pace, _command())
    else:
        complete = run_rollouts(order, series, workers, out, force, measure=compute is None and policy == "model", command=_command())
    if not complete:
        raise typer.Exit(STOPPED)


@evaluate.command()
def imagined(
    dataset: Annotated[Path, typer.Argument(help="folder of a LeRobot dataset that the model never saw")],
    model: Annotated[str, typer.Option(help="model folder, or the name of a model that comes along")] = "nano",
    every: Annotated[int, typer.Option(help="frames from one moment to the next", min=1)] = 5,
    most: Annotated[int, typer.Option(help="moments at most, spread evenly", min=1)] = 500,
    led: Annotated[str, typer.Option(help="key that is not 0 where somebody else has the arms: what comes then is left out")] = "",
    threads: Annotated[int, typer.Option(help="threads of the model", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="a file for the figures as JSON")] = None,
) -> None:
    """Compare the imagined future with the true one, and with taking the present for it: mean squared errors and their ratio."""
    from internvla_a1_ros.cli.evaluate_imagined import run_imagined

    run_imagined(dataset, model, every, most, led, threads, out, _command())


def _command() -> str:
    return shlex.join(["internvla-a1", *sys.argv[1:]])


def _not_with(what: str, options: Mapping[str, object], why: str = "") -> None:
    for option in (option for option, given in options.items() if given):
        raise ConfigurationError(f"{what}: got {option}, expected it without{why}")


def _one_of(what: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        raise ConfigurationError(f"{what}: got '{got}', expected {', '.join(known)}{suggestion(got, list(known))}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
        if all(math.isfinite(number) for number in numbers):
            return numbers
    except ValueError:
        pass
    raise ConfigurationError(f"--latency: got '{text}', expected milliseconds such as 0,100,200,400")
