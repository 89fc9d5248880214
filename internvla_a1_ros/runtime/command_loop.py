"""The only way to the robot: plans, requests and measurements in, one guarded command out, once a tick.

Deterministic: no clock, no I/O, no thread. It never raises for what arrives. The order of a tick is the order of importance:
e-stop, other dangers, people's requests, plans, motion, last assertion.
"""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.core.timeline import Timeline
from internvla_a1_ros.core.types import ACCEPTED, ActionChunk, FloatArray, JointState, Mode, Verdict, refused
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.command_io import CommandInbox, CommandOutbox, Counters, Request
from internvla_a1_ros.runtime.ramp import RampIn
from internvla_a1_ros.runtime.tickets import Event, Ticket
from internvla_a1_ros.safety import checks
from internvla_a1_ros.safety import machine as sm
from internvla_a1_ros.safety.assertion import LastAssertion
from internvla_a1_ros.safety.limiter import Limiter
from internvla_a1_ros.safety.machine import State
from internvla_a1_ros.safety.stillness import Stillness
from internvla_a1_ros.safety.tracking import Tracking

_ARRIVED_WITHIN = 1e-6
_FAULTS = (sm.Event.TRACKING_FAILED, sm.Event.FOREIGN_PUBLISHER, sm.Event.ASSERTION_FAILED)
_LEVELS = {
    **dict.fromkeys((sm.Event.ESTOP, *_FAULTS), "error"),
    **dict.fromkeys((sm.Event.EXHAUSTED, sm.Event.POLICY_GONE, sm.Event.STALE_JOINTS, sm.Event.CLOCK_JUMP), "warn"),
}
# Not worth a warning: the policy was still thinking when the operator acted.
_EXPECTED = ("before_arm", "before_resume", "before_reset", "before_instruction")


