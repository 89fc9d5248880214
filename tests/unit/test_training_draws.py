"""What a sample can be made into: several draws of the flow, shifted pictures, no past, a future that does not count."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_rig import Quiet, prepared, trained, weights_of, write_all

from internvla_a1_ros.learning.mixture import Draw
from internvla_a1_ros.learning.running import run
from internvla_a1_ros.learning.samples import Samples, shifted
from internvla_a1_ros.learning.training import generator
from internvla_a1_ros.model.flow import losses


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("draws"))


def test_draws_are_what_they_would_be_one_by_one(keys: dict[str, Any]) -> None:
    trainer = prepared(keys).trainer
    model, sizes, draws = trainer.model, trainer.model.sizes, 3
    batch = Samples.stacked([trainer.samples.sample(Draw(0, frame)) for frame in (2, 9)], sizes.grid).inputs
    noise = torch.randn(2, draws, sizes.chunk, sizes.action_width, generator=generator(1, 0))
    times = torch.tensor([[0.1, 0.5, 0.9], [0.8, 0.3, 0.2]])
    together = losses(model, batch, noise.flatten(0, 1), times.flatten())
    for k in range(draws):
        alone = losses(model, batch, noise[:, k], times[:, k])
        torch.testing.assert_close(together.action.unflatten(0, (2, draws))[:, k], alone.action, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.generation, alone.generation)


def test_draws_and_shifts_go_on_to_the_bit(keys: dict[str, Any], tmp_path: Path) -> None:
    more = {"steps": 4, "draws": 2, "shift_px": 2}
    whole, _ = trained(keys, out=str(tmp_path / "whole"), **more)
    parts = prepared(keys, out=str(tmp_path / "parts"), **more)
    run(parts, Quiet(), stop=lambda: parts.trainer.step == 2)
    again, reports = trained(keys, out=str(tmp_path / "parts"), **more)
    assert len(reports) == 2
    mine, theirs = weights_of(again), weights_of(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (0, -1), (-3, 2)])
def test_a_picture_is_moved_and_its_border_drawn_out(right: int, down: int) -> None:
    pictures = torch.arange(2 * 3 * 5 * 6, dtype=torch.float32).view(2, 3, 5, 6)
    moved = shifted(pictures, torch.tensor([[right, down], [0, 0]]))
    rows, columns = ((torch.arange(n) - by).clamp(0, n - 1) for n, by in ((5, down), (6, right)))
    assert torch.equal(moved[0], pictures[0][:, rows][:, :, columns])
    assert torch.equal(moved[1], pictures[1])


def test_only_what_the_understanding_expert_sees_is_moved(keys: dict[str, Any]) -> None:
    samples = prepared(keys).trainer.samples
    still = samples.sample(Draw(0, 4))
    moved = samples.sample(Draw(0, 4), torch.tensor([[2, 0]] * len(still.pixels)))
    assert not torch.equal(moved.pixels, still.pixels) and torch.equal(moved.latents, still.latents)


def test_without_history_the_past_is_the_present(keys: dict[str, Any], tmp_path: Path) -> None:
    manifest = yaml.safe_load((Path(keys["start"]) / "manifest.yaml").read_text())
    manifest["history"] = {"interval_s": 0}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    usual, without = (prepared(keys, manifest=path).trainer.samples for path in (None, str(tmp_path / "manifest.yaml")))
    a, b = (each.sample(Draw(0, 6)) for each in (usual, without))
    assert torch.equal(b.latents[:, 0], b.latents[:, 1]) and not torch.equal(a.latents[:, 0], a.latents[:, 1])
    assert torch.equal(a.latents[:, 1:], b.latents[:, 1:])  # the future is as far as ever


def test_a_future_that_does_not_count_is_no_part_of_the_loss(keys: dict[str, Any], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    _, (report,) = trained(keys, out=str(tmp_path / "out"), steps=1, lambda_generation=0.0)
    assert report.loss == report.action and report.generation > 0
