"""What a cell hears: head camera, PLC, belt, signals, and of each robot its state, its instruction, its grippers. Callbacks store only."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.entities import Entities
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.runtime.cell import COMMAND_STATE, FOLLOWED, CellSpec
from internvla_a1_ros.runtime.cell_io import CellInbox, CellRequest, Fact, RobotFact
from internvla_a1_ros.runtime.wire_joints import JointAssembler

Heard = Callable[[Any, int], None]


class CellWires:
    """Subscribes to what `spec` names and fills `inbox`; `frame` is the newest picture's message, `frame_there` is set with it.

    `say(code, sentence)` is called for what is wrong with a message. PLC and signals are taken best effort, which matches every publisher.
    """

    def __init__(self, spec: CellSpec, inbox: CellInbox, make: Entities, clock: NodeClock, say: Callable[[str, str], None]) -> None:
        self._spec, self._inbox, self._make, self._clock, self._say = spec, inbox, make, clock, say
        self.frame: Any = None
        self.frame_there = threading.Event()
        self._levels: dict[str, bool] = {}
        self._beat: Any = None
        for robot in spec.robots:
            self._hear_robot(robot.instance)
        if spec.head_camera is not None:
            kind = CompressedImage if spec.camera.type == "compressed" else Image
            make.polled(kind, spec.robot(spec.head_camera.robot).topic(spec.camera.topic), self._on_frame, qos.SENSOR)
        for name, wire in spec.signals.items():
            self._hear(wire.type, wire.topic, self._store_signal(name))
        if spec.belt is not None and spec.belt.status is not None:
            self._hear(spec.belt.status.type, spec.belt.status.topic, self._on_belt)
        if spec.plc is not None:
            self._hear_plc()

    def _hear(self, kind: str, topic: str, callback: Heard) -> None:
        self._make.polled(message_class(kind), topic, callback, qos.STOP)

    def _hear_plc(self) -> None:
        plc = self._spec.plc
        assert plc is not None
        self._hear(plc.heartbeat.type, plc.heartbeat.topic, self._on_beat)
        if plc.arrival is not None:
            self._hear(plc.arrival.type, plc.arrival.topic, self._on_arrival)
        if plc.acknowledge is not None:
            self._hear(plc.acknowledge.type, plc.acknowledge.topic, self._on_acknowledge)

    # Robots

    def _hear_robot(self, instance: str) -> None:
        robot, profile, make = self._spec.robot(instance), self._spec.profiles[instance], self._make
        make.polled(DiagnosticStatus, robot.topic(COMMAND_STATE), self._store_state(instance), qos.LATCHED)
        make.polled(String, robot.topic(FOLLOWED), lambda message, _: self._inbox.followed.update({instance: message.data}), qos.LATCHED)
        if not self._grippers_matter(instance):
            return
        assembler = JointAssembler(profile)
        for index, wire in enumerate(profile.states):
            make.polled(message_class(wire.type), robot.topic(wire.topic), self._store_joints(instance, assembler, index), qos.SENSOR)

    def _grippers_matter(self, instance: str) -> bool:
        spec = self._spec
        checks = [(step, check) for step in spec.steps for _, check in step.checks if check.gripper is not None]
        return any(spec.gripper_robot(step, check) == instance for step, check in checks)

    def _store_state(self, instance: str) -> Heard:
        def on_state(message: Any, received_ns: int) -> None:
            if message.hardware_id != instance:
                self._say("foreign_state", f"robot '{instance}': got the state of '{message.hardware_id}' on its topic, expected its own")
                return
            values = {item.key: item.value for item in message.values}
            seen_ns = self._clock.from_receipt(received_ns)
            self._inbox.robots[instance] = RobotFact(message.message, values.get("armed") == "True", seen_ns)

        return on_state

    def _store_joints(self, instance: str, assembler: JointAssembler, index: int) -> Heard:
        profile = self._spec.profiles[instance]
        slots = [(profile.joint_names.index(gripper.joint), gripper) for gripper in profile.grippers]

        def on_joints(message: Any, received_ns: int) -> None:
            seen_ns = self._clock.from_receipt(received_ns)
            try:
                state = assembler.add(index, message, seen_ns)
            except ValueError as problem:
                self._say("bad_joints", f"robot '{instance}': {problem}")
                return
            if state is not None:
                for slot, gripper in slots:
                    opening = (state.positions[slot] - gripper.closed) / (gripper.open - gripper.closed)
                    self._inbox.openings[instance, gripper.joint] = Fact(float(opening), seen_ns)

        return on_joints

    # Head camera

    def _on_frame(self, message: Any, _: int) -> None:
        self.frame = message  # the newest only: what is not read yet is not worth reading any more
        self.frame_there.set()

    # PLC, belt, signals

    def _on_beat(self, message: Any, received_ns: int) -> None:
        assert self._spec.plc is not None
        beat = getattr(message, "data", None)
        if not self._spec.plc.heartbeat.must_change or beat != self._beat:
            self._inbox.plc_ns = self._clock.from_receipt(received_ns)
        self._beat = beat

    def _on_arrival(self, message: Any, _: int) -> None:
        if isinstance(message.data, str):
            self._inbox.arrivals.append(message.data)
        elif self._rises("arrival", message.data):
            self._inbox.arrivals.append("")

    def _on_acknowledge(self, message: Any, _: int) -> None:
        if self._rises("acknowledge", message.data):
            self._inbox.ask(CellRequest.ACKNOWLEDGE)

    def _rises(self, name: str, level: bool) -> bool:
        before, self._levels[name] = self._levels.get(name, False), bool(level)
        return bool(level) and not before

    def _on_belt(self, message: Any, received_ns: int) -> None:
        if math.isfinite(message.data):  # else it is as if nothing was heard
            self._inbox.belt_m_s = Fact(float(message.data), self._clock.from_receipt(received_ns))

    def _store_signal(self, name: str) -> Heard:
        def on_signal(message: Any, received_ns: int) -> None:
            self._inbox.signals[name] = Fact(float(message.data), self._clock.from_receipt(received_ns))

        return on_signal
