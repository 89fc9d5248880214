"""How the cell looks in one trial: light, cameras a little displaced, colours, and things beside the belt that have nothing to do with it.

All of it is only seen: what moves, moves the same with and without.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS
from internvla_a1_ros.simulation.scene import CLUTTER, STRIPES

STRENGTH, LEANING = 0.3, 0.5
CAMERA_M, CAMERA_RAD = 0.008, np.deg2rad(1.5)
TINTED, SHADE = 0.35, 0.3
_STREAM = 100  # of random numbers, apart from those of the conditions and of the disturbance
_ROOM = ("table", "floor", "wall")
_SHAPES = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE)
# Where things may lie: x and |y| from and to, and the height there. Beyond the belt, at the table's ends, on the floor beside it.
_PLACES = (((0.56, 0.82), (0.0, 0.70), 0.0), ((-0.15, 0.16), (0.50, 0.72), 0.0), ((-0.2, 1.2), (0.95, 1.5), -0.78))


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A distractor: a box, a cylinder or a sphere of half sizes [3] m that stands at a place, turned about the vertical."""

    shape: int
    size_m: FloatArray
    position_m: FloatArray
    yaw_rad: float
    rgb: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Variation:
    """Factors of ambient and diffuse light, how far the light leans [2], each camera's shift [3, 3] m and turn [3, 3] rad.

    `belt`: factors [3] of its colour; `room`: colours [3, 3] that table, floor and wall are mixed with, `mixed` the share of them.
    """

    ambient: float
    diffuse: float
    leaning: FloatArray
    shifts_m: FloatArray
    turns_rad: FloatArray
    belt: FloatArray
    room: FloatArray
    mixed: float
    things: tuple[Thing, ...]

    @classmethod
    def drawn(cls, seed: int, level: float = 1.0) -> Variation:
        """Draw by `seed`, from nothing changed (`level` 0) to everything in its full range (1). Raises ConfigurationError beyond these."""
        if not 0.0 <= level <= 1.0:
            raise ConfigurationError(f"variation: got {level}, expected 0 to 1")
        rng = np.random.default_rng((seed, _STREAM))
        ambient, diffuse = 1 + level * rng.uniform(-STRENGTH, STRENGTH, 2)
        leaning = level * rng.uniform(-LEANING, LEANING, 2)
        shifts = level * rng.uniform(-CAMERA_M, CAMERA_M, (len(CAMERAS), 3))
        axes = rng.normal(size=(len(CAMERAS), 3))
        turns = level * rng.uniform(0.0, CAMERA_RAD, (len(CAMERAS), 1)) * axes / np.linalg.norm(axes, axis=1, keepdims=True)
        belt = 1 + level * rng.uniform(-SHADE, SHADE, 3)
        room, mixed = rng.uniform(0.1, 0.9, (len(_ROOM), 3)), level * float(rng.uniform(0.0, TINTED))
        things = tuple(_thing(rng) for _ in range(CLUTTER))[: round(level * rng.integers(0, CLUTTER + 1))]
        return cls(float(ambient), float(diffuse), leaning, shifts, turns, belt, room, mixed, things)

    def apply(self, cell: Cell) -> None:
        """Make the cell look like this, whatever it looked like before; level 0 is how it was built."""
        model, plain = cell.model, cell.pristine
        model.vis.headlight.ambient[:] = plain.vis.headlight.ambient * self.ambient
        model.vis.headlight.diffuse[:] = plain.vis.headlight.diffuse * self.diffuse
        sun = model.light("sun").id
        model.light_diffuse[sun] = plain.light_diffuse[sun] * self.diffuse
        direction = plain.light_dir[sun] + np.array([*self.leaning, 0.0])
        model.light_dir[sun] = direction / np.linalg.norm(direction)
        for name, shift, turn in zip(CAMERAS, self.shifts_m, self.turns_rad, strict=True):
            camera = model.camera(name).id
            model.cam_pos[camera] = plain.cam_pos[camera] + shift
            turned = plain.cam_quat[camera].copy()
            mujoco.mju_quatIntegrate(turned, turn, 1.0)
            model.cam_quat[camera] = turned
        for name in ("belt", *(f"stripe{k}" for k in range(STRIPES))):
            geom = model.geom(name).id
            model.geom_rgba[geom, :3] = np.clip(plain.geom_rgba[geom, :3] * self.belt, 0, 1)
        for name, colour in zip(_ROOM, self.room, strict=True):
            geom = model.geom(name).id
            model.geom_rgba[geom, :3] = plain.geom_rgba[geom, :3] * (1 - self.mixed) + colour * self.mixed
        self._lay(cell)

    def _lay(self, cell: Cell) -> None:
        model, plain = cell.model, cell.pristine
        for k in range(CLUTTER):
            geom = model.geom(f"clutter{k}").id
            for table in ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_rgba"):
                getattr(model, table)[geom] = getattr(plain, table)[geom]
            if k < len(self.things):
                thing = self.things[k]
                model.geom_type[geom], model.geom_size[geom], model.geom_pos[geom] = thing.shape, thing.size_m, thing.position_m
                model.geom_quat[geom] = (np.cos(thing.yaw_rad / 2), 0.0, 0.0, np.sin(thing.yaw_rad / 2))
                model.geom_rgba[geom] = (*thing.rgb, 1.0)


def _thing(rng: np.random.Generator) -> Thing:
    (x, y, height), shape = _PLACES[rng.integers(len(_PLACES))], int(_SHAPES[rng.integers(len(_SHAPES))])
    half = rng.uniform(0.015, 0.045, 3)
    if shape == mujoco.mjtGeom.mjGEOM_SPHERE:
        half[:] = half[0]
    half_height = half[1] if shape == mujoco.mjtGeom.mjGEOM_CYLINDER else half[2]
    side = 1 if rng.random() < 0.5 else -1
    place = np.array([rng.uniform(*x), side * rng.uniform(*y), height + half_height])
    return Thing(shape, half, place, float(rng.uniform(0, np.pi)), rng.uniform(0.05, 0.95, 3))
