"""What is said of a parcel is where it is in the picture that is rendered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from internvla_a1_ros.learning import warmup_targets
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS, Parcels
from internvla_a1_ros.simulation.seen import FIELDS, seen
from internvla_a1_ros.simulation.variation import Variation

WIDTH, HEIGHT = 320, 240
AT = {name: i for i, name in enumerate(FIELDS)}


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def pixels(cell: Cell, camera: str, slot: int) -> np.ndarray:
    """Return [n, 2], columns and rows, of a slot's parcel painted in a colour that is nowhere else."""
    rgba, label = cell.model.geom_rgba[(geom := cell.model.geom(f"parcel{slot}").id)].copy(), cell.model.geom(f"label{slot}").id
    without = cell.render(camera, WIDTH, HEIGHT).astype(int)
    cell.model.geom_rgba[geom] = (1, 0, 1, 1)
    size, cell.model.geom_size[label] = cell.model.geom_size[label].copy(), 1e-6
    with_ = cell.render(camera, WIDTH, HEIGHT).astype(int)
    cell.model.geom_rgba[geom], cell.model.geom_size[label] = rgba, size
    rows, columns = np.nonzero((np.abs(with_ - without).max(axis=2) > 12) & (with_[..., 1] < with_[..., 0] / 2))
    return np.stack([columns, rows], axis=1) + 0.5


def make_small(cell: Cell, slot: int, half: tuple[float, float, float]) -> None:
    """Only its picture becomes small: the centre of what is seen is then the parcel's."""
    cell.model.geom_size[cell.model.geom(f"parcel{slot}").id] = half


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_centres_are_where_they_are_seen(level: float, cell: Cell) -> None:
    Variation.drawn(3, level).apply(cell)
    compared = set()
    for seed in (1, 2, 4):
        cell.reset(seed)
        cell.advance(160)
        for parcel in cell.parcels():
            make_small(cell, parcel.slot, (0.006, 0.006, 0.006))
            found = seen(cell, WIDTH / HEIGHT)[:, parcel.slot]
            for i, camera in enumerate(CAMERAS):
                marked = pixels(cell, camera, parcel.slot)
                if found[i, AT["in_view"]] == 0:
                    assert len(marked) < 12 and not found[i].any()  # its edge may look in
                elif len(marked) >= 9:  # and not behind an arm
                    at = found[i, [AT["u"], AT["v"]]] * (WIDTH, HEIGHT)
                    assert np.abs(marked.mean(axis=0) - at).max() < 2.0, (seed, camera, parcel.slot)
                    compared.add((camera, seed))
    assert len(compared) >= 5 and {camera for camera, _ in compared} == set(CAMERAS)


def test_the_direction_is_that_of_the_length(cell: Cell) -> None:
    Variation.drawn(0, 0.0).apply(cell)
    compared = 0
    for seed in range(6):
        cell.reset(seed)
        for parcel in cell.parcels():
            make_small(cell, parcel.slot, (0.05, 0.003, 0.003))
            found = seen(cell)[0, parcel.slot]
            marked = pixels(cell, "head", parcel.slot)
            if not found[0] or len(marked) < 60 or np.ptp(marked, axis=0).max() < 20:
                continue
            marked = (marked - marked.mean(axis=0)) * (1, -1)  # towards the picture's top
            axis = np.linalg.svd(marked, full_matrices=False)[2][0]
            phi = np.arctan2(axis[1], axis[0])
            assert np.cos(2 * phi) * found[AT["cos_2phi"]] + np.sin(2 * phi) * found[AT["sin_2phi"]] > np.cos(2 * np.deg2rad(4))
            compared += 1
    assert compared >= 5


@pytest.mark.parametrize(("faces", "sign"), [((1.0, 0.0, 0.0), 1), ((0.0, 0.0, 1.0), -1)])
def test_labels_face_the_camera_or_away(faces: tuple[float, float, float], sign: int, cell: Cell) -> None:
    cell.reset(1, Parcels(faces=faces))
    head = np.array(cell.config.cameras["head"].position_m)
    for parcel in cell.parcels():
        found = seen(cell)[0, parcel.slot]
        if found[0]:
            away = head - parcel.position_m
            assert found[AT["distance_m"]] == pytest.approx(np.linalg.norm(away), abs=1e-6)
            assert found[AT["label_cosine"]] == pytest.approx(sign * away[2] / np.linalg.norm(away), abs=0.02)
            np.testing.assert_allclose(found[-3:], parcel.size_m)


def test_food_has_no_label_and_an_empty_slot_nothing(cell: Cell) -> None:
    cell.reset(1, Parcels(kinds=("bread",)))
    found = seen(cell)
    assert found.shape == (3, 4, 10) and found[:, :, 0].any()
    assert not found[..., AT["label_cosine"]].any()
    empty = set(range(4)) - {parcel.slot for parcel in cell.parcels()}
    assert empty and not found[:, sorted(empty)].any()


def test_the_vision_stage_reads_the_fields_as_they_are_written() -> None:
    """Two rooms beside each other, which do not import one another."""
    names = ("in_view", "u", "v", "distance_m", "cos_2phi", "sin_2phi", "label_cosine")
    assert [getattr(warmup_targets, name) for name in ("IN_VIEW", "U", "V", "DISTANCE", "COS_2PHI", "SIN_2PHI", "LABEL")] == [
        FIELDS.index(name) for name in names
    ]
    assert len(FIELDS) == warmup_targets.FIELDS
