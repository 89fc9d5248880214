"""The simulated cell alone, or with `robot:=` another robot without physics: this machine only, a domain of its own.

`ros2 launch internvla_a1_ros sim_cell.launch.py --show-args` lists the arguments; application.launch.py has what they mean.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

APPLICATION = str(Path(__file__).with_name("application.launch.py"))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("application", default_value="sim_cell", choices=["sim_cell"], description="started"),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(APPLICATION)),
        ]
    )
