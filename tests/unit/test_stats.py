"""`stats.json` from datasets: against plain numpy, through the reader of checkpoints, and by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from internvla_a1_ros.bags.converting_keys import columns_of
from internvla_a1_ros.bags.dataset_statistics import count
from internvla_a1_ros.bags.datasets import Dataset, DatasetError, DatasetWriter, Feature
from internvla_a1_ros.bags.datasets.moments import RunningMoments
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.robots.profile import load_profile

COLUMNS = columns_of(load_profile("arx_ac_one"))
CHUNK = 7
MASK = np.array([True] * 6 + [False] + [True] * 6 + [False])


def drawn(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    state = np.random.default_rng(seed).normal(size=(length, 14)).cumsum(axis=0).astype(np.float32)
    return state, np.concatenate([state[1:], state[-1:]]) + np.float32(0.25)


def write(folder: Path, lengths: tuple[int, ...], robot_type: str = "ARX AC One", seed: int = 0) -> Path:
    features, _ = COLUMNS.features(load_profile("arx_ac_one").joint_names)
    with DatasetWriter(folder, 30, robot_type, features) as writer:
        for e, length in enumerate(lengths):
            for state, action in zip(*drawn(length, seed + e), strict=True):
                writer.add(COLUMNS.step(state, action), {})
            writer.end_episode("t")
    return folder


def plainly(lengths: tuple[int, ...], mode: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All states and all actions that the released formula counts, gathered one by one."""
    states, actions = [], []
    for e, length in enumerate(lengths):
        state, action = drawn(length, seed + e)
        if length < CHUNK:
            continue
        states += list(state)
        if mode == "abs":
            actions += list(action)
        for t in range(length - CHUNK + 1) if mode == "delta" else ():
            actions += [action[t + k].astype(np.float64) - np.where(MASK, state[t], 0) for k in range(CHUNK)]
    return np.array(states, np.float64), np.array(actions, np.float64)


@pytest.mark.parametrize("mode", ["abs", "delta"])
def test_the_numbers_are_those_of_plain_numpy(mode: Any, tmp_path: Path) -> None:
    lengths = (30, 3, 7, 700)  # one too short, one of a single chunk, one of several blocks
    found = count([Dataset.open(write(tmp_path / "d", lengths))], mode, CHUNK)
    assert (found.episodes, found.short, found.unusable) == (3, 1, [])
    (tmp_path / "stats.json").write_text(json.dumps(found.as_table()))
    statistics = StatisticsFile(tmp_path / "stats.json").of("arx_ac_one")
    for moments, values in zip((statistics.state, statistics.action), plainly(lengths, mode), strict=True):
        np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(moments.std, values.std(axis=0), rtol=1e-9)
        np.testing.assert_array_equal(moments.minimum, values.min(axis=0))
        np.testing.assert_array_equal(moments.maximum, values.max(axis=0))
    table = found.as_table()["ARX AC One"]
    assert list(table) == [*COLUMNS.states, *COLUMNS.actions]
    assert table["actions.left_joint.position"]["count"] == [len(plainly(lengths, mode)[1])]


