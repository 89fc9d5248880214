"""What a lifecycle node made in configure, so that cleanup destroys exactly that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node


class Entities:
    """Makes publishers, subscriptions, services and timers on a node and remembers how to undo it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._undo: list[Callable[[], Any]] = []
        self._services = MutuallyExclusiveCallbackGroup()

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

    def service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """Make a service. It may wait for the loop, so it has a callback group of its own (see `lifecycle.make_executor`)."""
        made = self._node.create_service(kind, name, callback, callback_group=self._services)
        self._undo.append(lambda: self._node.destroy_service(made))

    def timer(self, period_s: float, callback: Callable[[], None]) -> None:
        """Make a timer on the steady clock: reports go on while simulated time stands."""
        made = self._node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._undo.append(lambda: self._node.destroy_timer(made))

    def destroy(self) -> None:
        """Undo everything, last made first, whatever fails."""
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as problem:
                self._node.get_logger().error(f"cleanup: {problem}")
