"""Checks of the topics a profile reads: there, of the right type, from one source, fast enough, in time, and stamped by a usable clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from internvla_a1_ros.commissioning.doctor_facts import Facts, IntArray, Stream
from internvla_a1_ros.commissioning.doctor_findings import Finding, Level, ok, stop, warning
from internvla_a1_ros.core.errors import suggestion
from internvla_a1_ros.core.sync import SyncLimits
from internvla_a1_ros.robots.profile import RobotProfile

LIMITS = SyncLimits()
# Recordings hold 30 pictures a second: a camera that brings four fifths of that shows the model what it learned from, whatever more
# the profile promises; a quarter of the promise is what the policy node itself asks for.
RECORDED_HZ, ENOUGH, POLICY_ASKS = 30.0, 0.8, 0.25
# A camera slower than this is at times further from the head's pictures than an observation allows (or half of it is gone).
JOINABLE_HZ, HALF = 0.5e9 / LIMITS.max_camera_skew_ns, 0.5
# As long as the policy node calls a silent camera alive.
CAMERA_GAP_S = 0.5
# Three actions of a plan at 30 Hz are over before the plan can begin: it still works, and is worth looking into.
OLD_PICTURE_S = 0.1
# On one machine a message arrives within some milliseconds; what varies by more than a control period or five waits somewhere.
JITTER_S = 0.05
# Clocks that NTP or PTP keeps are within a millisecond or two in a local network.
CLOCK_S = 0.01
# Further than this from now is no latency: uptime, simulated time, or a date of 1970.
OTHER_CLOCK_S = 60.0
# Closer than this to its sending, a message was stamped when it was published and not when something was captured.
STAMPED_AT_SENDING_S = 0.002

_SLOW = "look at the driver's rate (long exposure in the dark lowers a camera's), USB bandwidth and load"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One topic that is read: below `least_hz` it is useless, below `good_hz` and after gaps of `max_gap_s` worth a look.

    `old_s` and `too_old_s`: between stamp and receipt.
    """

    subject: str
    topic: str
    type: str
    optional: bool
    least_hz: float
    good_hz: float
    max_gap_s: float
    old_s: float
    too_old_s: float


def wanted(profile: RobotProfile) -> list[Wanted]:
    """Return what the policy and the command process need of the robot's topics."""
    found = []
    for camera in profile.cameras:
        kind = "sensor_msgs/msg/CompressedImage" if camera.type == "compressed" else "sensor_msgs/msg/Image"
        good_hz = max(ENOUGH * min(camera.rate_hz, RECORDED_HZ), POLICY_ASKS * camera.rate_hz)
        least_hz = min(JOINABLE_HZ, HALF * camera.rate_hz)
        ages = (OLD_PICTURE_S, LIMITS.max_age_ns * 1e-9)
        found.append(Wanted(f"camera {camera.name}", camera.topic, kind, camera.optional, least_hz, good_hz, CAMERA_GAP_S, *ages))
    for wire in profile.states:
        # Two in the time after which the command process holds: a single lost message is no reason to.
        good_hz, skew_s = 2.0 / profile.max_state_age_s, LIMITS.max_joint_skew_ns * 1e-9
        limits = (HALF * good_hz, good_hz, profile.max_state_age_s, 0.5 * skew_s, skew_s)
        found.append(Wanted(f"joints {wire.topic}", wire.topic, wire.type, False, *limits))
    return found


def check_topics(profile: RobotProfile, facts: Facts) -> list[Finding]:
    """Return the findings on every topic that is read, on the clocks of who sends, and on how far streams are apart."""
    found, healthy = [], []
    for want in wanted(profile):
        of_topic = check_topic(want, facts)
        found += of_topic
        if all(finding.level is Level.OK for finding in of_topic):
            healthy.append(want)
    return [*found, *check_clocks(profile, facts), *check_skew(healthy, facts)]


def check_topic(want: Wanted, facts: Facts) -> list[Finding]:
    """Return the findings on one topic; what is not there is not judged any further."""
    stream = facts.streams[want.topic]
    first = check_present(want, stream, facts)
    if first.level is not Level.OK:
        return [first]
    checks: tuple[Callable[[Wanted, Stream, Facts], Finding | None], ...] = (check_source, check_rate, check_transport, check_stamps)
    return [first, *(finding for check in checks if (finding := check(want, stream, facts)) is not None)]


def check_present(want: Wanted, stream: Stream, facts: Facts) -> Finding:
    """Is the topic there, of the type that the profile names, and does anything come?"""
    bad = warning if want.optional else stop
    others = [kind for kind in stream.types if kind != want.type]
    if others:
        what = f"{want.topic} is of type {', '.join(others)}, the profile says {want.type}"
        return bad("type", want.subject, what, "correct the type in the profile, or the driver that publishes it")
    if stream.deaf:
        return bad("type", want.subject, stream.deaf, "build or source the message package that is named, then look again")
    if len(stream.received_ns):
        return ok("present", want.subject, f"{want.topic}, {want.type}")
    if stream.publishers:
        what = f"{want.topic}: published by {_nodes(stream)}, but nothing came in {facts.seconds:.0f} s"
        return bad("present", want.subject, what, "restart that driver; from another host, look at its firewall, network and MTU")
    near = suggestion(want.topic, [name for name, kinds in facts.topics.items() if want.type in kinds and name not in facts.streams])
    if facts.source == "bag":
        return bad("present", want.subject, f"{want.topic}: not in the bag{near}", "record it, or correct the topic in the profile")
    what = f"{want.topic}: nobody publishes it{near}"
    return bad("present", want.subject, what, "start the driver, or correct the topic in the profile")


