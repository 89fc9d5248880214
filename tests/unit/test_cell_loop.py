"""A cell's loop on a fake clock: the work of express sorting, labels, what follows a failure, what makes work begin."""

from __future__ import annotations

import pytest
from cell_rig import HOLD, MS, ROBOT, STEP, World, arrive, one_step, reading, world

from internvla_a1_ros.robots.document import parse_document
from internvla_a1_ros.runtime.cell import CellSpec, load_cell
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellRequest, Fact
from internvla_a1_ros.runtime.cell_machine import CellState

LEFT, RIGHT = (ROBOT, "left_gripper"), (ROBOT, "right_gripper")


def work(made: World) -> None:
    """What the arms would do for each instruction."""
    told = made.inbox.followed.get(ROBOT, "")
    if "grasp it" in told:
        made.openings[RIGHT] = 0.5
    elif "Flip" in told:
        made.openings[RIGHT], made.openings[LEFT] = 1.0, 0.5
    elif "show" in told:
        made.sees = (reading("L0000042"),)
    elif "Place" in told:
        made.openings[RIGHT] = made.openings[LEFT] = 1.0


# The work


def test_nothing_is_said_before_it_is_started() -> None:
    made = World(load_cell("express_sorting"))
    arrive(made)
    made.run(2.0)
    assert made.told == [] and made.belts == [BeltOrder()] and made.loop.state is CellState.STOPPED and not made.loop.counts


def test_a_parcel_with_its_label_up_is_not_flipped() -> None:
    made = world()
    made.each = lambda: work(made)
    assert made.last(ROBOT) == HOLD and made.out.belt == BeltOrder(True, 0.08)
    made.sees = (reading("R0000007"),)
    arrive(made, "17")
    made.each = lambda: None if "show" in made.last(ROBOT) else work(made)
    made.until(lambda: len(made.results) == 1)
    assert [text for _, text in made.told] == [
        HOLD,
        "Track the parcel on the belt and grasp it with the right arm.",
        "Lift the parcel and show its label to the head camera.",
        "Place the parcel in the right bin.",
        HOLD,
    ]
    (result,) = made.results
    assert result["outcome"] == "done" and result["arrival"] == "17" and result["lying"] == "up"
    assert (result["label"], result["route"], result["symbology"], result["side"]) == ("R0000007", "right", "data_matrix", "left")
    assert result["tries"] == {"look": 1, "grasp": 1, "show": 1, "place": 1} and result["missing"] == []
    assert made.routes == ["right"]
    assert made.loop.counts == {"arrived": 1, "begun": 1, "label_up": 1, "route_right": 1, "done": 1}
    assert made.paused == [] and made.loop.state is CellState.WAITING


def test_a_parcel_with_its_label_down_is_flipped_and_its_label_read_afterwards() -> None:
    made = world()
    made.each = lambda: work(made)
    arrive(made)
    made.until(lambda: len(made.results) == 1)
    assert [text.split()[0] for _, text in made.told] == ["Hold", "Track", "Flip", "Lift", "Place", "Hold"]
    assert made.results[0]["lying"] == "down" and made.results[0]["route"] == "left" and made.routes == ["left"]
    assert made.told[4][1] == "Place the parcel in the left bin."


def test_the_belt_stands_while_the_label_is_shown_and_no_longer() -> None:
    made = world()
    made.each = lambda: work(made)
    arrive(made)
    made.until(lambda: len(made.results) == 1)
    made.step()
    assert made.belts == [BeltOrder(), BeltOrder(True, 0.08), BeltOrder(False, 0.0), BeltOrder(True, 0.08)]


def test_a_label_that_no_route_takes_goes_the_default_way() -> None:
    made = world()
    made.sees = (reading("X1"),)
    made.each = lambda: None if "show" in made.last(ROBOT) else work(made)
    arrive(made)
    made.until(lambda: len(made.results) == 1)
    assert made.routes == ["manual"]


# Labels


