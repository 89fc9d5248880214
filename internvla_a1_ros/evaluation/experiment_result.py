"""What an experiment found: shares of each cell over all training seeds, and differences over the trials that two variants have in common.

Wilson's intervals count every rollout as a draw of its own. The interval of a difference does not: the same trials are run with each
training seed, so both are drawn with replacement, crosswise (Owen 2007, "The pigeonhole bootstrap"), and what is drawn are differences of
pairs. With one training seed it says nothing of other trainings.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.evaluation.experiment import Cell, Experiment, Variant
from internvla_a1_ros.evaluation.paired import DRAWS, FEWEST, LEVEL, Verdict
from internvla_a1_ros.evaluation.rollout_result import Row, failures, limited
from internvla_a1_ros.evaluation.wilson import Share

WHAT = {"success": "succeeded", "grasp": "grasped"}
# By training seed and trial's seed, whether it went well.
Outcomes = Mapping[tuple[int, int], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of one cell with one variant and one training seed; `compute_ms`: what a cycle was taken to cost."""

    variant: str
    seed: int
    cell: Cell
    rows: Sequence[Row]
    compute_ms: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A share minus another's, over `trials` with each of `seeds` trainings; `interval` None where there are too few trials for one."""

    difference: float
    interval: tuple[float, float] | None
    trials: int
    seeds: int

    @property
    def verdict(self) -> Verdict:
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return Verdict.NONE
        return Verdict.BETTER if self.interval[0] > 0 else Verdict.WORSE


def gap(mine: Outcomes, other: Outcomes, draws: int = DRAWS, seed: int = 0) -> Gap | None:
    """Return the difference over what both have, None where that is nothing. A trial counts where each training seed has it in both."""
    common = mine.keys() & other.keys()
    seeds = sorted({training for training, _ in common})
    trials = sorted({trial for _, trial in common if all((training, trial) in common for training in seeds)})
    if not trials:
        return None
    differences = np.array([[float(mine[s, t]) - float(other[s, t]) for t in trials] for s in seeds])
    interval = None if len(trials) < FEWEST else _interval(differences, draws, np.random.default_rng(seed))
    return Gap(float(differences.mean()), interval, len(trials), len(seeds))


def _interval(differences: FloatArray, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Of the mean of `differences` [seeds, trials]."""
    seeds, trials = differences.shape
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    by_trial = rng.multinomial(trials, np.full(trials, 1 / trials), draws)
    means = ((by_seed @ differences) * by_trial).sum(axis=1) / (seeds * trials)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def summed(experiment: Experiment, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the figures of every cell that was rolled out, variant by variant."""
    table = []
    for variant in experiment.variants:
        other = experiment.against(variant)
        for cell in experiment.trials(variant).cells:
            mine = _of(found, variant, cell)
            others = [] if other is None else _of(found, other, cell)
            if mine:
                table.append(_figures(experiment, variant, cell, mine) | _against(mine, others, other))
    return table


def _of(found: Sequence[Found], variant: Variant, cell: Cell) -> list[Found]:
    return [each for each in found if each.variant == variant.name and each.cell == cell]


def _figures(experiment: Experiment, variant: Variant, cell: Cell, mine: Sequence[Found]) -> dict[str, Any]:
    belts, rows = experiment.trials(variant).belts_m_s, [row for each in mine for row in each.rows]
    figures: dict[str, Any] = {
        "variant": variant.name,
        "task": cell.task,
        "belt_m_s": None if belts is None else list(belts[cell.belt]),
        "latency_ms": cell.latency_ms,
        "compute_ms": sorted({each.compute_ms for each in mine}),
        "n": sum(len(each.rows) for each in mine),
        "failures": failures(rows),
        "limited": limited(rows),
    }
    for what, key in WHAT.items():
        shares = [Share(sum(bool(row[key]) for row in each.rows), len(each.rows)) for each in mine]
        pooled = Share(sum(share.hits for share in shares), sum(share.n for share in shares))
        rates = [share.rate for share in shares if share.rate is not None]
        figures |= {
            f"{what}_rate": pooled.rate,
            f"{what}_interval": list(pooled.interval),
            f"{what}_by_seed": {str(each.seed): share.rate for each, share in zip(mine, shares, strict=True)},
            f"{what}_spread": statistics.stdev(rates) if len(rates) > 1 else None,
        }
    return figures


def _against(mine: Sequence[Found], others: Sequence[Found], other: Variant | None) -> dict[str, Any]:
    told: dict[str, Any] = {"against": None if other is None else other.name}
    for what, key in WHAT.items():
        gone = gap(_outcomes(mine, key), _outcomes(others, key))
        told[f"{what}_difference"] = None if gone is None else asdict(gone) | {"verdict": gone.verdict.value}
    return told


def _outcomes(found: Sequence[Found], key: str) -> dict[tuple[int, int], bool]:
    return {(each.seed, int(row["seed"])): bool(row[key]) for each in found for row in each.rows}
