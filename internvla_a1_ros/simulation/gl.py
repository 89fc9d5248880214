"""Off-screen OpenGL without a window: which library MuJoCo renders with. Import this before mujoco."""

from __future__ import annotations

import ctypes
import os

from internvla_a1_ros.core.errors import ConfigurationError

REMEDY = "install libegl1 and libgl1-mesa-dri, or libosmesa6 (apt-get install -y libegl1 libgl1-mesa-dri libosmesa6)"
_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}


def choose_backend() -> str:
    """Set MUJOCO_GL where the user has not, and return it: 'egl' before 'osmesa', by which library loads.

    Raises ConfigurationError naming the packages where neither does.
    """
    # Mesa's software renderer starts a thread per core by default: the policy and the commands need the other core.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    chosen = os.environ.get("MUJOCO_GL", "")
    if not chosen:
        chosen = next((name for name, library in _LIBRARIES.items() if _loads(library)), "")
    if not chosen:
        raise ConfigurationError(f"pictures cannot be rendered: neither {' nor '.join(_LIBRARIES.values())} loads; {REMEDY}")
    os.environ["MUJOCO_GL"] = chosen
    if chosen in _LIBRARIES:
        os.environ["PYOPENGL_PLATFORM"] = chosen
    return chosen


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
