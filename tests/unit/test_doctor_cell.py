"""The doctor on a cell: robots where the cell has them, and the wires to PLC and belt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from doctor_rig import MODEL, PROFILE, healthy

from internvla_a1_ros.commissioning.doctor import examine
from internvla_a1_ros.commissioning.doctor_cell import Wire, moved, wires
from internvla_a1_ros.commissioning.doctor_facts import Endpoint, Ends, Facts
from internvla_a1_ros.commissioning.doctor_findings import Level
from internvla_a1_ros.runtime.cell import load_cell
from internvla_a1_ros.runtime.cell_parts import CellRobot

BOOL = "std_msgs/msg/Bool"
HEARD, SAID = Wire("plc.heartbeat", "/plc/heartbeat", BOOL, said=False), Wire("belt.run", "/belt/run", BOOL, said=True)
PLC, CELL = Endpoint("/plc_bridge", BOOL), Endpoint("/cell", BOOL)
GOOD = {"/plc/heartbeat": Ends((PLC,), (CELL,)), "/belt/run": Ends((CELL,), (PLC,))}


def bad(facts: Facts) -> list[tuple[str, str, str]]:
    return [(f.level.value, f.check, f.subject) for f in examine(facts, PROFILE, MODEL, (HEARD, SAID)) if f.level is not Level.OK]


def with_wires(**changes: Ends) -> Facts:
    named = {"heard": HEARD.topic, "said": SAID.topic}
    return replace(healthy(), wires={**GOOD, **{named[key]: ends for key, ends in changes.items()}})


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (with_wires(), None),
        (with_wires(said=Ends((), (PLC,))), None),
        (with_wires(heard=Ends((), (CELL,))), ("warning", "present", "wire plc.heartbeat")),
        (with_wires(heard=Ends((PLC, PLC), (CELL,))), ("stop", "source", "wire plc.heartbeat")),
        (with_wires(heard=Ends((replace(PLC, type="std_msgs/msg/Int32"),), (CELL,))), ("stop", "type", "wire plc.heartbeat")),
        (with_wires(said=Ends((CELL,), ())), ("warning", "present", "wire belt.run")),
        (with_wires(said=Ends((replace(CELL, node="/teleop"),), (PLC,))), ("stop", "source", "wire belt.run")),
        (with_wires(said=Ends((CELL,), (replace(PLC, type="std_msgs/msg/Int32"),))), ("stop", "type", "wire belt.run")),
    ],
)
def test_each_fault_of_a_wire_gives_its_finding_and_no_other(facts: Facts, finding: tuple[str, str, str] | None) -> None:
    assert bad(facts) == ([] if finding is None else [finding])


def test_wires_in_a_bag_are_known_by_their_type_alone() -> None:
    facts = healthy()
    facts = replace(facts, topics={**facts.topics, HEARD.topic: (BOOL,), SAID.topic: ("std_msgs/msg/Int32",)})
    assert bad(facts) == [("stop", "type", "wire belt.run")]
    assert bad(healthy()) == [("warning", "present", "wire plc.heartbeat"), ("warning", "present", "wire belt.run")]


def test_the_wires_of_a_cell_that_comes_along() -> None:
    found = {wire.key: wire for wire in wires(load_cell("express_sorting"))}
    assert found["plc.heartbeat"].topic == "/plc/heartbeat" and not found["plc.heartbeat"].said and not found["plc.arrival"].said
    assert found["belt.run"].said and found["belt.speed"].said and found["plc.result"].said and found["plc.help"].said


def test_a_robots_topics_lie_where_the_cell_has_them() -> None:
    camera = PROFILE.cameras[0].topic
    profile = moved(CellRobot(instance="left", profile="arx_ac_one", prefix="/left", remap={camera: "/head"}), PROFILE)
    assert profile.cameras[0].topic == "/head" and profile.cameras[1].topic == "/left" + PROFILE.cameras[1].topic
    assert [wire.topic for wire in profile.states] == ["/left" + wire.topic for wire in PROFILE.states]
    assert [wire.topic for wire in profile.commands] == ["/left" + wire.topic for wire in PROFILE.commands]


def test_our_nodes_lie_in_the_robots_namespace() -> None:
    command, facts = PROFILE.commands[0], healthy()
    ours, driver = (Endpoint(node, command.type, "reliable", "volatile") for node in ("/left/command", "/driver"))
    facts = replace(facts, commands={**(facts.commands or {}), command.topic: Ends((ours,), (driver,))}, wires=GOOD)
    assert bad(replace(facts, namespace="left")) == []
    assert bad(facts) == [("stop", "publishers", f"command {PROFILE.commands[0].topic}")]
