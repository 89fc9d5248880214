"""Frame history by capture time: the model wants the picture half a second ago, not fifteen pictures ago."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from internvla_a1_ros.core.types import Frame


@dataclass(frozen=True, slots=True)
class HistorySpec:
    """How far back the past frame lies (0: it is the present one) and how far from there it may be; both from the model's manifest.

    The tolerance is one frame period of the data the model learned from. A slower camera gets its own period instead, up
    to twice the tolerance: at 15 Hz the moment half a second ago lies just between two frames, 33 ms from either.
    """

    interval_ns: int = 500_000_000
    tolerance_ns: int = 33_333_333

    def __post_init__(self) -> None:
        if self.interval_ns < 0 or self.tolerance_ns < 0:
            raise ValueError(
                f"history: got interval {self.interval_ns} ns, tolerance {self.tolerance_ns} ns, expected at least 0 of both"
            )


class FrameHistory:
    """The last frames of one camera in order of capture time.

    Frames may arrive late, twice or out of order. A frame older than the newest by more than the window means that the
    camera's clock jumped back: the history starts anew with it, and `clock_jumps` counts. `reach_ns`: how far behind the
    newest frame the past may still be asked for, since another camera, which leads, may have stalled.
    """

    def __init__(self, spec: HistorySpec, max_frames: int = 256, reach_ns: int = 350_000_000) -> None:
        self._spec = spec
        self._window_ns = spec.interval_ns + 2 * spec.tolerance_ns + reach_ns
        self._max_frames = max_frames
        self._stamps: list[int] = []
        self._frames: list[Frame] = []
        self._first_ns: int | None = None
        self.repeated = 0
        self.out_of_order = 0
        self.clock_jumps = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def period_ns(self) -> int:
        """Mean time between the frames kept; 0 before the second."""
        return (self._stamps[-1] - self._stamps[0]) // (len(self._stamps) - 1) if len(self._stamps) > 1 else 0

    @property
    def newest(self) -> Frame | None:
        return self._frames[-1] if self._frames else None

    def clear(self) -> None:
        """Forget every frame; the next one is the earliest again."""
        self._stamps.clear()
        self._frames.clear()
        self._first_ns = None

    def add(self, frame: Frame) -> None:
        """Keep `frame`; what has left the window is dropped."""
        stamp = frame.stamp_ns
        if self._stamps and stamp < self._stamps[-1] - self._window_ns:
            self.clear()
            self.clock_jumps += 1
        i = bisect_left(self._stamps, stamp)
        if i < len(self._stamps) and self._stamps[i] == stamp:
            self.repeated += 1
            return
        if i < len(self._stamps):
            self.out_of_order += 1
        self._stamps.insert(i, stamp)
        self._frames.insert(i, frame)
        if self._first_ns is None or stamp < self._first_ns:
            self._first_ns = stamp
        keep_from = self._stamps[-1] - self._window_ns
        drop = max(bisect_left(self._stamps, keep_from), len(self._stamps) - self._max_frames)
        del self._stamps[:drop], self._frames[:drop]

    def nearest(self, stamp_ns: int) -> Frame | None:
        """Return the frame nearest in time to `stamp_ns` (the earlier one of two as near), None where there is none."""
        if not self._frames:
            return None
        i = bisect_left(self._stamps, stamp_ns)
        if i == 0:
            return self._frames[0]
        if i == len(self._stamps):
            return self._frames[-1]
        before, after = self._stamps[i - 1], self._stamps[i]
        return self._frames[i - 1] if stamp_ns - before <= after - stamp_ns else self._frames[i]

    def past(self, now: Frame, preferred: Callable[[Frame], bool] | None = None) -> Frame | None:
        """Return the frame that counts as the past of `now`.

        Among frames within tolerance of `now - interval`, the nearest that is `preferred` (its latents are known), else
        the nearest. At the start of a stream, when `now - interval` lies before the first frame ever, the earliest
        frame. None where a gap left no frame within tolerance.
        """
        if self._spec.interval_ns == 0:
            return now
        wanted = now.stamp_ns - self._spec.interval_ns
        tolerance = self._tolerance_ns()
        low = bisect_left(self._stamps, wanted - tolerance)
        high = bisect_right(self._stamps, min(wanted + tolerance, now.stamp_ns))
        candidates = self._frames[low:high]
        if candidates:
            known = [frame for frame in candidates if preferred(frame)] if preferred else []
            return min(known or candidates, key=lambda frame: (abs(frame.stamp_ns - wanted), frame.stamp_ns))
        return self._frames[0] if self._first_ns is not None and wanted < self._first_ns else None

    def _tolerance_ns(self) -> int:
        """The spec's tolerance, or this camera's median frame period where that is longer, at most twice the spec's."""
        tolerance = self._spec.tolerance_ns
        periods = sorted(b - a for a, b in pairwise(self._stamps))
        return min(max(tolerance, periods[len(periods) // 2]), 2 * tolerance) if periods else tolerance
