"""A camera calibrated from rendered pictures of the board: close to the truth, and refused where the pictures cannot say it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from calibration_scene import BOARD, DISTORTION, FINDER, Camera, facing, guided_poses, render_board, sighted
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.commissioning.charuco import Board, Finder, Sighting
from internvla_a1_ros.commissioning.intrinsics import fit_intrinsics
from internvla_a1_ros.commissioning.views import GRID, Views
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray, Verdict

CAMERA = Camera()
RAYS = CAMERA.rays


def views_of(poses: list[FloatArray], seed: int, noise_px: float = 0.2) -> Views:
    """Gather sightings without rendering."""
    rng, views = np.random.default_rng(seed), Views(BOARD)
    for each in poses:
        views.offer(sighted(CAMERA, each, rng, noise_px))
    return views


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_intrinsics_of_rendered_pictures_are_within_half_a_percent(seed: int) -> None:
    rng, views = np.random.default_rng(seed), Views(BOARD)
    for each in guided_poses(rng):
        sighting = FINDER.find(render_board(CAMERA, each, rng, RAYS, blur_px=0.8, noise=3.0))
        assert isinstance(sighting, Sighting), sighting
        views.offer(sighting)
    fit = fit_intrinsics(views, BOARD)
    got = fit.matrix[[0, 1], [0, 1]]
    assert got == pytest.approx([CAMERA.fx, CAMERA.fy], rel=0.005)
    assert fit.matrix[:2, 2] == pytest.approx([CAMERA.cx, CAMERA.cy], abs=0.005 * CAMERA.width)
    assert fit.reprojection_px < 0.4 and fit.used >= 12
    # What matters is where a ray goes: over the whole picture, half a percent of the focal length.
    corners = np.array([[x, y, 1.0] for x in (-0.5, 0.0, 0.5) for y in (-0.38, 0.0, 0.38)])
    lenses = ((fit.matrix, fit.distortion), (CAMERA.matrix, DISTORTION))
    drawn, truth = (cv2.projectPoints(corners, np.zeros(3), np.zeros(3), *lens)[0] for lens in lenses)
    assert np.abs(drawn - truth).max() < 0.005 * CAMERA.fx


def test_found_corners_are_where_they_are() -> None:
    rng = np.random.default_rng(0)
    camera_from_board = facing(rng, (0.0, 0.0, 0.45), 30.0)
    found = FINDER.find(render_board(CAMERA, camera_from_board, rng, RAYS))
    truth = sighted(CAMERA, camera_from_board, rng, 0.0)
    assert isinstance(found, Sighting) and len(found.ids) > 30
    off_px = np.linalg.norm(found.corners - truth.corners[found.ids], axis=1)
    assert np.sqrt((off_px**2).mean()) < 0.15 and off_px.max() < 1.0


@pytest.mark.parametrize(("blur_px", "usable"), [(0.5, True), (1.5, True), (2.4, False)])
def test_a_blurred_picture_is_refused_and_a_soft_one_is_not(blur_px: float, usable: bool) -> None:
    rng = np.random.default_rng(4)
    found = FINDER.find(render_board(CAMERA, facing(rng, (0.0, 0.0, 0.33), 15.0), rng, RAYS, blur_px=blur_px))
    assert isinstance(found, Sighting) == usable
    if isinstance(found, Verdict):
        assert found.code == "blurred" and "hold the board still" in found.reason


def test_motion_in_one_direction_is_blur_too() -> None:
    rng = np.random.default_rng(5)
    picture = render_board(CAMERA, facing(rng, (0.0, 0.0, 0.33), 0.0, 0.0), rng, RAYS).astype(np.float64)
    smeared = sum(np.roll(picture, k, axis=1) for k in range(9)) / 9
    found = FINDER.find(smeared.astype(np.uint8))
    assert isinstance(found, Verdict) and found.code == "blurred"


def test_a_picture_without_a_board() -> None:
    found = FINDER.find(np.full((480, 640, 3), 127, np.uint8))
    assert isinstance(found, Verdict) and found.code == "no_board"


def test_a_corner_of_the_board_is_too_little() -> None:
    rng = np.random.default_rng(6)
    found = FINDER.find(render_board(CAMERA, facing(rng, (0.40, 0.28, 0.5), 0.0, 0.0), rng, RAYS))
    assert isinstance(found, Verdict) and found.code in ("few_corners", "no_board")


def test_the_same_view_brings_nothing_and_another_size_is_refused() -> None:
    rng, views = np.random.default_rng(7), Views(BOARD)
    seen = sighted(CAMERA, facing(rng, (0.0, 0.0, 0.45), 30.0), rng, 0.2)
    assert views.offer(seen)
    again = views.offer(seen)
    assert not again and again.code == "same_view" and "bring the board to the top left of the picture" in again.reason
    other = views.offer(Sighting((320, 240), seen.ids, seen.corners, 0.5))
    assert other.code == "size" and "320x240" in other.reason and "640x480" in other.reason


def refusal(views: Views) -> str:
    with pytest.raises(ConfigurationError) as caught:
        fit_intrinsics(views, BOARD)
    return str(caught.value)


def test_too_few_views() -> None:
    rng = np.random.default_rng(8)
    assert refusal(views_of(guided_poses(rng)[:5], 8)).startswith("intrinsics: got 5 different views of the board, expected at least 12")


def test_poor_coverage() -> None:
    rng = np.random.default_rng(9)
    poses = [facing(rng, (rng.uniform(-0.03, 0.03), 0.0, 0.9), rng.uniform(10, 45)) for _ in range(60)]
    text = refusal(views_of(poses, 9))
    assert "of the picture, expected 80%" in text and "bring the board to" in text


def test_untilted_views_say_no_focal_length() -> None:
    rng = np.random.default_rng(10)
    places = [(x, y, z) for z in (0.33, 0.45) for y in (-0.12, 0.0, 0.12) for x in (-0.17, 0.0, 0.17)]
    assert "views tilted by 20 degrees or more, expected 4" in refusal(views_of([facing(rng, each, 1.0) for each in places], 10))


def test_a_board_whose_squares_differ_does_not_fit() -> None:
    rng, views = np.random.default_rng(11), Views(BOARD)
    for each in guided_poses(rng):
        seen = sighted(CAMERA, each, rng, 0.2)
        views.offer(Sighting(seen.size, seen.ids, seen.corners + 6.0 * np.sin(seen.ids / 3.0)[:, None], 0.7))
    assert "is the board flat" in refusal(views)


def test_one_mistaken_view_is_dropped() -> None:
    rng = np.random.default_rng(12)
    views = views_of(guided_poses(rng), 12)
    wrong = views.taken[3]
    views.taken[3] = Sighting(wrong.size, wrong.ids, wrong.corners + rng.normal(0, 4.0, wrong.corners.shape), 0.7)
    fit = fit_intrinsics(views, BOARD)
    assert fit.used == len(views.taken) - 1
    assert fit.matrix[0, 0] == pytest.approx(CAMERA.fx, rel=0.005)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.25, 0.25), st.floats(-0.2, 0.2), st.floats(0, 45)), max_size=8), st.integers(0, 99))
def test_coverage_only_grows_and_is_a_share(places: list[tuple[float, float, float]], seed: int) -> None:
    rng, views, before = np.random.default_rng(seed), Views(BOARD), 0.0
    for x, y, tilt in places:
        taken = views.offer(sighted(CAMERA, facing(rng, (x, y, 0.5), tilt), rng, 0.1))
        assert 0.0 <= before <= views.covered <= 1.0 and (taken or views.covered == before)
        before = views.covered
    assert views.corners_in.shape == GRID and not views.enough
    assert views.corners_in.sum() == sum(len(sighting.ids) for sighting in views.taken)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"marker_m": 0.03}, "expected 0.4 to 0.9 of a square"),
        ({"columns": 20, "rows": 20}, "the codes do not suffice"),
    ],
)
def test_a_board_that_cannot_be_drawn(change: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Board(**change)  # type: ignore[arg-type]


def test_the_drawn_board_is_found_whole() -> None:
    for board in (BOARD, Board(columns=7, rows=5, square_m=0.04, marker_m=0.03)):
        found = Finder(board).find(np.pad(board.picture(50), 40, constant_values=255))
        assert isinstance(found, Sighting) and len(found.ids) == (board.columns - 1) * (board.rows - 1)
        assert found.corners == pytest.approx(board.corners_m[:, :2] / board.square_m * 50 + 39.5, abs=0.3)
