"""Samples that begin some time after an episode's start: what lies before is only seen, as the past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_rig import FPS, LENGTHS, prepared, write_all, write_mixture

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.mixture import Draw

AFTER_S = 0.5  # five frames here, and the past is as far


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("after"))


def of(keys: dict[str, Any], folder: Path, **source: Any) -> Any:
    """Return the samples of the same dataset, otherwise drawn from."""
    mixture = write_mixture(folder / "m.yaml", {"path": str(Path(keys["mixture"]).with_name("data")), **source})
    return prepared(keys, mixture=str(mixture)).trainer.samples


def test_the_same_samples_but_for_the_first(keys: dict[str, Any], tmp_path: Path) -> None:
    every = of(keys, tmp_path)
    made = {path: path.stat().st_mtime_ns for path in Path(keys["cache"]).rglob("*.npy")}
    later = of(keys, tmp_path, after_s=AFTER_S)
    # Pictures that are only a past are kept too, so that one cache serves both.
    assert {path: path.stat().st_mtime_ns for path in Path(keys["cache"]).rglob("*.npy")} == made
    first = round(AFTER_S * FPS)
    assert [later.place(Draw(0, k)) for k in range(later.materials[0].frames)] == [
        (number, step) for number, length in enumerate(LENGTHS) for step in range(first, length)
    ]
    for frame in range(later.materials[0].frames):
        number, step = later.place(Draw(0, frame))
        a, b = later.sample(Draw(0, frame)), every.sample(Draw(0, sum(LENGTHS[:number]) + step))
        assert torch.equal(a.latents, b.latents) and torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.state, b.state) and torch.equal(a.actions, b.actions) and torch.equal(a.inside, b.inside)
    # The past of the very first sample is the episode's first picture, not its own.
    assert torch.equal(later.sample(Draw(0, 0)).latents[:, 0], every.sample(Draw(0, 0)).latents[:, 1])
    assert not torch.equal(later.sample(Draw(0, 0)).latents[:, 0], later.sample(Draw(0, 0)).latents[:, 1])


@pytest.mark.parametrize(("after_s", "every", "steps"), [(0.0, 5, [0, 5, 10]), (0.1, 5, [5, 10]), (0.5, 5, [5, 10]), (0.6, 5, [10])])
def test_it_is_rounded_up_to_every(keys: dict[str, Any], tmp_path: Path, after_s: float, every: int, steps: list[int]) -> None:
    samples = of(keys, tmp_path, after_s=after_s, every=every)
    material = samples.materials[0]
    assert list(material.steps(0)) == steps and list(material.shown(0)) == [0, 5, 10]
    # Cached rows are found at every step that may be shown.
    sample = samples.sample(Draw(0, 0))
    assert np.isfinite(sample.latents.numpy()).all() and samples.place(Draw(0, 0)) == (0, steps[0])


def test_an_episode_that_is_over_before_is_left_out(keys: dict[str, Any], tmp_path: Path) -> None:
    material = of(keys, tmp_path, after_s=1.0).materials[0]
    assert [episode.index for episode in material.episodes] == [0]
    assert "got 9 steps, expected one from step 10 on (after_s)" in material.left_out[0]
    with pytest.raises(ConfigurationError, match="2 episodes cannot be used, first: .*got 12 steps, expected one from step 20 on"):
        of(keys, tmp_path, after_s=2.0)
