"""The open loop against a predictor whose error is known, and with the small model."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from open_loop_rig import BEGIN_NS, DT_NS, PROFILE, READY, Known, dues, straight, swing, write_bag

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Frame, Observation
from internvla_a1_ros.evaluation.open_loop import truth_of
from internvla_a1_ros.evaluation.open_loop_bag import BagRecording
from internvla_a1_ros.evaluation.open_loop_policy import Seeded, SeededPolicy
from internvla_a1_ros.evaluation.open_loop_run import Evaluation, Order, open_recordings
from internvla_a1_ros.evaluation.open_loop_sources import Rhythm
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.runtime.deployment import find_checkpoint

torch.set_num_threads(1)
NANO = find_checkpoint("nano")
MANIFEST = load_manifest(NANO)
ARMS = ~PROFILE.is_gripper
ORDER = Order(NANO, PROFILE, pictures=0)


def evaluate(folder: Path, bags: list[Path], known: Known, order: Order = ORDER) -> dict[str, Any]:
    folder.mkdir()
    evaluation = Evaluation(order, known, known.chunk)
    recordings = open_recordings(bags, order, evaluation.manifest)
    return evaluation.run(recordings, folder, lambda name, done_s: None)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("open_loop") / "straight", 6.0)


def test_errors_are_those_of_the_predictor(bag: Path, tmp_path: Path) -> None:
    """Off by 0.02 on every arm joint and 0.3 on one gripper; the robot moves 0.1 a second."""
    off = np.where(ARMS, 0.02, 0.0)
    off[13] = -0.3
    metrics = evaluate(tmp_path / "out", [bag], Known(off=off), replace(ORDER, stride=30))
    robot = metrics["errors"]["robot"]
    model = robot["model"]["groups"]
    for group in ("arms", "left arm", "right arm"):
        assert model[group]["mse"] == pytest.approx(4e-4, rel=1e-6) and model[group]["mae"] == pytest.approx(0.02, rel=1e-6)
    assert model["left gripper"]["mse"] == pytest.approx(0.0, abs=1e-12)
    assert model["right gripper"]["mse"] == pytest.approx(0.09) and model["right gripper"]["mae"] == pytest.approx(0.3)
    assert model["all"]["mse"] == pytest.approx((12 * 4e-4 + 0.09) / 14)
    assert robot["model"]["joints"]["right_joint3"]["mae"] == pytest.approx(0.02)
    # Holding still is off by the way itself, going on as before by nothing.
    still = robot["hold_still"]["horizon"]["arms"]["mae"]
    assert still == pytest.approx([0.1 * (k + 1) * DT_NS * 1e-9 for k in range(50)])
    assert metrics["times_s"] == pytest.approx([(k + 1) / 30 for k in range(50)], abs=1e-6)
    # ... but for the first observation, before which nothing is known of a velocity: one chunk of 280 actions that have a truth.
    assert robot["last_velocity"]["groups"]["all"]["mae"] == pytest.approx(0.1 * 25.5 / 30 * 50 / 280, rel=1e-6)
    assert robot["model"]["horizon"]["arms"]["mae"] == pytest.approx([0.02] * 50)


def test_normalised_errors_use_the_statistics_of_actions_and_of_states(bag: Path, tmp_path: Path) -> None:
    stats = json.loads((NANO / "stats.json").read_text())["ARX AC One"]
    metrics = evaluate(tmp_path / "out", [bag], Known(off=0.02))
    for space, keys in (("delta", "actions"), ("absolute", "states")):
        std = stats[f"{keys}.left_joint.position"]["std"][2]
        assert metrics["errors"][space]["model"]["joints"]["left_joint3"]["mae"] == pytest.approx(0.02 / (std + 1e-6), rel=1e-6)


def test_actions_beyond_the_bag_are_left_out_and_counted(bag: Path, tmp_path: Path) -> None:
    """6 s and a stride of 30: observations at 0, 1, .. 6 s; a chunk spans 1/30 to 50/30 s."""
    known = Known(off=0.02)
    metrics = evaluate(tmp_path / "out", [bag], known, replace(ORDER, stride=30))
    assert [(each[0] - BEGIN_NS) / 1e9 for each in known.asked] == pytest.approx(range(7))
    assert metrics["count"] == {"observations": 7, "actions": 350, "without_truth": 20 + 50}
    table = pq.read_table(tmp_path / "out" / "chunks.parquet")
    assert table.num_rows == 350 and table.column("true.left_joint1").null_count == 70
    row = {name: table.column(name)[60].as_py() for name in table.column_names}
    assert (row["recording"], row["seed"], row["k"]) == ("straight", 0, 10)
    assert row["observation_ns"] == BEGIN_NS + 10**9 and row["time_ns"] == row["observation_ns"] + 11 * DT_NS
    assert row["true.left_joint2"] == pytest.approx(READY[1] + 0.1 * (1 + 11 / 30), abs=1e-6)
    assert row["predicted.left_joint2"] - row["true.left_joint2"] == pytest.approx(0.02, abs=1e-6)


def test_the_default_stride_is_a_chunk_and_the_horizon_cuts_it(bag: Path, tmp_path: Path) -> None:
    known = Known(off=0.02)
    metrics = evaluate(tmp_path / "out", [bag], known, replace(ORDER, horizon=8))
    assert [(each[0] - BEGIN_NS) / 1e9 for each in known.asked] == pytest.approx([0, 50 / 30, 100 / 30, 5], abs=1e-3)
    assert metrics["count"]["actions"] == 4 * 8 and len(metrics["times_s"]) == 8 and metrics["count"]["without_truth"] == 0


def test_seeds_are_averaged_and_their_spread_is_told(bag: Path, tmp_path: Path) -> None:
    """Seed s is off by 0.01 (s + 1)."""
    metrics = evaluate(tmp_path / "out", [bag], Known(off=0.01), replace(ORDER, seeds=3))
    seeds = metrics["errors"]["robot"]["seeds"]["all"]["mae"]
    assert seeds["each"] == pytest.approx([0.01, 0.02, 0.03]) and seeds["mean"] == pytest.approx(0.02)
    assert seeds["spread"] == pytest.approx(0.01)
    assert metrics["errors"]["robot"]["model"]["groups"]["all"]["mse"] == pytest.approx((1e-4 + 4e-4 + 9e-4) / 3)


def test_several_bags_are_told_apart_and_added_up(bag: Path, tmp_path: Path) -> None:
    other = write_bag(tmp_path / "more" / "straight", 2.0)
    metrics = evaluate(tmp_path / "out", [bag, other], Known(off=0.02))
    assert [each["name"] for each in metrics["recordings"]] == ["straight", "straight (2)"]
    assert [each["observations"] for each in metrics["recordings"]] == [4, 2] and metrics["count"]["observations"] == 6
    assert set(pq.read_table(tmp_path / "out" / "observations.parquet").column("recording").to_pylist()) == {"straight", "straight (2)"}


def test_truth_may_be_the_command(tmp_path: Path) -> None:
    """Commands are 0.01 beyond the states. Labels of nano are next states; commands are taken where asked for."""
    bag = write_bag(tmp_path / "bag", 2.5, commands=True)
    state = evaluate(tmp_path / "state", [bag], Known())
    command = evaluate(tmp_path / "command", [bag], Known(), replace(ORDER, truth="command"))
    assert state["recordings"][0]["truth"] == "state" and command["recordings"][0]["truth"] == "command"
    assert state["errors"]["robot"]["model"]["groups"]["all"]["mae"] == pytest.approx(0.0, abs=1e-9)
    assert command["errors"]["robot"]["model"]["groups"]["all"]["mae"] == pytest.approx(0.01)


def test_a_bag_without_commands_is_no_truth_for_commands(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="got no commands of some joint"):
        evaluate(tmp_path / "out", [bag], Known(), replace(ORDER, truth="command"))


def test_where_labels_are_commands_they_are_the_truth_if_recorded(bag: Path, tmp_path: Path) -> None:
    recordings = [BagRecording(path, "x", PROFILE, MANIFEST) for path in (bag, write_bag(tmp_path / "c", 1.0, commands=True))]
    assert [truth_of("", 0, each) for each in recordings] == ["state", "command"]


def test_states_that_stand_still_are_no_truth(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 4.0, states_until_s=1.0)
    metrics = evaluate(tmp_path / "out", [bag], Known(off=0.02))
    assert metrics["count"] == {"observations": 1, "actions": 50, "without_truth": 20}


def test_as_online_takes_what_the_live_loop_takes(bag: Path) -> None:
    """Ten a second of 30 pictures: every third, from the first on; the past is half a second before, at the start the earliest."""
    recording = BagRecording(bag, "bag", PROFILE, MANIFEST)
    due = dues(recording, Rhythm())
    stamps = [round((each.observation.stamp_ns - BEGIN_NS) / 1e6) for each in due]
    assert stamps == [100 * k for k in range(61)]
    pasts = [each.observation.past[0] for each in due]
    assert [round((past.stamp_ns - BEGIN_NS) / 1e6) for past in pasts if past is not None][:8] == [0, 0, 0, 0, 0, 0, 100, 200]


def test_a_stride_does_not_drift_at_other_camera_rates(tmp_path: Path) -> None:
    """90 Hz do not divide a stride of 7 actions (233.33 ms) into pictures evenly."""
    bag = write_bag(tmp_path / "bag", 4.0, rate_hz=25)
    recording = BagRecording(bag, "bag", PROFILE, MANIFEST)
    stamps = [due.observation.stamp_ns for due in dues(recording, Rhythm(7 * DT_NS))]
    apart = np.array(stamps) - BEGIN_NS - np.arange(len(stamps)) * 7 * DT_NS
    assert len(stamps) == 18 and np.abs(apart).max() <= 20_000_001


def test_instruction_comes_from_the_bag_else_the_manifest_unless_given(bag: Path, tmp_path: Path) -> None:
    said = write_bag(tmp_path / "said", 3.0, texts=((0.7, "Take the box"), (1.5, "Take the bag")))
    cases = [(bag, "", [MANIFEST.instructions[0]]), (said, "", ["Take the box", "Take the bag"]), (said, "Wave", ["Wave"])]
    for number, (path, given, expected) in enumerate(cases):
        known = Known()
        metrics = evaluate(tmp_path / str(number), [path], known, replace(ORDER, instruction=given, stride=30))
        assert list(dict.fromkeys(each[1] for each in known.asked)) == expected == metrics["recordings"][0]["instructions"]


def test_interrupted_it_keeps_what_was_done_and_says_so(bag: Path, tmp_path: Path) -> None:
    metrics = evaluate(tmp_path / "out", [bag, bag], Known(off=0.02, interrupt_after=9), replace(ORDER, stride=15))
    assert metrics["partial"] and metrics["not_reached"] == ["straight (2)"]
    assert 0 < metrics["count"]["observations"] < 9
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {"version": 1, **metrics}
    assert "Partial" in (tmp_path / "out" / "report.html").read_text()


def test_interrupted_before_anything_was_done_it_keeps_nothing(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "out", [bag], Known(interrupt_after=0))


def test_a_bag_too_short_says_why(bag: Path, tmp_path: Path) -> None:
    short = write_bag(tmp_path / "short", 1.0, states_until_s=0.1, pictures_from_s=0.5)
    with pytest.raises(ConfigurationError, match="gave no observation: joint states: nearest is 900 ms from the picture, allowed 50 ms"):
        evaluate(tmp_path / "out", [short], Known())
    metrics = evaluate(tmp_path / "both", [short, bag], Known())
    assert [each["observations"] for each in metrics["recordings"]] == [0, 4]
    assert "joint_skew" in metrics["recordings"][0]["reasons"]


def test_a_picture_that_does_not_decode_costs_one_observation(bag: Path, tmp_path: Path) -> None:
    class Choosy(Known):
        def predict(self, observation: Observation, instruction: str, seed: int, *, imagine: bool = False) -> Inference:
            if observation.stamp_ns == BEGIN_NS + 2 * 10**9 and seed == 1:
                raise ValueError("camera 'head': 12 bytes do not decode as jpeg or png")
            return super().predict(observation, instruction, seed)

    metrics = evaluate(tmp_path / "out", [bag], Choosy(), replace(ORDER, stride=30, seeds=2))
    (told,) = metrics["recordings"]
    assert (told["observations"], told["undecodable"]) == (6, 1) and "do not decode" in told["reasons"]["bad_input"]


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Frames that are held are those of the history and of chunks that wait for their truth: no more after 12 s than after 4."""
    held: list[int] = []

    class Watched(Known):
        def predict(self, observation: Observation, instruction: str, seed: int, *, imagine: bool = False) -> Inference:
            held.append(sum(type(each) is Frame for each in gc.get_objects()))
            return super().predict(observation, instruction, seed)

    bag = write_bag(tmp_path / "bag", 12.0, swing)
    metrics = evaluate(tmp_path / "out", [bag], Watched(motion=swing), replace(ORDER, stride=15))
    assert metrics["count"]["observations"] == 25 and max(held[8:]) <= max(held[:8])


