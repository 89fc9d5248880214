"""Express sorting: one robot with policy and command process, and the cell's work; with `sim:=true` a simulated cell instead.

`ros2 launch internvla_a1_ros express_sorting.launch.py --show-args` lists the arguments; application.launch.py has what they mean.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

APPLICATION = str(Path(__file__).with_name("application.launch.py"))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("application", default_value="express_sorting", choices=["express_sorting"], description="started"),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(APPLICATION)),
        ]
    )
