"""The whole loop on a simulated clock: MuJoCo cell, policy with the small model, command loop; twice the same, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from command_rig import assert_within

from internvla_a1_ros.core.sync import CameraSpec, ObservationBuilder
from internvla_a1_ros.core.types import ActionChunk, FloatArray, Frame, JointState, Mode
from internvla_a1_ros.evaluation import continuing, seams
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.command_io import CommandInbox, Request
from internvla_a1_ros.runtime.command_loop import CommandLoop
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.runtime.policy_loop import PolicyInbox, PolicyLoop
from internvla_a1_ros.simulation.cell import Cell

MS = 1_000_000
START_NS = 1_000 * MS
TICKS = 220
LATENCY_NS = 70 * MS
PROFILE = load_profile("arx_ac_one")
ARMS = ~PROFILE.is_gripper


@dataclass
class Told:
    """What one run left behind."""

    start: FloatArray
    commands: list[FloatArray]
    measured: list[FloatArray]
    modes: list[Mode]
    arrivals: list[tuple[int, ActionChunk]]
    refused: int
    hit_rate: float


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = Cell(seed=1)
    yield made
    made.close()


def run(cell: Cell, seed: int = 0, *, arm: bool = True, dry_run: bool = False, ticks: int = TICKS, guidance: str = "off") -> Told:
    """Run `ticks`: pictures at 30 Hz, ticks at 100 Hz, plans handed over `LATENCY_NS` after their observation."""
    cell.reset(1)
    policy = load_policy(find_checkpoint("nano"), PROFILE, "cell", threads=1, seed=seed, guidance=guidance)
    builder = ObservationBuilder(tuple(CameraSpec(camera.name) for camera in PROFILE.cameras), policy.manifest.history.spec)
    names = tuple(camera.name for camera in PROFILE.cameras)
    thinking = PolicyLoop(policy, builder, names, policy.manifest.target_rate_hz)
    seeing = PolicyInbox(instruction=policy.manifest.instructions[0])
    command, inbox = CommandLoop(PROFILE, "cell", dry_run=dry_run), CommandInbox()
    told = Told(cell.joint_state()[0], [], [], [], [], 0, 0.0)
    under_way: list[tuple[int, ActionChunk]] = []
    pictures = 0
    for tick in range(ticks):
        now_ns = START_NS + tick * PROFILE.dt_ns
        cell.step((now_ns - START_NS) * 1e-9 - cell.time_s)
        measured = cell.joint_state()[0]
        told.measured.append(measured)
        seeing.joints.append(JointState(now_ns, measured))
        inbox.see_joints(JointState(now_ns, measured), now_ns)
        if now_ns - START_NS >= pictures * 1e9 / 30:
            pictures += 1
            seeing.frames.extend(Frame(name, now_ns, now_ns, cell.render(name, 96, 72)) for name in names)
        thought = thinking.step(seeing, now_ns)
        if thought is not None and thought.inference is not None:
            under_way.append((now_ns + LATENCY_NS, thought.inference.chunk))
        if tick == 2:
            inbox.ask(Request.ACTIVATE)
        if tick == 5 and arm:
            inbox.ask(Request.ARM)
        while under_way and under_way[0][0] <= now_ns:
            told.arrivals.append((now_ns, under_way[0][1]))
            inbox.chunks.append(under_way.pop(0)[1])
        out = command.step(inbox, now_ns)
        if any(out.chunk_verdicts) and out.sampled_ns:
            seeing.tail = command.committed(out.sampled_ns)
        told.modes.append(out.mode)
        if out.send:
            told.commands.append(out.positions.copy())
            cell.command(out.positions)
    # Plans from before arming are refused, by design; nothing else is.
    told.refused = sum(count for code, count in command.counters.chunks_refused.items() if code != "before_arm")
    told.hit_rate = policy.latent_hit_rate
    return told


@pytest.fixture(scope="module")
def first(cell: Cell) -> Told:
    return run(cell)


def test_the_loop_runs_and_moves_the_arms(first: Told) -> None:
    assert {Mode.HOLD, Mode.RAMP_IN, Mode.RUN} <= set(first.modes) and first.modes[-1] is Mode.RUN
    assert first.modes.index(Mode.RUN) < 150 and first.refused == 0
    assert 18 <= len(first.arrivals) <= 22  # ten a second
    assert first.hit_rate > 0.9
    commanded = np.ptp(np.array(first.commands), axis=0)
    measured = np.ptp(np.array(first.measured), axis=0)
    assert (commanded[ARMS] > 0.01).all() and (measured[ARMS] > 0.005).all()


def test_no_command_leaves_a_limit(first: Told) -> None:
    assert len(first.commands) > 190
    assert_within(PROFILE, first.start, first.commands)


def test_the_arms_follow_what_they_are_told(first: Told) -> None:
    commands, measured = np.array(first.commands), np.array(first.measured[-len(first.commands) :])
    assert np.abs(commands[:-1] - measured[1:])[:, ARMS].max() < 0.05


def test_plans_fade_into_each_other(first: Told) -> None:
    arms = np.flatnonzero(ARMS).tolist()
    faded, hard = (seams.measure(first.arrivals[2:], PROFILE.dt_ns, round(fade_s * 1e9), arms) for fade_s in (PROFILE.fade_s, 0.0))
    assert faded.excess_rad <= 0.002
    assert faded.across_rad < 0.9 * hard.across_rad  # an untrained model's plans are rough inside: the fade shows against none


def test_guided_plans_continue_each_other_without_a_fade(cell: Cell, first: Told) -> None:
    guided = run(cell, guidance="soft")
    assert guided.refused == 0 and guided.modes == first.modes
    assert_within(PROFILE, guided.start, guided.commands)
    apart, free = (continuing.replay(told.arrivals[6:], PROFILE, 0) for told in (guided, first))
    assert np.median(apart.apart_rad) < 0.2 * np.median(free.apart_rad)
    assert np.median(apart.step_rad) < 0.6 * np.median(free.step_rad)
    assert (np.ptp(np.array(guided.commands), axis=0)[ARMS] > 0.01).all(), "and the arms still move"


def test_the_same_again_to_the_bit(cell: Cell, first: Told) -> None:
    again = run(cell)
    assert again.modes == first.modes
    assert np.array_equal(np.array(again.commands), np.array(first.commands))
    assert np.array_equal(np.array(again.measured), np.array(first.measured))
    assert all(np.array_equal(a.positions, b.positions) for (_, a), (_, b) in zip(again.arrivals, first.arrivals, strict=True))


def test_another_seed_moves_otherwise(cell: Cell, first: Told) -> None:
    other = run(cell, seed=1)
    assert len(other.commands) == len(first.commands)
    assert np.abs(np.array(other.commands) - np.array(first.commands)).max() > 1e-3


@pytest.mark.parametrize(("arm", "dry_run"), [(False, False), (True, True)])
def test_unarmed_or_in_a_dry_run_nothing_is_sent_and_nothing_moves(cell: Cell, arm: bool, dry_run: bool) -> None:
    told = run(cell, arm=arm, dry_run=dry_run, ticks=150)
    assert told.commands == [] and len(told.arrivals) >= 12
    assert (Mode.RUN in told.modes) is arm  # a dry run does everything but send
    assert np.ptp(np.array(told.measured), axis=0).max() < 2e-3
