"""The states of the command process and what moves between them: one table, no time, no conditions.

Conditions on the world (fresh joints, e-stop released, arms at rest) are checked before an event is handed in.
STOP and FAULT latch through deactivation; only RESET leaves them, and it leads to HOLD, unarmed.
"""

from __future__ import annotations

from enum import Enum

from internvla_a1_ros.core.types import ACCEPTED, Mode, Verdict, refused


class State(Enum):
    """What `Mode` shows, with what it does not: armed or not, and where go-to-ready came from."""

    INACTIVE = (Mode.INACTIVE, False, "")
    INACTIVE_STOPPED = (Mode.INACTIVE, False, "stop latched")
    INACTIVE_FAULTED = (Mode.INACTIVE, False, "fault latched")
    HOLD = (Mode.HOLD, False, "")
    ARMED = (Mode.HOLD, True, "")
    READY_THEN_HOLD = (Mode.HOLD, True, "going to ready")
    READY_THEN_PAUSE = (Mode.HOLD, True, "going to ready, then pause")
    RAMP_IN = (Mode.RAMP_IN, True, "")
    RUN = (Mode.RUN, True, "")
    PAUSE = (Mode.PAUSE, True, "")
    STOP = (Mode.STOP, False, "")
    FAULT = (Mode.FAULT, False, "")

    @property
    def mode(self) -> Mode:
        return self.value[0]

    @property
    def armed(self) -> bool:
        return self.value[1]

    @property
    def driven(self) -> bool:
        """Whether the plan moves the arms."""
        return self in _DRIVEN

    @property
    def going_to_ready(self) -> bool:
        return self in _READY

    @property
    def latched(self) -> bool:
        """Whether the limits of motion are those of e-stop and fault."""
        return self in _LATCHED

    @property
    def quiet(self) -> bool:
        """Whether commands end once the arms are at rest."""
        return self not in (State.ARMED, *_READY, *_DRIVEN)


class Event(Enum):
    """What can happen; the value is how it is said. The first block is asked for by people and can be refused."""

    ACTIVATE = "activated"
    DEACTIVATE = "deactivated"
    ARM = "armed"
    DISARM = "disarmed"
    PAUSE = "paused"
    RESUME = "resumed"
    RESET = "reset"
    READY = "going to the ready pose"

    ARRIVED = "ready pose reached"
    PLAN = "a plan is there"
    RAMPED = "ramp finished"
    EXHAUSTED = "the plan ended"
    POLICY_GONE = "no new plan came"
    STALE_JOINTS = "joint states are stale"
    CLOCK_JUMP = "the clock jumped"
    ESTOP = "e-stop"
    TRACKING_FAILED = "the arms do not follow"
    FOREIGN_PUBLISHER = "someone else can command the arms"
    ASSERTION_FAILED = "a command failed the last assertion"


_DRIVEN = (State.RAMP_IN, State.RUN)
_READY = (State.READY_THEN_HOLD, State.READY_THEN_PAUSE)
_INACTIVE = (State.INACTIVE, State.INACTIVE_STOPPED, State.INACTIVE_FAULTED)
_LATCHED = (State.STOP, State.FAULT, State.INACTIVE_STOPPED, State.INACTIVE_FAULTED)
_ARMED = (State.ARMED, *_READY, *_DRIVEN, State.PAUSE)

Row = dict[State, "State | str"]


def _all(states: tuple[State, ...], target: State | str) -> Row:
    return dict.fromkeys(states, target)


# Why a request is refused, where the table says no more.
_REFUSED: Row = {
    **_all(_INACTIVE, "not active: activate first"),
    State.HOLD: "not armed: arm first",
    State.STOP: "the e-stop is latched: release it and reset first",
    State.FAULT: "a fault is latched: reset first",
}
_UNCHANGED: Row = {state: state for state in State}
_FAULT: Row = {**_UNCHANGED, **_all(_ARMED, State.FAULT)}
_HALT: Row = {**_UNCHANGED, **_all((State.READY_THEN_HOLD, *_DRIVEN), State.ARMED), State.READY_THEN_PAUSE: State.PAUSE}

TABLE: dict[Event, Row] = {
    Event.ACTIVATE: {
        **_all(tuple(State), "already active"),
        State.INACTIVE: State.HOLD,
        State.INACTIVE_STOPPED: State.STOP,
        State.INACTIVE_FAULTED: State.FAULT,
    },
    Event.DEACTIVATE: {
        **_all(tuple(State), State.INACTIVE),
        **_all(_INACTIVE, "not active"),
        State.STOP: State.INACTIVE_STOPPED,
        State.FAULT: State.INACTIVE_FAULTED,
    },
    Event.ARM: {**_REFUSED, **_all(_ARMED, "already armed"), State.HOLD: State.ARMED},
    Event.DISARM: {**_UNCHANGED, **_all(_ARMED, State.HOLD)},
    Event.PAUSE: {**_REFUSED, **_all(_ARMED, State.PAUSE)},
    Event.RESUME: {**_REFUSED, **_all(_ARMED, "not paused"), **_all((State.PAUSE, State.READY_THEN_PAUSE), State.ARMED)},
    Event.RESET: {**_REFUSED, **_all(_ARMED, "nothing is latched"), **_all((State.HOLD, State.STOP, State.FAULT), State.HOLD)},
    Event.READY: {
        **_REFUSED,
        **_all(_DRIVEN, "the plan is running: pause first"),
        **{state: state for state in _READY},
        State.ARMED: State.READY_THEN_HOLD,
        State.PAUSE: State.READY_THEN_PAUSE,
    },
    Event.ARRIVED: {**_UNCHANGED, State.READY_THEN_HOLD: State.ARMED, State.READY_THEN_PAUSE: State.PAUSE},
    Event.PLAN: {**_UNCHANGED, State.ARMED: State.RAMP_IN},
    Event.RAMPED: {**_UNCHANGED, State.RAMP_IN: State.RUN},
    Event.EXHAUSTED: {**_UNCHANGED, **_all(_DRIVEN, State.ARMED)},
    Event.POLICY_GONE: {**_UNCHANGED, **_all(_DRIVEN, State.ARMED)},
    Event.STALE_JOINTS: _HALT,
    Event.CLOCK_JUMP: _HALT,
    Event.ESTOP: {**_all(tuple(State), State.STOP), **_all(_INACTIVE, State.INACTIVE_STOPPED)},
    Event.TRACKING_FAILED: _FAULT,
    Event.FOREIGN_PUBLISHER: _FAULT,
    # Also where the arms are still braking after a disarm or a deactivation.
    Event.ASSERTION_FAILED: {**_FAULT, State.HOLD: State.FAULT, State.INACTIVE: State.INACTIVE_FAULTED},
}


def transition(state: State, event: Event) -> tuple[State, Verdict]:
    """Return the state after `event` and whether it was accepted; a refused event changes nothing and says why."""
    target = TABLE[event][state]
    if isinstance(target, str):
        return state, refused(f"{event.name.lower()}_refused", target)
    return target, ACCEPTED
