"""`~/doctor` of our nodes: what a node itself knows to be wrong, as one short text. Reads only what its reports read.

Imported by the command process too: no model, no pictures, no ROS beyond what the request brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from internvla_a1_ros.commissioning.doctor_findings import Finding, Level, ok, ordered, stop, warning, worst
from internvla_a1_ros.commissioning.doctor_machine import SLOW_SHARE
from internvla_a1_ros.core.freshness import Freshness
from internvla_a1_ros.core.sync import ObservationBuilder
from internvla_a1_ros.core.types import Mode
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.runtime.command_io import CommandInbox, CommandOutbox, Counters
from internvla_a1_ros.runtime.metrics import Cadence

# Of the ticks; a hundredth is one a second at 100 Hz.
MISSED_SHARE = 0.01


class Commands(Protocol):
    """What is asked of the command loop."""

    counters: Counters


class Plans(Protocol):
    """What is asked of the policy loop, whose module the command process must not import."""

    cadence: Cadence


def answering(look: Callable[[], Iterable[Finding]]) -> Callable[[Any, Any], Any]:
    """Return the callback of a Trigger service that answers with what `look` finds; no success where a finding says stop."""

    def serve(_: Any, response: Any) -> Any:
        found = list(look())
        response.success, response.message = worst(found) is not Level.STOP, text(found)
        return response

    return serve


def text(findings: Iterable[Finding]) -> str:
    """Return findings as lines, the worst first."""
    return "\n".join(
        f"{each.level.value}: {each.subject}: {each.what}" + (f" ({each.remedy})" if each.remedy else "") for each in ordered(findings)
    )


def command_findings(
    now_ns: int,
    profile: RobotProfile,
    health: Sequence[Freshness],
    refused_realtime: str,
    inbox: CommandInbox,
    loop: Commands | None,
    out: CommandOutbox | None,
) -> list[Finding]:
    """Return what the command process knows: its joints, its permissions, who else publishes, its state, what it refused."""
    found = [_stream(now_ns, wire.topic, freshness) for wire, freshness in zip(profile.states, health, strict=True)]
    if refused_realtime:
        sentence, _, remedy = refused_realtime.partition(": ")
        found.append(warning("realtime", "scheduling", sentence, remedy or "start it without --no-realtime"))
    else:
        found.append(ok("realtime", "scheduling", "real-time, memory locked"))
    if inbox.foreign_publisher is not None:
        found.append(stop("publishers", "command topics", inbox.foreign_publisher, "end it: arming is refused meanwhile"))
    else:
        found.append(ok("publishers", "command topics", "nobody else publishes"))
    if out is None or loop is None:
        return [*found, warning("state", "loop", "not active", "activate the node")]
    if out.mode in (Mode.STOP, Mode.FAULT):
        found.append(stop("state", "loop", f"{out.mode.value}: {out.reason}", "find the cause, then call ~/reset"))
    else:
        found.append(ok("state", "loop", out.mode.value))
    return [*found, *_counted(loop.counters)]


def _counted(counters: Counters) -> list[Finding]:
    missed, accepted, refused = counters.missed_ticks, counters.chunks_accepted, dict(counters.chunks_refused)
    found = []
    if missed > MISSED_SHARE * counters.ticks:
        found.append(warning("ticks", "loop", f"{missed} ticks missed beside {counters.ticks}", "less load, or real-time scheduling"))
    if refused and not accepted:
        return [*found, warning("refusals", "plans", _told(accepted, refused), "its log says why, with what was got and what is allowed")]
    return [*found, ok("refusals", "plans", _told(accepted, refused))]


def policy_findings(
    now_ns: int, profile: RobotProfile, health: Mapping[str, Freshness], builder: ObservationBuilder, loop: Plans | None
) -> list[Finding]:
    """Return what the policy process knows: its cameras, that its engine is warm, how often it plans, what it refused."""
    found = [_stream(now_ns, f"camera {camera.name}", health[camera.name], camera.optional) for camera in profile.cameras]
    if loop is None:
        return [*found, warning("engine", "engine", "not configured", "configure the node: that warms the engine")]
    found.append(ok("engine", "engine", "warm since the node was configured"))
    cadence, last = loop.cadence, builder.last_verdict
    plans = f"{cadence.effective_hz:.1f} plans a second of {cadence.target_hz:.0f}"
    if not cadence.cycles:
        why = f", {last.code}: {last.reason}" if not last else ""
        found.append(warning("plans", "loop", f"no plan yet{why}", "activate the node; its log says what it waits for"))
    elif cadence.effective_hz < SLOW_SHARE * cadence.target_hz:
        found.append(warning("plans", "loop", plans, "a faster engine, or less load"))
    else:
        found.append(ok("plans", "loop", plans))
    return [*found, ok("refusals", "observations", _told(cadence.cycles, dict(builder.refusals)))]


def _stream(now_ns: int, name: str, freshness: Freshness, optional: bool = False) -> Finding:
    """Whether a stream is alive, fast enough and readable; a dead one stops, unless it is optional."""
    health = freshness.health(now_ns)
    if health.ok:
        return ok("stream", name, f"{health.rate_hz:.0f} Hz")
    bad = warning if health.alive or optional else stop
    return bad("stream", name, health.reason(name).removeprefix(f"{name}: "), "`internvla-a1 doctor` looks closer")


def _told(accepted: int, refused: Mapping[str, int]) -> str:
    return f"{accepted} accepted, refused: " + (", ".join(f"{n} {code}" for code, n in sorted(refused.items())) or "none")
