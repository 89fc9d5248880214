"""`make-nano --robot`: an untrained checkpoint that fits a robot's profile and hardly moves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from internvla_a1_ros.cli.make_nano import make_nano
from internvla_a1_ros.cli.make_nano_robot import manifest_of, statistics_of, write_manifest
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Frame, JointState, Observation
from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.files import read_json
from internvla_a1_ros.model.writing import write_json
from internvla_a1_ros.policy.agreement import check_robot_type, check_statistics
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.robots.profile import RobotProfile, load_profile, profile_names
from internvla_a1_ros.runtime.deployment import models_folder


def settled(name: str) -> RobotProfile:
    """A profile that leaves nothing to find out."""
    profile = load_profile(name)
    joints = [joint.model_copy(update={"commanded": None}) if joint.commanded == "required" else joint for joint in profile.joints]
    return profile.model_copy(update={"joints": tuple(joints)})


@pytest.mark.parametrize("name", profile_names())
def test_statistics_and_manifest_agree_with_every_profile(name: str, tmp_path: Path) -> None:
    profile = settled(name)
    write_manifest(tmp_path / "manifest.yaml", manifest_of(profile, "a test", "Wait."))
    write_json(tmp_path / "stats.json", statistics_of(profile, 0.3, 0.01))
    manifest = load_manifest(tmp_path)
    check_robot_type(manifest, profile)
    statistics = StatisticsFile(tmp_path / "stats.json").of(manifest.robot_type)
    check_statistics(statistics, profile.dof, profile)
    assert (statistics.state.minimum <= statistics.state.mean).all() and (statistics.state.mean <= statistics.state.maximum).all()
    assert (statistics.action.minimum <= statistics.action.mean).all() and (statistics.action.mean <= statistics.action.maximum).all()


def test_labels_of_arx_recordings_are_the_next_state_and_others_are_not() -> None:
    assert manifest_of(load_profile("arx_lift2"), "", "Wait.").actions.offset == 1
    assert manifest_of(settled("genie1"), "", "Wait.").actions.offset == 0


def test_a_policy_of_sixteen_joints_plans_about_where_they_are(tmp_path: Path) -> None:
    make_nano(tmp_path / "nano_genie1", 0, robot="genie1")
    profile = settled("genie1")
    policy = load_policy(tmp_path / "nano_genie1", profile, "genie", threads=1)
    state = profile.ready_from((profile.lower + profile.upper) / 2)
    frames = tuple(Frame(camera.name, 0, 0, np.full((48, 64, 3), 90, np.uint8)) for camera in profile.cameras)
    plan = policy.infer(Observation(0, frames, frames, JointState(0, state), 0), "Wait.").chunk.positions
    arms = ~profile.is_gripper
    assert plan.shape == (50, 16) and np.abs(plan - state)[:, arms].max() < 0.04 and np.ptp(plan[:, arms], axis=0).min() > 0
    assert (plan[:, ~arms] > -0.1).all() and (plan[:, ~arms] < 0.3).all(), "grippers near open, 0"
    card = (tmp_path / "nano_genie1" / "README.md").read_text()
    assert "--seed 0 --robot genie1`" in card and "genie1, 16 joints" in card
    assert read_json(tmp_path / "nano_genie1" / "config.json")["output_features"]["action"]["shape"] == [16]


def test_a_model_that_sees_already_is_drawn_around_what_was_taught(tmp_path: Path) -> None:
    shipped = str(models_folder() / "nano")
    make_nano(tmp_path / "drawn", 0)
    make_nano(tmp_path / "seeing", 0, autoencoder=shipped, vision=shipped)
    drawn, seeing, taught = (load_model(folder).state_dict() for folder in (tmp_path / "drawn", tmp_path / "seeing", Path(shipped)))
    fitted = {"action_out_proj.weight", "action_out_proj.bias"}
    for name in drawn.keys() - fitted:
        sees = name.startswith(("cosmos.", "understanding.vision."))
        assert torch.equal(seeing[name], (taught if sees else drawn)[name]), name
    assert not torch.equal(drawn["action_out_proj.weight"], seeing["action_out_proj.weight"]), "calm again, whatever it sees"
    card = (tmp_path / "seeing" / "README.md").read_text()
    assert f"--autoencoder {shipped} --vision {shipped}`" in card and f"Its vision is that of `{shipped}`." in card


def test_parts_of_other_sizes_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--vision: '.*nano' has picture .* \(expected \(112, 112\)\), .*patch 8 \(expected 14\)"):
        make_nano(tmp_path / "out", 0, layout="2b", vision="nano")
    with pytest.raises(ConfigurationError, match="checkpoint 'nano2': no such folder, did you mean 'nano'"):
        make_nano(tmp_path / "out", 0, autoencoder="nano2")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_made_is_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown robot 'genie2', did you mean 'genie1'"):
        make_nano(tmp_path / "out", 0, robot="genie2")
    path = tmp_path / "open.yaml"
    path.write_text(
        yaml.safe_dump({"base": "genie1", "grippers": [{"joint": "left_gripper_joint1", "state": "required"}]}), encoding="utf-8"
    )
    with pytest.raises(ConfigurationError, match="state and action of gripper 'left_gripper_joint1' are required"):
        make_nano(tmp_path / "out", 0, robot=str(path))
    assert not (tmp_path / "out").exists()
