"""Demonstrations that begin where a policy has brought the arms: it leads as in a rollout, and only what the expert does is learned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from internvla_a1_ros.bags.dataset_statistics import count
from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.core.sync import CameraSpec, ObservationBuilder
from internvla_a1_ros.core.types import ActionChunk, FloatArray, Frame, Observation
from internvla_a1_ros.evaluation.rollout import Rollout
from internvla_a1_ros.learning.material import open_material
from internvla_a1_ros.learning.mixture import Source
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.statistics import ARX, StatisticsFile
from internvla_a1_ros.robots.profile import load_usable_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.runtime.policy_loop import PolicyLoop
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.demonstration import PARTS, RATE_HZ, Disturbance, Moment, Pushes, demonstrate
from internvla_a1_ros.simulation.leader import Leader, checksum
from internvla_a1_ros.simulation.leading import LEAD_IN, MOST_LATE, Habits, Lead, Leading, Stretch
from internvla_a1_ros.simulation.profile_joints import CellJoints
from internvla_a1_ros.simulation.recording import PROFILE, Part, Plan, picture
from internvla_a1_ros.simulation.recording_team import Workshop, record
from internvla_a1_ros.simulation.tasks import expert_of, start_trial
from internvla_a1_ros.simulation.trial import Conditions, Trial
from internvla_a1_ros.simulation.variation import Variation

NANO = find_checkpoint("nano")
ROBOT = load_usable_profile(PROFILE)
STILL = Disturbance(most_rad=0.0)
ELBOW, DT_NS = 9, 33_333_333
HABITS = Habits("fake", 3, 15)


class Fake:
    """Wants one joint to be 0.3 rad further than it is, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.told: list[tuple[str, bool]] = []

    def infer(
        self, observation: Observation, instruction: str, *, imagine: bool = False, tail: Callable[[], ActionChunk | None] | None = None
    ) -> Inference:
        self.seen.append(observation)
        self.told.append((instruction, tail is not None and tail() is not None))
        way, stamp_ns = np.tile(observation.joints.positions, (50, 1)), observation.stamp_ns
        way[:, ELBOW] = self.elbow(observation)
        return Inference(ActionChunk(PROFILE, ROBOT.joint_names, stamp_ns, stamp_ns + DT_NS, DT_NS, way), {})

    def elbow(self, observation: Observation) -> FloatArray | float:
        return float(observation.joints.positions[ELBOW] + 0.3)

    def knows(self, frame: Any) -> bool:
        return False

    def look_ahead(self, frame: Any) -> None: ...

    def forget(self) -> None: ...


class Steady(Fake):
    """Wants that joint to go on evenly by 0.6 rad/s from where and when it was first seen."""

    def elbow(self, observation: Observation) -> FloatArray | float:
        since_s = (observation.stamp_ns - self.seen[0].stamp_ns + DT_NS * np.arange(1, 51)) * 1e-9
        way: FloatArray = self.seen[0].joints.positions[ELBOW] + 0.6 * since_s
        return way


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def led(cell: Cell, policy: Any, stretch: Stretch, steps: int) -> tuple[Lead, list[FloatArray | None], list[FloatArray]]:
    """Go through the first steps of a trial; return the lead, its ways, and the cell's goal at each step."""

    def look(camera: str) -> Any:
        return np.full((2, 2, 3), round(cell.time_s * RATE_HZ), np.uint8)

    lead = Lead(policy, HABITS, ROBOT, stretch, look)
    trial = start_trial(cell, Conditions.drawn("ingredient_picking", 1))
    moments = demonstrate(trial, expert_of(trial), Pushes(STILL, cell.arms, 1), lead)
    ways, goals = [], []
    for step, _ in zip(range(steps), moments, strict=False):
        ways.append(lead.way(step, trial, trial.cell.goal()))
        goals.append(cell.goal())
    return lead, ways, goals


def step_of(stamp_ns: int) -> int:
    return round((stamp_ns - 1_000_000_000) * RATE_HZ * 1e-9)


