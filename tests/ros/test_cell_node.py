"""The cell node over DDS against the simulated cell: rendered parcels, a PLC, a policy and a command process played by the test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from harness import listening, run_once, running
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Bool, Float64, Int32, String
from std_srvs.srv import Trigger

from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.operator import Operator
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.runtime.cell import cells_folder
from internvla_a1_ros.runtime.deployment import Process

ROBOT = "arx_ac_one"
START = (0.0, 0.948, 0.858, -0.573, 0.0, 0.0)
OPEN, HALF = -3.4, -1.7
# Where the photo-eye is, along the belt: before the middle of the picture.
EYE_M = 0.06
SIM = Process(
    "sim",
    "sim_node",
    "internvla_a1_ros.nodes.sim_node",
    {"seed": 3, "width": 1024, "height": 768, "camera_rate_hz": 6.0, "belt_speed": 0.0, "niceness": 0, "discovery_wait_s": 0.5},
    lifecycle=False,
)


def cell_process(cell: str | Path) -> Process:
    return Process("cell", "cell_node", "internvla_a1_ros.nodes.cell_node", {"cell": str(cell)})


class Plant:
    """Everything around the cell node but the simulation: PLC, belt drive, policy, command process, grippers."""

    def __init__(self, domain_id: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = node = Node("plant", context=self._context)
        self.mode, self.beats, self.drives_belt, self.obeys = "hold", True, True, True
        self.belt: dict[str, Any] = {}
        self.truth: dict[str, Any] = {}
        self.told: list[str] = []
        self.routes: list[int] = []
        self.results: list[dict[str, Any]] = []
        self.states: list[dict[str, str]] = []
        self.help: list[bool] = []
        self.pauses = 0
        self._grips = [OPEN, OPEN]
        self._sim_speed = -1.0
        make, listen = node.create_publisher, node.create_subscription
        self._beat = make(Bool, "plc/heartbeat", qos.COMMAND)
        self.arrival = make(Bool, "plc/parcel", qos.COMMAND)
        self.acknowledge = make(Bool, "plc/acknowledge", qos.COMMAND)
        self._state = make(DiagnosticStatus, "command/state", qos.LATCHED)
        self._follows = make(String, "policy/instruction", qos.LATCHED)
        self._arm = message_class("arx5_arm_msg/msg/RobotStatus")
        self._arms = [make(self._arm, f"/arm_master_{side}_status", qos.COMMAND) for side in "lr"]
        listen(Bool, "belt/run", lambda m: self.belt.update(run=m.data), qos.COMMAND)
        listen(Float64, "belt/speed", lambda m: self.belt.update(speed=m.data), qos.COMMAND)
        listen(Int32, "plc/route", lambda m: self.routes.append(m.data), qos.COMMAND)
        listen(String, "plc/result", lambda m: self.results.append(json.loads(m.data)), qos.COMMAND)
        listen(Bool, "plc/help", lambda m: self.help.append(m.data), qos.COMMAND)
        listen(String, "sim_node/status", lambda m: self.truth.update(json.loads(m.data)), qos.COMMAND)
        listen(DiagnosticStatus, "cell/state", lambda m: self.states.append({v.key: v.value for v in m.values}), qos.LATCHED)
        listen(String, "instruction", self._on_instruction, qos.COMMAND)
        node.create_service(Trigger, "command/pause", self._on_pause)
        self._parameters = node.create_client(SetParameters, "/sim_node/set_parameters")
        node.create_timer(0.05, self._tick)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except Exception:
            if self._context.ok():
                raise

    def _tick(self) -> None:
        if self.beats:
            self._beat.publish(Bool(data=True))
        values = [KeyValue(key="mode", value=self.mode), KeyValue(key="armed", value=str(self.mode not in ("stop", "fault")))]
        self._state.publish(DiagnosticStatus(name="command", hardware_id=ROBOT, message=self.mode, values=values))
        for publisher, grip in zip(self._arms, self._grips, strict=True):
            message = self._arm()
            message.joint_pos[:] = (*START, grip)
            publisher.publish(message)
        if self.drives_belt and self.belt:
            self.set_belt(self.belt["speed"] if self.belt.get("run") else 0.0)

    def set_belt(self, speed: float) -> None:
        """The simulated belt's speed is a parameter of the simulation."""
        if speed != self._sim_speed and self._parameters.service_is_ready():
            self._sim_speed = speed
            value = Parameter("belt_speed", value=float(speed)).to_parameter_msg()
            self._parameters.call_async(SetParameters.Request(parameters=[value]))

    def _on_instruction(self, message: String) -> None:
        """As a policy does: repeat it, and (nobody plans here) let the grippers do what it means."""
        self.told.append(message.data)
        self._follows.publish(String(data=message.data))
        if not self.obeys:
            return
        if "grasp it with the right" in message.data:
            self._grips[1] = HALF
        elif message.data.startswith("Place"):
            self._grips = [OPEN, OPEN]

    def _on_pause(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.pauses += 1
        self.mode = "pause"
        response.success = True
        return response

    @property
    def state(self) -> dict[str, str]:
        return self.states[-1] if self.states else {}

    def ahead_m(self, face: str) -> float | None:
        """How far the next parcel of this face has to go to the photo-eye; one whose neighbours come into the picture too is left out."""
        places = [(p["position_m"][1], p["face"]) for p in self.truth.get("parcels", [])]
        alone = [y for y, its in places if its == face and all(other == y or abs(other - y) > 0.28 for other, _ in places)]
        return min((y - EYE_M for y in alone if y > EYE_M - 0.05), default=None)

    def bring(self, face: str, wait_for: Callable[[Callable[[], bool], float], bool]) -> dict[str, Any]:
        """Drive the belt by hand until a parcel of this face is there: fast, and slowly over the last centimetres."""
        self.drives_belt = False

        def there() -> bool:
            ahead = self.ahead_m(face)
            here = ahead is not None and ahead < 0.04
            self.set_belt(0.0 if here else 0.05 if ahead is not None and ahead < 0.3 else 0.25)
            return here and self.truth["belt_speed_m_s"] == 0.0

        assert wait_for(there, 60.0), self.truth
        self.drives_belt = True
        return min(self.truth["parcels"], key=lambda parcel: abs(parcel["position_m"][1] - EYE_M))

    def photo_eye(self) -> None:
        self.arrival.publish(Bool(data=True))
        self.arrival.publish(Bool(data=False))

    def close(self) -> None:
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)
        self._executor.shutdown(timeout_sec=0.5)


