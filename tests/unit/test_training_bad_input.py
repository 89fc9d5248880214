"""What a person may get wrong: one sentence each, and nothing is lost."""

from __future__ import annotations

import json
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError
from training_rig import Quiet, prepared, trained, weights_of, write_all, write_dataset, write_mixture, write_start

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError
from internvla_a1_ros.learning.checkpoints import need_same
from internvla_a1_ros.learning.running import read_recipe, run, save


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("bad"))


def refused(text: str, keys: dict[str, Any], **changes: Any) -> None:
    with pytest.raises(ConfigurationError, match=text) as told:
        prepared(keys, **changes)
    assert "\n" not in str(told.value)


def data(keys: dict[str, Any]) -> Path:
    return Path(keys["mixture"]).parent / "data"


@pytest.mark.parametrize(
    ("cameras", "text"),
    [
        ({"head": "images.rgb.haed"}, "no key 'images.rgb.haed', did you mean 'images.rgb.head'"),
        ({"heed": "images.rgb.head"}, "got view 'heed', did you mean 'head'"),
        ({"head": "states.left_joint.position"}, "no key 'states.left_joint.position'.*it has images"),
        (dict.fromkeys(("head", "left", "right"), ""), "every view is empty"),
    ],
)
def test_cameras(keys: dict[str, Any], tmp_path: Path, cameras: dict[str, str], text: str) -> None:
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(data(keys)), "cameras": cameras})
    refused(text, keys, mixture=str(mixture), out=str(tmp_path / "out"))


def test_a_robot_type_that_nobody_knows_must_name_its_cameras(keys: dict[str, Any], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", "my_arm", (9,))
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(folder), "actions": False})
    refused("view 'head' is not named, expected one of images.rgb.head", keys, mixture=str(mixture))


def test_statistics(keys: dict[str, Any], tmp_path: Path) -> None:
    refused(r"statistics '.*nothing.json' are missing: make them with `internvla-a1 stats", keys, stats=str(tmp_path / "nothing.json"))
    folder = write_dataset(tmp_path / "data", "genie1", (9,))
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(folder)})
    refused("14 states, expected 16|no statistics of robot type 'genie1'", keys, mixture=str(mixture))


def test_weights_of_zero_and_workers(keys: dict[str, Any], tmp_path: Path) -> None:
    mixture = write_mixture(tmp_path / "mixture.yaml", {"path": str(data(keys)), "weight": 0})
    refused("all weigh 0", keys, mixture=str(mixture))
    ready = prepared(keys, workers=3, out=str(tmp_path / "out"))  # more workers than datasets: gone through again
    assert ready.assignment.shares == ((0,), (0,), (0,))


def test_a_checkpoint_of_another_layout(keys: dict[str, Any], tmp_path: Path) -> None:
    start = write_start(tmp_path / "start")
    (start / "stats.json").write_bytes((Path(keys["start"]) / "stats.json").read_bytes())
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"type": "interna1"}))
    refused("unknown weight '.*' for the 2B layout", keys, start=str(start))
    refused("no such folder", keys, start=str(tmp_path / "nothing"))


def break_last_step(folder: Path) -> None:
    """The last episode can no longer be used, whatever `meta` says."""
    (path,) = (folder / "data").rglob("*.parquet")
    table = pq.read_table(path)
    name = next(name for name in table.column_names if name.startswith("states."))
    values = table[name].to_pylist()
    values[-1][0] = float("nan")
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type)), path)


