"""One clock inside: every ROS stamp becomes monotonic time once, at arrival, through a tracked offset."""

from __future__ import annotations

from internvla_a1_ros.core.types import ACCEPTED, Verdict, refused


class ClockOffset:
    """Tracks `monotonic - ros` and tells a slow drift from a step.

    `update` is called with both clocks read at the same instant, some times a second. A drift within `tolerance_ns`
    of the tracked offset is followed; more is a jump (an NTP step, a simulation reset): the offset is taken over at once
    and `update` returns a refusing verdict, upon which the caller holds and clears.
    """

    def __init__(self, tolerance_ns: int = 50_000_000) -> None:
        self._tolerance_ns = tolerance_ns
        self._offset_ns: int | None = None
        self.jumps = 0

    @property
    def known(self) -> bool:
        return self._offset_ns is not None

    def update(self, ros_ns: int, monotonic_ns: int) -> Verdict:
        """Take one pair of readings."""
        offset = monotonic_ns - ros_ns
        last = self._offset_ns
        self._offset_ns = offset
        if last is None or abs(offset - last) <= self._tolerance_ns:
            return ACCEPTED
        self.jumps += 1
        return refused(
            "clock_jump",
            f"ROS time jumped by {(last - offset) * 1e-9:+.3f} s against the monotonic clock, "
            f"allowed {self._tolerance_ns * 1e-9:.3f} s: holding, everything stamped before is dropped",
        )

    def to_monotonic(self, ros_ns: int) -> int:
        """Return the monotonic time of a ROS stamp. Raises RuntimeError before the first `update`."""
        if self._offset_ns is None:
            raise RuntimeError("clock offset asked for before the first update")
        return ros_ns + self._offset_ns

    def to_ros(self, monotonic_ns: int) -> int:
        """Return the ROS stamp of a monotonic time. Raises RuntimeError before the first `update`."""
        if self._offset_ns is None:
            raise RuntimeError("clock offset asked for before the first update")
        return monotonic_ns - self._offset_ns