def test_an_unreadable_label_is_one_sentence_and_nothing_is_instructed() -> None:
    made = world()
    made.sees = (reading("", "contrast 0.12, expected at least 0.30"),)
    arrive(made)
    made.until(lambda: made.loop.state is CellState.HELP, 10.0)
    assert made.loop.reason == "step 'look': label not readable: contrast 0.12, expected at least 0.30"
    assert made.said[-2:] == [f"{made.loop.reason}; trying again", made.loop.reason]
    assert {text for _, text in made.told} == {HOLD}
    assert made.out.belt == BeltOrder() and made.paused == [ROBOT] and made.out.help
    said = len(made.said)
    made.run(5.0)
    assert len(made.said) == said and made.routes == [] and made.results == []


def test_two_labels_at_once_are_not_guessed_between() -> None:
    made = world()
    made.sees = (reading("L1"), reading("R1"))
    arrive(made)
    made.until(lambda: made.loop.state is CellState.HELP, 10.0)
    assert "got labels 'L1' and 'R1', expected one in the region" in made.loop.reason


def test_another_label_when_it_is_shown_asks_for_help() -> None:
    made = world()
    made.sees = (reading("R1"),)
    made.each = lambda: work(made)  # shows L0000042
    arrive(made)
    made.until(lambda: made.loop.state is CellState.HELP, 20.0)
    assert "got label 'L0000042', expected 'R1' as read before: two parcels?" in made.loop.reason
    assert made.routes == ["right"] and made.results == []


def test_without_pictures_the_label_is_not_taken_for_lying_down() -> None:
    made = world()
    made.sees = None
    arrive(made)
    made.until(lambda: made.loop.state is CellState.HELP, 10.0)
    assert made.loop.reason == ("step 'look': not done within 4 s: got 0 pictures of the head camera in 1.5 s, expected at least 2")


def test_a_label_seen_before_a_pause_is_no_arrival_after_it() -> None:
    made = world(
        arrival={"by": "label"}, steps=[{"id": "do", "success": {"signal": "done"}, "timeout_s": 9.0}], signals={"done": {"topic": "d"}}
    )
    made.sees = (reading("L1"),)
    made.step()
    assert made.ask(CellRequest.PAUSE)
    made.sees = ()
    assert made.ask(CellRequest.START)
    made.run(1.0)
    assert made.loop.state is CellState.WAITING


# What fails


def test_a_missed_parcel_is_tried_again_and_then_left() -> None:
    made = world()
    made.sees = (reading("R1"),)
    arrive(made)
    made.until(lambda: len(made.results) == 1)
    assert made.results[0]["outcome"] == "given_up" and made.results[0]["tries"] == {"look": 1, "grasp": 2}
    assert "gripper 'right_gripper' is open, expected holding" in str(made.results[0]["reason"])
    assert made.loop.state is CellState.WAITING and made.loop.counts["retries"] == 1 and made.loop.counts["given_up"] == 1


def test_a_gripper_that_closed_on_nothing_fails_before_the_timeout() -> None:
    made = world()
    arrive(made)
    made.each = lambda: made.openings.update({LEFT: 0.0}) if "Flip" in made.last(ROBOT) else work(made)
    made.until(lambda: made.loop.counts["failed_flip"] == 1, 10.0)
    assert made.said[-1] == "step 'flip': gripper 'left_gripper' closed; trying again"


def test_a_policy_that_does_not_repeat_the_instruction_is_named() -> None:
    made = world()
    made.deaf = {ROBOT}
    made.sees = (reading("R1"),)
    arrive(made)
    made.until(lambda: made.loop.counts["failed_grasp"] == 1, 10.0)
    assert "the policy of 'arx_ac_one' has not taken the instruction within 2 s" in made.said[-1]