# With the small model


@pytest.fixture(scope="module")
def nano() -> SeededPolicy:
    return SeededPolicy(NANO, PROFILE, PROFILE.name, engine="torch", preset=None, threads=1)


def test_noise_depends_on_seed_and_observation_only(nano: SeededPolicy, bag: Path) -> None:
    recording = BagRecording(bag, "bag", PROFILE, MANIFEST)
    two = dues(recording, Rhythm(30 * DT_NS))[:2]
    text = MANIFEST.instructions[0]
    first = [[nano.predict(due.observation, text, seed).chunk.positions for seed in (0, 1)] for due in two]
    again = [[nano.predict(due.observation, text, seed).chunk.positions for seed in (1, 0)][::-1] for due in two[::-1]][::-1]
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        assert not np.array_equal(one[0], one[1])


def test_noise_is_the_presets(bag: Path) -> None:
    """The model that comes along answers in one step without noise: so it is evaluated."""
    due = dues(BagRecording(bag, "bag", PROFILE, MANIFEST), Rhythm(30 * DT_NS))[0]
    shipped = Path(__file__).parents[2] / "models/nano"
    for preset, same in ((None, True), ("exact", False)):
        policy = SeededPolicy(shipped, PROFILE, PROFILE.name, engine="torch", preset=preset, threads=1)
        one, other = (policy.predict(due.observation, MANIFEST.instructions[0], seed).chunk.positions for seed in (0, 1))
        assert np.array_equal(one, other) == same


