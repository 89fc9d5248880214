"""command_node: the only publisher to the robot. A fixed-rate loop over what callbacks stored; no torch anywhere.

Threads: the `command` thread takes joints, e-stop and heartbeat, steps the loop and publishes commands, once per tick; the
executor's thread runs what is rare: plans, instructions, services, reports. The first never waits for the second.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from sensor_msgs.msg import JointState as JointStateMessage
from std_msgs.msg import Bool, Empty, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from internvla_a1_ros.commissioning.doctor_findings import Finding
from internvla_a1_ros.core.freshness import Freshness
from internvla_a1_ros.core.types import Mode, Verdict, refused
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.chunks import chunk_to_message
from internvla_a1_ros.nodes.clocks import NodeClock
from internvla_a1_ros.nodes.command_report import loop_status, state_status
from internvla_a1_ros.nodes.doctor_service import answering, command_findings
from internvla_a1_ros.nodes.graph import PlanSources, foreign_commanders, publisher_ids
from internvla_a1_ros.nodes.lifecycle import WorkingNode, run
from internvla_a1_ros.nodes.outputs import check_output, make_output
from internvla_a1_ros.nodes.pacing import Pacer
from internvla_a1_ros.nodes.parameters import Parameter, value
from internvla_a1_ros.nodes.realtime import be_punctual, settle
from internvla_a1_ros.nodes.robot import PARAMETERS as ROBOT_PARAMETERS
from internvla_a1_ros.nodes.robot import robot_of
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.runtime.command_io import CommandInbox, CommandOutbox, Request
from internvla_a1_ros.runtime.command_loop import CommandLoop
from internvla_a1_ros.runtime.tick_log import TickLog, to_json
from internvla_a1_ros.runtime.tickets import Event
from internvla_a1_ros.runtime.wire_chunks import chunk_from_message
from internvla_a1_ros.runtime.wire_joints import JointAssembler
from internvla_a1_ros.safety import machine as sm
from internvla_a1_ros.safety.estop import EstopPresses
from internvla_a1_ros.safety.instruction import FollowedInstruction

PARAMETERS = (
    *ROBOT_PARAMETERS,
    Parameter("dry_run", True, "true: everything runs, nothing is ever sent to the robot"),
    Parameter("heartbeat_timeout_s", 0.0, "silence on ~/heartbeat longer than this is an e-stop; 0: no heartbeat is expected", 0.0, 10.0),
    Parameter("speed_scale", 1.0, "share of the speed limits that may be used", 0.0, 1.0, read_only=False),
    Parameter("chunk_topic", "policy/chunk", "where the policy's chunks come from"),
    Parameter("instruction_topic", "policy/instruction", "where the policy says which instruction it follows"),
    Parameter("estop_topic", "e_stop", "std_msgs/Bool; true stops and latches"),
    Parameter("record", False, "say on ~/ticks what every tick was given and made, for the recorder"),
    Parameter("autostart", False, "configure and activate at start, where no launch system does it"),
)
_SERVICES = (Request.ARM, Request.DISARM, Request.PAUSE, Request.RESUME, Request.RESET, Request.READY)
_SAID_AGAIN_S, _TICKS_AT_ONCE = 10.0, 50
_ALWAYS = (Request.DISARM, Request.PAUSE)  # to come to rest is never too late
_REPORTED_TICKS = 6000  # one minute at 100 Hz


class CommandNode(WorkingNode):
    """Owns the loop, its thread and the robot's publishers. `refused_realtime`: what the system refused, to be reported."""

    def __init__(self, refused_realtime: str = "") -> None:
        super().__init__("command", PARAMETERS)
        self._refused_realtime = refused_realtime
        self._events: deque[Event] = deque(maxlen=256)
        self._inbox = CommandInbox()
        self._presses = EstopPresses()
        self._ended_as = sm.State.INACTIVE
        self._loop: CommandLoop | None = None
        self._outbox: CommandOutbox | None = None
        self._thread: threading.Thread | None = None
        self._running = threading.Event()
        self.add_on_set_parameters_callback(self._parameters_changed)

    # Lifecycle

    def configure(self) -> None:
        self._profile, self._instance = profile, _ = robot_of(self)
        self._dry_run = bool(value(self, "dry_run"))
        self._loop_clock = NodeClock(self)
        self._entities.undo(self._loop_clock.close)
        # What was latched stays latched, and a pressed e-stop pressed, whatever the lifecycle does meanwhile: a person resets it.
        timeout_s = value(self, "heartbeat_timeout_s") or None
        self._loop = CommandLoop(profile, self._instance, dry_run=self._dry_run, heartbeat_timeout_s=timeout_s, state=self._ended_as)
        self._inbox = CommandInbox(speed_scale=value(self, "speed_scale"), estop_level=self._presses.held)
        self._pacer = Pacer(profile.dt_ns, _REPORTED_TICKS)
        self._assembler = JointAssembler(profile)
        self._joint_health = [Freshness(round(profile.max_state_age_s * 1e9)) for _ in profile.states]
        self._bad_joints = "", 0.0
        self._instruction = FollowedInstruction()
        self._said_mode: Mode | None = None
        self._following = False
        self._sent_as: tuple[Mode | None, bool] = (None, False)
        self._log = TickLog() if value(self, "record") else None
        self._plan_sources = PlanSources(self, value(self, "chunk_topic"))
        self._make_publishers()
        self._make_subscriptions()
        self._watch_others()
        if self._refused_realtime:
            self.get_logger().warning(self._refused_realtime)

    def _make_publishers(self) -> None:
        make, profile = self._entities, self._profile
        for command in profile.commands:
            check_output(command, profile)
        # In a dry run not even a publisher exists on the robot's topics.
        self._outputs = [make_output(command, profile, make, self._say_refused) for command in (() if self._dry_run else profile.commands)]
        self._proposed = make.publisher(JointStateMessage, "~/proposed", qos.SENSOR)
        self._proposed_message = JointStateMessage(name=list(profile.joint_names), position=[0.0] * profile.dof)
        self._committed = make.publisher(JointTrajectory, "~/committed", qos.NEWEST)
        self._ticks = make.publisher(String, "~/ticks", qos.COMMAND) if self._log is not None else None
        self._state = make.publisher(DiagnosticStatus, "~/state", qos.LATCHED)
        self._diagnostics = make.publisher(DiagnosticArray, "/diagnostics", qos.COMMAND)

    def _make_subscriptions(self) -> None:
        make = self._entities
        for index, topic in enumerate(self._profile.states):
            make.polled(message_class(topic.type), topic.topic, self._joint_callback(index), qos.SENSOR)
        make.subscription(JointTrajectory, value(self, "chunk_topic"), self._on_chunk, qos.NEWEST)
        make.polled_of(String, value(self, "instruction_topic"), self._on_instruction, qos.LATCHED)
        for each in (qos.STOP, qos.STOP_RELIABLE, qos.STOP_LATCHED):
            make.polled_of(Bool, value(self, "estop_topic"), self._on_estop, each)
        make.polled(Empty, "~/heartbeat", self._on_heartbeat, qos.STOP)
        for request in _SERVICES:
            make.service(Trigger, f"~/{request.value}", self._service(request))
        make.service(Trigger, "~/reset_statistics", self._on_reset_statistics)
        make.service(Trigger, "~/doctor", answering(self._findings))
        make.timer(0.1, self._report_state)
        if self._log is not None:
            make.timer(0.1, self._report_ticks)
        make.timer(0.1, self._hear_while_inactive)
        make.timer(0.5, self._watch_others)
        make.timer(1.0, self._report_diagnostics)

    def begin(self) -> None:
        settle()
        self._inbox.ask(Request.ACTIVATE)
        self._running.set()
        self._thread = threading.Thread(target=self._run, name="command", daemon=True)
        self._thread.start()
        text = "dry run: nothing is sent to the robot" if self._dry_run else "LIVE: commands reach the robot once it is armed"
        self.get_logger().warning(f"{self._instance}: {text}")

    def close(self) -> None:
        """Bring the robot to rest and stop the loop; called once at the end of the process."""
        super().close()
        self._report_state()
        self._report_ticks(messages=1000)  # all that is left: nothing is commanded any more

    def end(self) -> None:
        """Ask the loop to end: it decelerates, sends its hold last and says that it rests. Bounded by two seconds."""
        if self._thread is None:
            return
        ticket = self._inbox.ask(Request.DEACTIVATE)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and self._thread.is_alive():
            out = self._outbox
            if ticket.verdict is not None and out is not None and out.at_rest and not out.send:
                break
            time.sleep(0.002)
        self._running.clear()
        self._thread.join(timeout=1.0)
        self._thread = None
        if self._loop is not None:  # also where it did not get to it: what is latched stays so
            self._ended_as = sm.transition(self._loop.state, sm.Event.DEACTIVATE)[0]

    # The command thread

    def _run(self) -> None:
        loop, inbox, clock, pacer = self._loop, self._inbox, self._loop_clock, self._pacer
        assert loop is not None
        pacer.start(clock)
        try:
            while True:
                now_ns, missed = pacer.wait(clock, self._running)
                if not self._running.is_set():
                    break
                loop.counters.missed_ticks += missed
                self._tick(loop, inbox, clock, now_ns)
        except Exception:
            # The loop turns bad data into verdicts; what gets here is a defect. The robot keeps its last command, the
            # process ends, and with it the whole deployment.
            traceback.print_exc()
            os._exit(1)

    def _tick(self, loop: CommandLoop, inbox: CommandInbox, clock: NodeClock, now_ns: int) -> None:
        if not clock.check():
            inbox.clock_jump, now_ns = True, clock.now_ns()  # the tick was scheduled in the time before
        self._entities.take()
        inbox.estop_level = self._presses.held
        if self._log is not None:
            self._log.before(inbox)
        out = loop.step(inbox, now_ns)
        if self._log is not None:
            self._log.after(now_ns, out, loop.target)
        if out.send:
            self._send(out, now_ns)
        elif out.would_send:
            self._proposed_message.position = out.positions.tolist()
            self._proposed.publish(self._proposed_message)
        if out.events:
            self._events.extend(out.events)
        if any(out.chunk_verdicts) and out.sampled_ns:
            self._publish_committed(out.sampled_ns)
        elif self._following and not out.sampled_ns:
            self._committed.publish(JointTrajectory())  # what was committed is not followed any more
        self._following = out.sampled_ns != 0
        self._outbox = out

    def _send(self, out: CommandOutbox, now_ns: int) -> None:
        """Send to every arm, whatever happens with one of them."""
        assert self._loop is not None
        stamp = self._loop_clock.to_stamp(now_ns)
        urgent, self._sent_as = out.mode is not self._sent_as[0] or out.at_rest is not self._sent_as[1], (out.mode, out.at_rest)
        for output in self._outputs:
            try:
                output.send(out.positions, stamp, self._loop.way_to_rest, urgent)
            except Exception as problem:
                self._events.append(Event("error", "publish_failed", f"{output.topic}: publishing failed: {problem}"))

    def _say_refused(self, text: str) -> None:
        self._events.append(Event("error", "refused_by_controller", text))

    def _publish_committed(self, from_ns: int) -> None:
        """Say what will be executed from the plan's time `from_ns` on, which is that of this tick's command."""
        assert self._loop is not None
        if self._committed.get_subscription_count() == 0:
            return
        committed = self._loop.committed(from_ns)
        if committed is not None:
            self._committed.publish(chunk_to_message(committed, self._loop_clock))

    # Callbacks: store only

    def _joint_callback(self, index: int) -> Any:
        def on_joints(message: Any, received_ns: int) -> None:
            now_ns = self._loop_clock.from_receipt(received_ns)
            try:
                stamp_ns = self._loop_clock.from_stamp(message.header.stamp) if hasattr(message, "header") else now_ns
                state = self._assembler.add(index, message, stamp_ns)
            except ValueError as problem:
                self._joint_health[index].received(now_ns, valid=False)
                self._say_bad_joints(str(problem))
                return
            self._joint_health[index].received(now_ns)
            if state is not None:
                self._inbox.see_joints(state, now_ns)

        return on_joints

    def _say_bad_joints(self, text: str) -> None:
        now_s = time.monotonic()
        if text != self._bad_joints[0] or now_s - self._bad_joints[1] > _SAID_AGAIN_S:
            self._bad_joints = text, now_s
            self._events.append(Event("warn", "bad_joints", text))

    def _on_chunk(self, message: JointTrajectory) -> None:
        strange = self._instruction.strange
        item = chunk_from_message(message, self._loop_clock.from_stamp, self._profile) if not strange else refused("instruction", strange)
        self._inbox.chunks.append(item)

    def _on_instruction(self, message: String, who: bytes) -> None:
        if self._instruction.hear(message.data, who, armed=self._loop is not None and self._loop.armed):
            self._inbox.instruction_epoch_ns = self._loop_clock.now_ns()
        if self._instruction.strange:
            self._events.append(Event("error", "instruction", self._instruction.strange))

    def _on_estop(self, message: Bool, who: bytes) -> None:
        self._presses.say(who, bool(message.data))
        if message.data:
            self._inbox.estop_edge = True  # also where it is released before the tick

    def _on_heartbeat(self, _: Empty, received_ns: int) -> None:
        self._inbox.heartbeat_ns = self._loop_clock.from_receipt(received_ns)

    def _service(self, request: Request) -> Any:
        def serve(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if request in (Request.ARM, Request.RESET):
                self._watch_others()  # not half a second old when it matters
            verdict = self._ask(request)
            if verdict and request in (Request.ARM, Request.RESUME):
                self._instruction.accept()  # whoever asks for motion has seen what is followed
            response.success, response.message = bool(verdict), verdict.reason
            return response

        return serve

    def _ask(self, request: Request) -> Verdict:
        """Hand a request to the loop and wait for the tick that answers it."""
        if self._thread is None:
            return refused("inactive", f"{request.value}: the command node is not active")
        inbox = self._inbox
        return self.answer(inbox.ask(request), 0.5, None if request in _ALWAYS else inbox.requests)

    def _on_reset_statistics(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._pacer.reset_statistics()
        response.success = True
        return response

    def _findings(self) -> list[Finding]:
        now_ns, health = self._loop_clock.now_ns(), self._joint_health
        return command_findings(now_ns, self._profile, health, self._refused_realtime, self._inbox, self._loop, self._outbox)

    def _parameters_changed(self, parameters: list[Any]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "speed_scale":
                self._inbox.speed_scale = float(parameter.value)
        return SetParametersResult(successful=True)

    # From the executor's timers

    def _hear_while_inactive(self) -> None:
        """Hear what the loop will hear once it runs: of many messages that wait only the last are kept, and one may be a press."""
        if self._thread is None:
            self._entities.take()

    def _watch_others(self) -> None:
        foreign = foreign_commanders(self, self._profile.commands, own=len(self._outputs) > 0)
        self._presses.present(publisher_ids(self, value(self, "estop_topic")))
        self._inbox.foreign_publisher = foreign or self._plan_sources.check(time.monotonic())

    def _report_events(self) -> None:
        while self._events:
            self.say(self._events.popleft())

    def _report_state(self) -> None:
        self._report_events()
        out, loop = self._outbox, self._loop
        if out is None or loop is None:
            return
        queue_s = max(0.0, (loop.plan_end_ns - self._loop_clock.now_ns()) * 1e-9)
        self._state.publish(state_status(self._instance, out, self._dry_run, queue_s))

    def _report_ticks(self, messages: int = 4) -> None:
        """Hand the ticks since the last time to the recorder; until it listens they are kept.

        Few at a time: to write many down at once would hold up the command thread, which shares the interpreter.
        """
        if self._loop is not None and self._log is not None and self._ticks is not None and self._ticks.get_subscription_count():
            while messages > 0 and (ticks := self._log.drain(_TICKS_AT_ONCE)):
                self._ticks.publish(String(data=to_json(ticks)))
                messages -= 1

    def _report_diagnostics(self) -> None:
        if self._loop is None:
            return
        now_ns = self._loop_clock.now_ns()
        warnings = [self._refused_realtime] if self._refused_realtime else []
        for topic, freshness in zip(self._profile.states, self._joint_health, strict=True):
            health = freshness.health(now_ns)
            if not health.ok:
                warnings.append(health.reason(topic.topic))
        message = DiagnosticArray(status=[loop_status(self._instance, self._loop.counters, self._pacer.statistics(), warnings)])
        message.header.stamp = self._loop_clock.to_stamp(now_ns)
        self._diagnostics.publish(message)


def main() -> None:
    """Entry point of `ros2 run internvla_a1_ros command_node`; `--no-realtime` leaves scheduling and memory as they are."""
    refused_realtime = "real-time scheduling not asked for (--no-realtime)" if "--no-realtime" in sys.argv else be_punctual()
    sys.exit(run(lambda: CommandNode(refused_realtime)))


if __name__ == "__main__":
    main()