def test_it_sees_what_a_rollout_would_show(cell: Cell) -> None:
    policy = Fake()
    led(cell, policy, Stretch(20, 40, 4), 45)
    assert [step_of(seen.stamp_ns) for seen in policy.seen] == [16, 20, 24, 28, 32, 36]
    for seen in policy.seen:
        now, past = ({int(frame.rgb[0, 0, 0]) for frame in frames if frame is not None} for frames in (seen.current, seen.past))
        assert now == {step_of(seen.stamp_ns)} and past == {step_of(seen.stamp_ns) - 15}
        assert [frame.camera for frame in seen.current if frame is not None] == [camera.name for camera in ROBOT.cameras]
    assert [continues for _, continues in policy.told] == [False, True, True, True, True, True]


def test_before_there_is_a_past_the_first_picture_stands_in(cell: Cell) -> None:
    policy = Fake()
    led(cell, policy, Stretch(0, 6, 0), 6)
    assert [step_of(seen.stamp_ns) for seen in policy.seen] == [0, 3]
    assert all(frame is not None and step_of(frame.stamp_ns) == 0 for seen in policy.seen for frame in seen.past)


@pytest.mark.parametrize("stretch", [Stretch(0, 30, 0), Stretch(0, 30, 9), Stretch(10, 40, 5), Stretch(3, 20, 9)])
def test_a_chunk_is_followed_from_when_it_comes(cell: Cell, stretch: Stretch) -> None:
    lead, ways, goals = led(cell, Fake(), stretch, stretch.end + 5)
    assert [way is not None for way in ways] == [stretch.begin <= step < stretch.end for step in range(len(ways))]
    commands = np.concatenate([way for way in ways if way is not None])
    assert len(commands) == PARTS * (stretch.end - stretch.begin)
    # At rest until the first chunk is there, which was thought of before the lead began where that was possible.
    comes = max(stretch.begin, max(0, stretch.begin - stretch.late) + stretch.late) - stretch.begin
    moves = np.flatnonzero(np.abs(np.diff(commands[:, ELBOW])) > 1e-9)
    assert PARTS * comes - 1 <= moves[0] <= PARTS * comes + 1
    assert commands[-1, ELBOW] - commands[0, ELBOW] > 0.15
    # Within the robot's limits, and begun where the expert had it.
    assert (np.abs(np.diff(commands, axis=0)) * RATE_HZ * PARTS <= ROBOT.max_velocity + 1e-6).all()
    np.testing.assert_allclose(commands[0], goals[stretch.begin], atol=0.01)
    # What is sent is what is done.
    np.testing.assert_allclose(goals[stretch.end], commands[-1], atol=1e-9)


@pytest.mark.parametrize("late", [0, 4, 9])
def test_it_drives_as_in_a_rollout(cell: Cell, late: int) -> None:
    steps, cameras = 45, tuple(camera.name for camera in ROBOT.cameras)
    _, _, goals = led(cell, Steady(), Stretch(0, steps, late), steps)
    builder = ObservationBuilder(tuple(CameraSpec(name) for name in cameras), HistorySpec())
    loop = PolicyLoop(Steady(), builder, cameras, RATE_HZ / HABITS.period)
    rolled: list[FloatArray] = []

    def unseen(stamp_ns: int) -> list[Frame]:
        rolled.append(cell.goal())
        return [Frame(name, stamp_ns, stamp_ns, np.zeros((1, 1, 3), np.uint8)) for name in cameras]

    trial = start_trial(cell, Conditions.drawn("ingredient_picking", 1))
    Rollout(trial, CellJoints(ROBOT, cell.arms), ROBOT, loop, unseen, late * DT_NS + 100_000).run(steps / RATE_HZ)
    mine, rollouts = (np.array([goal[ELBOW] for goal in run[:steps]]) for run in (goals, rolled))
    # Ticks are 8.3 ms apart here and 10 ms there, and a plan that comes just after one waits for the next.
    assert mine[-1] - mine[0] > 0.5
    np.testing.assert_allclose(mine, rollouts, atol=0.03)
    np.testing.assert_allclose(mine[-15:], rollouts[-15:], atol=0.6 * 0.011)


