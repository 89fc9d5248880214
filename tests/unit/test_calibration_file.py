"""What calibration leaves behind: whose, how old, whole or not at all; and a profile with it applied."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_rig import small_document, small_profile
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.commissioning import application
from internvla_a1_ros.commissioning.application import applied, calibrated_profile
from internvla_a1_ros.commissioning.calibration_file import (
    KINDS,
    Belt,
    Calibration,
    Delays,
    GripperReadings,
    Grippers,
    HandEye,
    Intrinsics,
    JointZeros,
    load_calibration,
    present,
    save_calibration,
)
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots import document
from internvla_a1_ros.robots.profile import RobotProfile

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=timezone.utc)
COMMON: dict[str, Any] = {
    "robot": "cell_1", "profile": "small", "date": NOW, "method": "by hand", "samples": 12, "residuals": {"spread": 0.01}
}  # fmt: skip
GRIPPERS = Grippers(**COMMON, readings={"gripper": GripperReadings(closed=0.05, open=-3.3)})
ZEROS = JointZeros(**COMMON, offsets_rad={"elbow": 0.02})
DELAYS = Delays(**COMMON, actuation_s=0.042, cameras_s={"head": 0.031})
INTRINSICS = Intrinsics(
    **COMMON, camera="head", width=640, height=480, fx_px=600.0, fy_px=601.0, cx_px=320.0, cy_px=240.0, distortion=(0.1, 0, 0, 0, 0)
)
HAND_EYE = HandEye(**COMMON, camera="wrist", parent="left hand", position_m=(0.01, 0.02, 0.03), quaternion_xyzw=(0.0, 0.0, 0.6, 0.8))
BELT = Belt(**COMMON, camera="head", speed_m_s=0.08, heading_rad=round(np.pi, 4))
ALL: list[Calibration] = [INTRINSICS, HAND_EYE, GRIPPERS, ZEROS, DELAYS, BELT]


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("calibration", ALL, ids=lambda each: each.stem)
def test_what_is_written_is_read_again(calibration: Calibration, tmp_path: Path) -> None:
    path = save_calibration(tmp_path, calibration)
    assert path == tmp_path / "cell_1" / f"{calibration.stem}.yaml"
    assert load_calibration(tmp_path, "cell_1", calibration.stem, NOW) == calibration
    assert present(tmp_path, "cell_1") == [calibration.stem]
    assert "2026-11-25T12:00:00Z" in path.read_text()


def test_the_files_are_named_by_kind_and_camera() -> None:
    assert [each.stem for each in ALL] == ["intrinsics_head", "hand_eye_wrist", "grippers", "joint_zeros", "delays", "belt_head"]
    assert {type(each) for each in ALL} == set(KINDS.values())


def test_another_robots_is_refused(tmp_path: Path) -> None:
    path = save_calibration(tmp_path, GRIPPERS)
    (tmp_path / "cell_2").mkdir()
    copied = tmp_path / "cell_2" / "grippers.yaml"
    copied.write_bytes(path.read_bytes())
    said = sentence(lambda: load_calibration(tmp_path, "cell_2", "grippers", NOW))
    assert said == f"{copied}: got a calibration of robot 'cell_1', expected one of 'cell_2': calibrate this robot"


@pytest.mark.parametrize(("age", "ok"), [(timedelta(days=30), True), (timedelta(days=30, seconds=1), False), (timedelta(0), True)])
def test_a_stale_one_is_refused(age: timedelta, ok: bool, tmp_path: Path) -> None:
    path = save_calibration(tmp_path, HAND_EYE)

    def load() -> Calibration:
        return load_calibration(tmp_path, "cell_1", "hand_eye_wrist", NOW + age, timedelta(days=30))

    if ok:
        assert load() == HAND_EYE
    else:
        expected = "got a calibration of 2026-11-25, 30.0 days old, allowed 30: repeat `internvla-a1 calibrate hand-eye`"
        assert sentence(load) == f"{path}: {expected}"


def test_one_from_the_future_is_refused(tmp_path: Path) -> None:
    save_calibration(tmp_path, GRIPPERS)
    assert load_calibration(tmp_path, "cell_1", "grippers", NOW - timedelta(minutes=5))
    said = sentence(lambda: load_calibration(tmp_path, "cell_1", "grippers", NOW - timedelta(days=1)))
    assert "which is in the future" in said


def test_none_malformed_or_of_another_camera(tmp_path: Path) -> None:
    assert "grippers.yaml: cannot be read: No such file" in sentence(lambda: load_calibration(tmp_path, "cell_1", "grippers", NOW))
    said = sentence(lambda: load_calibration(tmp_path, "cell_1", "griper", NOW))
    assert said.startswith("unknown calibration 'griper', did you mean 'grippers'? (known: intrinsics_CAMERA, ")
    path = save_calibration(tmp_path, INTRINSICS)
    path.rename(path.with_name("intrinsics_wrist.yaml"))
    assert "got the calibration 'intrinsics_head', expected 'intrinsics_wrist'" in sentence(
        lambda: load_calibration(tmp_path, "cell_1", "intrinsics_wrist", NOW)
    )
    path.write_text("robot: cell_1\nprofil: small\n")
    assert "unknown key 'profil', did you mean 'profile'?" in sentence(lambda: load_calibration(tmp_path, "cell_1", "intrinsics_head", NOW))


@pytest.mark.parametrize(
    ("kind", "change", "text"),
    [
        (HandEye, {**HAND_EYE.model_dump(), "quaternion_xyzw": (0, 0, 0, 0.5)}, "expected a quaternion of length 1"),
        (Intrinsics, {**INTRINSICS.model_dump(), "fx_px": 0}, "greater than 0"),
        (Delays, {**DELAYS.model_dump(), "actuation_s": -0.001}, "greater than or equal to 0"),
        (Grippers, {**GRIPPERS.model_dump(), "date": datetime(2026, 1, 1)}, "timezone"),
        (Grippers, {**GRIPPERS.model_dump(), "robot": "../cell_2"}, "match pattern"),
        (Grippers, {**GRIPPERS.model_dump(), "readings": {"gripper": {"closed": 1.0, "open": 1.0}}}, "expected two readings"),
        (JointZeros, {**ZEROS.model_dump(), "offsets_rad": {"elbow": float("nan")}}, "finite"),
    ],
)
def test_numbers_that_cannot_be(kind: type[Calibration], change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        kind.model_validate(change)


# Writing


def test_the_former_file_is_kept_under_its_date(tmp_path: Path) -> None:
    newer = GRIPPERS.model_copy(update={"date": NOW + timedelta(hours=1), "samples": 13})
    newest = GRIPPERS.model_copy(update={"date": NOW + timedelta(hours=2), "samples": 14})
    for each in (GRIPPERS, newer, newest):
        save_calibration(tmp_path, each)
    folder = tmp_path / "cell_1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "grippers.2026-11-25T12-00-00Z.yaml", "grippers.2026-11-25T13-00-00Z.yaml", "grippers.yaml"
    ]  # fmt: skip
    assert "samples: 13" in (folder / "grippers.2026-11-25T13-00-00Z.yaml").read_text()
    assert load_calibration(tmp_path, "cell_1", "grippers", NOW + timedelta(hours=2)) == newest
    assert present(tmp_path, "cell_1") == ["grippers"]


def test_two_of_the_same_second_and_one_that_cannot_be_read_are_kept_too(tmp_path: Path) -> None:
    for samples in (1, 2, 3):
        save_calibration(tmp_path, GRIPPERS.model_copy(update={"samples": samples}))
    assert len(list((tmp_path / "cell_1").glob("grippers.2026-11-25T12-00-00Z*.yaml"))) == 2
    place = tmp_path / "cell_1" / "grippers.yaml"
    place.write_text("nonsense: [")
    os.utime(place, (0, 0))
    save_calibration(tmp_path, GRIPPERS)
    assert (tmp_path / "cell_1" / "grippers.1970-01-01T00-00-00Z.yaml").read_text() == "nonsense: ["


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_former_file_and_nothing_half(
    moment: str, problem: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_calibration(tmp_path, GRIPPERS)
    before = path.read_bytes()

    def stop(*_: object) -> None:
        raise problem

    monkeypatch.setattr(document.os, moment, stop)
    with pytest.raises(KeyboardInterrupt if problem is KeyboardInterrupt else ConfigurationError):
        save_calibration(tmp_path, GRIPPERS.model_copy(update={"samples": 99}))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["grippers.yaml"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cell_1").write_text("a file where a folder should be")
    assert sentence(lambda: save_calibration(tmp_path, GRIPPERS)).endswith("cell_1: cannot be made: File exists")


# A profile with it


def positions(profile: RobotProfile, told: list[float]) -> list[float]:
    """Return the positions of what a state topic said."""
    scale, offset = profile.measured
    return list(scale * np.array(told) + offset)


def told(profile: RobotProfile, positions: list[float]) -> list[float]:
    """Return what the command topic is told for positions."""
    scale, offset = profile.commanded
    return list(scale * np.array(positions) + offset)


def test_gripper_readings_become_the_profiles_closed_and_open() -> None:
    profile = small_profile()
    found = applied(profile, [GRIPPERS])
    assert positions(found, [0.5, 1.0, 0.05]) == pytest.approx([0.5, 1.0, 0.0])
    assert positions(found, [0.5, 1.0, -3.3]) == pytest.approx([0.5, 1.0, -3.4])
    assert told(found, [0.5, 1.0, -3.4]) == pytest.approx([0.5, 1.0, -3.3])
    assert found.grippers == profile.grippers and (found.lower == profile.lower).all(), "limits and maps are in positions"
    assert positions(profile, [0.5, 1.0, 0.05]) == [0.5, 1.0, 0.05], "the profile handed in is not touched"


def with_maps(joint: int, **maps: Any) -> RobotProfile:
    """Return the small profile with the wire's maps of one joint."""
    document = small_document()
    document["joints"][joint].update(maps)
    return RobotProfile.model_validate(document)


