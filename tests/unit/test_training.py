"""Training at tiny size: it learns, goes on to the bit, and what it leaves behind is a policy."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import TINY, TINY_2B
from training_rig import Quiet, picture, prepared, together, trained, weights_of, write_all, write_start

from internvla_a1_ros.core.types import Frame, JointState, Observation
from internvla_a1_ros.learning.cache import latents_of, tokens_of
from internvla_a1_ros.learning.checkpoints import read_snapshot
from internvla_a1_ros.learning.recipe import Recipe, moves
from internvla_a1_ros.learning.running import run
from internvla_a1_ros.learning.schedule import follow
from internvla_a1_ros.learning.training import Shares, generator
from internvla_a1_ros.model.checkpoint import load_architecture, load_model
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("run"))


def test_the_losses_fall(keys: dict[str, Any], tmp_path: Path) -> None:
    _, reports = trained(keys, out=str(tmp_path / "out"), steps=40, batch=4)
    first, last = (np.array([[r.action, r.generation] for r in some]).mean(0) for some in (reports[:6], reports[-6:]))
    assert (last < 0.8 * first).all(), (first, last)
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))


@pytest.mark.parametrize(("ema", "optimiser"), [(None, "adamw"), (0.9, "adamw"), (None, "muon")])
def test_goes_on_to_the_bit(keys: dict[str, Any], tmp_path: Path, ema: float | None, optimiser: str) -> None:
    changes = {"steps": 5, "ema": ema, "optimiser": optimiser}
    whole, _ = trained(keys, out=str(tmp_path / "whole"), **changes)
    interrupted = prepared(keys, out=str(tmp_path / "parts"), **changes)
    assert not run(interrupted, Quiet(), stop=lambda: interrupted.trainer.step == 2)
    again, reports = trained(keys, out=str(tmp_path / "parts"), **changes)
    assert again.resumed == 2 and len(reports) == 3
    mine, theirs = weights_of(again), weights_of(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert len((tmp_path / "parts/log.jsonl").read_text().splitlines()) == 5


def test_the_running_mean_is_what_is_handed_out(keys: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    trained(keys, out=str(out), ema=0.5, steps=3)
    snapshot = read_snapshot(out)
    assert snapshot is not None
    mean, weight = snapshot.parts["mean"], snapshot.parts["weight"]
    written = dict(load_model(out, sizes=load_architecture(out)).named_parameters())
    assert all(torch.equal(written[name], mean[name]) for name in mean)
    assert not torch.equal(mean["action_out_proj.weight"], weight["action_out_proj.weight"])


@pytest.mark.parametrize(("step", "kept"), [(0, 0.1), (5, 0.4), (1000, 0.9)])
def test_a_running_mean_begins_faster_than_its_decay(step: int, kept: float) -> None:
    mean, weights = {"w": torch.zeros(2, dtype=torch.float64)}, {"w": torch.ones(2, dtype=torch.float64)}
    follow(mean, weights, 0.9, step)
    assert mean["w"].tolist() == pytest.approx([1 - kept] * 2)


def test_a_gradient_is_clipped_and_told_as_it_was(keys: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for clip in (1e6, 0.01):
        trainer = prepared(keys, out=str(tmp_path / "out"), clip=clip).trainer
        told = trainer.advance().gradient
        left = torch.stack([weight.grad.norm() for weight in trainer.weights.values() if weight.grad is not None]).norm()
        found.append((told, float(left)))
    assert found[0][0] > 0.01 and found[0] == pytest.approx((found[1][0],) * 2, rel=1e-5)
    assert found[1][1] == pytest.approx(0.01, rel=1e-3)


def test_what_a_recipe_does_not_say_is_as_published() -> None:
    """The paper's post-training, and the released optimiser."""
    recipe = Recipe(name="a", start="b", mixture="c", out="d", steps=1)
    assert (recipe.optimiser, recipe.betas, recipe.eps, recipe.weight_decay, recipe.clip) == ("adamw", (0.9, 0.95), 1e-8, 0.01, 1.0)
    assert (recipe.draws, recipe.from_mean, recipe.motion, recipe.ema, recipe.mask_padding, recipe.freeze) == (1, 0, 0, None, False, "none")
    assert recipe.lambda_generation is None and load_architecture(find_checkpoint("nano")).lambda_generation != 0
    rates = [recipe.schedule.rate(step) for step in (999, 1999, 2000, 31000, 60000, 90000)]
    assert rates == pytest.approx([2.5e-5, 5e-5, 5e-5, (5e-5 + 5e-6) / 2, 5e-6, 5e-6])


