"""A rendered belt at an angle: speed within 3 %, direction within 2 degrees, or refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from calibration_scene import DISTORTION, Camera, belt_picture

from internvla_a1_ros.commissioning.belt import BeltView, fit_belt, view_of_points
from internvla_a1_ros.commissioning.poses import pose
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray, FloatArray

CAMERA = Camera(320, 240, 281.0, 279.0, 162.0, 118.0)
RAYS = CAMERA.rays
PX_PER_M = 800.0
# The camera looks down on the belt at an angle, 0.7 m away.
CAMERA_FROM_PLANE = pose(np.zeros(3), np.array([0.0, 0.0, 0.7])) @ pose(np.array([0.5, 0.25, 0.3]), np.zeros(3))
SQUARE_M = np.array([[-0.12, -0.1], [0.12, -0.1], [0.12, 0.1], [-0.12, 0.1]])


def seen(points_m: FloatArray) -> FloatArray:
    """Return where the camera sees points of the belt."""
    flat = np.column_stack([points_m, np.zeros(len(points_m))])
    turn = cv2.Rodrigues(CAMERA_FROM_PLANE[:3, :3])[0]
    return cv2.projectPoints(flat, turn, CAMERA_FROM_PLANE[:3, 3], CAMERA.matrix, DISTORTION)[0].reshape(-1, 2)


def belt_view(noise_px: float = 0.0, rng: np.random.Generator | None = None) -> BeltView:
    points = seen(SQUARE_M) + (0.0 if rng is None else rng.normal(0, noise_px, (4, 2)))
    return view_of_points(points, SQUARE_M, CAMERA.matrix, DISTORTION)


def film(
    speed_m_s: float, heading_rad: float, rng: np.random.Generator, count: int = 24, rate_hz: float = 30.0
) -> tuple[FloatArray, list[ByteArray]]:
    """Return stamps with jitter and pictures of a belt that runs."""
    belt = belt_picture(rng, 1.4, 1.4, PX_PER_M)
    stamps = np.sort(np.arange(count) / rate_hz + rng.uniform(-0.001, 0.001, count))
    pictures = []
    for t in stamps:
        x, y = -0.7 + speed_m_s * t * np.cos(heading_rad), -0.7 + speed_m_s * t * np.sin(heading_rad)
        pictures.append(CAMERA.render(belt, 1 / PX_PER_M, CAMERA_FROM_PLANE, rng, rays=RAYS, origin_m=(x, y)))
    return stamps, pictures


@pytest.mark.parametrize(
    ("seed", "speed_m_s", "heading_deg"), [(1, 0.08, 0.0), (2, 0.15, 37.0), (3, 0.3, -120.0), (4, 0.03, 90.0), (5, 0.5, 180.0)]
)
def test_speed_within_3_percent_and_direction(seed: int, speed_m_s: float, heading_deg: float) -> None:
    rng = np.random.default_rng(seed)
    stamps, pictures = film(speed_m_s, np.radians(heading_deg), rng)
    found = fit_belt(stamps, pictures, belt_view(0.3, rng), CAMERA.matrix, DISTORTION)
    assert found.speed_m_s == pytest.approx(speed_m_s, rel=0.03)
    turned = (np.degrees(found.heading_rad) - heading_deg + 180) % 360 - 180
    assert abs(turned) < 2.0
    assert found.speed_spread_m_s < 0.05 * speed_m_s and found.pairs >= 10


def refusal(stamps: FloatArray, pictures: list[ByteArray]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        fit_belt(stamps, pictures, belt_view(), CAMERA.matrix, DISTORTION)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_belt_that_stands() -> None:
    assert "is it running?" in refusal(*film(0.0, 0.0, np.random.default_rng(6), 14))


def test_a_belt_without_marks() -> None:
    pictures = [np.full((240, 320), 120, np.uint8)] * 14
    assert "put tape on it" in refusal(np.arange(14) / 30, pictures)


def test_pictures_of_nothing_in_common() -> None:
    rng = np.random.default_rng(7)
    pictures = [belt_picture(rng, 0.4, 0.3, PX_PER_M) for _ in range(14)]
    text = refusal(np.arange(14) / 30, pictures)
    assert "show the same belt" in text or "differ by" in text


def test_too_few_pictures_and_stamps_out_of_order() -> None:
    stamps, pictures = film(0.1, 0.0, np.random.default_rng(8), 12)
    assert "got 5 pictures, expected 11 or more" in refusal(stamps[:5], pictures[:5])
    assert "stamps that do not rise" in refusal(stamps[::-1], pictures)


def test_stamps_that_are_wrong_show_as_disagreement() -> None:
    rng = np.random.default_rng(9)
    stamps, pictures = film(0.1, 0.0, rng, 30)
    wrong = np.cumsum(rng.uniform(0.005, 0.12, 30))
    assert "differ by" in refusal(wrong, pictures)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda px, m: (px[:3], m[:3]), "got 3 pixels and 3 places"),
        (lambda px, m: (px, np.column_stack([m[:, 0], 0 * m[:, 0]])), "in one line"),
    ],
)
def test_points_that_make_no_plane(change: object, text: str) -> None:
    pixels, places = change(seen(SQUARE_M), SQUARE_M)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=text):
        view_of_points(pixels, places, CAMERA.matrix, DISTORTION)


def test_a_point_that_is_mistaken() -> None:
    places = np.concatenate([SQUARE_M, [[0.0, 0.0], [0.05, 0.02]]])
    pixels = seen(places)
    pixels[4] += 25.0
    with pytest.raises(ConfigurationError, match="px beside where the others put it"):
        view_of_points(pixels, places, CAMERA.matrix, DISTORTION)
