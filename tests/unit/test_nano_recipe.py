"""`make nano`: the commands that docs/nano.md tells, each once, and on from where it was stopped."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from internvla_a1_ros.learning.mixture import Mixture
from internvla_a1_ros.robots.document import read_document, read_mapping

ROOT = Path(__file__).resolve().parents[2]

FAKE = """
import os, sys, pathlib
assert "GLIBC_TUNABLES" in os.environ
words = sys.argv[1:]
log = pathlib.Path("log.txt")
log.write_text((log.read_text() if log.exists() else "") + " ".join(words) + chr(10))
stop = pathlib.Path("stop.txt")
if stop.exists() and stop.read_text() in " ".join(words):
    stop.unlink()
    sys.exit(130)
if words[0] == "train":
    made = pathlib.Path("runs/nano", pathlib.Path(words[1]).stem)
else:  # a dataset is there when it is whole, as the real one
    made = pathlib.Path(next((words[i + 1] for i, word in enumerate(words) if word in ("--out", "-o")), words[1]))
made.mkdir(parents=True)
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nano_recipe", ROOT / "tools/nano_recipe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_document_tells_the_same_commands(tool: ModuleType) -> None:
    text = (ROOT / "docs/nano.md").read_text(encoding="utf-8")
    told = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("    internvla-a1 ")]
    mine = [["internvla-a1", *shlex.split(part.words)] for part in tool.PARTS]
    assert told[: len(mine)] == mine


def test_it_goes_on_where_it_was_stopped(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    program = [sys.executable, str(fake)]
    assert tool.main(program, tmp_path, dry_run=True) == 0 and not (tmp_path / "log.txt").exists()
    for where in ("sorting --", "3_policy.yaml"):
        (tmp_path / "stop.txt").write_text(where)
        assert tool.main(program, tmp_path) == 130
    assert tool.main(program, tmp_path) == 0
    assert "all in 0 min: picking 0.0" in capsys.readouterr().out
    done = (tmp_path / "log.txt").read_text().splitlines()
    whole = [shlex.join(part.command) for part in tool.PARTS]
    assert done == [*whole[:2], *whole[1:7], *whole[6:]]
    assert all(line.endswith(" --resume") == line.startswith("record-sim") for line in done)
    assert tool.main(program, tmp_path) == 0 and (tmp_path / "log.txt").read_text().splitlines() == done
    lines = [json.loads(line) for line in (tmp_path / "runs/nano/times.jsonl").read_text().splitlines()]
    assert [line["code"] for line in lines].count(130) == 2 and len(lines) == 2 * len(done)


def test_what_is_gone_is_made_again_whatever_the_times_say(tool: ModuleType, tmp_path: Path) -> None:
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    program, ledger = [sys.executable, str(fake)], tmp_path / "runs/nano/times.jsonl"
    assert tool.main(program, tmp_path) == 0
    done = (tmp_path / "log.txt").read_text().splitlines()
    (tmp_path / "runs/nano/stats.json").rmdir()  # the fake's are folders
    (tmp_path / "runs/nano/2_vision").rmdir()
    with ledger.open("a") as file:
        file.write('{"part": "3_pol')  # of one that was killed
    assert tool.main(program, tmp_path) == 0
    again = (tmp_path / "log.txt").read_text().splitlines()[len(done) :]
    assert again == [shlex.join(part.command) for part in tool.PARTS if part.name in ("stats", "2_vision")]
    assert [json.loads(line)["part"] for line in ledger.read_text().splitlines()[-4:]] == ["stats", "stats", "2_vision", "2_vision"]


def test_what_is_taught_anew_and_stopped_is_not_done(tool: ModuleType, tmp_path: Path) -> None:
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    program = [sys.executable, str(fake)]
    assert tool.main(program, tmp_path) == 0
    done = (tmp_path / "log.txt").read_text().splitlines()
    (tmp_path / "runs/nano/3_policy").rmdir()
    (tmp_path / "stop.txt").write_text("3_policy.yaml")
    assert tool.main(program, tmp_path) == 130
    (tmp_path / "runs/nano/3_policy").mkdir()  # Ctrl-C saved some steps
    fake.write_text(FAKE.replace("mkdir(parents=True)", "mkdir(parents=True, exist_ok=True)"))
    assert tool.main(program, tmp_path) == 0
    assert (tmp_path / "log.txt").read_text().splitlines()[len(done) :] == [shlex.join(tool.PARTS[-1].command)] * 2


def test_each_training_makes_what_its_recipe_says(tool: ModuleType) -> None:
    for part in tool.PARTS:
        if part.words.startswith("train"):
            assert read_mapping(ROOT / shlex.split(part.words)[1])["out"] == str(part.made)


MIXTURES = sorted(path for path in (ROOT / "models/nano_recipe").rglob("*.yaml") if "\ndatasets:" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MIXTURES, ids=lambda path: path.name)
def test_what_detours_did_is_never_learned(path: Path) -> None:
    """Every dataset of every mixture is one of `record-sim`, which leads the hand astray and says when."""
    assert {(source.led, source.one_task) for source in read_document(path, Mixture).datasets} == {("simulation.led", True)}


def test_all_mixtures_are_looked_at() -> None:
    assert {path.name for path in MIXTURES} >= {"mixture.yaml", "mixture_back.yaml", "own_cell.yaml", "picking.yaml", "sorting.yaml"}