@pytest.mark.parametrize(
    ("on_failure", "retries", "tries", "state", "counted"),
    [
        ("ask_help", 0, 1, CellState.HELP, "helps"),
        ("ask_help", 2, 3, CellState.HELP, "helps"),
        ("skip", 1, 2, CellState.WAITING, "incomplete"),
        ("next", 1, 2, CellState.WAITING, "given_up"),
    ],
)
def test_what_follows_a_failure(on_failure: str, retries: int, tries: int, state: CellState, counted: str) -> None:
    made = one_step(on_failure=on_failure, retries=retries)
    arrive(made)
    made.until(lambda: made.loop.counts[counted] == 1, 3.1 * tries)
    assert made.loop.state is state
    assert made.loop.counts["failed_do"] == tries and made.loop.counts["retries"] == tries - 1
    assert made.now_ns - 1_000_000 * MS >= tries * 3_000 * MS
    if on_failure == "skip":
        assert made.results[0]["missing"] == ["do"]


def test_retry_has_no_end() -> None:
    made = one_step(on_failure="retry")
    arrive(made)
    made.run(60.0)
    assert made.loop.state is CellState.WORKING and made.loop.counts["retries"] >= 18


def test_a_success_must_hold_and_come_after_the_instruction() -> None:
    made = one_step(success={"signal": "done", "for_s": 0.5})
    made.signals = {"done": True}
    made.run(1.0)
    made.signals = {}
    arrive(made)
    made.run(1.0)
    assert made.loop.counts["done"] == 0, "it was true before the step began"
    made.signals = {"done": True}
    made.run(0.4)
    made.signals = {"done": False}
    made.run(0.1)
    assert made.steps() == {"do": "working"}
    made.signals = {"done": True}
    made.run(0.4)
    assert made.steps() == {"do": "checking"}
    made.run(0.15)
    assert made.loop.counts["done"] == 1


def test_a_step_may_begin_by_a_check_of_its_own() -> None:
    made = one_step(begun={"gripper": "right_gripper", "state": "closed"})
    made.signals = {"done": True}
    arrive(made)
    made.run(1.0)
    assert made.steps() == {"do": "instructing"}, "a success before it has begun is none"
    made.openings[RIGHT] = 0.0
    made.run(0.2)
    assert made.loop.counts["done"] == 1


# Arrivals


def test_parcels_that_come_while_it_is_busy_are_counted_as_missed() -> None:
    made = one_step()
    arrive(made, "1")
    arrive(made, "2")
    arrive(made, "3")
    made.signals = {"done": True}
    made.run(1.0)
    assert [result["arrival"] for result in made.results] == ["1"]
    assert made.loop.counts["arrived"] == 3 and made.loop.counts["missed"] == 2


def test_the_newest_that_came_while_it_was_busy_may_be_kept() -> None:
    made = world(
        arrival={"by": "plc", "keep_s": 2.0},
        steps=[{"id": "do", "success": {"signal": "done"}, "timeout_s": 9.0}],
        signals={"done": {"topic": "cell/done"}},
    )
    for text in "123":
        arrive(made, text)
    made.signals = {"done": True}
    made.run(1.0)
    assert [result["arrival"] for result in made.results] == ["1", "3"] and made.loop.counts["missed"] == 1


@pytest.mark.parametrize("by", ["label", "at_once", "region"])
def test_work_may_begin_without_a_plc(by: str) -> None:
    step = {"id": "do", "success": {"signal": "done"}, "timeout_s": 9.0}
    made = world(
        arrival={"by": by, **({"region": "tray"} if by == "region" else {})},
        regions={"tray": {"at": [0, 0, 1, 1], "background": [0, 60]}},
        steps=[step],
        signals={"done": {"topic": "cell/done"}},
    )
    made.signals = {"done": True}
    made.run(1.0)
    assert len(made.results) == 0 if by != "at_once" else len(made.results) > 3
    before = len(made.results)
    made.sees, made.occupied = (reading("L7"),), {"tray": 0.5}
    made.run(2.0)
    if by != "at_once":
        assert len(made.results) == before + 1, "the same parcel is one, however long it lies there"
        made.sees, made.occupied = (), {"tray": 0.0}
        made.run(1.0)
        made.sees, made.occupied = (reading("L8"),), {"tray": 0.5}
        made.run(1.0)
        assert len(made.results) == before + 2


