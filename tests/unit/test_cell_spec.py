"""Cells as YAML: those that come along are whole; what cannot be is one sentence that says what was got and what was expected."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.document import parse_document
from internvla_a1_ros.robots.profile import PROFILE_FOLDER
from internvla_a1_ros.runtime.cell import CellSpec, cell_names, cells_folder, load_cell
from internvla_a1_ros.runtime.cell_parts import CellRobot

TWO = [
    {"instance": "a", "profile": "arx_ac_one", "namespace": "a", "prefix": "/a"},
    {"instance": "b", "profile": "arx_ac_one", "namespace": "b", "prefix": "/b"},
]
CELL: dict[str, Any] = {
    "name": "cell",
    "title": "A cell",
    "robots": TWO,
    "head_camera": {"robot": "a", "camera": "head"},
    "arrival": {"by": "plc"},
    "belt": {"run": {"topic": "belt/run"}, "speed": {"topic": "belt/speed"}, "speed_m_s": 0.1, "max_speed_m_s": 0.2},
    "plc": {"heartbeat": {"topic": "plc/beat"}, "arrival": {"topic": "plc/parcel"}, "route": {"topic": "plc/route"}},
    "labels": {},
    "regions": {"tray": {"at": [0, 0, 0.5, 1], "background": [0, 60]}},
    "signals": {"there": {"topic": "cell/there"}},
    "steps": [
        {"id": "look", "success": {"label": "decided"}, "timeout_s": 3},
        {"id": "pick", "robots": ["a"], "instruction": "Pick it up.", "success": {"gripper": "left_gripper"}, "timeout_s": 5},
        {"id": "place", "robots": ["b"], "instruction": "To {route}.", "success": {"signal": "there"}, "timeout_s": 5},
    ],
    "routes": [{"name": "left", "prefix": "L"}, {"name": "right", "pattern": r"R\d+"}],
    "default_route": {"name": "manual"},
}


def cell(**changes: Any) -> CellSpec:
    """The cell above with values at dotted keys changed; None takes the key out."""
    content = copy.deepcopy(CELL)
    for place, changed in changes.items():
        *path, last = place.split("__")
        at: Any = content
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at[part]
        key = int(last) if isinstance(at, list) else last
        if changed is None:
            del at[key]
        else:
            at[key] = changed
    return parse_document(content, CellSpec, "cell.yaml")


def test_the_cells_that_come_along_are_whole() -> None:
    assert cell_names() == ["example_new_task", "express_sorting", "ingredient_picking"]
    for name in cell_names():
        assert load_cell(name).name == name
        assert load_cell(cells_folder() / f"{name}.yaml") == load_cell(name)


def test_express_sorting_is_what_the_task_says() -> None:
    spec = load_cell("express_sorting")
    assert [step.when for step in spec.steps] == [None, None, "label_down", None, "label_up", "label_down"]
    assert spec.labels is not None and set(spec.labels.symbologies) == {"qr_code", "code_128", "data_matrix"}
    assert spec.camera.name == "head" and spec.plc is not None and spec.belt is not None
    assert [spec.route_of(text).name for text in ("L1", "R1", "X1")] == ["left", "right", "manual"]  # type: ignore[union-attr]


def test_ingredient_picking_is_what_the_task_says() -> None:
    spec = load_cell("ingredient_picking")
    assert len(spec.robots) == 2 and len({robot.namespace for robot in spec.robots}) == 2
    assert spec.order is not None and spec.order.pieces == {"bread": 2, "steak": 1, "lettuce": 1}
    assert Counter(robot for step in spec.steps for robot in step.robots) == {"left_station": 4, "right_station": 4}
    assert [spec.after(spec.step(name)) for name in ("pick_bread", "place_steak", "take_away")] == [
        (),
        ("pick_steak", "place_bread"),
        ("place_second_bread",),
    ]


def test_the_example_shows_each_kind_of_check_but_labels() -> None:
    assert {check.kind for step in load_cell("example_new_task").steps for _, check in step.checks} == {"gripper", "region", "signal"}


@pytest.mark.parametrize(
    ("robot", "name", "expected"),
    [
        ({}, "/arm_slave_l_status", "/arm_slave_l_status"),
        ({}, "instruction", "/instruction"),
        ({"namespace": "west"}, "instruction", "/west/instruction"),
        ({"namespace": "west"}, "/arm_slave_l_status", "/arm_slave_l_status"),
        ({"namespace": "west", "prefix": "/line/two"}, "/arm_slave_l_status", "/line/two/arm_slave_l_status"),
        ({"namespace": "west", "prefix": "/w"}, "instruction", "/west/instruction"),
        ({"prefix": "/w", "remap": {"/camera": "/other/camera"}}, "/camera", "/other/camera"),
        ({"namespace": "west", "remap": {"/camera": "camera"}}, "/camera", "/west/camera"),
    ],
)
def test_where_a_robots_topics_lie(robot: dict[str, Any], name: str, expected: str) -> None:
    assert CellRobot(instance="r", profile="arx_ac_one", **robot).topic(name) == expected


def test_the_cell_above_is_right() -> None:
    spec = cell()
    assert spec.after(spec.steps[0]) == () and spec.after(spec.steps[2]) == ("pick",)
    assert spec.gripper_robot(spec.steps[1], spec.steps[1].success) == "a"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        # robots that collide
        ({"robots__1__namespace": "a"}, "robots: got namespace 'a' 2 times, expected it once"),
        ({"robots__1__instance": "a"}, "robots: got instance 'a' 2 times, expected it once"),
        (
            {"robots__1__prefix": "/a"},
            "robot 'a' (state) and robot 'b' (state) collide on topic /a/arm_slave_l_status, expected a topic of its own for each; "
            "a profile's absolute topics do not move with a namespace: give one robot a prefix or remap the topic",
        ),
        ({"robots__0__prefix": "", "robots__1__prefix": ""}, "collide on topic /arm_slave_l_status"),
        ({"robots__1__remap": {"/arm_master_r_status": "/a/arm_master_r_status"}}, "(command) collide on topic /a/arm_master_r_status"),
        ({"robots__1__remap": {"/arm_master_x_status": "/x"}}, "robots.1.remap: unknown topic '/arm_master_x_status', did you mean"),
        ({"belt__run__topic": "/a/instruction"}, "robot 'a' and belt.run collide on topic /a/instruction"),
        ({"belt__run__topic": "plc/beat"}, "belt.run and plc.heartbeat collide on topic /plc/beat"),
        ({"signals__there__topic": "/belt/run"}, "belt.run and signals.there collide on topic /belt/run"),
        ({"robots__1__profile": "arx_ac_onee"}, "unknown robot 'arx_ac_onee', did you mean 'arx_ac_one'?"),
        ({"robots": []}, "robots: got []"),
        # the camera
        ({"head_camera__camera": "haed"}, "head_camera.camera: unknown camera 'haed', did you mean 'head'?"),
        ({"head_camera__robot": "c"}, "head_camera.robot: unknown robot 'c' (known: a, b)"),
        ({"head_camera": None}, "head_camera: got none, expected the robot and camera"),
        ({"regions__tray__at": [0.5, 0, 0.5, 1]}, "expected left below right"),
        ({"regions__tray__background": [60, 0]}, "expected the darker value first"),
        ({"labels__agree": 0}, "labels.agree: got 0"),
        ({"labels__symbologies": ["ean"]}, "labels.symbologies.0: got 'ean'"),
        # arrival
        ({"plc__arrival": None}, "arrival: got by 'plc', expected plc.arrival to name the topic"),
        ({"arrival": {"by": "region"}}, "got by 'region' and region None"),
        ({"arrival": {"by": "region", "region": "tary"}}, "arrival.region: unknown region 'tary', did you mean 'tray'?"),
        # steps
        ({"steps__2__robots": ["c"]}, "steps.2.robots: unknown robot 'c' (known: a, b)"),
        ({"steps__2__robots": []}, "step 'place': got robots [] and instruction 'To {route}.', expected both or neither"),
        ({"steps__1__instruction": " "}, "step 'pick': got robots ['a'] and instruction ' '"),
        ({"steps__1__after": ["place"]}, "step 'pick': after: got 'place', expected steps before it: it would never begin"),
        ({"steps__1__after": ["pick"]}, "step 'pick': after: got 'pick', expected steps before it"),
        ({"steps__1__after": ["lok"]}, "after: got 'lok', expected steps before it, did you mean 'look'?"),
        ({"steps__2__id": "pick"}, "steps: got id 'pick' 2 times, expected it once"),
        ({"steps__1__when": "label_down", "steps__1__after": []}, "step 'pick': when: got 'label_down', expected a step before it"),
        ({"steps__0__when": "label_up"}, "step 'look': when: got 'label_up', expected a step before it"),
        ({"steps__1__retries": -1}, "steps.1.retries: got -1"),
        ({"steps__1__retries": 1, "steps__1__on_failure": "retry"}, "got retries 1 with on_failure 'retry', which has no limit"),
        ({"steps__1__timeout_s": 0}, "steps.1.timeout_s: got 0"),
        ({"steps__1__timeout_s": None}, "key 'steps.1.timeout_s' is missing"),
        ({"steps__1__on_failure": "give_up"}, "steps.1.on_failure: got 'give_up'"),
        ({"steps__1__timeout": 3}, "unknown key 'steps.1.timeout', did you mean 'timeout_s'?"),
        ({"steps__2__instruction": "To {rute}."}, "step 'place': instruction: unknown {rute}, did you mean 'route'?"),
        ({"steps__2__instruction": "To {route"}, "step 'place': instruction: expected '}'"),
        ({"steps__1__belt_m_s": 0.3}, "step 'pick': belt_m_s: got 0.3, expected at most 0.2"),
        ({"steps": []}, "steps: got []"),
        # checks
        ({"steps__1__success": {"gripper": "left_griper"}}, "success: unknown gripper 'left_griper', did you mean 'left_gripper'?"),
        ({"steps__0__success": {"gripper": "left_gripper"}}, "got gripper 'left_gripper' and 0 robots, expected robot to say whose it is"),
        ({"steps__1__success": {"signal": "ther"}}, "step 'pick': success: unknown signal 'ther', did you mean 'there'?"),
        ({"steps__1__failure": {"region": "plate"}}, "step 'pick': failure: unknown region 'plate' (known: tray)"),
        ({"steps__1__success": {}}, "got nothing to look at, expected one of label, signal, region, gripper"),
        ({"steps__1__success": {"label": "read", "signal": "there"}}, "got label and signal, expected one of"),
        ({"steps__1__success": {"region": "tray", "state": "holding"}}, "got 'holding', expected one of occupied, empty with a region"),
        ({"steps__1__success": {"signal": "there", "state": "open"}}, "state: got 'open', expected one of True, False with a signal"),
        ({"steps__1__success": {"signal": "there", "robot": "a"}}, "robot: got 'a', expected it only with a gripper"),
        # belt, PLC, routes, order
        ({"belt__speed_m_s": 0.5}, "belt: speed_m_s: got 0.5, expected at most max_speed_m_s 0.2"),
        ({"belt__speed_m_s": -0.1}, "belt.speed_m_s: got -0.1"),
        ({"plc__heartbeat__timeout_s": 0}, "plc.heartbeat.timeout_s: got 0"),
        ({"plc__heartbeat": {"topic": "b", "type": "std_msgs/msg/Empty", "must_change": True}}, "must_change: got true for std_msgs"),
        ({"plc__route": {"topic": "r", "type": "std_msgs/msg/Int32"}}, "route 'left': got no lane, expected a number"),
        ({"default_route": None}, "got {route}, expected routes and a default_route"),
        ({"routes__0__pattern": "L"}, "route 'left': got prefix 'L' and pattern 'L', expected one of them"),
        ({"routes__1__pattern": "R("}, "route 'right': pattern 'R('"),
        ({"routes__1__name": "left"}, "routes: got name 'left' 2 times"),
        ({"order": {"name": "x", "pieces": {"bread": 2}}, "steps__1__piece": "bread"}, "order: got 1 steps with piece 'bread', expected 2"),
        ({"steps__1__piece": "bread"}, "order: got 1 steps with piece 'bread', expected 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as problem:
        cell(**changes)
    assert sentence in str(problem.value)
    assert str(problem.value).startswith("cell.yaml: ") and "\n" not in str(problem.value)


def test_an_unknown_cell_suggests_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown cell 'express_sortin', did you mean 'express_sorting'\?"):
        load_cell("express_sortin")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_cell(tmp_path / "nowhere.yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(CELL))
    assert load_cell(path).name == "cell"


def test_robots_of_different_profiles_are_compared_too(tmp_path: Path) -> None:
    """A copy of a profile under another name has the same absolute topics."""
    other = tmp_path / "other.yaml"
    other.write_text((PROFILE_FOLDER / "arx_ac_one.yaml").read_text().replace("name: arx_ac_one", "name: other", 1))
    with pytest.raises(ConfigurationError, match="collide on topic /arm_slave_l_status"):
        cell(robots__0__prefix="", robots__1__prefix="", robots__1__profile=str(other))


def test_the_document_explains_every_key() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "cell.md").read_text()
    seen: set[type[BaseModel]] = set()
    keys = set(_keys(CellSpec, seen))
    assert len(seen) > 12 and {"for_s", "must_change", "lane"} <= keys
    assert not [key for key in sorted(keys) if not re.search(rf"\b{key}\b", text)]


def _keys(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    if model in seen:
        return
    seen.add(model)
    for name, described in model.model_fields.items():
        yield name
        for found in _documents(described.annotation):
            yield from _keys(found, seen)


def _documents(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _documents(inner)
