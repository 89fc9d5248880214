"""Poses as matrices [4, 4]: `a_from_b` takes points of frame b to frame a."""

from __future__ import annotations

import cv2
import numpy as np

from internvla_a1_ros.core.types import FloatArray


def pose(rotation: FloatArray, translation: FloatArray) -> FloatArray:
    """Return a pose of a rotation vector [3] or matrix [3, 3] and a translation [3]."""
    made = np.eye(4)
    made[:3, :3] = rotation if np.shape(rotation) == (3, 3) else cv2.Rodrigues(np.asarray(rotation, dtype=np.float64))[0]
    made[:3, 3] = np.reshape(translation, 3)
    return made


def inverse(a_from_b: FloatArray) -> FloatArray:
    """Return b_from_a."""
    turned = a_from_b[:3, :3].T
    return pose(turned, -turned @ a_from_b[:3, 3])


def rotation_vector(rotation: FloatArray) -> FloatArray:
    """Return axis times angle [3] of a rotation matrix [3, 3]; OpenCV takes angles below 1e-5 rad for none."""
    return np.asarray(cv2.Rodrigues(rotation)[0], dtype=np.float64).reshape(3)


def distance(one: FloatArray, other: FloatArray) -> tuple[float, float]:
    """Return how far two poses are apart, in the unit of their translations and in rad."""
    turn = rotation_vector(one[:3, :3].T @ other[:3, :3])
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.linalg.norm(turn))


def from_rpy(xyz_rpy: FloatArray) -> FloatArray:
    """Return the pose of x y z and roll pitch yaw [6], turned about fixed axes: Rz(yaw) Ry(pitch) Rx(roll), as in URDF."""
    x, y, z, roll, pitch, yaw = np.asarray(xyz_rpy, dtype=np.float64)
    turns = [pose(np.array(axis), np.zeros(3)) for axis in ((0.0, 0.0, yaw), (0.0, pitch, 0.0), (roll, 0.0, 0.0))]
    return pose((turns[0] @ turns[1] @ turns[2])[:3, :3], np.array([x, y, z]))


def quaternion_xyzw(rotation: FloatArray) -> tuple[float, float, float, float]:
    """Return the quaternion of a rotation matrix [3, 3], with w >= 0."""
    vector = rotation_vector(rotation)
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 0.0 else np.zeros(3)
    x, y, z = np.sin(angle / 2) * axis
    return float(x), float(y), float(z), float(np.cos(angle / 2))


def from_quaternion(position: FloatArray, xyzw: FloatArray) -> FloatArray:
    """Return the pose of a position [3] and a quaternion [4] of any length but zero."""
    x, y, z, w = np.asarray(xyzw, dtype=np.float64) / np.linalg.norm(xyzw)
    axis = np.array([x, y, z])
    sine = float(np.linalg.norm(axis))
    vector = axis * (2.0 * np.arctan2(sine, w) / sine) if sine > 0.0 else np.zeros(3)
    return pose(vector, np.asarray(position, dtype=np.float64))