def test_further_seeds_share_prefix_and_generation(nano: SeededPolicy, bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    engine = nano._engine._engine
    for name in ("prefix", "generate", "flow"):
        real = getattr(engine, name)
        monkeypatch.setattr(engine, name, lambda *args, real=real, name=name: (calls.append(name), real(*args))[1])
    recording = BagRecording(bag, "bag", PROFILE, MANIFEST)
    due = dues(recording, Rhythm(30 * DT_NS))[0]
    nano._engine.forget()
    for seed in range(3):
        nano.predict(due.observation, "Wave", seed)
    assert calls == ["prefix", "generate", "flow", "flow", "flow"]
    assert isinstance(nano._engine, Seeded)


def test_the_small_model_runs_end_to_end_twice_the_same(nano: SeededPolicy, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 2.6, swing)
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        evaluation = Evaluation(replace(ORDER, seeds=2, stride=15, pictures=2), nano, nano.chunk)
        recordings = open_recordings([bag], ORDER, evaluation.manifest)
        found.append(evaluation.run(recordings, folder, lambda name, done_s: None))
    assert found[0]["errors"] == found[1]["errors"] and found[0]["count"]["observations"] == 6
    assert (tmp_path / "0" / "chunks.parquet").read_bytes() == (tmp_path / "1" / "chunks.parquet").read_bytes()
    page = (tmp_path / "0" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 * 3 * 3 and found[0]["timings_s"]["total"]["median"] > 0
    assert found[0]["what"]["sha256"] and found[0]["what"]["trained"] is False
    assert straight(0.0) == pytest.approx(READY)
