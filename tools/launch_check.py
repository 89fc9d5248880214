"""Run a launch file as `ros2 launch` does, without a ROS 2 distribution: against checkouts of ros2/launch and ros2/launch_ros.

    .venv/bin/python tools/launch_check.py FOLDER_WITH_BOTH LAUNCH_FILE [name:=value ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


def use(folder: Path) -> None:
    """Make `launch` and `launch_ros` of this folder importable, with a stand-in for what the wheels lack."""
    for repository in ("launch", "launch_ros"):
        source = folder / repository / repository
        if not (source / repository / "__init__.py").is_file():
            sys.exit(f"no sources of {repository} in {source}")
        sys.path.insert(0, str(source))
    # launch_ros imports it for composable nodes, which no launch file here uses.
    services = ModuleType("composition_interfaces.srv")
    services.LoadNode = type("LoadNode", (), {"Request": object, "Response": object})  # type: ignore[attr-defined]
    interfaces = ModuleType("composition_interfaces")
    interfaces.srv = services  # type: ignore[attr-defined]
    sys.modules.update({interfaces.__name__: interfaces, services.__name__: services})


def main(folder: str, launch_file: str, *arguments: str) -> int:
    """Return the exit code that `ros2 launch` would end with."""
    use(Path(folder).resolve())
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    values = [tuple(argument.split(":=", 1)) for argument in arguments]
    service = LaunchService(argv=list(arguments))
    service.include_launch_description(
        LaunchDescription([IncludeLaunchDescription(PythonLaunchDescriptionSource(launch_file), launch_arguments=values)])
    )
    return int(service.run())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
