"""Who else is on a topic: arming is refused while another publisher owns a command topic."""

from __future__ import annotations

from rclpy.node import Node


def foreign_publishers(node: Node, topics: list[str], own: bool) -> str | None:
    """Return who else publishes on one of `topics`, None = nobody. `own`: whether this node has one publisher on each."""
    for topic in topics:
        mine = int(own)
        for info in node.get_publishers_info_by_topic(node.resolve_topic_name(topic)):
            same = info.node_name == node.get_name() and info.node_namespace == node.get_namespace()
            if same and mine > 0:
                mine -= 1
                continue
            return f"node {info.node_namespace.rstrip('/')}/{info.node_name} publishes on {topic}"
    return None
