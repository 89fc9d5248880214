"""Figures of experiments: pooled shares, differences over pairs and their intervals, and how they are written down."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from experiment_rig import VARIANTS, Hand, planned, row
from hypothesis import given, settings
from hypothesis import strategies as st
from training_rig import write_all

from internvla_a1_ros.evaluation.experiment import Cell, Experiment
from internvla_a1_ros.evaluation.experiment_plan import Plan
from internvla_a1_ros.evaluation.experiment_result import Found, gap, summed
from internvla_a1_ros.evaluation.experiment_run import carry_out, gathered
from internvla_a1_ros.evaluation.experiment_told import HEADINGS, markdown, result
from internvla_a1_ros.evaluation.paired import Verdict

CELL = Cell("ingredient_picking", 0, 0.0)


def outcomes(values: np.ndarray) -> dict[tuple[int, int], bool]:
    """From [seeds, trials]."""
    return {(s, t): bool(values[s, t]) for s in range(values.shape[0]) for t in range(values.shape[1])}


def drawn(rates: list[float], trials: int, seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).random((len(rates), trials)) < np.array(rates)[:, None])


def test_a_difference_by_hand() -> None:
    mine = np.array([[1, 1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]])
    other = np.array([[1, 0, 0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1, 1, 1]])
    found = gap(outcomes(mine), outcomes(other))
    assert found is not None and found.difference == 8 / 16 and (found.trials, found.seeds) == (8, 2)
    assert found.interval is not None and found.interval[0] < 0.5 < found.interval[1]
    assert found.verdict is Verdict.BETTER
    back = gap(outcomes(other), outcomes(mine))
    assert back is not None and back.difference == -0.5 and back.verdict is Verdict.WORSE


def test_no_difference() -> None:
    same = outcomes(drawn([0.5, 0.6], 20, 0))
    found = gap(same, same)
    assert found is not None and found.interval == (0.0, 0.0) and found.verdict is Verdict.NONE


def test_only_what_both_have_is_compared() -> None:
    full = outcomes(drawn([0.5, 0.5, 0.5], 30, 1))
    part = {key: value for key, value in full.items() if key[0] < 2 and key != (1, 3)}
    found = gap(part, full)
    assert found is not None and (found.trials, found.seeds) == (29, 2)  # trial 3 is not there with each seed
    assert gap({}, full) is None and gap({(0, 0): True}, {(0, 1): True}) is None


def test_too_few_trials_have_a_difference_and_no_interval() -> None:
    found = gap(outcomes(np.ones((3, 7))), outcomes(np.zeros((3, 7))))
    assert found is not None and found.difference == 1 and found.interval is None and found.verdict is Verdict.NONE


@given(st.integers(1, 4), st.integers(8, 40), st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_turned_round(seeds: int, trials: int, seed: int) -> None:
    a, b = (outcomes(drawn([0.5] * seeds, trials, seed + i)) for i in range(2))
    there, back = gap(a, b, draws=200), gap(b, a, draws=200)
    assert there is not None and back is not None and there.interval is not None and back.interval is not None
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]), abs=1e-9)
    assert -1 <= there.interval[0] <= there.interval[1] <= 1


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_where_there_is_no_difference_one_is_seldom_found(spread: float) -> None:
    """200 experiments of 3 seeds and 60 trials, some harder than others for every model, with and without luck of the training seed."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        hard = rng.uniform(0.2, 0.9, 60)
        a, b = (rng.random((3, 60)) < np.clip(hard + rng.normal(0, spread, (3, 1)), 0, 1) for _ in range(2))
        gone = gap(outcomes(a), outcomes(b), draws=200)
        found += gone is not None and gone.verdict is not Verdict.NONE
    assert found <= 20  # 10 were expected at 95 %


def test_a_difference_that_is_there_is_found() -> None:
    found = 0
    for k in range(50):
        gone = gap(outcomes(drawn([0.8] * 3, 100, 2 * k)), outcomes(drawn([0.6] * 3, 100, 2 * k + 1)), draws=200)
        found += gone is not None and gone.verdict is Verdict.BETTER
    assert found >= 45


