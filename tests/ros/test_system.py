"""Everything together over DDS: simulated cell, policy, command process, and what may befall them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import listening

from internvla_a1_ros.nodes.bench_probe import Probe
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.applications import express_sorting
from internvla_a1_ros.runtime.deployment import Options
from internvla_a1_ros.runtime.supervisor import Supervisor


class System:
    def __init__(self, supervisor: Supervisor, operator: Operator, probe: Probe) -> None:
        self.supervisor, self.operator, self.probe = supervisor, operator, probe

    def mode(self, wanted: str, timeout_s: float = 10.0) -> bool:
        def there() -> bool:
            self.supervisor.check()
            return self.operator.state.get("mode") == wanted

        return self.operator.wait_for(there, timeout_s)

    def arm(self) -> None:
        deadline = time.monotonic() + 10.0
        while True:
            accepted, message = self.operator.call("command/arm")
            if accepted:
                return
            assert time.monotonic() < deadline, message
            time.sleep(0.2)

    def at_rest(self, timeout_s: float) -> bool:
        return self.operator.wait_for(lambda: self.operator.state.get("at_rest") == "True", timeout_s)


@pytest.fixture(scope="module")
def system(domain_id: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    logs = tmp_path_factory.mktemp("system")
    plan = express_sorting(Options(dry_run=False, sim=True, domain_id=domain_id, simulation={"camera_rate_hz": 30.0}))
    supervisor = Supervisor(plan, logs=logs)
    with listening(domain_id) as operator:
        try:
            supervisor.start()
            up = operator.wait_for(lambda: operator.cycles > 3 and operator.state.get("mode") == "hold", 90.0)
            assert up, {path.name: path.read_text()[-2000:] for path in logs.iterdir()}
            probe = Probe(operator, load_profile("arx_ac_one"))
            probe.listen_to_commands()
            yield System(supervisor, operator, probe)
        finally:
            supervisor.stop()
    assert all(child.poll() is not None for child in supervisor.children.values())


def test_pictures_become_guarded_commands_that_move_the_arms(system: System) -> None:
    assert system.probe.commands == [], "something was sent before arming"
    system.arm()
    assert system.mode("run")
    since = time.monotonic()
    time.sleep(3.0)
    profile = load_profile("arx_ac_one")
    for side in (0, 1):
        _, stamps, joints = system.probe.of_arm(side, since)
        assert joints.shape[0] > 150
        speed = np.abs(np.diff(joints, axis=0)) / np.diff(stamps)[:, None].clip(0.009)
        assert speed.max() <= profile.max_velocity[0] * 1.01
        assert np.ptp(joints, axis=0).max() > 1e-3, "the policy's chunks moved nothing"


def test_the_policy_killed_the_arms_rest_and_it_comes_back(system: System) -> None:
    system.arm() if system.operator.state.get("armed") != "True" else None
    assert system.mode("run")
    system.supervisor.children["policy"].kill()
    killed = time.monotonic()
    assert system.operator.wait_for(lambda: system.operator.state.get("mode") == "hold", 3.0)
    assert system.at_rest(1.0) and time.monotonic() - killed < 1.5 + 0.5
    assert "chunk" in system.operator.state["reason"] or "plan" in system.operator.state["reason"]
    assert system.mode("run", 60.0), f"respawned, it must be followed again: {system.operator.state}"
    assert system.supervisor.respawns == {"policy": 1}


def test_the_policy_stopped_and_resumed(system: System) -> None:
    system.arm() if system.operator.state.get("armed") != "True" else None
    assert system.mode("run")
    pid = system.supervisor.children["policy"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert system.mode("hold", 3.0) and system.at_rest(1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert system.mode("run", 10.0)


def test_estop_and_reset(system: System) -> None:
    system.arm() if system.operator.state.get("armed") != "True" else None
    assert system.mode("run")
    system.operator.press_estop(True)
    assert system.mode("stop", 1.0) and system.at_rest(1.0)
    since = time.monotonic() + 0.1
    time.sleep(0.5)
    assert system.probe.of_arm(0, since)[0].size == 0
    system.operator.press_estop(False)
    time.sleep(0.2)
    assert system.operator.call("command/reset")[0]
    assert system.mode("hold")


def test_a_camera_that_dies_means_no_chunks(system: System) -> None:
    system.arm() if system.operator.state.get("armed") != "True" else None
    assert system.mode("run")
    set_drop(system.operator, "left")
    assert system.mode("hold", 4.0)
    set_drop(system.operator, "")
    assert system.mode("run", 10.0)


def set_drop(operator: Operator, cameras: str) -> None:
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    client = operator.node.create_client(SetParameters, "sim_node/set_parameters")
    assert client.wait_for_service(timeout_sec=5.0)
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=cameras)
    future = client.call_async(SetParameters.Request(parameters=[Parameter(name="drop_camera", value=value)]))
    assert operator.wait_for(future.done, 5.0) and future.result().results[0].successful


def test_a_second_cell_refuses_to_start(system: System, domain_id: int, tmp_path: Path) -> None:
    second = Supervisor(express_sorting(Options(dry_run=True, sim=True, domain_id=domain_id)), logs=tmp_path)
    try:
        second.start()
        child: Any = second.children["sim"]
        assert child.wait(timeout=60.0) != 0
        said = (tmp_path / "sim.log").read_text()
        assert "does not start beside" in said and "Traceback" not in said
    finally:
        second.stop()
