"""The doctor on topics: each fault gives its finding and no other, each limit is met at its edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from doctor_rig import HEAD, IMAGE, LEFT, MS, PROFILE, STATUS, UNTIL_NS, bad, healthy, one, stream, with_stream

from internvla_a1_ros.commissioning.doctor_facts import Endpoint, Facts, Stream
from internvla_a1_ros.commissioning.doctor_findings import Level
from internvla_a1_ros.robots.profile import RobotProfile

HEAD_CAMERA, LEFT_JOINTS = "camera head", f"joints {LEFT}"


def silent(publishers: tuple[Endpoint, ...] | None = (), types: tuple[str, ...] = ()) -> Stream:
    return Stream(types, publishers)


def having(topic: str, new: Stream) -> Facts:
    """As healthy, with another stream in a topic's place."""
    facts = healthy()
    return replace(facts, streams={**facts.streams, topic: new})


@pytest.mark.parametrize(("topic", "subject"), [(HEAD, HEAD_CAMERA), (LEFT, LEFT_JOINTS)])
def test_a_topic_that_nobody_publishes(topic: str, subject: str) -> None:
    facts = having(topic, silent())
    assert bad(facts) == [("stop", "present", subject)]
    assert f"{topic}: nobody publishes it" in one(facts, "present", subject).what


def test_a_near_name_of_the_same_type_is_suggested_but_none_that_is_read_already() -> None:
    near = HEAD.replace("image_rect_raw", "image_raw")
    facts = having(HEAD, silent())
    facts = replace(facts, topics={**facts.topics, near: (IMAGE,), HEAD + "x": ("std_msgs/msg/String",)})
    assert one(facts, "present", HEAD_CAMERA).what.endswith(f"did you mean '{near}'?")
    assert "did you mean" not in one(having(HEAD, silent()), "present", HEAD_CAMERA).what


def test_a_topic_that_is_published_and_silent() -> None:
    facts = having(LEFT, silent((Endpoint("/driver", STATUS),), (STATUS,)))
    assert bad(facts) == [("stop", "present", LEFT_JOINTS)]
    assert "published by /driver, but nothing came in 5 s" in one(facts, "present", LEFT_JOINTS).what


def test_an_optional_camera_that_is_absent_is_a_warning() -> None:
    cameras = tuple(camera.model_copy(update={"optional": camera.name == "left"}) for camera in PROFILE.cameras)
    profile: RobotProfile = PROFILE.model_copy(update={"cameras": cameras})
    assert bad(having(PROFILE.cameras[1].topic, silent()), profile) == [("warning", "present", "camera left")]


@pytest.mark.parametrize("types", [("sensor_msgs/msg/Image",), (IMAGE, "sensor_msgs/msg/Image")])
def test_another_type(types: tuple[str, ...]) -> None:
    facts = with_stream(HEAD, types=types)
    assert bad(facts) == [("stop", "type", HEAD_CAMERA)]
    assert "is of type sensor_msgs/msg/Image, the profile says sensor_msgs/msg/CompressedImage" in one(facts, "type", HEAD_CAMERA).what


def test_a_missing_vendor_package_is_a_finding() -> None:
    sentence = "message package 'arx5_arm_msg' is not on the Python path: source it"
    facts = having(LEFT, Stream((STATUS,), (Endpoint("/driver", STATUS),), deaf=sentence))
    assert bad(facts) == [("stop", "type", LEFT_JOINTS)]
    assert one(facts, "type", LEFT_JOINTS).what == sentence


def test_two_sources_of_one_state() -> None:
    facts = with_stream(LEFT, publishers=lambda ends: (*ends, Endpoint("/sim_node", STATUS)))
    assert bad(facts) == [("stop", "source", LEFT_JOINTS)]
    assert one(facts, "source", LEFT_JOINTS).what == "2 publishers: /driver, /sim_node"


def test_a_publisher_that_left() -> None:
    assert bad(with_stream(LEFT, publishers=())) == [("warning", "source", LEFT_JOINTS)]


def test_the_publishers_quality_of_service_is_told() -> None:
    assert one(healthy(), "source", HEAD_CAMERA).what == "from /camera_head (best_effort, volatile)"


@pytest.mark.parametrize(
    ("rate_hz", "level"),
    [(90.0, None), (30.0, None), (24.5, None), (23.5, "warning"), (10.5, "warning"), (9.5, "stop"), (2.5, "stop")],
)
def test_rates_of_a_camera(rate_hz: float, level: str | None) -> None:
    """What the model learned from (30 Hz) is enough, whatever the profile promises; below 10 Hz pictures cannot be joined."""
    expected = [] if level is None else [(level, "rate", HEAD_CAMERA)]
    assert bad(having(HEAD, stream(IMAGE, "/camera_head", rate_hz, capture_ms=9.0))) == expected


