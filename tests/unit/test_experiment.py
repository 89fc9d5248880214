"""Experiments as they are written: what comes along, what recipes come out, what is shared, and what a person may get wrong."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment_rig import VARIANTS, asked, options_of, planned, write_experiment
from training_rig import write_all

from internvla_a1_ros.cli.evaluate import rollouts
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.experiment import find_experiment, read_experiment, shipped
from internvla_a1_ros.evaluation.experiment_plan import Plan, Policy, Rolled, plan
from internvla_a1_ros.evaluation.experiment_run import write_recipes
from internvla_a1_ros.learning.running import read_recipe
from internvla_a1_ros.policy.manifest import Manifest
from internvla_a1_ros.robots.document import read_document

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("experiment"))


def policy(plan: Plan, variant: str, seed: int = 0) -> Policy:
    return next(each.policy for each in plan.rolled if each.variant == variant and each.policy.recipe.seed == seed)


# ---- what comes along --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def along() -> dict[str, Plan]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        return {name: plan(read_experiment(path), Path("runs/experiments")) for name, path in shipped().items()}


def test_every_question_of_the_task_comes_along(along: dict[str, Plan]) -> None:
    assert {"generation", "history", "pretraining", "mixture", "flow_steps", "continuation", "belt"} <= along.keys()
    for name, each in along.items():
        assert each.experiment.name == name
        seeds, trials = len(each.experiment.seeds), each.experiment.rollouts.n
        assert seeds >= 3 and seeds * trials >= 100


def test_every_question_is_in_the_document(along: dict[str, Plan]) -> None:
    text = (REPOSITORY / "docs/experiments.md").read_text()
    assert set(re.findall(r"`internvla-a1 experiment (\w+)`", text)) == along.keys()
    for each in along.values():
        assert each.experiment.question in text


def test_rollouts_are_asked_for_with_options_that_there_are(along: dict[str, Plan]) -> None:
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(rollouts).parameters}
    for each in along.values():
        assert {option for rolled in each.rolled for option in options_of(rolled.words)} <= known


def test_questions_share_what_they_have_in_common(along: dict[str, Plan]) -> None:
    shared = policy(along["generation"], "taught").key
    same = {"history": "past", "mixture": "both", "pretraining": "broad", "flow_steps": "mean", "belt": "static"}
    same |= {"continuation": "neither", "vision_warmup": "warmed_up"}
    assert {policy(along[name], variant).key for name, variant in same.items()} == {shared} and same.keys() | {"generation"} == along.keys()
    assert len(along["continuation"].policies) == 3 and len(along["flow_steps"].policies) == 6
    assert policy(along["generation"], "untaught").key != shared


def test_what_the_shipped_variants_change(along: dict[str, Plan]) -> None:
    untaught, no_past = policy(along["generation"], "untaught_without_past"), policy(along["history"], "past_is_now")
    assert untaught.recipe.lambda_generation == 0 and no_past.recipe.lambda_generation == 1.0
    assert untaught.manifest["history"]["interval_s"] == no_past.manifest["history"]["interval_s"] == 0
    assert Path(policy(along["pretraining"], "pretrained", 2).recipe.start) == policy(along["pretraining"], "broad", 2).place
    steps = [options_of(each.words)["--preset"] for each in along["flow_steps"].rolled if each.policy.recipe.seed == 0]
    manifest = policy(along["flow_steps"], "steps_1").manifest
    assert {manifest["presets"][preset]["steps"] for preset in steps} == {1, 2, 4, 10}
    belts = {each.variant: options_of(each.words)["--belt"] for each in along["belt"].rolled}
    assert belts == {"moving": "0.05:0.15", "static": "0:0", "moving_of_both": "0.05:0.15", "static_of_both": "0:0"}
    both = [policy(along["belt"], name) for name in ("moving_of_both", "static_of_both")]
    assert both[0].key == both[1].key != policy(along["belt"], "static").key and len(along["belt"].policies) == 6


# ---- recipes -----------------------------------------------------------------------------------------------------------


def test_recipes_come_out_right_and_can_be_trained(keys: dict[str, Any], tmp_path: Path) -> None:
    more = {"name": "longer", "told": "on", "after": "untaught", "recipe": {"steps": 8, "batch": 1}}
    found = planned(tmp_path, keys, variants=[*VARIANTS, more], recipe={"eps": 1e-6}, manifest={"target_rate_hz": 5.0})
    write_recipes(found)
    assert len(found.policies) == 6
    for each in found.policies:
        recipe = read_recipe(each.file)
        assert recipe == each.recipe
        manifest = read_document(Path(str(recipe.manifest)), Manifest)
        assert recipe.eps == 1e-6 and manifest.target_rate_hz == 5.0
        changed = each.variant != "as_it_is"  # what starts from another has its manifest, and its own recipe
        assert manifest.history.interval_s == (0 if changed else 0.5)
        assert recipe.lambda_generation == (0 if each.variant == "untaught" else None)
        assert (recipe.steps, recipe.batch) == ((8, 1) if each.variant == "longer" else (4, 2))
        start = policy(found, "untaught", recipe.seed).recipe.out if each.variant == "longer" else keys["start"]
        assert recipe.start == start
    assert len({each.recipe.out for each in found.policies}) == 6


def test_an_order_in_which_jobs_can_be_done(keys: dict[str, Any], tmp_path: Path) -> None:
    before = [{"name": "second", "told": "on", "after": "first"}, {"name": "first", "told": "one", "recipe": {"batch": 1}}]
    found = planned(tmp_path, keys, variants=before)
    there = {Path(keys["start"])}
    for job in found.jobs:
        assert (Path(job.recipe.start) if isinstance(job, Policy) else job.policy.place) in there
        there.add(job.place)
    seeds = [job.policy.recipe.seed for job in found.jobs if isinstance(job, Rolled)]
    assert seeds == sorted(seeds)  # so that a part of it has something to say


def test_fewer_steps_shorten_everything_alike(keys: dict[str, Any], tmp_path: Path) -> None:
    schedule = {"kind": "cosine", "peak": 1e-3, "end": 0.0, "warmup_steps": 10, "decay_steps": 100}
    longer = {"name": "longer", "told": "twice", "recipe": {"steps": 200, "schedule": {"decay_steps": 200}}}
    found = planned(tmp_path, keys | {"steps": 100, "schedule": schedule}, steps=20, variants=[*VARIANTS, longer])
    told = {
        each.variant: (each.recipe.steps, each.recipe.schedule.warmup_steps, each.recipe.schedule.decay_steps) for each in found.policies
    }
    assert told == {"as_it_is": (20, 2, 20), "untaught": (20, 2, 20), "longer": (40, 2, 40)}
    found = planned(tmp_path, keys | {"steps": 100, "schedule": schedule}, steps=1)
    assert (found.policies[0].recipe.steps, found.policies[0].recipe.schedule.decay_steps) == (1, 1)


def test_a_policy_is_known_by_what_it_is_made_of(keys: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(Path(keys["start"]).parent, home)
    mine = keys | {"start": str(home / "start"), "mixture": str(home / "mixture.yaml")}

    def key(**changes: Any) -> str:
        return planned(tmp_path, mine | changes).policies[0].key

    first = key()
    assert key(name="other", save_every=3, cache=str(tmp_path), out="elsewhere") == first
    assert len({first, key(steps=5), key(clip=0.5), key(seed=0)}) == 3  # the experiment's seeds count, not the recipe's own
    (home / "start/model.safetensors").write_bytes(b"other weights")
    other = key()
    (home / "start/stats.json").write_text("{}")
    another = key()
    content = yaml.safe_load((home / "mixture.yaml").read_text())
    (home / "mixture.yaml").write_text(yaml.safe_dump(content | {"tiers": {"task": 0.5}}))
    content["datasets"][0]["path"] = str(home / "data")
    (home / "mixture.yaml").write_text(yaml.safe_dump(content))
    mixed = key()
    (home / "data/meta/stats.json").write_text("{}")  # recorded again, as long as before
    assert len({first, other, another, mixed, key()}) == 5


def test_fewer_or_more_seeds_and_trials(keys: dict[str, Any], tmp_path: Path) -> None:
    experiment = asked(tmp_path, keys, seeds=[5, 7])
    assert experiment.shortened(1, None).seeds == (5,)
    assert experiment.shortened(4, None).seeds == (5, 7, 8, 9)
    assert experiment.shortened(None, 3).rollouts.n == 3 and experiment.rollouts.n == 10


# ---- bad input ---------------------------------------------------------------------------------------------------------


def one(**changes: Any) -> dict[str, Any]:
    return {"variants": [VARIANTS[0], {"name": "b", "told": "x"} | changes]}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (one(recipe={"lamda_generation": 0}), "variant 'b': recipe: unknown key 'lamda_generation', did you mean 'lambda_generation'"),
        (one(recipe={"batch": 0}), "variant 'b': recipe: batch: got 0, expected"),
        (
            one(manifest={"history": {"interval": 0}}),
            "variant 'b': manifest: unknown key 'history.interval', did you mean 'interval_s'",
        ),
        (one(rollouts={"latency_ms": [0]}), "variant 'b': rollouts: unknown key 'latency_ms', did you mean 'latencies_ms'"),
        (one(rollouts={"tasks": ["express_sortin"]}), "rollouts: tasks.0: got 'express_sortin', expected"),
        (one(rollouts={"tasks": ["express_sorting"]}), "variant 'b' has no task and latency in common with 'as_it_is'"),
        (one(rollouts={"seed": 3}), "rollouts: got n or seed, expected them of the experiment alone"),
        (one(against="as_it_was"), "variant 'b': against: got 'as_it_was', expected another variant, did you mean 'as_it_is'"),
        (one(against="b"), "against: got 'b', expected another variant"),
        (one(after="c"), "after: got 'c', expected another variant"),
        (one(after="as_it_is", recipe={"start": "nano"}), "got both `after` and a `start`"),
        (one(name="as_it_is"), "'as_it_is' is there twice"),
        ({"variants": [VARIANTS[0] | {"after": "untaught"}, VARIANTS[1] | {"after": "as_it_is"}]}, "start from one another"),
        ({"variants": []}, "variants"),
        ({"seeds": [1, 1]}, "seeds: got .1, 1., expected each once"),
        (one(rollouts={"belts_m_s": [[0.2, 0.1]]}), "belts_m_s: got 0.2 to 0.1 m/s, expected them from 0 to 0.3, the slower first"),
        (one(rollouts={"latencies_ms": [0, 0]}), "variant 'b': rollouts: got a task or a latency twice, expected each once"),
        (one(rollouts={"preset": "exakt"}), "variant 'b': rollouts: preset: got 'exakt', which its manifest has not, did you mean 'exact'"),
        ({"quession": "?"}, "unknown key 'quession', did you mean 'question'"),
        ({"rollouts": {"n": 0}}, "rollouts.n: got 0"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"common": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"common": 3}, "common: got 3, expected the name of a file"),
        (one(recipe={"mixture": "pretraining_53m"}), "no such file, did you mean 'pretraining_533m'"),
    ],
)
def test_one_sentence(keys: dict[str, Any], tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as told:
        planned(tmp_path, keys, **changes)
    assert "\n" not in str(told.value)


def test_a_mistake_in_the_recipe_is_told_as_its_own(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="base.yaml: unknown key 'stepps', did you mean 'steps'"):
        planned(tmp_path, keys | {"stepps": 3})


def test_names(keys: dict[str, Any], tmp_path: Path) -> None:
    path = write_experiment(tmp_path, keys)
    assert find_experiment(str(path)) == path and find_experiment("belt") == shipped()["belt"]
    with pytest.raises(ConfigurationError, match="did you mean 'generation'.*come along: belt"):
        find_experiment("generatio")
