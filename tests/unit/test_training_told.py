"""What a run says of itself: the load table, remarks, TensorBoard; and what comes along by name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from training_rig import prepared, trained, write_all, write_dataset, write_mixture

from internvla_a1_ros.cli.train import train
from internvla_a1_ros.cli.train_tables import tell_load
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning import board
from internvla_a1_ros.learning.balance import assign, effective_weights
from internvla_a1_ros.learning.mixture import Mixture, Sampler, find_mixture, sampling_weights
from internvla_a1_ros.learning.running import read_recipe, start_of
from internvla_a1_ros.learning.team import Team
from internvla_a1_ros.robots.document import read_document

# MODEL.md 5: millions of frames and sampling weights, in the order of the files.
PAPER = {
    "pretraining_533m": ([96, 122.5, 90.5, 16, 208], [0.18, 0.23, 0.17, 0.03, 0.39]),
    "pretraining_692m": ([396, 17, 206, 5, 68], [0.64, 0.08, 0.18, 0.02, 0.08]),
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("told"))


def test_the_recipe_in_the_help_is_one(tmp_path: Path) -> None:
    assert train.__doc__ is not None
    written = tmp_path / "recipe.yaml"
    written.write_text(train.__doc__.partition("\b\n")[2], encoding="utf-8")
    recipe = read_recipe(written)
    assert (recipe.name, recipe.start, recipe.steps) == ("parcels", "nano", 20000)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_mixtures_weigh_as_in_the_paper(name: str) -> None:
    mixture = read_document(find_mixture(name), Mixture)
    millions, weights = PAPER[name]
    assert mixture.name == name and sum(millions) == pytest.approx(int(name[-4:-1]))
    assert sampling_weights(mixture, [int(m * 1e6) for m in millions]) == pytest.approx(weights, abs=1e-9)
    assert not any(Path(source.path).is_absolute() for source in mixture.datasets)


def test_video_alone_in_the_papers_mixture() -> None:
    mixture = read_document(find_mixture("pretraining_692m"), Mixture)
    (video,) = (source for source in mixture.datasets if not source.actions)
    assert video.path == "EgoDex" and video.cameras == {"head": "observation.image", "left": "", "right": ""}


def test_names_and_paths(tmp_path: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'pretraining_533m'.*come along: pretraining_533m, pretraining_692m"):
        find_mixture("pretrainng_533m")
    assert find_mixture(keys["mixture"]) == Path(keys["mixture"])
    ready = prepared(keys, out=str(tmp_path / "out"))
    assert start_of(ready.recipe.model_copy(update={"start": "nano"})).name == "nano"
    with pytest.raises(ConfigurationError, match="did you mean 'nano'"):
        prepared(keys, start="nani")
    config = tmp_path / "train.yaml"
    config.write_text("{name: x, start: nano, mixture: m.yaml, steps: 1, out: models/nano}")
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(ConfigurationError, match="out: got the start 'nano', expected another folder"):
        read_recipe(config)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 5), st.integers(20, 200), st.data())
@settings(deadline=None, max_examples=40)
def test_what_workers_draw_is_what_the_table_says(sizes: list[int], workers: int, draws: int, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=len(sizes), max_size=len(sizes)))
    dealt = assign(sizes, workers)
    samplers = [Sampler(share, sizes, weights, seed=k) for k, share in enumerate(dealt.shares)]
    drawn = np.bincount([sampler.draw().dataset for sampler in samplers for _ in range(draws)], minlength=len(sizes))
    away = np.abs(drawn / (draws * workers) - effective_weights(dealt, weights))
    assert away.max() <= len(sizes) / draws


def test_by_frames_small_datasets_are_not_gone_through_faster() -> None:
    """After as many draws as there are frames, each dataset was gone through about once, whoever holds it."""
    sizes = [400, 30, 50, 300, 70, 20]
    dealt = assign(sizes, 2)
    samplers = [Sampler(share, sizes, [float(n) for n in sizes], seed=k) for k, share in enumerate(dealt.shares)]
    drawn = np.bincount([sampler.draw().dataset for sampler in samplers for _ in range(sum(sizes) // 2)], minlength=len(sizes))
    assert drawn / sizes == pytest.approx(np.ones(len(sizes)), rel=0.05)


def test_the_load_table(keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_dataset(tmp_path / "more", lengths=(10,))
    data = Path(keys["mixture"]).parent / "data"
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(data), "weight": 1}, {"path": str(other), "weight": 3})
    ready = prepared(keys, mixture=str(mixture), workers=2, out=str(tmp_path / "out"))
    assert ready.asked == (0.25, 0.75) and ready.weights == (0.5, 0.5)
    tell_load(ready, Console(width=160))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["worker", "dataset", "episodes", "frames", "of", "all", "left", "out", "asked", "drawn"]
    assert ["0", "data", "2", "21", "67.7%", "0", "25.0%", "50.0%"] in lines and ["0", "together", "21", "67.7%"] in lines
    assert ["1", "more", "1", "10", "32.3%", "0", "75.0%", "50.0%"] in lines
    assert any("drawn against asked: 25.0% apart" in " ".join(line) for line in lines)


def test_more_workers_than_datasets_is_said(keys: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(keys, workers=3, out=str(tmp_path / "out"))
    assert any("3 workers for 1 datasets: the list is gone through again" in sentence for sentence in ready.remarks)
    assert not any("workers" in sentence for sentence in prepared(keys, out=str(tmp_path / "two")).remarks)


def test_tensorboard_shows_each_step_once(keys: dict[str, Any], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed")
    out = tmp_path / "out"
    trained(keys, out=str(out), steps=2)
    shutil.copyfile(out / "training.safetensors", tmp_path / "kept")
    trained(keys, out=str(out), steps=4)
    shutil.copyfile(tmp_path / "kept", out / "training.safetensors")  # a run that ended before its next save
    _, reports = trained(keys, out=str(out), steps=5)
    shown = accumulator.EventAccumulator(str(out / board.FOLDER)).Reload()
    scalars = shown.Scalars("loss/total")
    assert [scalar.step for scalar in scalars] == [1, 2, 3, 4, 5]
    assert [scalar.value for scalar in scalars[2:]] == pytest.approx([report.loss for report in reports])
    assert {"learning_rate", "gradient_norm", "samples_per_second", "loss/action", "loss/future"} <= set(shown.Tags()["scalars"])


def test_without_tensorboard_it_is_said(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "installed", lambda: False)
    ready, _ = trained(keys, out=str(tmp_path / "out"), steps=1)
    assert any("no TensorBoard" in sentence for sentence in ready.remarks) and not (tmp_path / "out" / board.FOLDER).exists()


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="device: got 'cuda', but torch finds no CUDA device"):
        Team.joined({}, "cuda")
    assert Team.joined({}, "auto").device.type == "cpu"
    assert replace(Team(), rank=1).leads is False
