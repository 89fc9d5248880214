"""`internvla-a1 calibrate` from files: each kind end to end, each mistake in one sentence, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from calibration_scene import BOARD, DISTORTION, Camera, belt_picture, facing, guided_poses, render_board
from PIL import Image
from test_calibration_delays import angle, logs, pictures_of, stamps

from internvla_a1_ros.cli.calibrate_files import write_recording
from internvla_a1_ros.cli.calibrate_guide import console
from internvla_a1_ros.cli.main import main
from internvla_a1_ros.commissioning.calibration_file import (
    Belt,
    Calibration,
    Delays,
    Grippers,
    HandEye,
    Intrinsics,
    JointZeros,
    load_calibration,
    save_calibration,
)
from internvla_a1_ros.commissioning.charuco import Finder, Sighting
from internvla_a1_ros.commissioning.delays import Recording
from internvla_a1_ros.commissioning.poses import distance, from_quaternion, inverse, pose, rotation_vector
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.robots.profile import load_profile

NAMES = load_profile("arx_ac_one").joint_names
CAMERA = Camera(320, 240, 281.0, 279.0, 162.0, 118.0)


class Command:
    """`internvla-a1 calibrate` with a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Return exit code, what was printed and what was said on error."""
        common = () if words[0] == "board" else ("--folder", str(self.folder), "--instance", "cell_1")
        try:
            main(["calibrate", *words, *common])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def refused(self, *words: str) -> str:
        code, _, err = self(*words)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
        assert not list(self.folder.rglob("*.part"))
        return err.removeprefix("error: ").strip()

    def found(self, kind: str) -> Any:
        return load_calibration(self.folder, "cell_1", kind, datetime.now(timezone.utc))


@pytest.fixture
def calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "calibration", capsys)


def know_lens(calibrate: Command, camera: Camera = CAMERA) -> None:
    common: dict[str, Any] = {"robot": "cell_1", "profile": "arx_ac_one", "date": datetime.now(timezone.utc), "method": "known"}
    found = {"width": camera.width, "height": camera.height, "fx_px": camera.fx, "fy_px": camera.fy, "cx_px": camera.cx, "cy_px": camera.cy}
    lens = Intrinsics(**common, samples=1, residuals={}, camera="head", **found, distortion=tuple(DISTORTION.tolist()))
    save_calibration(calibrate.folder, lens)


def write_pictures(folder: Path, pictures: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture)
    return folder


@pytest.mark.parametrize("dpi", [100, 150])
def test_the_sheet_to_print_carries_the_whole_board_and_its_size(dpi: int, calibrate: Command, tmp_path: Path) -> None:
    code, said, _ = calibrate("board", str(tmp_path / "board.png"), "--dpi", str(dpi))
    assert code == 0 and "print at 100 %" in said
    sheet = np.asarray(Image.open(tmp_path / "board.png"))
    found = Finder(BOARD).find(sheet)
    assert isinstance(found, Sighting) and len(found.ids) == 40
    square_mm = np.diff(found.corners[:8, 0]).mean() / dpi * 25.4
    assert square_mm == pytest.approx(30.0, rel=0.005)
    assert calibrate("board", str(tmp_path / "board.pdf"))[0] == 0
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")


def test_intrinsics_from_pictures(calibrate: Command, tmp_path: Path) -> None:
    rng, camera = np.random.default_rng(1), Camera()
    rays = camera.rays
    pictures = {f"{k:02d}.png": render_board(camera, each, rng, rays) for k, each in enumerate(guided_poses(rng))}
    folder = write_pictures(tmp_path / "views", {**pictures, "99.png": np.full((480, 640), 99, np.uint8)})
    code, said, err = calibrate("intrinsics", "--camera", "head", "--images", str(folder))
    assert code == 0, err
    assert "picture covered" in said and "99.png: no board in the picture" in said and "residual reprojection_px" in said
    found = calibrate.found("intrinsics_head")
    assert isinstance(found, Intrinsics) and (found.width, found.height) == (640, 480)
    assert (found.fx_px, found.fy_px) == pytest.approx((camera.fx, camera.fy), rel=0.005)
    few = write_pictures(tmp_path / "few", dict(list(pictures.items())[:4]))
    before = (calibrate.folder / "cell_1" / "intrinsics_head.yaml").read_bytes()
    assert calibrate.refused("intrinsics", "--camera", "head", "--images", str(few)).startswith("intrinsics: got 4 different views")
    assert (calibrate.folder / "cell_1" / "intrinsics_head.yaml").read_bytes() == before


def rpy(hand: FloatArray) -> list[float]:
    """Return x y z roll pitch yaw of a pose."""
    r = hand[:3, :3]
    angles = [np.arctan2(r[2, 1], r[2, 2]), np.arcsin(-r[2, 0]), np.arctan2(r[1, 0], r[0, 0])]
    return [*hand[:3, 3], *angles]


@pytest.mark.parametrize("fixed", [False, True], ids=["on the hand", "beside the arm"])
def test_hand_eye_from_pictures(fixed: bool, calibrate: Command, tmp_path: Path) -> None:
    rng, rays = np.random.default_rng(2), CAMERA.rays
    know_lens(calibrate)
    truth, still = pose(np.array([0.3, -0.2, 0.9]), np.array([0.05, 0.02, 0.4])), pose(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.1, 0.0]))
    lines, pictures = ["picture,x,y,z,roll,pitch,yaw"], {}
    for k in range(14):
        seen = facing(rng, (0.0, 0.0, rng.uniform(0.32, 0.42)), rng.uniform(10, 40), 50.0)
        solved = still @ inverse(seen) @ inverse(truth)
        hand = inverse(solved) if fixed else solved
        pictures[f"{k}.png"] = render_board(CAMERA, seen, rng, rays)
        lines.append(",".join([f"{k}.png", *(f"{value:.7f}" for value in rpy(hand))]))
    (tmp_path / "poses.csv").write_text("\n".join(lines) + "\n")
    folder = write_pictures(tmp_path / "views", pictures)
    words = ["hand-eye", "--camera", "head", "--images", str(folder), "--poses", str(tmp_path / "poses.csv")]
    code, _, err = calibrate(*words, *(["--fixed"] if fixed else []))
    assert code == 0, err
    found = calibrate.found("hand_eye_head")
    assert isinstance(found, HandEye) and found.parent == ("left base" if fixed else "left hand")
    off_m, off_rad = distance(from_quaternion(np.array(found.position_m), np.array(found.quaternion_xyzw)), truth)
    assert off_m < 0.003 and np.degrees(off_rad) < 0.5
    if not fixed:  # taken the other way round the views do not agree
        assert "single views miss the answer" in calibrate.refused(*words, "--fixed")
        assert "got pictures without the hand's poses" in calibrate.refused(*words[:5])


def belt_film(speed_m_s: float, tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder of pictures named by time, of a belt that runs along the board's x, and a picture of the board on it."""
    rng, rays = np.random.default_rng(3), CAMERA.rays
    camera_from_board = pose(np.array([0.35, 0.15, 0.1]), np.array([-0.13, -0.08, 0.34]))
    belt = belt_picture(rng, 1.4, 1.4, 800)
    pictures = {}
    for k in range(16):
        at_s = k / 30
        picture = CAMERA.render(belt, 1 / 800, camera_from_board, rng, rays=rays, origin_m=(-0.7 + speed_m_s * at_s, -0.7))
        pictures[f"{round(1e18 + at_s * 1e9)}.png"] = picture
    plane = write_pictures(tmp_path, {"plane.png": render_board(CAMERA, camera_from_board, rng, rays)}) / "plane.png"
    return write_pictures(tmp_path / "belt", pictures), plane


