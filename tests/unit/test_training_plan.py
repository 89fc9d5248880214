"""The memory plan against what torch really holds, and whether samples keep up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from stage_rig import write_stage
from tiny import TINY, TINY_2B, tiny_model
from training_rig import NANO, prepared, write_all

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.learning import planning
from internvla_a1_ros.learning.optimiser import Group, Kind, Optimiser
from internvla_a1_ros.learning.planning import Plan, activations, drawn, most_held, plan
from internvla_a1_ros.learning.recipe import Recipe, moves
from internvla_a1_ros.learning.taught import Taught
from internvla_a1_ros.learning.training import keep_no_insides
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.sizes import Architecture

GB = 10**9
RECIPE = Recipe(name="plan", start="-", mixture="-", out="-", steps=1, batch=3)


def recipe(**changes: Any) -> Recipe:
    return RECIPE.model_copy(update=changes)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("plan"))


@pytest.mark.parametrize(("tiny", "precision", "checkpointing"), [(TINY, "bf16", False), (TINY, "float32", True), (TINY_2B, "bf16", True)])
def test_what_is_planned_is_what_torch_holds(tiny: Architecture, precision: Any, checkpointing: bool) -> None:
    model = tiny_model(tiny)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith("cosmos."))
    if checkpointing:
        keep_no_insides(model)
    really = most_held(Taught(model), *drawn(tiny, 3, 2), precision)
    chosen = recipe(precision=precision, gradient_checkpointing=checkpointing, draws=2)
    assert activations(tiny, chosen) == pytest.approx(really, rel=0.02)


@pytest.mark.long
def test_at_nano_size_too() -> None:
    model = load_model(NANO)
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith("cosmos."))
    really = most_held(Taught(model), *drawn(model.sizes, 4), "float32")
    assert activations(model.sizes, recipe(batch=4)) == pytest.approx(really, rel=0.02)


def test_a_step_of_the_trainer_holds_what_was_planned(keys: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(keys, out=str(tmp_path / "out"), batch=4)
    trainer = ready.trainer
    batch, _ = trainer._drawn(0)
    _, noise, times = drawn(trainer.model.sizes, 4)
    really = most_held(Taught(trainer.model), batch.inputs, noise, times, "float32")
    assert activations(trainer.model.sizes, ready.recipe) == pytest.approx(really, rel=0.02)


def test_the_parts_are_bytes_of_weights() -> None:
    whole = sum(weight.numel() for weight in tiny_model().parameters())
    cosmos = sum(weight.numel() for weight in tiny_model().cosmos.parameters())
    made = plan(TINY, recipe(ema=0.9))
    assert made.weights == 4 * whole and made.gradients == made.mean == made.stepping == 4 * (whole - cosmos)
    assert made.moments == 2 * made.gradients and made.total == made.kept + max(made.activations, made.stepping)
    frozen = plan(TINY, recipe(freeze="experts_only"))
    assert frozen.mean == 0 and frozen.gradients < made.gradients and frozen.activations < made.activations
    assert made.gathered < made.weights + made.gradients


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_are_those_that_the_optimiser_keeps(kind: Kind) -> None:
    weights = {name: weight for name, weight in tiny_model().named_parameters() if moves(name, "none")}
    optimiser = Optimiser([Group(weights)], kind, (0.9, 0.95))
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimiser.step(1e-3)
    kept = sum(value.nbytes for weight in weights.values() for value in optimiser.moments(weight).values())
    assert plan(TINY, recipe(optimiser=kind)).moments == kept


@pytest.mark.parametrize(
    ("gb", "count"),
    [(100, 1), (80, 2), (40, 3), (24, 11), (18, 300), (17, None)],  # 90 % of it usable
)
def test_how_many_gpus(gb: int, count: int | None) -> None:
    """60 GB to share, 15 of activations each and 1 gathered: on 24 GB there is room for 5.6 of the 60."""
    made = Plan(8, 15 * GB, 15 * GB, 30 * GB, 0, 15 * GB, 10 * GB, 1 * GB)
    assert made.gpus(gb * 1e9) == count
    if count is not None and count > 1:
        assert (made.kept / count + made.activations + made.gathered) <= 0.9 * gb * 1e9


def test_the_command_plans_without_loading_anything(
    keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "activations", lambda *_: 10**6)
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(keys | {"mixture": str(tmp_path / "not there"), "out": str(tmp_path / "out")}))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(config), "--plan"])
    assert not ended.value.code
    told = capsys.readouterr().out
    assert "float32 (the recipe)" in told and "bf16, checkpointing" in told and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["train", str(config), "--plan", "--layout", "4b"])
    assert "size: got '4b', expected one of 3b, 2b" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(config), "--layout", "3b"])
    assert "--layout: got '3b' without --plan" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(config), "--plan", "--measure", "2"])
    assert "--plan: got --measure 2 with it, expected one of the two" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--plan",), ("--measure", "1"), ("--layout", "3b")])
def test_what_only_a_policy_has_is_refused_for_a_stage(words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "stage.yaml"
    config.write_text(yaml.safe_dump(write_stage(tmp_path / "all", "vision")))
    with pytest.raises(SystemExit):
        main(["train", str(config), *words])
    assert f"stage.yaml: got {words[0]} with a recipe of stage 'vision', expected it with a policy's" in capsys.readouterr().err


def test_a_stage_is_one_process_s(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = tmp_path / "stage.yaml"
    config.write_text(yaml.safe_dump(write_stage(tmp_path / "all", "vision")))
    with pytest.raises(SystemExit):
        main(["train", str(config)])
    assert "got 2 processes for stage 'vision', expected one" in capsys.readouterr().err


def test_measuring_keeps_nothing(keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(keys | {"out": str(tmp_path / "out"), "threads": 1}))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(config), "--measure", "2"])
    assert not ended.value.code
    rates = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert rates.keys() == {"decoded_hz", "cached_hz", "step_hz"} and rates["cached_hz"] > rates["decoded_hz"] > 0
    assert not (tmp_path / "out").exists()
    assert torch.get_num_threads() == 1
