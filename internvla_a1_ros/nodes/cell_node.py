"""cell_node: the work of a cell. It reads labels, hands out instructions, runs the belt, talks to the PLC; it never moves an arm.

Threads: the `cell` thread takes what arrived, steps the loop and publishes, 20 times a second; the `look` thread decodes the newest
picture and reads it; the executor's thread runs services and the answers of others.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from functools import partial
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_msgs.msg import String
from std_srvs.srv import Trigger

from internvla_a1_ros.core.types import Verdict, refused
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.cell_report import state_status
from internvla_a1_ros.nodes.cell_wires import CellWires
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.lifecycle import WorkingNode, run
from internvla_a1_ros.nodes.parameters import Parameter, value
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.runtime.cell import INSTRUCTION, PAUSE, CellSpec, load_cell
from internvla_a1_ros.runtime.cell_io import BeltOrder, CellInbox, CellOutbox, CellRequest
from internvla_a1_ros.runtime.cell_loop import CellLoop
from internvla_a1_ros.runtime.cell_steps import Route
from internvla_a1_ros.runtime.labels import look
from internvla_a1_ros.runtime.wire_pictures import picture_decoder

PARAMETERS = (
    Parameter("cell", "express_sorting", "cell: its name, or the path of a YAML file"),
    Parameter("autostart", False, "configure and activate at start, where no launch system does it"),
)
PERIOD_S = 0.05
# Levels are repeated, so that a PLC that was away learns them and can tell silence from rest.
REPEAT_S = 0.5
AHEAD_NS = 200_000_000  # a camera's clock may be a little off
REPORT_S = 1.0


class CellNode(WorkingNode):
    """Owns the loop, its threads and everything a cell publishes."""

    def __init__(self) -> None:
        super().__init__("cell", PARAMETERS)
        self._inbox = CellInbox()
        self._loop: CellLoop | None = None
        self._threads: list[threading.Thread] = []
        self._running = threading.Event()
        self._said: dict[str, str] = {}
        self._pictures = 0

    # Lifecycle

    def configure(self) -> None:
        self._spec = spec = load_cell(value(self, "cell"))
        self._loop_clock = NodeClock(self)
        self._entities.undo(self._loop_clock.close)
        self._inbox = CellInbox()
        self._make_publishers(spec)
        self._wires = CellWires(spec, self._inbox, self._entities, self._loop_clock, self._say)
        for request in CellRequest:
            self._entities.service(Trigger, f"~/{request.value}", partial(self._serve, request))
        self._loop = CellLoop(spec)

    def _make_publishers(self, spec: CellSpec) -> None:
        make = self._entities
        self._instructions = {r.instance: make.publisher(String, r.topic(INSTRUCTION), qos.COMMAND) for r in spec.robots}
        self._pausing = {r.instance: self.create_client(Trigger, r.topic(PAUSE)) for r in spec.robots}
        for client in self._pausing.values():
            make.undo(partial(self.destroy_client, client))
        # Each with its wire's message type; what the YAML does not name is not there.
        wires: list[tuple[str, Any]] = []
        if spec.belt is not None:
            wires += [("run", spec.belt.run), ("speed", spec.belt.speed)]
        if spec.plc is not None:
            wires += [("help", spec.plc.help), ("route", spec.plc.route), ("result", spec.plc.result)]
        kinds = {name: (message_class(wire.type), wire.topic) for name, wire in wires if wire is not None}
        self._wired = {name: (kind, make.publisher(kind, topic, qos.COMMAND)) for name, (kind, topic) in kinds.items()}
        self._state = make.publisher(DiagnosticStatus, "~/state", qos.LATCHED)
        self._result = make.publisher(String, "~/result", qos.COMMAND)
        self._diagnostics = make.publisher(DiagnosticArray, "/diagnostics", qos.COMMAND)

    def begin(self) -> None:
        self._running.set()
        work = {"cell": self._run, "look": self._look}
        self._threads = [threading.Thread(target=self._guard, args=(each,), name=name, daemon=True) for name, each in work.items()]
        for thread in self._threads:
            thread.start()
        self.get_logger().info(f"{self._spec.name}: ready, waiting for ~/start")

    def end(self) -> None:
        if not self._threads:
            return
        if self._loop is not None and self._loop.state.active:
            self._ask(CellRequest.PAUSE)
        self._running.clear()
        self._wires.frame_there.set()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._threads = []
        self._publish_belt(BeltOrder())

    # The threads

    def _guard(self, work: Any) -> None:
        try:
            work()
        except Exception:
            # The loop turns bad data into verdicts; what gets here is a defect. The belt stops, the process ends.
            traceback.print_exc()
            self._publish_belt(BeltOrder())
            os._exit(1)

    def _run(self) -> None:
        assert self._loop is not None
        levels: tuple[BeltOrder, bool] | None = None
        repeated_s = reported_s = 0.0
        before = ""
        while self._running.is_set():
            self._entities.take()
            self._inbox.clock_jump = not self._loop_clock.check()
            out = self._loop.step(self._inbox, self._loop_clock.now_ns())
            self._publish(out)
            now_s = time.monotonic()
            if (out.belt, out.help) != levels or now_s - repeated_s >= REPEAT_S:
                levels, repeated_s = (out.belt, out.help), now_s
                self._publish_belt(out.belt)
                self._send("help", out.help)
            status = state_status(self._loop, out, self._pictures)
            told = str([(item.key, item.value) for item in status.values if item.key != "pictures"])
            if told != before or now_s - reported_s >= REPORT_S:
                before = told
                self._state.publish(status)
            if now_s - reported_s >= REPORT_S:
                reported_s = now_s
                self._report(status)
            time.sleep(PERIOD_S)

    def _look(self) -> None:
        spec, wires, loop = self._spec, self._wires, self._loop
        assert loop is not None
        while self._running.is_set():
            if not wires.frame_there.wait(timeout=0.1) or spec.head_camera is None:
                continue
            wires.frame_there.clear()
            message, wires.frame = wires.frame, None
            began_s = time.monotonic()
            if message is not None and loop.state.active:
                self._look_at(message)
                time.sleep(max(0.0, began_s + 1.0 / spec.head_camera.look_hz - time.monotonic()))

    def _look_at(self, message: Any) -> None:
        spec = self._spec
        try:
            stamp_ns = self._loop_clock.from_stamp(message.header.stamp)
            if (ahead_ns := stamp_ns - self._loop_clock.now_ns()) > AHEAD_NS:
                raise ValueError(f"camera '{spec.camera.name}': a picture is stamped {ahead_ns * 1e-9:.3f} s ahead of now")
            rgb = picture_decoder(message, spec.camera.name)()
        except ValueError as problem:
            self._say("bad_frame", str(problem))
            return
        self._inbox.pictures.append(look(rgb, stamp_ns, spec.labels, spec.regions))
        self._pictures += 1

    # What is published

    def _publish(self, out: CellOutbox) -> None:
        for instance, text in out.instructions:
            self._instructions[instance].publish(String(data=text))
            self.get_logger().info(f"{instance}: '{text}'")
        for instance in out.pause:
            self._ask_to_pause(instance)
        if out.route is not None:
            self._publish_route(out.route)
        if out.result is not None:
            text = json.dumps(out.result)
            self._result.publish(String(data=text))
            self._send("result", text)
        for event in out.events:
            self.say(event)

    def _publish_belt(self, order: BeltOrder) -> None:
        self._send("speed", order.speed_m_s)
        self._send("run", order.run)

    def _publish_route(self, route: Route) -> None:
        wire = self._spec.plc.route if self._spec.plc is not None else None
        if wire is not None:
            self._send("route", route.lane if wire.type.endswith("Int32") else route.name)

    def _send(self, name: str, data: Any) -> None:
        if name in self._wired:
            kind, publisher = self._wired[name]
            publisher.publish(kind(data=data))

    def _ask_to_pause(self, instance: str) -> None:
        """Ask a robot's command process to pause: it brakes and holds what it grips. Who is away has nothing to pause."""
        client = self._pausing[instance]
        if not client.service_is_ready():
            self._say(f"pause_{instance}", f"robot '{instance}': no {client.srv_name} to ask to pause")
            return

        def answered(future: Any) -> None:
            answer = future.result()
            if answer is not None and not answer.success:
                self.get_logger().info(f"robot '{instance}': {answer.message}")

        client.call_async(Trigger.Request()).add_done_callback(answered)

    def _report(self, status: DiagnosticStatus) -> None:
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._loop_clock.to_stamp(self._loop_clock.now_ns())
        self._diagnostics.publish(message)

    # What is said

    def _say(self, code: str, sentence: str) -> None:
        """Say what is wrong with something received, once per change of the sentence."""
        if self._said.get(code) != sentence:
            self._said[code] = sentence
            self.get_logger().warning(f"{code}: {sentence}")

    # Services

    def _serve(self, request: CellRequest, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        verdict = self._ask(request)
        response.success, response.message = bool(verdict), verdict.reason
        return response

    def _ask(self, request: CellRequest) -> Verdict:
        """Hand a request to the loop and wait for the step that answers it."""
        if not self._threads:
            return refused("inactive", f"{request.value}: the cell node is not active")
        inbox = self._inbox
        return self.answer(inbox.ask(request), 1.0, None if request is CellRequest.PAUSE else inbox.requests)


def main() -> None:
    """Entry point of `ros2 run internvla_a1_ros cell_node`."""
    cv2.setNumThreads(1)
    sys.exit(run(CellNode))


if __name__ == "__main__":
    main()
