"""Start the policy and the command process, and with `sim:=true` the simulated cell.

Nothing is sent to the robot while `dry_run` is true, and nothing moves before an operator arms it:
`ros2 service call /command/arm std_srvs/srv/Trigger`. ROS 2 Humble to Kilted.
"""

import json
import os
import subprocess

from ament_index_python.packages import get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable, Shutdown
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "internvla_a1_ros"
# What a node ends with that cannot be configured: starting it again would say the same again.
MISCONFIGURED = 2
SWITCH = ["true", "false"]
ARGUMENTS = [
    DeclareLaunchArgument("robot", default_value="arx_ac_one", description="robot profile: its name or the path of a YAML file"),
    DeclareLaunchArgument("checkpoint", default_value="nano", description="model folder, or the name of a model that comes along"),
    DeclareLaunchArgument("engine", default_value="torch", description="what computes the model: torch, reference, onnx, onnx:int8, ..."),
    DeclareLaunchArgument("preset", default_value="", description="how the flow is run; empty: as the model's manifest says"),
    DeclareLaunchArgument("guidance", default_value="", description="off, hard, soft, pinv; empty: as the model's manifest says"),
    DeclareLaunchArgument("instruction", default_value="", description="what the robot shall do; empty: the model's first instruction"),
    DeclareLaunchArgument("dry_run", default_value="true", choices=SWITCH, description="run everything, send nothing to the robot"),
    DeclareLaunchArgument("sim", default_value="false", choices=SWITCH, description="simulated cell; this machine only, its own domain"),
    DeclareLaunchArgument("domain_id", default_value="", description="ROS domain; empty: the environment's, with sim:=true one of its own"),
    DeclareLaunchArgument("log_level", default_value="info", choices=["debug", "info", "warn", "error"], description="of every node"),
]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Turn the deployment that `internvla-a1 up` starts too into launch actions."""
    given = {argument.name: context.launch_configurations[argument.name] for argument in ARGUMENTS}
    if given["domain_id"] and not given["domain_id"].isdecimal():
        raise RuntimeError(f"domain_id: got '{given['domain_id']}', expected 0 to 101")
    plan = describe(
        {
            **{name: given[name] for name in ("robot", "checkpoint", "engine", "preset", "guidance", "instruction")},
            **{name: given[name] == "true" for name in ("dry_run", "sim")},
            "domain_id": int(given["domain_id"]) if given["domain_id"] else None,
            "distribution": os.environ.get("ROS_DISTRO", ""),
        }
    )
    # First, so that the node that launch itself makes to speak to the others is in their domain too.
    actions: list[LaunchDescriptionEntity] = [SetEnvironmentVariable(name, value) for name, value in plan["environment"].items()]
    for process in plan["processes"]:
        actions += start_one(process, given["log_level"])
    return actions


def describe(options: dict) -> dict:
    """Ask the package, in the Python it was built with, what the application consists of. Raises RuntimeError with its sentence."""
    executable = os.path.join(get_package_prefix(PACKAGE), "lib", PACKAGE, "describe_deployment")
    answer = subprocess.run([executable, "express_sorting", json.dumps(options)], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip().splitlines()[-1])
    return json.loads(answer.stdout)


def start_one(process: dict, log_level: str) -> list[LaunchDescriptionEntity]:
    """Return one process and what its end means.

    A lifecycle node configures and activates itself: launch's own ChangeState event fails when a node is respawned after `kill -9`,
    since the request goes to the dead process, which DDS knows for some 20 s more. An operator may deactivate it as ever.
    """
    parameters = {**process["parameters"], **({"autostart": True} if process["lifecycle"] else {})}
    node = Node(
        package=PACKAGE,
        executable=process["executable"],
        exec_name=process["name"],
        name=process["name"],
        # A string is passed on as a string, whatever it would mean in YAML ("on" is an instruction too).
        parameters=[{name: ParameterValue(value, value_type=type(value)) for name, value in parameters.items()}],
        prefix=f"nice -n {process['nice']}" if process["nice"] else None,
        ros_arguments=["--log-level", log_level],
        output="screen",
        emulate_tty=True,
        respawn=process["respawn"],
        respawn_delay=1.0,
    )

    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """End everything with what the others need, once: launch fails on a second shutdown."""
        if context.is_shutdown or (process["respawn"] and event.returncode != MISCONFIGURED):
            return []
        reason = f"{process['name']} ended with code {event.returncode}"
        return [LogInfo(msg=f"{reason}: ending everything"), Shutdown(reason=reason)]

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended)), node]
