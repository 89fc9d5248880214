"""The doctor on what surrounds the robot: graph, command topics, our nodes, this host, the disk; and on looking at the host."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctor_rig import COMMAND, PROFILE, STATUS, bad, healthy, one

from internvla_a1_ros.commissioning import doctor_host
from internvla_a1_ros.commissioning.doctor_facts import Endpoint, Ends, Facts, Gpu, NodeState
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import FOLLOW_TRAJECTORY

DRIVER, OURS = Endpoint("/driver", STATUS, "reliable", "volatile"), Endpoint("/command", STATUS, "reliable", "volatile")
ON_COMMAND = f"command {COMMAND}"


def with_machine(**changes: Any) -> Facts:
    facts = healthy()
    assert facts.machine is not None
    return replace(facts, machine=replace(facts.machine, **changes))


def with_command(*publishers: Endpoint, listeners: tuple[Endpoint, ...] = (DRIVER,)) -> Facts:
    facts = healthy()
    assert facts.commands is not None
    return replace(facts, commands={**facts.commands, COMMAND: Ends(publishers, listeners)})


def with_node(name: str, lifecycle: str = "active", message: str = "ok", **said: str) -> Facts:
    facts = healthy()
    assert facts.nodes is not None
    return replace(facts, nodes={**facts.nodes, name: NodeState(lifecycle, {**facts.nodes[name].said, **said}, message)})


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (with_machine(cpu_share=0.85), None),
        (with_machine(cpu_share=0.86), ("warning", "load", "this host")),
        (with_machine(memory_free_bytes=1 << 30), None),
        (with_machine(memory_free_bytes=(1 << 30) - 1), ("warning", "memory", "this host")),
        (with_machine(realtime=False), ("warning", "realtime", "this host")),
        (with_machine(memory_lockable=False), ("warning", "realtime", "this host")),
        (with_machine(gpus=(Gpu("H100", 0.99, 0.95, 85.0),)), None),
        (with_machine(gpus=(Gpu("H100", 0.0, 0.96, 40.0),)), ("warning", "gpu", "this host")),
        (with_machine(gpus=(Gpu("a", 0.0, 0.1, 40.0), Gpu("b", 0.0, 0.1, 86.0))), ("warning", "gpu", "this host")),
        (with_machine(disk_writable=False), ("warning", "disk", "disk recordings")),
    ],
)
def test_the_host(facts: Facts, finding: tuple[str, str, str] | None) -> None:
    assert bad(facts) == ([] if finding is None else [finding])


@pytest.mark.parametrize(("minutes", "level"), [(61, None), (59, "warning"), (6, "warning"), (4, "stop")])
def test_the_disk_by_what_was_heard(minutes: float, level: str | None) -> None:
    facts = healthy()
    rate = sum(stream.n_bytes for stream in facts.streams.values()) / facts.seconds
    facts = with_machine(disk_free_bytes=round(rate * minutes * 60))
    assert bad(facts) == ([] if level is None else [(level, "disk", "disk recordings")])
    assert f"{minutes} min of recording" in one(facts, "disk", "disk recordings").what


def test_a_disk_of_which_it_is_not_known_how_long_it_lasts() -> None:
    facts = healthy()
    facts = replace(facts, streams={topic: replace(stream, n_bytes=0) for topic, stream in facts.streams.items()})
    assert bad(facts) == [("warning", "disk", "disk recordings")]


@pytest.mark.parametrize(
    ("changes", "level"),
    [({}, None), ({"nodes": ()}, "stop"), ({"domain_id": 101}, None), ({"domain_id": 102}, "warning")],
)
def test_the_graph(changes: dict[str, Any], level: str | None) -> None:
    facts = healthy()
    assert facts.discovery is not None
    facts = replace(facts, discovery=replace(facts.discovery, **changes))
    assert bad(facts) == ([] if level is None else [(level, "discovery", "graph")])
    assert "range LOCALHOST" in one(facts, "discovery", "graph").what


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (with_command(), None),
        (with_command(OURS), None),
        (with_command(OURS, OURS), ("stop", "publishers", ON_COMMAND)),
        (with_command(Endpoint("/teleop", STATUS)), ("stop", "publishers", ON_COMMAND)),
        (with_command(OURS, Endpoint("/teleop", STATUS)), ("stop", "publishers", ON_COMMAND)),
        (with_command(Endpoint("/my_command", STATUS)), ("stop", "publishers", ON_COMMAND)),
        (with_command(listeners=()), ("warning", "listeners", ON_COMMAND)),
        (with_command(listeners=(DRIVER, replace(DRIVER, type="sensor_msgs/msg/JointState"))), ("stop", "listeners", ON_COMMAND)),
        (with_command(listeners=(replace(DRIVER, reliability="best_effort"),)), None),
        (with_command(listeners=(replace(DRIVER, durability="transient_local"),)), ("stop", "listeners", ON_COMMAND)),
    ],
)
def test_command_topics(facts: Facts, finding: tuple[str, str, str] | None) -> None:
    assert bad(facts) == ([] if finding is None else [finding])


def test_who_else_publishes_is_named() -> None:
    what = one(with_command(OURS, Endpoint("/teleop", STATUS)), "publishers", ON_COMMAND).what
    assert what == "/teleop can command it too"
    what = one(with_command(OURS, Endpoint("/move_group", FOLLOW_TRAJECTORY)), "publishers", ON_COMMAND).what
    assert what == f"/move_group (by {FOLLOW_TRAJECTORY}) can command it too"


def test_a_best_effort_offer_does_not_reach_a_reliable_listener() -> None:
    first, *others = PROFILE.commands
    offer = first.model_copy(update={"qos": first.qos.model_copy(update={"reliability": "best_effort"})})
    profile: RobotProfile = PROFILE.model_copy(update={"commands": (offer, *others)})
    assert bad(healthy(), profile) == [("stop", "listeners", ON_COMMAND)]


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (with_node("policy", ""), ("warning", "engine", "policy")),
        (with_node("policy", "inactive"), ("warning", "engine", "policy")),
        (with_node("policy", message="camera 'head': nothing received yet"), ("warning", "engine", "policy")),
        (with_node("policy", rate_hz="8.1"), None),
        (with_node("policy", rate_hz="7.9"), ("warning", "engine", "policy")),
        (with_node("command", ""), ("warning", "command", "command process")),
        (with_node("command", "unconfigured"), ("warning", "command", "command process")),
        (with_node("command", mode=""), ("warning", "command", "command process")),
        (with_node("command", mode="run", armed="True"), None),
        (with_node("command", message="SCHED_FIFO priority 40 refused"), ("warning", "command", "command process")),
        (with_node("command", mode="stop", reason="e-stop pressed"), ("stop", "command", "command process")),
        (with_node("command", mode="fault", reason="tracking"), ("stop", "command", "command process")),
    ],
)
def test_our_nodes(facts: Facts, finding: tuple[str, str, str] | None) -> None:
    assert bad(facts) == ([] if finding is None else [finding])


def test_a_policy_that_says_nothing_is_not_ok() -> None:
    facts = healthy()
    assert bad(replace(facts, nodes={**(facts.nodes or {}), "policy": NodeState("active")})) == [("warning", "engine", "policy")]


def test_a_bag_says_what_it_cannot_tell() -> None:
    facts = replace(healthy(), source="bag", commands=None, discovery=None, nodes=None, machine=None)
    assert bad(facts) == [("warning", "bag", "bag")]


def test_this_host_is_looked_at(tmp_path: Path) -> None:
    machine = doctor_host.HostWatch().seen(tmp_path / "not" / "yet" / "there")
    assert 0 <= machine.cpu_share <= 1 and machine.cores >= 1 and machine.memory_free_bytes > 0
    assert machine.disk_free_bytes > 0 and machine.disk_writable
    assert not (tmp_path / "not").exists()


def test_gpus_are_read_line_by_line() -> None:
    told = "NVIDIA H100 80GB HBM3, 37, 1024, 81559, 41\nNVIDIA Thor, [N/A], [N/A], [N/A], 50\n\n"
    assert doctor_host.read_gpus(told) == (Gpu("NVIDIA H100 80GB HBM3", 0.37, 1024 / 81559, 41.0),)
    assert doctor_host.read_gpus("") == ()


def test_real_time_is_tried_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getscheduler(0)
    assert doctor_host.realtime_granted() in (True, False) and os.sched_getscheduler(0) == before

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(doctor_host.os, "sched_setscheduler", refuse)
    assert not doctor_host.realtime_granted()


def test_memory_is_lockable_by_limit_or_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, capable, lockable in ((0, False, False), (0, True, True), (doctor_host.resource.RLIM_INFINITY, False, True)):
        monkeypatch.setattr(doctor_host.resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        monkeypatch.setattr(doctor_host, "_capable", lambda bit, capable=capable: capable)
        assert doctor_host.memory_lockable() is lockable
