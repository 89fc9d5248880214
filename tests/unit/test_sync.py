"""Observations join the nearest in time or say why not, against a brute-force reading that keeps everything."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.core.sync import CameraSpec, ObservationBuilder, SyncLimits
from internvla_a1_ros.core.types import Frame, JointState

S = 1_000_000_000
MS = 1_000_000
SPEC = HistorySpec()
LIMITS = SyncLimits()
CAMERAS = (CameraSpec("head"), CameraSpec("left"), CameraSpec("right"))
PICTURE = np.zeros((1, 1, 3), np.uint8)


def frame(camera: str, stamp_ns: int) -> Frame:
    return Frame(camera, stamp_ns, stamp_ns, PICTURE)


def joints(stamp_ns: int) -> JointState:
    return JointState(stamp_ns, np.zeros(14))


def fed(
    cameras: tuple[CameraSpec, ...] = CAMERAS,
    until_ns: int = 1 * S,
    phases_ns: dict[str, int] | None = None,
    ends_ns: dict[str, int] | None = None,
    states_ns: Iterable[int] | None = None,
) -> ObservationBuilder:
    """A builder fed at 30 Hz (joints at 100 Hz) from 0 to `until_ns`, cameras shifted by their phase and dead after their end."""
    builder = ObservationBuilder(cameras, SPEC)
    for camera in cameras:
        end = (ends_ns or {}).get(camera.name, until_ns)
        for stamp in range((phases_ns or {}).get(camera.name, 0), end + 1, 33 * MS):
            builder.add_frame(frame(camera.name, stamp))
    for stamp in range(0, until_ns + 1, 10 * MS) if states_ns is None else states_ns:
        builder.add_joints(joints(stamp))
    return builder


def test_the_nearest_of_everything_is_joined_and_its_skew_known() -> None:
    builder = fed(phases_ns={"left": 8 * MS, "right": 20 * MS})
    observation = builder.build(1 * S)
    assert observation is not None and builder.last_verdict and not builder.refusals
    assert observation.stamp_ns == 990 * MS
    assert [f.stamp_ns for f in observation.current if f] == [990 * MS, 998 * MS, 977 * MS]
    assert [f.stamp_ns for f in observation.past if f] == [495 * MS, 503 * MS, 482 * MS]
    assert observation.joints.stamp_ns == 990 * MS
    assert observation.skew_ns == 13 * MS


def test_joints_count_in_the_skew() -> None:
    observation = fed(states_ns=[0, 960 * MS]).build(1 * S)
    assert observation is not None and observation.joints.stamp_ns == 960 * MS and observation.skew_ns == 30 * MS


def test_calibrated_delays_are_taken_off_before_anything_is_compared() -> None:
    cameras = (CameraSpec("head", delay_ns=40 * MS), CameraSpec("left", delay_ns=73 * MS))
    observation = fed(cameras).build(1 * S)
    assert observation is not None
    assert observation.stamp_ns == 950 * MS  # the picture stamped 990 ms was taken then
    assert [f.stamp_ns for f in observation.current if f] == [990 * MS, 990 * MS]  # 1023 ms would fit exactly
    assert observation.joints.stamp_ns == 950 * MS
    assert observation.skew_ns == 33 * MS


@pytest.mark.parametrize("first", ["head", "left"])
def test_the_first_camera_leads(first: str) -> None:
    order = (CameraSpec(first), CameraSpec("left" if first == "head" else "head"))
    observation = fed(order, phases_ns={"head": 0, "left": 5 * MS}).build(1 * S)
    assert observation is not None and observation.stamp_ns == (990 * MS if first == "head" else 995 * MS)


def test_nothing_yet_says_what_is_missing() -> None:
    builder = ObservationBuilder(CAMERAS, SPEC)
    assert builder.build(0) is None and builder.last_verdict.reason == "camera 'head': no frame received yet"
    builder.add_frame(frame("head", 0))
    assert builder.build(0) is None and builder.last_verdict.reason == "camera 'left': no frame received yet"
    builder.add_frame(frame("left", 0))
    builder.add_frame(frame("right", 0))
    assert builder.build(0) is None and builder.last_verdict.reason == "joint states: none received yet"
    builder.add_joints(joints(0))
    assert builder.build(0) is not None and builder.last_verdict
    assert builder.refusals == {"no_frame": 2, "no_joints": 1}


def test_the_first_pictures_are_their_own_past() -> None:
    observation = fed(until_ns=0).build(0)
    assert observation is not None
    assert all(now is past for now, past in zip(observation.current, observation.past, strict=True))


@pytest.mark.parametrize(
    ("now_ns", "code"), [(1290 * MS, None), (1290 * MS + 1, "stale_frame"), (940 * MS, None), (940 * MS - 1, "future_frame")]
)
def test_age_is_bounded_on_both_sides(now_ns: int, code: str | None) -> None:
    builder = fed()
    assert (builder.build(now_ns) is None) == (code is not None)
    assert builder.refusals == ({code: 1} if code else {})
    assert not code or "'head'" in builder.last_verdict.reason and "allowed" in builder.last_verdict.reason


@pytest.mark.parametrize(("distance_ns", "accepted"), [(50 * MS, True), (50 * MS + 1, False)])
@pytest.mark.parametrize("side", [-1, 1])
def test_joints_too_far_from_the_picture_are_refused(distance_ns: int, accepted: bool, side: int) -> None:
    builder = fed(states_ns=[990 * MS + side * distance_ns])
    assert (builder.build(1 * S) is not None) == accepted
    if not accepted:
        assert builder.last_verdict.reason == "joint states: nearest is 50 ms from the picture, allowed 50 ms"
        assert builder.refusals == {"joint_skew": 1}


def test_a_camera_that_dies_means_no_observation() -> None:
    builder = fed(ends_ns={"right": 940 * MS})  # its last frame is 924 ms, 66 ms before the head's
    for _ in range(3):
        assert builder.build(1 * S) is None
    assert builder.refusals == {"camera_skew": 3}
    assert builder.last_verdict.reason == "camera 'right': nearest frame is 66 ms from the head's, allowed 50 ms"


@pytest.mark.parametrize(("phase_ns", "accepted"), [(50 * MS, True), (50 * MS + 1, False)])
def test_cameras_may_be_as_far_apart_as_allowed(phase_ns: int, accepted: bool) -> None:
    builder = ObservationBuilder(CAMERAS[:2], SPEC)
    builder.add_frame(frame("head", 0))
    builder.add_frame(frame("left", phase_ns))
    builder.add_joints(joints(0))
    assert (builder.build(0) is not None) == accepted


def test_a_head_camera_that_dies_ages() -> None:
    builder = fed(ends_ns={"head": 600 * MS})
    assert builder.build(1 * S) is None and builder.refusals == {"stale_frame": 1}


def test_an_optional_camera_is_masked_while_it_is_dead_and_back_when_it_has_a_past() -> None:
    cameras = (CameraSpec("head"), CameraSpec("left", optional=True))
    never = fed(cameras, ends_ns={"left": -1}).build(1 * S)
    assert never is not None and never.current[1] is None and never.past[1] is None
    builder = fed(cameras, ends_ns={"left": 900 * MS})
    dead = builder.build(1 * S)
    assert dead is not None and dead.current[1] is None and dead.past[1] is None and dead.skew_ns == 0
    seen = []
    for k in range(45):
        stamp = 2013 * MS + k * 33 * MS
        for name in ("head", "left"):
            builder.add_frame(frame(name, stamp))
        builder.add_joints(joints(stamp))
        if k < 15:
            continue
        observation = builder.build(stamp)
        assert observation is not None
        seen.append(observation.current[1] is not None)
    assert all(seen) and not builder.refusals


@pytest.mark.parametrize("stalled_ns", [0, 150 * MS, 290 * MS])
def test_while_the_head_camera_stalls_the_others_remember_its_past(stalled_ns: int) -> None:
    builder = fed(until_ns=990 * MS)
    for stamp in range(1023 * MS, 990 * MS + stalled_ns + 1, 33 * MS):
        builder.add_frame(frame("left", stamp))
        builder.add_frame(frame("right", stamp))
    observation = builder.build(990 * MS + stalled_ns, lambda f: f.stamp_ns == 462 * MS)
    assert observation is not None and [f.stamp_ns for f in observation.past if f] == [462 * MS] * 3


def test_a_gap_leaves_no_past_and_says_whose() -> None:
    builder = fed()
    for camera in CAMERAS:
        for stamp in (1980 * MS, 2013 * MS):
            if camera.name != "left":
                builder.add_frame(frame(camera.name, stamp - 495 * MS))
            builder.add_frame(frame(camera.name, stamp))
    builder.add_joints(joints(2013 * MS))
    assert builder.build(2020 * MS) is None
    assert builder.last_verdict.code == "no_past" and "'left'" in builder.last_verdict.reason


def test_known_frames_within_tolerance_are_preferred_in_each_view() -> None:
    known = {"head": 495 * MS, "left": 462 * MS, "right": 528 * MS}  # from the 490 ms wanted: 5, 28 and 38 ms
    observation = fed().build(1 * S, lambda f: f.stamp_ns == known[f.camera])
    assert observation is not None
    assert [f.stamp_ns for f in observation.past if f] == [495 * MS, 462 * MS, 495 * MS]


def test_joint_states_late_repeated_or_after_a_jump_back() -> None:
    builder = fed(until_ns=990 * MS, states_ns=[])
    for stamp in (1000 * MS, 980 * MS, 1000 * MS):
        builder.add_joints(joints(stamp))
    observation = builder.build(1 * S)
    assert observation is not None and observation.joints.stamp_ns == 980 * MS  # as near as the other: the earlier one
    for camera in CAMERAS:
        builder.add_frame(frame(camera.name, -60 * S))
    builder.add_joints(joints(-60 * S))
    observation = builder.build(-60 * S)
    assert observation is not None and observation.stamp_ns == observation.joints.stamp_ns == -60 * S
    assert builder.history("head").clock_jumps == 1


def test_memory_of_joint_states_is_bounded() -> None:
    builder = ObservationBuilder(CAMERAS, SPEC, max_states=10)
    for camera in CAMERAS:
        builder.add_frame(frame(camera.name, 0))
    for stamp in range(0, 11):
        builder.add_joints(joints(stamp))
    observation = builder.build(0)
    assert observation is not None and observation.joints.stamp_ns == 1  # the oldest went


def test_after_a_jump_back_the_joint_states_before_it_do_not_crowd_out_the_new_ones() -> None:
    builder = ObservationBuilder(CAMERAS, SPEC, max_states=10)
    for stamp in range(2 * S, 2 * S + 10):
        builder.add_joints(joints(stamp))
    for camera in CAMERAS:
        builder.add_frame(frame(camera.name, 0))
    builder.add_joints(joints(0))
    observation = builder.build(0)
    assert observation is not None and observation.joints.stamp_ns == 0


def test_cleared_means_nothing_yet() -> None:
    builder = fed()
    builder.clear()
    assert builder.build(1 * S) is None and builder.last_verdict.code == "no_frame"
    for camera in CAMERAS:
        builder.add_frame(frame(camera.name, 1 * S))
    assert builder.build(1 * S) is None and builder.last_verdict.code == "no_joints"


def stream(rnd: random.Random, hz: int, seconds: float) -> list[tuple[int, int]]:
    """(arrival, stamp) of a stream at `hz`: jittered, a tenth dropped, some late or sent twice, dead for a while or from a moment on."""
    phase, died, revived = rnd.random() / hz, rnd.uniform(0.3, 3 * seconds), rnd.uniform(0.3, 3 * seconds)
    sent = []
    for k in range(int(seconds * hz)):
        taken = phase + k / hz + rnd.uniform(-1, 1) * 0.002
        if rnd.random() < 0.1 or died < taken < max(revived, died + 0.3):
            continue
        for _ in range(1 + (rnd.random() < 0.05)):
            arrival = taken + rnd.uniform(0.001, 0.01) + (rnd.uniform(0, 0.15) if rnd.random() < 0.1 else 0.0)
            sent.append((round(arrival * S), round(taken * S)))
    return sent


class Plain:
    """What an observation is, read from everything that ever came (no clock jumps here)."""

    def __init__(self, cameras: tuple[CameraSpec, ...]) -> None:
        self.cameras = cameras
        self.taken: dict[str, set[int]] = {camera.name: set() for camera in cameras}
        self.states: set[int] = set()

    def read(self, now_ns: int, known: int) -> tuple[set[str], list[tuple[int | None, int | None]], int | None]:
        """Return every reason to refuse, (current, past) moment of each view, and the joints' moment. A frame is known where
        `known` divides its moment."""
        lead = self.cameras[0].name
        if not self.taken[lead]:
            return {"no_frame"}, [], None
        moment = max(self.taken[lead])
        reasons = {"stale_frame"} if now_ns - moment > LIMITS.max_age_ns else set()
        if moment - now_ns > LIMITS.max_ahead_ns:
            reasons.add("future_frame")
        views: list[tuple[int | None, int | None]] = []
        for camera in self.cameras:
            now, past, reason = self.view(self.taken[camera.name], moment, known)
            views.append((now, past) if reason is None else (None, None))
            if reason is not None and not camera.optional:
                reasons.add(reason)
        state = _nearest(self.states, moment)
        if state is None:
            reasons.add("no_joints")
        elif abs(state - moment) > LIMITS.max_joint_skew_ns:
            reasons.add("joint_skew")
        return reasons, views, state

    def view(self, taken: set[int], moment: int, known: int) -> tuple[int | None, int | None, str | None]:
        now = _nearest(taken, moment)
        if now is None:
            return None, None, "no_frame"
        if abs(now - moment) > LIMITS.max_camera_skew_ns:
            return None, None, "camera_skew"
        wanted = now - SPEC.interval_ns
        tolerance = self.tolerance_ns(taken)
        near = {t for t in taken if abs(t - wanted) <= tolerance and t <= now}
        if near:
            return now, _nearest({t for t in near if t % known == 0} or near, wanted), None
        if wanted < min(taken):
            return now, min(taken), None
        return now, None, "no_past"

    @staticmethod
    def tolerance_ns(taken: set[int]) -> int:
        newest = max(taken)
        kept_ns = SPEC.interval_ns + 2 * SPEC.tolerance_ns + LIMITS.max_age_ns + LIMITS.max_camera_skew_ns
        lately = sorted(t for t in taken if t >= newest - kept_ns)
        periods = sorted(later - earlier for earlier, later in zip(lately[:-1], lately[1:], strict=True)) or [0]
        return max(SPEC.tolerance_ns, min(periods[len(periods) // 2], 2 * SPEC.tolerance_ns))


def _nearest(moments: set[int], wanted: int) -> int | None:
    return min(moments, key=lambda m: (abs(m - wanted), m), default=None)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(*[st.sampled_from([15, 30, 90])] * 3),
    st.tuples(*[st.sampled_from([0, 7 * MS, 60 * MS])] * 3),
    st.booleans(),
)
def test_any_streams_against_the_plain_reading(seed: int, rates: tuple[int, ...], delays_ns: tuple[int, ...], optional: bool) -> None:
    rnd = random.Random(seed)
    names = ("head", "left", "right")
    cameras = tuple(CameraSpec(n, d, optional and n == "right") for n, d in zip(names, delays_ns, strict=True))
    builder, plain = ObservationBuilder(cameras, SPEC), Plain(cameras)
    events = [(arrival, "joints", taken, 0) for arrival, taken in stream(rnd, 100, 2.0)]
    for camera, hz in zip(cameras, rates, strict=True):
        events += [(arrival, camera.name, taken, camera.delay_ns) for arrival, taken in stream(rnd, hz, 2.0)]
    events += [(rnd.randrange(2 * S), "build", rnd.choice([1, 2, 3]), 0) for _ in range(40)]
    refused: dict[str, int] = {}
    for arrival, kind, value, delay_ns in sorted(events):
        if kind == "joints":
            builder.add_joints(joints(value))
            plain.states.add(value)
        elif kind != "build":
            builder.add_frame(frame(kind, value + delay_ns))
            plain.taken[kind].add(value)
        else:
            observation = builder.build(arrival, _known(cameras, value))
            reasons, views, state = plain.read(arrival, value)
            assert (observation is None) == bool(reasons), (builder.last_verdict, reasons)
            if observation is None:
                code = builder.last_verdict.code
                assert code in reasons and builder.last_verdict.reason
                refused[code] = refused.get(code, 0) + 1
                continue
            moments = [
                (_moment(cameras, now), _moment(cameras, past)) for now, past in zip(observation.current, observation.past, strict=True)
            ]
            assert moments == views and observation.stamp_ns == views[0][0] and observation.joints.stamp_ns == state
            assert state is not None
            current = [now for now, _ in views if now is not None]
            assert observation.skew_ns == max(abs(m - observation.stamp_ns) for m in [*current, state])
            assert [f.camera if f else None for f in observation.current] == [
                n if v[0] is not None else None for n, v in zip(names, views, strict=True)
            ]
    assert builder.refusals == refused


def _known(cameras: tuple[CameraSpec, ...], divisor: int) -> Callable[[Frame], bool]:
    return lambda f: (f.stamp_ns - _delay(cameras, f)) % divisor == 0


def _delay(cameras: tuple[CameraSpec, ...], f: Frame) -> int:
    return next(camera.delay_ns for camera in cameras if camera.name == f.camera)


def _moment(cameras: tuple[CameraSpec, ...], f: Frame | None) -> int | None:
    return None if f is None else f.stamp_ns - _delay(cameras, f)
