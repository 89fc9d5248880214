"""The imagined future against a copy of the present, on a dataset made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_rig import FPS, LENGTHS, write_all, write_dataset

from internvla_a1_ros.bags.datasets import DatasetError
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation import imagined
from internvla_a1_ros.evaluation.imagined import ERRORS, measure, summarise

AWAY = round(0.5 * FPS)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagined")
    write_all(folder)
    return folder


def column(errors: np.ndarray, name: str) -> np.ndarray:
    return errors[:, :, ERRORS.index(name)]


def test_every_moment_with_a_future_is_measured(rig: Path) -> None:
    measured = measure(rig / "data", rig / "start", every=1, most=500)
    assert measured.errors.shape == (sum(n - AWAY for n in LENGTHS), 3, len(ERRORS))
    assert measured.episodes.tolist() == [0] * (LENGTHS[0] - AWAY) + [1] * (LENGTHS[1] - AWAY)
    assert np.isfinite(measured.errors).all() and (measured.errors >= 0).all()
    # The bar grows: what is to come differs from what is, in each view.
    assert (column(measured.errors, "copied") > 1e-3).all() and (column(measured.errors, "latents_copied") > 0).all()


@pytest.mark.parametrize(("time", "ratio"), [(1, 1.0), (2, 0.0)])
def test_who_imagines_the_present_is_no_better_than_a_copy_and_who_knows_the_future_has_no_error(
    rig: Path, monkeypatch: pytest.MonkeyPatch, time: int, ratio: float
) -> None:
    monkeypatch.setattr(imagined, "imagined_latents", lambda _model, batch: batch.inputs.latents[:, :, time])
    measured = measure(rig / "data", rig / "start", every=2, most=500)
    for view in ("all", "head", "left", "right"):
        told = summarise(measured)["views"][view]["ratios"]
        for name in ("latents", "decoded"):
            assert told[name]["ratio"] == pytest.approx(ratio, abs=1e-6)
            assert told[name]["interval"] == pytest.approx([ratio, ratio], abs=1e-6)
    if time == 2:  # what is left is the autoencoder's own loss
        assert column(measured.errors, "imagined") == pytest.approx(column(measured.errors, "reconstructed"))


def test_many_moments_are_thinned_out_evenly(rig: Path) -> None:
    measured = measure(rig / "data", rig / "start", every=1, most=3)
    assert len(measured.episodes) == 3 and set(measured.episodes) == {0, 1}


def test_what_somebody_else_does_next_is_not_asked_for(rig: Path, tmp_path: Path) -> None:
    """Somebody else has the arms in steps 4 to 6 of one episode and the first two of the other: two moments have a future of their own."""
    write_dataset(tmp_path / "led", led=(range(4, 7), range(0, 2)))
    own = measure(tmp_path / "led", rig / "start", every=1, most=500, led="led")
    every = measure(tmp_path / "led", rig / "start", every=1, most=500)
    assert own.episodes.tolist() == [1, 1] and len(every.episodes) == sum(n - AWAY for n in LENGTHS)
    assert np.array_equal(own.errors, every.errors[-2:])


def test_what_does_not_decode_is_named_and_left_out(rig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = imagined.Decoded.at

    def broken(self: Any, number: int, steps: Any) -> Any:
        if number >= first:
            raise DatasetError(f"episode {number}: the video is cut short")
        return at(self, number, steps)

    monkeypatch.setattr(imagined.Decoded, "at", broken)
    first = 1
    measured = measure(rig / "data", rig / "start", every=1, most=500)
    assert measured.episodes.tolist() == [0] * (LENGTHS[0] - AWAY) and len(measured.errors) == len(measured.episodes)
    assert measured.left_out == ("episode 1: the video is cut short",)
    first = 0
    with pytest.raises(ConfigurationError, match="no moment can be decoded, the first: episode 0: the video is cut short"):
        measure(rig / "data", rig / "start", every=1, most=500)


def test_the_command_prints_and_writes(rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep/imagined.json"
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "imagined", str(rig / "data"), "--model", str(rig / "start"), "--every", "3", "--out", str(out)])
    assert "copied" in capsys.readouterr().out
    told = json.loads(out.read_text())
    assert told["episodes"] == 2 and set(told["views"]) == {"all", "head", "left", "right"}
    assert set(told["views"]["all"]["ratios"]) == {"latents", "pixels", "decoded"}
    assert [path.name for path in out.parent.iterdir()] == ["imagined.json"]


def test_what_was_measured_is_printed_before_it_cannot_be_written(rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        words = ["evaluate", "imagined", str(rig / "data"), "--model", str(rig / "start"), "--every", "3"]
        main([*words, "--out", str(tmp_path / "file/x.json")])
    said = capsys.readouterr()
    assert "copied" in said.out and len(said.err.strip().splitlines()) == 1 and "x.json" in said.err


def test_episodes_without_a_future_are_one_sentence(rig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = imagined.load_manifest(rig / "start")
    later = manifest.model_copy(update={"history": manifest.history.model_copy(update={"ahead_s": max(LENGTHS) / FPS})})
    monkeypatch.setattr(imagined, "load_manifest", lambda _: later)
    with pytest.raises(ConfigurationError, match=f"longest episode has {max(LENGTHS)} frames, expected more than {max(LENGTHS)}"):
        measure(rig / "data", rig / "start", every=1, most=9)
