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
# One subscription cannot match every publisher of a stop and lose nothing: best effort hears all as they come, a reliable one is sent
# again what was lost, a latched one hears of a button that was pressed before (the depth: so many buttons). All three listen.
STOP = _profile(10, ReliabilityPolicy.BEST_EFFORT)
STOP_RELIABLE = _profile(10, ReliabilityPolicy.RELIABLE)
STOP_LATCHED = _profile(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
# As rclpy itself listens to simulated time.
CLOCK = _profile(1, ReliabilityPolicy.BEST_EFFORT)
