"""Demonstrations become a dataset: the same by any number of processes, whole or resumable, and fit to be learned from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from internvla_a1_ros.bags.dataset_statistics import count
from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning import material, warmup_targets
from internvla_a1_ros.learning.material import open_material
from internvla_a1_ros.learning.mixture import Source
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.statistics import ARX, StatisticsFile
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS
from internvla_a1_ros.simulation.recording import BELT_SPEED, LED_STEP, SEEN, STAGE, STAGES, TARGET, Attempt, Part, Plan, picture
from internvla_a1_ros.simulation.recording_team import Workshop, record
from internvla_a1_ros.simulation.trial import ROLLOUT_SEEDS

NANO = find_checkpoint("nano")
SMALL: dict[str, Any] = {"size": (64, 48), "supersample": 1, "codec": "h264"}
# A parcel whose label lies up, and a slice of bread: both succeed.
PLAN = Plan(episodes=2, seed=2, **SMALL)


def recorded(out: Path, plan: Plan, workers: int = 1, resume: bool = False) -> list[Attempt]:
    attempts: list[Attempt] = []
    workshop = Workshop(plan, out, resume=resume)
    with workshop.at_work():
        record(workshop, workers, attempts.append)
        workshop.join()
    return attempts


def all_of(folder: Path) -> list[Any]:
    """Everything in a dataset but its pictures, which are compared by themselves."""
    dataset = Dataset.open(folder)
    keys = [key for key, feature in dataset.features.items() if not feature.is_picture]
    numbers = [{key: values.tolist() for key, values in episode.table(keys).items()} for episode in dataset.episodes]
    return [dataset.tasks, [(e.length, e.tasks) for e in dataset.episodes], numbers, (folder / "episodes.jsonl").read_text()]


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("one") / "d"
    recorded(out, PLAN)
    yield out


def test_what_is_in_it(one: Path) -> None:
    dataset = Dataset.open(one)
    assert (dataset.robot_type, dataset.fps, dataset.camera_keys) == ("ARX AC One", 30, ARX.camera_keys)
    assert (SEEN, LED_STEP) == (warmup_targets.SEEN, material.LED_STEP), "training looks for these names"
    assert {*ARX.state_keys, *ARX.action_keys, SEEN, TARGET, BELT_SPEED, STAGE, LED_STEP} < set(dataset.features)
    rows = [json.loads(line) for line in (one / "episodes.jsonl").read_text().splitlines()]
    assert [(row["task"], row["seed"]) for row in rows] == [("ingredient_picking", 2), ("express_sorting", 3)]
    assert [row["frames"] for row in rows if row["kept"]] == [episode.length for episode in dataset.episodes]
    names = json.loads((one / "meta/info.json").read_text())["features"][SEEN]["names"]
    for episode, row in zip(dataset.episodes, rows, strict=True):
        table = episode.table([*ARX.state_keys, *ARX.action_keys, SEEN, TARGET, BELT_SPEED, STAGE, "task_index"])
        assert row["succeeded"] and row["failure"] == ""
        assert np.allclose(table[BELT_SPEED], row["belt_speed_m_s"]) and len(set(table[TARGET][:, 0])) == 1
        # An action is where the joints will be a step later, but for the servos' lag; and the target is in the hand in the end.
        states, actions = (np.concatenate([table[key] for key in keys], axis=1) for keys in (ARX.state_keys, ARX.action_keys))
        assert np.abs(states[8:] - actions[7:-1])[:, :6].max() < 0.15
        seen = dict(zip(names, table[SEEN].T, strict=True))
        slot = int(table[TARGET][0, 0])
        last = {name: seen[f"right.{slot}.{name}"][-1] for name in ("in_view", "distance_m")}
        if row["task"] == "ingredient_picking":
            assert last["in_view"] == 1 and last["distance_m"] < 0.2
        # The pictures are of this episode: not two alike, as parcels move.
        pictures = list(episode.frames(ARX.camera_keys[0], [0, episode.length // 2]))
        assert pictures[0].shape == (48, 64, 3) and np.abs(pictures[0].astype(int) - pictures[1]).mean() > 1


def test_a_picture_may_stand_for_several_steps(one: Path, tmp_path: Path) -> None:
    """What it shows is told with it; joints and commands are as they are, and the same as with a picture a step."""
    held = recorded(tmp_path / "d", PLAN.model_copy(update={"hold": 3, "episodes": 1}))
    assert [attempt.kept for attempt in held] == [True]
    ours, theirs = (Dataset.open(folder).episodes[0] for folder in (tmp_path / "d", one))
    keys = [*ARX.state_keys, *ARX.action_keys, BELT_SPEED, STAGE]
    for key in keys:
        assert np.array_equal(ours.table(keys)[key], theirs.table(keys)[key])
    (seen, fresh), steps = (each.table([SEEN])[SEEN] for each in (ours, theirs)), np.arange(ours.length)
    assert np.array_equal(seen, fresh[steps // 3 * 3]) and not np.array_equal(seen, fresh)
    for camera in ARX.camera_keys:
        change = np.abs(np.diff(np.stack(list(ours.frames(camera, range(61)))).astype(int), axis=0)).mean((1, 2, 3)).reshape(20, 3).mean(0)
        assert max(change[:2]) < 0.5 * change[2], camera  # what the codec does, and another picture


def test_on_a_belt_that_stands_still_the_piece_lies_within_reach(tmp_path: Path) -> None:
    attempts = recorded(tmp_path / "d", PLAN.model_copy(update={"belt_m_s": (0.0, 0.0), "tasks": ("ingredient_picking",)}))
    assert [attempt.failure for attempt in attempts] == ["", ""]
    assert all(not episode.table([BELT_SPEED])[BELT_SPEED].any() for episode in Dataset.open(tmp_path / "d").episodes)


def test_instructions_change_with_the_stage(one: Path) -> None:
    dataset = Dataset.open(one)
    table = dataset.episodes[1].table(["task_index", STAGE])
    stages, said = ([int(k) for k in table[key][:, 0]] for key in (STAGE, "task_index"))
    assert [STAGES[k] for k in dict.fromkeys(stages)][:1] == ["grasp"] and len(set(stages)) >= 2
    assert len(set(said)) == len(dataset.episodes[1].tasks) >= 2
    assert [k for k in range(1, len(said)) if said[k] != said[k - 1]] == [k for k in range(1, len(said)) if stages[k] != stages[k - 1]]
    assert dataset.tasks[said[-1]].startswith("Place the parcel in the ")


def test_learning_reads_the_instruction_of_every_step(one: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(one)
    (tmp_path / "stats.json").write_text(json.dumps(count([dataset], "delta", 50).as_table()))
    material = open_material(
        Source(path=str(one)), StatisticsFile(tmp_path / "stats.json"), load_manifest(NANO).actions, load_architecture(NANO)
    )
    said = material.told[1].tasks
    assert len(said) == material.episodes[1].length and tuple(dict.fromkeys(said)) == material.episodes[1].tasks


def test_pictures_are_those_of_the_live_cell(cell: Cell) -> None:
    cell.reset(1)
    for camera in CAMERAS:
        coded = cv2.imencode(".jpg", cell.render(camera, 320, 240)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        live = cv2.imdecode(coded, cv2.IMREAD_REDUCED_COLOR_2)[:, :, ::-1].astype(int)
        averaged, at_once = (np.abs(picture(cell, camera, (160, 120), times) - live).mean() for times in (2, 1))
        assert averaged < 1.5 and at_once > 2.0, camera


def test_processes_change_nothing(one: Path, tmp_path: Path) -> None:
    recorded(tmp_path / "d", PLAN, workers=2)
    assert all_of(tmp_path / "d") == all_of(one)
    for a, b in zip(Dataset.open(tmp_path / "d").episodes, Dataset.open(one).episodes, strict=True):
        for key in ARX.camera_keys:
            np.testing.assert_array_equal(list(a.frames(key, [0, 40])), list(b.frames(key, [0, 40])))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_ctrl_c_and_going_on(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"episodes": 5})
    words = ["--out", str(tmp_path / "d"), "--episodes", "5", "--seed", "2", "--workers", "1"]
    looks = ["--size", "64x48", "--supersample", "1", "--codec", "h264"]
    command = [sys.executable, "-m", "internvla_a1_ros.cli.main", "record-sim", *words, *looks]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline_s = time.monotonic() + 200
        while not list(tmp_path.glob(".d.parts/*.jsonl")) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    # On a busy machine a second trial may end before the signal comes.
    done = len(list(tmp_path.glob(".d.parts/*.jsonl")))
    assert 1 <= done < 5 and said == f"stopped: {done} of 5 trials are recorded; the same command with --resume goes on\n"
    parts = {f"{k:07d}{end}" for k in range(done) for end in ("", ".jsonl")}
    assert {path.name for path in (tmp_path / ".d.parts").iterdir()} == {"plan.json", *parts}

    with pytest.raises(ConfigurationError, match="holds parts of '.*/d', expected none: --resume goes on, or remove the folder"):
        Workshop(plan, tmp_path / "d", resume=False)
    with pytest.raises(ConfigurationError, match="--resume: seed: got 3, expected 2, as in '.*/plan.json'"):
        Workshop(plan.model_copy(update={"seed": 3}), tmp_path / "d", resume=True)
    # As `kill -9` would leave it.
    (tmp_path / f".d.parts/.{done:07d}.77.part/data").mkdir(parents=True)
    (tmp_path / f".d.parts/{done:07d}").mkdir()
    again = recorded(tmp_path / "d", plan, resume=True)
    assert [attempt.conditions.seed for attempt in again] == list(range(2 + done, 7))
    recorded(tmp_path / "whole", plan)
    assert all_of(tmp_path / "d") == all_of(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"d", "whole"}


def test_resume_may_begin(tmp_path: Path) -> None:
    """Where nothing was begun `--resume` is a beginning: `make nano` always says it."""
    workshop = Workshop(PLAN, tmp_path / "d", resume=True)
    assert workshop.done == 0 and len(workshop.missing()) == len(workshop.parts)


def test_two_commands_do_not_record_into_one_dataset(tmp_path: Path) -> None:
    """The second would take the first one's unfinished part for what an interruption left."""
    first = Workshop(PLAN, tmp_path / "d", resume=False)
    with first.at_work():
        (first.folder / "0000000").mkdir()
        second = Workshop(PLAN, tmp_path / "d", resume=True)
        refused = pytest.raises(ConfigurationError, match="/.d.parts': another record-sim is at work on '.*/d', expected to be alone")
        with refused, second.at_work():
            pass
        assert (first.folder / "0000000").is_dir()
    with second.at_work():
        assert not (first.folder / "0000000").exists()


