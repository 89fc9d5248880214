"""In-motion ingredient picking with two simulated robots on a fake clock: the order, the waiting for each other, missed pieces, help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cell_rig import World
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.runtime.cell import load_cell
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellRequest
from internvla_a1_ros.runtime.cell_machine import CellState

LEFT, RIGHT = "left_station", "right_station"
HOLD = "Hold still."
LAYERS = {
    "Place the bread on the plate.": "bread_lies",
    "Place the steak": "steak_lies",
    "Place the lettuce": "lettuce_lies",
    "Place the bread on top.": "top_lies",
}
STACK = ["bread_lies", "steak_lies", "lettuce_lies", "top_lies"]


@dataclass
class Station:
    """Each time it is told something it takes `takes_s`, and has picked (or missed, as `misses` says next) or placed."""

    name: str
    world: World
    plate: list[str]
    takes_s: float = 1.0
    misses: Iterator[bool] = field(default_factory=lambda: iter(()))
    heard: int = 0
    began_ns: int | None = None

    def __post_init__(self) -> None:
        self.grip(1.0)

    def grip(self, opening: float) -> None:
        self.world.openings[self.name, "right_gripper"] = opening

    def step(self) -> None:
        told, now = self.world.inbox.followed.get(self.name, ""), self.world.now_ns
        times = sum(robot == self.name for robot, _ in self.world.told)
        if times != self.heard:
            self.heard, self.began_ns = times, now
            if told.startswith("Pick"):
                self.grip(1.0)
        if self.began_ns is None or now - self.began_ns < self.takes_s * 1e9:
            return
        self.began_ns = None
        if told.startswith("Pick"):
            self.grip(0.0 if next(self.misses, False) else 0.5)
        layer = next((signal for text, signal in LAYERS.items() if told.startswith(text)), None)
        if layer is not None and self.world.openings[self.name, "right_gripper"] == 0.5:
            self.grip(1.0)
            self.plate.append(layer)


class Sandwich:
    """Two stations, a plate, and the loop."""

    def __init__(self, **stations: dict[str, object]) -> None:
        self.plate: list[str] = []
        self.world = world = World(load_cell("ingredient_picking"))
        self.stations = {name: Station(name, world, self.plate, **stations.get(name, {})) for name in (LEFT, RIGHT)}  # type: ignore[arg-type]
        world.each = self._each
        world.step()
        assert world.ask(CellRequest.START)

    def _each(self) -> None:
        for station in self.stations.values():
            station.step()
        self.world.signals = {signal: signal in self.plate for signal in STACK} | {"plate_empty": not self.plate}

    def take_away(self) -> None:
        self.world.until(lambda: self.world.steps().get("take_away") == "working", 120.0)
        self.plate.clear()


def test_a_sandwich_is_two_bread_one_steak_one_lettuce_in_this_order() -> None:
    made = Sandwich()
    world = made.world
    assert set(world.told) == {(LEFT, "Pick up a slice of bread from the moving belt."), (RIGHT, "Pick up the steak from the moving belt.")}
    world.until(lambda: world.steps().get("take_away") == "working", 60.0)
    assert made.plate == STACK
    made.take_away()
    world.until(lambda: len(world.results) == 1, 1.0)
    assert world.results[0]["outcome"] == "done" and world.results[0]["missing"] == []
    assert world.out.belt == BeltOrder(True, 0.05)
    made.take_away()
    world.until(lambda: len(world.results) == 2, 1.0)
    assert made.world.loop.counts["done"] == 2 and world.paused == []


def test_each_waits_for_the_other() -> None:
    """The left station is slow: the steak is in the hand of the right one and is not placed before the bread lies."""
    made = Sandwich(left_station={"takes_s": 6.0})
    world = made.world
    world.until(lambda: world.steps()["pick_steak"] == "done", 10.0)
    assert world.last(RIGHT) == HOLD and world.openings[RIGHT, "right_gripper"] == 0.5
    world.until(lambda: world.steps()["place_steak"] == "working", 30.0)
    assert made.plate == ["bread_lies"] and world.steps()["place_bread"] == "done"
    world.until(lambda: world.steps().get("take_away") == "working", 120.0)
    assert made.plate == STACK


def test_a_missed_piece_is_picked_from_those_that_follow() -> None:
    made = Sandwich(left_station={"misses": iter([True, True])}, right_station={"misses": iter([True])})
    made.world.until(lambda: made.world.steps().get("take_away") == "working", 120.0)
    assert made.plate == STACK
    assert made.world.loop.counts["retries"] == 3
    assert "step 'pick_bread': gripper 'right_gripper' closed; trying again" in made.world.said
    made.take_away()
    made.world.until(lambda: len(made.world.results) == 1, 1.0)
    assert made.world.results[0]["tries"] == {  # every step's, the missed ones again
        "pick_bread": 3, "pick_steak": 2, "place_bread": 1, "place_steak": 1, "pick_lettuce": 1,
        "pick_second_bread": 1, "place_lettuce": 1, "place_second_bread": 1, "take_away": 1,
    }  # fmt: skip


def test_too_many_misses_ask_for_help_and_both_robots_hold() -> None:
    made = Sandwich(right_station={"misses": iter([True] * 20)})
    world = made.world
    world.until(lambda: world.loop.state is CellState.HELP, 60.0)
    assert world.loop.reason == "step 'pick_steak': gripper 'right_gripper' closed"
    assert sorted(world.paused) == [LEFT, RIGHT] and world.out.belt == BeltOrder()
    assert world.last(LEFT) == HOLD and world.last(RIGHT) == HOLD
    made.stations[RIGHT].misses = iter(())
    assert world.ask(CellRequest.ACKNOWLEDGE)
    world.until(lambda: world.steps().get("take_away") == "working", 60.0)
    assert made.plate == STACK, "what was placed before stays placed"


@pytest.mark.parametrize("station", [LEFT, RIGHT])
def test_one_robot_in_fault_stops_both(station: str) -> None:
    made = Sandwich()
    world = made.world
    world.run(0.5)
    world.modes[station] = "fault"
    world.run(0.1)
    assert world.loop.state is CellState.HALTED and world.loop.reason == f"robot '{station}' is in fault: reset and arm it"
    assert sorted(world.paused) == [LEFT, RIGHT] and world.last(LEFT) == HOLD and world.last(RIGHT) == HOLD


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.booleans(), max_size=6),
    st.lists(st.booleans(), max_size=6),
    st.floats(0.1, 8.0),
    st.floats(0.1, 8.0),
)
def test_whatever_is_missed_and_however_slow_the_layers_are_in_order(
    left: list[bool], right: list[bool], left_s: float, right_s: float
) -> None:
    made = Sandwich(left_station={"misses": iter(left), "takes_s": left_s}, right_station={"misses": iter(right), "takes_s": right_s})
    world = made.world
    for _ in range(3000):
        world.step()
        assert made.plate == STACK[: len(made.plate)]
        if world.loop.state is CellState.HELP:
            assert world.ask(CellRequest.ACKNOWLEDGE)
        if world.steps().get("take_away") == "working":
            break
    assert made.plate == STACK