class CommandLoop:
    """Owns the plan, the limiter and the state of the command process of one robot."""

    def __init__(
        self,
        profile: RobotProfile,
        robot: str,
        *,
        dry_run: bool = True,
        heartbeat_timeout_s: float | None = None,
        state: State = State.INACTIVE,
    ) -> None:
        """`state`: an inactive one, where a loop before this one ended: what it latched is still to be reset."""
        self.counters = Counters()
        self.dry_run = dry_run
        self._profile = profile
        self._robot = robot
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._delay_ns = round(profile.actuation_delay_s * 1e9)
        self._fade_ns = round(profile.fade_s * 1e9)
        self._open_loop_ns = round(profile.max_open_loop_s * 1e9)
        self._timeline = Timeline(profile.dof)
        self._limiter = Limiter(profile)
        self._assertion = LastAssertion(profile)
        self._tracking = Tracking(profile)
        self._stillness = Stillness(profile)
        self._ramp = RampIn(profile.dof, profile.ramp_s)
        self._state = state
        # Whether commands flow: from arming (or resuming) until the arms rest in a state in which nothing is to be sent.
        self._live = False
        self._activated_ns = 0
        self._epochs: dict[str, int] = {}
        self._chunk: ActionChunk | None = None
        self._chunk_ns = 0
        # Where a motion of our own (go-to-ready, retreat to the measured pose) leads.
        self._goal = np.zeros(profile.dof)
        self._retreating = False
        self._position, self._velocity, self._acceleration = (np.zeros(profile.dof) for _ in range(3))
        self._rest = np.zeros(profile.dof)
        self._chunk_code = ""
        self._out = CommandOutbox(positions=np.zeros(profile.dof))

    @property
    def state(self) -> State:
        return self._state

    @property
    def mode(self) -> Mode:
        return self._state.mode

    @property
    def armed(self) -> bool:
        return self._state.armed

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves on our behalf."""
        return not self._live or self._limiter.at_rest

    @property
    def target(self) -> FloatArray:
        """The plan's position [dof] in a tick that followed one, before the limiter; the loop's own array."""
        return self._position

    @property
    def plan_end_ns(self) -> int:
        """When the plan ends, 0 where there is none."""
        return self._timeline.end_ns

    def committed(self, from_ns: int) -> ActionChunk | None:
        """Return what will be executed from `from_ns` on unless a new plan comes, in robot units, before the limiter."""
        if not self._state.driven or self._chunk is None:
            return None
        tail = self._timeline.tail(from_ns, self._chunk.dt_ns, len(self._chunk.positions))
        if len(tail) == 0:
            return None
        return ActionChunk(self._robot, self._profile.joint_names, self._chunk.stamp_ns, from_ns, self._chunk.dt_ns, tail)

    def step(self, inbox: CommandInbox, now_ns: int) -> CommandOutbox:
        """Run the tick scheduled for `now_ns` and return what to do in it; the outbox is the same object every time."""
        out = self._out
        out.events.clear()
        out.answers.clear()
        out.chunks.clear()
        out.chunk_verdicts.clear()
        out.send = out.would_send = out.limited = False
        out.sampled_ns = 0
        self.counters.ticks += 1
        self._watch_clock(inbox, now_ns)
        released = self._watch_estop(inbox, now_ns)
        self._watch_world(inbox, now_ns)
        while inbox.requests:
            self._answer(inbox.requests.popleft(), inbox, now_ns, released)
        while inbox.chunks:
            self._take(inbox.chunks.popleft(), inbox, now_ns)
        self._watch_plan(inbox, now_ns)
        if self._live:
            self._move(inbox, now_ns)
        out.mode, out.armed, out.at_rest = self.mode, self.armed, self.at_rest
        return out

    def way_to_rest(self, spacing_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the way from the last command to rest (`Limiter.way_to_rest`), for robots that are sent trajectories."""
        return self._limiter.way_to_rest(spacing_s)

    def _watch_estop(self, inbox: CommandInbox, now_ns: int) -> Verdict:
        heard_ns = max(self._activated_ns, inbox.heartbeat_ns or 0)
        silent_s = None if self.mode is Mode.INACTIVE else (now_ns - heard_ns) * 1e-9
        edge, inbox.estop_edge = inbox.estop_edge, False
        released = checks.check_estop(inbox.estop_level, edge, silent_s, self._heartbeat_timeout_s)
        if not released:
            self._happen(sm.Event.ESTOP, released.reason)
        return released

    def _watch_clock(self, inbox: CommandInbox, now_ns: int) -> None:
        """Where the clock jumped, forget every time noted before: on simulated time the loop's own jumps too, and silence is no e-stop."""
        if not inbox.clock_jump:
            return
        inbox.clock_jump = False
        inbox.joints = None  # its stamp belongs to the old time
        self._epochs = {"clock_jump": now_ns}
        self._activated_ns, inbox.heartbeat_ns = now_ns, None
        inbox.instruction_epoch_ns = min(inbox.instruction_epoch_ns, now_ns)
        self._forget_plan()
        self._tracking.reset()
        self._stillness.reset()
        self._happen(sm.Event.CLOCK_JUMP, "the clock jumped: plans from before are dropped")

    def _watch_world(self, inbox: CommandInbox, now_ns: int) -> None:
        alone = checks.check_alone(inbox.foreign_publisher)
        if not alone:
            self._happen(sm.Event.FOREIGN_PUBLISHER, alone.reason)
        fresh = self._check_joints(inbox, now_ns)
        if not fresh:
            self._happen(sm.Event.STALE_JOINTS, fresh.reason)
            return
        assert inbox.joints is not None
        measured = inbox.joints[0]
        self._stillness.see(measured)
        if self._live and self.armed and not self.dry_run:
            follows = self._tracking.check(measured, now_ns)
            if not follows:
                # Grippers stay as they were commanded: around a parcel they never get there, and to go where they are would drop it.
                np.copyto(self._goal, self._limiter.positions)
                np.copyto(self._goal, measured.positions, where=~self._profile.is_gripper)
                self._happen(sm.Event.TRACKING_FAILED, follows.reason)
                self._retreating = self._state is State.FAULT

    def _check_joints(self, inbox: CommandInbox, now_ns: int) -> Verdict:
        if inbox.joints is None:
            return checks.check_joints(None, self._profile)
        state, received_ns = inbox.joints
        if len(state.positions) != self._profile.dof:
            return refused("joints", f"joint state: got {len(state.positions)} joints, expected {self._profile.dof}")
        # The older of the two: a driver that hangs may go on sending one stamp, one that is cut off sends nothing.
        return checks.check_joints((now_ns - min(state.stamp_ns, received_ns)) * 1e-9, self._profile)

    def _answer(self, ticket: Ticket[Request], inbox: CommandInbox, now_ns: int, released: Verdict) -> None:
        event = sm.Event[ticket.request.name]
        target, verdict = sm.transition(self._state, event)
        if verdict and target is not self._state:
            verdict = self._check_request(ticket.request, inbox, now_ns, released)
            if verdict:
                self._begin(ticket.request, inbox, now_ns)
                self._happen(event, event.value)
        if verdict:
            suffix = " (dry run: nothing is sent to the robot)" if self.dry_run and self.armed else ""
            verdict = Verdict(True, "ok", f"{self.mode.value}: {event.value}{suffix}")
        ticket.verdict = verdict
        self._out.answers.append(ticket)

    def _check_request(self, request: Request, inbox: CommandInbox, now_ns: int, released: Verdict) -> Verdict:
        """Return whether the world allows what the state machine allows."""
        fresh = self._check_joints(inbox, now_ns)
        if request in (Request.ARM, Request.RESET):  # the patience after activation is for starting, not for moving
            silent_s = None if inbox.heartbeat_ns is None else (now_ns - inbox.heartbeat_ns) * 1e-9
            released = released and checks.check_heartbeat(silent_s, self._heartbeat_timeout_s)
        if request is Request.ARM:
            verdict = released and checks.check_alone(inbox.foreign_publisher) and fresh and checks.check_rest(self.at_rest)
            if not self.dry_run:  # in which a bag may play the arms, moving as they did then
                verdict = verdict and self._stillness.check(_state(inbox))
            return verdict and checks.check_pose(_measured(inbox), self._profile)
        if request is Request.RESET:
            return released and checks.check_rest(self.at_rest)
        if request in (Request.RESUME, Request.READY) and not self.dry_run and not self._live:
            return fresh and checks.check_moved(self._limiter.positions, _measured(inbox), self._profile)
        if request in (Request.RESUME, Request.READY):
            return fresh
        return ACCEPTED

    def _begin(self, request: Request, inbox: CommandInbox, now_ns: int) -> None:
        """Do what an accepted request needs before its state is entered."""
        if request is Request.ACTIVATE:
            self._activated_ns = now_ns
        if request in (Request.ARM, Request.RESET, Request.RESUME):
            self._epochs[request.value] = now_ns
        if request is Request.ARM:
            self._limiter.reset(_measured(inbox))
        if request is Request.ARM or (request in (Request.RESUME, Request.READY) and not self._live):
            self._assertion.reset(self._limiter.positions)
            self._tracking.reset()
            self._live = True
        if request is Request.READY:
            np.copyto(self._goal, self._profile.ready_from(self._limiter.positions))

    def _take(self, item: ActionChunk | Verdict, inbox: CommandInbox, now_ns: int) -> None:
        verdict = item if isinstance(item, Verdict) else self._merge(item, inbox, now_ns)
        self._out.chunks.append(item)
        self._out.chunk_verdicts.append(verdict)
        if verdict:
            self.counters.chunks_accepted += 1
        else:
            self.counters.chunks_refused[verdict.code] += 1
        if verdict.code != self._chunk_code:
            if not verdict:
                self._say("info" if verdict.code in _EXPECTED else "warn", verdict.code, verdict.reason)
            elif self._chunk_code not in ("", *_EXPECTED):
                self._say("info", "plans_accepted", "plans are accepted again")
            self._chunk_code = verdict.code

    def _merge(self, chunk: ActionChunk, inbox: CommandInbox, now_ns: int) -> Verdict:
        """Check a plan; where the arms are to follow plans, make it part of the timeline."""
        self._epochs["instruction"] = inbox.instruction_epoch_ns
        verdict = checks.check_chunk(chunk, self._profile, self._robot, now_ns, self._epochs)
        if not verdict or not (self._state is State.ARMED or self._state.driven):
            return verdict
        before = self._chunk
        if before is not None and chunk.stamp_ns < before.stamp_ns:
            late_s = (before.stamp_ns - chunk.stamp_ns) * 1e-9
            return refused("superseded", f"plan: its observation is {late_s:.3f} s before that of the plan that is followed")
        if not self._timeline.merge(chunk, now_ns + self._delay_ns, self._fade_ns, self._limiter.positions):
            return refused("too_old", "plan: none of its actions lies ahead")
        if before is None or chunk.stamp_ns > before.stamp_ns:  # the same observation again is no sign that anybody looks
            self._chunk_ns = now_ns
        self._chunk = chunk
        return verdict

    def _forget_plan(self) -> None:
        self._timeline.clear()
        self._chunk = None

    def _watch_plan(self, inbox: CommandInbox, now_ns: int) -> None:
        over = now_ns + self._delay_ns >= self._timeline.end_ns
        gone = now_ns - self._chunk_ns > self._open_loop_ns
        if self._state.driven and gone:
            self._happen(sm.Event.POLICY_GONE, f"no new plan for {self._profile.max_open_loop_s:.2f} s")
        elif self._state.driven and over:
            self._happen(sm.Event.EXHAUSTED, "the plan ended and no new one came")
        elif self._state is State.ARMED and (over or gone):
            self._forget_plan()
        elif self._state is State.ARMED and self._limiter.at_rest and self._check_joints(inbox, now_ns):
            self._ramp.start(self._limiter.positions, now_ns)
            self._happen(sm.Event.PLAN, "following the plan")

    def _move(self, inbox: CommandInbox, now_ns: int) -> None:
        """Advance by one tick and decide whether the result is sent."""
        out, limiter, stop = self._out, self._limiter, self._state.latched
        driven = self._state.driven
        positions = self._advance(inbox, now_ns)
        out.limited = driven and limiter.limited
        self.counters.limited_ticks += out.limited
        self.counters.clamped_ticks += driven and limiter.clamped
        self.counters.limiter_errors = limiter.errors
        verdict = self._assertion.check(positions, stop=stop)
        if not verdict:
            # Nothing that we compute can be trusted any more: the robot keeps the last command it got.
            self._live = False
            self._happen(sm.Event.ASSERTION_FAILED, verdict.reason)
            return
        self._tracking.commanded(positions, now_ns)
        np.copyto(out.positions, positions)
        out.send, out.would_send = not self.dry_run, self.dry_run
        self.counters.sent += out.send
        if self._state.going_to_ready and limiter.at_rest and np.abs(positions - self._goal).max() <= _ARRIVED_WITHIN:
            self._happen(sm.Event.ARRIVED, "ready pose reached")
        if self._state.quiet and limiter.at_rest:
            self._live = False

    def _advance(self, inbox: CommandInbox, now_ns: int) -> FloatArray:
        """Return this tick's command: along the plan, towards a goal of our own, or to rest."""
        state, limiter = self._state, self._limiter
        if state.driven:
            self._out.sampled_ns = now_ns + self._delay_ns
            target = self._position, self._velocity, self._acceleration
            self._timeline.sample(self._out.sampled_ns, *target)
            if state is State.RAMP_IN and self._ramp.blend(now_ns, *target):
                self._happen(sm.Event.RAMPED, "following the plan")
            return limiter.step(*target, inbox.speed_scale)
        if state.going_to_ready:
            return limiter.step(self._goal, self._rest, self._rest, min(inbox.speed_scale, 1.0) * self._profile.ready_speed)
        self._retreating = self._retreating and self._may_retreat(inbox, now_ns)
        if self._retreating:
            return limiter.step(self._goal, self._rest, self._rest, inbox.speed_scale)
        return limiter.brake(stop=state.latched)

    def _may_retreat(self, inbox: CommandInbox, now_ns: int) -> bool:
        """Whether the arms still are where they were when they no longer followed, by measurements that keep coming: one may be wrong."""
        if not (checks.check_alone(inbox.foreign_publisher) and self._check_joints(inbox, now_ns)):
            return False
        return bool(checks.check_pose(self._goal, self._profile) and checks.check_moved(self._goal, _measured(inbox), self._profile))

    def _happen(self, event: sm.Event, text: str) -> Verdict:
        """Hand an event to the state machine; say why where it changes the state."""
        before = self._state
        self._state, verdict = sm.transition(before, event)
        if self._state is before:
            return verdict
        if not self._state.driven and (before.driven or self._state is not State.ARMED):
            self._forget_plan()
        self._retreating = False
        code = event.name.lower()
        if self._state.latched and event in _FAULTS:
            self.counters.faults[code] += 1
        elif before.driven and not self._state.driven:
            self.counters.holds[code] += 1
        self._out.reason = "" if self._state.driven else text
        self._say(_LEVELS.get(event, "info"), code, f"{self.mode.value}: {text}")
        return verdict

    def _say(self, level: str, code: str, text: str) -> None:
        self._out.events.append(Event(level, code, text))


def _state(inbox: CommandInbox) -> JointState:
    assert inbox.joints is not None  # asked for only after the freshness check
    return inbox.joints[0]


def _measured(inbox: CommandInbox) -> FloatArray:
    return _state(inbox).positions
