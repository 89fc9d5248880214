"""The stage that teaches the generation expert motion, at tiny size: pairs, their targets, what it learns and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stage_rig import LENGTH, done, ready, write_stage
from tiny import TINY, TINY_2B

from internvla_a1_ros.learning.warmup_targets import CHANNELS, FIELDS, MOVED, followed, laid_out
from internvla_a1_ros.model.sizes import Architecture

PICTURE, CELLS = (96, 128), (6, 8)
BOX = torch.tensor([[0, 0, 96, 128]])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_stage(tmp_path_factory.mktemp("stage"), "motion", every=1, apart=2)


def one(u: float, v: float) -> np.ndarray:
    seen = np.zeros((1, 2, FIELDS))
    seen[0, 1] = (1, u, v, 0.5, 1, 0, 0, 0.1, 0.05, 0.04)
    return seen


def px(pixels: int) -> torch.Tensor:
    return torch.tensor([pixels])


@pytest.mark.parametrize(("down", "right"), [((0, 0), (0, 0)), ((3, -2), (-4, 5))])
def test_how_far_it_moved_by_hand(down: tuple[int, int], right: tuple[int, int]) -> None:
    """From (40, 30) to (46, 27), and both pictures moved by themselves."""
    here, there = one(40 / 128, 30 / 96), one(46 / 128, 27 / 96)
    targets = laid_out(here, BOX, px(down[0]), px(right[0]), PICTURE, CELLS, (there, px(down[1]), px(right[1])))[0]
    ((row, column),) = torch.nonzero(targets[..., 0]).tolist()
    assert (row, column) == ((30 + down[0]) // 16, (40 + right[0]) // 16) and targets.shape[2] == len(CHANNELS) + len(MOVED)
    moved = (1, 0.2 * (6 + right[1] - right[0]), 0.2 * (-3 + down[1] - down[0]))
    assert targets[row, column, -3:].tolist() == pytest.approx(moved, abs=1e-5)
    assert torch.equal(targets[..., : len(CHANNELS)], laid_out(here, BOX, px(down[0]), px(right[0]), PICTURE, CELLS)[0])


def test_what_is_not_in_the_other_picture_moved_nowhere() -> None:
    for other, shift in ((np.zeros((1, 2, FIELDS)), 0), (one(0.99, 0.5), 8)):
        targets = laid_out(one(0.5, 0.5), BOX, px(0), px(0), PICTURE, CELLS, (other, px(0), px(shift)))
        assert float(targets[..., 0].sum()) == 1 and targets[..., -3:].count_nonzero() == 0


def test_what_is_explained() -> None:
    targets = torch.zeros(1, 1, 3, 15)
    targets[..., 0], targets[..., -3] = 1, torch.tensor([1.0, 1.0, 0.0])
    targets[0, 0, :, -2] = 0.2 * torch.tensor([2.0, 4.0, 100.0])  # the third is not in the other picture
    assert followed(targets, targets) == {"moved_px": 0.0, "moved_explained": 1.0}
    off = targets.clone()
    off[..., -1] += 0.2 * 1.0  # a pixel down
    assert followed(off, targets) == pytest.approx({"moved_px": 1.0, "moved_explained": 0.0}, abs=1e-5)
    assert followed(off[:, :, 2:], targets[:, :, 2:]) == {}


def test_the_picture_before(keys: dict[str, Any], tmp_path: Path) -> None:
    """Two stills earlier in the same episode and view, or as the episode began."""
    gallery = ready(keys, out=str(tmp_path / "out")).course.gallery
    shown = gallery.some(10_000, kept_back=False)
    earlier, stills = gallery.before(shown, 2), gallery.stills[0]
    for (_, number, view), (_, former, same) in zip(shown.origin, earlier.origin, strict=True):
        (episode, step), (as_well, past) = stills.places[number], stills.places[former]
        assert view == same and episode == as_well and past == max(0, step - 2)
    assert {int(step) for _, step in stills.places} == set(range(LENGTH))
    assert np.array_equal(earlier.pictures[0], stills.pictures[earlier.origin[0][1], earlier.origin[0][2]])


def test_it_learns_and_only_the_generation_expert_moves(keys: dict[str, Any], tmp_path: Path) -> None:
    prepared, reports = done(keys, out=str(tmp_path / "out"), steps=200, batch=12, ema=0.9, shift_px=1)
    moved = [report.parts["moved"] for report in reports]
    assert np.mean([r.loss for r in reports[-5:]]) < 0.7 * np.mean([r.loss for r in reports[:5]])
    assert np.mean(moved[-20:]) < 0.95 * np.mean(moved[:20])
    assert reports[-1].measured["found"] > 0.3 and "moved_explained" in reports[-1].measured
    before, after = load_file(Path(keys["start"]) / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed and all("gen_expert" in name or "cosmos_in_proj" in name or "downsample_conv" in name for name in changed)


@pytest.mark.parametrize("tiny", [TINY, TINY_2B], ids=["3b", "2b"])
def test_all_that_is_reached_moves_and_nothing_else(tmp_path: Path, tiny: Architecture) -> None:
    prepared = ready(write_stage(tmp_path, "motion", tiny, every=1))
    for weight in prepared.model.parameters():
        weight.requires_grad_(True)
    loss, _ = prepared.course.lesson.loss(prepared.course.gallery.some(6, kept_back=False), torch.Generator().manual_seed(0))
    loss.backward()
    reached = {name for name, weight in prepared.model.named_parameters() if weight.grad is not None}
    assert reached == {name for name in prepared.course.weights if not name.startswith("motion.")}


def test_goes_on_to_the_bit(keys: dict[str, Any], tmp_path: Path) -> None:
    done(keys, out=str(tmp_path / "whole"), steps=4)
    done(keys, lambda stage: stage.course.step == 2, out=str(tmp_path / "parts"), steps=4)
    again, _ = done(keys, out=str(tmp_path / "parts"), steps=4)
    assert again.resumed == 2
    a, b = (load_file(tmp_path / name / "training.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