# ---- tables ------------------------------------------------------------------------------------------------------------


def found_of(variant: str, seed: int, succeeded: list[bool], grasped: list[bool]) -> Found:
    rows = [row(trial, s, g) for trial, (s, g) in enumerate(zip(succeeded, grasped, strict=True))]
    return Found(variant, seed, CELL, rows, 40.0)


def experiment(**changes: Any) -> Experiment:
    content = {"name": "made_up", "question": "?", "base": "none", "rollouts": {"n": 10}, "variants": VARIANTS}
    return Experiment.model_validate(content | changes)


def test_the_table_of_made_up_rows() -> None:
    yes, no = [True] * 10, [False] * 10
    rows = [
        found_of("as_it_is", 0, yes[:6] + no[:4], yes),
        found_of("as_it_is", 1, yes[:8] + no[:2], yes),
        found_of("untaught", 0, no, yes[:5] + no[:5]),
        found_of("untaught", 1, no, no),
    ]
    first, second = summed(experiment(), rows)
    assert (first["variant"], first["n"], first["success_rate"], first["grasp_rate"]) == ("as_it_is", 20, 14 / 20, 1.0)
    assert first["success_interval"] == pytest.approx([0.481, 0.855], abs=1e-3)  # Wilson of 14 of 20
    assert first["success_by_seed"] == {"0": 0.6, "1": 0.8} and first["success_spread"] == pytest.approx(0.1414, abs=1e-4)
    assert first["failures"] == {"passed": 6} and first["limited"] == 0.25
    assert first["against"] is None and first["success_difference"] is None
    assert second["against"] == "as_it_is" and second["success_difference"]["difference"] == pytest.approx(-0.7)
    assert second["success_difference"]["verdict"] == "worse" and second["grasp_difference"]["difference"] == pytest.approx(-0.75)


def test_belts_are_held_against_each_other_by_their_place() -> None:
    static = {"name": "static", "told": "x", "rollouts": {"belts_m_s": [[0, 0]]}}
    asked = experiment(variants=[VARIANTS[0] | {"rollouts": {"belts_m_s": [[0.05, 0.15]]}}, static])
    first, second = summed(asked, [found_of(name, 0, [True] * 10, [True] * 10) for name in ("as_it_is", "static")])
    assert (first["belt_m_s"], second["belt_m_s"]) == ([0.05, 0.15], [0, 0]) and second["success_difference"]["trials"] == 10


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("told")
    found = planned(folder, write_all(folder / "keys"), variants=[*VARIANTS, {"name": "on", "told": "x", "after": "untaught"}])
    assert carry_out(found, Hand(succeeds=lambda model, trial: trial < 4), 1, lambda: False, lambda text: None)
    return found


def test_what_is_written_down(plan: Plan) -> None:
    content = result(plan, gathered(plan), "internvla-a1 experiment tiny")
    assert json.loads(json.dumps(content, allow_nan=False)) and not content["partial"]
    assert len(content["cells"]) == 6 and len(content["runs"]) == 12
    last = content["runs"][-1]["commands"]
    assert [line.split()[1] for line in last] == ["train", "train", "evaluate"]  # what it starts from comes first
    assert last[0].endswith("-seed1.yaml") and "--compute 40" in last[2] and "--out" not in last[2]
    text = markdown(content)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6 and {line.count("|") for line in rows} == {len(HEADINGS) + 1}
    assert rows[2].split(" | ")[3:7] == ["0", "40", "20", "40 % (22-61)"] and " | passed 12 | 25 % | - | - |" in rows[2]
    assert "no difference found" in rows[4]  # 8 of 20; a negative result is a row like any other
    assert "## Does it?" in text and "    internvla-a1 experiment tiny\n" in text and "Partial" not in text


def test_a_part_says_so(plan: Plan) -> None:
    content = result(plan, gathered(plan)[:3], "internvla-a1 experiment tiny")
    assert content["partial"] and "**Partial" in markdown(content) and len(content["runs"]) == 3
