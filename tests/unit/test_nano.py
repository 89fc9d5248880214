"""The small model we ship, and the one that is drawn: that it can be made again, and that untrained it stays calm."""

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
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.simulation.trial import PICK

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "nano"
DRAWN = find_checkpoint("nano")


@pytest.fixture(scope="module")
def engine() -> ReferenceEngine:
    return ReferenceEngine(load_model(DRAWN))


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 12e6
    assert sum(parameter.numel() for parameter in load_model(SHIPPED).parameters()) < 6e6


def test_what_we_ship_was_taught_and_says_how() -> None:
    manifest, card = load_manifest(SHIPPED), (SHIPPED / "README.md").read_text()
    assert manifest.trained and manifest.name == "nano"
    assert set(manifest.instructions) >= {*PICK.values(), *(f"Place the parcel in the {side} bin." for side in ("left", "right"))}
    for heading in ("## Data", "## Recipe", "## Figures", "## Licence"):
        assert heading in card
    drawn, shipped = load_file(DRAWN / "model.safetensors"), load_file(SHIPPED / "model.safetensors")
    assert {name: weight.shape for name, weight in drawn.items()} == {name: weight.shape for name, weight in shipped.items()}


def test_it_can_be_drawn_again(tmp_path: Path) -> None:
    for folder, seed in (("same", 0), ("other", 1)):
        make_nano(tmp_path / folder, seed)
    for name in ("config.json", "architecture.json", "preprocessor_config.json", "tokenizer.json", "stats.json", "README.md"):
        assert (tmp_path / "same" / name).read_text() == (DRAWN / name).read_text(), name
    drawn, same, other = (load_file(str(folder / "model.safetensors")) for folder in (DRAWN, tmp_path / "same", tmp_path / "other"))
    assert drawn.keys() == same.keys() and all(torch.equal(same[name], drawn[name]) for name in drawn)
    assert any(not torch.equal(other[name], drawn[name]) for name in drawn)
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "same").iterdir()}
    assert len(set(modes.values())) == 1, f"who may read one of its files may read all: {modes}"


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
    statistics = StatisticsFile(DRAWN / "stats.json").of("ARX AC One")
    assert statistics.state.width == statistics.action.width == 14
    joints = np.array([i % 7 != 6 for i in range(14)])
    np.testing.assert_allclose(statistics.state.mean[:6], [0, 0.948, 0.858, -0.573, 0, 0])
    assert (statistics.action.mean[joints] == 0).all() and (statistics.action.std[joints] <= 0.04).all()
    assert (statistics.state.minimum[~joints] == -3.4).all() and (statistics.state.maximum[~joints] == 0).all()
    assert json.loads((DRAWN / "stats.json").read_text()).keys() == {"ARX AC One"}
