"""Robot units to the model's and back, in numbers small enough to check by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError, RobotMismatch
from internvla_a1_ros.policy.statistics import ARX, LAYOUTS, StatisticsFile, layout_of
from internvla_a1_ros.policy.transforms import (
    DeltaFromObservation,
    MeanStd,
    MinMax,
    Pad,
    StateTransform,
    action_transform,
    delta_mask,
)

MEAN, STD = np.array([1.0, 2.0, -3.0]), np.array([0.5, 1.0, 2.0])
STATE = np.array([0.25, -1.0, 4.0])


def test_mean_std() -> None:
    scale = MeanStd(MEAN, STD)
    np.testing.assert_allclose(scale.forward(np.array([1.5, 0.0, 1.0])), [1.0, -2.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(scale.inverse(np.array([1.0, -2.0, 2.0])), [1.5, 0.0, 1.0], atol=1e-5)
    # The spread is widened by 1e-6, as released: a joint that never moved does not divide by zero.
    assert MeanStd(np.zeros(1), np.zeros(1)).forward(np.array([1e-6])) == 1.0


def test_min_max() -> None:
    scale = MinMax(np.array([0.0, -1.0, 10.0]), np.array([2.0, 1.0, 30.0]))
    np.testing.assert_allclose(scale.forward(np.array([0.0, 0.0, 30.0])), [-1.0, 0.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(scale.inverse(np.array([-1.0, 0.0, 1.0])), [0.0, 0.0, 30.0], atol=1e-5)


def test_delta_is_the_whole_chunk_minus_one_state() -> None:
    delta = DeltaFromObservation(np.array([True, True, False]))
    chunk = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(delta.forward(chunk, STATE), [[0.75, 2.0, 1.0], [1.75, 3.0, 2.0]])
    np.testing.assert_array_equal(delta.inverse(delta.forward(chunk, STATE), STATE), chunk)


def test_pad() -> None:
    pad = Pad(3, 5)
    np.testing.assert_array_equal(pad.forward(STATE), [0.25, -1.0, 4.0, 0.0, 0.0])
    np.testing.assert_array_equal(pad.forward(np.ones((2, 3))), [[1, 1, 1, 0, 0]] * 2)
    np.testing.assert_array_equal(pad.inverse(np.array([0.25, -1.0, 4.0, 9.0, 9.0])), STATE)


def test_actions_in_both_modes() -> None:
    """Cut, un-normalise, and in delta mode add the state to the joints but not to the gripper."""
    output = np.array([[1.0, -2.0, 0.5, 7.0]])
    absolute = action_transform("abs", delta_mask([2, -1]), MeanStd(MEAN, STD), Pad(3, 4))
    relative = action_transform("delta", delta_mask([2, -1]), MeanStd(MEAN, STD), Pad(3, 4))
    np.testing.assert_allclose(absolute.inverse(output, STATE), [[1.5, 0.0, -2.0]], atol=1e-5)
    np.testing.assert_allclose(relative.inverse(output, STATE), [[1.75, -1.0, -2.0]], atol=1e-5)
    np.testing.assert_allclose(relative.forward(np.array([[1.75, -1.0, -2.0]]), STATE), [[1.0, -2.0, 0.5, 0.0]], atol=1e-5)


@given(arrays(np.float64, (4, 3), elements=st.floats(-10, 10)), arrays(np.float64, 3, elements=st.floats(-10, 10)), st.booleans())
def test_inverse_undoes_forward(actions: Any, state: Any, relative: bool) -> None:
    for scale in (MeanStd(MEAN, STD), MinMax(MEAN - 2, MEAN + STD)):
        transform = action_transform("delta" if relative else "abs", delta_mask([2, -1]), scale, Pad(3, 8))
        np.testing.assert_allclose(transform.inverse(transform.forward(actions, state), state), actions, atol=1e-9)
        states = StateTransform(scale, Pad(3, 8))
        np.testing.assert_allclose(states.inverse(states.forward(state)), state, atol=1e-9)


def test_delta_runs() -> None:
    assert delta_mask([6, -1, 6, -1]).tolist() == [True] * 6 + [False] + [True] * 6 + [False]
    assert delta_mask([14, -2]).tolist() == [True] * 14 + [False] * 2
    for wrong in ([], [6, 0]):
        with pytest.raises(ConfigurationError, match="delta mask"):
            delta_mask(wrong)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CheckpointError, match="got 16 joints, expected the robot's 14"):
        action_transform("delta", delta_mask([14, -2]), MeanStd(np.zeros(14), np.ones(14)), Pad(14, 32))
    with pytest.raises(ConfigurationError, match="'relative'"):
        action_transform("relative", delta_mask([2]), MeanStd(np.zeros(2), np.ones(2)), Pad(2, 4))  # type: ignore[arg-type]


# stats.json


def moments(*mean: float) -> dict[str, list[float]]:
    return {"mean": list(mean), "std": [1.0] * len(mean), "min": [-2.0] * len(mean), "max": [2.0] * len(mean), "count": [10]}


def arx_table() -> dict[str, Any]:
    """Keys in another order than the robot's."""
    table = {}
    for kind, base in (("actions", 100.0), ("states", 0.0)):
        table[f"{kind}.right_gripper.position"] = moments(base + 13)
        table[f"{kind}.right_joint.position"] = moments(*(base + i for i in range(7, 13)))
        table[f"{kind}.left_gripper.position"] = moments(base + 6)
        table[f"{kind}.left_joint.position"] = moments(*(base + i for i in range(6)))
    return table


