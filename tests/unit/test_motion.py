"""How far parcels have come: targets lie where they are now, the readout learns it, and stays out of what is handed on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY
from training_rig import Quiet, prepared, together, trained, write_all, write_dataset, write_mixture

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.mixture import Draw
from internvla_a1_ros.learning.motion import READOUT, Readout, displaced
from internvla_a1_ros.learning.running import run

ALL = np.array([True, True])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("motion")
    made = write_all(folder)
    write_dataset(folder / "seen", seen=True)
    return made | {"mixture": str(write_mixture(folder / "seen.yaml", {"path": str(folder / "seen")})), "motion": 0.5}


def places(*parcels: tuple[float, float, float]) -> np.ndarray:
    """Two views, of which the second sees none."""
    return np.array([parcels, np.zeros((len(parcels), 3))])


def test_a_target_by_hand() -> None:
    past, now = places((1, 0.40, 0.10), (1, 0.9, 0.9)), places((1, 0.45, 0.30), (1, 0.95, 0.9))
    targets = displaced(past, now, ALL, (2, 4)).numpy()
    assert targets[0, 0, 1] == pytest.approx((1, 1.0, 4.0)) and targets[0, 1, 3] == pytest.approx((1, 1.0, 0.0))
    assert targets[..., 0].sum() == 2 and np.count_nonzero(targets) == 5


@pytest.mark.parametrize(
    ("past", "now", "views"),
    [
        (places((0, 0.4, 0.1)), places((1, 0.4, 0.1)), ALL),
        (places((1, 0.4, 0.1)), places((0, 0.4, 0.1)), ALL),
        (places((1, 0.4, 0.1)), places((1, 0.4, 1.0)), ALL),
        (places((1, 0.4, 0.1)), places((1, 0.4, 0.1)), np.array([False, True])),
    ],
    ids=["not seen then", "not seen now", "its centre outside", "no such view"],
)
def test_what_nobody_can_tell(past: np.ndarray, now: np.ndarray, views: np.ndarray) -> None:
    assert not displaced(past, now, views, (2, 4)).any()


def test_a_readout_reads_both_frames_at_one_place() -> None:
    """Tokens go by view, time, row, column: the error depends on the two of the parcel's place, and on no other."""
    rows, columns = TINY.generation_grid
    targets = torch.zeros(1, TINY.views, rows, columns, 3)
    targets[0, 1, rows - 1, 0] = torch.tensor((1.0, 0.5, -0.5))
    readout, tokens = Readout(TINY), torch.randn(1, TINY.views * 2 * rows * columns, TINY.generation.hidden, requires_grad=True)
    torch.nn.init.normal_(readout.out.weight)
    readout(tokens, targets).backward()
    assert tokens.grad is not None
    touched = tokens.grad.abs().sum(-1).view(TINY.views, 2, rows, columns).nonzero().tolist()
    assert touched == [[1, 0, rows - 1, 0], [1, 1, rows - 1, 0]]
    assert float(readout(tokens, torch.zeros_like(targets)).detach()) == 0.0


def test_the_light_moves_as_it_is_told(keys: dict[str, Any]) -> None:
    """Half a second is five steps of two columns of 32 pixels; at the beginning the first frame stands for the past."""
    samples = prepared(keys).trainer.samples
    for k in (0, 2, 7):
        targets = samples.sample(Draw(0, k)).displaced
        assert targets is not None
        there = targets[..., 0] > 0
        assert there.flatten(1).sum(1).tolist() == [1, 1, 1]
        assert targets[there][:, 1:].numpy() == pytest.approx(np.tile((min(k, 5) * 2 / 32 * 20, 0), (3, 1)), abs=1e-5)


def test_it_is_learned(keys: dict[str, Any], tmp_path: Path) -> None:
    _, reports = trained(keys, out=str(tmp_path / "out"), steps=40, batch=4)
    first, last = (np.mean([report.motion for report in some]) for some in (reports[:6], reports[-6:]))
    assert last < 0.7 * first
    told = reports[-1]
    assert told.loss == pytest.approx(told.action + 0.01 * told.generation + 0.5 * told.motion)
    assert json.loads((tmp_path / "out/log.jsonl").read_text().splitlines()[-1])["motion"] == told.motion
    names = load_file(tmp_path / "out/model.safetensors").keys()
    assert not [name for name in names if READOUT in name]


