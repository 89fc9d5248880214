"""What a drawn frame becomes: which pictures, which actions, in whose units; with and without the cache."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from dataset_files import HEAD, as_v2, write_v2
from training_rig import FPS, LENGTHS, picture, prepared, trained, write_all, write_dataset, write_mixture, write_stats

from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning import cache as learning_cache
from internvla_a1_ros.learning.mixture import Draw
from internvla_a1_ros.learning.training import Shares, Trainer
from internvla_a1_ros.policy.pictures import cosmos_input, model_picture, patches
from internvla_a1_ros.policy.statistics import GENIE


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def trainer(keys: dict[str, Any]) -> Trainer:
    return prepared(keys, cache=None).trainer


@pytest.mark.parametrize(
    ("frame", "past", "now", "future", "inside"), [(0, 0, 0, 5, 7), (6, 1, 6, 11, 6), (11, 6, 11, 11, 1), (12, 0, 0, 5, 7)]
)
def test_frames_and_actions(trainer: Trainer, frame: int, past: int, now: int, future: int, inside: int) -> None:
    """Half a second is five frames here; 12 is the first frame of the second episode."""
    sample, model = trainer.samples.sample(Draw(0, frame)), trainer.model
    episode = trainer.samples.materials[0].episodes[frame // LENGTHS[0]]
    for view, camera in enumerate(trainer.samples.materials[0].cameras):
        shown = torch.stack([model_picture(rgb, model.sizes.picture) for k in (past, now, future) for rgb in episode.frames(camera, [k])])
        assert torch.allclose(sample.latents[view], model.encode(cosmos_input(shown, model.sizes)), atol=1e-5)
        assert torch.equal(sample.pixels[view], patches(shown[1:2], model.sizes)[0])
        assert torch.allclose(shown[1].mean(), model_picture(picture(now, view), model.sizes.picture).mean(), atol=0.05)
    assert sample.inside.tolist() == [1.0] * inside + [0.0] * (7 - inside)
    assert torch.equal(sample.actions[inside:], sample.actions[inside - 1 : inside].expand(7 - inside, -1))


def test_numbers_come_back_in_robot_units(trainer: Trainer) -> None:
    material = trainer.samples.materials[0]
    sample, told = trainer.samples.sample(Draw(0, 4)), material.told[0]
    assert material.transforms is not None and material.dataset.fps == FPS
    state = material.transforms.state.inverse(sample.state.double().numpy())
    actions = material.transforms.action.inverse(sample.actions.double().numpy(), state)
    assert np.allclose(state, told.state[4], atol=1e-5) and np.allclose(actions, told.action[4:11], atol=1e-5)
    assert not sample.state[14:].any() and not sample.actions[:, 14:].any()


def test_the_cache_is_the_same_within_its_rounding(keys: dict[str, Any], trainer: Trainer) -> None:
    other = prepared(keys).trainer
    for frame in (0, 7, 20):
        a, b = trainer.samples.sample(Draw(0, frame)), other.samples.sample(Draw(0, frame))
        assert (a.pixels - b.pixels).abs().max() <= 2.1 / 510  # scaled by 1 / 0.5
        assert torch.nn.functional.cosine_similarity(a.latents.flatten(), b.latents.flatten(), 0) > 0.9999
        assert torch.equal(a.actions, b.actions) and torch.equal(a.ids, b.ids)
    made = sorted(Path(keys["cache"]).rglob("*.npy"))
    before = [path.stat().st_mtime_ns for path in made]
    prepared(keys)
    assert [path.stat().st_mtime_ns for path in made] == before and len(made) == 2
    assert not list(Path(keys["cache"]).rglob("*.part"))


def test_blocks_that_are_computed_side_by_side_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones take longest here; each frame's latents and tokens are its own all the same."""
    keys = write_all(tmp_path) | {"cache_tokens": True, "freeze": "vision", "threads": 1}
    one = prepared(keys | {"cache": str(tmp_path / "one")}).trainer
    by, left = learning_cache.encoded, [0.05, 0.03, 0.01]

    def slower(model: Any, pictures: torch.Tensor) -> torch.Tensor:
        time.sleep(left.pop(0) if left else 0.0)
        return by(model, pictures)

    monkeypatch.setattr(learning_cache, "encoded", slower)
    monkeypatch.setattr(learning_cache, "_COMPUTED_AT_ONCE", 2)
    monkeypatch.setattr(learning_cache, "_cores", lambda: 4)
    several = prepared(keys | {"cache": str(tmp_path / "several")}).trainer
    for frame in range(sum(len(one.samples.materials[0].steps(i)) for i in range(len(one.samples.materials[0].episodes)))):
        a, b = (each.samples.sample(Draw(0, frame)) for each in (one, several))
        assert a.seen is not None and b.seen is not None
        assert torch.allclose(a.latents, b.latents, atol=1e-5) and torch.allclose(a.seen, b.seen, atol=1e-5)
    assert not left


