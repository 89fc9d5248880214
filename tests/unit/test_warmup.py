"""The second stage at tiny size: targets lie where the parcels are, the tower learns, and only the tower moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from stage_rig import done, ready, write_seen, write_stage
from tiny import TINY, TINY_2B
from training_rig import write_mixture

from internvla_a1_ros.bags.datasets import DatasetError, Episode
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.stages_pictures import Shown
from internvla_a1_ros.learning.warmup import Head, errors
from internvla_a1_ros.learning.warmup_targets import CHANNELS, FIELDS, found, laid_out
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.pictures import patches

PICTURE, CELLS = (128, 128), (8, 8)
BOX = torch.tensor([[16, 0, 96, 128]])  # 160x120 in 128x128
ABOUT = (0.5, 0.6, -0.8, 0.25, 0.1, 0.05, 0.04)  # distance, turn, label, size
STILL = torch.tensor([0])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_stage(tmp_path_factory.mktemp("stage"), "vision")


def one(u: float, v: float, *, distance_m: float = 0.5) -> np.ndarray:
    seen = np.zeros((1, 2, FIELDS))
    seen[0, 1] = (1, u, v, distance_m, *ABOUT[1:])
    return seen


def test_a_target_by_hand() -> None:
    targets = laid_out(one(0.5 + 4 / 128, 0.0 + 2 / 96), BOX, STILL, STILL, PICTURE, CELLS)[0]
    row, column = torch.nonzero(targets[..., 0]).squeeze(0).tolist()
    # 68 pixels from the left is 4 into the fifth cell; 16 + 2 from above is 2 into the second.
    assert (row, column) == (1, 4) and targets.count_nonzero() == len(CHANNELS)
    expected = (1, 4 / 16 - 0.5, 2 / 16 - 0.5, 3 * (0.5 - 0.4), 0.6, -0.8, 0.25, 1.0, 0.5, 0.4, 5 * 4 / 128, 5 * (2 / 96 - 0.5))
    assert targets[row, column].tolist() == pytest.approx(expected, abs=1e-6)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(-30, 30), st.integers(-30, 30))
def test_targets_move_with_the_picture(u: float, v: float, down: int, right: int) -> None:
    x, y = u * 128 + right, v * 96 + down
    targets = laid_out(one(u, v), BOX, torch.tensor([down]), torch.tensor([right]), PICTURE, CELLS)[0].double()
    where = torch.nonzero(targets[..., 0])
    if not (0 <= x < 128 and 0 <= y < 96):
        assert len(where) == 0
        return
    ((row, column),) = where.tolist()
    assert (column + 0.5 + float(targets[row, column, 1])) * 16 == pytest.approx(x, abs=1e-3)
    assert (row + 0.5 + float(targets[row, column, 2])) * 16 == pytest.approx(16 + y, abs=1e-3)


@given(st.integers(0, 127), st.integers(0, 95), st.integers(-20, 20), st.integers(-20, 20))
def test_what_is_shown_is_where_the_target_says(column: int, row: int, down: int, right: int) -> None:
    picture = torch.zeros(1, *PICTURE, 3, dtype=torch.uint8)
    picture[0, 16 + row, column] = 255
    by_down, by_right = torch.tensor([down]), torch.tensor([right])
    moved = Shown(picture, BOX, np.zeros((1, 3), np.int64)).shifted(by_down, by_right)[0].amax(0)
    targets = laid_out(one((column + 0.5) / 128, (row + 0.5) / 96), BOX, by_down, by_right, PICTURE, CELLS)[0]
    for r, c in torch.nonzero(targets[..., 0]).tolist():
        x, y = (c + 0.5 + float(targets[r, c, 1])) * 16, (r + 0.5 + float(targets[r, c, 2])) * 16
        assert moved[int(y), int(x)] == 1


def test_the_nearer_of_two_counts_and_what_is_not_in_view_does_not() -> None:
    seen = np.concatenate((one(0.5, 0.5, distance_m=0.7), one(0.5, 0.5, distance_m=0.3)), 1)
    targets = laid_out(seen, BOX, STILL, STILL, PICTURE, CELLS)[0]
    assert targets[..., 0].sum() == 1 and targets[targets[..., 0] > 0][0, 3] == pytest.approx(3 * (0.3 - 0.4))
    seen[..., 0] = 0
    assert laid_out(seen, BOX, STILL, STILL, PICTURE, CELLS).count_nonzero() == 0


def test_the_heads_cells_lie_as_the_tokens_do() -> None:
    head = Head(4, (3, 2), 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.norm = torch.nn.Identity()  # type: ignore[assignment]
        head.out.weight.zero_()
        head.out.weight.view(4, len(CHANNELS), 4)[:, 0, 0] = 1  # the object's logit of each cell is the token's first number
        head.out.bias.view(4, len(CHANNELS))[:, 0] = torch.tensor([0.0, 0.1, 0.2, 0.3])
        tokens = torch.zeros(1, 6, 4)
        tokens[0, :, 0] = torch.arange(6)
        cells = head(tokens)[0, ..., 0]
    row, column = np.mgrid[0:6, 0:4]
    expected = 2 * (row // 2) + column // 2 + 0.2 * (row % 2) + 0.1 * (column % 2)
    assert np.allclose(cells.numpy(), expected)


def test_what_is_found() -> None:
    targets = laid_out(one(0.52, 0.5), BOX, STILL, STILL, PICTURE, CELLS)
    answers = targets.clone()
    answers[..., 0] = 20 * targets[..., 0] - 10
    assert found(answers, targets, PICTURE) == pytest.approx(
        {"found": 1, "false_a_picture": 0, "centre_px": 0, "beside_m": 0, "phi_deg": 0, "distance_m": 0, "label": 0}, abs=1e-5
    )
    objects, rest = errors(answers, targets)
    assert objects < 0.01 and rest < 1e-6
    # The neighbour says it, with a centre that is one cell back: just as good.
    beside = answers.roll(1, 2)
    beside[..., 1] -= 1
    assert found(beside, targets, PICTURE)["centre_px"] == pytest.approx(0, abs=1e-4)
    turned = answers.clone()
    turned[..., 4:6] *= -1  # half a turn of 2 phi
    assert found(turned, targets, PICTURE)["phi_deg"] == pytest.approx(90, abs=1e-3)
    away = answers.roll(4, 1)
    told = found(away, targets, PICTURE)
    assert told == {"found": 0, "false_a_picture": 1}  # no error of what was not found


def test_it_learns_and_only_the_tower_moves(keys: dict[str, Any], tmp_path: Path) -> None:
    prepared, reports = done(keys, out=str(tmp_path / "out"), steps=150, batch=12, precision="float32", ema=0.9, shift_px=0)
    assert np.mean([r.loss for r in reports[-5:]]) < 0.6 * np.mean([r.loss for r in reports[:5]])
    assert reports[-1].measured["found"] > 0.8 and reports[-1].measured["centre_px"] < 3  # an episode that it never saw
    before, after = load_file(Path(keys["start"]) / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and moved and all("visual" in name or "vision" in name for name in moved)
    assert {name for name in prepared.course.weights if name.startswith("head.")}


@pytest.mark.parametrize("tiny", [TINY, TINY_2B], ids=["3b", "2b"])
def test_tokens_are_handed_out_of_one_size(tmp_path: Path, tiny: Architecture) -> None:
    """Whatever they had in common; what tells them apart is as it was."""
    prepared, _ = done(write_stage(tmp_path, "vision", tiny))
    lesson: Any = prepared.course.lesson
    shown = prepared.course.gallery.some(1024, kept_back=False)
    pictures = patches(shown.unmoved(), prepared.model.sizes)
    grid = prepared.model.sizes.grid
    with torch.no_grad(), prepared.course.averaged():
        raw = prepared.model.understanding.vision(pictures, grid).double()
        after = load_model(tmp_path / "out").understanding.vision(pictures, grid).double()
        assert lesson.finished().keys() <= lesson.weights.keys()
    assert after.mean((0, 1)).abs().max() < 1e-4 and float(after.square().mean()) == pytest.approx(1, abs=1e-3)
    assert torch.allclose(after, (raw - raw.mean((0, 1))) / raw.var((0, 1), correction=0).mean().sqrt(), atol=1e-4)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_goes_on_to_the_bit(keys: dict[str, Any], tmp_path: Path, optimiser: str) -> None:
    done(keys, out=str(tmp_path / "whole"), steps=4, optimiser=optimiser)
    done(keys, lambda stage: stage.course.step == 2, out=str(tmp_path / "parts"), steps=4, optimiser=optimiser)
    again, _ = done(keys, out=str(tmp_path / "parts"), steps=4, optimiser=optimiser)
    assert again.resumed == 2
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_dataset_that_does_not_say_what_is_seen(keys: dict[str, Any], tmp_path: Path) -> None:
    write_seen(tmp_path / "data", "simulation.sen")
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(tmp_path / "data")})
    with pytest.raises(ConfigurationError, match=r"simulation.seen.*did you mean 'simulation.sen'"):
        ready(keys, mixture=str(mixture), out=str(tmp_path / "out"))


def test_an_episode_whose_table_cannot_be_read_is_named_and_left_out(
    keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ready(keys, out=str(tmp_path / "whole")).course.gallery
    read = Episode.table

    def table(self: Episode, names: Any) -> Any:
        if self.index == 0:
            raise DatasetError(f"'{self.index}': cannot be read as parquet")
        return read(self, names)

    monkeypatch.setattr(Episode, "table", table)
    gallery = ready(keys, out=str(tmp_path / "out")).course.gallery
    stills = gallery.stills[0]
    assert stills.left_out == (*whole.stills[0].left_out, "'0': cannot be read as parquet")
    assert 0 < gallery.counts[0] < whole.counts[0]
    drawn = [stills.numbers(2, kept_back) for kept_back in (False, True)]
    assert 0 not in stills.places[np.concatenate(drawn), 0]


def test_cells_follow_the_sizes(keys: dict[str, Any], tmp_path: Path) -> None:
    prepared = ready(keys, out=str(tmp_path / "out"), cells=3)
    lesson: Any = prepared.course.lesson
    shown = prepared.course.gallery.some(2, kept_back=True)
    still = torch.zeros(2, dtype=torch.long)
    answers = lesson._answers(shown.unmoved())
    rows, columns = TINY.token_grid
    assert answers.shape == lesson._targets(shown, still, still).shape == (2, 3 * rows, 3 * columns, len(CHANNELS))
