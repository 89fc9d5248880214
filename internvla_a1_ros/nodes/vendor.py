"""Message classes looked up by name at run time, so that a robot's own packages win over ours."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError

# What this repository can build itself; everything else comes from the robot's own workspace or the distribution.
OURS = ("arx5_arm_msg", "arm_control", "genie_msgs")


@cache
def message_class(name: str) -> Any:
    """Return the class of 'package/msg/Name' or 'package/action/Name', for example 'arx5_arm_msg/msg/RobotStatus'.

    Raises ConfigurationError saying what to build or source where the package, the message or its compiled half is missing.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[1] not in ("msg", "action") or not all(parts):
        raise ConfigurationError(f"message type: got '{name}', expected 'package/msg/Name'")
    package, kind, message = parts
    try:
        module = importlib.import_module(f"{package}.{kind}")
    except ImportError as problem:
        what = "is not on the Python path" if _absent(problem, package) else f"does not load ({problem})"
        raise ConfigurationError(f"message package '{package}' {what}: {_remedy(package)}") from None
    found = getattr(module, message, None)
    if found is None:
        known = sorted(k for k in vars(module) if k[:1].isupper() and not k.endswith(("_Event", "_Request", "_Response")))
        raise ConfigurationError(f"message package '{package}' has no message '{message}', it has {', '.join(known)}")
    _load_compiled_half(found, package)
    return found


def _absent(problem: ImportError, package: str) -> bool:
    return isinstance(problem, ModuleNotFoundError) and (problem.name or "").split(".")[0] == package


def _load_compiled_half(found: Any, package: str) -> None:
    """The Python half imports without the shared libraries; rclpy would then fail at the first publisher with a traceback."""
    meta = type(found)
    try:
        meta.__import_type_support__()
    except Exception as problem:  # rosidl re-raises whatever the dynamic loader said
        raise ConfigurationError(f"message package '{package}' has no usable type support ({problem}): {_remedy(package)}") from None
    if meta._TYPE_SUPPORT is None:
        raise ConfigurationError(f"message package '{package}' has no usable type support: {_remedy(package)}")


def _remedy(package: str) -> str:
    if package in OURS:
        return "source the robot's own workspace, or build ours: make setup, or colcon build in ros2_ws and source its install/setup.bash"
    return f"install or source the workspace that carries {package}"