def test_goes_on_to_the_bit(keys: dict[str, Any], tmp_path: Path) -> None:
    trained(keys, out=str(tmp_path / "whole"), steps=4, ema=0.9, optimiser="muon")
    changes = {"steps": 4, "ema": 0.9, "optimiser": "muon"}
    interrupted = prepared(keys, out=str(tmp_path / "parts"), **changes)
    run(interrupted, Quiet(), stop=lambda: interrupted.trainer.step == 2)
    trained(keys, out=str(tmp_path / "parts"), **changes)
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert f"weight.{READOUT}out.weight" in a


def test_two_halves_are_one_batch(keys: dict[str, Any], tmp_path: Path) -> None:
    """Parcels are not in every picture: the mean is over those of the whole step."""
    data = write_dataset(tmp_path / "seen", seen=True, lengths=(15,))
    mixture = str(write_mixture(tmp_path / "mixture.yaml", {"path": str(data)}))
    _, (whole,) = trained(keys, out=str(tmp_path / "a"), steps=1, batch=4, mixture=mixture)
    _, (halves,) = trained(keys, out=str(tmp_path / "b"), steps=1, batch=2, accumulation=2, mixture=mixture)
    assert halves.motion == pytest.approx(whole.motion, rel=1e-5) and halves.gradient == pytest.approx(whole.gradient, rel=1e-4)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_are_one(keys: dict[str, Any], tmp_path: Path, sharded: bool) -> None:
    changes = {"steps": 2, "threads": 1}
    _, reports = trained(keys, out=str(tmp_path / "one"), **changes)
    together(tmp_path, keys | changes | {"out": str(tmp_path / "two"), "sharded": sharded})
    lines = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    for line, report in zip(lines, reports, strict=True):
        assert line["motion"] == pytest.approx(report.motion, rel=1e-5) and line["gradient"] == pytest.approx(report.gradient, rel=1e-4)


def test_a_motion_that_is_not_finite_is_what_is_named(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(keys, out=str(tmp_path / "out"))
    monkeypatch.setattr(Readout, "forward", lambda self, tokens, targets: tokens.sum() * torch.nan)
    with pytest.raises(ConfigurationError, match=r"step 0: the loss is not finite \(action [0-9.]+, generation [0-9.]+, motion nan\): "):
        ready.trainer.advance()
    assert json.loads((tmp_path / "out/bad_batch.json").read_text())["motion"] == "nan"
    assert load_file(tmp_path / "out/bad_batch.safetensors")["0.displaced"].shape[-1] == 3


def test_a_dataset_that_does_not_say_where_parcels_are(keys: dict[str, Any], tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    with pytest.raises(ConfigurationError, match=r"^motion: got 0.5 with mixture '.*', expected a dataset .* the key 'simulation.seen'$"):
        prepared(keys, mixture=str(write_mixture(tmp_path / "mixture.yaml", {"path": str(data)})))


def test_beside_one_that_does_it_teaches_no_motion(keys: dict[str, Any], tmp_path: Path) -> None:
    """As in a pyramid: the simulation knows where parcels are, a camera does not."""
    seen = Path(keys["mixture"]).parent / "seen"
    both = [{"path": str(folder), "weight": 1} for folder in (write_dataset(tmp_path / "data"), seen)]
    ready = prepared(keys, mixture=str(write_mixture(tmp_path / "mixture.yaml", *both)), out=str(tmp_path / "out"))
    batch, draws = ready.trainer._drawn(0)
    assert [draw.dataset for draw in draws] == [0, 1] and batch.displaced is not None
    assert not batch.displaced[0].any() and batch.displaced[1, ..., 0].any() and batch.parcels == float(batch.displaced[1, ..., 0].sum())
    assert ready.trainer.advance().motion > 0
