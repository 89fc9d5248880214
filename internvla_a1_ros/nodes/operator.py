"""The operator's ear and hand without a `ros2` command: what the nodes say of themselves, and their services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from internvla_a1_ros.nodes import qos


class Operator:
    """A node with a spinning thread of its own. `state`, `cycle`, `diagnostics` and `cell` hold what was heard last."""

    def __init__(self, domain_id: int | None = None, name: str = "operator") -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(name, context=self._context)
        self.state: dict[str, str] = {}
        self.cycle: dict[str, str] = {}
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.cell: str = ""
        self.cycles = 0
        listen = self.node.create_subscription
        listen(DiagnosticStatus, "command/state", lambda m: self._store(self.state, m), qos.LATCHED)
        listen(DiagnosticStatus, "policy/cycle", self._on_cycle, qos.COMMAND)
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.COMMAND)
        listen(String, "sim_node/status", self._on_cell, qos.COMMAND)
        self._estop = self.node.create_publisher(Bool, "e_stop", qos.COMMAND)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="operator", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except Exception:
            if self._context.ok():
                raise

    @staticmethod
    def _store(into: dict[str, str], message: DiagnosticStatus) -> None:
        into.update({item.key: item.value for item in message.values})

    def _on_cycle(self, message: DiagnosticStatus) -> None:
        self._store(self.cycle, message)
        self.cycles += 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {"message": status.message, **{item.key: item.value for item in status.values}}

    def _on_cell(self, message: String) -> None:
        self.cell = message.data

    def pictures(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Subscribe to compressed pictures; the function returned ends it."""
        subscription = self.node.create_subscription(CompressedImage, topic, callback, qos.SENSOR)
        return lambda: self.node.destroy_subscription(subscription)

    def press_estop(self, pressed: bool) -> None:
        """Publish the e-stop."""
        self._estop.publish(Bool(data=pressed))

    def call(self, service: str, timeout_s: float = 5.0) -> tuple[bool, str]:
        """Call a Trigger service, for example `command/arm`; return its success and message."""
        client = self.node.create_client(Trigger, service)
        try:
            if not client.wait_for_service(timeout_sec=timeout_s):
                return False, f"{service}: no such service within {timeout_s:g} s"
            future = client.call_async(Trigger.Request())
            deadline = time.monotonic() + timeout_s
            while not future.done() and time.monotonic() < deadline:
                time.sleep(0.005)
            if not future.done():
                return False, f"{service}: no answer within {timeout_s:g} s"
            answer = future.result()
            return bool(answer.success), str(answer.message)
        finally:
            self.node.destroy_client(client)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition` holds; return whether it did in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return condition()

    def close(self) -> None:
        """End the ear."""
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)

