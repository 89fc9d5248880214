"""Profiles of every robot that ships: units between wire, robot and model, what is required, and profiles that rest on others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_rig import small_document

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.policy.agreement import check_statistics
from internvla_a1_ros.policy.grippers import GripperMap
from internvla_a1_ros.policy.statistics import Moments, Statistics, layout_of
from internvla_a1_ros.robots.document import overlaid
from internvla_a1_ros.robots.profile import PROFILE_FOLDER, RobotProfile, load_profile, load_usable_profile, profile_names
from internvla_a1_ros.robots.wires import FOLLOW_TRAJECTORY, TRAJECTORY, Command


def written(tmp_path: Path, document: Any, name: str = "robot.yaml") -> Path:
    path = tmp_path / name
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def settled(tmp_path: Path) -> RobotProfile:
    """A Genie-1 whose owner found out that its grippers want 0 to 120."""
    joints = [{"name": f"{side}_gripper_joint1", "commanded": {"scale": 120.0}} for side in ("left", "right")]
    return load_usable_profile(written(tmp_path, {"base": "genie1", "joints": joints}))


@pytest.mark.parametrize("name", profile_names())
def test_what_ships_is_sane(name: str) -> None:
    profile = load_profile(name)
    assert profile.dof in (14, 16) and [camera.name for camera in profile.cameras] == ["head", "left", "right"]
    arms = ~profile.is_gripper
    assert (profile.max_velocity[arms] <= 1.5).all()
    assert (profile.stop_acceleration >= profile.max_acceleration).all()
    for dataset in profile.datasets:
        for robot_type in dataset.robot_types:
            layout = layout_of(robot_type)
            assert (dataset.state_keys, dataset.action_keys, dataset.image_keys) == (
                layout.state_keys,
                layout.action_keys,
                layout.camera_keys,
            )


def test_the_robots_of_both_generations_differ_where_they_should() -> None:
    old, new, one = (load_profile(name) for name in ("arx_lift2", "arx_lift2s", "arx_ac_one"))
    assert [command.type for command in old.commands] == ["arm_control/msg/JointControl"] * 2
    assert [command.topic for command in new.commands] == [command.topic for command in one.commands]
    assert (old.lower[6], old.upper[6]) == (0.0, 5.0) and (new.lower[6], new.upper[6]) == (-3.4, 0.0)
    assert (old.lower[:6] == one.lower[:6]).all() and old.joint_names == one.joint_names
    assert old.grippers[0].open == 5.0 and old.dataset.robot_types == new.dataset.robot_types == ("ARX Lift-2", "arx_lift2")


def test_statistics_of_one_generation_are_refused_by_the_other() -> None:
    def recorded(low: float, high: float) -> Statistics:
        minimum, maximum = np.full(14, -0.1), np.full(14, 0.1)
        minimum[[6, 13]], maximum[[6, 13]] = low, high
        moments = Moments(minimum, np.ones(14), minimum, maximum)
        return Statistics("arx_lift2", moments, moments)

    check_statistics(recorded(0.0, 4.9), 14, load_profile("arx_lift2"))
    check_statistics(recorded(-3.3, 0.0), 14, load_profile("arx_lift2s"))
    for name, ends in (("arx_lift2", (-3.3, 0.0)), ("arx_lift2s", (0.0, 4.9))):
        with pytest.raises(ConfigurationError, match="another generation of gripper"):
            check_statistics(recorded(*ends), 14, load_profile(name))


def test_what_is_contested_must_be_found_out() -> None:
    profile = load_profile("genie1")  # can be looked at
    sentence = r"^robot 'genie1': commanded of joint 'left_gripper_joint1', .* is required .*: with the arm"
    with pytest.raises(ConfigurationError, match=sentence):
        load_usable_profile("genie1")
    for use in (lambda: profile.commanded, lambda: GripperMap(profile)):
        with pytest.raises(ConfigurationError, match="is required and has no default"):
            use()


def test_genie1_grippers_travel_in_three_units(tmp_path: Path) -> None:
    profile = settled(tmp_path)
    scale, offset = profile.measured
    millimetres = np.array([35.0, 75.5, 116.0])
    positions = millimetres * scale[14] + offset[14]
    assert positions == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)
    grippers = GripperMap(profile)
    for mm, position in zip(millimetres, positions, strict=True):
        assert grippers.state(np.full(16, position))[14] == pytest.approx(mm, abs=1e-4), "the model was trained on millimetres"
    assert grippers.action(np.full((1, 16), 0.25))[0, 14] == 0.25, "and answers 0 open to 1 closed"
    scale, offset = profile.commanded
    assert scale[14] * 0.25 + offset[14] == 30.0
    assert scale[:14].tolist() == [1.0] * 14


def test_a_sign_and_a_zero_go_both_ways() -> None:
    document = small_document()
    document["joints"][0]["measured"] = {"scale": -1.0, "offset": 0.1}
    profile = RobotProfile.model_validate(document)
    (scale, offset), (back, shift) = profile.measured, profile.commanded
    wire = np.array([0.3, 0.3, -1.0])
    position = wire * scale + offset
    assert position.tolist() == pytest.approx([-0.2, 0.3, -1.0])
    assert position * back + shift == pytest.approx(wire)


def test_a_gripper_of_two_places_and_one_the_model_never_saw() -> None:
    document = small_document()
    document["grippers"] = [{"joint": "gripper", "closed": 0.0, "open": -3.4, "binarize": 0.5, "zero_state": True}]
    grippers = GripperMap(RobotProfile.model_validate(document))
    assert grippers.state(np.array([0.1, 0.2, -3.0])).tolist() == [0.1, 0.2, 0.0]
    assert grippers.action(np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.5], [0.1, 0.2, 0.6]]))[:, 2].tolist() == [0.0, 0.0, -3.4]
    document["grippers"][0]["above"] = "closed"
    grippers = GripperMap(RobotProfile.model_validate(document))
    assert grippers.action(np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.6]]))[:, 2].tolist() == [-3.4, 0.0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"commanded": "requird"}, "joints.14.commanded: got 'requird', expected: input should be 'required'"),
        ({"commanded": {"scle": 2.0}}, "unknown key 'joints.14.commanded.scle', did you mean 'scale'?"),
        ({"commanded": {"scale": 0.0}}, "joints.14.commanded: scale: got 0, expected a number that can be divided by"),
        ({"home": 2.0}, "joints.14: joint 'left_gripper_joint1': got home 2.0, expected 0.0 to 1.0"),
    ],
)
def test_a_mistake_in_what_is_laid_over_is_one_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = written(tmp_path, {"base": "genie1", "joints": [{"name": "left_gripper_joint1", **change}]})
    with pytest.raises(ConfigurationError) as caught:
        load_profile(path)
    assert str(caught.value) == f"{path}: {sentence}"


def test_a_profile_may_say_only_what_differs(tmp_path: Path) -> None:
    written(tmp_path, {"base": "arx_ac_one", "name": "ours", "control_rate_hz": 120}, "ours.yaml")
    second = written(tmp_path, {"base": "./ours.yaml", "cameras": [{"name": "left", "optional": True}]}, "second.yaml")
    profile = load_profile(second)
    assert (profile.name, profile.control_rate_hz) == ("ours", 120)
    assert [camera.optional for camera in profile.cameras] == [False, True, False]


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    circle = tmp_path / "robot.yaml"
    for base, sentence in (
        ("arx_ac_on", "unknown robot 'arx_ac_on', did you mean 'arx_ac_one'?"),
        (str(circle), f"{circle}: base: got '{circle}', which rests on this file itself"),
        (3, f"{circle}: base: got 3, expected the name of a profile or the path of a YAML file"),
    ):
        written(tmp_path, {"base": base})
        with pytest.raises(ConfigurationError) as caught:
            load_profile(circle)
        assert str(caught.value).startswith(sentence)


def test_laying_over_replaces_what_has_no_name_and_keeps_a_name_given_twice() -> None:
    assert overlaid({"a": [1, 2], "b": {"c": 1, "d": 2}}, {"a": [3], "b": {"c": 5}}) == {"a": [3], "b": {"c": 5, "d": 2}}
    named = [{"name": "x", "v": 1}, {"name": "y", "v": 2}]
    assert overlaid(named, [{"name": "y", "v": 3}, {"name": "z"}]) == [named[0], {"name": "y", "v": 3}, {"name": "z"}]
    assert overlaid(named, [{"name": "y"}, {"name": "y"}]) == [{"name": "y"}, {"name": "y"}]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ({"type": "control_msgs/action/Gripper"}, "got action 'control_msgs/action/Gripper', expected control_msgs/action/Follow"),
        ({"type": "some_msgs/msg/State", "field": "joint_pos", "every": 2}, "every: got 2, expected 1: set-points are sent each tick"),
        ({"type": "trajectory_msgs/msg/JointTrajectory", "every": 5}, "got lead_s 0.02, expected at least 0.05, the time until the"),
    ],
)
def test_a_command_that_cannot_be_sent_is_refused(tmp_path: Path, command: dict[str, Any], sentence: str) -> None:
    document = small_document()
    document["commands"] = [{"topic": "/command", "joints": ["shoulder", "elbow", "gripper"], **command}]
    with pytest.raises(ConfigurationError) as caught:
        load_profile(written(tmp_path, document))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("topic", "kind", "doors"),
    [
        ("/arm/joint_trajectory", TRAJECTORY, [("/arm/joint_trajectory", False), ("/arm/follow_joint_trajectory", True)]),
        ("/arm/follow_joint_trajectory", FOLLOW_TRAJECTORY, [("/arm/follow_joint_trajectory", True), ("/arm/joint_trajectory", False)]),
        ("/arm/other", TRAJECTORY, [("/arm/other", False)]),  # no name of ros2_control's
        ("/arm/joint_trajectory", "some_msgs/msg/Points", [("/arm/joint_trajectory", False)]),  # not one of its controllers
    ],
)
def test_a_controller_obeys_its_topic_and_its_action(topic: str, kind: str, doors: list[tuple[str, bool]]) -> None:
    assert list(Command(topic=topic, type=kind, joints=("a",)).doors) == doors


def test_the_schema_for_editors_is_the_models() -> None:
    kept = json.loads((PROFILE_FOLDER / "profile.schema.json").read_text(encoding="utf-8"))
    assert kept == RobotProfile.editor_schema(), "write it anew: internvla-a1 robots --schema > internvla_a1_ros/robots/profile.schema.json"
