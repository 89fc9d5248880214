"""Everything on the cell's clock: however slowly the simulation runs, the loop runs with it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from harness import listening

from internvla_a1_ros.nodes.bench_probe import Probe
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.applications import express_sorting
from internvla_a1_ros.runtime.deployment import Options
from internvla_a1_ros.runtime.supervisor import Supervisor


def test_the_loop_runs_on_simulated_time(domain_id: int, tmp_path: Path) -> None:
    slow = {"real_time_factor": 0.5, "width": 160, "height": 120}
    plan = express_sorting(Options(dry_run=False, sim=True, domain_id=domain_id, simulated_time=True, simulation=slow))
    supervisor = Supervisor(plan, logs=tmp_path)
    with listening(domain_id) as operator:
        try:
            supervisor.start()
            up = operator.wait_for(lambda: operator.cycles > 3 and operator.state.get("mode") == "hold", 90.0)
            assert up, {path.name: path.read_text()[-2000:] for path in tmp_path.iterdir()}
            probe = Probe(operator, load_profile("arx_ac_one"))
            probe.listen_to_commands()
            assert operator.wait_for(lambda: operator.call("command/arm")[0], 10.0)
            assert operator.wait_for(lambda: operator.state.get("mode") == "run", 20.0), operator.state
            since = time.monotonic()
            time.sleep(3.0)
            received, stamps, joints = probe.of_arm(1, since)
            assert stamps.size > 20
            assert np.ptp(stamps) < 0.8 * np.ptp(received), "commands are stamped with wall time"
            assert abs(float(np.median(np.diff(stamps))) - 0.01) < 1e-6
            speed = np.abs(np.diff(joints, axis=0)).max(axis=1) / np.diff(stamps).clip(0.009)
            assert speed.max() <= 1.5 * 1.01
        finally:
            supervisor.stop()