class Rig:
    def __init__(self, plant: Plant, operator: Operator, supervisor: Any, logs: Path) -> None:
        self.plant, self.operator, self.supervisor, self.logs = plant, operator, supervisor, logs

    def until(self, done: Callable[[], bool], seconds: float = 15.0) -> None:
        assert self.operator.wait_for(done, seconds), (self.plant.state, self.plant.told[-3:], (self.logs / "cell.log").read_text()[-2000:])

    def start(self) -> None:
        self.plant.mode = "hold"
        self.until(lambda: self.operator.call("cell/start")[0])
        self.until(lambda: self.plant.state.get("state") == "waiting" and bool(self.plant.belt.get("run")))

    def stop(self) -> None:
        assert self.operator.call("cell/pause")[0]
        self.until(lambda: self.plant.state.get("state") == "stopped" and self.plant.belt.get("run") is False)


@pytest.fixture(scope="module")
def rig(domain_id: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("cell")
    content = yaml.safe_load((cells_folder() / "express_sorting.yaml").read_text())
    content["belt"]["speed_m_s"] = 0.02  # nobody takes a parcel off the belt here: it must not pass by meanwhile
    cell = folder / "express_sorting.yaml"
    cell.write_text(yaml.safe_dump(content))
    plant = Plant(domain_id)
    try:
        with listening(domain_id) as operator, running((SIM, cell_process(cell)), domain_id, folder) as supervisor:
            made = Rig(plant, operator, supervisor, folder)
            made.until(lambda: bool(plant.truth) and bool(plant.states), 60.0)
            yield made
            assert supervisor.check() is None
            supervisor.stop()
            assert operator.wait_for(lambda: plant.belt.get("run") is False, 3.0), "the belt stops with the node"
    finally:
        plant.close()


def test_nothing_is_said_to_belt_or_robot_before_the_start(rig: Rig) -> None:
    assert rig.plant.state["state"] == "stopped" and rig.plant.told == []
    rig.until(lambda: rig.plant.belt == {"run": False, "speed": 0.0})
    assert not rig.operator.call("cell/acknowledge")[0]


def test_a_parcel_is_read_from_the_rendered_picture_and_routed(rig: Rig) -> None:
    plant = rig.plant
    parcel = plant.bring("up", rig.operator.wait_for)
    rig.start()
    plant.photo_eye()
    rig.until(lambda: len(plant.results) == 1)
    (result,) = plant.results
    assert result["outcome"] == "done" and result["label"] == parcel["code"] and result["lying"] == "up"
    assert result["route"] == parcel["destination"] and plant.routes == [{"left": 1, "right": 2}[parcel["destination"]]]
    assert result["symbology"] == "data_matrix" and 0.3 < result["contrast"] <= 1.0 and result["side"] in ("left", "right")
    assert plant.told == [
        "Hold still.",
        "Track the parcel on the belt and grasp it with the right arm.",
        "Lift the parcel and show its label to the head camera.",
        f"Place the parcel in the {parcel['destination']} bin.",
        "Hold still.",
    ]
    rig.until(lambda: plant.state.get("count_done") == "1")
    rig.until(lambda: rig.operator.diagnostics.get("cell", {}).get("count_label_up") == "1", 3.0)


def test_a_silent_plc_stops_the_belt_and_only_an_acknowledgement_starts_it(rig: Rig) -> None:
    plant = rig.plant
    pauses = plant.pauses
    plant.beats = False
    began = time.monotonic()
    rig.until(lambda: plant.belt.get("run") is False, 5.0)
    assert time.monotonic() - began < 2.5
    rig.until(lambda: plant.pauses == pauses + 1 and plant.help[-1] and plant.truth["belt_speed_m_s"] == 0.0)
    rig.until(lambda: plant.state["state"] == "halted")
    assert plant.state["reason"].startswith("PLC silent: nothing on plc/heartbeat for 1.")
    assert plant.told[-1] == "Hold still."
    plant.beats = True
    paused = (False, "acknowledge: robot 'arx_ac_one' is paused: resume it")
    rig.until(lambda: rig.operator.call("cell/acknowledge") == paused)  # once the first heartbeat was heard
    plant.mode = "hold"
    rig.until(lambda: "paused" not in rig.operator.call("cell/start")[1])
    assert plant.state["state"] == "halted" and plant.belt["run"] is False
    plant.acknowledge.publish(Bool(data=True))
    rig.until(lambda: plant.state["state"] == "waiting" and plant.belt["run"] is True and not plant.help[-1])
    plant.acknowledge.publish(Bool(data=False))
    assert (rig.logs / "cell.log").read_text().count("plc_silent: PLC silent") == 1, "said once"


def test_a_robot_in_fault_halts_the_cell(rig: Rig) -> None:
    rig.plant.mode = "fault"
    rig.until(lambda: rig.plant.state["state"] == "halted" and rig.plant.belt["run"] is False)
    assert rig.plant.state["reason"] == "robot 'arx_ac_one' is in fault: reset and arm it"
    rig.plant.mode = "hold"
    rig.until(lambda: rig.operator.call("cell/acknowledge")[0])
    rig.until(lambda: rig.plant.belt["run"] is True)


def test_a_label_that_lies_down_is_found_absent_and_flipped(rig: Rig) -> None:
    plant = rig.plant
    rig.stop()
    plant.bring("down", rig.operator.wait_for)
    told, results = len(plant.told), len(plant.results)
    rig.start()
    plant.photo_eye()
    rig.until(lambda: plant.told[-1].startswith("Flip the parcel"))
    rig.until(lambda: plant.state.get("lying") == "down" and plant.state.get("step_flip") == "working")
    assert rig.operator.call("cell/give_up")[0]
    rig.until(lambda: len(plant.results) > results)
    assert plant.results[-1]["outcome"] == "given_up" and plant.results[-1]["label"] is None
    assert len(plant.told) > told
    assert rig.operator.call("cell/reset_counts")[0]
    rig.until(lambda: not [key for key in plant.state if key.startswith("count_")])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("unknown", "unknown cell 'express_sort', did you mean 'express_sorting'?"),
        ("collide", "collide on topic /arm_slave_l_status"),
        ("misspelt", "unknown key 'steps.0.timeout', did you mean 'timeout_s'?"),
    ],
)
def test_what_cannot_be_configured_ends_with_one_sentence(domain_id: int, tmp_path: Path, change: str, sentence: str) -> None:
    content = yaml.safe_load((cells_folder() / "express_sorting.yaml").read_text())
    if change == "collide":
        content["robots"].append({"instance": "second", "profile": "arx_ac_one", "namespace": "second"})
    elif change == "misspelt":
        content["steps"][0]["timeout"] = 3.0
    path = tmp_path / "cell.yaml"
    path.write_text(yaml.safe_dump(content))
    result = run_once(cell_process("express_sort" if change == "unknown" else path), domain_id + 1)
    said = result.stdout + result.stderr
    assert result.returncode == 2, said
    assert sentence in said and "Traceback" not in said
