"""`internvla-a1 robots [NAME]`: which robots are described, and what a description says."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from internvla_a1_ros.robots.profile import RobotProfile, load_profile, profile_names


def robots(name: Annotated[str, typer.Argument(help="a profile's name or the path of a YAML file; all are listed without")] = "") -> None:
    """List the robot profiles, or explain one: joints and limits, topics, cameras."""
    console = Console()
    if name:
        _explain(load_profile(name), console)
        return
    table = Table("robot", "vendor", "joints", "rate", "cameras")
    for known in profile_names():
        profile = load_profile(known)
        cameras = ", ".join(camera.name for camera in profile.cameras)
        table.add_row(known, profile.vendor, str(profile.dof), f"{profile.control_rate_hz:g} Hz", cameras)
    console.print(table)


def _explain(profile: RobotProfile, console: Console) -> None:
    title = f"{profile.name} ({profile.vendor}): joints, rad and s"
    joints = Table("joint", "from", "to", "speed", "acceleration", "jerk", "stop", title=title)
    for i, joint in enumerate(profile.joints):
        row = (profile.max_velocity[i], profile.max_acceleration[i], profile.max_jerk[i], profile.stop_acceleration[i])
        joints.add_row(joint.name, f"{joint.lower:g}", f"{joint.upper:g}", *(f"{x:g}" for x in row))
    console.print(joints)
    topics = Table("what", "topic", "type", title="topics")
    for kind, wires in (("state", profile.states), ("command", profile.commands)):
        for wire in wires:
            topics.add_row(kind, wire.topic, wire.type)
    for camera in profile.cameras:
        optional = " (optional)" if camera.optional else ""
        topics.add_row(f"camera {camera.name}{optional}", camera.topic, f"{camera.type}, {camera.rate_hz:g} Hz")
    console.print(topics)