def test_a_gripper_command_in_another_unit_keeps_its_own_ends() -> None:
    profile = with_maps(2, measured={"scale": 0.1, "offset": -3.5}, commanded={"scale": -1 / 3.4})
    found = applied(profile, [GRIPPERS])
    assert positions(found, [0.0, 0.0, 35.5])[2] == pytest.approx(0.0) and positions(found, [0.0, 0.0, 2.0])[2] == pytest.approx(-3.4)
    assert told(found, [0.0, 0.0, -3.4])[2] == pytest.approx(1.0)


def test_joint_zeros_make_positions_true_and_commands_reach_them() -> None:
    profile = small_profile()
    found = applied(profile, [ZEROS])
    assert positions(found, [0.5, 1.02, -1.0]) == pytest.approx([0.5, 1.0, -1.0])
    assert told(found, [0.5, 1.0, -1.0]) == pytest.approx([0.5, 1.02, -1.0])
    assert (found.lower == profile.lower).all() and found.joints[1].ready == 1.0


@given(st.floats(-0.2, 0.2), st.floats(0.2, 3).map(lambda x: -x), st.floats(-2, 2), st.floats(-3, 3))
def test_whatever_the_wires_maps_are_a_command_comes_back_as_itself(offset: float, scale: float, shift: float, place: float) -> None:
    measured = {"scale": scale, "offset": shift}
    calibration = JointZeros(**COMMON, offsets_rad={"elbow": offset})
    for maps in ({"measured": measured}, {"measured": measured, "commanded": {"scale": 1 / scale, "offset": -shift / scale}}):
        found = applied(with_maps(1, **maps), [calibration])
        assert positions(found, told(found, [0.0, place, 0.0]))[1] == pytest.approx(place, abs=1e-9)
        # A joint told `x` before is told as much more now as its encoder reads too much, in the wire's unit.
        assert told(found, [0.0, place, 0.0])[1] == pytest.approx((place + offset - shift) / scale, abs=1e-9)