def test_several_datasets_of_one_robot_under_both_its_names(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", (20,)), write(tmp_path / "2", (9, 8), "arx_ac_one", seed=5)
    other = write(tmp_path / "3", (10,), "arx_lift2", seed=9)
    advanced = []
    found = count([Dataset.open(each) for each in (one, two, other)], "abs", CHUNK, lambda: advanced.append(1))
    assert list(found.table) == ["ARX AC One", "arx_lift2"] and len(advanced) == 4
    values = np.concatenate([plainly((20,), "abs")[0], plainly((9, 8), "abs", seed=5)[0]])
    np.testing.assert_allclose(found.table["ARX AC One"]["states.left_joint.position"].mean, values[:, :6].mean(axis=0), rtol=1e-9)


def test_whole_vectors(tmp_path: Path) -> None:
    features = {"observation.state": Feature("float32", (14,)), "action": Feature("float32", (14,))}
    with DatasetWriter(tmp_path / "d", 30, "arx_lift2", features) as writer:
        for state, action in zip(*drawn(20, 0), strict=True):
            writer.add({"observation.state": state, "action": action}, {})
        writer.end_episode("t")
    found = count([Dataset.open(tmp_path / "d")], "delta", CHUNK)
    np.testing.assert_allclose(found.table["arx_lift2"]["action"].mean, plainly((20,), "delta")[1].mean(axis=0), rtol=1e-9, atol=1e-12)


def test_each_step_of_a_chunk_has_its_own(tmp_path: Path) -> None:
    lengths = (30, 3, 7, 700)
    found = count([Dataset.open(write(tmp_path / "d", lengths))], "delta", CHUNK, by_step=True)
    (tmp_path / "stats.json").write_text(json.dumps(found.as_table()))
    statistics = StatisticsFile(tmp_path / "stats.json").of("arx_ac_one")
    chunks = plainly(lengths, "delta")[1].reshape(-1, CHUNK, 14)
    assert statistics.action.by_step is not None and statistics.state.by_step is None
    np.testing.assert_allclose(statistics.action.by_step[0], chunks.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(statistics.action.by_step[1], chunks.std(axis=0), rtol=1e-9)
    scale = statistics.action.scale("mean_std_by_step")
    normal = scale.forward(chunks)
    np.testing.assert_allclose(normal.std(axis=0), 1.0, rtol=1e-4)
    np.testing.assert_allclose(scale.inverse(normal), chunks, atol=1e-12)
    state = statistics.state
    np.testing.assert_array_equal(state.scale("mean_std_by_step").forward(state.mean), 0.0)  # it has no steps
    statistics.check_steps("mean_std_by_step", CHUNK)
    statistics.check_steps("mean_std", 50)
    with pytest.raises(CheckpointError, match="tells of 7 steps of 'arx_ac_one', expected the 50 of a chunk: make it with .* --chunk 50"):
        statistics.check_steps("mean_std_by_step", 50)


@pytest.mark.parametrize("lost", ["mean_by_step", "std_by_step", "a step"])
def test_steps_that_are_not_whole(tmp_path: Path, lost: str) -> None:
    table = count([Dataset.open(write(tmp_path / "d", (30,)))], "delta", CHUNK, by_step=True).as_table()
    key = table["ARX AC One"]["actions.right_joint.position"]
    if lost == "a step":
        key["std_by_step"].pop()
    else:
        del key[lost]
    (tmp_path / "stats.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="differ in length" if lost == "a step" else f"has no '{lost}'"):
        StatisticsFile(tmp_path / "stats.json").of("arx_ac_one")


def test_absolute_actions_have_no_steps(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="statistics by step: got actions 'abs', expected delta"):
        count([Dataset.open(write(tmp_path / "d", (30,)))], "abs", CHUNK, by_step=True)


def test_what_cannot_be_counted(tmp_path: Path) -> None:
    short = Dataset.open(write(tmp_path / "short", (3, 4)))
    with pytest.raises(ConfigurationError, match="2 episodes are shorter than a chunk of 7; expected a usable one"):
        count([short], "abs", CHUNK)
    with pytest.raises(ConfigurationError, match="robot type: got 'ARX AC-One', expected one of .* did you mean 'ARX AC One'"):
        count([Dataset.open(write(tmp_path / "unknown", (9,), "ARX AC-One"))], "abs", CHUNK)
    with pytest.raises(DatasetError, match="got 14 states, expected 16 of 'Genie-1'"):
        count([Dataset.open(write(tmp_path / "genie", (9,), "Genie-1"))], "abs", CHUNK)
    with pytest.raises(DatasetError, match="no key 'observation.states.joint.position', did you mean 'states.left_joint.position'"):
        count([Dataset.open(write(tmp_path / "a2d", (9,), "a2d"))], "abs", CHUNK)


# The command


def test_the_command_writes_what_a_checkpoint_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write(tmp_path / "d", (60, 10, 55)), tmp_path / "stats.json"
    with pytest.raises(SystemExit) as ended:
        main(["stats", str(folder), "-o", str(out), "--chunk", "50"])
    assert ended.value.code == 0
    assert "2 episodes, actions delta, chunks of 50" in (printed := capsys.readouterr().out) and "1 episodes shorter than 50" in printed
    assert StatisticsFile(out).of("ARX AC One").action.width == 14


def test_the_command_names_what_it_left_out_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, out = write(tmp_path / "good", (60,)), write(tmp_path / "bad", (60,)), tmp_path / "stats.json"
    (bad / "data/chunk-000/file-000.parquet").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["stats", str(good), str(bad), "-o", str(out)])
    assert ended.value.code == 1 and out.exists()
    assert "left out: " in (printed := capsys.readouterr().out) and "file-000.parquet: is missing" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "no 'meta/info.json'"),
        (["d", "--mode", "absolute"], "--mode: got 'absolute', expected one of delta, abs"),
        (["d", "--chunk", "90"], "1 episodes are shorter than a chunk of 90"),
        (["d", "-o", "there/is/none.json"], "cannot be written: No such file or directory"),
    ],
)
def test_a_mistake_is_a_sentence(words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "d", (60,))
    with pytest.raises(SystemExit) as ended:
        main(["stats", *words])
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "stats.json").exists()


# The moments


BATCHES = st.lists(arrays(np.float64, st.tuples(st.integers(0, 6), st.just(2)), elements=st.floats(-1e3, 1e3)), min_size=1, max_size=6)


@given(BATCHES, st.integers(0, 6))
def test_moments_do_not_depend_on_how_vectors_come(batches: list[np.ndarray], split: int) -> None:
    values = np.concatenate(batches)
    one, two = RunningMoments(2), RunningMoments(2)
    for i, batch in enumerate(batches):
        (one if i < split else two).add(batch)
    one.merge(two)
    assert one.count == len(values)
    if len(values):
        np.testing.assert_allclose(one.mean, values.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.std, values.std(axis=0), rtol=1e-6, atol=1e-6)
        assert (one.minimum == values.min(axis=0)).all() and (one.maximum == values.max(axis=0)).all()


def test_a_small_spread_far_from_zero_is_kept() -> None:
    """Where the mean of squares minus the square of the mean would have nothing left."""
    moments = RunningMoments(1)
    for i in range(100):
        moments.add(1e8 + np.array([[i % 2], [(i + 1) % 2]], np.float64))
    np.testing.assert_allclose(moments.std, 0.5, rtol=1e-9)
