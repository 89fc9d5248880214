"""Robot profiles: the one that ships, and every way of writing one wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_rig import small_document

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.profile import PROFILE_FOLDER, load_profile, profile_names


def refusal(tmp_path: Path, document: Any) -> str:
    """Return the sentence with which a document is refused, without the file's name."""
    path = tmp_path / "robot.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_profile(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text[len(str(path)) :].removeprefix(": ")


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(small_document())
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


def test_arx_ac_one() -> None:
    profile = load_profile("arx_ac_one")
    assert profile.dof == 14
    assert profile.joint_names[6] == "left_gripper" and profile.joint_names[13] == "right_gripper"
    assert profile.lower[[0, 1, 6]].tolist() == [-3.14, -0.05, -3.4]
    assert profile.upper[[0, 1, 6]].tolist() == [2.618, 3.5, 0.0]
    assert (profile.max_velocity[~profile.is_gripper] <= 1.5).all()
    assert profile.is_delta.tolist() == ([True] * 6 + [False]) * 2
    assert [topic.topic for topic in profile.commands] == ["/arm_master_l_status", "/arm_master_r_status"]
    assert [topic.topic for topic in profile.states] == ["/arm_slave_l_status", "/arm_slave_r_status"]
    assert [camera.name for camera in profile.cameras] == ["head", "left", "right"]
    assert "ARX AC One" in profile.dataset.robot_types
    assert profile.dt_ns == 10_000_000
    assert np.isinf(profile.max_tracking_error[6]) and profile.max_tracking_error[0] == 0.35


def test_the_stop_limits_come_to_rest_as_fast_as_promised() -> None:
    profile = load_profile("arx_ac_one")
    speeds = np.linspace(0.5, profile.max_velocity[0], 11)
    to_rest = speeds / profile.stop_acceleration[0] + profile.stop_acceleration[0] / profile.stop_jerk[0]
    assert (to_rest / (speeds / profile.stop_acceleration[0]) <= 1.2).all()


def test_every_profile_that_ships_loads() -> None:
    assert "arx_ac_one" in profile_names()
    for name in profile_names():
        assert load_profile(name).name == name


def test_vectors_are_computed_once_and_cannot_be_written() -> None:
    profile = load_profile("arx_ac_one")
    assert profile.lower is profile.lower
    with pytest.raises(ValueError, match="read-only"):
        profile.lower[0] = 0.0


def test_ready_pose_leaves_the_grippers_where_they_are() -> None:
    profile = load_profile("arx_ac_one")
    ready = profile.ready_from(np.full(14, -0.7))
    assert ready[:7].tolist() == [0.0, 0.948, 0.858, -0.573, 0.0, 0.0, -0.7]


def test_unknown_robot_suggests_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"^unknown robot 'arx_ac_on', did you mean 'arx_ac_one'\? \(known: "):
        load_profile("arx_ac_on")


