"""`internvla-a1 robots [NAME]`: which robots are described, and what a description says."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.robots.profile import RobotProfile, load_profile, profile_names
from internvla_a1_ros.robots.wires import Affine


def robots(
    name: Annotated[str, typer.Argument(help="a profile's name or the path of a YAML file; all are listed without")] = "",
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema with which editors check profiles")] = False,
) -> None:
    """List the robot profiles, or explain one: joints and limits, units, topics, cameras, what is still to be found out."""
    if schema:
        print(json.dumps(RobotProfile.editor_schema(), indent=1))
        return
    console = Console()
    if name:
        _explain(load_profile(name), console)
        return
    table = Table("robot", "vendor", "joints", "rate", "commands", "checkpoints of type", "before it can be used")
    for known in profile_names():
        profile = load_profile(known)
        types = ", ".join(name for dataset in profile.datasets for name in dataset.robot_types)
        kinds = ", ".join(dict.fromkeys(command.type.rpartition("/")[2] for command in profile.commands))
        table.add_row(known, profile.vendor, str(profile.dof), f"{profile.control_rate_hz:g} Hz", kinds, types, _open_question(profile))
    console.print(table)


def _open_question(profile: RobotProfile) -> str:
    """What the profile leaves to the robot's owner, "" where nothing."""
    try:
        profile.require_known()
    except ConfigurationError as problem:
        return str(problem).partition(": ")[2]
    return ""


def _unit(unit: Affine | str, of: str) -> str:
    if isinstance(unit, str):
        return unit
    if unit == Affine():
        return "as it is"
    return f"{unit.scale:g} * {of}" + (f" {unit.offset:+g}" if unit.offset else "")


def _explain(profile: RobotProfile, console: Console) -> None:
    title = f"{profile.name} ({profile.vendor}): joints, rad and s"
    joints = Table("joint", "from", "to", "speed", "acceleration", "jerk", "stop", "ready", "home", "measured", "commanded", title=title)
    for i, joint in enumerate(profile.joints):
        row = (profile.max_velocity[i], profile.max_acceleration[i], profile.max_jerk[i], profile.stop_acceleration[i])
        poses = ("" if place is None else f"{place:g}" for place in (joint.ready, joint.home))
        units = _unit(joint.measured, "wire"), _unit(joint.commanded or joint.measured.inverse, "position")
        joints.add_row(joint.name, f"{joint.lower:g}", f"{joint.upper:g}", *(f"{x:g}" for x in row), *poses, *units)
    console.print(joints)
    if question := _open_question(profile):
        console.print(f"[yellow]To be found out before it can be used:[/] {question}", highlight=False)
    topics = Table("what", "topic", "type", title="topics")
    for kind, wires in (("state", profile.states), ("command", profile.commands)):
        for wire in wires:
            topics.add_row(kind, wire.topic, wire.type)
    for camera in profile.cameras:
        optional = " (optional)" if camera.optional else ""
        topics.add_row(f"camera {camera.name}{optional}", camera.topic, f"{camera.type}, {camera.rate_hz:g} Hz")
    console.print(topics)
