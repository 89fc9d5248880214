"""`make nano`: the small model from nothing, by the commands of docs/nano.md one after the other, with the time of each.

    python tools/nano_recipe.py [--dry-run]

Ctrl-C stops; the same command goes on, and what is done is not done again. Times add up over both in runs/nano/times.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from internvla_a1_ros.cli.train_processes import LARGE_PAGES

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, "-m", "internvla_a1_ros.cli.main"]
OUT = Path("runs/nano")
RECIPES = "models/nano_recipe"


@dataclass(frozen=True)
class Part:
    """One command, and what it `made`.

    `recorded`: a dataset, there once it is whole; until then `--resume` goes on. A training does by itself.
    """

    name: str
    words: str
    made: Path
    recorded: bool = False

    @property
    def command(self) -> list[str]:
        return [*shlex.split(self.words), *(["--resume"] if self.recorded else [])]


def recorded(name: str, what: str) -> Part:
    return Part(name, f"record-sim {what} --out {OUT / name} --codec h264", OUT / name, recorded=True)


def trained(name: str) -> Part:
    return Part(name, f"train {RECIPES}/{name}.yaml", OUT / name)


PARTS = (
    recorded("picking", "--task ingredient_picking --episodes 1000 --hold 3"),
    recorded("sorting", "--task express_sorting --episodes 320 --hold 3"),
    Part("stats", f"stats {OUT}/picking {OUT}/sorting -o {OUT}/stats.json --mode delta --by-step", OUT / "stats.json"),
    Part("0_drawn", f"make-nano {OUT}/0_drawn --robot arx_ac_one", OUT / "0_drawn"),
    trained("1_autoencoder"),
    trained("2_vision"),
    trained("3_policy"),
)


def main(program: list[str], root: Path, dry_run: bool = False) -> int:
    """Do what is left in `root`; return 0 when all is done, else what the command that ended returned."""
    spent, done = times(root / OUT / "times.jsonl")
    for part in PARTS:
        if (root / part.made).exists() and (part.name in done or part.recorded):
            print(f"{part.name}: " + (f"done in {spent[part.name]:.0f} s" if part.name in done else "is there"), flush=True)
            continue
        print(f"{part.name}: internvla-a1 {shlex.join(part.command)}", flush=True)
        if dry_run:
            continue
        note(root / OUT / "times.jsonl", part.name, 0.0, None)  # what was done before is not done any more
        seconds, code = timed([*program, *part.command], root)
        note(root / OUT / "times.jsonl", part.name, seconds, code)
        spent[part.name] += seconds
        if code:
            print(f"{part.name}: ended with {code} after {seconds:.0f} s; the same command goes on", flush=True)
            return code
    if not dry_run:
        print(f"all in {sum(spent.values()) / 60:.0f} min: " + ", ".join(f"{part.name} {spent[part.name] / 60:.1f}" for part in PARTS))
    return 0


def timed(command: list[str], root: Path) -> tuple[float, int]:
    """Run a command to its end, whatever keys are pressed: it hears Ctrl-C itself, saves, and says so."""
    began = time.monotonic()
    with subprocess.Popen(command, cwd=root, env={**LARGE_PAGES, **os.environ}) as process:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue
    return time.monotonic() - began, code


def times(path: Path) -> tuple[dict[str, float], set[str]]:
    """How many seconds each part has taken, and which are done."""
    spent: dict[str, float] = defaultdict(float)
    done = set()
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            told = json.loads(line)
            part, seconds, code = told["part"], told["seconds"], told["code"]
        except (ValueError, KeyError, TypeError):
            continue  # cut short
        spent[part] += seconds
        (done.add if code == 0 else done.discard)(part)
    return spent, done


def note(path: Path, part: str, seconds: float, code: int | None) -> None:
    """`code` None: it begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_short = path.is_file() and not path.read_text().endswith("\n")
    with path.open("a") as file:
        file.write("\n" * cut_short + json.dumps({"part": part, "seconds": round(seconds, 1), "code": code}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what is done and what is left, and do nothing")
    sys.exit(main(PROGRAM, ROOT, parser.parse_args().dry_run))
