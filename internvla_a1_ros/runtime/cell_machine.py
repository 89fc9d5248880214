"""The states of a cell and of one step, and what moves between them: two tables, no time, no conditions.

Conditions on the world (robots ready, PLC heard, a check that holds) are looked at before an event is handed in.
"""

from __future__ import annotations

from enum import Enum

from internvla_a1_ros.core.types import ACCEPTED, Verdict, refused


class CellState(str, Enum):
    """States of the cell. Only WAITING and WORKING let the belt run and give instructions; the others hold."""

    STOPPED = "stopped"
    WAITING = "waiting"
    WORKING = "working"
    HELP = "help"
    HALTED = "halted"

    @property
    def active(self) -> bool:
        """Whether the belt may run and instructions are given."""
        return self in (CellState.WAITING, CellState.WORKING)


class CellEvent(Enum):
    """What can happen to a cell. The first block is asked for by people or the PLC and can be refused."""

    START = "started"
    PAUSE = "paused"
    ACKNOWLEDGE = "acknowledged"
    GIVE_UP = "given up"

    TASK = "work has come"
    FINISHED = "finished"
    FAILED = "a step failed for good"
    TROUBLE = "something outside is wrong"


_S = CellState
_SAME: dict[CellState, CellState | str] = {state: state for state in CellState}

CELL_TABLE: dict[CellEvent, dict[CellState, CellState | str]] = {
    CellEvent.START: {
        _S.STOPPED: _S.WAITING,
        _S.WAITING: "already started",
        _S.WORKING: "already started",
        _S.HELP: "the cell asks for help: acknowledge or give up first",
        _S.HALTED: "the cell is halted: acknowledge first",
    },
    CellEvent.PAUSE: {
        _S.STOPPED: "not started",
        _S.WAITING: _S.STOPPED,
        _S.WORKING: _S.STOPPED,
        _S.HELP: "the cell holds already and asks for help",
        _S.HALTED: "the cell holds already: it is halted",
    },
    CellEvent.ACKNOWLEDGE: {
        _S.STOPPED: "not started: nothing to acknowledge",
        _S.WAITING: "nothing to acknowledge",
        _S.WORKING: "nothing to acknowledge",
        _S.HELP: _S.WAITING,
        _S.HALTED: _S.WAITING,
    },
    CellEvent.GIVE_UP: {**_SAME, _S.WAITING: "nothing is being worked on", _S.WORKING: _S.WAITING, _S.HELP: _S.WAITING},
    CellEvent.TASK: {**_SAME, _S.WAITING: _S.WORKING},
    CellEvent.FINISHED: {**_SAME, _S.WORKING: _S.WAITING},
    CellEvent.FAILED: {**_SAME, _S.WORKING: _S.HELP},
    CellEvent.TROUBLE: {**_SAME, _S.WAITING: _S.HALTED, _S.WORKING: _S.HALTED},
}


class StepState(str, Enum):
    """States of one step of the work in hand."""

    PENDING = "pending"
    INSTRUCTING = "instructing"
    WORKING = "working"
    CHECKING = "checking"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"

    @property
    def active(self) -> bool:
        """Whether its robots are at it."""
        return self in _ACTIVE

    @property
    def over(self) -> bool:
        """Whether what waits for it may begin."""
        return self in (StepState.DONE, StepState.SKIPPED)


class StepEvent(Enum):
    """What can happen to a step."""

    GIVE = "instruction given"
    BEGUN = "begun"
    SEEN = "success seen"
    LOST = "success gone again"
    CONFIRMED = "success held"
    RETRY = "tried again"
    SKIP = "left out"
    FAIL = "failed"
    AGAIN = "begun anew after a halt or help"


_ACTIVE = (StepState.INSTRUCTING, StepState.WORKING, StepState.CHECKING)
_T = StepState


def _moves(**moves: StepState) -> dict[StepState, StepState]:
    return {state: moves.get(state.name, state) for state in StepState}


def _from_active(target: StepState, **more: StepState) -> dict[StepState, StepState]:
    return {**_moves(**more), **dict.fromkeys(_ACTIVE, target)}


STEP_TABLE: dict[StepEvent, dict[StepState, StepState]] = {
    StepEvent.GIVE: _moves(PENDING=_T.INSTRUCTING),
    StepEvent.BEGUN: _moves(INSTRUCTING=_T.WORKING),
    StepEvent.SEEN: _moves(WORKING=_T.CHECKING),
    StepEvent.LOST: _moves(CHECKING=_T.WORKING),
    StepEvent.CONFIRMED: _moves(CHECKING=_T.DONE),
    StepEvent.RETRY: _from_active(_T.PENDING),
    StepEvent.SKIP: _from_active(_T.SKIPPED, PENDING=_T.SKIPPED),
    StepEvent.FAIL: _from_active(_T.FAILED),
    StepEvent.AGAIN: _from_active(_T.PENDING, FAILED=_T.PENDING),
}


def cell_transition(state: CellState, event: CellEvent) -> tuple[CellState, Verdict]:
    """Return the state after `event` and whether it was accepted; a refused event changes nothing and says why."""
    target = CELL_TABLE[event][state]
    if not isinstance(target, CellState):
        return state, refused(f"{event.name.lower()}_refused", target)
    return target, ACCEPTED


def step_transition(state: StepState, event: StepEvent) -> StepState:
    """Return the state of a step after `event`; what does not apply changes nothing."""
    return STEP_TABLE[event][state]
