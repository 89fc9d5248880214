"""`internvla-a1 demo`: the whole loop on this machine, watched from the terminal.

The simulated cell publishes pictures and joint states over DDS on the vendor's topics; policy and command process are those
of the real robot. Everything runs in a ROS domain of its own, on this machine only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from internvla_a1_ros.runtime.applications import application
from internvla_a1_ros.runtime.deployment import SIMULATION_DOMAIN_ID, Deployment, Options, Value
from internvla_a1_ros.runtime.supervisor import Supervisor

START_TIMEOUT_S = 90.0
CAPTURE_EVERY_S = 8.0


class Interrupted:
    """True once Ctrl-C or SIGTERM came."""

    def __init__(self) -> None:
        self.now = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.now = True

    def __bool__(self) -> bool:
        return self.now


def demo(
    seconds: Annotated[float, typer.Option(envvar="DEMO_S", help="how long to run; 0: until Ctrl-C")] = 0.0,
    out: Annotated[Path, typer.Option(help="where summary, pictures and logs go")] = Path("demo_out"),
    checkpoint: Annotated[str, typer.Option(help="model folder, or the name of a model that comes along")] = "nano",
    engine: Annotated[str, typer.Option(help="what computes the model: torch, reference, onnx, onnx:int8, ...")] = "torch",
    preset: Annotated[str, typer.Option(help="how the flow is run, by the manifest's name for it; its default where empty")] = "",
    guidance: Annotated[str, typer.Option(help="off, hard, soft or pinv; the manifest's way where empty")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="watch only: the simulated arms are not moved")] = False,
    task: Annotated[
        str, typer.Option(help="trials of express_sorting or ingredient_picking, one after the other; empty: a belt without end")
    ] = "express_sorting",
    seed: Annotated[int, typer.Option(min=0, help="which run of trials: the same, the same parcels")] = 0,
    domain_id: Annotated[int, typer.Option(help="ROS domain of the demo, away from any robot's")] = SIMULATION_DOMAIN_ID,
) -> None:
    """Run the simulated cell, the policy and the command process, and show what they do: trial by trial, with the score.

    Leaves OUT/summary.json, OUT/strip.png (now, the imagined half second ahead, what really came) and OUT/logs.
    """
    # Arms that stay where they are come to no end of a trial.
    trials: dict[str, Value] = {"task": task, "seed": seed, "variation": 1.0} if task and not dry_run else {}
    options = Options(
        checkpoint=checkpoint,
        engine=engine,
        preset=preset,
        guidance=guidance,
        dry_run=dry_run,
        sim=True,
        domain_id=domain_id,
        distribution=os.environ.get("ROS_DISTRO", ""),
        simulation=trials,
    )
    plan = application("express_sorting", options)
    os.environ.update(plan.environment)  # before ROS is imported: the operator's ear lives in the same domain
    out.mkdir(parents=True, exist_ok=True)
    code = _run(plan, options, seconds, out)
    if code:
        raise typer.Exit(code)


def _run(plan: Deployment, options: Options, seconds: float, out: Path) -> int:
    from internvla_a1_ros.cli.demo_trials import Trials
    from internvla_a1_ros.cli.demo_view import Strip, View
    from internvla_a1_ros.nodes.operator import Operator

    interrupted = Interrupted()
    for old in (out / "logs").glob("*.log"):
        old.unlink()
    supervisor = Supervisor(plan, logs=out / "logs")
    operator = Operator(options.domain_id)
    trials = Trials(operator, str(options.simulation["task"])) if options.simulation else None
    view = View(plan, options, trials)
    strip = Strip(operator, plan)
    problem: str | None = None
    started_s = time.monotonic()
    try:
        supervisor.start()
        problem = _come_up(supervisor, operator, view, interrupted)
        if problem is None and not interrupted:
            view.say("each trial is armed for: the dry run is OFF, the simulated arms move" if trials else _arm(operator))
            began_s = time.monotonic()
            with view:
                problem = supervisor.run(lambda: _watch(operator, view, strip, trials, interrupted, began_s, seconds), period_s=0.25)
    finally:
        strip.close()
        supervisor.stop()
        operator.close()
    summary = view.summary(operator, time.monotonic() - started_s, supervisor.respawns, problem)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    pictures = strip.save(out / "strip.png")
    view.say(f"summary: {out / 'summary.json'}" + (f", pictures: {out / 'strip.png'}" if pictures else ""))
    if problem:
        print(f"error: {problem}; logs: {out / 'logs'}", file=sys.stderr)
        return 1
    return 0


def _come_up(supervisor: Supervisor, operator: Any, view: Any, interrupted: Interrupted) -> str | None:
    """Wait for the first chunk and for the command process; return the sentence that says what did not come."""
    view.say("starting: simulated cell, policy, command process")
    deadline = time.monotonic() + START_TIMEOUT_S

    def waiting() -> bool:
        up = operator.cycles > 2 and operator.state.get("mode") == "hold"
        return not up and not interrupted and time.monotonic() < deadline

    problem = supervisor.run(waiting, period_s=0.1)
    if problem is None and not interrupted and time.monotonic() >= deadline:
        return f"not up within {START_TIMEOUT_S:g} s: {operator.cycles} chunks, command process {operator.state.get('mode', 'silent')}"
    return problem


def _arm(operator: Any) -> str:
    accepted, message = operator.call("command/arm")
    if not accepted:
        return f"arming refused: {message}"
    return "armed" if operator.state.get("dry_run") == "True" else "armed: the dry run is OFF, the simulated arms move"


def _watch(operator: Any, view: Any, strip: Any, trials: Any, interrupted: Interrupted, began_s: float, seconds: float) -> bool:
    elapsed_s = time.monotonic() - began_s
    if trials is not None:
        trials.update()
    strip.update(elapsed_s, CAPTURE_EVERY_S)
    view.update(operator, elapsed_s)
    return not interrupted and (seconds <= 0 or elapsed_s < seconds)
