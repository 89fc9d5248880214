"""A recipe with `processes`: the command starts the others, all stop together, and none is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import typer
import yaml
from training_rig import prepared, trained, write_all

from internvla_a1_ros.cli.main import main
from internvla_a1_ros.cli.train_processes import beside
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.team import Team


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("run")) | {"processes": 2, "threads": 1}


def started(folder: Path, recipe: dict[str, Any]) -> subprocess.Popen[str]:
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump(recipe))
    words = [sys.executable, "-m", "internvla_a1_ros.cli.main", "train", str(config)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def others_of(leader: subprocess.Popen[str]) -> list[psutil.Process]:
    return [each for each in psutil.Process(leader.pid).children(recursive=True) if "train" in each.cmdline()]


def stepped(log: Path, least: int) -> None:
    """Wait until a run has done so many steps."""
    until = time.monotonic() + 90
    while not log.is_file() or len(log.read_text().splitlines()) < least:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_do_what_one_does(keys: dict[str, Any], tmp_path: Path) -> None:
    _, reports = trained(keys, out=str(tmp_path / "one"))
    said, _ = started(tmp_path, keys | {"out": str(tmp_path / "two")}).communicate(timeout=120)
    assert said == f"{tmp_path / 'two'}: step 4 of 4\n"  # once
    lines = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx([report.loss for report in reports], rel=1e-5)
    assert prepared(keys, out=str(tmp_path / "two"), processes=1).resumed == 4


def test_ctrl_c_saves_once_and_leaves_nobody(keys: dict[str, Any], tmp_path: Path) -> None:
    """A terminal sends it to every process of the group."""
    leader = started(tmp_path, keys | {"out": str(tmp_path / "out"), "steps": 100_000})
    stepped(tmp_path / "out/log.jsonl", 3)
    others = others_of(leader)
    os.killpg(leader.pid, signal.SIGINT)
    said, complaint = leader.communicate(timeout=60)
    assert leader.returncode == 130 and said.count("stopped; the same command goes on") == 1 and "Traceback" not in complaint
    assert len(others) == 1 and not psutil.wait_procs(others, timeout=10)[1]
    done = len((tmp_path / "out/log.jsonl").read_text().splitlines())
    assert prepared(keys, out=str(tmp_path / "out"), steps=100_000).resumed == done


@pytest.mark.parametrize("who", ["leader", "other"])
def test_where_one_is_killed_all_end(keys: dict[str, Any], tmp_path: Path, who: str) -> None:
    leader = started(tmp_path, keys | {"out": str(tmp_path / "out"), "steps": 100_000})
    stepped(tmp_path / "out/log.jsonl", 2)
    (other,) = others_of(leader)
    (leader if who == "leader" else other).kill()
    _, complaint = leader.communicate(timeout=60)
    assert not psutil.wait_procs([other], timeout=30)[1]
    assert leader.returncode != 0
    if who == "other":
        assert "Traceback" not in complaint and "of 2 processes one was killed by signal 9; what was saved stays" in complaint


def test_a_nan_leaves_the_whole_batch_written_down(keys: dict[str, Any], tmp_path: Path) -> None:
    """After a step that goes astronomically far: each process writes its part before it is ended, and the sentence names both."""
    schedule = {"kind": "constant", "peak": 1e30, "warmup_steps": 0}
    leader = started(tmp_path, keys | {"out": str(tmp_path / "out"), "schedule": schedule})
    _, complaint = leader.communicate(timeout=90)
    assert leader.returncode == 2 and re.search("is not finite .*bad_batch.json.*other processes in bad_batch1.json", complaint)
    told = [json.loads((tmp_path / f"out/bad_batch{rank}.json").read_text()) for rank in ("", "1")]
    assert [len(each["samples"]) for each in told] == [1, 1] and told[0]["step"] == told[1]["step"] > 0
    assert all((tmp_path / f"out/bad_batch{rank}.safetensors").is_file() for rank in ("", "1"))


def test_the_leader_takes_its_share_of_the_cores_too(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no `threads`: what is worked out for the others holds for it."""
    config, found = tmp_path / "train.yaml", []
    config.write_text(yaml.safe_dump(keys | {"out": str(tmp_path / "out"), "processes": 2, "threads": None}))

    def stopped(*_: Any) -> Any:
        found.append(torch.get_num_threads())
        raise ConfigurationError("enough")

    monkeypatch.setattr("internvla_a1_ros.cli.train.beside", lambda words, processes, threads: nullcontext())
    monkeypatch.setattr("internvla_a1_ros.learning.running.prepare", stopped)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    before = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit, match="2"):
            main(["train", str(config)])
    finally:
        torch.set_num_threads(before)
    assert found == [3]


def test_while_others_wait_their_threads_are_used() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), Team(size=4, beside=2).others_wait():
        assert torch.get_num_threads() == 2 * before
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


def test_one_that_fails_alone_is_told_of() -> None:
    before = dict(os.environ)
    sentence = r"^of 2 processes one ended with \d: .*nowhere.yaml"
    with pytest.raises(ConfigurationError, match=sentence), beside(["train", "nowhere.yaml"], 2, 1):
        assert os.environ["WORLD_SIZE"] == "2" and os.environ["RANK"] == "0"
    assert dict(os.environ) == before


def test_a_stop_before_the_first_step_is_no_failure() -> None:
    """`typer.Exit` is a RuntimeError; the others end as stopped too, some sooner, some later."""
    with pytest.raises(typer.Exit) as stopped, beside(["train", "nowhere.yaml"], 2, 1):
        raise typer.Exit(130)
    assert stopped.value.exit_code == 130


def test_one_that_never_came_is_not_waited_for() -> None:
    """Where the first waits in a call that hears no signals."""
    script = """
from internvla_a1_ros.cli.train_processes import beside
import time
with beside(["train", "nowhere.yaml"], 2, 1):
    time.sleep(60)
"""
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 2 and time.monotonic() - began < 40
    assert ended.stderr.startswith("error: of 2 processes one ended with 2: ")
    assert ended.stderr.count("error: ") == 1 and "nowhere.yaml" in ended.stderr
