"""A request is answered or withdrawn, never both; simulated time that passes through zero is a jump; late ticks are not caught up."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Verdict
from internvla_a1_ros.nodes import policy_node
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.lifecycle import WorkingNode
from internvla_a1_ros.nodes.pacing import Pacer
from internvla_a1_ros.runtime.command_io import CommandInbox, Request


def answer(inbox: CommandInbox, request: Request, withdraw: bool = True) -> Verdict:
    return WorkingNode.answer(None, inbox.ask(request), 0.05, inbox.requests if withdraw else None)  # type: ignore[arg-type]


def test_what_nobody_took_is_withdrawn() -> None:
    inbox = CommandInbox()
    told = answer(inbox, Request.ARM)
    assert told.code == "no_answer" and told.reason == "arm: the loop did not answer within 0.05 s: it is withdrawn"
    assert not inbox.requests, "it does not happen later"


def test_to_come_to_rest_stays_asked_for() -> None:
    inbox = CommandInbox()
    told = answer(inbox, Request.DISARM, withdraw=False)
    assert told.code == "no_answer" and told.reason.endswith("it stays asked for") and len(inbox.requests) == 1


def test_what_was_taken_and_not_answered_is_not_said_to_be_withdrawn() -> None:
    inbox = CommandInbox()
    ticket = inbox.ask(Request.ARM)
    inbox.requests.popleft()
    told = WorkingNode.answer(None, ticket, 0.02, inbox.requests)  # type: ignore[arg-type]
    assert told.code == "no_answer" and told.reason.endswith("it has been taken up")


def test_what_the_loop_has_just_taken_is_waited_for() -> None:
    inbox = CommandInbox()

    def loop() -> None:
        time.sleep(0.04)
        ticket = inbox.requests.popleft()
        time.sleep(0.03)
        ticket.verdict = Verdict(True, "ok", "hold: arm")

    thread = threading.Thread(target=loop)
    thread.start()
    assert answer(inbox, Request.ARM).reason == "hold: arm"
    thread.join()


@pytest.mark.parametrize(
    ("times_s", "jumps"),
    [
        ((0, 0, 5.0, 5.01), 0),  # told for the first time
        ((100.0, 100.01, 0, 0, 0.01, 0.02), 1),  # a reset that passes through zero
        ((100.0, 100.005, 99.999), 0),
        ((100.0, 99.9), 1),
        ((100.0, 101.5), 1),
    ],
)
def test_simulated_time_that_steps_is_told_once(times_s: tuple[float, ...], jumps: int) -> None:
    clock: Any = object.__new__(NodeClock)
    told = iter(round(time_s * 1e9) for time_s in times_s)
    clock.simulated, clock._last_ros_ns, clock._ros_ns = True, None, lambda: next(told)
    assert sum(not clock.check() for _ in times_s) == jumps


def test_a_policy_that_still_computes_is_not_begun_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads would share one model."""
    monkeypatch.setattr(policy_node, "ENDS_WITHIN_S", 0.01)
    node: Any = object.__new__(policy_node.PolicyNode)
    done = threading.Event()
    node._running, node._arrived = threading.Event(), threading.Event()
    node._threads = [threading.Thread(target=done.wait, daemon=True)]
    node._threads[0].start()
    node.end()
    with pytest.raises(ConfigurationError, match="still computes the chunk"):
        policy_node.PolicyNode.begin(node)
    done.set()
    node._threads[0].join()
    node.end()
    assert node._threads == []


def test_what_is_always_wrong_is_not_said_all_the_time() -> None:
    """By what it is, whatever numbers it tells and whatever else is said between."""
    said: list[str] = []
    node: Any = SimpleNamespace(_said_bad={}, get_logger=lambda: SimpleNamespace(warning=said.append))
    for k in range(50):
        policy_node.PolicyNode._say_bad(node, "bad_frame", "head", f"got a truncated jpeg of {1000 + k} bytes")
        policy_node.PolicyNode._say_bad(node, "bad_joints", "joints 0", f"joint 3: got nan at {k}")
    assert said == ["bad_frame: got a truncated jpeg of 1000 bytes", "bad_joints: joint 3: got nan at 0"]
    policy_node.PolicyNode._say_bad(node, "bad_frame", "head", "got an empty picture")
    assert len(said) == 3


MS = 1_000_000


@pytest.mark.parametrize(
    ("simulated", "late_ms", "scheduled_ms", "missed"),
    [
        (False, 4, 10, 0),  # the grid is kept
        (False, 9, 19, 0),  # else the next tick would come after one millisecond
        (False, 25, 35, 2),
        (True, 9, 10, 0),  # simulated time comes in steps
        (True, 25, 30, 2),
    ],
)
def test_a_late_tick_is_not_caught_up(simulated: bool, late_ms: int, scheduled_ms: int, missed: int) -> None:
    class Clock:
        def __init__(self) -> None:
            self.simulated, self._told = simulated, iter((0, (10 + late_ms) * MS))

        def now_ns(self) -> int:
            return next(self._told)

    clock: Any = Clock()
    going = threading.Event()
    going.set()
    pacer = Pacer(10 * MS, 8)
    pacer.start(clock)
    assert pacer.wait(clock, going) == (scheduled_ms * MS, missed)
