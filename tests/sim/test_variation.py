"""The cell looks another way in every trial, and moves the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import CAMERAS
from internvla_a1_ros.simulation.variation import CAMERA_M, CAMERA_RAD, STRENGTH, TINTED, Variation


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell()
    yield made
    made.close()


def shown(cell: Cell) -> np.ndarray:
    return np.stack([cell.render(name, 64, 48) for name in CAMERAS])


def test_it_is_undone(cell: Cell) -> None:
    cell.reset(1)
    plain = shown(cell)
    looks = []
    for seed in (3, 4):
        Variation.drawn(seed).apply(cell)
        looks.append(shown(cell))
    assert all(np.abs(look.astype(int) - plain).mean() > 3 for look in looks)
    assert np.abs(looks[0].astype(int) - looks[1]).mean() > 3
    Variation.drawn(3).apply(cell)
    np.testing.assert_array_equal(shown(cell), looks[0])  # whatever was there before
    Variation.drawn(5, 0.0).apply(cell)
    np.testing.assert_array_equal(shown(cell), plain)


def test_what_moves_moves_the_same(cell: Cell) -> None:
    ends = []
    for level in (0.0, 1.0):
        Variation.drawn(7, level).apply(cell)
        cell.reset(2)
        cell.command(cell.goal() + 0.3)
        cell.advance(240)
        ends.append(np.concatenate([cell.data.qpos, cell.data.qvel]))
    np.testing.assert_array_equal(*ends)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**9), level=st.floats(0, 1))
def test_everything_stays_in_its_range(seed: int, level: float, cell: Cell) -> None:
    drawn = Variation.drawn(seed, level)
    assert all(abs(factor - 1) <= level * STRENGTH for factor in (drawn.ambient, drawn.diffuse))
    assert np.abs(drawn.shifts_m).max() <= level * CAMERA_M and drawn.mixed <= level * TINTED
    assert np.linalg.norm(drawn.turns_rad, axis=1).max() <= level * CAMERA_RAD + 1e-12
    assert (drawn.belt > 0).all() and ((drawn.room >= 0) & (drawn.room <= 1)).all()
    for thing in drawn.things:
        (x, y, z), reach = thing.position_m, float(np.linalg.norm(thing.size_m[:2]))
        belt = cell.config.belt
        assert abs(x - belt.centre_x_m) > belt.width_m / 2 + 0.02 + reach or abs(y) > belt.length_m / 2
        assert all(np.abs(np.array([x, y]) - box.centre_m).max() > box.size_m[0] / 2 + reach for box in cell.config.bins.values())
        assert np.hypot(x, abs(y) - cell.config.arm_spacing_m / 2) > 0.15 + reach
        assert z < 0.1


def test_cameras_turn_by_no_more_than_was_drawn(cell: Cell) -> None:
    drawn = Variation.drawn(11)
    drawn.apply(cell)
    for name, turn in zip(CAMERAS, drawn.turns_rad, strict=True):
        camera = cell.model.camera(name).id
        cosine = abs(float(cell.model.cam_quat[camera] @ cell.pristine.cam_quat[camera]))
        assert 2 * np.arccos(min(cosine, 1.0)) == pytest.approx(np.linalg.norm(turn), abs=1e-6)


def test_all_numbers_of_things_come(cell: Cell) -> None:
    assert {len(Variation.drawn(seed).things) for seed in range(60)} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_levels_that_there_are_not(level: float) -> None:
    with pytest.raises(ConfigurationError, match=f"variation: got {level}, expected 0 to 1"):
        Variation.drawn(1, level)
