"""What this machine has and lacks: the Python, a sourced ROS 2, Debian packages. Standard library only."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 12)
_DRIVERS = "/usr/lib/*/dri/swrast_dri.so", "/usr/lib/*/libgallium-*.so", "/usr/lib/*/libEGL_nvidia.so.0"


class SetupError(Exception):
    """Set-up cannot go on; the message is one sentence for the person at the keyboard."""


@dataclass(frozen=True)
class Missing:
    """Debian packages for one purpose. Where `needed` is False set-up goes on without them."""

    packages: tuple[str, ...]
    purpose: str
    needed: bool = True


def check_python(version: Sequence[int] = tuple(sys.version_info[:3])) -> None:
    """Raise SetupError unless this is a Python that the package and the ROS wheels support."""
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        got = ".".join(str(part) for part in version[:2])
        raise SetupError(f"this is Python {got}, and Python 3.10, 3.11 or 3.12 is needed: type make PYTHON=/path/to/python3.11 setup")


def ros_distribution(environment: Mapping[str, str]) -> str:
    """Return the name of the sourced ROS 2 distribution that has rclpy, or an empty string."""
    prefixes = [Path(prefix) for prefix in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    has_rclpy = any((prefix / "share/ament_index/resource_index/packages/rclpy").is_file() for prefix in prefixes)
    return environment.get("ROS_DISTRO", "") if has_rclpy else ""


def sourced_package(name: str, environment: Mapping[str, str]) -> bool:
    """Tell whether a sourced workspace already has the ROS package `name`."""
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return any(prefix and Path(prefix, "share/ament_index/resource_index/packages", name).is_file() for prefix in prefixes)


def missing_packages(exists: Callable[[str], bool], has_venv: bool, has_compiler: bool, python: str, renders: bool) -> list[Missing]:
    """Return what Debian must provide, from facts gathered by `inspect`; `exists` looks a path up."""
    missing = []
    if not has_venv:
        missing.append(Missing((f"{python}-venv",), "Python's virtual environments"))
    if not has_compiler:
        missing.append(Missing(("g++",), "compiling the messages"))
    if not exists(str(Path(sysconfig.get_paths()["include"], "Python.h"))):
        missing.append(Missing((f"{python}-dev",), "compiling the messages (Python.h)"))
    if not renders:
        missing.append(Missing(("libegl1", "libgl1-mesa-dri"), "pictures of the simulated cell", needed=False))
    return missing


def inspect(has_venv: bool) -> list[Missing]:
    """Return what Debian must provide on this machine; a virtual environment that is there already needs nothing to make it."""
    system = sys.executable.startswith("/usr/bin/") and os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable)
    python = "python3" if system else f"python{sys.version_info[0]}.{sys.version_info[1]}"
    compiler = shutil.which("g++") is not None or shutil.which("c++") is not None
    return missing_packages(os.path.exists, has_venv or find_spec("ensurepip") is not None, compiler, python, can_render())


def can_render() -> bool:
    """Tell whether a library for pictures without a screen loads: EGL with a driver, or OSMesa."""
    drivers = any(list(Path("/").glob(pattern[1:])) for pattern in _DRIVERS)
    return (_loads("libEGL.so.1") and drivers) or _loads("libOSMesa.so.8")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def administrator() -> list[str] | None:
    """Return the words before an apt command: none as root, `sudo -n` where it asks nothing; None where neither works."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0:
        return ["sudo", "-n"]
    return None


def apt_line(missing: Sequence[Missing]) -> str:
    """Return what a person types to get these packages."""
    return f"sudo apt-get install -y {' '.join(package for one in missing for package in one.packages)}"
