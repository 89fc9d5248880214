"""`internvla-a1 experiment`: ask a question of training again: variants, training seeds, rollouts, intervals (docs/experiments.md)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvla_a1_ros.cli.progress import STOPPED
from internvla_a1_ros.cli.train_processes import LARGE_PAGES

if TYPE_CHECKING:
    from internvla_a1_ros.evaluation.experiment_plan import Plan


def experiment(
    name: Annotated[str, typer.Argument(metavar="[NAME|FILE]", help="an experiment that comes along, or a file; empty lists them")] = "",
    out: Annotated[Path, typer.Option(help="where policies, rollouts and results go; questions share what they have in common")] = Path(
        "runs/experiments"
    ),
    seeds: Annotated[int | None, typer.Option(help="how many training seeds", min=1)] = None,
    n: Annotated[int | None, typer.Option(help="trials a cell and training seed", min=1, max=1000)] = None,
    steps: Annotated[int | None, typer.Option(help="of training; schedules, and variants of another length, go with it", min=1)] = None,
    workers: Annotated[int, typer.Option(help="processes of the rollouts; 0: one for each core", min=0, max=256)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done and how long it takes; write nothing")] = False,
) -> None:
    """Train every variant with every seed, roll it out, and say what differs, with intervals. What is done already is not done again.

    Ctrl-C lets the training or rollouts at hand save, writes the table of what is whole, and exits with 130; the same command goes on.
    """
    if not name:
        _list()
        return
    from rich.console import Console

    from internvla_a1_ros.evaluation.experiment import find_experiment, read_experiment
    from internvla_a1_ros.evaluation.experiment_plan import plan
    from internvla_a1_ros.evaluation.experiment_run import carry_out

    planned = plan(read_experiment(find_experiment(name)).shortened(seeds, n), out, steps)
    if dry_run:
        _tell_plan(planned)
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    command = shlex.join(["internvla-a1", *sys.argv[1:]])
    suffix = "".join(f"-{what}{number}" for what, number in (("seeds", seeds), ("n", n), ("steps", steps)) if number is not None)
    workers = workers or len(os.sched_getaffinity(0))
    with Child() as child:
        try:
            complete = carry_out(planned, child, workers, child.asked, lambda text: console.print(text, markup=False))
        finally:
            _tell_result(planned, command, out / f"{planned.experiment.name}{suffix}")
    if not complete:
        print("stopped; the same command goes on")
        raise typer.Exit(STOPPED)


class Child:
    """Runs command lines of `internvla-a1`, one at a time. Ctrl-C, once each, is passed on as such; then no more are begun."""

    def __init__(self) -> None:
        self._asked = False
        self._process: subprocess.Popen[bytes] | None = None

    def asked(self) -> bool:
        """Whether somebody wants an end."""
        return self._asked

    def __call__(self, words: Sequence[str]) -> int:
        # In a session of its own: a terminal's Ctrl-C must reach it once, by way of the handler below.
        command = [sys.executable, "-m", "internvla_a1_ros.cli.main", *words]
        self._process = subprocess.Popen(command, env={**LARGE_PAGES, **os.environ}, start_new_session=True)
        if self._asked:  # between the last look and now
            self._process.send_signal(signal.SIGINT)
        code = self._process.wait()
        return STOPPED if code and self._asked else code

    def __enter__(self) -> Child:
        self._former = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self._asked = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    from internvla_a1_ros.evaluation.experiment import read_experiment, shipped

    table = Table("experiment", "question", box=None)
    for name, path in shipped().items():
        table.add_row(name, read_experiment(path).question)
    Console().print(table)


def _tell_plan(planned: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    from internvla_a1_ros.evaluation.experiment_run import Ledger, Pace, in_words

    ledger, total_s, unknown = Ledger(planned.root), 0.0, False
    pace = Pace.measured(planned, ledger)
    table = Table("", "job", "steps or trials", "about", "folder", title=planned.experiment.question, box=None)
    for i, job in enumerate(planned.jobs):
        done = ledger.has(job)
        seconds = 0.0 if done else pace.seconds(job)
        total_s, unknown = total_s + (seconds or 0.0), unknown or seconds is None
        about = "done" if done else "?" if seconds is None else in_words(seconds)
        table.add_row(str(i + 1), job.told, str(job.units), about, str(job.place))
    console = Console(width=160)
    console.print(table, highlight=False)
    todo = sum(not ledger.has(job) for job in planned.jobs)
    more = ", and what has never been measured here (?)" if unknown else ""
    print(f"{todo} of {len(planned.jobs)} jobs to do: {in_words(total_s)}{more}")
    for sentence in planned.missing:
        print(f"first: {sentence}")


def _tell_result(planned: Plan, command: str, place: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from internvla_a1_ros.evaluation.experiment_run import gathered
    from internvla_a1_ros.evaluation.experiment_told import HEADINGS, cells_told, markdown, result
    from internvla_a1_ros.robots.document import write_whole

    found = gathered(planned)
    if not found:
        return
    content: dict[str, Any] = result(planned, found, command)
    for suffix, text in ((".json", json.dumps(content, indent=1, allow_nan=False) + "\n"), (".md", markdown(content))):
        write_whole(place.with_name(place.name + suffix), text.encode(), parents=True)
    table = Table(*HEADINGS, title=content["question"])
    for row in cells_told(content):
        table.add_row(*row)
    Console(width=200).print(table)
    print(f"{place}.json, {place}.md{': partial' if content['partial'] else ''}")