def test_a_longer_run_goes_on_and_a_done_one_does_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    trained(keys, out=out, steps=1)
    done, reports = trained(keys, out=out, steps=1)
    assert done.resumed == 1 and not reports
    _, reports = trained(keys, out=out, steps=2)
    assert [report.step for report in reports] == [2]


@pytest.mark.parametrize("mask_padding", [False, True])
def test_two_halves_are_one_batch(keys: dict[str, Any], tmp_path: Path, mask_padding: bool) -> None:
    options = {"steps": 1, "mask_padding": mask_padding}
    one, (a,) = trained(keys, out=str(tmp_path / "one"), batch=2, **options)
    two, (b,) = trained(keys, out=str(tmp_path / "two"), batch=1, accumulation=2, **options)
    assert b.loss == pytest.approx(a.loss, rel=1e-5) and b.gradient == pytest.approx(a.gradient, rel=1e-4)
    for name, weight in one.trainer.weights.items():
        other = two.trainer.weights[name]
        assert (weight.grad is None) == (other.grad is None)
        if weight.grad is not None:
            assert torch.allclose(weight.grad, other.grad, atol=1e-6), name


@pytest.mark.parametrize(
    ("freeze", "still"), [("vision", "understanding.vision."), ("understanding", "understanding."), ("experts_only", "state_proj.")]
)
def test_what_is_frozen_does_not_move(keys: dict[str, Any], tmp_path: Path, freeze: Any, still: str) -> None:
    ready = prepared(keys, out=str(tmp_path / "out"), freeze=freeze)
    before = weights_of(ready)
    run(ready, Quiet())
    after = weights_of(ready)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith((still, "cosmos.")) for name in moved)
    assert all(moves(name, freeze) for name in moved)
    assert any(name.startswith("action.") for name in moved) and any(name.startswith("generation.") for name in moved)


def test_the_vision_tower_may_move_less(keys: dict[str, Any], tmp_path: Path) -> None:
    """AdamW's first step is the rate, whatever the gradient: half the rate, half the way."""
    start = weights_of(prepared(keys, out=str(tmp_path / "none")))
    whole, half = (
        weights_of(trained(keys, out=str(tmp_path / str(rate)), steps=1, weight_decay=0.0, vision_rate=rate)[0]) for rate in (1.0, 0.5)
    )
    for name, before in start.items():
        share = 0.5 if name.startswith("understanding.vision.") else 1.0
        assert torch.allclose(half[name] - before, share * (whole[name] - before), atol=1e-6), name
    assert any(not torch.equal(whole[name], before) for name, before in start.items() if name.startswith("understanding.vision."))


def test_a_share_of_the_draws_begins_from_the_mean(keys: dict[str, Any], tmp_path: Path) -> None:
    """The first batch by hand: `from_mean: 1` is its loss at time 1 without noise, that of a regression."""
    _, (plain,) = trained(keys, out=str(tmp_path / "plain"), steps=1)
    ready = prepared(keys, out=str(tmp_path / "mean"), steps=1, from_mean=1.0)
    batch, _ = ready.trainer._drawn(0)
    sizes = ready.trainer.model.sizes
    nothing = torch.zeros(2, sizes.chunk, sizes.action_width)
    with torch.no_grad():
        action, _, _ = ready.trainer.loss(batch, nothing, torch.ones(2), Shares.of([batch], False))
    _, (report,) = trained(keys, out=str(tmp_path / "mean"), steps=1, from_mean=1.0)
    _, (half,) = trained(keys, out=str(tmp_path / "half"), steps=1, from_mean=0.5, draws=8)
    assert report.action == pytest.approx(float(action), rel=1e-5) and report.action != pytest.approx(plain.action, rel=1e-3)
    assert min(report.action, plain.action) < half.action < max(report.action, plain.action)


@pytest.mark.parametrize("tiny", [TINY, TINY_2B])
def test_a_towers_kept_tokens_are_what_it_says(keys: dict[str, Any], tmp_path: Path, tiny: Architecture) -> None:
    changes = {"start": str(write_start(tmp_path / "start", tiny)), "stats": str(Path(keys["start"]) / "stats.json"), "freeze": "vision"}
    plain, reports = trained(keys, out=str(tmp_path / "plain"), **changes)
    kept = prepared(keys, out=str(tmp_path / "kept"), cache_tokens=True, **changes)
    calls: list[Any] = []
    kept.trainer.model.understanding.vision.register_forward_hook(lambda *call: calls.append(call))
    watcher = Quiet()
    run(kept, watcher)
    assert not calls, "the tower was asked again"
    assert [r.loss for r in watcher.reports] == pytest.approx([r.loss for r in reports], rel=1e-4)
    before, after = weights_of(plain), weights_of(kept)
    assert all(torch.allclose(before[name], after[name], atol=3e-3) for name in before)


