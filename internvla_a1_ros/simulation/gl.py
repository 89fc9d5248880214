"""Off-screen OpenGL without a window: which library MuJoCo renders with. Import this before mujoco."""

from __future__ import annotations

import ctypes
import os

REMEDY = "install libegl1 and libgl1-mesa-dri, or libosmesa6 (apt-get install -y libegl1 libgl1-mesa-dri libosmesa6)"
_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}


def choose_backend() -> str:
    """Set MUJOCO_GL to 'egl', else 'osmesa', by which library loads, and return it; '' where none does (rendering then says so).

    What the user has set stays, unless its library does not load; 'glfw' (a window system) is the user's own choice.
    """
    # Mesa's software renderer starts a thread per core by default: policy and commands need the other core.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted == "glfw":
        return wanted
    names = [wanted] if wanted in _LIBRARIES else list(_LIBRARIES)
    chosen = next((name for name in names if _loads(_LIBRARIES[name])), "")
    # MuJoCo would otherwise try a window system, and warn, while it is imported.
    os.environ["MUJOCO_GL"] = chosen or "off"
    if chosen:
        os.environ["PYOPENGL_PLATFORM"] = chosen
    return chosen


def missing_sentence() -> str:
    """Return why no picture can be rendered and what to install."""
    return f"pictures cannot be rendered: neither {' nor '.join(_LIBRARIES.values())} can be loaded; {REMEDY}"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
