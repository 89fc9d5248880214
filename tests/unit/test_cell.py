"""The cell without ROS: physics, servos, labels, pictures, counts."""

from __future__ import annotations

import numpy as np
import pytest

from internvla_a1_ros.simulation import arm
from internvla_a1_ros.simulation.cell import DOF, Cell
from internvla_a1_ros.simulation.config import CellConfig, Parcels
from internvla_a1_ros.simulation.labels import label_picture, read_labels

START = (0.0, 0.948, 0.858, -0.573, 0.0, 0.0, arm.OPEN_READOUT) * 2


@pytest.fixture(scope="module")
def shared_cell() -> Cell:
    return Cell(seed=5)


@pytest.fixture
def cell(shared_cell: Cell) -> Cell:
    shared_cell.belt_speed_m_s = 0.08
    shared_cell.reset(5)
    return shared_cell


def test_arms_hold_their_start_pose_against_gravity(cell: Cell) -> None:
    cell.step(2.0)
    positions, velocities = cell.joint_state()
    assert positions == pytest.approx(START, abs=1e-3)
    assert np.abs(velocities).max() < 1e-2


@pytest.mark.parametrize("joint", range(DOF))
def test_each_command_moves_its_own_joint_and_arrives(cell: Cell, joint: int) -> None:
    goal = np.array(START)
    goal[joint] += 1.2 if joint % 7 == 6 else 0.25
    cell.command(goal)
    cell.step(1.0)
    positions, _ = cell.joint_state()
    assert positions == pytest.approx(goal, abs=4e-3)


def test_servos_are_no_faster_than_the_arm(cell: Cell) -> None:
    goal = np.array(START)
    goal[0] += 2.0
    cell.command(goal)
    speeds = []
    for _ in range(48):
        cell.advance(10)
        speeds.append(cell.joint_state()[1][0])
    assert 4.0 < max(speeds) < 5.0 * 1.1


def test_a_command_beyond_the_stops_ends_at_the_stop(cell: Cell) -> None:
    goal = np.array(START)
    goal[5], goal[6] = 10.0, 3.0
    cell.command(goal)
    cell.step(2.0)
    positions, _ = cell.joint_state()
    assert positions[5] == pytest.approx(2.0, abs=0.01)
    assert positions[6] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("bad", [np.full(DOF, np.nan), np.full(DOF, np.inf), np.zeros(7), np.zeros((2, 7))])
def test_a_command_that_is_not_14_finite_numbers_is_refused(cell: Cell, bad: np.ndarray) -> None:
    before = cell.goal()
    with pytest.raises(ValueError, match="expected 14 finite numbers"):
        cell.command(bad)
    assert (cell.goal() == before).all()


@pytest.mark.parametrize("speed", [0.05, 0.15])
def test_the_belt_carries_parcels_at_its_speed(cell: Cell, speed: float) -> None:
    cell.belt_speed_m_s = speed
    cell.step(0.5)
    before = {p.code: p.position_m for p in cell.parcels() if abs(p.position_m[1]) < 0.6}
    cell.step(1.0)
    after = {p.code: p.position_m for p in cell.parcels()}
    assert before
    for code, position in before.items():
        assert after[code][1] - position[1] == pytest.approx(-speed, rel=0.02)
        assert abs(after[code][0] - position[0]) < 2e-3


@pytest.mark.parametrize("speed", [-0.1, 0.5, float("nan")])
def test_belt_speed_is_bounded(cell: Cell, speed: float) -> None:
    with pytest.raises(ValueError, match="belt speed"):
        cell.belt_speed_m_s = speed


def test_a_standing_belt_brings_nothing(cell: Cell) -> None:
    cell.belt_speed_m_s = 0.0
    codes = [p.code for p in cell.parcels()]
    cell.step(3.0)
    assert [p.code for p in cell.parcels()] == codes
    assert all(np.linalg.norm(p.velocity_m_s) < 1e-3 for p in cell.parcels())


def test_parcels_leave_at_the_end_and_new_ones_come(cell: Cell) -> None:
    cell.belt_speed_m_s = 0.3
    cell.step(12.0)
    counts = cell.counts
    assert counts.missed >= 4
    assert counts.spawned == counts.missed + counts.fallen + len(cell.parcels())
    assert counts.picked == counts.sorted == counts.missorted == counts.fallen == 0
    assert 1 <= len(cell.parcels()) <= cell.config.parcels.slots


