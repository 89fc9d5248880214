"""Observations: three current frames, three past frames and one joint state that belong together, or a reason why not."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from internvla_a1_ros.core.history import FrameHistory, HistorySpec
from internvla_a1_ros.core.types import ACCEPTED, Frame, JointState, Observation, Verdict, refused


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One view: `delay_ns` from light to stamp (calibrated), and whether an observation can do without it."""

    name: str
    delay_ns: int = 0
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """How far apart, how old and how far ahead of the clock (two machines, a simulated clock) the parts of an observation may be."""

    max_camera_skew_ns: int = 50_000_000
    max_joint_skew_ns: int = 50_000_000
    max_age_ns: int = 300_000_000
    max_ahead_ns: int = 50_000_000


class ObservationBuilder:
    """Collects frames and joint states of one robot and joins the nearest in time. The first camera leads.

    Not thread safe: the policy loop owns it. Stamps handed in are monotonic; a frame's delay is taken off here.
    """

    def __init__(
        self, cameras: tuple[CameraSpec, ...], history: HistorySpec, limits: SyncLimits | None = None, max_states: int = 512
    ) -> None:
        self._cameras = cameras
        self._limits = limits or SyncLimits()
        reach_ns = self._limits.max_age_ns + self._limits.max_camera_skew_ns
        self._delays_ns = {camera.name: camera.delay_ns for camera in cameras}
        self._histories = {camera.name: FrameHistory(history, reach_ns=reach_ns) for camera in cameras}
        self._states: list[JointState] = []
        self._state_stamps: list[int] = []
        self._max_states = max_states
        self.refusals: Counter[str] = Counter()
        self.last_verdict = ACCEPTED

    def history(self, camera: str) -> FrameHistory:
        """Return the history of one camera."""
        return self._histories[camera]

    def captured_ns(self, frame: Frame) -> int:
        """Return when the picture of `frame` was taken: its stamp minus its camera's delay."""
        return frame.stamp_ns - self._delays_ns[frame.camera]

    def clear(self) -> None:
        """Forget everything received (a reset, a clock that jumped)."""
        for history in self._histories.values():
            history.clear()
        self._states.clear()
        self._state_stamps.clear()

    def add_frame(self, frame: Frame) -> None:
        """Keep one frame; every frame enters history, used or not."""
        self._histories[frame.camera].add(frame)

    def add_joints(self, state: JointState) -> None:
        """Keep one joint state; repeated stamps are ignored, a stamp far back starts anew."""
        stamps = self._state_stamps
        if stamps and state.stamp_ns < stamps[-1] - 1_000_000_000:
            stamps.clear()
            self._states.clear()
        i = bisect_left(stamps, state.stamp_ns)
        if i < len(stamps) and stamps[i] == state.stamp_ns:
            return
        stamps.insert(i, state.stamp_ns)
        self._states.insert(i, state)
        if len(stamps) > self._max_states:
            del stamps[0], self._states[0]

    def build(self, now_ns: int, preferred: Callable[[Frame], bool] | None = None) -> Observation | None:
        """Return the newest observation, or None with the reason in `last_verdict` and counted in `refusals`."""
        result = self._build(now_ns, preferred)
        if isinstance(result, Verdict):
            self.last_verdict = result
            self.refusals[result.code] += 1
            return None
        self.last_verdict = ACCEPTED
        return result

    def _build(self, now_ns: int, preferred: Callable[[Frame], bool] | None) -> Observation | Verdict:
        limits, lead = self._limits, self._cameras[0]
        head = self._histories[lead.name].newest
        if head is None:
            return refused("no_frame", f"camera '{lead.name}': no frame received yet")
        stamp_ns = head.stamp_ns - lead.delay_ns
        age_ns = now_ns - stamp_ns
        if age_ns > limits.max_age_ns:
            return refused("stale_frame", f"camera '{lead.name}': newest frame is {_ms(age_ns)} old, allowed {_ms(limits.max_age_ns)}")
        if -age_ns > limits.max_ahead_ns:
            return refused(
                "future_frame", f"camera '{lead.name}': newest frame is {_ms(-age_ns)} ahead, allowed {_ms(limits.max_ahead_ns)}"
            )
        current: list[Frame | None] = []
        past: list[Frame | None] = []
        skew_ns = 0
        for camera in self._cameras:
            now, before, verdict = self._view(camera, stamp_ns, preferred)
            if not verdict and not camera.optional:
                return verdict
            current.append(now)
            past.append(before)
            if now is not None:
                skew_ns = max(skew_ns, abs(now.stamp_ns - camera.delay_ns - stamp_ns))
        joints = self._nearest_joints(stamp_ns)
        if joints is None:
            return refused("no_joints", "joint states: none received yet")
        joint_skew_ns = abs(joints.stamp_ns - stamp_ns)
        if joint_skew_ns > limits.max_joint_skew_ns:
            return refused(
                "joint_skew", f"joint states: nearest is {_ms(joint_skew_ns)} from the picture, allowed {_ms(limits.max_joint_skew_ns)}"
            )
        return Observation(stamp_ns, tuple(current), tuple(past), joints, max(skew_ns, joint_skew_ns))

    def _view(
        self, camera: CameraSpec, stamp_ns: int, preferred: Callable[[Frame], bool] | None
    ) -> tuple[Frame | None, Frame | None, Verdict]:
        history = self._histories[camera.name]
        now = history.nearest(stamp_ns + camera.delay_ns)
        if now is None:
            return None, None, refused("no_frame", f"camera '{camera.name}': no frame received yet")
        skew_ns = abs(now.stamp_ns - camera.delay_ns - stamp_ns)
        if skew_ns > self._limits.max_camera_skew_ns:
            text = (
                f"camera '{camera.name}': nearest frame is {_ms(skew_ns)} from the head's, allowed {_ms(self._limits.max_camera_skew_ns)}"
            )
            return None, None, refused("camera_skew", text)
        before = history.past(now, preferred)
        if before is None:
            return None, None, refused("no_past", f"camera '{camera.name}': no frame half a second back within tolerance")
        return now, before, ACCEPTED

    def _nearest_joints(self, stamp_ns: int) -> JointState | None:
        if not self._states:
            return None
        i = bisect_left(self._state_stamps, stamp_ns)
        around = self._states[max(0, i - 1) : i + 1]
        return min(around, key=lambda state: (abs(state.stamp_ns - stamp_ns), state.stamp_ns))


def _ms(ns: int) -> str:
    return f"{ns * 1e-6:.0f} ms"