@pytest.mark.parametrize(("rate_hz", "level"), [(51.0, None), (49.0, "warning")])
def test_a_fast_camera_brings_the_quarter_that_the_policy_asks_for(rate_hz: float, level: str | None) -> None:
    cameras = tuple(camera.model_copy(update={"rate_hz": 200.0 if camera.name == "head" else 90.0}) for camera in PROFILE.cameras)
    facts = having(HEAD, stream(IMAGE, "/camera_head", rate_hz, capture_ms=9.0))
    assert bad(facts, PROFILE.model_copy(update={"cameras": cameras})) == ([] if level is None else [(level, "rate", HEAD_CAMERA)])


@pytest.mark.parametrize(("rate_hz", "level"), [(1000.0, None), (20.5, None), (19.5, "warning"), (10.5, "warning"), (9.5, "stop")])
def test_rates_of_joints(rate_hz: float, level: str | None) -> None:
    expected = [] if level is None else [(level, "rate", LEFT_JOINTS)]
    assert bad(having(LEFT, stream(STATUS, "/driver", rate_hz))) == expected


def test_one_message_has_no_rate() -> None:
    last = np.array([UNTIL_NS - MS])
    assert bad(with_stream(HEAD, received_ns=last, sent_ns=last - MS, stamps_ns=last - 9 * MS)) == [("stop", "rate", HEAD_CAMERA)]


@pytest.mark.parametrize(("gap_ms", "level"), [(90, None), (110, "warning")])
def test_joints_that_stand_still_for_longer_than_the_command_process_waits(gap_ms: int, level: str | None) -> None:
    whole = healthy().streams[LEFT]
    middle = whole.received_ns[500]
    keep = (whole.received_ns <= middle) | (whole.received_ns >= middle + gap_ms * MS)
    facts = with_stream(LEFT, received_ns=whole.received_ns[keep], sent_ns=whole.sent_ns[keep], stamps_ns=whole.stamps_ns[keep])
    assert bad(facts) == ([] if level is None else [(level, "rate", LEFT_JOINTS)])


@pytest.mark.parametrize(("silent_ms", "bad_one"), [(480, False), (520, True)])
def test_a_camera_that_falls_silent_before_the_end(silent_ms: int, bad_one: bool) -> None:
    whole = healthy().streams[HEAD]
    keep = whole.received_ns <= UNTIL_NS - silent_ms * MS
    facts = with_stream(HEAD, received_ns=whole.received_ns[keep], sent_ns=whole.sent_ns[keep], stamps_ns=whole.stamps_ns[keep])
    assert bad(facts) == ([("stop", "rate", HEAD_CAMERA)] if bad_one else [])


@pytest.mark.parametrize(("jitter_ms", "level"), [(45, None), (55, "warning")])
def test_messages_that_wait_on_their_way(jitter_ms: int, level: str | None) -> None:
    """Every tenth message is late, and holds up those behind it."""
    late = np.where(np.arange(len(healthy().streams[HEAD].received_ns)) % 10 == 5, jitter_ms * MS, 0)
    facts = with_stream(HEAD, received_ns=lambda received: np.maximum.accumulate(received + late))
    assert bad(facts) == ([] if level is None else [(level, "latency", HEAD_CAMERA)])


@pytest.mark.parametrize(("age_ms", "level"), [(0, None), (95, None), (105, "warning"), (295, "warning"), (305, "stop")])
def test_pictures_that_are_old_when_they_are_sent(age_ms: int, level: str | None) -> None:
    """Up to what an observation allows."""
    facts = having(HEAD, stream(IMAGE, "/camera_head", 90.0, capture_ms=age_ms))
    assert bad(facts) == ([] if level is None else [(level, "stamps", HEAD_CAMERA)])


@pytest.mark.parametrize(("age_ms", "level"), [(20, None), (30, "warning"), (55, "stop")])
def test_joints_that_are_old_when_they_are_sent(age_ms: int, level: str | None) -> None:
    facts = having(LEFT, stream(STATUS, "/driver", 200.0, capture_ms=age_ms))
    assert bad(facts) == ([] if level is None else [(level, "stamps", LEFT_JOINTS)])


def test_a_stamp_after_the_sending_is_of_another_clock() -> None:
    assert bad(having(HEAD, stream(IMAGE, "/camera_head", 90.0, capture_ms=-12.0))) == [("stop", "stamps", HEAD_CAMERA)]


@pytest.mark.parametrize(("capture_ms", "what"), [(1.9, "stamped when sent"), (2.1, "stamped 2.1 ms before it was sent")])
def test_capture_is_told_from_sending(capture_ms: float, what: str) -> None:
    assert one(having(HEAD, stream(IMAGE, "/c", 90.0, capture_ms)), "stamps", HEAD_CAMERA).what.startswith(what)


