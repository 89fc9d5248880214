"""The virtual environment as a ROS prefix: its include paths, its variables, and installs that were cut off. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

# Read by Python itself at start, before the wheels' own `ros_wheels_bootstrapper.pth` (by the alphabet) starts Python once more.
PTH = "internvla_a1_ros_environment.pth"
PTH_LINE = (
    "import os, sys; p = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep); "
    "sys.prefix in p or os.environ.update(AMENT_PREFIX_PATH=os.pathsep.join([x for x in p if x] + [sys.prefix]))\n"
)
_BUILD_MACHINE = re.compile(r"/opt/python/cp\d+-cp\d+/(?:include/python3\.\d+|lib/python3\.\d+/site-packages)")
# What a Python of the ROS wheels leaves in the environment of its children; another environment must not inherit it.
_INHERITED = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONHOME", "VIRTUAL_ENV")


def correct_include_paths(prefix: Path, include: Path, site_packages: Path) -> int:
    """Point the wheels' CMake files from the machine that built them to this one; return how many files changed."""
    changed = 0
    for file in prefix.glob("share/*/cmake/*Export.cmake"):
        text = file.read_text()
        corrected = _BUILD_MACHINE.sub(lambda found: str(include if "/include/" in found[0] else site_packages), text)
        if corrected != text:
            file.write_text(corrected)
            changed += 1
    return changed


def forget_cut_off_installs(site_packages: Path) -> list[str]:
    """Remove the records of packages whose files pip had not all written, so that it installs them again; return their names.

    pip takes a package for installed as soon as its record lies there, and writes INSTALLER into it after the last file.
    """
    leftovers = [folder for folder in site_packages.glob("~*") if folder.is_dir()]
    records = [record for record in sorted(site_packages.glob("*.dist-info")) if record not in leftovers]
    cut_off = [record for record in records if not (record / "INSTALLER").is_file()]
    for folder in [*cut_off, *leftovers]:
        shutil.rmtree(folder)
    return [record.name.removesuffix(".dist-info") for record in cut_off]


def for_children(environment: Mapping[str, str], venv: Path, distribution: str) -> dict[str, str]:
    """Return the environment in which set-up starts pip and colcon: the venv's programs first, and nothing of another venv."""
    variables = {name: value for name, value in environment.items() if name not in _INHERITED}
    variables["PATH"] = os.pathsep.join([str(venv / "bin"), variables.get("PATH", os.defpath)])
    variables["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if not distribution:
        variables["AMENT_PREFIX_PATH"] = str(venv)
        for name in ("PYTHONPATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "LD_LIBRARY_PATH"):
            variables.pop(name, None)
    return variables


def shell_file(root: Path, distribution: str) -> str:
    """Return the text that `make test` and `make demo` source first."""
    if not distribution:
        return "# The ROS wheels and the vendor messages lie in this environment itself: nothing to source.\n"
    return f"# The vendor messages were built beside ROS 2 {distribution}.\n. '{root}/ros2_ws/install/setup.sh'\n"


def wrong_shebangs(scripts: Path, python: Path) -> list[str]:
    """Return the executables below `scripts` that another interpreter than `python` would run."""
    wanted = os.fsencode(f"#!{python}")
    return [file.name for file in sorted(scripts.glob("*")) if file.is_file() and file.read_bytes().split(b"\n", 1)[0].strip() != wanted]