@pytest.mark.parametrize("cache", [True, False])
def test_a_broken_episode_is_named_and_left_out(keys: dict[str, Any], tmp_path: Path, cache: bool) -> None:
    broken = write_dataset(tmp_path / "data", lengths=(12, 9, 10), fps=FPS)
    parquet = next((broken / "data").rglob("*.parquet"))
    whole = Path(keys["mixture"]).parent / "data"
    video = sorted((broken / "videos").rglob("*.mp4"))[0]
    if cache:  # decodes up to some picture, then no more
        data = bytearray(video.read_bytes())
        at = data.find(b"mdat") + 4
        length = data.find(b"moov") - at if data.find(b"moov") > at else len(data) - at
        data[at + length // 2 : at + length] = bytes(length - length // 2)
        video.write_bytes(data)
    else:
        shutil.copyfile(next((whole / "data").rglob("*.parquet")), parquet)  # holds no third episode
    write_mixture(tmp_path / "mixture.yaml", {"path": str(broken)})
    where = str(tmp_path / "cache") if cache else None
    ready = prepared(keys, mixture=str(tmp_path / "mixture.yaml"), cache=where, out=str(tmp_path / "out"))
    material = ready.materials[0]
    assert material.left_out and len(material.episodes) + len(material.left_out) == 3
    assert all(str(broken) in sentence for sentence in material.left_out)
    for frame in range(material.frames):
        ready.trainer.samples.sample(Draw(0, frame))


def test_video_alone_teaches_the_future_only(keys: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(keys["mixture"]).parent / "data"
    write_mixture(tmp_path / "mixture.yaml", {"path": str(folder), "actions": False})
    ready, (report,) = trained(keys, mixture=str(tmp_path / "mixture.yaml"), out=str(tmp_path / "out"), steps=1)
    assert report.action == 0.0 and report.generation > 0.0
    weights = ready.trainer.weights
    assert not any(weight.grad.any() for name, weight in weights.items() if name.startswith("action") and weight.grad is not None)
    assert weights["cosmos_out_proj.weight"].grad.any()


def test_video_alone_beside_what_is_labelled(keys: dict[str, Any], tmp_path: Path) -> None:
    """In one step: of the actions the labelled half alone counts, of the futures both."""
    folder = Path(keys["mixture"]).parent / "data"
    video = write_dataset(tmp_path / "video", lengths=(9,))
    sources = {"path": str(folder), "weight": 1}, {"path": str(video), "weight": 1, "actions": False}
    mixture = write_mixture(tmp_path / "mixture.yaml", *sources)
    ready = prepared(keys, mixture=str(mixture), out=str(tmp_path / "out"))
    batch, draws = ready.trainer._drawn(0)
    assert [draw.dataset for draw in draws] == [0, 1] and batch.known.sum(1).tolist() == [7.0, 0.0]
    one = ready.trainer.samples.stacked([ready.trainer.samples.sample(draws[0])], ready.trainer.model.sizes.grid)
    noise, times = torch.randn(2, 7, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 0.7])
    with torch.no_grad():
        action, generation, _ = ready.trainer.loss(batch, noise, times, Shares.of([batch], False))
        alone, half, _ = ready.trainer.loss(one, noise[:1], times[:1], Shares.of([one], False))
    assert float(action) == pytest.approx(float(alone), rel=1e-5) and float(generation) != pytest.approx(float(half), rel=1e-3)


@pytest.mark.parametrize("images", ["video", "bytes", "path"])
def test_a_dataset_of_version_2_however_its_pictures_are_kept(keys: dict[str, Any], tmp_path: Path, images: str) -> None:
    folder = write_v2(tmp_path / "data", (31, 20), images=images)
    cameras = {"head": HEAD, "left": "", "right": ""}
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(folder), "actions": False, "cameras": cameras})
    ready, (report,) = trained(keys, mixture=str(mixture), cache=str(tmp_path / "cache"), out=str(tmp_path / "out"), steps=1)
    assert report.generation > 0 and ready.materials[0].frames == 51 and not ready.materials[0].left_out