@pytest.mark.parametrize(("bin_name", "expected"), [("left", "sorted"), ("right", "missorted")])
def test_a_parcel_in_a_bin_is_counted_once_and_taken_away(cell: Cell, bin_name: str, expected: str) -> None:
    parcel = next(p for p in cell.parcels() if p.destination == "left")
    joint = cell.model.joint(f"parcel{parcel.slot}").id
    first = cell.model.jnt_qposadr[joint]
    cell.data.qpos[first : first + 3] = (*cell.config.bins[bin_name].centre_m, 0.15)
    cell.belt_speed_m_s = 0.0
    cell.step(2.5)
    assert getattr(cell.counts, expected) == 1
    assert cell.counts.sorted + cell.counts.missorted == 1
    assert parcel.code not in [p.code for p in cell.parcels()]


def test_no_parcel_sinks_or_starts_in_the_air(cell: Cell) -> None:
    for seed in range(5):
        cell.reset(seed)
        cell.step(0.3)
        for parcel in cell.parcels():
            assert parcel.place == "belt"
            assert parcel.position_m[2] - parcel.half_height_m == pytest.approx(cell.config.belt.top_m, abs=2e-3)


def test_every_parcel_fits_the_gripper_both_ways() -> None:
    spec = Parcels()
    assert max(spec.width_m[1], spec.height_m[1]) < arm.OPENING_M - 0.015


def test_same_seed_same_states_and_pictures_another_seed_differs() -> None:
    def run(seed: int) -> tuple[np.ndarray, np.ndarray]:
        cell = Cell(seed=seed)
        goal = np.array(START)
        goal[[0, 9]] += 0.3
        cell.command(goal)
        cell.step(1.5)
        picture = cell.render("head", 160, 120)
        state = cell.data.qpos.copy()
        cell.close()
        return state, picture

    first, again, other = run(1), run(1), run(2)
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert not (first[0] == other[0]).all() and not (first[1] == other[1]).all()


def test_reset_begins_the_same_episode_again(cell: Cell) -> None:
    def episode() -> tuple[list[str], np.ndarray]:
        cell.reset(11)
        cell.step(1.0)
        return [p.code for p in cell.parcels()], cell.data.qpos.copy()

    codes, state = episode()
    cell.command(np.zeros(DOF))
    cell.step(0.7)
    codes_again, state_again = episode()
    assert codes == codes_again
    assert (state == state_again).all()


@pytest.mark.parametrize("camera", ["head", "left", "right"])
@pytest.mark.parametrize("size", [(320, 240), (96, 96)])
def test_pictures_show_something(cell: Cell, camera: str, size: tuple[int, int]) -> None:
    picture = cell.render(camera, *size)
    assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.uint8
    assert picture.std() > 20


def test_pictures_see_the_arm_the_belt_and_the_parcels_move(cell: Cell) -> None:
    cell.belt_speed_m_s = 0.0
    still = cell.render("head", 160, 120)
    cell.step(0.2)
    assert np.abs(still.astype(int) - cell.render("head", 160, 120)).mean() < 0.3
    cell.belt_speed_m_s = 0.15
    cell.step(0.5)
    assert np.abs(still.astype(int) - cell.render("head", 160, 120)).mean() > 2.0


@pytest.mark.parametrize(("camera", "width", "height"), [("wrist", 320, 240), ("head", 0, 240), ("head", 320, 99999)])
def test_unknown_camera_or_size_is_one_sentence(cell: Cell, camera: str, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="got"):
        cell.render(camera, width, height)


def test_a_label_that_lies_up_is_read_from_the_head_camera() -> None:
    cell = Cell(CellConfig(parcels=Parcels(faces=(1.0, 0.0, 0.0))), seed=2)
    read: set[str] = set()
    seen: set[str] = set()
    for _ in range(4):
        cell.step(1.0)
        seen |= {p.code for p in cell.parcels() if abs(p.position_m[1]) < 0.2}
        read |= set(read_labels(cell.render("head", 1280, 960)))
    truth = {p.code for p in cell.parcels()} | seen
    cell.close()
    assert seen and seen <= read <= truth


def test_a_label_that_lies_down_is_not_read() -> None:
    cell = Cell(CellConfig(parcels=Parcels(faces=(0.0, 0.0, 1.0))), seed=2)
    cell.step(1.0)
    assert read_labels(cell.render("head", 1280, 960)) == []
    cell.close()


def test_labels_carry_the_destination_and_round_trip() -> None:
    assert read_labels(np.kron(label_picture("L0000042"), np.ones((3, 3, 1), np.uint8))) == ["L0000042"]
    with pytest.raises(ValueError, match="expected 12"):
        label_picture("a text far too long for such a label")


def test_tool_pose_is_in_the_arms_base_frame(cell: Cell) -> None:
    left, right = cell.tool_pose("left"), cell.tool_pose("right")
    assert left == pytest.approx(right, abs=1e-6)
    # Down by 0.663 rad: shoulder 0.948 less elbow 0.858 and wrist -0.573.
    assert left[4] == pytest.approx(0.663, abs=1e-3)
    assert 0.2 < left[0] < 0.4