def check_source(want: Wanted, stream: Stream, facts: Facts) -> Finding | None:
    """Does exactly one node publish it? Two sources of one state or picture contradict each other."""
    if stream.publishers is None:
        return None
    if len(stream.publishers) > 1:
        return stop("source", want.subject, f"{len(stream.publishers)} publishers: {_nodes(stream)}", "end all but the robot's own driver")
    if not stream.publishers:
        return warning("source", want.subject, "its publisher left meanwhile", "look at why that driver ended, then look again")
    only = stream.publishers[0]
    return ok("source", want.subject, f"from {only.node} ({only.reliability}, {only.durability})")


def check_rate(want: Wanted, stream: Stream, facts: Facts) -> Finding:
    """Does it come often enough, without standing still, and up to the end?"""
    times = stream.received_ns
    silent_s = (facts.until_ns - int(times[-1])) * 1e-9
    if silent_s > max(CAMERA_GAP_S, want.max_gap_s):
        return stop("rate", want.subject, f"fell silent {silent_s:.1f} s before the end", "restart its driver; look at its cable and power")
    span_s = (int(times[-1]) - int(times[0])) * 1e-9
    rate_hz = (len(times) - 1) / span_s if span_s > 0 else 0.0
    what = f"{rate_hz:.1f} Hz" if len(times) > 1 else "a single message"
    if rate_hz < want.least_hz:
        return stop("rate", want.subject, f"{what}, needed are {want.least_hz:.1f}", _SLOW)
    if rate_hz < want.good_hz:
        return warning("rate", want.subject, f"{what}, good are {want.good_hz:.1f}", _SLOW)
    gap_s = float(np.diff(times).max()) * 1e-9
    if gap_s > want.max_gap_s:
        what = f"{what}, but stood still for {gap_s * 1e3:.0f} ms, allowed {want.max_gap_s * 1e3:.0f}"
        return warning("rate", want.subject, what, "look at load and cabling: the robot would have held")
    return ok("rate", want.subject, f"{what}, longest gap {gap_s * 1e3:.0f} ms")


def check_transport(want: Wanted, stream: Stream, facts: Facts) -> Finding | None:
    """Does it come evenly? From sending to receipt, above the quickest one: what the clocks of two hosts are apart cancels out."""
    if not _sending_known(stream):
        return None
    way_s = (stream.received_ns - stream.sent_ns) * 1e-9
    spread_s = float(np.percentile(way_s, 95) - way_s.min())
    what = f"{float(np.median(way_s)) * 1e3:.1f} ms on its way (by both clocks), varies by {spread_s * 1e3:.1f} ms"
    if spread_s > JITTER_S:
        return warning("latency", want.subject, what, "messages wait on their way: wired network, smaller pictures, less load")
    return ok("latency", want.subject, what)


def check_stamps(want: Wanted, stream: Stream, facts: Facts) -> Finding:
    """What do the stamps mean: capture or sending, which clock, and are they always of a new moment?"""
    stamps = stream.stamps_ns
    if len(stamps) == 0:
        return ok("stamps", want.subject, "no header: the time of receipt is taken")
    if not stamps.all():
        what = f"{int((stamps == 0).sum())} of {len(stamps)} stamps are zero: the time of receipt is taken instead"
        return warning("stamps", want.subject, what, "let the driver stamp what it captures")
    if facts.simulated_time:
        return ok("stamps", want.subject, "simulated time: ages are not judged")
    off_s = abs(float(np.median(stream.received_ns - stamps))) * 1e-9
    if off_s > OTHER_CLOCK_S:
        what = f"stamps are {off_s:.0f} s from now: of another clock (uptime, simulation)"
        return stop("stamps", want.subject, what, "let the driver stamp with the system's time, or start the nodes with use_sim_time")
    return _stamp_order(want, stamps) or _stamp_age(want, stream)


def _stamp_order(want: Wanted, stamps: IntArray) -> Finding | None:
    steps = np.diff(stamps)
    if (steps < 0).any():
        what = f"{int((steps < 0).sum())} stamps go back in time"
        return warning("stamps", want.subject, what, "let one clock stamp; look for a step of NTP")
    if (steps == 0).any():
        what = f"{int((steps == 0).sum())} of {len(stamps)} stamps repeat the one before: those messages are dropped"
        return warning("stamps", want.subject, what, "let the driver stamp each message anew")
    return None