def test_a_copy_of_version_2_teaches_the_same(keys: dict[str, Any], tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", changes=(5,))
    old = as_v2(Dataset.open(data), tmp_path / "old")
    found = []
    for folder in (data, old):
        mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(folder), "one_task": True})
        ready, reports = trained(keys, mixture=str(mixture), cache=None, out=str(tmp_path / f"of_{folder.name}"), steps=2)
        (material,) = ready.materials
        found.append(([ready.trainer.samples.sample(Draw(0, frame)) for frame in (0, 4, 5, 11, 12)], reports, material))
    (new, a, made), (again, b, read) = found
    assert made.cameras == read.cameras and made.frames == read.frames and not read.left_out
    for one, other in zip(new, again, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("ids", "state", "actions", "known", "inside"))
        assert torch.nn.functional.cosine_similarity(one.latents.flatten(), other.latents.flatten(), 0) > 0.99  # coded twice
    assert [report.action for report in a] == pytest.approx([report.action for report in b], rel=0.05)


def test_two_widths_in_one_mixture(keys: dict[str, Any], tmp_path: Path) -> None:
    """Genie-1 has 16 numbers, the manifest's ARX 14: of both the first 14 count, and the others are told of."""
    root = Path(keys["mixture"]).parent
    genie = write_dataset(tmp_path / "genie", "genie1", (10,), layout=GENIE)
    stats = write_stats(tmp_path / "stats.json", root / "data", genie)
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(root / "data"), "weight": 1}, {"path": str(genie), "weight": 1})
    ready = prepared(keys, mixture=str(mixture), stats=str(stats), out=str(tmp_path / "out"))
    batch, _ = ready.trainer._drawn(0)
    assert batch.inputs.state[0, 14:].eq(0).all() and batch.inputs.state[1, :16].ne(0).all() and batch.inputs.state[1, 16:].eq(0).all()
    assert "genie: 16 actions of 'genie1', the manifest's robot has 14: the last 2 are not learned" in ready.remarks
    assert ready.trainer.advance().action > 0


