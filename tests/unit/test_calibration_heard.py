"""Joints as calibration hears them: each topic by its own stamps, commands in positions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_rig import small_document

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.nodes.calibration_joints import HeardJoints, commands_as_states
from internvla_a1_ros.robots.profile import RobotProfile, load_profile


def two_topics(**gripper: Any) -> RobotProfile:
    """Return the small robot with its gripper on a topic of its own, and what is said of the gripper's maps."""
    document = small_document()
    for key in ("states", "commands"):
        arm = {**document[key][0], "joints": ["shoulder", "elbow"]}
        document[key] = [arm, {**arm, "topic": f"{arm['topic']}_hand", "joints": ["gripper"]}]
    document["joints"][2].update(gripper)
    return RobotProfile.model_validate(document)


def says(*values: float) -> Any:
    return SimpleNamespace(joint_pos=list(values))


def test_each_topic_keeps_its_own_stamps() -> None:
    """A whole state as old as its oldest topic would have the arm's motion 4 ms early here."""
    heard = HeardJoints(two_topics())
    assert not heard.complete and heard.arrays()[1].shape == (0, 3)
    for k in range(50):
        now_ns = 10_000_000 * k
        heard.add(1, says(-1.0 - 0.01 * k), now_ns + 1_000_000)
        heard.add(0, says(np.sin(0.1 * k), 0.5), now_ns + 5_000_000)
    stamps, positions = heard.arrays()
    # The last of the arm is newer than anything of the gripper.
    assert stamps == pytest.approx((10.0 * np.arange(49) + 5.0) * 1e-3)
    assert positions[:, 0] == pytest.approx(np.sin(0.1 * np.arange(49)))
    assert positions[:, 2] == pytest.approx(-1.0 - 0.01 * (np.arange(49) + 0.4))
    assert heard.complete and heard.pose().tolist() == pytest.approx([np.sin(4.9), 0.5, -1.49])
    heard.clear()
    assert not heard.complete and len(heard.arrays()[0]) == 0


def test_stamps_out_of_order_are_put_in_order() -> None:
    heard = HeardJoints(two_topics())
    for k in (2, 0, 1, 3):
        heard.add(0, says(float(k), 0.0), k)
        heard.add(1, says(0.0), k)
    assert heard.arrays()[1][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_what_is_heard_is_in_positions() -> None:
    profile = two_topics(measured={"scale": -1.0, "offset": 0.5}, commanded={"scale": 0.01, "offset": -2.0})
    states, commands = HeardJoints(profile), HeardJoints(commands_as_states(profile))
    states.add(0, says(0.1, 0.2), 1)
    states.add(1, says(2.0), 1)
    assert states.pose().tolist() == [0.1, 0.2, -1.5]
    commands.add(0, says(0.1, 0.2), 1)
    commands.add(1, says(-2.015), 1)
    assert commands.pose() == pytest.approx([0.1, 0.2, -1.5])
    assert [topic.topic for topic in commands.topics] == ["/command", "/command_hand"]


@pytest.mark.parametrize("bad", [says(0.1), says(0.1, float("nan")), SimpleNamespace()])
def test_a_bad_message_is_not_kept(bad: Any) -> None:
    heard = HeardJoints(two_topics())
    with pytest.raises(ValueError, match="^/state: "):
        heard.add(0, bad, 1)
    assert not heard.complete


def test_trajectories_are_not_heard_as_commands() -> None:
    with pytest.raises(ConfigurationError, match="is not heard as commands; record them by other means and use --log"):
        commands_as_states(load_profile("jtc_dual_arm"))
    assert commands_as_states(load_profile("arx_ac_one")).states[0].topic == "/arm_master_l_status"