def test_belt_from_pictures(calibrate: Command, tmp_path: Path) -> None:
    know_lens(calibrate)
    folder, plane = belt_film(0.12, tmp_path)
    code, _, err = calibrate("belt", "--camera", "head", "--images", str(folder), "--plane", str(plane))
    assert code == 0, err
    found = calibrate.found("belt_head")
    assert isinstance(found, Belt)
    assert found.speed_m_s == pytest.approx(0.12, rel=0.03) and abs(found.heading_rad) < np.radians(2)
    (tmp_path / "points.csv").write_text("u_px,v_px,x_m,y_m\n10,10,0,0\n200,10,0.2,x\n")
    words = ("belt", "--camera", "head", "--images", str(folder))
    assert "line 3: got 'x' as y_m, expected a finite number" in calibrate.refused(*words, "--points", str(tmp_path / "points.csv"))
    assert "got pictures without the belt's plane" in calibrate.refused(*words)


def write_log(path: Path, levels: list[dict[str, float]]) -> str:
    """Write a 50 Hz log of all joints that rests for a second at each of the levels and moves for half a second between."""
    rows, now, place = [], 0.0, dict.fromkeys(NAMES, 0.1)
    rng = np.random.default_rng(4)
    for level in levels:
        goal = {**place, **level}
        for share in [*np.linspace(0, 1, 25), *[1.0] * 50]:
            values = [place[n] + share * (goal[n] - place[n]) + rng.normal(0, 0.0005) for n in NAMES]
            rows.append(",".join(f"{value:.6f}" for value in [now, *values]))
            now += 0.02
        place = goal
    path.write_text("\n".join([",".join(["time_s", *NAMES]), *rows]) + "\n")
    return str(path)