def test_asked_again_it_answers_as_before(cell: Cell) -> None:
    policy = Fake()
    lead, _, goals = led(cell, policy, Stretch(5, 20, 2), 25)
    asked = len(policy.seen)
    trial = start_trial(cell, Conditions.drawn("ingredient_picking", 1))
    again = [cell.goal() for _, _ in zip(range(25), demonstrate(trial, expert_of(trial), Pushes(STILL, cell.arms, 1), lead), strict=False)]
    np.testing.assert_array_equal(again, goals)
    assert len(policy.seen) == asked


@given(st.integers(0, 10**9), st.floats(0, 1), st.tuples(st.floats(0, 5), st.floats(0, 5)), st.integers(1, 900))
def test_stretches(seed: int, middle: float, ends: tuple[float, float], alone: int) -> None:
    kind = Leading(policy="p", checksum="c", from_s=min(ends), to_s=max(ends), middle=middle)
    stretch = kind.drawn(seed, lambda: alone)
    assert stretch == kind.drawn(seed, lambda: alone) and 0 <= stretch.late <= MOST_LATE
    length = stretch.end - stretch.begin
    assert 0 <= stretch.first_recorded == max(0, stretch.end - LEAD_IN) and 0 <= stretch.begin < alone
    from_start = stretch.begin == 0 and round(min(ends) * RATE_HZ) <= length <= round(max(ends) * RATE_HZ)
    assert from_start or 15 <= length <= 45
    assert kind.model_copy(update={"middle": 0.0}).drawn(seed, lambda: 1 // 0).begin == 0


def test_leads_that_there_are_not() -> None:
    with pytest.raises(ValidationError, match="got 2 to 1, expected the first to be no more than the second"):
        Leading(policy="p", checksum="c", from_s=2.0, to_s=1.0)


# Seed 500: nano leads from the start for 29 steps; seed 501: on the way, for 25.
LOOKS: dict[str, Any] = {"size": (64, 48), "supersample": 1, "codec": "h264", "disturbance": STILL}
PLAN = Plan(tasks=("ingredient_picking",), episodes=2, seed=500, lead=Leading(policy=str(NANO), checksum=checksum(NANO)), **LOOKS)


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("led") / "d"
    workshop = Workshop(PLAN, out, resume=False)
    record(workshop, 1, lambda attempt: None)
    workshop.join()
    yield out


def shown_again(cell: Cell, conditions: Conditions, row: dict[str, Any]) -> list[tuple[Moment, FloatArray]]:
    """What this process makes of the same trial: each moment, and the cell's goal in it."""
    assert PLAN.lead is not None

    def look(camera: str) -> Any:
        return picture(cell, camera, PLAN.size, PLAN.supersample)

    lead = Leader(PLAN.lead, ROBOT).lead(conditions.seed, Stretch(**row["lead"]), look)
    trial: Trial = start_trial(cell, conditions)
    return [(moment, cell.goal()) for moment in demonstrate(trial, expert_of(trial), Pushes(STILL, cell.arms, conditions.seed), lead)]


def test_the_expert_takes_over_and_is_learned_from_then_on(taken_over: Path, cell: Cell, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (taken_over / "episodes.jsonl").read_text().splitlines()]
    assert [row["kept"] for row in rows] == [True, True] and [row["lead"]["begin"] > 0 for row in rows] == [False, True]
    dataset = Dataset.open(taken_over)
    for i, (episode, row) in enumerate(zip(dataset.episodes, rows, strict=True)):
        Variation.drawn(row["seed"], 1.0).apply(cell)
        moments = shown_again(cell, PLAN.conditions(i), row)
        begin, end = row["lead"]["begin"], row["lead"]["end"]
        assert episode.length == row["frames"] == len(moments) - (end - LEAD_IN)
        table = episode.table([*ARX.state_keys, *ARX.action_keys])
        states, actions = (np.concatenate([table[key] for key in keys], 1) for keys in (ARX.state_keys, ARX.action_keys))
        # As in this process, so in another: numbers are the same, and the dataset begins half a second before the take-over.
        recorded = moments[end - LEAD_IN :]
        np.testing.assert_allclose(states, [moment.state for moment, _ in recorded], atol=1e-6)
        np.testing.assert_allclose(actions, [moment.action for moment, _ in recorded], atol=1e-6)
        # Who was followed: the policy until the take-over, the expert after it.
        off = [np.abs(goal - moment.action).max() for (moment, _), (_, goal) in zip(moments, moments[1:], strict=False)]
        assert min(off[begin + 9 : end]) > 1e-3 and max([*off[:begin], *off[end:]]) < 1e-9

    (tmp_path / "stats.json").write_text(json.dumps(count([dataset], "delta", 50).as_table()))
    source = Source(path=str(taken_over), after_s=LEAD_IN / RATE_HZ)
    material = open_material(source, StatisticsFile(tmp_path / "stats.json"), load_manifest(NANO).actions, load_architecture(NANO))
    assert [material.steps(i)[0] for i in range(2)] == [LEAD_IN, LEAD_IN]


def test_another_policy_does_not_go_on_where_one_was_stopped(tmp_path: Path) -> None:
    assert PLAN.lead is not None
    Workshop(PLAN, tmp_path / "d", resume=False)
    other = PLAN.model_copy(update={"lead": PLAN.lead.model_copy(update={"checksum": "0"})})
    with pytest.raises(ConfigurationError, match=r'--resume: lead.checksum: got "0", expected "[0-9a-f]{64}", as in'):
        Workshop(other, tmp_path / "d", resume=True)
    with pytest.raises(ConfigurationError, match=r"--resume: lead.policy: got null, expected"):
        Workshop(PLAN.model_copy(update={"lead": None}), tmp_path / "d", resume=True)
    with pytest.raises(ConfigurationError, match="got other files than the recording began with"):
        record(Workshop(other, tmp_path / "e", resume=False), 1, lambda attempt: None)


class Asleep(Fake):
    """Leads, and never comes to anything."""

    def lead(self, seed: int, stretch: Stretch, look: Any) -> Lead:
        return Lead(self, HABITS, ROBOT, stretch, look)


@pytest.mark.parametrize("keep_failures", [False, True])
def test_what_ends_while_it_is_led_is_no_episode(tmp_path: Path, cell: Cell, keep_failures: bool) -> None:
    lead = Leading(policy="p", checksum="c", from_s=50.0, to_s=50.0, middle=0.0)
    plan = PLAN.model_copy(update={"episodes": 1, "lead": lead, "keep_failures": keep_failures})
    (attempt,) = Part(plan, range(1), tmp_path / "d", cell, Asleep()).record(lambda attempt: None)
    assert (attempt.failure, attempt.succeeded, attempt.kept) == ("led", False, False)
    assert attempt.row()["lead"] == {"begin": 0, "end": 1500, "late": attempt.row()["lead"]["late"]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--led", "4"], "--led: got '4', expected LO:HI in seconds, as in 0:4"),
        (["--led", "4:1"], "record-sim: lead: from_s: got 4 to 1, expected the first to be no more than the second"),
        (["--led-middle", "2"], "record-sim: lead.middle: got 2.0, expected: input should be less than or equal to 1"),
        (["--policy", "", "--led", "0:2"], "--policy: got none with --led 0:2 --led-middle 0.5, expected the checkpoint that leads"),
        (["--policy", "nona"], "checkpoint 'nona': no such folder (models known by name: nano"),
    ],
)
def test_refusals_leave_nothing(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["record-sim", "--out", str(tmp_path / "d"), "--policy", str(NANO), *words])
    assert caught.value.code == 2
    assert capsys.readouterr().err.removeprefix("error: ").startswith(sentence)
    assert list(tmp_path.iterdir()) == []
