"""In-motion ingredient picking: the two robots of a cell, each with policy and command process, and the cell that hands out the order.

`ros2 launch internvla_a1_ros ingredient_picking.launch.py --show-args` lists the arguments; application.launch.py has what they mean.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

APPLICATION = str(Path(__file__).with_name("application.launch.py"))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("application", default_value="ingredient_picking", choices=["ingredient_picking"], description="started"),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(APPLICATION)),
        ]
    )
