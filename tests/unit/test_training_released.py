"""From a folder as it is released, with manifest and statistics named in the recipe, to one that every other command takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_rig import FPS, NANO, Quiet, prepared, trained, write_dataset, write_mixture

from internvla_a1_ros.bags.dataset_statistics import count
from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.learning.running import run
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.robots.document import read_mapping
from internvla_a1_ros.robots.profile import load_profile

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def ended(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


@pytest.fixture(scope="module", params=["a1_3b_tiny", "a1_2b_tiny"])
def keys(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe whose start is what was released, and whose manifest and statistics are files of one's own."""
    folder, released = tmp_path_factory.mktemp("released"), GOLDEN / request.param
    start = folder / "start"
    start.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(released / name, start / name)
    architecture = json.loads((released / "architecture.json").read_text())
    drawn = {"token_ids": {"image": 598, "pad": 599}}  # the small table of the 2B has not the real ones
    (start / "architecture.json").write_text(json.dumps(drawn | architecture))
    shutil.copyfile(NANO / "tokenizer.json", start / "tokenizer.json")  # of words that fit into the small table
    data = write_dataset(folder / "data", lengths=(52,))
    (folder / "stats.json").write_text(json.dumps(count([Dataset.open(data)], "delta", 50).as_table()))
    manifest = {key: value for key, value in read_mapping(NANO / "manifest.yaml").items() if key not in ("presets", "default_preset")}
    manifest |= {"actions": {"mode": "delta", "offset": 1, "dt_s": 1 / FPS}, "trained": False}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    own = {"start": str(start), "manifest": str(folder / "manifest.yaml"), "stats": str(folder / "stats.json")}
    mixture = write_mixture(folder / "mixture.yaml", {"path": str(data)})
    return {"name": request.param, "mixture": str(mixture), "steps": 1, "batch": 1, "cache": str(folder / "cache"), **own}


def test_parity_holds_for_what_is_written_before_a_step(keys: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(keys, out=str(tmp_path / "out"))
    assert not run(ready, Quiet(), stop=lambda: True) and ready.trainer.step == 0
    assert not read_mapping(tmp_path / "out/manifest.yaml")["trained"], "nothing was learned"
    shutil.copyfile(GOLDEN / keys["name"] / "io.safetensors", tmp_path / "out/io.safetensors")
    assert ended("parity", str(tmp_path / "out")) == 0


def test_a_step_leaves_a_policy_and_what_is_built(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVLA_A1_CACHE", str(tmp_path / "engines"))
    out = tmp_path / "out"
    _, (report,) = trained(keys, out=str(out))
    assert report.action > 0 and report.generation > 0
    policy = load_policy(out, load_profile("arx_ac_one"), "arm1", threads=1)
    assert policy.manifest.trained and policy.manifest.name == keys["name"]
    assert ended("build", str(out), "--threads", "1", "--steps", "2") == 0 and list((tmp_path / "engines").rglob("flow.onnx"))


def test_without_a_manifest_one_sentence_says_what_is_missing(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"start': no manifest.yaml; write one beside it \(docs/deploy.md\)"):
        prepared(keys, manifest=None, out=str(tmp_path / "out"))
