"""The guided steps, with an ear that makes its pictures and joints up: what is asked, what is refused, when it is enough."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_scene import BOARD, DISTORTION, Camera, belt_picture, facing, guided_poses, render_board
from test_calibration_cli import CAMERA, Command, know_lens, rpy

from internvla_a1_ros.cli import calibrate_cameras, calibrate_joints, calibrate_places
from internvla_a1_ros.commissioning.poses import distance, from_quaternion, inverse, pose
from internvla_a1_ros.core.types import ByteArray, FloatArray, Frame

RAYS = CAMERA.rays


class Ear:
    """Answers as the real one does; each question is a moment later than the one before."""

    def __init__(self, pictures: Iterator[ByteArray], hands: Iterable[tuple[FloatArray, float]] = ()) -> None:
        self._pictures, self._hands, self._now_ns = pictures, iter(hands), 0
        self.joints_come: Iterator[tuple[FloatArray, FloatArray]] = iter(())

    def now_ns(self) -> int:
        return self._now_ns

    def frame(self, camera: str, after_ns: int) -> Frame:
        assert camera == "head" and after_ns <= self._now_ns
        self._now_ns += 33_000_000
        picture = next(self._pictures)
        return Frame(camera, self._now_ns, self._now_ns, np.repeat(picture[:, :, None], 3, axis=2))

    def listen_to_hand(self, arm: str, field: str) -> None:
        assert (arm, field) == ("left", "end_pos")

    def hand_at(self, arm: str, at_ns: int) -> tuple[FloatArray, float]:
        assert at_ns == self._now_ns
        return next(self._hands)

    def film(self, camera: str, seconds: float) -> tuple[FloatArray, list[ByteArray]]:
        pictures = list(self._pictures)
        return np.arange(len(pictures)) / 30, pictures

    def joints(self, seconds: float) -> tuple[FloatArray, FloatArray]:
        return next(self.joints_come)


@pytest.fixture
def calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "calibration", capsys)


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ear, str], None]:
    """Let the verbs hear `ear`, and let somebody type `answers`."""

    def listen(ear: Ear, answers: str = "") -> None:
        @contextmanager
        def listening(*_: Any, **__: Any) -> Iterator[Ear]:
            yield ear

        for module in (calibrate_cameras, calibrate_joints, calibrate_places):
            monkeypatch.setattr(module, "listening", listening)
        monkeypatch.setattr("sys.stdin", io.StringIO(answers))

    return listen


def test_intrinsics_end_by_themselves_once_the_views_suffice(calibrate: Command, listen: Any) -> None:
    rng, camera = np.random.default_rng(1), Camera()
    rays = camera.rays
    offered = []

    def pictures() -> Iterator[ByteArray]:
        for k, place in enumerate(guided_poses(rng)):
            moving = facing(rng, (0.0, 0.0, 0.5), 20.0)
            yield render_board(camera, moving, rng, rays, blur_px=2.6 if k % 2 else 0.8)
            for _ in range(2):  # held still: taken at the second
                offered.append(k)
                yield render_board(camera, place, rng, rays)

    listen(Ear(pictures()))
    code, said, err = calibrate("intrinsics", "--camera", "head")
    assert code == 0, err
    assert calibrate.found("intrinsics_head").fx_px == pytest.approx(camera.fx, rel=0.005)
    assert 12 <= calibrate.found("intrinsics_head").samples <= len(offered) / 2
    assert "views" in said and "written: " in said


def hand_eye_steps(rng: np.random.Generator, truth: FloatArray) -> tuple[list[ByteArray], list[tuple[FloatArray, float]]]:
    """Return pictures and hand poses; at the third step there is no board, at the fourth the hand still swings."""
    still, pictures, hands = pose(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.1, 0.0])), [], []
    for k in range(17):
        seen = facing(rng, (0.0, 0.0, rng.uniform(0.32, 0.42)), rng.uniform(10, 40), 50.0)
        pictures.append(np.full((240, 320), 90, np.uint8) if k == 2 else render_board(CAMERA, seen, rng, RAYS))
        hands.append((np.array(rpy(still @ inverse(seen) @ inverse(truth))), 0.05 if k == 3 else 0.0002))
    return pictures, hands


def test_hand_eye_pose_by_pose(calibrate: Command, listen: Any) -> None:
    know_lens(calibrate)
    truth = pose(np.array([0.3, -0.2, 0.9]), np.array([0.05, 0.02, 0.1]))
    pictures, hands = hand_eye_steps(np.random.default_rng(2), truth)
    listen(Ear(iter(pictures), hands), "\n" * 17 + "q\n")
    code, said, err = calibrate("hand-eye", "--camera", "head")
    assert code == 0, err
    assert "no board in the picture" in said and "the hand moved by 50.0 mm: let it rest" in said
    assert "taken: 9 of 15" in said and "taken: 15; single views miss by" in said
    found = calibrate.found("hand_eye_head")
    assert found.samples == 15
    off_m, off_rad = distance(from_quaternion(np.array(found.position_m), np.array(found.quaternion_xyzw)), truth)
    assert off_m < 0.003 and np.degrees(off_rad) < 0.5


def test_nobody_there_to_answer(calibrate: Command, listen: Any) -> None:
    know_lens(calibrate)
    listen(Ear(iter(())))
    assert calibrate.refused("hand-eye", "--camera", "head").startswith("nobody answers at 'pose 1: ")


def test_a_lens_of_another_picture_size(calibrate: Command, listen: Any) -> None:
    know_lens(calibrate, Camera())
    pictures, hands = hand_eye_steps(np.random.default_rng(3), np.eye(4))
    listen(Ear(iter(pictures), hands), "\n")
    assert "got a picture of 320x240, expected 640x480 as in the intrinsics" in calibrate.refused("hand-eye", "--camera", "head")


def test_belt_board_first_then_belt(calibrate: Command, listen: Any) -> None:
    know_lens(calibrate)
    rng = np.random.default_rng(4)
    camera_from_board = pose(np.array([0.35, 0.15, 0.1]), np.array([-0.13, -0.08, 0.34]))
    belt = belt_picture(rng, 1.4, 1.4, 800)

    def pictures() -> Iterator[ByteArray]:
        yield render_board(CAMERA, camera_from_board, rng, RAYS)
        for k in range(14):
            yield CAMERA.render(belt, 1 / 800, camera_from_board, rng, rays=RAYS, origin_m=(-0.7, -0.7 - 0.1 * k / 30))

    listen(Ear(pictures()), "\n\n")
    code, said, err = calibrate("belt", "--camera", "head")
    assert code == 0, err
    assert "lay the board flat on it" in said and "let the belt run" in said
    found = calibrate.found("belt_head")
    assert found.speed_m_s == pytest.approx(0.1, rel=0.03) and np.degrees(found.heading_rad) == pytest.approx(-90, abs=2)
    assert str(BOARD) in found.method and DISTORTION.any()


def rest(gripper: float, *, moving: bool = False) -> tuple[FloatArray, FloatArray]:
    """Return 0.6 s of joints, the grippers at rest or moving, the left elbow moving throughout."""
    stamps = np.arange(60) / 100
    positions = np.full((60, 14), 0.1)
    positions[:, 2] += 0.5 * stamps
    positions[:, [6, 13]] = gripper + (2.0 * stamps[:, None] if moving else 0.0)
    return stamps, positions


def test_a_gripper_that_moves_is_asked_for_again_and_the_arm_may_move(calibrate: Command, listen: Any) -> None:
    ear = Ear(iter(()))
    ear.joints_come = iter([rest(0.02), rest(-2.0, moving=True), rest(-3.3)])
    listen(ear, "\n" * 3)
    code, said, err = calibrate("grippers", "--repeats", "1")
    assert code == 0, err
    assert said.count("1 of 1: open left_gripper and right_gripper fully") == 2 and "hold it still" in said
    assert calibrate.found("grippers").readings["right_gripper"].open == pytest.approx(-3.3)


def test_grippers_confused(calibrate: Command, listen: Any) -> None:
    ear = Ear(iter(()))
    ear.joints_come = iter([rest(-3.3), rest(0.02)])
    listen(ear, "\n" * 2)
    assert "were the two confused" in calibrate.refused("grippers", "--repeats", "1")
    assert not calibrate.folder.exists()


def test_joint_zeros_are_read_three_times(calibrate: Command, listen: Any) -> None:
    ear = Ear(iter(()))
    ear.joints_come = iter([rest(0.0)] * 3)
    listen(ear, "\n" * 3)
    code, said, err = calibrate("joint-zeros", "--reference", "right_joint2=0.09")
    assert code == 0, err
    assert "3 of 3: bring the arms into the reference pose anew" in said
    assert calibrate.found("joint_zeros").offsets_rad == pytest.approx({"right_joint2": 0.01})
