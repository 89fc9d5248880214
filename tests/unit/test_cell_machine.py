"""The two state machines of a cell, over all states and all events, against tables written down independently."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.runtime.cell_machine import (
    CELL_TABLE,
    STEP_TABLE,
    CellEvent,
    CellState,
    StepEvent,
    StepState,
    cell_transition,
    step_transition,
)

# s stopped, w waiting, W working, h help, x halted; a digit is a refusal.
CELL = dict(zip("swWhx", CellState, strict=True))
REFUSALS = {
    "0": "already started",
    "1": "the cell asks for help: acknowledge or give up first",
    "2": "the cell is halted: acknowledge first",
    "3": "not started",
    "4": "the cell holds already and asks for help",
    "5": "the cell holds already: it is halted",
    "6": "not started: nothing to acknowledge",
    "7": "nothing to acknowledge",
    "8": "nothing is being worked on",
}
CELL_EXPECTED = {
    #                      swWhx
    CellEvent.START: "w0012",
    CellEvent.PAUSE: "3ss45",
    CellEvent.ACKNOWLEDGE: "677ww",
    CellEvent.GIVE_UP: "s8wwx",
    CellEvent.TASK: "sWWhx",
    CellEvent.FINISHED: "swwhx",
    CellEvent.FAILED: "swhhx",
    CellEvent.TROUBLE: "sxxhx",
}
# p pending, i instructing, w working, c checking, d done, s skipped, f failed
STEP = dict(zip("piwcdsf", StepState, strict=True))
STEP_EXPECTED = {
    #                     piwcdsf
    StepEvent.GIVE: "iiwcdsf",
    StepEvent.BEGUN: "pwwcdsf",
    StepEvent.SEEN: "piccdsf",
    StepEvent.LOST: "piwwdsf",
    StepEvent.CONFIRMED: "piwddsf",
    StepEvent.RETRY: "ppppdsf",
    StepEvent.SKIP: "ssssdsf",
    StepEvent.FAIL: "pfffdsf",
    StepEvent.AGAIN: "ppppdsp",
}


def test_the_tables_are_whole() -> None:
    assert set(CELL_EXPECTED) == set(CellEvent) == set(CELL_TABLE)
    assert set(STEP_EXPECTED) == set(StepEvent) == set(STEP_TABLE)
    assert all(set(row) == set(CellState) for row in CELL_TABLE.values())
    assert all(set(row) == set(StepState) for row in STEP_TABLE.values())


@pytest.mark.parametrize("event", CellEvent)
@pytest.mark.parametrize("state", CellState)
def test_every_state_and_event_of_a_cell(state: CellState, event: CellEvent) -> None:
    letter = CELL_EXPECTED[event][list(CellState).index(state)]
    after, verdict = cell_transition(state, event)
    if letter in REFUSALS:
        assert after is state and not verdict.ok
        assert verdict.code == f"{event.name.lower()}_refused"
        assert verdict.reason == REFUSALS[letter]
        assert event in list(CellEvent)[:4]  # what happens by itself is never refused
    else:
        assert after is CELL[letter] and verdict.ok


@pytest.mark.parametrize("event", StepEvent)
@pytest.mark.parametrize("state", StepState)
def test_every_state_and_event_of_a_step(state: StepState, event: StepEvent) -> None:
    assert step_transition(state, event) is STEP[STEP_EXPECTED[event][list(StepState).index(state)]]


def test_what_states_mean() -> None:
    assert [state for state in CellState if state.active] == [CellState.WAITING, CellState.WORKING]
    assert [state for state in StepState if state.active] == [StepState.INSTRUCTING, StepState.WORKING, StepState.CHECKING]
    assert [state for state in StepState if state.over] == [StepState.DONE, StepState.SKIPPED]


@settings(deadline=None)
@given(st.sampled_from([CellState.HELP, CellState.HALTED]), st.lists(st.sampled_from(list(CellEvent))))
def test_only_a_person_or_the_plc_leaves_help_and_halt(state: CellState, events: list[CellEvent]) -> None:
    for event in events:
        after, _ = cell_transition(state, event)
        if after is not state:
            assert event in (CellEvent.ACKNOWLEDGE, CellEvent.GIVE_UP)
            return


@settings(deadline=None)
@given(st.lists(st.sampled_from([event for event in CellEvent if event is not CellEvent.START])))
def test_nothing_but_a_start_starts(events: list[CellEvent]) -> None:
    state = CellState.STOPPED
    for event in events:
        state, _ = cell_transition(state, event)
        assert not state.active


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(StepEvent))))
def test_what_is_over_stays_over(events: list[StepEvent]) -> None:
    state, over = StepState.PENDING, False
    for event in events:
        state = step_transition(state, event)
        assert not over or state.over
        over = state.over
