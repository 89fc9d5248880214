"""Play a bag into the live nodes: `ros2 launch internvla_a1_ros replay.launch.py bag:=FOLDER`. Always a dry run, on the bag's clock.

Everything stays on this machine, so that no robot hears what the bag says. `--show-args` lists the arguments.
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

APPLICATION = str(Path(__file__).with_name("application.launch.py"))
LOCAL = {"ROS_LOCALHOST_ONLY": "1"} if os.environ.get("ROS_DISTRO") == "humble" else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def generate_launch_description() -> LaunchDescription:
    rate, bag = LaunchConfiguration("rate"), LaunchConfiguration("bag")
    player = ExecuteProcess(cmd=["ros2", "bag", "play", bag, "--clock", "100", "--rate", rate, "--delay", "10"], output="screen")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder or file that `ros2 bag record` wrote"),
            DeclareLaunchArgument("rate", default_value="1.0", description="how fast it is played"),
            DeclareLaunchArgument("application", default_value="replay", choices=["replay"], description="started"),
            DeclareLaunchArgument("use_sim_time", default_value="true", choices=["true"], description="the bag's clock"),
            DeclareLaunchArgument("dry_run", default_value="true", choices=["true"], description="a bag never moves a robot"),
            *(SetEnvironmentVariable(name, value) for name, value in LOCAL.items()),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(APPLICATION)),
            player,
            RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[Shutdown(reason="the bag has ended")])),
        ]
    )
