"""One rollout: a trial in the simulated cell, closed through the live policy and command loops on a simulated clock.

The cell moves in physics steps, arms are measured and commanded at the profile's rate, pictures come at 30 Hz. Before the trial begins
the arms are armed and follow a plan that holds them where they start, as between two parcels on a robot: the ramp costs no parcel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ActionChunk, FloatArray, Frame, JointState, Mode
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.command_io import CommandInbox, CommandOutbox, Request
from internvla_a1_ros.runtime.command_loop import CommandLoop
from internvla_a1_ros.runtime.policy_loop import PolicyInbox, PolicyLoop
from internvla_a1_ros.runtime.virtual_loop import Ears, Thought, VirtualLoop
from internvla_a1_ros.simulation.profile_joints import CellJoints
from internvla_a1_ros.simulation.trial import Outcome, Trial

CAMERA_HZ = 30
_START_NS = 1_000_000_000
_S_NS = 1_000_000_000
# The plan that holds the arms before the trial: as long as a chunk, said anew as often as a slow policy would.
_HELD_ACTIONS, _HELD_EVERY_NS = 50, 200_000_000


@dataclass(slots=True, eq=False)
class Made:
    """What one rollout led to. `late_ns`: from each observation to the arrival of its chunk."""

    outcome: Outcome | None = None
    chunks: int = 0
    late_ns: list[int] = field(default_factory=list)
    guided: int = 0
    no_chunk: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    holds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ticks: int = 0
    limited_ticks: int = 0
    clamped_ticks: int = 0
    instructions: list[tuple[float, str]] = field(default_factory=list)


# Takes the pictures of one moment: given its stamp, the frames of all cameras.
Camera = Callable[[int], "list[Frame]"]
# Is told of each moment: the trial, the command's mode, the pictures.
Witness = Callable[[Trial, Mode, "list[Frame]"], None]


class Rollout:
    """Closes the loop around a trial that has just begun. `latency_ns`: from an observation to the arrival of its chunk."""

    def __init__(
        self,
        trial: Trial,
        joints: CellJoints,
        profile: RobotProfile,
        policy: PolicyLoop,
        camera: Camera,
        latency_ns: int,
        witness: Witness | None = None,
    ) -> None:
        self._trial, self._cell, self._joints, self._profile = trial, trial.cell, joints, profile
        self._camera, self._witness = camera, witness
        self._command = CommandLoop(profile, profile.name, dry_run=False)
        ears = Ears(self._thought, self._ticked)
        # Pictures are handed in a nanosecond before their time (`run`): that much later a chunk is on time.
        self._loop = VirtualLoop(
            policy, PolicyInbox(), self._command, CommandInbox(), profile.dt_ns, lambda _: latency_ns + 1, _START_NS, ears
        )
        self._made, self._begun = Made(), False

    def run(self, until_s: float = np.inf) -> Made:
        """Run the trial to its end, or to `until_s`. Raises ConfigurationError where the arms cannot be armed in their start pose."""
        begin_ns = self._come_under_way()
        self._begun, ticks_before = True, self._command.counters.ticks
        step_ns, steps, tick, picture = self._cell.config.timestep_s * 1e9, 0, 0, 0
        self._instruct()
        while not self._is_over() and self._cell.time_s < until_s:
            tick_ns, picture_ns = tick * self._profile.dt_ns, picture * _S_NS // CAMERA_HZ
            after_ns = min(tick_ns, picture_ns)
            # Events are planned in nanoseconds and physics moves in steps: each happens at the step nearest to it.
            target, now_ns = round(after_ns / step_ns), begin_ns + after_ns
            self._loop.advance(now_ns - 1)
            self._cell.advance(target - steps)
            steps = target
            if tick_ns == after_ns:
                tick += 1
                self._loop.see(self._measured(now_ns))
            if picture_ns == after_ns:
                picture += 1
                self._trial.look()
                if self._is_over():
                    break
                self._instruct()
                self._show(self._camera(now_ns))
            # The policy begins with what it sees before the cell moves on; one that becomes free now has the newest.
            self._loop.advance(now_ns)
        self._made.ticks = self._command.counters.ticks - ticks_before
        return self._finished()

    def _is_over(self) -> bool:
        return self._trial.outcome is not None

    def _come_under_way(self) -> int:
        """Arm, and follow a plan that holds the start pose until the ramp is over; return when the trial begins. The cell stands still."""
        inbox, loop, profile = self._loop.inbox, self._loop, self._profile
        start = self._joints.to_robot(self._cell.joint_state()[0])
        inbox.ask(Request.ACTIVATE)
        inbox.ask(Request.ARM)
        patience_ns = round((profile.ramp_s + 1.0) * _S_NS)
        for now_ns in range(_START_NS, _START_NS + patience_ns, profile.dt_ns):
            loop.see(self._measured(now_ns))
            if now_ns > _START_NS and (now_ns - _START_NS - profile.dt_ns) % _HELD_EVERY_NS < profile.dt_ns:
                loop.plan(self._held(start, now_ns))
            loop.advance(now_ns)
            if self._command.mode is Mode.RUN:
                loop.plan(self._held(start, now_ns))
                return now_ns + profile.dt_ns
        got = f"got mode {self._command.mode.value} after {patience_ns / _S_NS:g} s"
        raise ConfigurationError(f"robot '{profile.name}': {got} in the cell's start pose, expected run: do its limits allow the pose?")

    def _held(self, start: FloatArray, now_ns: int) -> ActionChunk:
        dt_ns = _S_NS // CAMERA_HZ
        return ActionChunk(self._profile.name, self._profile.joint_names, now_ns, now_ns + dt_ns, dt_ns, np.tile(start, (_HELD_ACTIONS, 1)))

    def _measured(self, now_ns: int) -> JointState:
        return JointState(now_ns, self._joints.to_robot(self._cell.joint_state()[0]))

    def _show(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._loop.see(frame)
        if self._witness is not None:
            self._witness(self._trial, self._command.mode, frames)

    def _instruct(self) -> None:
        text = self._trial.instruction
        if text != self._loop.seeing.instruction:
            self._made.instructions.append((self._cell.time_s, text))
            self._loop.instruct(text)

    def _thought(self, thought: Thought) -> None:
        made, inference = self._made, thought.out.inference
        if not self._begun:
            return
        if inference is None:
            made.no_chunk[thought.out.verdict.code] += 1
            return
        made.chunks += 1
        made.late_ns.append(thought.done_ns - inference.chunk.stamp_ns)
        made.guided += inference.guidance == "guided"

    def _ticked(self, _now_ns: int, out: CommandOutbox) -> None:
        if out.send:
            self._cell.command(self._joints.to_cell(out.positions))

    def _finished(self) -> Made:
        made, counters = self._made, self._command.counters
        made.outcome = self._trial.outcome
        made.refused, made.holds, made.faults = counters.chunks_refused, counters.holds, counters.faults
        made.limited_ticks, made.clamped_ticks = counters.limited_ticks, counters.clamped_ticks
        return made
