"""What an experiment found, written down: JSON, and a block of Markdown for docs/experiments.md."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from internvla_a1_ros.evaluation.experiment import Trials
from internvla_a1_ros.evaluation.experiment_plan import Plan, Policy, Rolled
from internvla_a1_ros.evaluation.experiment_result import Found, summed
from internvla_a1_ros.evaluation.paired import DRAWS, LEVEL
from internvla_a1_ros.evaluation.report_rollouts import by_word, percent, share

VERSION = 1
_SHARES = ("success (95 %)", "by training seed", "grasped (95 %)", "failed", "limited", "success against")
HEADINGS = ("variant", "task", "belt m/s", "added ms", "cycle ms", "n", *_SHARES, "found")


def result(plan: Plan, found: Sequence[Found], command: str) -> dict[str, Any]:
    """Return everything: settings, variants, the table of cells, and for each run of rollouts the commands that make it again."""
    asked, trials = plan.experiment, plan.experiment.rollouts
    compute = {(each.variant, each.seed, each.cell): each.compute_ms for each in found}
    runs = [(each, compute.get((each.variant, each.policy.recipe.seed, each.cell))) for each in plan.rolled]
    return {
        "version": VERSION,
        "kind": "experiment",
        "name": asked.name,
        "question": asked.question,
        "partial": len(found) < len(plan.rolled),
        "command": command,
        "seeds": list(asked.seeds),
        "n": trials.n,
        "trials": trials.seed,
        "level": LEVEL,
        "draws": DRAWS,
        "variants": {each.name: each.told for each in asked.variants},
        "steps": {each.variant: each.policy.recipe.steps for each in plan.rolled},
        "cells": summed(asked, found),
        "runs": [_run(plan, each, compute_ms) for each, compute_ms in runs if compute_ms is not None],
    }


def _run(plan: Plan, rolled: Rolled, compute_ms: float) -> dict[str, Any]:
    return {
        "variant": rolled.variant,
        "seed": rolled.policy.recipe.seed,
        "task": rolled.cell.task,
        "latency_ms": rolled.cell.latency_ms,
        "result": str(rolled.place),
        "commands": commands(plan, rolled, compute_ms),
    }


def commands(plan: Plan, rolled: Rolled, compute_ms: float) -> list[str]:
    """Return the commands that make the rollouts of one cell and seed again, from the written recipes."""
    places = {each.place: each for each in plan.policies}
    policy: Policy | None = rolled.policy
    lines: list[str] = []
    while policy is not None:
        lines.insert(0, shlex.join(["internvla-a1", *policy.words]))
        policy = places.get(Path(policy.recipe.start))
    measured: Trials = rolled.trials.model_copy(update={"compute_ms": compute_ms})
    words = ["internvla-a1", "evaluate", "rollouts", *measured.words(rolled.cell), "--model", str(rolled.policy.place)]
    return [*lines, shlex.join(words)]


def cells_told(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows under `HEADINGS`."""
    return [_row(cell) for cell in content["cells"]]


def _row(cell: Mapping[str, Any]) -> tuple[str, ...]:
    belt = cell["belt_m_s"]
    by_seed = [f"{100 * rate:.0f}" for rate in cell["success_by_seed"].values() if rate is not None]
    against, found = _held_against(cell)
    return (
        cell["variant"],
        cell["task"],
        "the task's" if belt is None else "{:g}-{:g}".format(*belt),
        f"{cell['latency_ms']:g}",
        _span(cell["compute_ms"]),
        str(cell["n"]),
        percent(cell, "success"),
        ", ".join(by_seed),
        percent(cell, "grasp"),
        by_word(cell["failures"]),
        share(cell["limited"]),
        against,
        found,
    )


def _span(ascending: Sequence[float]) -> str:
    low, high = ascending[0], ascending[-1]
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _held_against(cell: Mapping[str, Any]) -> tuple[str, str]:
    gone = cell["success_difference"]
    if gone is None:
        return "-", "-"
    if gone["interval"] is None:
        return f"{cell['against']}: {100 * gone['difference']:+.0f}", f"too few trials ({gone['trials']})"
    low, high = gone["interval"]
    return f"{cell['against']}: {100 * gone['difference']:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})", gone["verdict"]


def markdown(content: Mapping[str, Any]) -> str:
    """Return a section for docs/experiments.md."""
    seeds, steps = content["seeds"], sorted(set(content["steps"].values()))
    trials = f"{content['n']} trials a cell and training seed (run {content['trials']})"
    settings = f"Training seeds {', '.join(map(str, seeds))}; {' or '.join(map(str, steps))} steps a policy; {trials}."
    partial = "\n**Partial: not everything was run.**\n" if content["partial"] else ""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *cells_told(content)]
    told = [f"- `{name}`: {text}" for name, text in content["variants"].items()]
    again = content["runs"][0]["commands"] if content["runs"] else []
    return "\n".join(
        [
            f"## {content['question']}",
            "",
            f"    {content['command']}",
            "",
            *told,
            "",
            settings,
            partial,
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(["The first row's first seed again:", "", *(f"    {line}" for line in again), ""] if again else []),
        ]
    )