def test_kept_tokens_are_of_one_tower(keys: dict[str, Any]) -> None:
    """Other weights, or the same ones that read pictures in another way, have tokens of their own."""
    model = load_model(Path(keys["start"]))
    before = tokens_of(model).key
    assert tokens_of(load_model(Path(keys["start"]))).key == before
    shown = model.sizes.processor
    model.sizes = replace(model.sizes, processor=replace(shown, mean=(0.4, 0.5, 0.5)))
    assert tokens_of(model).key != before and latents_of(model).key == latents_of(load_model(Path(keys["start"]))).key
    model.sizes = replace(model.sizes, processor=shown)
    assert tokens_of(model).key == before
    with torch.no_grad():
        next(model.understanding.vision.parameters()).add_(1e-3)
    assert tokens_of(model).key != before


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cache": None, "freeze": "vision"}, "expected a `cache` to keep them in"),
        ({"freeze": "none"}, "got true with freeze: none, expected a vision tower that stays as it is"),
        ({"freeze": "understanding", "shift_px": 2}, "got true with shift_px: 2, expected 0"),
    ],
)
def test_kept_tokens_need_a_tower_that_stays(keys: dict[str, Any], changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recipe.model_validate(keys | {"cache_tokens": True} | changes)


def test_the_folder_is_a_policy(keys: dict[str, Any], tmp_path: Path) -> None:
    trained(keys, out=str(tmp_path / "out"), steps=1, saved_precision="bf16")
    profile = load_profile("arx_ac_one")
    policy = load_policy(tmp_path / "out", profile, "arm1", threads=1)
    assert policy.manifest.trained and policy.manifest.name == "tiny"
    frames = tuple(Frame(camera.name, 10**9, 10**9, picture(3, 0)) for camera in profile.cameras)
    middle = (profile.lower + profile.upper) / 2
    found = policy.infer(Observation(10**9, frames, frames, JointState(10**9, middle), 0), "task 0", imagine=True)
    assert found.chunk.positions.shape == (7, 14) and np.isfinite(found.chunk.positions).all()


def test_the_other_layout_learns_too(keys: dict[str, Any], tmp_path: Path) -> None:
    start = write_start(tmp_path / "start", TINY_2B)
    changes = {"start": str(start), "stats": str(Path(keys["start"]) / "stats.json"), "out": str(tmp_path / "out"), "steps": 12}
    ready, reports = trained(keys, **changes)
    assert reports[-1].loss < reports[0].loss
    assert load_architecture(tmp_path / "out") == ready.trainer.model.sizes


@pytest.mark.parametrize("tiny", [TINY, TINY_2B])
def test_gradient_checkpointing_changes_nothing_but_memory(keys: dict[str, Any], tmp_path: Path, tiny: Architecture) -> None:
    changes = {"start": str(write_start(tmp_path / "start", tiny)), "stats": str(Path(keys["start"]) / "stats.json"), "steps": 2}
    grads, kept = [], []
    for on in (False, True):
        ready = prepared(keys, gradient_checkpointing=on, out=str(tmp_path / str(on)), **changes)
        saved = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ready.trainer.advance()
        kept.append(saved)
        grads.append({name: weight.grad for name, weight in ready.trainer.weights.items() if weight.grad is not None})
    assert kept[1] < 0.6 * kept[0], kept
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-7) for name in grads[0])


def test_bf16_learns_too(keys: dict[str, Any], tmp_path: Path) -> None:
    exact, (a,) = trained(keys, out=str(tmp_path / "a"), steps=1)
    half, (b,) = trained(keys, out=str(tmp_path / "b"), steps=1, precision="bf16")
    assert b.loss != a.loss and b.loss == pytest.approx(a.loss, rel=0.02)
    assert all(weight.dtype == torch.float32 for weight in half.trainer.weights.values())