def test_grippers_from_a_log(calibrate: Command, tmp_path: Path) -> None:
    shut, wide = {"left_gripper": 0.03, "right_gripper": 0.05}, {"left_gripper": -3.31, "right_gripper": -3.5}
    code, _, err = calibrate("grippers", "--log", write_log(tmp_path / "log.csv", [shut, wide, shut, wide]))
    assert code == 0, err
    found = calibrate.found("grippers")
    assert isinstance(found, Grippers) and found.samples == 2
    assert (found.readings["left_gripper"].closed, found.readings["left_gripper"].open) == pytest.approx((0.03, -3.31), abs=0.002)
    assert (found.readings["right_gripper"].closed, found.readings["right_gripper"].open) == pytest.approx((0.05, -3.5), abs=0.002)
    alike = write_log(tmp_path / "alike.csv", [shut, {"right_gripper": -3.5}, shut])
    assert calibrate.refused("grippers", "--log", alike).endswith("did it move?")


def test_joint_zeros_from_a_log(calibrate: Command, tmp_path: Path) -> None:
    there, away = {"left_joint1": 0.52, "left_joint2": 1.01}, {"left_joint1": 0.9, "left_joint2": 0.6}
    words = ("joint-zeros", "--reference", "left_joint1=0.5, left_joint2=1.0", "--log")
    code, _, err = calibrate(*words, write_log(tmp_path / "log.csv", [there, away, there, away, there]))
    assert code == 0, err
    found = calibrate.found("joint_zeros")
    assert isinstance(found, JointZeros)
    assert found.offsets_rad == pytest.approx({"left_joint1": 0.02, "left_joint2": 0.01}, abs=0.001)
    assert "got 2 readings at rest, expected 3" in calibrate.refused(*words, write_log(tmp_path / "two.csv", [there, away, there, away]))


