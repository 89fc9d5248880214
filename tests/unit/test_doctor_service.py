"""What our nodes say of themselves when they are asked."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from doctor_rig import LEFT, PROFILE

from internvla_a1_ros.commissioning.doctor_findings import Finding, Level, ok, stop, warning
from internvla_a1_ros.core.freshness import Freshness
from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.core.sync import CameraSpec, ObservationBuilder
from internvla_a1_ros.core.types import Mode
from internvla_a1_ros.nodes.doctor_service import answering, command_findings, policy_findings
from internvla_a1_ros.runtime.command_io import CommandInbox, CommandOutbox, Counters
from internvla_a1_ros.runtime.metrics import Cadence

S, MS = 1_000_000_000, 1_000_000
NOW = 10 * S


def bad(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(f.level.value, f.check, f.subject) for f in findings if f.level is not Level.OK]


def heard(rate_hz: float, until_ns: int = NOW, least_hz: float = 0.0, max_age_ns: int = 100 * MS) -> Freshness:
    freshness = Freshness(max_age_ns, least_hz)
    for k in range(round(rate_hz) * 2, -1, -1):
        freshness.received(until_ns - round(k * S / rate_hz))
    return freshness


def command(**changes: Any) -> list[Finding]:
    """A healthy command process with something changed."""
    given: dict[str, Any] = {
        "health": [heard(200), heard(200)],
        "refused_realtime": "",
        "inbox": CommandInbox(),
        "loop": SimpleNamespace(counters=Counters(ticks=1000, chunks_accepted=5)),
        "out": CommandOutbox(np.zeros(14), mode=Mode.HOLD),
    }
    return command_findings(NOW, PROFILE, **(given | changes))


def loop(**counters: Any) -> SimpleNamespace:
    return SimpleNamespace(counters=Counters(**counters))


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, None),
        ({"health": [heard(200, NOW - 101 * MS), heard(200)]}, ("stop", "stream", LEFT)),
        ({"health": [Freshness(S), heard(200)]}, ("stop", "stream", LEFT)),
        ({"refused_realtime": "SCHED_FIFO priority 40 refused (no): grant it"}, ("warning", "realtime", "scheduling")),
        ({"refused_realtime": "not asked for (--no-realtime)"}, ("warning", "realtime", "scheduling")),
        ({"inbox": CommandInbox(foreign_publisher="node /x publishes on /y")}, ("stop", "publishers", "command topics")),
        ({"out": None}, ("warning", "state", "loop")),
        ({"loop": None}, ("warning", "state", "loop")),
        ({"out": CommandOutbox(np.zeros(14), mode=Mode.STOP, reason="e-stop")}, ("stop", "state", "loop")),
        ({"out": CommandOutbox(np.zeros(14), mode=Mode.FAULT, reason="tracking")}, ("stop", "state", "loop")),
        ({"out": CommandOutbox(np.zeros(14), mode=Mode.RUN)}, None),
        ({"loop": loop(ticks=1000, missed_ticks=10)}, None),
        ({"loop": loop(ticks=1000, missed_ticks=11)}, ("warning", "ticks", "loop")),
        ({"loop": loop(ticks=1000, chunks_refused={"robot": 3})}, ("warning", "refusals", "plans")),
        ({"loop": loop(ticks=1000, chunks_accepted=1, chunks_refused={"robot": 3})}, None),
    ],
)
def test_the_command_process(changes: dict[str, Any], finding: tuple[str, str, str] | None) -> None:
    assert bad(command(**changes)) == ([] if finding is None else [finding])


def test_refusals_are_counted_by_their_reason() -> None:
    (told,) = [f.what for f in command(loop=loop(chunks_accepted=7, chunks_refused={"too_old": 2, "robot": 1})) if f.check == "refusals"]
    assert told == "7 accepted, refused: 1 robot, 2 too_old"


def policy(optional: bool = False, cycles: int = 20, period_ms: int = 100, **health: Freshness) -> list[Finding]:
    cameras = tuple(camera.model_copy(update={"optional": optional and camera.name == "right"}) for camera in PROFILE.cameras)
    profile = PROFILE.model_copy(update={"cameras": cameras})
    builder = ObservationBuilder((CameraSpec("head"),), HistorySpec())
    builder.build(NOW)
    cadence = Cadence(10.0)
    for k in range(cycles):
        cadence.cycle(k * period_ms * MS, {"encode": 0.01})
    streams = {camera.name: heard(90, least_hz=22.5) for camera in cameras} | health
    return policy_findings(NOW, profile, streams, builder, SimpleNamespace(cadence=cadence))


def test_the_policy_process() -> None:
    assert bad(policy()) == []
    assert bad(policy(right=Freshness(S))) == [("stop", "stream", "camera right")]
    assert bad(policy(optional=True, right=Freshness(S))) == [("warning", "stream", "camera right")]
    assert bad(policy(right=heard(15, least_hz=22.5))) == [("warning", "stream", "camera right")]
    assert bad(policy(period_ms=130)) == [("warning", "plans", "loop")]
    (finding,) = [f for f in policy(cycles=0) if f.level is not Level.OK]
    assert finding.what == "no plan yet, no_frame: camera 'head': no frame received yet"


def test_a_policy_that_is_not_configured() -> None:
    builder = ObservationBuilder((CameraSpec("head"),), HistorySpec())
    found = policy_findings(NOW, PROFILE, {camera.name: heard(90) for camera in PROFILE.cameras}, builder, None)
    assert bad(found) == [("warning", "engine", "engine")]


def test_the_answer_is_short_and_fails_with_a_stop() -> None:
    found = [ok("a", "x", "fine"), warning("b", "y", "slow", "hurry"), stop("c", "z", "gone", "bring it back")]
    answer = answering(lambda: found)(None, SimpleNamespace(success=None, message=None))
    assert answer.message == "stop: z: gone (bring it back)\nwarning: y: slow (hurry)\nok: x: fine"
    assert answer.success is False
    assert answering(lambda: found[:2])(None, SimpleNamespace(success=None, message=None)).success is True


def test_the_command_process_loads_nothing_heavy_with_it() -> None:
    heavy = ("torch", "cv2", "mujoco", "onnxruntime", "rclpy")
    script = f"import sys, internvla_a1_ros.nodes.doctor_service\nprint(*[n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
