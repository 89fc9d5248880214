"""What a lifecycle node made in configure, so that cleanup destroys exactly that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node

# More than arrive between two polls of any stream here; what is left is taken at the next.
_TAKEN_AT_ONCE = 16
# Is handed a message and what the middleware knows of it.
_Heard = Callable[[Any, Mapping[str, Any]], None]


class NoExecutor(CallbackGroup):
    """Entities of this group are left alone by every executor: a loop of ours polls them."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        return None


class Entities:
    """Makes publishers, subscriptions, services and timers on a node and remembers how to undo it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._undo: list[Callable[[], Any]] = []
        self._nobody = NoExecutor()
        self._polled: list[tuple[Any, _Heard]] = []
        self._waking: list[Any] = []
        self._wait_set: Any = None

    def undo(self, action: Callable[[], Any]) -> None:
        """Let `destroy` do `action` too."""
        self._undo.append(action)

    def publisher(self, message: type, topic: str, profile: Any) -> Any:
        """Make a plain publisher: it works in every state, since a stop must be sent in any."""
        made = Node.create_publisher(self._node, message, topic, profile)
        self._undo.append(lambda: self._node.destroy_publisher(made))
        return made

    def subscription(self, message: type, topic: str, callback: Callable[[Any], None], profile: Any) -> Any:
        """Make a subscription."""
        made = self._node.create_subscription(message, topic, callback, profile)
        self._undo.append(lambda: self._node.destroy_subscription(made))
        return made

    def polled(self, message: type, topic: str, callback: Callable[[Any, int], None], profile: Any, *, wakes: bool = False) -> None:
        """Make a subscription whose messages `take` hands to `callback`, with the middleware's time of receipt in ns (0: unknown).

        `wakes`: `wait` returns when one comes. An executor of rclpy rebuilds its wait set in Python at every wake-up: 1.2 ms, a
        third of a core at 230 messages a second. Polling costs some microseconds, and a loop that polls before it steps needs no
        wake-up at all.
        """
        self._poll(message, topic, lambda said, info: callback(said, int(info.get("received_timestamp") or 0)), profile, wakes)

    def polled_of(self, message: type, topic: str, callback: Callable[[Any, bytes], None], profile: Any) -> None:
        """Like `polled`, but `callback` gets who published: the publisher's gid, as in the graph; empty where rclpy does not tell."""
        self._poll(message, topic, lambda said, info: callback(said, bytes((info.get("publisher_gid") or {}).get("data", b""))), profile)

    def _poll(self, message: type, topic: str, callback: _Heard, profile: Any, wakes: bool = False) -> None:
        made = self._node.create_subscription(message, topic, callback, profile, callback_group=self._nobody)
        self._polled.append((made, callback))
        if wakes:
            self._waking.append(made)
        self._undo.append(lambda: self._node.destroy_subscription(made))

    def wait(self, timeout_s: float) -> None:
        """Sleep until a polled subscription that wakes has something, at most `timeout_s`. One thread only, that of `take`."""
        if not self._waking:
            time.sleep(timeout_s)
            return
        if self._wait_set is None:
            with self._node.context.handle:
                self._wait_set = _rclpy.WaitSet(len(self._waking), 0, 0, 0, 0, 0, self._node.context.handle)
        self._wait_set.clear_entities()
        for subscription in self._waking:
            self._wait_set.add_subscription(subscription.handle)
        self._wait_set.wait(round(timeout_s * 1e9))

    def take(self) -> None:
        """Hand what has arrived on the polled subscriptions to their callbacks. One thread only."""
        for subscription, callback in self._polled:
            for _ in range(_TAKEN_AT_ONCE):
                with subscription.handle:
                    taken = subscription.handle.take_message(subscription.msg_type, False)
                if taken is None:
                    break
                message, info = taken
                callback(message, info)

    def action_client(self, kind: type, name: str) -> Any:
        """Make a client of an action; its answers come through the executor."""
        from rclpy.action import ActionClient

        made = ActionClient(self._node, kind, name)
        self._undo.append(made.destroy)
        return made

    def service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Make a service. It may wait for the loop, which waits for no callback."""
        made = self._node.create_service(kind, name, callback)
        self._undo.append(lambda: self._node.destroy_service(made))

    def timer(self, period_s: float, callback: Callable[[], None]) -> None:
        """Make a timer on the steady clock: reports go on while simulated time stands."""
        made = self._node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._undo.append(lambda: self._node.destroy_timer(made))

    def destroy(self) -> None:
        """Undo everything, last made first, whatever fails."""
        self._polled.clear()
        self._waking.clear()
        self._wait_set = None
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as problem:
                self._node.get_logger().error(f"cleanup: {problem}")