WILD = Plan(tasks=("ingredient_picking",), episodes=1, disturbance={"most_rad": 0.1, "bump_share": 1.0}, **SMALL)


def test_where_nothing_succeeds_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"/d': got no trial that succeeded \(1 \w+\), expected one of 1"):
        recorded(tmp_path / "d", WILD)
    assert list(tmp_path.iterdir()) == []


def test_failures_can_be_kept(tmp_path: Path, cell: Cell) -> None:
    (attempt,) = Part(WILD.model_copy(update={"keep_failures": True}), range(1), tmp_path / "d", cell).record(lambda attempt: None)
    assert attempt.kept and not attempt.succeeded and attempt.failure
    assert Dataset.open(tmp_path / "d").episodes[0].length == attempt.frames


def test_a_process_that_dies_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvla_a1_ros.simulation.recording_team._work", os._exit)  # which takes no such arguments
    workshop = Workshop(PLAN, tmp_path / "d", resume=False)
    with pytest.raises(ConfigurationError, match="a recording process ended with code 1, expected it to go on"):
        record(workshop, 1, lambda attempt: None)
    workshop.tidy()
    assert list(tmp_path.iterdir()) == []


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["record-sim", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err.removeprefix("error: ").rstrip("\n")


REFUSED: dict[str, tuple[list[str], str]] = {
    "task": (["--task", "sorting"], "--task: got 'sorting', expected one of ingredient_picking, express_sorting, all"),
    "seed": (
        ["--seed", str(ROLLOUT_SEEDS - 5), "--episodes", "10"],
        f"record-sim: seed: got 999999995 to 1000000004, expected seeds below {ROLLOUT_SEEDS}: those from it on are for rollouts",
    ),
    "size": (["--size", "160"], "--size: got '160', expected WIDTHxHEIGHT as in 160x120"),
    "odd": (["--size", "161x120"], "record-sim: size: got 161x120, 2 times as large rendered, expected even sides, 16x16 to 960x720"),
    "detours": (["--detours", "2"], "record-sim: detours.share: got 2.0, expected: input should be less than or equal to 1"),
    "both": (["--policy", "nano", "--detours", "0.5"], "--detours: got 0.5 with --policy, expected it without"),
    "noise": (["--noise", "-1"], "record-sim: disturbance.most_rad: got -1.0, expected: input should be greater than or equal to 0"),
    "variation": (["--variation", "2"], "record-sim: variation: got 2.0, expected: input should be less than or equal to 1"),
    "belt": (["--belt", "0:0.4"], "--belt: got 0 to 0.4 m/s, expected them from 0 to 0.3, the slower first"),
    "no belt": (["--belt", "still"], "--belt: got 'still', expected two speeds in m/s such as 0.05:0.15"),
    "codec": (["--codec", "h265"], "codec: got 'h265', expected one of av1, h264, did you mean 'h264'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_leave_nothing(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, sentence = REFUSED[case]
    assert refusal(capsys, "--out", str(tmp_path / "d"), *words).startswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_is_there_is_left_alone(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "exists already, expected a new folder" in refusal(capsys, "--out", str(one))
    assert [path.name for path in one.parent.iterdir()] == ["d"]


def test_statistics_training_and_a_rollout(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["stats", str(one), "-o", "stats.json", "--mode", "delta"])
    assert not done.value.code
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"name": "sim", "datasets": [{"path": str(one)}]}))
    schedule = {"kind": "constant", "peak": 1e-4, "warmup_steps": 1}
    recipe = {"name": "r", "start": str(NANO), "stats": "stats.json", "mixture": "mixture.yaml", "out": "out", "cache": "cache"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"steps": 2, "batch": 2, "threads": 1, "schedule": schedule}))
    with pytest.raises(SystemExit) as done:
        main(["train", "r.yaml"])
    assert not done.value.code
    assert [json.loads(line)["step"] for line in (tmp_path / "out/log.jsonl").read_text().splitlines()] == [1, 2]
    with pytest.raises(SystemExit) as done:
        main(["evaluate", "rollouts", "--model", "out", "--n", "1", "--belt", "0.3:0.3", "--compute", "40", "--out", "tried"])
    assert not done.value.code
    told = json.loads((tmp_path / "tried/metrics.json").read_text())
    assert told["what"]["model"] == "r" and told["what"]["trained"] and told["trials"][0]["chunks"] > 5