def stats_file(tmp_path: Path, table: Any) -> StatisticsFile:
    (tmp_path / "stats.json").write_text(json.dumps(table))
    return StatisticsFile(tmp_path / "stats.json")


def test_vectors_are_put_together_in_the_robots_order(tmp_path: Path) -> None:
    statistics = stats_file(tmp_path, {"arx_lift2": arx_table()}).of("arx_lift2")
    assert statistics.state.mean.tolist() == list(range(14))
    assert statistics.action.mean.tolist() == [100 + i for i in range(14)]
    assert statistics.state.width == 14 and statistics.action.maximum.tolist() == [2.0] * 14


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("ARX Lift-2", "arx_lift2"), ("arx_lift2", "ARX Lift-2"), ("arx_ac_one", "ARX AC One"), ("ARX AC One", "ARX AC One")],
)
def test_robot_types_have_several_names(tmp_path: Path, asked: str, kept: str) -> None:
    assert stats_file(tmp_path, {"a2d": {}, kept: arx_table()}).of(asked).state.width == 14


def test_whole_vectors_may_be_given_directly(tmp_path: Path) -> None:
    direct = {"observation.state": moments(1, 2, 3), "action": moments(4, 5, 6), "observation.images.head": {}}
    assert stats_file(tmp_path, direct).of("whatever").action.mean.tolist() == [4, 5, 6]
    assert stats_file(tmp_path, {"Genie-1": direct}).of("genie1").state.mean.tolist() == [1, 2, 3]


def test_layouts() -> None:
    for robot, layout in LAYOUTS.items():
        width = 14 if robot.lower().startswith("arx") else 16
        assert delta_mask(layout.delta_runs).size == width
        assert len(layout.camera_keys) == 3
    assert layout_of("a2d").state_keys == ("observation.states.joint.position", "observation.states.effector.position")
    assert ARX.camera_keys == ("images.rgb.head", "images.rgb.hand_left", "images.rgb.hand_right")
    with pytest.raises(RobotMismatch, match="did you mean 'ARX AC One'"):
        layout_of("ARX AC-One")


def change(key: str, moment: str, value: Any) -> dict[str, Any]:
    table = arx_table()
    table[key][moment] = value
    return {"ARX AC One": table}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"arx_lift2": {}}, "no statistics of robot type 'ARX AC One'"),
        ({"ARX AC One": {k: v for k, v in arx_table().items() if k != "states.left_gripper.position"}}, "states.left_gripper.position"),
        ({"ARX AC One": 3}, "expected a table"),
        (change("states.left_joint.position", "std", [1.0]), "differ in length"),
        (change("states.left_joint.position", "std", [-1.0] * 6), "states.left_joint.position.std"),
        (change("actions.left_joint.position", "mean", [float("nan")] * 6), "actions.left_joint.position.mean"),
        (change("actions.left_joint.position", "mean", "high"), "no list of numbers"),
        (change("actions.left_joint.position", "mean", [[1.0], [2.0, 3.0]]), "no list of numbers"),
        ([1, 2], "expected an object"),
    ],
)
def test_faulty_statistics_are_named(tmp_path: Path, table: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        stats_file(tmp_path, table).of("ARX AC One")


def test_a_key_without_its_moments_is_named(tmp_path: Path) -> None:
    table = arx_table()
    del table["states.left_joint.position"]["max"]
    with pytest.raises(CheckpointError, match="'states.left_joint.position' has no 'max'"):
        stats_file(tmp_path, {"ARX AC One": table}).of("ARX AC One")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="stats.json"):
        StatisticsFile(tmp_path / "stats.json")
