"""Where a camera is, from simulated hand poses and noisy corners: within 3 mm and half a degree, or refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from calibration_scene import BOARD, DISTORTION, Camera, facing, hand_eye_scene, sighted
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.commissioning import hand_eye
from internvla_a1_ros.commissioning.charuco import Sighting, pose_of_board
from internvla_a1_ros.commissioning.hand_eye import HandEyeFit, fit_hand_eye
from internvla_a1_ros.commissioning.poses import distance, from_quaternion, from_rpy, inverse, pose, quaternion_xyzw
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray

CAMERA = Camera()


def fit(hands: FloatArray, sightings: list[Sighting], *, on_hand: bool = True) -> HandEyeFit:
    return fit_hand_eye(hands, sightings, BOARD, CAMERA.matrix, DISTORTION, on_hand=on_hand)


@pytest.mark.parametrize("on_hand", [True, False], ids=["on the hand", "beside the arm"])
@pytest.mark.parametrize("seed", range(8))
def test_the_camera_is_found_within_3_mm_and_half_a_degree(seed: int, on_hand: bool) -> None:
    rng = np.random.default_rng(seed)
    hands, sightings, truth = hand_eye_scene(rng, CAMERA, 15, on_hand=on_hand, noise_px=0.4, arm_noise_m=0.0005)
    found = fit(hands, sightings, on_hand=on_hand)
    off_m, off_rad = distance(found.parent_from_camera, truth)
    assert off_m < 0.003 and np.degrees(off_rad) < 0.5, (off_m, np.degrees(off_rad))
    assert found.off_m < 0.005 and found.used == 15


def test_without_noise_it_is_exact() -> None:
    hands, sightings, truth = hand_eye_scene(np.random.default_rng(5), CAMERA, 10, on_hand=True, noise_px=0.0)
    off_m, off_rad = distance(fit(hands, sightings).parent_from_camera, truth)
    assert off_m < 1e-6 and off_rad < 1e-6


def test_the_closed_form_is_opencvs() -> None:
    if not hasattr(cv2, "calibrateHandEye"):
        pytest.skip("this OpenCV has no calibrateHandEye for Python (5.0.0; opencv issue 29565)")
    hands, sightings, _ = hand_eye_scene(np.random.default_rng(6), CAMERA, 12, on_hand=True, noise_px=0.3)
    seen = np.stack([pose(*pose_of_board(each, BOARD, CAMERA.matrix, DISTORTION)) for each in sightings])
    turn, shift = cv2.calibrateHandEye(hands[:, :3, :3], hands[:, :3, 3], seen[:, :3, :3], seen[:, :3, 3], method=cv2.CALIB_HAND_EYE_PARK)
    found = hand_eye._closed_form(hands, seen)
    assert found[:3, :3] == pytest.approx(turn, abs=1e-6)
    assert found[:3, 3] == pytest.approx(shift.reshape(3), abs=2e-4), "in metres; OpenCV weighs the pairs otherwise"


def refusal(hands: FloatArray, sightings: list[Sighting]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        fit(hands, sightings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_too_few_poses_and_unequal_numbers() -> None:
    hands, sightings, _ = hand_eye_scene(np.random.default_rng(7), CAMERA, 12, on_hand=True)
    assert "got 9 poses with the board in view, expected at least 10" in refusal(hands[:9], sightings[:9])
    assert "got 12 poses for 11 pictures" in refusal(hands, sightings[:11])


def about_axes(seed: int, turns: list[FloatArray]) -> tuple[FloatArray, list[Sighting]]:
    """Return a scene in which the hand takes the given turns about its first pose, the board in view throughout."""
    rng = np.random.default_rng(seed)
    truth = pose(np.array([0.0, 0.0, 0.3]), np.array([0.03, 0.0, 0.05]))
    board = facing(rng, (0.0, 0.0, 0.5), 20.0)
    hands = np.array([pose(turn, rng.uniform(-0.03, 0.03, 3)) for turn in turns])
    base_from_board = truth @ board
    return hands, [sighted(CAMERA, inverse(hand @ truth) @ base_from_board, rng, 0.2) for hand in hands]


def test_turns_about_one_axis_only() -> None:
    text = refusal(*about_axes(8, [np.array([0.0, 0.0, angle]) for angle in np.linspace(-0.6, 0.6, 14)]))
    assert "turned about one axis only" in text


def test_turns_too_small() -> None:
    rng = np.random.default_rng(9)
    text = refusal(*about_axes(9, [rng.uniform(-0.05, 0.05, 3) for _ in range(14)]))
    assert "degrees at most between the views, expected 20 or more" in text


def test_a_board_that_moved_half_way() -> None:
    hands, sightings, _ = hand_eye_scene(np.random.default_rng(10), CAMERA, 14, on_hand=True)
    hands[7:, :3, 3] += (0.05, 0.0, 0.0)
    assert "did the board move" in refusal(hands, sightings)


def test_poses_in_another_unit() -> None:
    hands, sightings, _ = hand_eye_scene(np.random.default_rng(11), CAMERA, 14, on_hand=True)
    hands[:, :3, 3] *= 1000.0
    assert "single views miss the answer" in refusal(hands, sightings)


numbers = st.floats(-1.5, 1.5)


@settings(deadline=None)
@given(st.tuples(*[numbers] * 3), st.tuples(*[numbers] * 3))
def test_a_pose_survives_its_quaternion_and_its_inverse(turn: tuple[float, ...], shift: tuple[float, ...]) -> None:
    made = pose(np.array(turn), np.array(shift))
    assert from_quaternion(made[:3, 3], np.array(quaternion_xyzw(made[:3, :3]))) == pytest.approx(made, abs=2e-5)
    assert inverse(made) @ made == pytest.approx(np.eye(4), abs=1e-12)
    assert np.linalg.norm(quaternion_xyzw(made[:3, :3])) == pytest.approx(1.0)


def test_roll_pitch_yaw_turn_about_fixed_axes() -> None:
    found = from_rpy(np.array([1.0, 2.0, 3.0, np.pi / 2, 0.0, np.pi / 2]))
    assert found[:3, 3].tolist() == [1.0, 2.0, 3.0]
    # y goes to z by the roll, and stays there; z goes to -y by the roll and to x by the yaw.
    assert found[:3, 1] == pytest.approx([0.0, 0.0, 1.0]) and found[:3, 2] == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)