def test_gradients_are_those_of_the_loss(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against central differences in float64, where the casts to float32 inside the model are made casts to float64."""
    ready = prepared(keys, out=str(tmp_path / "out"))
    batch, _ = ready.trainer._drawn(0)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model, draw = ready.trainer.model.double(), generator(0, 0)
    noise = torch.randn(2, model.sizes.chunk, model.sizes.action_width, generator=draw).double()
    times, shares = torch.tensor([0.3, 0.8], dtype=torch.float64), Shares.of([batch], False)
    inputs = type(batch.inputs)(
        **{
            name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in ((name, getattr(batch.inputs, name)) for name in type(batch.inputs).__slots__)
        }
    )
    double = type(batch)(inputs, batch.known, batch.inside)

    def loss() -> torch.Tensor:
        action, generation, _ = ready.trainer.loss(double, noise, times, shares)
        return action + generation

    loss().backward()
    for name in (
        "action_out_proj.weight",
        "state_proj.weight",
        "action_time_mlp_in.weight",
        "cosmos_out_proj.weight",
        "upsample_conv.weight",
        "action.layers.0.mlp.down_proj.weight",
        "generation.layers.0.self_attn.v_proj.weight",
        "understanding.vision.merger.linear_fc2.weight",
    ):
        weight = model.get_parameter(name)
        flat, gradient = weight.data.view(-1), weight.grad.view(-1)
        i = int(gradient.abs().argmax())
        kept, h = float(flat[i]), 1e-5
        with torch.no_grad():
            flat[i] = kept + h
            above = float(loss())
            flat[i] = kept - h
            below = float(loss())
            flat[i] = kept
        assert (above - below) / (2 * h) == pytest.approx(float(gradient[i]), rel=1e-5), name


def test_ctrl_c_saves_and_says_so(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from internvla_a1_ros.cli.main import main
    from internvla_a1_ros.learning import training

    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(keys | {"out": str(tmp_path / "out"), "steps": 50}))
    former = training.Trainer.advance

    def advance(self: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return former(self)

    monkeypatch.setattr(training.Trainer, "advance", advance)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(config)])
    assert ended.value.code == 130
    assert prepared(keys, out=str(tmp_path / "out"), steps=50).resumed == 3


@pytest.mark.parametrize(
    ("sharded", "optimiser"), [(False, "adamw"), (False, "muon"), (True, "adamw")], ids=["ddp", "ddp and muon", "fsdp"]
)
def test_two_processes_are_one(keys: dict[str, Any], tmp_path: Path, sharded: bool, optimiser: str) -> None:
    """The same samples: losses within 1e-5, gradients within what summing in another order leaves; shards go on from its file."""
    changes = {"workers": 2, "steps": 3, "accumulation": 2, "ema": 0.9, "gradient_checkpointing": True, "optimiser": optimiser}
    one, reports = trained(keys, out=str(tmp_path / "one"), threads=1, **changes)
    together(tmp_path, keys | changes | {"out": str(tmp_path / "two"), "threads": 1, "sharded": sharded})
    lines = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    for line, report in zip(lines, reports, strict=True):
        assert line["loss"] == pytest.approx(report.loss, rel=1e-5) and line["gradient"] == pytest.approx(report.gradient, rel=1e-4)
    again = prepared(keys, out=str(tmp_path / "two"), threads=1, **changes)
    assert again.trainer.snapshot.told == one.trainer.snapshot.told | {"recipe": again.recipe.model_dump(mode="json")}
    mine, theirs = again.trainer.snapshot.tensors, one.trainer.snapshot.tensors
    assert mine.keys() == theirs.keys()
    # A weight whose gradient is rounding alone takes a step of Adam's all the same: how far three of them go.
    assert all((mine[name] - theirs[name]).abs().max() < 3 * 3e-3 for name in theirs)
    apart, whole = (sum(float(t.abs().sum()) for t in some) for some in ([mine[name] - theirs[name] for name in theirs], theirs.values()))
    assert apart < 1e-4 * whole
    if not sharded:
        return
    together(tmp_path, keys | changes | {"out": str(tmp_path / "one"), "threads": 1, "sharded": sharded, "steps": 4})
    assert prepared(keys, out=str(tmp_path / "one"), **(changes | {"steps": 4, "threads": 1})).resumed == 4


@pytest.mark.gpu
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_on_gpus_the_same(keys: dict[str, Any], tmp_path: Path, sharded: bool) -> None:
    """All GPUs of this machine: the losses of one process on a CPU, within what other kernels round."""
    count = torch.cuda.device_count()
    changes = {"steps": 2, "batch": 2 * count, "cache": None if count == 1 else keys["cache"]}
    _, reports = trained(keys, out=str(tmp_path / "cpu"), device="cpu", **changes)
    together(tmp_path, keys | changes | {"out": str(tmp_path / "gpu"), "device": "cuda", "sharded": sharded}, count)
    lines = [json.loads(line) for line in (tmp_path / "gpu/log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx([report.loss for report in reports], rel=1e-3)
