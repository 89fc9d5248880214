"""What stops a cell, what starts it again, and what people may ask of it. No arm is anywhere near."""

from __future__ import annotations

import pytest
from cell_rig import HOLD, MS, ROBOT, World, arrive, one_step, reading
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.robots.document import parse_document
from internvla_a1_ros.runtime.cell import CellSpec, load_cell
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellRequest
from internvla_a1_ros.runtime.cell_machine import CellState

LEFT, RIGHT = (ROBOT, "left_gripper"), (ROBOT, "right_gripper")


def silent_plc(made: World) -> None:
    made.plc_beats = False


def silent_robot(made: World) -> None:
    made.silent = {ROBOT}


def unarmed(made: World) -> None:
    made.modes[ROBOT], made.armed = "hold", False


def mode(name: str) -> object:
    return lambda made: made.modes.update({ROBOT: name})


def test_a_robot_that_does_not_pause_is_asked_until_it_does() -> None:
    """A request may be lost. Once the robot was seen at rest, a person may let it go on."""
    made = one_step()
    made.plc_beats = False
    made.until(lambda: made.loop.state is CellState.HALTED, 3.0)
    made.run(1.6)
    assert made.paused == [ROBOT] * 4, "at once, and every half second"
    made.modes[ROBOT] = "pause"
    made.run(1.0)
    asked = len(made.paused)
    made.modes[ROBOT] = "run"
    made.run(2.0)
    assert len(made.paused) == asked <= 5
    made.plc_beats = True
    made.step()
    assert made.ask(CellRequest.ACKNOWLEDGE)
    made.run(2.0)
    assert len(made.paused) == asked, "a cell at work asks nobody"


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (silent_plc, "plc_silent", "PLC silent: nothing on plc/heartbeat for 1.1 s, allowed 1 s"),
        (silent_robot, "robot_silent", "robot 'arx_ac_one': nothing on /command/state for 1.1 s, allowed 1 s"),
        (mode("stop"), "robot_stop", "robot 'arx_ac_one' is in stop: reset and arm it"),
        (mode("fault"), "robot_fault", "robot 'arx_ac_one' is in fault: reset and arm it"),
        (mode("pause"), "robot_pause", "robot 'arx_ac_one' is paused: resume it"),
        (unarmed, "robot_not_armed", "robot 'arx_ac_one' is in hold and not armed: arm it"),
        (mode("inactive"), "robot_not_armed", "robot 'arx_ac_one' is in inactive and not armed: arm it"),
    ],
)
def test_what_is_wrong_outside_halts_it_with_one_sentence(busy: bool, fault: object, code: str, sentence: str) -> None:
    made = one_step()
    if busy:
        arrive(made)
        made.run(0.2)
        assert made.last(ROBOT) == "Do it."
    said = len(made.said)
    fault(made)  # type: ignore[operator]
    made.run(2.0)
    assert made.loop.state is CellState.HALTED and made.loop.reason == sentence
    assert made.said[said:] == [sentence], "once"
    assert made.out.belt == BeltOrder() and made.out.help and made.last(ROBOT) == HOLD
    heeded = code not in ("plc_silent", "robot_silent")
    assert made.paused == [ROBOT] if heeded else set(made.paused) == {ROBOT}
    assert made.loop.counts[f"halt_{code}"] == 1
    assert not made.ask(CellRequest.ACKNOWLEDGE), "as long as it lasts"
    assert not made.ask(CellRequest.START)


def test_after_silence_it_goes_on_only_when_acknowledged_and_begins_the_step_anew() -> None:
    made = one_step()
    arrive(made)
    made.run(1.0)
    made.plc_beats = False
    made.run(1.5)
    made.plc_beats = True
    made.run(5.0)
    assert made.loop.state is CellState.HALTED and made.out.belt == BeltOrder() and made.last(ROBOT) == HOLD
    told = len(made.told)
    assert made.ask(CellRequest.ACKNOWLEDGE)
    assert made.told[told:] == [(ROBOT, "Do it.")] and made.out.belt.run
    assert made.loop.task is not None and made.loop.task.run("do").tries == 1, "an interruption is no failed try"
    made.signals = {"done": True}
    made.run(0.3)
    assert made.results[0]["outcome"] == "done"


