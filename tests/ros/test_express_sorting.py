"""The whole application as one types it: simulated cell with its PLC, policy, command process and the cell's work, over DDS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from harness import listening, running
from std_msgs.msg import String

from internvla_a1_ros.nodes import qos
from internvla_a1_ros.runtime.applications import application
from internvla_a1_ros.runtime.deployment import Options


def test_parcels_come_and_the_cell_gives_instructions_that_the_policy_follows(domain_id: int, tmp_path: Path) -> None:
    made = application("express_sorting", Options(sim=True, cell="express_sorting", simulation={"seed": 3}))
    assert [process.name for process in made.processes] == ["sim", "command", "policy", "cell"]
    with listening(domain_id) as operator, running(made.processes, domain_id, tmp_path) as supervisor:
        cell: dict[str, str] = {}
        told: list[str] = []
        listen: Any = operator.node.create_subscription
        listen(DiagnosticStatus, "cell/state", lambda m: cell.update({v.key: v.value for v in m.values}), qos.LATCHED)
        listen(String, "policy/instruction", lambda m: told.append(m.data), qos.LATCHED)

        def belt_m_s() -> float:
            return float(json.loads(operator.cell)["belt_speed_m_s"]) if operator.cell else -1.0

        assert operator.wait_for(lambda: operator.cycles > 2 and "state" in cell, 90.0), (tmp_path / "cell.log").read_text()[-2000:]
        assert operator.wait_for(lambda: belt_m_s() == 0.0, 10.0), "the belt stands before the cell is started"
        assert "arm it" in operator.call("cell/start")[1], "the belt does not bring parcels to a robot that is not armed"
        assert operator.call("command/arm")[0]
        assert operator.wait_for(lambda: operator.call("cell/start")[0], 20.0), cell
        assert operator.wait_for(lambda: belt_m_s() == 0.08, 10.0), cell
        # The photo-eye sees a parcel, the head camera's pictures decide about its label, the policy is told to grasp it.
        assert operator.wait_for(lambda: any("grasp it" in text for text in told), 60.0), (cell, told)
        assert operator.call("cell/pause")[0]
        assert operator.wait_for(lambda: belt_m_s() == 0.0, 10.0), cell
        assert supervisor.check() is None
