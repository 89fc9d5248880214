"""A robot in perfect health, as the doctor sees it, to be spoiled one fact at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from internvla_a1_ros.commissioning.doctor import Model, examine, read_model
from internvla_a1_ros.commissioning.doctor_facts import (
    Discovery,
    Endpoint,
    Ends,
    Facts,
    Joints,
    Machine,
    NodeState,
    Picture,
    Stream,
    Views,
)
from internvla_a1_ros.commissioning.doctor_findings import Finding, Level
from internvla_a1_ros.robots.profile import RobotProfile, load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint

PROFILE = load_profile("arx_ac_one")
MODEL = read_model(find_checkpoint("nano"))
READY = np.array([0.0, 0.948, 0.858, -0.573, 0.0, 0.0, -1.7])
HEAD = PROFILE.cameras[0].topic
LEFT, RIGHT = (wire.topic for wire in PROFILE.states)
COMMAND = PROFILE.commands[0].topic
T0_NS, SECONDS = 1_800_000_000_000_000_000, 5.0
UNTIL_NS = T0_NS + round(SECONDS * 1e9)
MS = 1_000_000
PICTURE = Picture(640, 480, "rgb8; jpeg compressed bgr8", sharpness=400.0, brightness=110.0, contrast=50.0, change=2.0)
IMAGE, STATUS = "sensor_msgs/msg/CompressedImage", "arx5_arm_msg/msg/RobotStatus"


def stream(kind: str, node: str, rate_hz: float, capture_ms: float = 0.0, way_ms: float = 1.0) -> Stream:
    """What comes evenly at `rate_hz`, stamped `capture_ms` before it is sent and received `way_ms` after."""
    received_ns = T0_NS + np.arange(1, round(SECONDS * rate_hz) + 1) * round(1e9 / rate_hz)
    received_ns = received_ns[received_ns <= UNTIL_NS]
    sent_ns = received_ns - round(way_ms * MS)
    publishers = (Endpoint(node, kind, "best_effort", "volatile"),)
    return Stream((kind,), publishers, received_ns, sent_ns, sent_ns - round(capture_ms * MS), n_bytes=40_000 * len(received_ns))


def healthy(profile: RobotProfile = PROFILE) -> Facts:
    """Everything as it should be."""
    streams = {camera.topic: stream(IMAGE, f"/camera_{camera.name}", 90.0, capture_ms=9.0) for camera in profile.cameras}
    streams |= {wire.topic: stream(STATUS, "/driver", 200.0) for wire in profile.states}
    quiver = 1e-4 * np.sin(np.arange(1000.0))[:, None]
    return Facts(
        source="live",
        seconds=SECONDS,
        until_ns=UNTIL_NS,
        streams=streams,
        views={camera.name: Views((PICTURE,) * 20) for camera in profile.cameras},
        joints={wire.topic: Joints(READY + quiver) for wire in profile.states},
        topics={topic: each.types for topic, each in streams.items()},
        commands={command.topic: Ends((), (Endpoint("/driver", command.type, "reliable", "volatile"),)) for command in profile.commands},
        discovery=Discovery(5, "LOCALHOST", "", "rmw_fastrtps_cpp", ("/camera_head", "/driver")),
        nodes={
            "policy": NodeState("active", {"rate_hz": "9.9", "target_hz": "10.0", "latency_ms_p50": "60.0"}, "ok"),
            "command": NodeState("active", {"mode": "hold", "armed": "False", "dry_run": "False"}, "ok"),
        },
        machine=Machine(0.4, 16, 8 << 30, True, True, "recordings", 1 << 42, True),
    )


def with_stream(topic: str, facts: Facts | None = None, **changes: Any) -> Facts:
    """Healthy facts with some of one topic's changed; a change may be a function of what was."""
    facts = facts or healthy()
    old = facts.streams[topic]
    told = {name: change(getattr(old, name)) if callable(change) else change for name, change in changes.items()}
    return replace(facts, streams={**facts.streams, topic: replace(old, **told)})


def with_picture(facts: Facts | None = None, still_s: float = 0.0, **changes: Any) -> Facts:
    """Healthy facts with the head camera's pictures changed."""
    facts = facts or healthy()
    return replace(facts, views={**facts.views, "head": Views((replace(PICTURE, **changes),) * 20, still_s)})


def with_joint(joint: str, value: float | Callable[[np.ndarray], np.ndarray], facts: Facts | None = None) -> Facts:
    """Healthy facts with one joint elsewhere."""
    facts = facts or healthy()
    wire = next(wire for wire in PROFILE.states if joint in wire.joints)
    positions = facts.joints[wire.topic].positions.copy()
    column = positions[:, wire.joints.index(joint)]
    column[:] = value(column) if callable(value) else value
    return replace(facts, joints={**facts.joints, wire.topic: Joints(positions)})


def bad(facts: Facts, profile: RobotProfile = PROFILE, model: Model = MODEL) -> list[tuple[str, str, str]]:
    """(level, check, subject) of everything that is not ok."""
    return [(f.level.value, f.check, f.subject) for f in examine(facts, profile, model) if f.level is not Level.OK]


def one(facts: Facts, check: str, subject: str, profile: RobotProfile = PROFILE) -> Finding:
    """The one finding of a check on a subject."""
    found = [f for f in examine(facts, profile, MODEL) if (f.check, f.subject) == (check, subject)]
    assert len(found) == 1, found
    return found[0]
