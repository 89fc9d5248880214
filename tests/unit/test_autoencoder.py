"""The first stage at tiny size: it learns, goes on to the bit, leaves the rest alone, and latents come out of unit scale."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from stage_rig import EPISODES, HEIGHT, LENGTH, WIDTH, done, ready, write_stage
from tiny import TINY
from training_rig import Quiet

from internvla_a1_ros.cli.train_stage import StageBars, train_stage
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.autoencoder import COSMOS, STEP, AutoencoderRecipe, folded, mean, psnr
from internvla_a1_ros.learning.autoencoder_start import components_of
from internvla_a1_ros.learning.stages import read_stage, run_stage
from internvla_a1_ros.learning.stages_pictures import Box, Gallery, Shown, Stills
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.cosmos import haar
from internvla_a1_ros.model.sizes import CosmosSizes
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.pictures import cosmos_input, resize_with_pad


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_stage(tmp_path_factory.mktemp("stage"), "autoencoder")


def test_it_learns_and_an_error_of_latents_costs_what_it_changes(keys: dict[str, Any], tmp_path: Path) -> None:
    prepared, reports = done(keys, out=str(tmp_path / "out"), steps=40, save_every=20, precision="float32", ema=0.9)
    assert np.mean([r.loss for r in reports[-5:]]) < 0.5 * np.mean([r.loss for r in reports[:5]])
    early, late = (r.measured["psnr_db"] for r in reports if r.measured)
    assert late > early > 5
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41)) and "psnr_db" in lines[-1]["measured"]

    shown = prepared.course.gallery.some(256, kept_back=False)
    pictures = cosmos_input(shown.unmoved(), TINY)
    written = load_model(tmp_path / "out")
    with torch.no_grad():
        latents = written.encode(pictures)
        assert latents.mean((0, 2, 3)).abs().max() < 1e-4
        assert float(latents.square().mean()) == pytest.approx(1, abs=1e-3)
        changes = []
        for channel in range(latents.shape[1]):
            moved = latents.clone()
            moved[:, channel] += STEP * latents[:, channel].std()
            changes.append(float((written.decode(moved) - written.decode(latents)).square().mean().sqrt() / latents[:, channel].std()))
        assert max(changes) < 1.05 * min(changes), changes
        with prepared.course.averaged():
            assert torch.allclose(prepared.model.decode(prepared.model.encode(pictures)), written.decode(latents), atol=1e-4)


def test_it_may_begin_as_principal_components(tmp_path: Path) -> None:
    folding = CosmosSizes(
        stem=128, level_channels=(128,), encoder_blocks=1, decoder_blocks=2, patch=8, halvings=0, bottleneck=9, latent_channels=8
    )
    keys = write_stage(tmp_path, "autoencoder", replace(TINY, cosmos=folding), precision="float32")
    prepared = ready(keys, components=True)
    model, (pictures, _) = prepared.model, next(prepared.course.lesson._some(kept_back=False))  # type: ignore[attr-defined]
    mean, components, _ = components_of(pictures, 3, 8)
    patches = haar(haar(haar(pictures)))
    off = patches - mean[:, None, None]
    best = torch.einsum("wc,vc,nvij->nwij", components, components, off) + mean[:, None, None]
    error, least = (model.decode(model.encode(pictures)) - pictures).square().mean(), 64 * (best - patches).square().mean()
    assert least < error < 1.3 * least, "as good as linear can be, but for what the norms take"
    assert (model.encode(pictures).std((0, 2, 3)) - 1).abs().max() < 0.15
    _, reports = done(keys, components=True, steps=12, schedule={"kind": "constant", "peak": 3e-4, "warmup_steps": 3})
    assert np.mean([r.loss for r in reports[-4:]]) < np.mean([r.loss for r in reports[:4]])


def test_components_need_a_linear_way(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="components: got 1 halvings, channels 32 and .* expected no halvings"):
        ready(keys, components=True, out=str(tmp_path / "out"))


def test_nothing_else_moves(keys: dict[str, Any], tmp_path: Path) -> None:
    done(keys, out=str(tmp_path / "out"), steps=2)
    before, after = load_file(Path(keys["start"]) / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and moved and all(COSMOS in name for name in moved)
    assert len(moved) > 0.9 * sum(COSMOS in name for name in before)
    manifest = load_manifest(tmp_path / "out")
    assert manifest.name == "tiny" and not manifest.trained
    assert (tmp_path / "out/stats.json").read_bytes() == (Path(keys["start"]) / "stats.json").read_bytes()


def test_goes_on_to_the_bit(keys: dict[str, Any], tmp_path: Path) -> None:
    done(keys, out=str(tmp_path / "whole"), steps=5)
    interrupted, _ = done(keys, lambda stage: stage.course.step == 2, out=str(tmp_path / "parts"), steps=5)
    assert interrupted.course.step == 2 and (tmp_path / "parts/model.safetensors").is_file()
    again, reports = done(keys, out=str(tmp_path / "parts"), steps=5)
    assert again.resumed == 2 and [report.step for report in reports] == [3, 4, 5]
    assert "going on from step 2" in again.told
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    done_already, reports = done(keys, out=str(tmp_path / "parts"), steps=5)
    assert done_already.resumed == 5 and not reports


def test_ctrl_c_saves_and_the_same_command_goes_on(
    keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = AutoencoderRecipe.model_validate(keys | {"out": str(tmp_path / "out"), "steps": 3})
    stepped = StageBars.stepped

    def pressed(bars: StageBars, report: Any) -> None:
        stepped(bars, report)
        if report.step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(StageBars, "stepped", pressed)
        with pytest.raises(typer.Exit) as left:
            train_stage(recipe)
    assert left.value.exit_code == 130 and "step 2 of 3, stopped; the same command goes on" in capsys.readouterr().out
    train_stage(recipe)
    told = capsys.readouterr()
    assert "step 3 of 3\n" in told.out and "going on from step 2" in told.err and "psnr_db" in told.err


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_folding_is_exact(bottleneck: int, latents: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, post = (torch.randn(*shape, 1, 1, generator=draw).double() for shape in ((latents, bottleneck), (bottleneck, latents)))
    bias, post_bias = (torch.randn(n, generator=draw).double() for n in (latents, bottleneck))
    average, std = torch.randn(latents, generator=draw).double(), torch.rand(latents, generator=draw).double() + 0.1
    x = torch.randn(2, bottleneck, 3, 3, generator=draw).double()
    conv = torch.nn.functional.conv2d
    new_weight, new_bias, new_post, new_post_bias = folded(weight, bias, post, post_bias, average, std)
    before, after = conv(x, weight, bias), conv(x, new_weight, new_bias)
    assert torch.allclose((before - average[:, None, None]) / std[:, None, None], after, atol=1e-12)
    assert torch.allclose(conv(before, post, post_bias), conv(after, new_post, new_post_bias), atol=1e-10)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(-5, 5), st.integers(-5, 5))
def test_padding_is_where_the_policy_puts_it_and_stays_there(height: int, width: int, down: int, right: int) -> None:
    size = (48, 32)
    draw = torch.Generator().manual_seed(height * 64 + width)
    picture = resize_with_pad(1 + torch.randint(255, (1, 3, height, width), generator=draw).float(), size).round().byte()
    box = Box.of((height, width), size)
    shown = Shown(picture.permute(0, 2, 3, 1), torch.tensor([[box.above, box.left, box.rows, box.columns]]), np.zeros((1, 3), np.int64))
    assert torch.equal(shown.inside()[0, 0] > 0, picture[0].amax(0) > 0)
    moved = shown.shifted(torch.tensor([down]), torch.tensor([right]))
    assert torch.equal(moved[0].amax(0) > 0, picture[0].amax(0) > 0)
    inner = (picture[0].float() / 255)[:, box.above : box.above + box.rows, box.left : box.left + box.columns]
    rows, columns = (torch.arange(n).sub(by).clamp(0, n - 1) for n, by in ((box.rows, down), (box.columns, right)))
    inside = moved[0][:, box.above : box.above + box.rows, box.left : box.left + box.columns]
    assert torch.equal(inside, inner[:, rows][:, :, columns])


def test_padding_counts_less_and_not_in_what_is_measured() -> None:
    counts = torch.zeros(1, 1, 4, 4)
    counts[:, :, :2] = 1
    off = torch.zeros(1, 3, 4, 4)
    off[:, :, 2:] = 9
    assert mean(off, counts) == 0
    off[:, :, :2] = 0.2
    assert mean(off, counts) == pytest.approx(0.2)
    assert float(psnr(off, torch.zeros_like(off), counts)) == pytest.approx(20.0)  # 0.2 of a range of 2


def test_kept_back_is_never_drawn(keys: dict[str, Any], tmp_path: Path) -> None:
    gallery = ready(keys, out=str(tmp_path / "out")).course.gallery
    kept, learned = (set(gallery.some(999, kept_back=kept_back).origin[:, 1].tolist()) for kept_back in (True, False))
    places = gallery.stills[0].places
    assert not kept & learned and len(kept | learned) == len(places) == EPISODES * LENGTH // 2
    assert {int(place) for place in places[sorted(kept), 0]} == {3}
    assert gallery.counts == [len(learned) * 3]


def test_a_loss_that_is_not_finite_moves_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    prepared = ready(keys, out=str(tmp_path / "out"))
    with torch.no_grad():
        prepared.model.cosmos.encoder.conv_in.bias.fill_(float("nan"))
    before = {name: weight.detach().clone() for name, weight in prepared.course.weights.items() if "conv_in.bias" not in name}
    with pytest.raises(ConfigurationError, match=r"step 0: .* not finite: its 6 pictures .*bad_batch.json.* another seed does not$"):
        run_stage(prepared, Quiet())
    assert all(torch.equal(before[name], prepared.course.weights[name]) for name in before)
    named = json.loads((tmp_path / "out/bad_batch.json").read_text())["samples"]
    assert len(named) == 6 and set(named[0]) == {"dataset", "episode", "step", "view"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"held_out": 5}, r"got 4 episodes, expected 5, of which one is kept back"),
        ({"mixture": "nowhere.yaml"}, r"mixture 'nowhere.yaml': no such file"),
        ({"start": "nowhere"}, r"checkpoint 'nowhere': no such folder"),
    ],
)
def test_what_does_not_fit(keys: dict[str, Any], tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        ready(keys, out=str(tmp_path / "out"), **changes)


def test_enough_episodes_of_which_none_is_left_to_keep_back() -> None:
    """Of six, two were to be kept back, and just those do not decode."""
    dataset: Any = SimpleNamespace(folder="data")
    places = np.array([(episode, 0) for episode in (0, 1, 3, 4)])
    stills = Stills(dataset, np.zeros((4, 1, 8, 8, 3), np.uint8), (0,), (), places, ("episode 2", "episode 5"))
    with pytest.raises(ConfigurationError, match="dataset 'data': got 4 episodes, expected 3, of which one is kept back"):
        Gallery([stills], 3)


def test_another_recipe_in_the_same_folder(keys: dict[str, Any], tmp_path: Path) -> None:
    done(keys, out=str(tmp_path / "out"), steps=1)
    with pytest.raises(ConfigurationError, match="holds a run of another recipe: batch: got 6, now 7"):
        ready(keys, out=str(tmp_path / "out"), batch=7)


def test_which_stage(keys: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"

    def written(**changes: Any) -> Path:
        path.write_text(yaml.safe_dump(keys | changes))
        return path

    found = read_stage(written())
    assert found is not None and found.batch == 6
    assert read_stage(written(stage="policy")) is None
    for changes, sentence in (
        ({"stage": "vison"}, "stage: got 'vison', expected one of autoencoder, vision, policy, did you mean 'vision'?"),
        ({"edgs": 1}, "unknown key 'edgs', did you mean 'edges'?"),
        ({"out": keys["start"]}, "out: got the start"),
    ):
        with pytest.raises(ConfigurationError) as problem:
            read_stage(written(**changes))
        assert sentence in str(problem.value)


def test_pictures_have_the_size_that_is_said() -> None:
    assert Box.of((HEIGHT, WIDTH), TINY.picture) == Box(12, 0, 24, 32)
    assert Box.of((120, 160), (128, 128)) == Box(16, 0, 96, 128)
