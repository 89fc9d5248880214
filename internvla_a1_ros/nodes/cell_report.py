"""What a cell says of itself: its state, what each step is at, and its counts."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus

from internvla_a1_ros.nodes.command_report import key_values
from internvla_a1_ros.runtime.cell_io import CellOutbox
from internvla_a1_ros.runtime.cell_loop import CellLoop
from internvla_a1_ros.runtime.cell_machine import CellState

_LEVEL = {
    CellState.STOPPED: DiagnosticStatus.STALE,
    CellState.HELP: DiagnosticStatus.WARN,
    CellState.HALTED: DiagnosticStatus.ERROR,
}


def state_status(loop: CellLoop, out: CellOutbox, pictures: int) -> DiagnosticStatus:
    """Return the state of the cell: `message` is the state, `hardware_id` the cell's name."""
    status = DiagnosticStatus(level=_LEVEL.get(out.state, DiagnosticStatus.OK), name="cell", hardware_id=loop.spec.name)
    status.message = out.state.value
    task = loop.task
    status.values = key_values(
        {
            "state": out.state.value,
            "reason": out.reason,
            "belt_run": out.belt.run,
            "belt_m_s": out.belt.speed_m_s,
            "arrival": task.arrival if task is not None else "",
            "label": task.label.text if task is not None and task.label is not None else "",
            "lying": task.lying.value if task is not None else "",
            "route": task.route.name if task is not None and task.route is not None else "",
            **{f"step_{run.step.id}": run.state.value for run in (task.runs if task is not None else ())},
            "pictures": pictures,
            **{f"count_{name}": n for name, n in sorted(loop.counts.items())},
        }
    )
    return status
