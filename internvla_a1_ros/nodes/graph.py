"""Who else is on a topic or an action: arming is refused while anyone but us can tell the arms to move."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rclpy.node import Node

from internvla_a1_ros.robots.wires import Command

# What DDS calls a publisher that it has found before its node.
_UNKNOWN = "_NODE_NAME_UNKNOWN_"


def foreign_publishers(node: Node, topics: list[str], own: bool) -> str | None:
    """Return who else publishes on one of `topics`, None = nobody. `own`: whether this node has one publisher on each."""
    for topic in topics:
        other = _another(node, publishers(node, topic), own)
        if other is not None:
            return f"node {other} publishes on {topic}"
    return None


def foreign_commanders(node: Node, commands: Sequence[Command], own: bool) -> str | None:
    """Return who else can tell the joints of `commands` to move, by whichever name, None = nobody. `own`: whether this node can."""
    clients = action_clients(node, {name for command in commands for name, action in command.doors if action})
    for command in commands:
        for i, (name, action) in enumerate(command.doors):
            found = clients[name] if action else publishers(node, name)
            other = _another(node, found, own and i == 0)
            if other is not None:
                return f"node {other} {'is a client of the action' if action else 'publishes on'} {name}"
    return None


def publishers(node: Node, topic: str) -> list[str]:
    """Return the full names of the nodes that publish on `topic`, one for each publisher."""
    infos = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return [_full(info.node_name, info.node_namespace) for info in infos]


def publisher_ids(node: Node, topic: str) -> list[bytes]:
    """Return the gids of those who publish on `topic`."""
    return [bytes(info.endpoint_gid) for info in node.get_publishers_info_by_topic(node.resolve_topic_name(topic))]


def goal_service(node: Node, action: str) -> str:
    """Return the name of the service that takes the goals of `action`."""
    return f"{node.resolve_topic_name(action)}/_action/send_goal"


def action_clients(node: Node, actions: Collection[str]) -> dict[str, list[str]]:
    """Return by action the full names of the nodes that can send goals to it. Each node is asked once."""
    goals = {goal_service(node, action): action for action in actions}
    found: dict[str, list[str]] = {action: [] for action in actions}
    for name, space in node.get_node_names_and_namespaces() if goals else ():
        try:
            of_node = node.get_client_names_and_types_by_node(name, space)
        except RuntimeError:  # it has just left
            continue
        for service, _ in of_node:
            if service in goals:
                found[goals[service]].append(_full(name, space))
    return found


def _another(node: Node, found: Iterable[str], own: bool) -> str | None:
    """The first of `found` that is not this node; another of the same name is another."""
    mine, me = int(own), _full(node.get_name(), node.get_namespace())
    for name in found:
        if name == me and mine > 0:
            mine -= 1
            continue
        return name
    return None


def _full(name: str, space: str) -> str:
    return f"{space.rstrip('/')}/{name}"


class PlanSources:
    """Who sends plans on `topic`: one node at a time may.

    A policy that was killed is known to DDS for some 20 s more, beside the one started in its place under the same name; two of one
    name are two policies only when they stay.
    """

    STAYS_S = 40.0

    def __init__(self, node: Node, topic: str) -> None:
        self._node, self._topic = node, topic
        self._since_s: float | None = None

    def check(self, now_s: float) -> str | None:
        """Return which nodes both send plans at the monotonic time `now_s`, None = there is one at most."""
        names = publishers(self._node, self._topic)
        known = sorted({name for name in names if not name.endswith(_UNKNOWN)})
        if len(known) > 1:
            return f"nodes {' and '.join(known)} both send plans on {self._topic}"
        if len(names) < 2:
            self._since_s = None
            return None
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < self.STAYS_S:
            return None
        return f"{len(names)} nodes of the name {known[0] if known else names[0]} send plans on {self._topic}"
