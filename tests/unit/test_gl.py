"""Which OpenGL the pictures are rendered with, and what is said where there is none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from internvla_a1_ros.simulation import gl

PAINT = """
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.simulation import render
from internvla_a1_ros.simulation.cell import Cell
try:
    print(render.BACKEND, int(Cell(seed=1).render("head", 64, 48).std()) > 20)
except ConfigurationError as problem:
    print(problem)
"""


@pytest.mark.parametrize(
    ("present", "asked", "expected"),
    [
        (("egl", "osmesa"), "", "egl"),
        (("osmesa",), "", "osmesa"),
        (("egl", "osmesa"), "osmesa", "osmesa"),
        (("egl",), "osmesa", ""),
        ((), "", ""),
        (("egl",), "nonsense", "egl"),
        ((), "glfw", "glfw"),
    ],
)
def test_the_library_that_loads_is_taken(monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], asked: str, expected: str) -> None:
    monkeypatch.setenv("MUJOCO_GL", asked)
    monkeypatch.setenv("PYOPENGL_PLATFORM", "")
    monkeypatch.setattr(gl, "_loads", lambda library: any(library == gl._LIBRARIES[name] for name in present))
    assert gl.choose_backend() == expected
    assert os.environ["MUJOCO_GL"] == (expected or "off")


def test_without_any_library_the_cell_runs_and_a_picture_is_one_sentence() -> None:
    hide = "import ctypes\ndef absent(*_): raise OSError('absent')\nctypes.CDLL, keep = absent, ctypes.CDLL\n"
    restore = "import internvla_a1_ros.simulation.gl as gl\ngl.choose_backend()\nctypes.CDLL = keep\ngl._loads = lambda _: False\n"
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    command = [sys.executable, "-c", hide + restore + PAINT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("pictures cannot be rendered: neither libEGL.so.1 nor libOSMesa.so.8 can be loaded; install libegl1")
    assert "apt-get install" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_a_backend_renders_and_leaves_quietly(backend: str) -> None:
    if not gl._loads(gl._LIBRARIES[backend]):
        pytest.skip(f"{gl._LIBRARIES[backend]} is not on this machine")
    environment = {**os.environ, "MUJOCO_GL": backend}
    done = subprocess.run([sys.executable, "-c", PAINT], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{backend} True\n"
    assert done.stderr == ""
