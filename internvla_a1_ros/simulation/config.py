"""What a simulated cell looks like: lengths in metres, speeds in m/s, one document per cell."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.document import Document

Positive = Annotated[float, Field(gt=0)]
Range = tuple[float, float]
Point = tuple[float, float, float]

SIDES = ("left", "right")
CAMERAS = ("head", "left", "right")


class Belt(Document):
    """A belt across the front of the robot, moving from its left (+y) to its right; its surface is `top_m` above the table."""

    centre_x_m: float = 0.36
    width_m: Positive = 0.24
    length_m: Positive = 1.7
    top_m: Positive = 0.04
    speed_m_s: float = 0.08
    max_speed_m_s: Positive = 0.3

    def speeds(self, slowest_m_s: float, fastest_m_s: float) -> Range:
        """Return the two as a range to draw from. Raises ConfigurationError unless the belt can run as slow and as fast."""
        if not 0 <= slowest_m_s <= fastest_m_s <= self.max_speed_m_s:
            expected = f"expected them from 0 to {self.max_speed_m_s:g}, the slower first"
            raise ConfigurationError(f"got {slowest_m_s:g} to {fastest_m_s:g} m/s, {expected}")
        return slowest_m_s, fastest_m_s


class Piece(Document):
    """A box without a label, as food is: how large pieces of its kind are, and their colour (red, green, blue of 0 to 1)."""

    colour: Point
    length_m: Range
    width_m: Range
    height_m: Range


FOOD = {
    "bread": Piece(colour=(0.84, 0.66, 0.38), length_m=(0.07, 0.09), width_m=(0.045, 0.058), height_m=(0.036, 0.046)),
    "steak": Piece(colour=(0.40, 0.19, 0.13), length_m=(0.065, 0.09), width_m=(0.040, 0.052), height_m=(0.034, 0.042)),
    "lettuce": Piece(colour=(0.36, 0.64, 0.22), length_m=(0.06, 0.085), width_m=(0.042, 0.056), height_m=(0.034, 0.044)),
}


class Parcels(Document):
    """Boxes that a 0.082 m gripper can take across their width or height, each with a code on one face.

    `faces` are the shares of parcels whose label lies up, sideways, down. `kinds`: what comes, a parcel or a piece of `FOOD`, equally
    often. `first_y_m`: where along the belt the first one lies at the start.
    """

    slots: Annotated[int, Field(ge=1, le=8)] = 4
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = ("parcel",)
    first_y_m: Range = (-0.35, -0.15)
    length_m: Range = (0.075, 0.11)
    width_m: Range = (0.042, 0.062)
    height_m: Range = (0.042, 0.062)
    mass_kg: Range = (0.08, 0.25)
    faces: Point = (0.5, 0.25, 0.25)
    spacing_m: Range = (0.26, 0.42)
    yaw_rad: Range = (-math.pi / 2, math.pi / 2)
    sideways_m: Positive = 0.05
    destinations: tuple[str, ...] = SIDES


class Bin(Document):
    """An open box on the table, by the centre of its floor."""

    centre_m: tuple[float, float]
    size_m: tuple[float, float] = (0.17, 0.17)
    wall_m: Positive = 0.06


class Camera(Document):
    """Where a camera is and what it looks at (world for the head, the hand's frame for the wrists)."""

    position_m: Point
    target_m: Point
    up: Point = (0.0, 0.0, 1.0)
    fov_y_deg: Positive = 58.0


class CellConfig(Document):
    """The express-sorting cell: two arms facing +x, a belt in front of them, two bins between them that both reach.

    `arms` names their kind, `start_rad` where the left arm begins; the right one alike, unless `right_start_rad` says otherwise.
    """

    arms: Literal["x5", "g1"] = "x5"
    timestep_s: Positive = 1 / 480
    arm_spacing_m: Positive = 0.48
    base_forward_m: float = 0.0
    base_height_m: Positive = 0.12
    start_rad: tuple[float, ...] = (0.0, 0.948, 0.858, -0.573, 0.0, 0.0)
    right_start_rad: tuple[float, ...] | None = None
    belt: Belt = Belt()
    parcels: Parcels = Parcels()
    bins: dict[str, Bin] = {"left": Bin(centre_m=(0.115, 0.095)), "right": Bin(centre_m=(0.115, -0.095))}
    cameras: dict[str, Camera] = {
        "head": Camera(position_m=(-0.02, 0.0, 0.74), target_m=(0.36, 0.0, 0.03)),
        "left": Camera(position_m=(0.045, 0.0, 0.085), target_m=(0.16, 0.0, 0.0), fov_y_deg=72.0),
        "right": Camera(position_m=(0.045, 0.0, 0.085), target_m=(0.16, 0.0, 0.0), fov_y_deg=72.0),
    }
    max_picture: tuple[int, int] = (1920, 1440)
