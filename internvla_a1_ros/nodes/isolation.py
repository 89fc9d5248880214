"""What keeps simulation and demo away from real robots: this machine only, and nobody else on the same topics."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rclpy.node import Node

from internvla_a1_ros.core.errors import ConfigurationError


def require_localhost(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigurationError with what to type unless ROS discovery is confined to this machine."""
    local = environment.get("ROS_LOCALHOST_ONLY") == "1" or environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "LOCALHOST"
    if not local:
        raise ConfigurationError(
            "the simulation does not start while it could reach a real robot: "
            "type 'export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST' (on Humble 'export ROS_LOCALHOST_ONLY=1') and start it again"
        )
    peers = environment.get("ROS_STATIC_PEERS", "")
    if peers.strip(";"):
        raise ConfigurationError(
            f"the simulation does not start while it could reach a real robot: ROS_STATIC_PEERS is '{peers}', type 'unset ROS_STATIC_PEERS'"
        )


def refuse_foreign(node: Node, publishes: Iterable[str], obeys: Iterable[str], wait_s: float) -> None:
    """Raise ConfigurationError where someone else is on these topics; called before `node` has endpoints on them.

    Discovery takes time: the graph is watched for `wait_s`.
    """
    looks = (
        *((topic, "publisher", node.get_publishers_info_by_topic) for topic in publishes),
        *((topic, "listener", node.get_subscriptions_info_by_topic) for topic in obeys),
    )
    end_s = time.monotonic() + wait_s
    while True:
        found = [f"{kind} {_name(end)} on {topic}" for topic, kind, look in looks for end in look(topic)]
        # An endpoint is seen before its node's name is.
        if found and (time.monotonic() >= end_s or not any("(unnamed)" in each for each in found)):
            raise ConfigurationError(
                f"the simulation does not start beside a real robot or a second simulation: found {found[0]}"
                f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}; stop it or set another ROS_DOMAIN_ID "
                "(a process ended with kill -9 is seen for some 20 s more)"
            )
        if time.monotonic() >= end_s:
            return
        time.sleep(0.05)


def _name(end: Any) -> str:
    return "(unnamed)" if "UNKNOWN" in end.node_name else f"{end.node_namespace.rstrip('/')}/{end.node_name}"
