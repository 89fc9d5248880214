"""policy_node: observations in, action chunks out. It may stall or die; the robot does not depend on it.

Threads: the `take` thread stores frames and joints as they come; the `policy` thread alone steps the loop and may block in the
model; the executor's thread runs what is rare: instructions, services, reports.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.commissioning.doctor_findings import Finding
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.freshness import Freshness
from internvla_a1_ros.core.sync import CameraSpec, ObservationBuilder
from internvla_a1_ros.core.types import Frame, Verdict
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.chunks import chunk_to_message
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.doctor_service import answering, policy_findings
from internvla_a1_ros.nodes.lifecycle import WorkingNode, run
from internvla_a1_ros.nodes.parameters import Parameter, value
from internvla_a1_ros.nodes.policy_report import CycleTimes, cycle_status, loop_status
from internvla_a1_ros.nodes.realtime import keep_one_heap
from internvla_a1_ros.nodes.robot import PARAMETERS as ROBOT_PARAMETERS
from internvla_a1_ros.nodes.robot import robot_of
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.runtime.deployment import find_checkpoint
from internvla_a1_ros.runtime.policy_loop import PolicyInbox, PolicyLoop, PolicyOutbox
from internvla_a1_ros.runtime.wire_chunks import chunk_from_message
from internvla_a1_ros.runtime.wire_joints import JointAssembler
from internvla_a1_ros.runtime.wire_pictures import picture_decoder

PARAMETERS = (
    *ROBOT_PARAMETERS,
    Parameter("checkpoint", "nano", "model folder, or the name of a model that comes along"),
    Parameter("engine", "torch", "what computes the model: torch, reference, onnx, tensorrt; onnx:int8 says the precision too"),
    Parameter("preset", "", "how the flow is run, by the manifest's name for it; its default where empty"),
    Parameter("guidance", "", "how a chunk continues what is committed: off, hard, soft or pinv; the manifest's way where empty"),
    Parameter("committed_topic", "command/committed", "where the command process says what it will execute"),
    Parameter("instruction", "", "what the robot shall do; the manifest's first instruction where empty", read_only=False),
    Parameter("instruction_topic", "instruction", "std_msgs/String; changes the instruction while running"),
    Parameter("threads", 1, "threads of the model on a CPU; leave one core to the command process", 1, 64),
    Parameter("seed", 0, "seed of the flow's noise", 0, 2**31 - 1),
    Parameter("record", False, "begin once the recorder listens, so that the first chunk can be made again too"),
    Parameter("autostart", False, "configure and activate at start, where no launch system does it"),
)
ENGINE_FAILED = 70
RECORDER_S = 10.0
# A picture wakes the thread that takes. Joints carry the time of their receipt and may wait: each topic keeps the last five, so that
# from a driver that sends a thousand a second there is one from every 5 ms.
TAKE_EVERY_S = 0.01
SAID_AGAIN_S = 10.0
ENDS_WITHIN_S = 5.0


class PolicyNode(WorkingNode):
    """Owns the loop, its thread, the model."""

    def __init__(self) -> None:
        super().__init__("policy", PARAMETERS)
        self._inbox = PolicyInbox()
        self._loop: PolicyLoop | None = None
        self._threads: list[threading.Thread] = []
        self._running = threading.Event()
        self._arrived = threading.Event()
        self._said = ""
        self._said_bad: dict[str, tuple[str, float]] = {}
        self.add_on_set_parameters_callback(self._parameters_changed)

    # Lifecycle

    def configure(self) -> None:
        self._profile, self._instance = profile, _ = robot_of(self)
        checkpoint = find_checkpoint(value(self, "checkpoint"))
        self._loop_clock = NodeClock(self)
        self._entities.undo(self._loop_clock.close)
        self._entities.undo(self._forget_policy)
        self._policy = load_policy(
            checkpoint,
            profile,
            self._instance,
            engine=value(self, "engine"),
            preset=value(self, "preset") or None,
            guidance=value(self, "guidance") or None,
            threads=int(value(self, "threads")),
            seed=int(value(self, "seed")),
        )
        manifest = self._policy.manifest
        if not manifest.trained:
            self.get_logger().warning(f"model '{manifest.name}' is UNTRAINED: it shows the loop, it cannot do the task")
        cameras = tuple(CameraSpec(c.name, round(c.delay_s * 1e9), c.optional) for c in profile.cameras)
        self._builder = ObservationBuilder(cameras, manifest.history.spec)
        names = tuple(camera.name for camera in profile.cameras)
        self._loop = PolicyLoop(self._policy, self._builder, names, manifest.target_rate_hz)
        self._inbox = PolicyInbox(instruction=value(self, "instruction") or manifest.instructions[0])
        self._assembler = JointAssembler(profile)
        self._health = {camera.name: Freshness(500_000_000, camera.rate_hz / 4) for camera in profile.cameras}
        self._times = CycleTimes()
        self._policy.warm_up(self._inbox.instruction)
        self._make_publishers()
        self._make_subscriptions()

    def _forget_policy(self) -> None:
        """A large one and the next do not both fit."""
        self.__dict__.pop("_policy", None)  # it may not have come to be

    def _make_publishers(self) -> None:
        make = self._entities
        self._chunks = make.publisher(JointTrajectory, "~/chunk", qos.NEWEST)
        self._instruction = make.publisher(String, "~/instruction", qos.LATCHED)
        self._cycle = make.publisher(DiagnosticStatus, "~/cycle", qos.COMMAND)
        self._diagnostics = make.publisher(DiagnosticArray, "/diagnostics", qos.COMMAND)
        self._imagined = [
            make.publisher(CompressedImage, f"~/imagined/{camera.name}/compressed", qos.SENSOR) for camera in self._profile.cameras
        ]

    def _make_subscriptions(self) -> None:
        make = self._entities
        for camera in self._profile.cameras:
            kind = CompressedImage if camera.type == "compressed" else Image
            make.polled(kind, camera.topic, self._frame_callback(camera.name), qos.SENSOR, wakes=True)
        for index, topic in enumerate(self._profile.states):
            make.polled(message_class(topic.type), topic.topic, self._joint_callback(index), qos.SENSOR)
        make.subscription(String, value(self, "instruction_topic"), lambda message: self._change_instruction(message.data), qos.COMMAND)
        make.subscription(JointTrajectory, value(self, "committed_topic"), self._on_committed, qos.NEWEST)
        make.service(Trigger, "~/reset", self._on_reset)
        make.service(Trigger, "~/doctor", answering(self._findings))
        make.timer(0.1, self._watch)
        make.timer(1.0, self._report)

    def begin(self) -> None:
        self._join_threads()
        if self._threads:  # two of them would share the model
            raise ConfigurationError("the model still computes the chunk that it was asked for: activate again once it is done")
        self._announce_instruction()
        self._running = running = threading.Event()  # of these threads alone: an earlier one may still have to see that it is over
        running.set()
        work = {"take": self._take, "policy": self._run}
        self._threads = [threading.Thread(target=self._guard, args=(each, running), name=name, daemon=True) for name, each in work.items()]
        for thread in self._threads:
            thread.start()
        self.get_logger().info(f"{self._instance}: following '{self._inbox.instruction}'")

    def end(self) -> None:
        self._running.clear()
        self._arrived.set()
        self._join_threads()

    def _join_threads(self) -> None:
        for thread in self._threads:
            thread.join(timeout=ENDS_WITHIN_S)
        self._threads = [thread for thread in self._threads if thread.is_alive()]

    # The taking thread

    def _guard(self, work: Any, running: threading.Event) -> None:
        """A thread of work that ends by an exception ends the process, which is started anew; the robot holds meanwhile."""
        try:
            work(running)
        except Exception:  # an engine may fail in ways of its own too: a GPU that is lost
            traceback.print_exc()
            os._exit(ENGINE_FAILED)

    def _take(self, running: threading.Event) -> None:
        while running.is_set():
            self._entities.wait(TAKE_EVERY_S)
            self._watch_clock()  # as often as the command process: on simulated time in a hurry a leap is what lies between two looks
            self._entities.take()

    # The policy thread

    def _run(self, running: threading.Event) -> None:
        loop = self._loop
        assert loop is not None
        if value(self, "record"):
            self._await_recorder(running)
        while running.is_set():
            self._arrived.wait(timeout=loop.pause_ns(self._loop_clock.now_ns()) * 1e-9)
            self._arrived.clear()
            out = loop.step(self._inbox, self._loop_clock.now_ns())
            if out is not None and running.is_set():
                self._publish(out)

    def _await_recorder(self, running: threading.Event) -> None:
        deadline_s = time.monotonic() + RECORDER_S
        while running.is_set() and not self._cycle.get_subscription_count():
            if time.monotonic() > deadline_s:
                self.get_logger().warning(f"nobody records what chunks are made from: none listened within {RECORDER_S:g} s, going on")
                return
            time.sleep(0.05)

    def _publish(self, out: PolicyOutbox) -> None:
        self._say(out.verdict)
        if out.inference is None or out.observation is None:
            return
        self._chunks.publish(chunk_to_message(out.inference.chunk, self._loop_clock))
        self._times.published(out.observation, out.inference.timings_s, self._loop_clock.now_ns())
        self._cycle.publish(cycle_status(self._instance, out, self._times, self._policy.latent_hit_rate, self._loop_clock.to_ros))
        if out.inference.imagined is not None:
            for publisher, picture in zip(self._imagined, out.inference.imagined, strict=True):
                _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                message = CompressedImage(format="jpeg", data=data.tobytes())
                message.header.stamp = self._loop_clock.to_stamp(out.observation.stamp_ns)
                publisher.publish(message)

    def _say(self, verdict: Verdict) -> None:
        """Say why there is no chunk, once per change of reason; and once that there is one again."""
        if verdict.code == self._said:
            return
        if not verdict:
            self.get_logger().warning(f"{verdict.code}: {verdict.reason}")
        elif self._said:
            self.get_logger().info("chunks again")
        self._said = verdict.code if not verdict else ""

    def _say_bad(self, code: str, of: str, text: str) -> None:
        """Say what is wrong with a message of stream `of`, and not all the time where every other one is bad, each by other numbers."""
        kind = re.sub(r"[0-9]+", "", text)
        before, at_s = self._said_bad.get(of, ("", 0.0))
        if kind != before or time.monotonic() - at_s > SAID_AGAIN_S:
            self._said_bad[of] = kind, time.monotonic()
            self.get_logger().warning(f"{code}: {text}")

    # Callbacks: store only

    def _frame_callback(self, camera: str) -> Any:
        def on_frame(message: Any, received_ns: int) -> None:
            now_ns = self._loop_clock.from_receipt(received_ns)
            try:
                frame = Frame(camera, self._loop_clock.from_stamp(message.header.stamp), now_ns, picture_decoder(message, camera))
            except ValueError as problem:
                self._health[camera].received(now_ns, valid=False)
                self._builder.refusals["bad_frame"] += 1
                self._say_bad("bad_frame", camera, str(problem))
                return
            self._health[camera].received(now_ns)
            self._inbox.frames.append(frame)
            self._arrived.set()

        return on_frame

    def _joint_callback(self, index: int) -> Any:
        def on_joints(message: Any, received_ns: int) -> None:
            now_ns = self._loop_clock.from_receipt(received_ns)
            try:
                stamp_ns = self._loop_clock.from_stamp(message.header.stamp) if hasattr(message, "header") else now_ns
                state = self._assembler.add(index, message, stamp_ns)
            except ValueError as problem:
                self._builder.refusals["bad_joints"] += 1
                self._say_bad("bad_joints", f"joints {index}", str(problem))
                return
            if state is not None:
                self._inbox.joints.append(state)

        return on_joints

    def _on_committed(self, message: JointTrajectory) -> None:
        """Keep the newest tail; an empty one says that nothing is followed any more."""
        if not message.points:
            self._inbox.tail = None
            return
        tail = chunk_from_message(message, self._loop_clock.from_stamp, self._profile)
        if isinstance(tail, Verdict):
            self._builder.refusals["bad_tail"] += 1
        self._inbox.tail = None if isinstance(tail, Verdict) else tail

    def _change_instruction(self, text: str) -> None:
        if text and text != self._inbox.instruction:
            self._inbox.change_instruction(text)
            self._announce_instruction()
            self.get_logger().info(f"instruction: '{text}'")

    def _announce_instruction(self) -> None:
        self._instruction.publish(String(data=self._inbox.instruction))

    def _parameters_changed(self, parameters: list[Any]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "instruction" and self._loop is not None:
                if not parameter.value:
                    return SetParametersResult(successful=False, reason="instruction: got an empty text, expected a sentence")
                self._change_instruction(parameter.value)
        return SetParametersResult(successful=True)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._inbox.reset()
        response.success, response.message = True, "history and latents forgotten, running chunk discarded"
        return response

    def _findings(self) -> list[Finding]:
        return policy_findings(self._loop_clock.now_ns(), self._profile, self._health, self._builder, self._loop)

    # From the executor's timers

    def _watch_clock(self) -> None:
        verdict = self._loop_clock.check()
        if not verdict:
            self._say(verdict)
            self._inbox.reset()

    def _watch(self) -> None:
        if not self._running.is_set():
            self._watch_clock()
        self._inbox.imagine = any(publisher.get_subscription_count() > 0 for publisher in self._imagined)

    def _report(self) -> None:
        if self._loop is None:
            return
        now_ns = self._loop_clock.now_ns()
        reasons = [freshness.health(now_ns).reason(f"camera '{name}'") for name, freshness in self._health.items()]
        status = loop_status(self._instance, self._loop, self._builder, self._times, [text for text in reasons if text])
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._loop_clock.to_stamp(now_ns)
        self._diagnostics.publish(message)


def main() -> None:
    """Entry point of `ros2 run internvla_a1_ros policy_node`."""
    cv2.setNumThreads(1)  # pictures are decoded side by side as it is
    keep_one_heap()
    sys.setswitchinterval(0.0002)  # a decoded picture, like one that arrives, is noted at once, whatever else runs here
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
