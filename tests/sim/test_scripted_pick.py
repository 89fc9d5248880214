"""The physics allow the work: a scripted arm takes a parcel off the moving belt and holds it."""

from __future__ import annotations

import numpy as np
import pytest

from internvla_a1_ros.simulation.arm import OPEN_READOUT, X5
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.config import SIDES
from internvla_a1_ros.simulation.kinematics import ArmKinematics, facing_down
from internvla_a1_ros.simulation.scripted import PickFromBelt

RATE_HZ = 30


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell()


def above_belt_m(cell: Cell, code: str) -> float:
    parcel = next((p for p in cell.parcels() if p.code == code), None)
    return -1.0 if parcel is None else float(parcel.position_m[2] - parcel.half_height_m - cell.config.belt.top_m)


@pytest.mark.parametrize(("seed", "side", "speed"), [(1, "left", 0.05), (3, "right", 0.08), (5, "left", 0.1), (8, "right", 0.15)])
def test_a_parcel_is_taken_off_the_moving_belt_and_held(cell: Cell, seed: int, side: str, speed: float) -> None:
    cell.reset(seed)
    cell.belt_speed_m_s = speed
    base_y = 0.24 if side == "left" else -0.24
    parcel = min((p for p in cell.parcels() if p.position_m[1] > base_y + 0.1), key=lambda p: p.position_m[1])
    expert = PickFromBelt(cell, side, parcel.slot)
    held_s, steps = 0.0, []
    before = cell.goal()
    for _ in range(15 * RATE_HZ):
        command = expert.act(1 / RATE_HZ)
        steps.append(np.abs(command - before)[[*range(6), *range(7, 13)]].max())
        before = command
        cell.command(command)
        cell.step(1 / RATE_HZ)
        held_s = held_s + 1 / RATE_HZ if above_belt_m(cell, parcel.code) > 0.08 else 0.0
        if held_s >= 1.0:
            break
    assert held_s >= 1.0
    assert cell.counts.picked == 1
    # No jumps: the command moves on by at most its speed limit.
    assert max(steps) <= 2.5 / RATE_HZ + 1e-9

    # The other arm stayed; an opened hand lets go.
    other = 7 * (1 - SIDES.index(side))
    assert cell.joint_state()[0][other : other + 6] == pytest.approx(cell.config.start_rad, abs=0.02)
    command[7 * SIDES.index(side) + 6] = OPEN_READOUT
    cell.command(command)
    cell.step(1.0)
    assert above_belt_m(cell, parcel.code) < 0.02


def test_a_gripper_holds_its_parcel_when_the_arm_swings(cell: Cell) -> None:
    cell.reset(1)
    cell.belt_speed_m_s = 0.08
    parcel = min((p for p in cell.parcels() if p.position_m[1] > 0.34), key=lambda p: p.position_m[1])
    expert = PickFromBelt(cell, "left", parcel.slot)
    while above_belt_m(cell, parcel.code) < 0.12:
        cell.command(expert.act(1 / RATE_HZ))
        cell.step(1 / RATE_HZ)
        assert cell.time_s < 15
    cell.step(0.5)
    command = cell.goal()
    start = command[0]
    for k in range(3 * RATE_HZ):
        command[0] = start + 0.35 * np.sin(2 * np.pi * k / RATE_HZ / 1.5)
        cell.command(command)
        cell.step(1 / RATE_HZ)
        assert above_belt_m(cell, parcel.code) > 0.08


@pytest.mark.parametrize("side", SIDES)
def test_inverse_kinematics_reach_the_belt_hand_down(cell: Cell, side: str) -> None:
    kinematics = ArmKinematics(cell.model, side)
    base_y = 0.24 if side == "left" else -0.24
    for x in (0.30, 0.36, 0.42):
        for dy in (-0.15, 0.0, 0.15):
            for yaw in (np.pi / 4, np.pi / 2, 3 * np.pi / 4):
                wanted = np.array([x, base_y + dy, 0.09])
                joints = kinematics.solve(np.array(cell.config.start_rad), wanted, facing_down(yaw), iterations=60)
                position, rotation = kinematics.forward(joints)
                assert np.linalg.norm(position - wanted) < 1e-3
                assert np.abs(rotation - facing_down(yaw)).max() < 1e-2
                assert (joints >= X5.range_low[:6]).all() and (joints <= X5.range_high[:6]).all()


def test_inverse_kinematics_stay_inside_limits_out_of_reach(cell: Cell) -> None:
    kinematics = ArmKinematics(cell.model, "left")
    joints = kinematics.solve(np.array(cell.config.start_rad), np.array([2.0, 0.0, 0.0]), facing_down(0.0), iterations=60)
    assert np.isfinite(joints).all()
    assert (joints >= X5.range_low[:6]).all() and (joints <= X5.range_high[:6]).all()
