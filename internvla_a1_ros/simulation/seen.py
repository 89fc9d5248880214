"""Where each parcel is in each camera's picture: targets for pre-training a vision tower on simulated pictures."""

from __future__ import annotations

import mujoco
import numpy as np

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS, FOOD
from internvla_a1_ros.simulation.parcels import Parcel

FIELDS = ("in_view", "u", "v", "distance_m", "cos_2phi", "sin_2phi", "label_cosine", "length_m", "width_m", "height_m")


def seen(cell: Cell, aspect: float = 4 / 3) -> FloatArray:
    """Return [3 cameras, slots, 10] (`FIELDS`), zeros where a slot's parcel has its centre behind the camera or outside the picture.

    `u`, `v`: 0 to 1 from the picture's left and top; `aspect`: its width by its height; phi: from the picture's right towards its top
    to the projection of the parcel's length; label cosine: 1 where the label faces the camera, 0 on food. Nothing is known of what
    hides what.
    """
    mujoco.mj_kinematics(cell.model, cell.data)  # mj_step leaves cameras where the step began
    mujoco.mj_camlight(cell.model, cell.data)
    found = np.zeros((len(CAMERAS), cell.config.parcels.slots, len(FIELDS)))
    for parcel in cell.parcels():
        for i, name in enumerate(CAMERAS):
            found[i, parcel.slot] = _seen(cell, cell.model.camera(name).id, parcel, aspect)
    return found


def _seen(cell: Cell, camera: int, parcel: Parcel, aspect: float) -> FloatArray:
    axes = cell.data.cam_xmat[camera].reshape(3, 3)  # columns: the picture's right, its top, and towards the viewer
    offset = parcel.position_m - cell.data.cam_xpos[camera]
    right, up, depth = axes.T @ offset * (1, 1, -1)
    half_height = np.tan(np.deg2rad(cell.model.cam_fovy[camera]) / 2)
    if depth <= 0 or abs(right) > depth * half_height * aspect or abs(up) > depth * half_height:
        return np.zeros(len(FIELDS))
    distance, rotation = float(np.linalg.norm(offset)), parcel.rotation
    along = axes.T @ rotation[:, 0] * (1, 1, -1)
    # The derivative of (right, up) / depth along the parcel's length, without the factor 1 / depth^2.
    phi = np.arctan2(along[1] * depth - up * along[2], along[0] * depth - right * along[2])
    label = 0.0 if parcel.kind in FOOD else -float(rotation[:, 2] @ offset) / distance
    u, v = 0.5 + right / depth / half_height / aspect / 2, 0.5 - up / depth / half_height / 2
    return np.array([1.0, u, v, distance, np.cos(2 * phi), np.sin(2 * phi), label, *parcel.size_m])
