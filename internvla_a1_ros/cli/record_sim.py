"""`internvla-a1 record-sim`: demonstrations of a scripted expert in the simulated cell, as a LeRobot dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from internvla_a1_ros.cli.progress import STOPPED, Progress
from internvla_a1_ros.cli.ranges import BELT_HELP, belt_m_s, low_high
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

_LED, _LED_MIDDLE, _DETOURS = "0:4", 0.5, 0.9


def record_sim(
    out: Annotated[Path, typer.Option(help="the dataset, a new folder")],
    task: Annotated[str, typer.Option(help="ingredient_picking, express_sorting, or all: one after the other in turn")] = "all",
    episodes: Annotated[int, typer.Option(help="how many trials; those that fail are left out", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="of the first trial, the next has the next; below 1000000000", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="processes; 0: one for each core", min=0)] = 0,
    noise: Annotated[float, typer.Option(help="most that an arm is pushed off the expert's way (rad a step)")] = 0.001,
    detours: Annotated[
        float | None, typer.Option(help="share of the trials in which a hand is carried off on its way: 0.9, and none with --policy")
    ] = None,
    variation: Annotated[float, typer.Option(help="of light, cameras, colours and distractors: 0 none to 1 all")] = 1.0,
    belt: Annotated[str, typer.Option(help=BELT_HELP)] = "",
    size: Annotated[str, typer.Option(help="of the pictures, WIDTHxHEIGHT, even")] = "160x120",
    supersample: Annotated[int, typer.Option(help="pictures are rendered so many times as large and averaged")] = 2,
    hold: Annotated[int, typer.Option(help="steps that a picture stands for, as with a slower camera", min=1)] = 1,
    codec: Annotated[str, typer.Option(help="av1 or h264; the first that can be encoded here where empty")] = "",
    keep_failures: Annotated[bool, typer.Option("--keep-failures", help="trials that fail become episodes too")] = False,
    policy: Annotated[str, typer.Option(help="a checkpoint, name or folder, that leads for a while before the expert takes over")] = "",
    led: Annotated[str, typer.Option(help="for how long from the start it leads (s), LO:HI, drawn evenly")] = _LED,
    led_middle: Annotated[float, typer.Option(help="share of the trials in which it leads on the way, for 0.5 to 1.5 s")] = _LED_MIDDLE,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the same command was stopped")] = False,
) -> None:
    """Record demonstrations of the simulated cell. The same options make the same dataset, whatever the number of workers.

    Ctrl-C keeps what is whole and exits with 130; the same command with --resume goes on. Beside the usual keys every step tells where
    parcels are in the pictures (docs/record.md). `episodes.jsonl` has a line a trial: how it began and what became of it.

    With --policy the arms are first led to where that brings them, and an episode shows how the expert goes on from there.
    """
    import os

    from internvla_a1_ros.bags.datasets.encoding import choose_codec
    from internvla_a1_ros.robots.document import parse_document
    from internvla_a1_ros.simulation.recording import Plan
    from internvla_a1_ros.simulation.recording_team import Stopped, Workshop, record

    fields = {
        "tasks": _tasks(task),
        "episodes": episodes,
        "seed": seed,
        "disturbance": {"most_rad": noise},
        "belt_m_s": belt_m_s(belt),
        "variation": variation,
        "size": _size(size),
        "supersample": supersample,
        "hold": hold,
        "keep_failures": keep_failures,
        "codec": choose_codec(codec),
        "lead": _lead(policy, led, led_middle),
        "detours": {"share": _detours(detours, policy)},
    }
    workshop = Workshop(parse_document(fields, Plan, "record-sim"), out, resume=resume)
    workers = workers or len(os.sched_getaffinity(0))
    with workshop.at_work():
        try:
            with Progress() as progress:
                tally = _Tally(progress, episodes, workshop.done)
                record(workshop, workers, tally.ended)
                tally.joining()
                workshop.join()
        except (Stopped, KeyboardInterrupt):
            goes_on = "the same command with --resume goes on" if workshop.done else "nothing is left behind"
            print(f"stopped: {workshop.done} of {episodes} trials are recorded; {goes_on}")
            raise typer.Exit(STOPPED) from None
        finally:
            workshop.tidy()
    print(f"{out}: {tally.told}, {workers} workers")


def _tasks(name: str) -> tuple[str, ...]:
    from internvla_a1_ros.simulation.trial import TASKS

    if name != "all" and name not in TASKS:
        known = [*TASKS, "all"]
        raise ConfigurationError(f"--task: got '{name}', expected one of {', '.join(known)}{suggestion(name, known)}")
    return TASKS if name == "all" else (name,)


def _size(text: str) -> tuple[int, int]:
    width, sign, height = text.partition("x")
    if not (sign and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"--size: got '{text}', expected WIDTHxHEIGHT as in 160x120")
    return int(width), int(height)


def _detours(share: float | None, policy: str) -> float:
    if share and policy:
        raise ConfigurationError(f"--detours: got {share:g} with --policy, expected it without: the policy carries the arms off")
    return _DETOURS if share is None else share


def _lead(policy: str, led: str, middle: float) -> dict[str, Any] | None:
    from internvla_a1_ros.runtime.deployment import find_checkpoint

    if not policy and (led, middle) != (_LED, _LED_MIDDLE):
        raise ConfigurationError(f"--policy: got none with --led {led} --led-middle {middle:g}, expected the checkpoint that leads")
    if not policy:
        return None
    from internvla_a1_ros.simulation.leader import checksum

    from_s, to_s = low_high("--led", led, "LO:HI in seconds, as in 0:4")
    folder = find_checkpoint(policy)
    return {"policy": str(folder), "checksum": checksum(folder), "from_s": from_s, "to_s": to_s, "middle": middle}


class _Tally:
    """Trials done, the share that succeeded, and how many a second; failures are lines above."""

    def __init__(self, progress: Progress, trials: int, done: int) -> None:
        self.attempts: list[Any] = []
        self._progress, self._work = progress, progress.work("trials", trials, done)
        self._began_s = time.monotonic()

    @property
    def told(self) -> str:
        """What has become of this run so far, in words."""
        n, took_s = len(self.attempts), time.monotonic() - self._began_s
        good = sum(attempt.succeeded for attempt in self.attempts)
        steps = sum(attempt.frames for attempt in self.attempts if attempt.kept)
        share = f"{good} of {n} trials succeeded" if n else "no trials"
        return f"{share}, {steps} steps kept, {took_s:.1f} s, {n / max(took_s, 1e-9):.2f} trials/s"

    def ended(self, attempt: Any) -> None:
        self.attempts.append(attempt)
        if not attempt.succeeded:
            now = attempt.conditions
            label = f", label {now.label}" if now.label else ""
            self._progress.say(f"{now.task}, seed {now.seed}: {attempt.failure} ({now.kind}{label}, belt {now.belt_speed_m_s:.3f} m/s)")
        self._work.advance(what=self.told)

    def joining(self) -> None:
        self._work.at(self._work.done, what=f"{self.told}; joining the parts")
