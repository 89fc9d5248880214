"""Pictures of the cell, rendered in software: what costs time and shows little is off."""

from __future__ import annotations

import weakref
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray
from internvla_a1_ros.simulation.gl import REMEDY, choose_backend, missing_sentence

BACKEND = choose_backend()

import mujoco  # noqa: E402  (reads MUJOCO_GL when imported)
import numpy as np  # noqa: E402

_MAX_GEOMS = 160


class Painter:
    """Renders one picture size. Belongs to the thread that made it: an OpenGL context is current in one thread."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        """Raises ConfigurationError naming the packages to install where no context can be had."""
        if not BACKEND:
            raise ConfigurationError(missing_sentence())
        self._model = model
        # The off-screen buffer is as large as the picture and no larger.
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        try:
            self._gl = mujoco.GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as problem:  # EGL, OSMesa and MuJoCo each raise their own kind
            raise ConfigurationError(f"pictures cannot be rendered through {BACKEND} ({str(problem).splitlines()[0]}); {REMEDY}") from None
        # Also at exit: OSMesa complains when it is freed after Python's modules are.
        self._free = weakref.finalize(self, _free, self._gl, self._context)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG", "CULL_FACE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = flag == "CULL_FACE"
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._upside_down = np.empty((height, width, 3), np.uint8)

    def paint(self, data: mujoco.MjData, camera: int) -> ByteArray:
        """Return a new [height, width, 3] picture of the present state from the model's camera `camera`."""
        self._gl.make_current()
        self._camera.fixedcamid = camera
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._upside_down, None, self._rect, self._context)
        return self._upside_down[::-1].copy()

    def upload_texture(self, texture: int) -> None:
        """Take over a texture that changed in the model."""
        self._gl.make_current()
        mujoco.mjr_uploadTexture(self._model, self._context, texture)

    def close(self) -> None:
        """Free the context; the painter is of no further use."""
        self._free()


def _free(gl: Any, context: Any) -> None:
    gl.make_current()
    context.free()
    gl.free()
