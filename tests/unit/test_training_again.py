"""The same command again: only with what the run was begun with, one at a time, and with nothing done for nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_rig import Quiet, prepared, trained, write_all, write_dataset, write_mixture

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.alone import alone
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.cache import made_whole
from internvla_a1_ros.learning.checkpoints import at_work
from internvla_a1_ros.learning.recipe import Recipe
from internvla_a1_ros.learning.running import prepare, run


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    return write_all(tmp_path)


def refused(text: str, keys: dict[str, Any], **changes: Any) -> None:
    with pytest.raises(ConfigurationError, match=text) as told:
        prepared(keys, **changes)
    assert "\n" not in str(told.value)


# ---- with what it was begun with


def test_a_mixture_that_was_edited(keys: dict[str, Any], tmp_path: Path) -> None:
    trained(keys, steps=1)
    mixture = Path(keys["mixture"])
    before = mixture.read_text()
    write_mixture(mixture, {"path": str(tmp_path / "data"), "one_task": True})
    refused(r"'.*/out': what `mixture` names changed since its run was begun: choose another `out` or remove it", keys)
    mixture.write_text(f"# a comment is no change\n{before}")
    assert prepared(keys).resumed == 1


def test_statistics_and_a_manifest_that_were_made_anew(keys: dict[str, Any], tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.write_bytes((tmp_path / "start/manifest.yaml").read_bytes())
    keys |= {"manifest": str(manifest)}
    trained(keys, steps=1)
    stats = tmp_path / "start/stats.json"
    before = stats.read_bytes()
    stats.write_bytes(before.replace(b"0.", b"1.", 1))
    refused("what `stats` names changed", keys)
    stats.write_bytes(before)
    table = yaml.safe_load(manifest.read_text())
    manifest.write_text(yaml.safe_dump(table | {"instructions": ["another"]}))
    refused("what `manifest` names changed", keys)


def test_a_dataset_that_was_recorded_again(keys: dict[str, Any], tmp_path: Path) -> None:
    """As long as before, and with the same numbers: only its pictures are others."""
    trained(keys, steps=1)
    told = tmp_path / "data/meta/stats.json"
    before = told.read_bytes()
    table = json.loads(before)
    camera = next(key for key in table if "images" in key)
    table[camera]["mean"] = (np.asarray(table[camera]["mean"]) + 0.1).tolist()
    told.write_text(json.dumps(table))
    refused("dataset '.*/data' changed since its run was begun: choose another `out` or remove it", keys)
    told.write_bytes(before)
    assert prepared(keys).resumed == 1


def test_a_tower_that_was_taught_again(keys: dict[str, Any], tmp_path: Path) -> None:
    """Weights that move are the snapshot's; those that do not are the start's, which must be what they were."""
    trained(keys, steps=1, freeze="vision")
    place = tmp_path / "start/model.safetensors"
    with safe_open(place, "pt") as file:
        about = file.metadata()
    weights = load_file(place)
    moving = next(name for name in weights if name.endswith("action_out_proj.weight"))
    still = next(name for name in weights if "visual" in name or "vision" in name)
    save_file(weights | {moving: weights[moving] + 1}, place, about)
    assert prepared(keys, freeze="vision").resumed == 1
    save_file(weights | {still: weights[still] + 1}, place, about)
    refused("the weights of `start` that stay as they are changed since its run was begun", keys, freeze="vision")


def test_a_run_from_before_a_key_was_there(keys: dict[str, Any], tmp_path: Path) -> None:
    """It was as if it had its default; what a run never said of its origin is believed."""
    trained(keys, steps=1)
    place = tmp_path / "out/training.safetensors"
    with safe_open(place, "pt") as file:
        told = json.loads(file.metadata()["told"])
    tensors = load_file(place)
    told["recipe"] = {key: value for key, value in told["recipe"].items() if key not in ("motion", "optimiser", "betas")}
    save_file(tensors, place, {"told": json.dumps({key: value for key, value in told.items() if key not in ("origin", "left_out")})})
    assert prepared(keys).resumed == 1
    refused("another recipe: motion: got 0.0, now 0.5", keys, motion=0.5)
    save_file(tensors, place, {"told": "{}"})
    refused(r"training.safetensors: got no recipe in it, expected what a run left", keys)


def test_a_run_may_be_moved(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(keys, steps=1)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    ready = prepared(keys, out="~/elsewhere", cache="~/cache")
    assert ready.resumed == 1 and ready.out == tmp_path / "elsewhere"
    (tmp_path / "cache").rename(tmp_path / "disk")
    assert prepared(keys, out="~/elsewhere", cache=str(tmp_path / "disk"), threads=3).resumed == 1 and not (tmp_path / "cache").exists()
    refused("another recipe: cache: got '.*', now None", keys, out="~/elsewhere", cache=None)  # pictures would not be rounded any more


# ---- one at a time


def test_two_runs_in_one_folder(keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(keys))
    out = tmp_path / "out"
    with at_work(out):
        with pytest.raises(SystemExit) as ended:
            main(["train", str(config)])
        assert ended.value.code == 2 and "another run is at work in it, expected none" in capsys.readouterr().err
        assert out.is_dir() and not list(out.iterdir())
    assert not out.exists(), "nothing came of it"


def test_what_a_killed_run_left_half_written_is_gone(tmp_path: Path) -> None:
    (tmp_path / "out/.released.77.part").mkdir(parents=True)
    (tmp_path / "out/.training.safetensors.77.part").write_bytes(b"half")
    (tmp_path / "out/log.jsonl").write_text("")
    with at_work(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["log.jsonl"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/out: cannot be written: Not a directory"), at_work(tmp_path / "file/out"):
        pass


def test_of_two_that_make_the_same_cache_one_waits(tmp_path: Path) -> None:
    place, made = tmp_path / "cache/data", []

    def write(part: Path) -> None:
        made.append(part)
        part.mkdir()
        time.sleep(0.05)

    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/.data.part").mkdir()  # of one that was killed
    both = [threading.Thread(target=made_whole, args=(place, write)) for _ in range(2)]
    with alone(tmp_path / "cache"):
        for each in both:
            each.start()
        time.sleep(0.05)
        assert not made
    for each in both:
        each.join()
    assert len(made) == 1 and [path.name for path in place.parent.iterdir()] == ["data"]


# ---- nothing for nothing


@pytest.mark.parametrize(
    ("changes", "text"), [({"every": 4}, "mixture: every: got every 4, and pictures 5 and 5 steps away"), ({"weight": 0}, "all weigh 0")]
)
def test_what_cannot_work_is_said_before_anything_is_decoded(keys: dict[str, Any], tmp_path: Path, changes: Any, text: str) -> None:
    write_mixture(Path(keys["mixture"]), {"path": str(tmp_path / "data"), **changes})
    refused(text, keys)
    assert not (tmp_path / "cache").exists()


def test_what_is_never_drawn_is_not_decoded(keys: dict[str, Any], tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", lengths=(9,))
    write_mixture(Path(keys["mixture"]), {"path": str(tmp_path / "data"), "weight": 1}, {"path": str(tmp_path / "other"), "weight": 0})
    trained(keys, steps=1)
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()] == ["data"]


def test_ctrl_c_before_the_first_step(
    keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from internvla_a1_ros.learning import running

    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(keys))
    for number in (signal.SIGINT, signal.SIGTERM):

        def asked(*_: Any, number: int = number) -> None:
            os.kill(os.getpid(), number)
            time.sleep(10)  # until it is noticed

        monkeypatch.setattr(running, "cached", asked)
        with pytest.raises(SystemExit) as ended:
            main(["train", str(config)])
        assert ended.value.code == 130 and "stopped before the first step" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


# ---- what is said on the way


def test_a_picture_that_cannot_be_decoded_is_named_once(keys: dict[str, Any], tmp_path: Path) -> None:
    """Without a cache it is only found on the way; samples of the other episode stand in."""
    ready, watcher = prepared(keys, cache=None, steps=8), Quiet()
    pictures = ready.trainer.samples._pictures[0]
    former = pictures.at

    def at(number: int, steps: Any) -> torch.Tensor:
        from internvla_a1_ros.bags.datasets import DatasetError

        if number == 1:
            raise DatasetError("episode 1: no picture")
        return former(number, steps)

    pictures.at = at  # type: ignore[method-assign]
    run(ready, watcher)
    assert watcher.sentences == ["episode 1: no picture"]
    ((episode, (count, why)),) = ready.trainer.undecoded.items()
    assert episode == (0, 1) and count > 1 and why == "episode 1: no picture"
    assert prepared(keys, cache=None, steps=8).trainer.undecoded == ready.trainer.undecoded


def test_actions_that_are_not_learned_are_told_of(keys: dict[str, Any]) -> None:
    ready = prepared(keys)
    (material,), sizes = ready.materials, ready.trainer.model.sizes
    actions = ready.manifest.actions
    assert material.remarks(sizes, actions) == []
    (remark,) = material.remarks(replace(sizes, robot_width=12), actions)
    assert remark == "data: 14 actions of 'arx_ac_one', the manifest's robot has 12: the last 2 are not learned"


def test_statistics_of_something_else_are_told_of(keys: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "start/stats.json"
    table = json.loads(path.read_text())
    moments = table["arx_ac_one"]["actions.left_joint.position"]
    moments["mean"] = [value + 5 * spread for value, spread in zip(moments["mean"], moments["std"], strict=True)]
    path.write_text(json.dumps(table))
    (remark,) = (text for text in prepared(keys).remarks if "standard deviations" in text)
    assert remark.startswith("data: action ") and "of the same --mode (delta or abs) and robot?" in remark


def test_a_velocity_is_float32_in_bf16_too(keys: dict[str, Any]) -> None:
    ready = prepared(keys, precision="bf16")
    found: list[torch.dtype] = []
    model = ready.trainer.model
    model.action_out_proj.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    model.state_proj.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    ready.trainer.advance()
    assert found == [torch.bfloat16, torch.float32]


def test_an_odd_batch_is_refused_before_anything_is_opened(keys: dict[str, Any], tmp_path: Path) -> None:
    from internvla_a1_ros.learning.team import Team

    with pytest.raises(ConfigurationError, match="batch: got 3, expected a multiple of the 2 processes"):
        prepare(Recipe.model_validate(keys | {"batch": 3, "start": "nowhere"} | {"mixture": "nowhere"}), Quiet(), Team(size=2))