def test_a_path_is_read_as_a_path(tmp_path: Path) -> None:
    copied = tmp_path / "mine.yaml"
    copied.write_text((PROFILE_FOLDER / "arx_ac_one.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load_profile(copied).dof == 14
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_profile(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("control_rate_hz",), 30, "control_rate_hz: got 30, expected: input should be greater than or equal to 60"),
        (("control_rate_hz",), 201, "control_rate_hz: got 201, expected: input should be less than or equal to 200"),
        (("cameras", 0, "rate_hz"), 0, "cameras.0.rate_hz: got 0, expected: input should be greater than 0"),
        (("cameras", 0, "rate_hz"), -30, "cameras.0.rate_hz: got -30, expected: input should be greater than 0"),
        (("max_state_age_s",), 0, "max_state_age_s: got 0, expected: input should be greater than 0"),
        (("max_open_loop_s",), float("nan"), "max_open_loop_s: got nan, expected: input should be a finite number"),
        (("joints", 0, "lower"), float("-inf"), "joints.0.lower: got -inf, expected: input should be a finite number"),
        (("joints", 0, "lower"), 2.0, "joints.0: joint 'shoulder': got lower 2.0 and upper 2.0, expected lower below upper"),
        (("joints", 0, "ready"), 2.1, "joints.0: joint 'shoulder': got ready 2.1, expected -1.0 to 2.0"),
        (("joints", 0, "name"), "elbow", "joints: got joint 'elbow' twice, expected it once"),
        (("joints", 0, "kind"), "leg", "joints.0.kind: got 'leg', expected: input should be 'arm' or 'gripper'"),
        (("joints", 0, "uper"), 2.0, "unknown key 'joints.0.uper', did you mean 'upper'?"),
        (("vendr",), "x", "unknown key 'vendr', did you mean 'vendor'?"),
        (("motion", "arm", "max_jrk"), 1.0, "unknown key 'motion.arm.max_jrk', did you mean 'max_jerk'?"),
        (("motion", "arm", "max_jerk"), 0.0, "motion.arm.max_jerk: got 0.0, expected: input should be greater than 0"),
        (("motion", "arm", "stop_jerk"), 499.0, "motion.arm: stop_jerk: got 499.0, expected at least max_jerk 500.0"),
        (
            ("motion", "arm", "stop_acceleration"),
            9.0,
            "motion.arm: stop_acceleration: got 9.0, expected at least max_acceleration 10.0",
        ),
        (("motion", "gripper"), None, "motion.gripper: got None, expected: input should be a valid dictionary or instance of Motion"),
        (("states", 0, "joints"), ["shoulder", "elbow"], "states: joint 'gripper' is missing"),
        (("states", 0, "joints"), ["shoulder", "elbow", "griper"], "states: got unknown joint 'griper', did you mean 'gripper'?"),
        (("commands", 0, "joints"), ["elbow"] * 3, "commands: got joint 'elbow' twice, expected it once"),
        (("commands", 0, "topic"), "no topic", "commands.0.topic: got 'no topic', expected: string should match pattern"),
        (("commands", 0, "type"), "Status", "commands.0.type: got 'Status', expected: string should match pattern"),
        (("cameras", 1, "name"), "head", "cameras: got camera 'head' twice, expected it once"),
        (("cameras", 1, "topic"), "/head", "cameras: got topic '/head' twice, expected it once"),
        (("cameras", 0, "optional"), True, "cameras.0: got optional camera 'head', expected a required one: its time is the observation's"),
        (("grippers",), [], "grippers: joint 'gripper' is missing"),
        (("grippers", 0, "joint"), "elbow", "grippers: got unknown joint 'elbow'"),
        (("grippers", 0, "state"), {"scale": 0.0}, "grippers.0.state: scale: got 0, expected a number that can be divided by"),
        (("dataset", "delta_mask"), [2, -2], "dataset.delta_mask: got [2, -2], expected runs that add up to 3 joints"),
        (("dataset", "image_keys"), ["images.head"], "dataset.image_keys: got 1 keys, expected 2, one for each camera"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, path: tuple[str | int, ...], value: Any, sentence: str) -> None:
    assert refusal(tmp_path, changed(*path, value=value)).startswith(sentence)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    document = small_document()
    del document["actuation_delay_s"]
    assert refusal(tmp_path, document) == "key 'actuation_delay_s' is missing"


def test_a_misspelled_key_is_reported_before_the_missing_one(tmp_path: Path) -> None:
    document = small_document()
    document["actuation_delay"] = document.pop("actuation_delay_s")
    assert refusal(tmp_path, document) == "unknown key 'actuation_delay', did you mean 'actuation_delay_s'?"


def test_a_kind_without_motion_is_named(tmp_path: Path) -> None:
    document = small_document()
    del document["motion"]["gripper"]
    assert refusal(tmp_path, document) == "motion: got none for kind 'gripper', expected limits for joint 'gripper'"


def test_a_joint_may_have_motion_of_its_own(tmp_path: Path) -> None:
    document = small_document()
    document["joints"][1]["motion"] = {**document["motion"]["arm"], "max_velocity": 0.7}
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert load_profile(path).max_velocity.tolist() == [1.5, 0.7, 12.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", ", line 1: not YAML: "),
        ("- 1\n", "got list, expected keys and values"),
        ("", "got NoneType, expected keys and values"),
        ("name: a\nvendor: b\nname: c\n", ", line 3: not YAML: got key 'name' twice, expected it once"),
    ],
)
def test_a_file_that_is_no_document(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text).startswith(sentence)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_profile(path)
