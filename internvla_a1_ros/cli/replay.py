"""`internvla-a1 replay BAG...`: what a checkpoint would have done on a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from internvla_a1_ros.cli.progress import STOPPED
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

MODES = ("open", "loop", "exact")


def replay(
    bags: Annotated[list[Path], typer.Argument(help="bags (rosbag2, MCAP or SQLite), or folders of LeRobot datasets")],
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    checkpoint: Annotated[str, typer.Option(help="model folder, or name of one that comes along; empty: nano; exact: the recorded")] = "",
    mode: Annotated[str, typer.Option(help="open: chunks against what the robot did; loop: the whole runtime; exact: again")] = "open",
    engine: Annotated[str, typer.Option(help="what computes the model, with its precision: torch, onnx:int8, ...")] = "torch",
    preset: Annotated[str, typer.Option(help="a preset of the checkpoint's manifest; empty: its default")] = "",
    seeds: Annotated[int, typer.Option(help="draws of noise for each observation", min=1)] = 3,
    stride: Annotated[int | None, typer.Option(help="actions from one observation to the next; else a whole chunk", min=1)] = None,
    as_online: Annotated[bool, typer.Option("--as-online", help="at each observation that the live loop would have used")] = False,
    horizon: Annotated[int, typer.Option(help="actions of each chunk that count; 0: all", min=0)] = 0,
    truth: Annotated[str, typer.Option(help="what the robot did: state or command; empty: what the checkpoint's labels mean")] = "",
    instruction: Annotated[str, typer.Option(help="empty: the recording's own, else the manifest's first")] = "",
    latency_ms: Annotated[float | None, typer.Option(help="loop: what a cycle takes; else as recorded", min=0)] = None,
    plans: Annotated[str, typer.Option(help="loop: whose plans are followed, today's policy or the bag")] = "policy",
    guidance: Annotated[str, typer.Option(help="loop: off, hard, soft or pinv; empty: the manifest's way")] = "",
    pictures: Annotated[int, typer.Option(help="moments whose imagined future is shown", min=0, max=50)] = 6,
    threads: Annotated[int | None, typer.Option(help="threads of the model on a CPU; else the library's choice", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the result; else one below runs/ that depends on what is asked")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier result")] = False,
) -> None:
    """Predict chunks along a recording and compare them with what the robot did: metrics.json, chunks.parquet, report.html.

    --mode loop gives the commands that would have been sent, --mode exact runs a recording (record:=true) again and exits 1 where
    anything differs. Ctrl-C ends the open loop early, and what was done until then is kept and marked as partial.
    """
    if mode not in MODES:
        raise ConfigurationError(f"--mode: got '{mode}', expected {' or '.join(MODES)}{suggestion(mode, list(MODES))}")
    if as_online and stride is not None:
        raise ConfigurationError("--as-online and --stride: got both, expected one of them")

    if mode == "exact":
        from internvla_a1_ros.cli.replay_loop import replay_exactly

        replay_exactly(bags, checkpoint, threads)
        return
    checkpoint = checkpoint or "nano"
    if mode == "loop":
        from internvla_a1_ros.cli.replay_loop import LoopOrder, run_loop_mode, show_loop

        asked = LoopOrder(checkpoint, robot, engine, preset, guidance, instruction, 0, threads, latency_ms, plans)
        show_loop(*run_loop_mode(asked, bags, out, force))
        return
    from internvla_a1_ros.cli.replay_open_loop import make_order, run_order, show

    order = make_order(
        checkpoint,
        robot,
        engine=engine,
        preset=preset,
        seeds=seeds,
        stride=0 if as_online else stride,
        horizon=horizon,
        truth=truth,
        instruction=instruction,
        threads=threads,
        pictures=pictures,
    )
    place, metrics = run_order(order, bags, out, force)
    show(place, metrics)
    if metrics["partial"]:
        raise typer.Exit(STOPPED)