@pytest.mark.parametrize(("away_s", "what"), [(59, "59000 ms old"), (61, "stamps are 61 s from now")])
def test_a_minute_is_no_latency(away_s: int, what: str) -> None:
    facts = having(HEAD, stream(IMAGE, "/camera_head", 90.0, capture_ms=away_s * 1e3))
    assert bad(facts) == [("stop", "stamps", HEAD_CAMERA)] and one(facts, "stamps", HEAD_CAMERA).what.startswith(what)


def test_what_a_stamp_says_is_told() -> None:
    assert one(healthy(), "stamps", HEAD_CAMERA).what == "stamped 9.0 ms before it was sent"
    assert one(healthy(), "stamps", LEFT_JOINTS).what == "stamped when sent (not when captured)"
    no_header = with_stream(LEFT, stamps_ns=np.zeros(0, np.int64))
    assert bad(no_header) == [] and one(no_header, "stamps", LEFT_JOINTS).what == "no header: the time of receipt is taken"


def test_stamps_of_zero() -> None:
    assert bad(with_stream(LEFT, stamps_ns=lambda stamps: stamps * 0)) == [("warning", "stamps", LEFT_JOINTS)]


def test_stamps_of_uptime_and_simulated_time() -> None:
    uptime = with_stream(HEAD, stamps_ns=lambda stamps: stamps - stamps[0] + 1)
    assert bad(uptime) == [("stop", "stamps", HEAD_CAMERA)]
    simulated = healthy()
    for topic in simulated.streams:
        simulated = with_stream(topic, simulated, stamps_ns=lambda stamps: stamps - UNTIL_NS + 6_000_000_000)
    assert bad(replace(simulated, simulated_time=True)) == []


def test_stamps_that_repeat_or_go_back() -> None:
    def repeat(stamps: np.ndarray) -> np.ndarray:
        return np.repeat(stamps[::2], 2)[: len(stamps)]

    def back(stamps: np.ndarray) -> np.ndarray:
        return np.concatenate([stamps[:100], stamps[100:] - 200 * MS])

    repeated, stepped = with_stream(LEFT, stamps_ns=repeat), with_stream(LEFT, stamps_ns=back)
    assert bad(repeated) == [("warning", "stamps", LEFT_JOINTS)] and "repeat" in one(repeated, "stamps", LEFT_JOINTS).what
    assert bad(stepped) == [("warning", "stamps", LEFT_JOINTS)] and "1 stamps go back" in one(stepped, "stamps", LEFT_JOINTS).what


@pytest.mark.parametrize(
    ("ahead_ms", "level"), [(0, None), (9, None), (13, "warning"), (60, "stop"), (-5, None), (-13, "warning"), (-60, "stop")]
)
def test_the_clock_of_another_host(ahead_ms: int, level: str | None) -> None:
    """Both arms come from one host. The quickest message takes 1 ms, which the estimate holds against a clock that is behind."""
    facts = healthy()
    for topic in (LEFT, f"{LEFT}".replace("_l_", "_r_")):
        facts = with_stream(topic, facts, sent_ns=lambda t: t + ahead_ms * MS, stamps_ns=lambda t: t + ahead_ms * MS)
    assert bad(facts) == ([] if level is None else [(level, "clock", "clock of /driver")])
    assert one(facts, "clock", "clock of /driver").what.startswith("at least" if ahead_ms > 1 else "at most")


def test_a_bag_tells_by_stamps_only_a_clock_that_is_ahead() -> None:
    def of_bag(ahead_ms: int) -> list[tuple[str, str, str]]:
        facts = replace(healthy(), source="bag")
        for topic, each in facts.streams.items():
            facts = with_stream(topic, facts, sent_ns=each.sent_ns * 0, publishers=None)
        facts = with_stream(HEAD, facts, stamps_ns=lambda t: t + ahead_ms * MS)
        return [each for each in bad(facts) if each[1] != "bag"]

    assert of_bag(0) == [] and of_bag(-60) == []
    assert of_bag(40) == [("warning", "clock", f"clock of {HEAD}")]
    assert of_bag(90) == [("stop", "clock", f"clock of {HEAD}")]


def test_streams_that_cannot_be_joined() -> None:
    """A camera of 8 Hz, all of whose pictures fall between two of the head's, which has 8 Hz too."""
    cameras = tuple(camera.model_copy(update={"rate_hz": 8.0}) for camera in PROFILE.cameras)
    profile = PROFILE.model_copy(update={"cameras": cameras})
    facts = healthy()
    for camera in cameras:
        facts = replace(facts, streams={**facts.streams, camera.topic: stream(IMAGE, f"/{camera.name}", 8.0)})
    assert bad(facts, profile) == []

    def later(t: np.ndarray) -> np.ndarray:
        return t[:-1] + 60 * MS

    late = with_stream(cameras[1].topic, facts, received_ns=later, sent_ns=later, stamps_ns=later)
    assert bad(late, profile) == [("stop", "skew", "camera left")]
    assert one(late, "skew", "camera left", profile).level is Level.STOP
