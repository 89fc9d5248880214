"""The node's clock: one monotonic time inside, whatever ROS time does."""

from __future__ import annotations

import threading
import time

from rclpy.clock import ClockType, ROSClock
from rclpy.node import Node
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

from internvla_a1_ros.core.clock import ClockOffset
from internvla_a1_ros.core.types import ACCEPTED, Verdict, refused
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.entities import NoExecutor


class SimulatedTime:
    """What `/clock` said last, taken by whoever asks.

    rclpy's own reading of it comes through the executor: behind its other callbacks, a service among them that waits for the
    very tick which waits for the clock, and at a millisecond each.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._now_ns, self._lock = node, 0, threading.Lock()
        self._subscription = node.create_subscription(Clock, "/clock", lambda _: None, qos.CLOCK, callback_group=NoExecutor())

    def now_ns(self) -> int:
        """Return the simulated time, 0 before it was ever told."""
        with self._lock, self._subscription.handle:
            while (taken := self._subscription.handle.take_message(Clock, False)) is not None:
                stamp = taken[0].clock
                self._now_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        return self._now_ns

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)


class NodeClock:
    """Turns ROS stamps into the loop's time and back, and notices jumps.

    On wall time the loop runs on the monotonic clock and the offset is tracked. With `use_sim_time` the loop runs on ROS
    time itself, so that pausing or slowing the simulation slows the loop; only a jump back or a leap ahead counts as a jump.
    """

    LEAP_NS = 1_000_000_000
    PAIR_NS = 2_000_000

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._offset = ClockOffset()
        self._last_ros_ns: int | None = None
        self.simulated = isinstance(self._clock, ROSClock) and bool(node.get_parameter("use_sim_time").value)
        self._simulated_time = SimulatedTime(node) if self.simulated else None
        while not self.simulated and not self._offset.known:
            self.check()

    def close(self) -> None:
        """Listen to no clock any more."""
        if self._simulated_time is not None:
            self._simulated_time.close()

    def _ros_ns(self) -> int:
        return int(self._clock.now().nanoseconds) if self._simulated_time is None else self._simulated_time.now_ns()

    def check(self) -> Verdict:
        """Compare the clocks; called some times a second. A refusing verdict is a jump: hold and clear."""
        before_ns = time.monotonic_ns()
        ros_ns = self._ros_ns()
        if not self.simulated:
            after_ns = time.monotonic_ns()
            # Preempted between the two readings, the pair says nothing about the clocks.
            return self._offset.update(ros_ns, (before_ns + after_ns) // 2) if after_ns - before_ns < self.PAIR_NS else ACCEPTED
        if ros_ns == 0:  # not told yet, or on its way through a reset: that is seen with the next time
            return ACCEPTED
        last, self._last_ros_ns = self._last_ros_ns, ros_ns
        if last is None:
            return ACCEPTED
        if -self.LEAP_NS // 100 <= ros_ns - last <= self.LEAP_NS:
            return ACCEPTED
        jump_s = (ros_ns - last) * 1e-9
        return refused("clock_jump", f"simulated time jumped by {jump_s:+.3f} s: holding, everything stamped before is dropped")

    def now_ns(self) -> int:
        """Return the loop's time."""
        return self._ros_ns() if self.simulated else time.monotonic_ns()

    def from_stamp(self, stamp: object) -> int:
        """Return the loop's time of a `builtin_interfaces/Time`; a stamp of zero means now (the sender had no clock)."""
        ros_ns = stamp.sec * 1_000_000_000 + stamp.nanosec  # type: ignore[attr-defined]
        if ros_ns == 0:
            return self.now_ns()
        return int(ros_ns) if self.simulated else self._offset.to_monotonic(ros_ns)

    def from_receipt(self, received_ns: int) -> int:
        """Return the loop's time of a receipt noted by the middleware on the system's clock; now, where it noted none."""
        now_ns = self.now_ns()
        if received_ns <= 0 or self.simulated:
            return now_ns
        return min(now_ns, self._offset.to_monotonic(received_ns))

    def to_ros(self, loop_ns: int) -> int:
        """Return the ROS time of a loop time."""
        return loop_ns if self.simulated else self._offset.to_ros(loop_ns)

    def to_stamp(self, loop_ns: int) -> object:
        """Return the `builtin_interfaces/Time` of a loop time."""
        return Time(nanoseconds=self.to_ros(loop_ns), clock_type=ClockType.ROS_TIME).to_msg()