def test_a_robot_it_asked_to_pause_must_be_resumed_by_a_person() -> None:
    made = one_step()
    arrive(made)
    made.run(0.5)
    made.plc_beats = False
    made.until(lambda: made.paused == [ROBOT], 3.0)
    made.modes[ROBOT] = "pause"  # as the command process does
    made.plc_beats = True
    said = len(made.said)
    made.run(1.0)
    assert len(made.said) == said, "that it is paused is the cell's own wish"
    verdict = made.ask(CellRequest.ACKNOWLEDGE)
    assert not verdict and verdict.reason == "acknowledge: robot 'arx_ac_one' is paused: resume it"
    made.modes[ROBOT] = "hold"
    assert made.ask(CellRequest.ACKNOWLEDGE)


def test_it_does_not_start_before_plc_and_robots_were_heard() -> None:
    made = World(load_cell("express_sorting"))
    made.plc_beats, made.silent = False, {ROBOT}
    assert made.ask(CellRequest.START).reason.startswith("start: PLC silent: nothing on plc/heartbeat yet")
    made.plc_beats = True
    assert made.ask(CellRequest.START).reason.startswith("start: robot 'arx_ac_one': nothing on /command/state yet")
    made.silent = set()
    assert made.ask(CellRequest.START)


def test_a_jump_of_the_clock_halts_and_forgets() -> None:
    made = one_step()
    arrive(made)
    made.run(0.5)
    made.inbox.clock_jump = True
    made.signals = {"done": True}
    made.step()
    assert made.loop.state is CellState.HALTED and made.loop.counts["done"] == 0 and "clock jumped" in made.loop.reason
    made.silent = {ROBOT}
    assert "nothing on /command/state yet" in made.ask(CellRequest.ACKNOWLEDGE).reason, "what was heard before the jump has no time"
    made.silent = set()
    made.step()
    assert made.ask(CellRequest.ACKNOWLEDGE)


BELT = {"run": {"topic": "b/r"}, "speed": {"topic": "b/s"}, "status": {"topic": "b/m"}, "speed_m_s": 0.1, "max_speed_m_s": 0.2}


def test_a_belt_that_does_not_start_halts_the_cell() -> None:
    made = World(parse_document(load_cell("express_sorting").model_dump(exclude_none=True) | {"belt": BELT}, CellSpec, "cell"))
    made.belt_m_s = 0.0
    made.step()
    assert made.ask(CellRequest.START)
    made.run(3.0)
    assert made.loop.state is CellState.HALTED and "0 m/s on b/m 2.1 s after it was told to run at 0.1 m/s" in made.loop.reason


def test_a_belt_whose_status_falls_silent_halts_the_cell() -> None:
    made = World(parse_document(load_cell("express_sorting").model_dump(exclude_none=True) | {"belt": BELT}, CellSpec, "cell"))
    made.belt_m_s = 0.0
    made.step()
    assert made.ask(CellRequest.START)
    made.belt_m_s = 0.1
    made.run(3.0)
    assert made.loop.state is CellState.WAITING
    made.belt_m_s = None
    made.run(2.5)
    assert made.loop.state is CellState.HALTED and made.loop.reason == "belt: nothing on b/m for 2 s"


def test_a_belt_that_does_not_stop_is_said_once_while_it_holds() -> None:
    made = World(parse_document(load_cell("express_sorting").model_dump(exclude_none=True) | {"belt": BELT}, CellSpec, "cell"))
    made.belt_m_s = 0.0
    made.step()
    assert made.ask(CellRequest.START)
    made.belt_m_s = 0.1
    made.modes[ROBOT] = "fault"
    made.run(0.5)
    made.modes[ROBOT] = "hold"
    made.run(6.0)
    assert [text for text in made.said if text.startswith("belt")] == ["belt: 0.1 m/s on b/m 2.1 s after it was told to stop"]


# People