def test_delays_from_recordings(calibrate: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    command_s, commanded, joint_s, measured = logs(0.04, rng)
    commands, joints = np.full((len(command_s), 14), 0.1), np.full((len(joint_s), 14), 0.1)
    commands[:, 2], joints[:, 2] = commanded, measured
    picture_s = stamps(30, 0.002, rng)
    pictures = {"head": (picture_s, pictures_of(picture_s, 0.04 + 0.025, rng, part=True))}
    assert np.ptp(angle(picture_s)) > 0
    write_recording(tmp_path / "1.npz", Recording(NAMES, command_s, commands, joint_s, joints, pictures))
    code, said, err = calibrate("delays", "--camera", "head", "--log", str(tmp_path / "1.npz"))
    assert code == 0, err
    assert "actuation, left_joint3" in said and "camera head" in said
    found = calibrate.found("delays")
    assert isinstance(found, Delays)
    assert (found.actuation_s, found.cameras_s["head"]) == pytest.approx((0.04, 0.025), abs=0.005)
    assert "camera 'left': got no pictures" in calibrate.refused("delays", "--camera", "left", "--log", str(tmp_path / "1.npz"))
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    assert "bad.npz: " in calibrate.refused("delays", "--log", str(tmp_path / "bad.npz"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["intrinsics", "--camera", "heat", "--images", "."], "unknown camera 'heat', did you mean 'head'? (known: head, left, right)"),
        (["intrinsics", "--camera", "head", "--images", "/nowhere"], "/nowhere: no such folder, expected one with pictures"),
        (["intrinsics", "--camera", "head", "--board", "9by6"], "--board: got '9by6', expected columns x rows such as 9x6"),
        (["intrinsics", "--camera", "head", "--board", "30x30"], "--board, --square-mm: board: got 30 x 30 squares"),
        (["intrinsics", "--camera", "head", "--square-mm", "-3"], "--board, --square-mm: square_m: got -0.003"),
        (["hand-eye", "--camera", "head"], "intrinsics_head.yaml: cannot be read: No such file or directory"),
        (["belt", "--camera", "head"], "intrinsics_head.yaml: cannot be read: No such file or directory"),
        (["grippers", "--log", "/nowhere.csv"], "/nowhere.csv: cannot be read: No such file or directory"),
        (["grippers", "--robot", "arx_ac_on"], "unknown robot 'arx_ac_on', did you mean 'arx_ac_one'?"),
        (["joint-zeros", "--reference", "left_joint9=0"], "--reference: got joint 'left_joint9', did you mean 'left_joint"),
        (
            ["joint-zeros", "--reference", "left_joint1=low"],
            "--reference: got 'left_joint1=low', expected joint=rad such as left_joint1=0.5",
        ),
        (["delays", "--log", "/nowhere.npz"], "/nowhere.npz: cannot be read: No such file or directory"),
        (["board", "/nowhere/board.png"], "/nowhere/board.png: cannot be written: No such file or directory"),
        (["board", "board.svg"], "board.svg: got ending '.svg', expected .png or .pdf"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], text: str, calibrate: Command) -> None:
    assert text in calibrate.refused(*words)
    assert not calibrate.folder.exists()


def test_show_tells_age_and_residuals_and_ends_with_1_where_one_is_stale(calibrate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 220)
    know_lens(calibrate)
    common: dict[str, Any] = {"robot": "cell_1", "profile": "arx_ac_one", "method": "guided", "samples": 3, "residuals": {"sigma_s": 0.001}}
    old: Callable[[int], Calibration] = lambda days: Delays(  # noqa: E731
        **common, date=datetime.now(timezone.utc) - timedelta(days=days), actuation_s=0.04
    )
    save_calibration(calibrate.folder, old(20))
    code, said, _ = calibrate("show")
    assert code == 0 and "20.0 d" in said and "sigma_s 0.001" in said and "intrinsics_head" in said
    code, said, _ = calibrate("show", "--max-age-days", "10")
    assert code == 1 and "20.0 days old, allowed 10" in " ".join(said.split())


def test_interrupted_in_the_middle_nothing_is_written(calibrate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from internvla_a1_ros.commissioning import intrinsics as module

    rng, rays = np.random.default_rng(6), CAMERA.rays
    folder = write_pictures(tmp_path / "views", {"0.png": render_board(CAMERA, guided_poses(rng)[4], rng, rays)})

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Views, "verdict", ctrl_c)
    code, _, err = calibrate("intrinsics", "--camera", "head", "--images", str(folder))
    assert code != 0 and "Traceback" not in err
    assert not calibrate.folder.exists()


def test_no_roll_pitch_yaw_is_lost() -> None:
    """The test's own inverse of the poses file."""
    from internvla_a1_ros.commissioning.poses import from_rpy

    made = from_rpy(np.array([0.1, 0.2, 0.3, 0.4, -0.5, 0.6]))
    assert rpy(made) == pytest.approx([0.1, 0.2, 0.3, 0.4, -0.5, 0.6])
    assert np.linalg.norm(rotation_vector(made[:3, :3])) > 0.5


def test_an_instance_that_names_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", "grippers", "--instance", "../cell"])
    assert capsys.readouterr().err.startswith("error: --instance: got '../cell', expected letters, digits, _ and -")