def test_a_run_of_another_recipe(keys: dict[str, Any], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    trained(keys, out=out, steps=1)
    refused("holds a run of another recipe: batch: got 2, now 3", keys, out=out, batch=3)
    mixture = str(write_mixture(tmp_path / "mixture.yaml", {"path": str(tmp_path / "data")}))
    write_dataset(tmp_path / "data")
    trained(keys, out=str(tmp_path / "two"), steps=1, mixture=mixture)
    shutil.rmtree(tmp_path / "data")
    write_dataset(tmp_path / "data", lengths=(12, 9, 8))
    refused("dataset '.*/data' changed since its run was begun", keys, out=str(tmp_path / "two"), mixture=mixture)
    shutil.rmtree(tmp_path / "data")
    write_dataset(tmp_path / "data")
    assert prepared(keys, out=str(tmp_path / "two"), mixture=mixture).resumed == 1
    break_last_step(tmp_path / "data")
    refused(r"saw datasets of \[21\] frames, the mixture now has \[12\]", keys, out=str(tmp_path / "two"), mixture=mixture)
    (tmp_path / "out/training.safetensors").write_bytes(b"cut")
    refused("cannot be read as safetensors", keys, out=out, steps=1)


def test_a_full_disk_keeps_the_former_checkpoint(keys: dict[str, Any], tmp_path: Path) -> None:
    ready, _ = trained(keys, out=str(tmp_path / "out"), steps=1)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    ready.trainer.advance()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a file cannot grow beyond it: writing fails as on a full disk
    try:
        with pytest.raises(ConfigurationError, match="cannot be written.*the former checkpoint stays") as told:
            save(ready)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(told.value)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert prepared(keys, out=str(tmp_path / "out")).resumed == 1


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_with_the_batch_written_down(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    ready = prepared(keys, out=str(tmp_path / "out"))
    before = weights_of(ready)
    if what == "loss":
        ready.trainer.model.action_out_proj.bias.data[0] = float("nan")
        before["action_out_proj.bias"][0] = float("nan")
    else:
        ready.trainer.model.action_out_proj.bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ConfigurationError, match=f"step 0: the {what} is not finite .*bad_batch.json") as told:
        run(ready, Quiet())
    assert "\n" not in str(told.value)
    written = json.loads((tmp_path / "out/bad_batch.json").read_text())
    assert len(written["samples"]) == 2 and set(written["samples"][0]) == {"dataset", "episode", "step"}
    assert (tmp_path / "out/bad_batch.safetensors").is_file() and not (tmp_path / "out/model.safetensors").exists()
    after = weights_of(ready)
    assert all(torch.equal(before[name].nan_to_num(7.0), after[name].nan_to_num(7.0)) for name in before)


@pytest.mark.parametrize("saved", [False, True])
def test_after_a_nan_it_is_said_how_to_go_on(keys: dict[str, Any], tmp_path: Path, saved: bool) -> None:
    out = tmp_path / "out"
    ready = prepared(keys, out=str(out))
    if saved:
        ready.trainer.advance()
        save(ready)
    kept = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    ready.trainer.model.action_out_proj.bias.data[0] = float("nan")
    start = f" and `start: {out}`, its last save," if saved else ""
    with pytest.raises(ConfigurationError) as told:
        run(ready, Quiet())
    assert str(told.value).endswith(f"; the same command meets it again, a new run with another seed{start} does not")
    assert {name: (out / name).read_bytes() for name in kept} == kept and len(kept) == 2 * saved


@pytest.mark.parametrize(
    ("got", "sentence"),
    [
        ({"a": (2, 3)}, "of another model: missing weight 'b'"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, "of another model: unknown weight 'c'"),
        ({"a": (2, 3), "b": (5,)}, r"of another model: 'b': got shape \[5\], expected \[4\]"),
    ],
)
def test_what_a_run_left_of_another_model(tmp_path: Path, got: dict[str, tuple[int, ...]], sentence: str) -> None:
    expected = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    with pytest.raises(CheckpointError, match=sentence):
        need_same(tmp_path, expected, {name: torch.zeros(shape) for name, shape in got.items()})


def test_a_full_disk_is_called_so(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds it: the system, or safetensors, which wraps it."""
    ready = prepared(keys, out=str(tmp_path / "out"))

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("internvla_a1_ros.learning.checkpoints.save_tensors", full)
    with pytest.raises(ConfigurationError, match="training.safetensors: cannot be written: the disk is full; nothing was there before"):
        save(ready)


def test_the_recipe_itself(keys: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    for change, text in (
        ({"step": 3}, "unknown key 'step', did you mean 'steps'"),
        ({"precision": "fp16"}, "precision"),
        ({"out": keys["start"]}, "expected another folder"),
        ({"clip": 0}, "clip: got 0"),
    ):
        path = tmp_path / "train.yaml"
        path.write_text(yaml.safe_dump(keys | change))
        with pytest.raises(ConfigurationError, match=re.escape(text)):
            read_recipe(path)
