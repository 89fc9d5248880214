"""The command process beside the robot; policy_only.launch.py runs on the GPU workstation, with the same robot.

`ros2 launch internvla_a1_ros command_only.launch.py --show-args` lists the arguments; application.launch.py has what they mean.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

APPLICATION = str(Path(__file__).with_name("application.launch.py"))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("application", default_value="command_only", choices=["command_only"], description="started"),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(APPLICATION)),
        ]
    )
