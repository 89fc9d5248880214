"""The doctor's ear: listens for some seconds to all that a profile names and reads the graph. It never publishes anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from internvla_a1_ros.commissioning.doctor_collect import Collector
from internvla_a1_ros.commissioning.doctor_facts import Discovery, Endpoint, Ends, Facts, NodeState
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.entities import NoExecutor
from internvla_a1_ros.nodes.graph import action_clients, goal_service
from internvla_a1_ros.nodes.vendor import message_class
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import FOLLOW_TRAJECTORY, Command
from internvla_a1_ros.runtime.wire_joints import joint_values
from internvla_a1_ros.runtime.wire_pictures import picture_decoder

# Best effort hears every publisher. Deep, because it is polled: a driver that sends 1000 a second fills 20 between two polls.
_LISTENING = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=256, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE
)
_POLL_S, _SPIN_S = 0.005, 0.05
# Fast DDS announces itself every 3 s: whoever missed the first announcements is found then. Nothing is judged, nor missed, before.
_SETTLE_S = 4.0
_TAKEN_AT_ONCE = 64
_NODES = ("policy", "command")


class DoctorEar:
    """A node of its own context. `close` ends it."""

    def __init__(
        self, profile: RobotProfile, environment: Mapping[str, str], namespace: str = "", instance: str = "", wires: Iterable[str] = ()
    ) -> None:
        """Our nodes are looked for in `namespace`; of several robots' diagnostics those of `instance` count. `wires`: more topics.

        Raises ConfigurationError where the middleware does not start.
        """
        self._profile, self._environment = profile, environment
        self._namespace, self._instance, self._wires = namespace, instance, tuple(wires)
        self._context = rclpy.Context()
        try:
            rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
            self._node = Node(
                "doctor", namespace=namespace or None, context=self._context, enable_rosout=False, start_parameter_services=False
            )
        except Exception as problem:  # of the middleware, which has no class for it
            raise ConfigurationError(f"the middleware does not start: {str(problem).splitlines()[0]}") from None
        self._began_s = time.monotonic()
        self._collector = self._new_collector()
        self._deaf: dict[str, str] = {}
        self._subscriptions: list[tuple[str, Any, bool]] = []
        self._states = dict.fromkeys(_NODES, "")
        self._said: dict[str, dict[str, str]] = {name: {} for name in _NODES}
        self._messages = dict.fromkeys(_NODES, "")
        self._listen_to_topics()
        self._listen_to_nodes()
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def _new_collector(self) -> Collector:
        return Collector(self._profile, picture_decoder, joint_values)

    def _listen_to_topics(self) -> None:
        nobody = NoExecutor()
        kinds: dict[str, Any] = {c.topic: CompressedImage if c.type == "compressed" else Image for c in self._profile.cameras}
        for wire in self._profile.states:
            try:
                kinds[wire.topic] = message_class(wire.type)
            except ConfigurationError as problem:
                self._deaf[wire.topic] = str(problem)
        for topic, kind in kinds.items():
            made = self._node.create_subscription(kind, topic, lambda _: None, _LISTENING, callback_group=nobody)
            self._subscriptions.append((topic, made, kind in (CompressedImage, Image)))

    def _listen_to_nodes(self) -> None:
        listen = self._node.create_subscription
        listen(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.COMMAND)
        listen(DiagnosticStatus, "command/state", self._on_state, qos.LATCHED)
        self._clients = {name: self._node.create_client(GetState, f"{name}/get_state") for name in _NODES}
        self._asked: dict[str, Any] = {}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.partition(":")[0]
            if status.name in ("policy: loop", "command: loop") and self._instance in ("", status.hardware_id):
                self._messages[name] = status.message
                self._said[name].update({item.key: item.value for item in status.values})

    def _on_state(self, message: DiagnosticStatus) -> None:
        self._said["command"].update({item.key: item.value for item in message.values})

    def listen(self, seconds: float, progress: Callable[[float], None] = lambda share: None) -> Facts:
        """Wait until the graph is known, listen for `seconds` and return what was seen; `progress` is told the share that is over."""
        settled_s = self._began_s + _SETTLE_S
        self._hear(settled_s, lambda: not self._collector.silent and time.monotonic() + seconds >= settled_s, lambda: progress(0.0))
        self._collector = self._new_collector()
        began_s = time.monotonic()
        self._hear(began_s + seconds, lambda: False, lambda: progress((time.monotonic() - began_s) / seconds))
        return self._facts(seconds, time.time_ns())

    def _hear(self, end_s: float, enough: Callable[[], bool], each: Callable[[], None]) -> None:
        """Listen until `end_s` of the monotonic clock, or until `enough`; call `each` some times a second."""
        spun_s = 0.0
        while (now_s := time.monotonic()) < end_s and not enough():
            busy = self._take()
            if now_s - spun_s >= _SPIN_S:
                spun_s = now_s
                self._ask()
                self._executor.spin_once(timeout_sec=0.0)
                each()
            if not busy:
                time.sleep(_POLL_S)

    def _take(self) -> bool:
        """Hand what has arrived to the collector; return whether there may be more."""
        more = False
        for topic, subscription, pictures in self._subscriptions:
            for taken in range(_TAKEN_AT_ONCE):
                with subscription.handle:
                    found = subscription.handle.take_message(subscription.msg_type, False)
                if found is None:
                    break
                message, info = found
                received_ns = int(info.get("received_timestamp") or 0) or time.time_ns()
                n_bytes = len(message.data) if pictures else 0
                self._collector.heard(topic, message, received_ns, int(info.get("source_timestamp") or 0), n_bytes)
                more = more or taken == _TAKEN_AT_ONCE - 1
        return more

    def _ask(self) -> None:
        """Ask our nodes for their lifecycle state, once each is there, and note the answers."""
        for name, client in self._clients.items():
            if name not in self._asked and client.service_is_ready():
                self._asked[name] = client.call_async(GetState.Request())
        for name, answer in self._asked.items():
            if answer.done():
                self._states[name] = answer.result().current_state.label

    def _facts(self, seconds: float, until_ns: int) -> Facts:
        known = self._node.get_topic_names_and_types()
        topics = {name: tuple(kinds) for name, kinds in known if self._node.count_publishers(name) > 0}
        streams = {}
        for topic in self._collector.topics:
            name = self._node.resolve_topic_name(topic)
            publishers = tuple(_endpoint(info) for info in self._node.get_publishers_info_by_topic(name))
            # Of the publishers: the graph's types are its listeners' too, the doctor's own among them.
            types = tuple(sorted({end.type for end in publishers}))
            streams[topic] = self._collector.stream(topic, types, publishers, self._deaf.get(topic, ""))
        nodes = self._other_nodes()
        return Facts(
            source="live",
            seconds=seconds,
            until_ns=until_ns,
            streams=streams,
            views=self._collector.views(),
            joints=self._collector.joints(),
            topics=topics,
            commands={command.topic: self._command(command) for command in self._profile.commands},
            wires={topic: self._ends(topic) for topic in self._wires},
            discovery=self._discovery(nodes),
            nodes={name: NodeState(self._states[name], self._said[name], self._messages[name]) for name in _NODES},
            namespace=self._namespace,
            simulated="/sim_node" in nodes,
            simulated_time=self._node.count_publishers("/clock") > 0,
        )

    def _command(self, command: Command) -> Ends:
        (own, *others) = (self._action(name) if action else self._ends(name) for name, action in command.doors)
        return replace(own, publishers=(*own.publishers, *(end for other in others for end in other.publishers)))

    def _ends(self, topic: str) -> Ends:
        name = self._node.resolve_topic_name(topic)
        publishers = tuple(_endpoint(info) for info in self._node.get_publishers_info_by_topic(name))
        return Ends(publishers, tuple(_endpoint(info) for info in self._node.get_subscriptions_info_by_topic(name)))

    def _action(self, name: str) -> Ends:
        """Goals are sent through a service: who is its client may command the robot."""
        goals = goal_service(self._node, name)
        clients = tuple(Endpoint(node, FOLLOW_TRAJECTORY) for node in action_clients(self._node, [name])[name])
        served = any(service == goals for service, _ in self._node.get_service_names_and_types())
        return Ends(clients, (Endpoint("an action server", FOLLOW_TRAJECTORY, "reliable", "volatile"),) if served else ())

    def _discovery(self, nodes: tuple[str, ...]) -> Discovery:
        told = self._environment
        local = "LOCALHOST (ROS_LOCALHOST_ONLY)" if told.get("ROS_LOCALHOST_ONLY") == "1" else ""
        where = told.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") or local
        domain_id, middleware = int(self._context.get_domain_id()), get_rmw_implementation_identifier()
        return Discovery(domain_id, where, told.get("ROS_STATIC_PEERS", ""), middleware, nodes)

    def _other_nodes(self) -> tuple[str, ...]:
        mine = f"{self._node.get_namespace().rstrip('/')}/{self._node.get_name()}"
        names = [f"{space.rstrip('/')}/{name}" for name, space in self._node.get_node_names_and_namespaces()]
        return tuple(sorted(name for name in names if name != mine))

    def close(self) -> None:
        """End the ear."""
        self._executor.shutdown(timeout_sec=0.5)
        self._context.try_shutdown()


def _endpoint(info: Any) -> Endpoint:
    name = "(unnamed)" if "UNKNOWN" in info.node_name else f"{info.node_namespace.rstrip('/')}/{info.node_name}"
    return Endpoint(name, info.topic_type, info.qos_profile.reliability.name.lower(), info.qos_profile.durability.name.lower())
