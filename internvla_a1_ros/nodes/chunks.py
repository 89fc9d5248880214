"""Action chunks on the wire: `trajectory_msgs/JointTrajectory`, stamped with the observation, robot instance in `frame_id`."""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_a1_ros.core.types import ActionChunk
from internvla_a1_ros.nodes.clocks import NodeClock

_S = 1_000_000_000


def chunk_to_message(chunk: ActionChunk, clock: NodeClock) -> JointTrajectory:
    """Return the chunk as a trajectory; point k carries (k + action offset) * dt as its time from start."""
    message = JointTrajectory()
    message.header.stamp = clock.to_stamp(chunk.stamp_ns)
    message.header.frame_id = chunk.robot
    message.joint_names = list(chunk.joint_names)
    points = []
    for k, row in enumerate(chunk.positions):
        since = chunk.time_of(k) - chunk.stamp_ns
        points.append(JointTrajectoryPoint(positions=row.tolist(), time_from_start=Duration(sec=since // _S, nanosec=since % _S)))
    message.points = points
    return message


def chunk_from_message(message: Any, clock: NodeClock) -> ActionChunk:
    """Return the trajectory as a chunk. Raises ValueError in one sentence for anything that is not a chunk.

    Names and robot are not judged here: that needs the profile and is the first of the command loop's checks.
    """
    names, points = tuple(message.joint_names), message.points
    if not points:
        raise ValueError("chunk: got a trajectory without points, expected at least one")
    for k, point in enumerate(points):
        if len(point.positions) != len(names):
            raise ValueError(f"chunk: point {k} has {len(point.positions)} positions, expected {len(names)}, one for each joint name")
    times = np.array([point.time_from_start.sec * _S + point.time_from_start.nanosec for point in points], dtype=np.int64)
    steps = np.diff(times)
    dt_ns = int(steps[0]) if len(steps) else 33_333_333
    if len(steps) and (dt_ns <= 0 or np.abs(steps - dt_ns).max() > 1_000_000):
        raise ValueError(f"chunk: got points {steps.min() * 1e-6:.1f} to {steps.max() * 1e-6:.1f} ms apart, expected them evenly spaced")
    if len(steps):
        dt_ns = int(round((times[-1] - times[0]) / len(steps)))
    stamp_ns = clock.from_stamp(message.header.stamp)
    positions = np.array([point.positions for point in points], dtype=np.float64)
    return ActionChunk(message.header.frame_id, names, stamp_ns, stamp_ns + int(times[0]), dt_ns, positions)