def test_pause_holds_and_start_begins_the_step_anew() -> None:
    made = one_step()
    arrive(made)
    made.run(0.5)
    assert made.ask(CellRequest.PAUSE)
    assert made.out.belt == BeltOrder() and made.paused == [ROBOT] and made.last(ROBOT) == HOLD and not made.out.help
    made.inbox.followed[ROBOT] = "What somebody else says"
    told = len(made.told)
    made.run(2.0)
    assert len(made.told) == told, "while it is stopped the robot is not the cell's"
    assert made.ask(CellRequest.START)
    assert made.last(ROBOT) == "Do it." and made.loop.state is CellState.WORKING


def test_a_start_tells_every_robot_anew() -> None:
    """Whatever somebody said to it while the cell was stopped."""
    made = one_step()
    assert made.ask(CellRequest.PAUSE)
    told = len(made.told)
    assert made.ask(CellRequest.START)
    assert made.told[told:] == [(ROBOT, HOLD)]


def test_a_policy_that_started_anew_is_told_again() -> None:
    made = one_step()
    arrive(made)
    made.run(0.5)
    made.inbox.followed[ROBOT] = "The first instruction of the model"
    told = len(made.told)
    made.run(0.1)
    assert made.told[told:] == [(ROBOT, "Do it.")]


def test_help_is_left_by_acknowledging_or_giving_up() -> None:
    for request, outcome in ((CellRequest.ACKNOWLEDGE, []), (CellRequest.GIVE_UP, ["given_up"])):
        made = one_step()
        arrive(made)
        made.until(lambda made=made: made.loop.state is CellState.HELP, 5.0)
        assert made.ask(request)
        assert [result["outcome"] for result in made.results] == outcome
        assert made.loop.state is (CellState.WAITING if outcome else CellState.WORKING)
        assert made.loop.task is None or made.loop.task.run("do").tries == 1


def test_giving_up_in_a_halt_drops_the_parcel_and_stays_halted() -> None:
    made = one_step()
    assert made.ask(CellRequest.GIVE_UP).reason == "give_up: nothing is being worked on"
    arrive(made)
    made.plc_beats = False
    made.run(1.5)
    assert made.ask(CellRequest.GIVE_UP)
    assert made.loop.state is CellState.HALTED and made.loop.task is None
    assert not made.ask(CellRequest.GIVE_UP)


def test_counts_are_reset_on_request() -> None:
    made = one_step()
    made.signals = {"done": True}
    arrive(made)
    made.run(0.5)
    assert made.loop.counts["done"] == 1
    assert made.ask(CellRequest.RESET_COUNTS)
    assert not made.loop.counts


HAPPENINGS = ("arrive", "done", "undone", "plc", "no_plc", "stop", "run", "jump", "deaf", "label", "no_label", "no_picture", *CellRequest)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(1, 40)), max_size=30))
def test_whatever_happens_nothing_moves_while_it_holds(events: list[tuple[str, int]]) -> None:
    made = World(load_cell("express_sorting"))
    for what, steps in events:
        if isinstance(what, CellRequest):
            made.inbox.ask(what)
        elif what == "arrive":
            made.inbox.arrivals.append("x")
        elif what in ("done", "undone"):
            made.openings = {RIGHT: 0.5 if what == "done" else 1.0, LEFT: 0.5}
        elif what in ("plc", "no_plc"):
            made.plc_beats = what == "plc"
        elif what in ("stop", "run"):
            made.modes[ROBOT] = what
        elif what == "jump":
            made.inbox.clock_jump = True
        elif what == "deaf":
            made.deaf ^= {ROBOT}
        else:
            made.sees = {"label": (reading("L1"),), "no_label": (), "no_picture": None}[what]
        for _ in range(steps):
            before, paused = made.loop.state, len(made.paused)
            out = made.step()
            if not out.state.active:
                assert out.belt == BeltOrder()
                assert all(text == HOLD for _, text in out.instructions)
                assert not before.active or made.paused[paused:] == [ROBOT]
            assert out.help == (out.state in (CellState.HELP, CellState.HALTED))
            if not before.active and out.state.active:
                assert made.modes[ROBOT] == "run" and made.plc_beats or made.now_ns - (made.inbox.plc_ns or 0) <= 1_000 * MS
    counts = made.loop.counts
    ended = counts["done"] + counts["incomplete"] + counts["given_up"]
    assert counts["begun"] >= ended or CellRequest.RESET_COUNTS in [what for what, _ in events]
