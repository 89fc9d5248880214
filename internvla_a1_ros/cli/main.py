"""The command `internvla-a1`. Verbs are imported when they are called, so that `--help` does not wait for torch."""

from __future__ import annotations

import importlib
import signal
import sys
import threading

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros import __version__
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

VERBS = {
    "demo": "run the simulated cell, the policy and the command process, and watch them",
    "up": "start an application (policy, command, with --sim the cell) where there is no ros2 launch",
    "robots": "list the robot profiles, or explain one",
    "doctor": "before anything moves: look at topics, pictures, joints, clocks and this host, live or in a bag",
    "bag": "look into a bag (`bag info`), cut it, or check that it is fit for replay and conversion",
    "calibrate": "measure what is particular to one robot: cameras, grippers, joint zeros, delays, belt; guided, with residuals",
    "replay": "what a checkpoint would have done on a bag or dataset, against what the robot did, as a report",
    "compare": "two checkpoints, engines or results on the same bags, with confidence intervals and an exit code",
    "serve": "answer simulation benchmarks and thin clients over the openpi websocket protocol",
    "parity": "compare the model with a folder of reference numbers, stage by stage",
    "build": "export an engine, verify it against the eager reference, keep it if it is close enough",
    "roofline": "the time below which no machine can go, from the sizes",
    "import-cosmos": "turn NVIDIA's encoder.jit and decoder.jit into safetensors, once",
    "make-nano": "write an untrained model of nano size in the released folder format",
    "convert": "turn bags into a LeRobot dataset, or an episode of one into a bag",
    "record-sim": "demonstrations of a scripted expert in the simulated cell, as a LeRobot dataset",
    "stats": "compute stats.json of LeRobot datasets: what a checkpoint normalises by",
    "evaluate": "let a model work: `evaluate rollouts` in the simulated cell, `evaluate imagined` on unseen recordings",
    "train": "teach a model by a recipe; the same command again goes on where the last run stopped",
    "experiment": "ask a question of training again: variants, seeds, rollouts, and what differs, with intervals",
    "bench": "measure: `bench loop`, `model`, `flow`, `seams`, `bag`",
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script. A mistake of the user ends with one sentence and exit code 2."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end that is asked for otherwise loses no more than Ctrl-C
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        _help()
        return
    if words[0] == "--version":
        print(__version__)
        return
    verb = words[0]
    if verb not in VERBS:
        _fail(f"unknown verb '{verb}'{suggestion(verb, list(VERBS))}; `internvla-a1 --help` lists them")
    module = importlib.import_module(f"internvla_a1_ros.cli.{verb.replace('-', '_')}")
    made = getattr(module, verb.replace("-", "_"))
    app = made if isinstance(made, typer.Typer) else typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    if not isinstance(made, typer.Typer):
        app.command()(made)
    try:
        app(args=words[1:], prog_name=f"internvla-a1 {verb}")
    except ConfigurationError as problem:
        _fail(str(problem))


def _help() -> None:
    table = Table(box=None, show_header=False, padding=(0, 2))
    for verb, text in VERBS.items():
        table.add_row(f"[bold]{verb}[/bold]", text)
    console = Console()
    console.print("InternVLA-A1 on ROS 2: from three cameras and the joints to guarded commands of a two-armed robot.\n")
    console.print("usage: internvla-a1 VERB [...]        internvla-a1 VERB --help explains a verb\n")
    console.print(table)


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
