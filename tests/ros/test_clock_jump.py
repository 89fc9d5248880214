"""ROS time that steps: simulated time can be made to, and must never move an arm."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from builtin_interfaces.msg import Time
from harness import READY, command_process, listening, running, wired
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint


def test_a_jump_of_simulated_time_holds_and_clears(domain_id: int, tmp_path: Path) -> None:
    with wired(domain_id) as robot, listening(domain_id) as operator, running(
        (command_process(use_sim_time=True),), domain_id, tmp_path
    ):
        began, offset_s = time.monotonic(), [100.0]
        clock = robot.node.create_publisher(Clock, "/clock", 10)

        def stamp(seconds: float) -> Time:
            return Time(sec=int(seconds), nanosec=int((seconds % 1.0) * 1e9))

        def now_s() -> float:
            return time.monotonic() - began + offset_s[0]

        def publish() -> None:
            clock.publish(Clock(clock=stamp(now_s())))
            for arm, (publisher, message) in enumerate(robot._states):
                message.header.stamp = stamp(now_s())
                message.joint_pos[:] = robot.positions[7 * arm : 7 * arm + 7]
                publisher.publish(message)

        robot.silent = True
        robot.node.create_timer(0.005, publish)

        def send_chunk() -> None:
            message = JointTrajectory(joint_names=list(robot.profile.joint_names))
            message.header.frame_id = "arx_ac_one"
            observed = now_s() - 0.06
            message.header.stamp = stamp(observed)
            for k in range(1, 51):
                swing = 0.3 * np.sin(2 * np.pi * 0.3 * (observed + k / 30)) * np.array([1, 0.5, 0.5, 0.5, 1, 1, 0] * 2)
                point = JointTrajectoryPoint(positions=(READY + swing).tolist())
                ns = round(k * 1e9 / 30)
                point.time_from_start.sec, point.time_from_start.nanosec = ns // 10**9, ns % 10**9
                message.points.append(point)
            robot.chunks.publish(message)

        feeding = robot.node.create_timer(0.1, send_chunk)
        assert operator.wait_for(lambda: operator.state.get("mode") == "hold", 30.0), (tmp_path / "command.log").read_text()
        assert operator.wait_for(lambda: operator.call("command/arm")[0], 10.0), (operator.call("command/arm"), operator.diagnostics)
        assert operator.wait_for(lambda: operator.state.get("mode") == "run", 10.0), operator.state
        feeding.cancel()
        time.sleep(0.05)
        since = time.monotonic()
        offset_s[0] -= 30.0
        assert operator.wait_for(lambda: operator.state.get("mode") == "hold", 2.0), operator.state
        assert "jump" in operator.state["reason"] or "clock" in operator.state["reason"]
        time.sleep(0.5)
        _, joints = robot.arm_commands(1, since)
        assert joints.shape[0] > 5
        steps = np.abs(np.diff(joints[:, :6], axis=0)).max(axis=1)
        assert steps.max() <= robot.profile.max_velocity[7] * 0.01 * 1.001, "the jump moved the arm faster than its limit"
        assert steps[-10:].max() < 1e-5, "it did not come to rest"
        feeding.reset()
        assert operator.wait_for(lambda: operator.state.get("mode") == "run", 10.0), "after the jump new chunks are followed again"
