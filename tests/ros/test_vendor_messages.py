"""The vendor message packages as built here are the vendor's on the wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory
from arm_control.msg import JointControl, PosCmd
from arx5_arm_msg.msg import RobotCmd, RobotStatus

POS_CMD = [
    *("x", "y", "z", "roll", "pitch", "yaw", "gripper", "quater_x", "quater_y", "quater_z", "quater_w", "chx", "chy", "chz"),
    *("vel_l", "vel_r", "height", "head_pit", "head_yaw", "temp_float_data", "temp_int_data", "mode1", "mode2", "time_count"),
]


@pytest.mark.parametrize(
    ("package", "message", "hash_of_the_vendors_own"),
    [
        ("arm_control", "PosCmd", "RIHS01_8841bb1ae0bef79c92a34a17e6294c5ec5b171db6cb49a50aa8cc57eaadcf1de"),
        ("arm_control", "JointControl", "RIHS01_07ec287115cbd0296d66e36ce188485ac055afd7ff006b7803571a3d156367f6"),
    ],
)
def test_type_hash_is_the_vendors(package: str, message: str, hash_of_the_vendors_own: str) -> None:
    """rosidl made these hashes from the vendor's own files (found in a published build of them)."""
    description = Path(get_package_share_directory(package), "msg", f"{message}.json")
    if not description.is_file():
        pytest.skip("this ROS 2 has no type hashes (before Iron)")
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(description.read_text())["type_hashes"]}
    assert hashes[f"{package}/msg/{message}"] == hash_of_the_vendors_own


def test_field_layout() -> None:
    """Names, types and order, as in the vendor's files."""
    joints = {"joint_pos": "double[7]", "joint_vel": "double[7]", "joint_cur": "double[7]"}
    head = [("header", "std_msgs/Header"), ("end_pos", "double[6]")]
    assert list(RobotStatus.get_fields_and_field_types().items()) == [*head, *joints.items()]
    assert list(RobotCmd.get_fields_and_field_types().items()) == [
        *head, ("joint_pos", "double[6]"), ("gripper", "double"), ("mode", "int64"),
    ]
    assert list(JointControl.get_fields_and_field_types().items()) == [
        ("joint_pos", "float[8]"), ("joint_vel", "float[8]"), ("joint_cur", "float[8]"), ("mode", "int32"),
    ]
    assert list(PosCmd.get_fields_and_field_types()) == POS_CMD