def test_delays_are_taken_over_and_unmeasured_cameras_keep_theirs() -> None:
    found = applied(small_profile(), [DELAYS])
    assert found.actuation_delay_s == 0.042
    assert [camera.delay_s for camera in found.cameras] == [0.031, 0.0]


def test_kinds_that_change_no_profile_are_passed_over() -> None:
    assert applied(small_profile(), [INTRINSICS, HAND_EYE, BELT]) == small_profile()


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        (GRIPPERS.model_copy(update={"profile": "arx_ac_one"}), "got one made with the profile 'arx_ac_one', expected 'small'"),
        (ZEROS.model_copy(update={"offsets_rad": {"elbo": 0.1}}), "got 'elbo', did you mean 'elbow'?"),
        (ZEROS.model_copy(update={"offsets_rad": {"gripper": 0.1}}), "got 'gripper', expected any of shoulder, elbow"),
        (DELAYS.model_copy(update={"cameras_s": {"heat": 0.1}}), "got 'heat', did you mean 'head'?"),
        (GRIPPERS.model_copy(update={"readings": {"elbow": GRIPPERS.readings["gripper"]}}), "got 'elbow', expected any of gripper"),
        (
            DELAYS.model_copy(update={"actuation_s": 0.9}),
            "profile 'small' with calibration 'delays' of 'cell_1': actuation_delay_s: got 0.9",
        ),
    ],
)
def test_a_calibration_that_does_not_fit_the_profile(calibration: Calibration, text: str) -> None:
    assert text in sentence(lambda: applied(small_profile(), [calibration]))


def test_a_profile_takes_what_lies_in_the_folder(tmp_path: Path) -> None:
    profile = small_profile()
    assert calibrated_profile(profile, tmp_path, "cell_1", NOW) == profile
    for each in ALL:
        save_calibration(tmp_path, each)
    found = calibrated_profile(profile, tmp_path, "cell_1", NOW)
    assert found.actuation_delay_s == 0.042 and found.cameras[0].delay_s == 0.031
    assert positions(found, [0.0, 1.02, -3.3]) == pytest.approx([0.0, 1.0, -3.4])
    stale = sentence(lambda: calibrated_profile(profile, tmp_path, "cell_1", NOW + timedelta(days=200)))
    assert "200.0 days old, allowed 180" in stale


def test_applying_loads_no_opencv_and_no_ros() -> None:
    """The command process may take its profile from here."""
    import subprocess
    import sys

    code = f"import sys, {application.__name__}\nassert not {{'cv2', 'rclpy', 'torch'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