# Steps side by side


def side_by_side(robots: tuple[str, str]) -> World:
    """Two steps that may begin at once, each for its robot and with a belt speed of its own."""
    content = load_cell("ingredient_picking").model_dump(exclude_none=True)
    steps = [
        {"id": name, "after": [], "robots": [robot], "instruction": f"Do {name}.", "belt_m_s": speed, "success": check, "timeout_s": 9.0}
        for name, robot, speed, check in (
            ("one", robots[0], 0.02, {"signal": "bread_lies"}),
            ("two", robots[1], 0.04, {"signal": "steak_lies"}),
        )
    ]
    made = World(parse_document({**content, "order": None, "steps": steps}, CellSpec, "cell"))
    made.step()
    assert made.ask(CellRequest.START)
    return made


def test_a_robot_is_at_one_step_at_a_time() -> None:
    made = side_by_side(("left_station", "left_station"))
    made.run(0.5)
    assert made.steps() == {"one": "working", "two": "pending"} and made.last("left_station") == "Do one."
    made.signals = {"bread_lies": True}
    made.run(0.2)
    assert made.steps() == {"one": "done", "two": "working"} and made.last("left_station") == "Do two."


def test_the_slowest_belt_that_a_step_asks_for_counts() -> None:
    made = side_by_side(("left_station", "right_station"))
    made.run(0.5)
    assert made.steps() == {"one": "working", "two": "working"} and made.out.belt == BeltOrder(True, 0.02)
    made.signals = {"bread_lies": True}
    made.run(0.2)
    assert made.out.belt == BeltOrder(True, 0.04)


# What was seen before a step began says nothing about it


def test_a_gripper_that_falls_silent_holds_nothing_without_a_break() -> None:
    """One message is not half a second of it: the driver may have died."""
    made = one_step(success={"gripper": "right_gripper", "state": "holding", "for_s": 1.0}, timeout_s=3.0)
    arrive(made)
    made.run(0.2)
    made.openings.clear()
    made.inbox.openings[ROBOT, "right_gripper"] = Fact(0.5, made.now_ns + STEP)
    made.run(2.0)
    assert made.loop.counts["done"] == 0
    made.run(2.0)
    assert made.loop.state is CellState.HELP and "gripper 'right_gripper' is not heard, expected holding" in made.loop.reason


def test_a_gripper_that_is_not_heard_any_more_holds_nothing() -> None:
    made = one_step(success={"gripper": "right_gripper", "state": "holding"})
    made.openings[RIGHT] = 0.5
    made.run(0.2)
    made.openings.clear()
    arrive(made)
    made.run(1.0)
    assert made.steps() == {"do": "working"}
    made.until(lambda: made.loop.counts["failed_do"] == 1, 5.0)
    assert "gripper 'right_gripper' is not heard, expected holding" in made.said[-1]


def test_a_picture_from_before_the_step_does_not_fill_its_region() -> None:
    made = one_step_with_a_tray()
    made.occupied = {"tray": 0.9}
    made.run(0.2)
    made.sees = None
    arrive(made)
    made.run(1.0)
    assert made.steps() == {"do": "working"}
    made.until(lambda: made.loop.counts["failed_do"] == 1, 5.0)
    assert "region 'tray' is not seen, expected occupied" in made.said[-1]


def one_step_with_a_tray() -> World:
    step = {"id": "do", "success": {"region": "tray"}, "timeout_s": 3.0}
    return world(steps=[step], regions={"tray": {"at": [0, 0, 1, 1], "background": [0, 60]}}, routes=[], default_route=None)


def test_what_is_given_up_has_no_route() -> None:
    made = world()
    arrive(made)
    made.run(0.2)
    assert made.ask(CellRequest.GIVE_UP)
    assert made.results[0]["outcome"] == "given_up" and made.results[0]["route"] is None and made.routes == []
