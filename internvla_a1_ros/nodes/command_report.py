"""What the command process says of itself: its state as it changes, diagnostics once a second. Called from the executor."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from internvla_a1_ros.core.types import Mode
from internvla_a1_ros.runtime.command_io import CommandOutbox, Counters

_MODE_LEVEL = {Mode.INACTIVE: DiagnosticStatus.STALE, Mode.STOP: DiagnosticStatus.ERROR, Mode.FAULT: DiagnosticStatus.ERROR}


def key_values(values: dict[str, object]) -> list[KeyValue]:
    """Return a mapping as diagnostics want it."""
    return [KeyValue(key=key, value=f"{value:.4f}" if isinstance(value, float) else str(value)) for key, value in values.items()]


def state_status(instance: str, out: CommandOutbox, dry_run: bool, queue_s: float) -> DiagnosticStatus:
    """Return the state of the loop: `message` is the mode, `hardware_id` the robot instance."""
    status = DiagnosticStatus(level=_MODE_LEVEL.get(out.mode, DiagnosticStatus.OK), name="command", hardware_id=instance)
    status.message = out.mode.value
    status.values = key_values(
        {
            "mode": out.mode.value,
            "armed": out.armed,
            "dry_run": dry_run,
            "at_rest": out.at_rest,
            "limited": out.limited,
            "queue_s": queue_s,
            "reason": out.reason,
        }
    )
    return status


def loop_status(instance: str, counters: Counters, timing: dict[str, float], warnings: list[str]) -> DiagnosticStatus:
    """Return counters and timing of the loop, which may count on meanwhile; it warns while anything in `warnings` holds."""
    level = DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
    status = DiagnosticStatus(level=level, name="command: loop", hardware_id=instance, message="; ".join(warnings) or "ok")
    status.values = key_values(
        {
            "ticks": counters.ticks,
            "missed_ticks": counters.missed_ticks,
            "sent": counters.sent,
            "chunks_accepted": counters.chunks_accepted,
            "clamped_ticks": counters.clamped_ticks,
            "limited_ticks": counters.limited_ticks,
            "limiter_errors": counters.limiter_errors,
            **{f"refused_{code}": n for code, n in dict(counters.chunks_refused).items()},
            **{f"hold_{code}": n for code, n in dict(counters.holds).items()},
            **{f"fault_{code}": n for code, n in dict(counters.faults).items()},
            **timing,
        }
    )
    return status
