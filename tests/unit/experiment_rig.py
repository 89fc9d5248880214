"""An experiment in miniature: a recipe of tiny size, and a hand that does what child processes would do, without rolling anything out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from internvla_a1_ros.evaluation.experiment import Experiment, read_experiment
from internvla_a1_ros.evaluation.experiment_plan import WEIGHTS, Plan, plan
from internvla_a1_ros.evaluation.experiment_run import STOPPED
from internvla_a1_ros.learning.running import read_recipe

VARIANTS: list[dict[str, Any]] = [
    {"name": "as_it_is", "told": "the recipe"},
    {"name": "untaught", "told": "no future", "recipe": {"lambda_generation": 0}, "manifest": {"history": {"interval_s": 0}}},
]


def write_experiment(folder: Path, keys: dict[str, Any], **changes: Any) -> Path:
    """Write recipe and experiment; `changes` replace or add keys of the latter."""
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump(keys))
    content = {"name": "tiny", "question": "Does it?", "base": str(base), "seeds": [0, 1], "rollouts": {"n": 10, "latencies_ms": [0, 200]}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content | {"variants": VARIANTS} | changes))
    return path


def asked(folder: Path, keys: dict[str, Any], **changes: Any) -> Experiment:
    return read_experiment(write_experiment(folder, keys, **changes))


def planned(folder: Path, keys: dict[str, Any], steps: int | None = None, **changes: Any) -> Plan:
    return plan(asked(folder, keys, **changes), folder / "root", steps)


def row(seed: int, succeeded: bool, grasped: bool = True) -> dict[str, Any]:
    return {"seed": seed, "succeeded": succeeded, "grasped": grasped, "failure": "" if succeeded else "passed", "limited": 0.25}


def options_of(words: Sequence[str]) -> dict[str, str]:
    return {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}


class Hand:
    """Trains by writing a file, or as `train` says; rolls out by `succeeds` (model folder, trial). `stops_at`: the call that is stopped."""

    def __init__(
        self,
        train: Callable[[Path], None] | None = None,
        succeeds: Callable[[Path, int], bool] = lambda model, trial: trial % 2 == 0,
        stops_at: int | None = None,
    ) -> None:
        self.calls: list[tuple[str, ...]] = []
        self._train, self._succeeds, self._stops_at = train or self._pretend, succeeds, stops_at

    def __call__(self, words: Sequence[str]) -> int:
        self.calls.append(tuple(words))
        if words[0] == "train":
            self._train(Path(words[1]))  # a training that is stopped saves, so its folder is there
        if len(self.calls) - 1 == self._stops_at:
            return STOPPED
        if words[0] == "evaluate":
            self._roll_out(options_of(words))
        return 0

    @property
    def trained(self) -> list[str]:
        return [words[1] for words in self.calls if words[0] == "train"]

    @staticmethod
    def _pretend(recipe: Path) -> None:
        out = Path(read_recipe(recipe).out)
        out.mkdir(parents=True, exist_ok=True)
        (out / WEIGHTS).write_bytes(b"")

    def _roll_out(self, options: dict[str, str]) -> None:
        out, model = Path(options["--out"]), Path(options["--model"])
        assert (model / WEIGHTS).is_file()
        rows = [row(trial, self._succeeds(model, trial)) for trial in range(int(options["--n"]))]
        metrics = {"version": 1, "partial": False, "what": {"compute_ms": 40.0}, "trials": rows}
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").write_text(json.dumps(metrics))