def test_a_view_may_be_missing(keys: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(keys["mixture"]).parent / "data"
    write_mixture(tmp_path / "mixture.yaml", {"path": str(folder), "cameras": {"right": ""}})
    ready = prepared(keys, mixture=str(tmp_path / "mixture.yaml"), out=str(tmp_path / "out"))
    batch, _ = ready.trainer._drawn(0)
    assert batch.inputs.view_mask.tolist() == [[True, True, False]] * 2
    assert ready.trainer.advance().loss > 0


def test_padded_steps_count_unless_masked(trainer: Trainer) -> None:
    batch = trainer.samples.stacked([trainer.samples.sample(Draw(0, 11))], trainer.model.sizes.grid)
    noise, times = torch.randn(1, 7, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    squares = []
    for masked in (False, True):
        with torch.no_grad():
            squares.append(float(trainer.loss(batch, noise, times, Shares.of([batch], masked))[0]))
    from internvla_a1_ros.model.flow import losses

    with torch.no_grad():
        found = losses(trainer.model, batch.inputs, noise, times)
    own = found.action[..., :14]
    assert squares == pytest.approx([float(own.mean()), float(own[:, :1].mean())], rel=1e-6)


def test_two_robot_types_each_by_its_own_statistics(keys: dict[str, Any], tmp_path: Path) -> None:
    root = Path(keys["mixture"]).parent
    other = write_dataset(tmp_path / "lift", "arx_lift2", (10,), fps=20)
    stats = write_stats(tmp_path / "stats.json", root / "data", other)
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(root / "data"), "weight": 1}, {"path": str(other), "weight": 3})
    ready = prepared(keys, mixture=str(mixture), stats=str(stats), out=str(tmp_path / "out"), workers=2)
    assert ready.assignment.shares == ((0,), (1,)) and ready.weights == (0.5, 0.5)
    a, b = (material.transforms for material in ready.materials)
    assert a is not None and b is not None and not np.array_equal(a.state.scale.mean, b.state.scale.mean)
    drawn = [draw.dataset for i in range(2) for draw in ready.trainer._drawn(2 * i)[1]]
    assert drawn == [0, 1, 0, 1]
    assert replace(ready.assignment).imbalance == pytest.approx(42 / 31)
    assert "lift: 20 steps a second, the manifest's actions are 0.1 s apart: it would be done again 0.5 times as fast" in ready.remarks


@pytest.mark.parametrize(("fps", "fits"), [(10, True), (9.95, True), (9, False), (11, False), (20, False)])
def test_its_own_robot_is_shown_at_the_pace_at_which_it_will_move(keys: dict[str, Any], tmp_path: Path, fps: float, fits: bool) -> None:
    """Under either of its names: the manifest says 'ARX AC One', the data 'arx_ac_one'."""
    ready = prepared(keys, out=str(tmp_path / "out"))
    (material,), actions = ready.materials, ready.manifest.actions.model_copy(update={"dt_s": 1 / fps})
    if fits:
        material.need_rate(actions)
        return
    manifest = tmp_path / "manifest.yaml"
    told = ready.manifest.model_dump(mode="json", exclude_unset=True)
    manifest.write_text(yaml.safe_dump(told | {"actions": told["actions"] | {"dt_s": 1 / fps}}))
    with pytest.raises(ConfigurationError, match=f"got 10 steps a second of 'arx_ac_one', expected {fps}, by the manifest's actions.dt_s"):
        prepared(keys, manifest=str(manifest), out=str(tmp_path / "out"))


def test_detours_that_are_learned_are_told_of(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvla_a1_ros.learning.material.LED_STEP", "led")
    data = write_dataset(tmp_path / "data", led=(range(3, 5), range(0)))

    def said(**source: Any) -> list[str]:
        mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(data), **source})
        return [each for each in prepared(keys, mixture=str(mixture), out=str(tmp_path / "out")).remarks if "led" in each]

    assert said() == ["data: what is done where 'led' is not 0 (detours) is learned too; `led: led` leaves it out"]
    assert said(led="led") == []
    data = write_dataset(tmp_path / "straight", led=(range(0), range(0)))
    assert said() == []


def test_a_sample_is_told_what_to_do_at_its_own_step(keys: dict[str, Any], tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", changes=(5,))
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(data)})
    ready = prepared(keys, mixture=str(mixture), out=str(tmp_path / "out"))
    views = np.ones(3, bool)
    for frame, words in ((4, "task 0"), (5, "task 0, part 1"), (12, "task 1"), (20, "task 1, part 1")):
        sample, expected = ready.trainer.samples.sample(Draw(0, frame)), ready.tokenizer(words, views)
        assert sample.ids.tolist() == expected.input_ids.tolist() and sample.mask.tolist() == expected.attention_mask.tolist(), frame
