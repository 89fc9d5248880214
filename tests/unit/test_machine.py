"""The state machine, over all states and all events, against a table written down independently."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.types import Mode
from internvla_a1_ros.safety.machine import TABLE, Event, State, transition

# One letter per state: i inactive, j inactive with a latched stop, k inactive with a latched fault, h hold, a armed (holding),
# g going to ready then hold, G going to ready then pause, r ramp-in, R run, p pause, s stop, f fault. A digit is a refusal.
LETTERS = dict(zip("ijkhagGrRpsf", State, strict=True))
REFUSALS = {
    "0": "not active: activate first",
    "1": "not armed: arm first",
    "2": "the e-stop is latched: release it and reset first",
    "3": "a fault is latched: reset first",
    "4": "already active",
    "5": "not active",
    "6": "already armed",
    "7": "not paused",
    "8": "nothing is latched",
    "9": "the plan is running: pause first",
}
EXPECTED = {
    #                        ijkhagGrRpsf
    Event.ACTIVATE: "hsf444444444",
    Event.DEACTIVATE: "555iiiiiiijk",
    Event.ARM: "000a66666623",
    Event.DISARM: "ijkhhhhhhhsf",
    Event.PAUSE: "0001pppppp23",
    Event.RESUME: "000177a77a23",
    Event.RESET: "000h888888hh",
    Event.READY: "0001ggG99G23",
    Event.ARRIVED: "ijkhaaprRpsf",
    Event.PLAN: "ijkhrgGrRpsf",
    Event.RAMPED: "ijkhagGRRpsf",
    Event.EXHAUSTED: "ijkhagGaapsf",
    Event.POLICY_GONE: "ijkhagGaapsf",
    Event.STALE_JOINTS: "ijkhaapaapsf",
    Event.CLOCK_JUMP: "ijkhaapaapsf",
    Event.ESTOP: "jjjsssssssss",
    Event.TRACKING_FAILED: "ijkhffffffsf",
    Event.FOREIGN_PUBLISHER: "ijkhffffffsf",
    Event.ASSERTION_FAILED: "kjkfffffffsf",
}
PEOPLE = list(Event)[:8]


def test_the_table_is_whole() -> None:
    assert set(EXPECTED) == set(Event) == set(TABLE)
    assert len(State) == len(LETTERS) == 12
    assert all(len(row) == 12 for row in EXPECTED.values())


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_state_and_event(state: State, event: Event) -> None:
    letter = EXPECTED[event][list(State).index(state)]
    after, verdict = transition(state, event)
    if letter in REFUSALS:
        assert after is state and not verdict.ok
        assert verdict.code == f"{event.name.lower()}_refused"
        assert verdict.reason == REFUSALS[letter]
        assert event in PEOPLE  # what happens by itself is never refused
    else:
        assert after is LETTERS[letter] and verdict.ok


@pytest.mark.parametrize(
    ("state", "mode", "armed", "driven", "ready", "latched", "quiet"),
    [
        (State.INACTIVE, Mode.INACTIVE, False, False, False, False, True),
        (State.INACTIVE_STOPPED, Mode.INACTIVE, False, False, False, True, True),
        (State.INACTIVE_FAULTED, Mode.INACTIVE, False, False, False, True, True),
        (State.HOLD, Mode.HOLD, False, False, False, False, True),
        (State.ARMED, Mode.HOLD, True, False, False, False, False),
        (State.READY_THEN_HOLD, Mode.HOLD, True, False, True, False, False),
        (State.READY_THEN_PAUSE, Mode.HOLD, True, False, True, False, False),
        (State.RAMP_IN, Mode.RAMP_IN, True, True, False, False, False),
        (State.RUN, Mode.RUN, True, True, False, False, False),
        (State.PAUSE, Mode.PAUSE, True, False, False, False, True),
        (State.STOP, Mode.STOP, False, False, False, True, True),
        (State.FAULT, Mode.FAULT, False, False, False, True, True),
    ],
)
def test_what_a_state_means(state: State, mode: Mode, armed: bool, driven: bool, ready: bool, latched: bool, quiet: bool) -> None:
    assert (state.mode, state.armed, state.driven, state.going_to_ready, state.latched, state.quiet) == (
        mode,
        armed,
        driven,
        ready,
        latched,
        quiet,
    )


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event.ACTIVATE, "activated"),
        (Event.DEACTIVATE, "deactivated"),
        (Event.ARM, "armed"),
        (Event.DISARM, "disarmed"),
        (Event.PAUSE, "paused"),
        (Event.RESUME, "resumed"),
        (Event.RESET, "reset"),
        (Event.READY, "going to the ready pose"),
    ],
)
def test_how_a_request_is_answered(event: Event, said: str) -> None:
    assert event.value == said


@settings(deadline=None)
@given(st.sampled_from([State.STOP, State.FAULT]), st.lists(st.sampled_from([e for e in Event if e is not Event.RESET])))
def test_only_reset_leaves_a_latch(state: State, events: list[Event]) -> None:
    for event in events:
        state, _ = transition(state, event)
        assert state.latched and not state.armed


@settings(deadline=None)
@given(st.lists(st.sampled_from([e for e in Event if e is not Event.ARM])))
def test_nothing_but_arming_arms(events: list[Event]) -> None:
    state = State.INACTIVE
    for event in events:
        state, _ = transition(state, event)
        assert not state.armed


@pytest.mark.parametrize("state", State)
def test_reset_never_arms_and_a_stop_is_never_lost(state: State) -> None:
    assert not transition(state, Event.RESET)[0].armed or state.armed
    assert transition(state, Event.ESTOP)[0] in (State.STOP, State.INACTIVE_STOPPED)
