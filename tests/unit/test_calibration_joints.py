"""Gripper readings, joint zeros and the stretches of rest they come from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from command_rig import small_profile
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.commissioning.grippers import ends_of, gripper_readings
from internvla_a1_ros.commissioning.joint_zeros import joint_zeros
from internvla_a1_ros.commissioning.resting import resting
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray

PROFILE = small_profile()
GRIPPER = PROFILE.grippers[0]  # 0 closed, -3.4 open


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Rest


def stairs(levels: list[float], rest_s: float = 0.8, move_s: float = 0.5) -> tuple[FloatArray, FloatArray]:
    """Return a 100 Hz log [n], [n, 2] that rests at each level and moves evenly between."""
    places = [np.full(round(rest_s * 100), levels[0])]
    for before, after in zip(levels[:-1], levels[1:], strict=True):
        places += [np.linspace(before, after, round(move_s * 100)), np.full(round(rest_s * 100), after)]
    column = np.concatenate(places)
    return np.arange(len(column)) / 100, np.stack([column, np.full(len(column), 0.5)], axis=1)


def test_rest_is_found_and_motion_is_not() -> None:
    rng = np.random.default_rng(1)
    stamps, positions = stairs([0.0, -3.3, 0.05, -3.35])
    found = resting(stamps, positions + rng.uniform(-0.004, 0.004, positions.shape), np.array([0.05, 0.05]))
    assert found[:, 0] == pytest.approx([0.0, -3.3, 0.05, -3.35], abs=0.02)
    assert found[:, 1] == pytest.approx([0.5] * 4, abs=0.01)


def test_no_rest_in_a_log_that_never_rests() -> None:
    stamps = np.arange(500) / 100
    assert resting(stamps, np.sin(3 * stamps)[:, None], np.array([0.02])).shape == (0, 1)
    assert resting(np.zeros(0), np.zeros((0, 3)), np.full(3, 0.1)).shape == (0, 3)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=80), st.floats(0.01, 1.0))
def test_what_counts_as_rest_lies_within_what_was_read(values: list[float], tolerance: float) -> None:
    column = np.array(values)[:, None]
    found = resting(np.arange(len(values)) * 0.1, column, np.array([tolerance]))
    assert len(found) <= len(values) // 5 + 1
    assert all(column.min() <= value <= column.max() for value in found[:, 0])


# Grippers


def readings(closed: list[float], opened: list[float]) -> tuple[float, float, float]:
    found, spread = gripper_readings(np.array(closed), np.array(opened), GRIPPER)
    return found.closed, found.open, spread


def test_readings_are_the_middle_of_the_repeats() -> None:
    assert readings([0.03, 0.05, 0.04], [-3.31, -3.33, -3.32]) == pytest.approx((0.04, -3.32, 0.02))
    assert readings([0.0], [-3.4]) == (0.0, -3.4, 0.0)


@pytest.mark.parametrize(
    ("closed", "opened", "text"),
    [
        ([], [-3.4], "got no reading at rest while closed"),
        ([0.0], [], "got no reading at rest while open"),
        ([-1.0], [-1.0], "did it move?"),
        ([0.0], [-0.1], "did it move?"),
        ([-3.4], [0.0], "were the two confused, or is it another generation of gripper?"),
        ([0.0], [5.0], "were the two confused, or is it another generation of gripper?"),
        ([0.0], [-1.2], "open and close it fully"),
        ([0.0], [-5.3], "choose the profile of this generation of gripper"),
        ([0.0, -0.3], [-3.4], "was something between the fingers?"),
        ([0.0], [-3.4, -3.1], "was something between the fingers?"),
    ],
)
def test_readings_that_cannot_be(closed: list[float], opened: list[float], text: str) -> None:
    said = sentence(lambda: readings(closed, opened))
    assert said.startswith("gripper 'gripper': got ") and text in said


def test_the_ends_of_a_log() -> None:
    closed, opened = ends_of(np.array([0.02, -3.35, -1.7, 0.04, -3.33]), GRIPPER)
    assert closed.tolist() == [0.02, 0.04] and opened.tolist() == [-3.35, -3.33]
    turned = GRIPPER.model_copy(update={"open": 5.0})
    assert ends_of(np.array([0.02, 4.9]), turned)[1].tolist() == [4.9]
    assert len(ends_of(np.zeros(0), GRIPPER)[0]) == 0


# Joint zeros


def zeros(readings: list[list[float]], **reference_rad: float) -> tuple[dict[str, float], dict[str, float]]:
    return joint_zeros(np.array(readings), reference_rad, PROFILE)


def test_offsets_are_readings_minus_the_truth() -> None:
    offsets, spreads = zeros([[0.012, 1.03, -1], [0.010, 1.028, -2], [0.011, 1.032, 0]], shoulder=0.0, elbow=1.0)
    assert offsets == pytest.approx({"shoulder": 0.011, "elbow": 0.03}) and spreads == pytest.approx({"shoulder": 0.002, "elbow": 0.004})
    assert set(zeros([[0.0, 9.0, 0.0]] * 3, shoulder=0.0)[0]) == {"shoulder"}, "joints without a reference are left alone"


@pytest.mark.parametrize(
    ("values", "reference_rad", "text"),
    [
        ([[0.0, 1.0, 0.0]] * 2, {"elbow": 1.0}, "got 2 readings at rest, expected 3 or more"),
        ([[0.0, 1.0, 0.0], [0.0, 1.03, 0.0], [0.0, 1.0, 0.0]], {"elbow": 1.0}, "'elbow' read 1.0000 to 1.0300 in the same pose"),
        ([[0.0, 1.3, 0.0]] * 3, {"elbow": 1.0}, "'elbow' reads +0.300 rad beside its reference"),
        ([[0.0, 1.0, 0.0]] * 3, {"gripper": 0.0}, "got a reference for 'gripper', expected an arm joint: shoulder, elbow"),
        ([[0.0, 1.0, 0.0]] * 3, {}, "got no joint with a reference"),
    ],
)
def test_zeros_that_cannot_be(values: list[list[float]], reference_rad: dict[str, float], text: str) -> None:
    assert text in sentence(lambda: zeros(values, **reference_rad))
