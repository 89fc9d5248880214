"""Quality of service, chosen once per kind of stream."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


# Best effort matches every publisher, reliable or not; depth 5 as the sensor-data profile.
SENSOR = _profile(5, ReliabilityPolicy.BEST_EFFORT)
# A chunk is worth its newest only, and must arrive.
NEWEST = _profile(1, ReliabilityPolicy.RELIABLE)
COMMAND = _profile(10, ReliabilityPolicy.RELIABLE)
# Who comes late still learns the instruction and the state.
LATCHED = _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
# A latched or reliable subscription would refuse some publishers (a PLC bridge, `ros2 topic pub`): stops are taken as they come.
STOP = _profile(10, ReliabilityPolicy.BEST_EFFORT)
# As rclpy itself listens to simulated time.
CLOCK = _profile(1, ReliabilityPolicy.BEST_EFFORT)