def _stamp_age(want: Wanted, stream: Stream) -> Finding:
    """By the sender's clock alone where the time of sending is known: another host's clock is a finding of its own."""
    known = _sending_known(stream)
    late_s = float(np.median((stream.sent_ns if known else stream.received_ns) - stream.stamps_ns)) * 1e-9
    what = f"{late_s * 1e3:.0f} ms old when it comes"
    if late_s > want.too_old_s:
        what = f"{what}, allowed {want.too_old_s * 1e3:.0f}: no observation can be made of it"
        return stop("stamps", want.subject, what, "look at the driver's buffers and at the clock that stamps")
    if late_s > want.old_s:
        return warning("stamps", want.subject, what, "look at the driver's buffers: plans begin that late")
    if known and late_s < -CLOCK_S:
        what = f"stamped {-late_s * 1e3:.0f} ms after it was sent"
        return stop("stamps", want.subject, what, "two clocks on the sending side: let one stamp")
    if not known:
        return ok("stamps", want.subject, f"stamped {late_s * 1e3:.1f} ms before receipt")
    if abs(late_s) < STAMPED_AT_SENDING_S:
        return ok("stamps", want.subject, "stamped when sent (not when captured)")
    return ok("stamps", want.subject, f"stamped {late_s * 1e3:.1f} ms before it was sent")


def check_clocks(profile: RobotProfile, facts: Facts) -> list[Finding]:
    """How far is each sender's clock from this host's? Estimated by the quickest message: a message cannot come before it was sent.

    Where the middleware tells no time of sending (a bag) stamps are taken, whose capture may lie well before: then only a clock
    that is ahead can be told.
    """
    quickest: dict[str, list[tuple[float, bool]]] = {}
    for want in wanted(profile):
        stream = facts.streams[want.topic]
        known, stamps = _sending_known(stream), stream.stamps_ns
        if not known and (facts.simulated_time or len(stamps) == 0 or not stamps.all()):
            continue
        way_s = float((stream.received_ns - (stream.sent_ns if known else stamps)).min()) * 1e-9
        if abs(way_s) > OTHER_CLOCK_S:
            continue
        who = stream.publishers[0].node if stream.publishers else want.topic
        quickest.setdefault(who, []).append((way_s, known))
    return [_clock(who, min(ways)[0], min(ways)[1]) for who, ways in quickest.items()]


def _clock(who: str, way_s: float, known: bool) -> Finding:
    subject, remedy = f"clock of {who}", "keep the clocks of all hosts together (chrony or PTP), then look again"
    if way_s < 0:
        what, off_s = f"at least {-way_s * 1e3:.2f} ms ahead of this host (messages come before they are sent)", -way_s
    elif known:
        what, off_s = f"at most {way_s * 1e3:.2f} ms behind this host (quickest message, its way included)", way_s
    else:
        return ok("clock", subject, "not ahead of this host (by stamps; whether it is behind cannot be told)")
    if off_s > LIMITS.max_ahead_ns * 1e-9:
        return stop("clock", subject, what, remedy)
    return warning("clock", subject, what, remedy) if off_s > CLOCK_S else ok("clock", subject, what)


def check_skew(healthy: list[Wanted], facts: Facts) -> list[Finding]:
    """Can the first camera's pictures be joined with all else? Judged where the streams themselves are in order."""
    stamped = [want for want in healthy if len(facts.streams[want.topic].stamps_ns) > 1]
    if not stamped or not stamped[0].subject.startswith("camera"):
        return []
    lead, found = stamped[0], []
    for want in stamped[1:]:
        camera = want.subject.startswith("camera")
        allowed_s = (LIMITS.max_camera_skew_ns if camera else LIMITS.max_joint_skew_ns) * 1e-9
        skew_s = _median_skew_s(facts.streams[lead.topic].stamps_ns, facts.streams[want.topic].stamps_ns)
        what = f"{skew_s * 1e3:.0f} ms from the pictures of {lead.subject}"
        if skew_s > allowed_s:
            remedy = "let both stamp by one clock, and faster: no observation can be made of the two"
            found.append(stop("skew", want.subject, f"{what}, allowed {allowed_s * 1e3:.0f}", remedy))
        else:
            found.append(ok("skew", want.subject, what))
    return found


def _median_skew_s(lead_ns: IntArray, other_ns: IntArray) -> float:
    """Return the median distance from the stamps of `lead_ns`, where the two overlap, to the nearest of `other_ns`."""
    other_ns = np.sort(other_ns)
    inside = lead_ns[(lead_ns >= other_ns[0]) & (lead_ns <= other_ns[-1])]
    if len(inside) == 0:
        return float(min(abs(lead_ns[0] - other_ns[-1]), abs(other_ns[0] - lead_ns[-1]))) * 1e-9
    after = np.clip(np.searchsorted(other_ns, inside), 1, len(other_ns) - 1)
    nearest = np.minimum(np.abs(inside - other_ns[after - 1]), np.abs(other_ns[after] - inside))
    return float(np.median(nearest)) * 1e-9


def _sending_known(stream: Stream) -> bool:
    return bool(len(stream.sent_ns)) and bool(stream.sent_ns.all())


def _nodes(stream: Stream) -> str:
    return ", ".join(sorted({end.node for end in stream.publishers or ()}))
