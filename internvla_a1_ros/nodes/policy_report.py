"""What the policy process says of itself: every cycle's timings, and cadence and refusals once a second."""

from __future__ import annotations

import json
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus

from internvla_a1_ros.core.sync import ObservationBuilder
from internvla_a1_ros.core.types import Observation
from internvla_a1_ros.nodes.command_report import key_values
from internvla_a1_ros.runtime.metrics import Window
from internvla_a1_ros.runtime.policy_loop import PolicyLoop, PolicyOutbox

# What the engine computes; everything else between a frame's arrival and its chunk is ours, the overhead.
ENGINE_STEPS = ("encode", "prefix", "generate", "flow", "imagine")


class CycleTimes:
    """Latency (capture to published) and overhead of each cycle.

    Overhead: newest frame used received to chunk published, minus the engine's time and minus the time in which that frame
    waited for an engine still busy with the cycle before.
    """

    def __init__(self) -> None:
        self.latency_s = Window()
        self.overhead_s = Window()
        self.last_latency_s = self.last_overhead_s = self.last_engine_s = float("nan")
        self.last_published_ns = 0

    def published(self, observation: Observation, timings_s: dict[str, float], now_ns: int) -> None:
        """Note the cycle whose chunk was published at `now_ns`."""
        received_ns = max(frame.received_ns for frame in observation.current if frame is not None)
        engine_s = sum(timings_s.get(step, 0.0) for step in ENGINE_STEPS)
        self.last_engine_s = engine_s
        self.last_latency_s = (now_ns - observation.stamp_ns) * 1e-9
        self.last_overhead_s = (now_ns - max(received_ns, self.last_published_ns)) * 1e-9 - engine_s
        self.latency_s.add(self.last_latency_s)
        self.overhead_s.add(self.last_overhead_s)
        self.last_published_ns = now_ns


def cycle_status(
    instance: str, out: PolicyOutbox, times: CycleTimes, latent_hit_rate: float, to_ros: Callable[[int], int]
) -> DiagnosticStatus:
    """Return one cycle: milliseconds per step, latency, overhead, skew and ages of what was observed, and what it was made from."""
    assert out.inference is not None and out.observation is not None
    observation = out.observation
    values: dict[str, object] = {f"{name}_ms": seconds * 1e3 for name, seconds in out.inference.timings_s.items()}
    values["total_ms"] = sum(out.inference.timings_s.values()) * 1e3
    values["engine_ms"] = times.last_engine_s * 1e3
    values["overhead_ms"] = times.last_overhead_s * 1e3
    values["latency_ms"] = times.last_latency_s * 1e3
    for frame in observation.current:
        if frame is not None:  # how old the picture was when its plan was published
            values[f"age_{frame.camera}_ms"] = times.last_latency_s * 1e3 - (frame.stamp_ns - observation.stamp_ns) * 1e-6
    # On the loop's clock: whoever hears the chunk can tell when it left, which is before its publisher may go on.
    values["stamp_ns"], values["published_ns"] = observation.stamp_ns, times.last_published_ns
    values["skew_ms"] = observation.skew_ns * 1e-6
    values["guided"], values["pinned"] = out.inference.guidance, out.inference.pinned
    values["latent_hit_rate"] = latent_hit_rate
    values |= made_from(out, to_ros)
    return DiagnosticStatus(level=DiagnosticStatus.OK, name="policy: cycle", hardware_id=instance, values=key_values(values))


def made_from(out: PolicyOutbox, to_ros: Callable[[int], int]) -> dict[str, object]:
    """Return what a chunk was made from, with ROS stamps, so that a recording can make it again: pictures, joints, tail, noise, words."""
    assert out.inference is not None and out.observation is not None
    values: dict[str, object] = {}
    for now, past in zip(out.observation.current, out.observation.past, strict=True):
        if now is not None and past is not None:
            values[f"frame_{now.camera}"], values[f"past_{now.camera}"] = to_ros(now.stamp_ns), to_ros(past.stamp_ns)
    joints = out.observation.joints
    values["observed"], values["joints_stamp"], values["joints"] = (
        to_ros(out.observation.stamp_ns),
        to_ros(joints.stamp_ns),
        json.dumps(joints.positions.tolist()),
    )
    values["tail"] = "" if out.tail is None else to_ros(out.tail.first_ns)
    if out.tail is not None:  # exactly, on the loop's own clock: ROS time moves against it by some microseconds
        values["tail_after"] = out.tail.first_ns - out.observation.stamp_ns
        values["tail_age"] = out.observation.stamp_ns - out.tail.stamp_ns
    values["draw"], values["instruction"] = out.inference.draw, out.instruction
    return values


def loop_status(instance: str, loop: PolicyLoop, builder: ObservationBuilder, times: CycleTimes, warnings: list[str]) -> DiagnosticStatus:
    """Return cadence, latency percentiles, refusals by reason and what is wrong with the streams."""
    cadence = loop.cadence
    level = DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
    status = DiagnosticStatus(level=level, name="policy: loop", hardware_id=instance, message="; ".join(warnings) or "ok")
    status.values = key_values(
        {
            "rate_hz": cadence.effective_hz,
            "target_hz": cadence.target_hz,
            "cycles": cadence.cycles,
            "over_budget": cadence.over_budget,
            "latency_ms_p50": times.latency_s.percentile(50) * 1e3,
            "latency_ms_p99": times.latency_s.percentile(99) * 1e3,
            "overhead_ms_p50": times.overhead_s.percentile(50) * 1e3,
            "overhead_ms_p99": times.overhead_s.percentile(99) * 1e3,
            **{f"share_{name}": share for name, share in cadence.shares().items()},
            **{f"count_{name}": n for name, n in dict(loop.counts).items()},
            **{f"refused_{code}": n for code, n in dict(builder.refusals).items()},
        }
    )
    return status
