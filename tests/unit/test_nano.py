"""The small model we ship: what it is, that it can be made again, and that untrained it stays calm."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import inputs

from internvla_a1_ros.cli.make_nano import make_nano
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.policy.statistics import StatisticsFile

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"


@pytest.fixture(scope="module")
def engine() -> ReferenceEngine:
    return ReferenceEngine(load_model(NANO))


def test_it_is_small(engine: ReferenceEngine) -> None:
    assert (NANO / "model.safetensors").stat().st_size < 12e6
    assert sum(parameter.numel() for parameter in engine.model.parameters()) < 6e6


def test_it_can_be_made_again(tmp_path: Path) -> None:
    for folder, seed in (("same", 0), ("other", 1)):
        make_nano(tmp_path / folder, seed)
    for name in ("config.json", "architecture.json", "preprocessor_config.json", "tokenizer.json", "stats.json", "README.md"):
        if (NANO / "manifest.yaml").read_text().count("trained: false"):
            assert (tmp_path / "same" / name).read_text() == (NANO / name).read_text(), name
    shipped, same, other = (load_file(str(folder / "model.safetensors")) for folder in (NANO, tmp_path / "same", tmp_path / "other"))
    assert shipped.keys() == same.keys()
    for name, weight in shipped.items():
        # The fitted projection goes through a least-squares solver, whose last digits are the machine's own.
        torch.testing.assert_close(same[name], weight, atol=0.02 if "action_out_proj" in name else 0, rtol=0)
    assert any(not torch.equal(other[name], shipped[name]) for name in shipped)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made a folder"):
        make_nano(tmp_path / "file", 0)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_untrained_motions_are_bounded(engine: ReferenceEngine, steps: int) -> None:
    sizes = engine.sizes
    for seed in range(3):
        given = inputs(sizes, seed)
        latents = engine.encode(given["pictures"])
        cache = engine.generate(engine.prefix(given["patches"], given["ids"], given["mask"]), *latents.chunk(2), given["view_mask"])
        actions = engine.flow(cache, 2 * given["state"], given["noise"], make_plan(steps=steps))
        assert actions.abs().max() < 3.5
        assert actions.std() < 0.8 * given["noise"].std(), "noise shrinks on its way to actions"
        assert engine.decode(cache).isfinite().all()


def test_its_statistics_are_of_an_arm_that_hardly_moves() -> None:
    statistics = StatisticsFile(NANO / "stats.json").of("ARX AC One")
    assert statistics.state.width == statistics.action.width == 14
    joints = np.array([i % 7 != 6 for i in range(14)])
    np.testing.assert_allclose(statistics.state.mean[:6], [0, 0.948, 0.858, -0.573, 0, 0])
    assert (statistics.action.mean[joints] == 0).all() and (statistics.action.std[joints] <= 0.04).all()
    assert (statistics.state.minimum[~joints] == -3.4).all() and (statistics.state.maximum[~joints] == 0).all()
    assert json.loads((NANO / "stats.json").read_text()).keys() == {"ARX AC One"}
