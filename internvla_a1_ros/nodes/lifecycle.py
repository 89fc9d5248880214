"""How every node of ours starts, fails in one sentence and ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Verdict, refused
from internvla_a1_ros.nodes.entities import Entities
from internvla_a1_ros.nodes.parameters import Parameter, declare
from internvla_a1_ros.runtime.supervisor import MISCONFIGURED
from internvla_a1_ros.runtime.tickets import Event, Ticket


class WorkingNode(LifecycleNode):
    """A lifecycle node that configures, works in threads of its own, and can be taken out of work at any time.

    A node says what it makes (`configure`), how it begins (`begin`) and how it comes to an end (`end`, which may be called when
    nothing was begun); here is when. What it makes through `_entities` is destroyed by cleanup, `_loop` is None while unconfigured.
    """

    def __init__(self, name: str, parameters: tuple[Parameter, ...]) -> None:
        super().__init__(name)
        declare(self, parameters)
        self._entities = Entities(self)
        self._loop: Any = None

    def configure(self) -> None:
        """Make everything. Raises ConfigurationError with the sentence that is logged; the transition fails."""
        raise NotImplementedError

    def begin(self) -> None:
        """Start to work. Raises ConfigurationError where it cannot now; the transition fails."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop working, and wait for it."""
        raise NotImplementedError

    def answer(self, ticket: Ticket[Any], within_s: float, waiting: deque[Ticket[Any]] | None = None) -> Verdict:
        """Wait for the loop's step that answers `ticket`, or refuse because none came `within_s`.

        `waiting`: the queue that it is in. It is taken back from there then: nothing moves later at the word of somebody who was told no.
        """
        what = "it stays asked for"
        if (verdict := _waited(ticket, within_s)) is not None:
            return verdict
        if waiting is not None:
            try:
                waiting.remove(ticket)  # either the loop takes it out or we do
                what = "it is withdrawn"
            except ValueError:
                if (verdict := _waited(ticket, within_s)) is not None:
                    return verdict
                what = "it has been taken up"
        return refused("no_answer", f"{ticket.request.value}: the loop did not answer within {within_s:g} s: {what}")

    def say(self, event: Event) -> None:
        """Log what a loop says."""
        log, text = self.get_logger(), f"{event.code}: {event.text}"
        if event.level == "error":  # one line each: rclpy binds a call's place to its severity
            log.error(text)
        elif event.level == "warn":
            log.warning(text)
        else:
            log.info(text)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.configure()
        except ConfigurationError as problem:
            self.get_logger().error(str(problem))
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.begin()
        except ConfigurationError as problem:
            self.get_logger().error(str(problem))
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.end()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.end()
        self._entities.destroy()
        self._loop = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.end()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop working; called once at the end of the process."""
        self.end()


def _waited(ticket: Ticket[Any], within_s: float) -> Verdict | None:
    """What the loop says of a ticket in that time, None where it says nothing."""
    deadline_s = time.monotonic() + within_s
    while ticket.verdict is None and time.monotonic() < deadline_s:
        time.sleep(0.001)
    return ticket.verdict


def run(make_node: Callable[[], Any], arguments: list[str] | None = None) -> int:
    """Spin one node until SIGINT, SIGTERM or SIGHUP (its terminal is gone), shut it down in order, and return the exit code.

    With the parameter `autostart` the node configures and activates itself (where no launch system does it) and ends with
    `MISCONFIGURED` when it cannot. `node.close()` is called last: it must leave the robot at rest.
    """
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # `nohup` goes on
            signal.signal(number, lambda *_: stop.set())
    try:
        node = make_node()
    except ConfigurationError as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        rclpy.try_shutdown()
        return MISCONFIGURED
    executor = SingleThreadedExecutor()  # rclpy 9.1's events executor polls at full load and starves the other threads
    executor.add_node(node)
    crashed = threading.Event()
    spinner = threading.Thread(target=_spin, args=(executor, stop, crashed), name="executor", daemon=True)
    code = 0
    if isinstance(node, LifecycleNode) and node.get_parameter("autostart").value and not _autostart(node):
        code = MISCONFIGURED
        stop.set()
    if not stop.is_set():
        spinner.start()
    stop.wait()
    try:
        node.close()
        code = code or int(crashed.is_set())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The middleware's threads may hang in their destructors; everything of ours is closed by now.
        rclpy.try_shutdown()
        os._exit(code)


def _autostart(node: LifecycleNode) -> bool:
    good = TransitionCallbackReturn.SUCCESS
    return bool(node.trigger_configure() == good and node.trigger_activate() == good)


def _spin(executor: Executor, stop: threading.Event, crashed: threading.Event) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception:
        if stop.is_set():  # the context is being shut down under it
            return
        # A defect in a callback: nothing is heard any more, so the node comes to rest and the process ends.
        traceback.print_exc()
        crashed.set()
    finally:
        stop.set()
