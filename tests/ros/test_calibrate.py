"""Calibration over DDS: delays from a small motion through the guarded command process, gripper readings guided step by step."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from harness import PYTHON, Robot, command_process, listening, running
from sensor_msgs.msg import CompressedImage

from internvla_a1_ros.commissioning.calibration_file import Delays, Grippers, load_calibration
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.calibration_ear import CalibrationEar
from internvla_a1_ros.robots.profile import load_profile

ARM_DELAY_S, CAMERA_DELAY_S = 0.040, 0.030
PX_PER_RAD = 200.0


class LateRobot(Robot):
    """An AC One's wires whose arms follow 40 ms late, and a head camera whose stamps are 30 ms late."""

    def __init__(self, domain_id: int) -> None:
        self.told: list[list[tuple[float, np.ndarray[Any, Any]]]] = [[], []]
        rng = np.random.default_rng(0)
        self.texture = cv2.GaussianBlur(rng.normal(128, 400, (120, 260)).astype(np.float32), (0, 0), 5)
        super().__init__(domain_id, load_profile("arx_ac_one"))
        camera = self.profile.cameras[0]
        self._pictures = self.node.create_publisher(CompressedImage, camera.topic, qos.SENSOR)
        self.node.create_timer(1 / 30, self._take_picture)

    def _on_command(self, arm: int, message: Any) -> None:
        self.told[arm].append((message.header.stamp.sec + message.header.stamp.nanosec * 1e-9, np.array(message.joint_pos[:7])))

    def _now_s(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def _at(self, arm: int, at_s: float) -> np.ndarray[Any, Any]:
        told = self.told[arm][-100:]
        if not told:
            return self.positions[7 * arm : 7 * arm + 7]
        times, values = np.array([t for t, _ in told]), np.array([v for _, v in told])
        return np.array([np.interp(at_s - ARM_DELAY_S, times, column) for column in values.T])

    def _publish(self) -> None:
        for arm, (publisher, message) in enumerate(self._states):
            now = self.node.get_clock().now()
            message.joint_pos[:] = self._at(arm, now.nanoseconds * 1e-9)
            message.header.stamp = now.to_msg()
            publisher.publish(message)

    def _take_picture(self) -> None:
        now = self.node.get_clock().now()
        moved = 50.0 + PX_PER_RAD * self._at(0, now.nanoseconds * 1e-9 - CAMERA_DELAY_S)[0]
        whole, share = int(moved), np.float32(moved - int(moved))
        picture = self.texture[:, whole : whole + 160] * (1 - share) + self.texture[:, whole + 1 : whole + 161] * share
        _, data = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8))
        message = CompressedImage(format="jpeg", data=data.tobytes())
        message.header.stamp = now.to_msg()
        self._pictures.publish(message)


@pytest.fixture
def robot(domain_id: int) -> Iterator[LateRobot]:
    made = LateRobot(domain_id + 8)
    yield made
    made.close()


def calibrate(domain_id: int, *words: str) -> subprocess.Popen[str]:
    """Start the command line in the tests' domain."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id + 8), "COLUMNS": "200"}
    command = [PYTHON, "-u", "-m", "internvla_a1_ros.cli.main", "calibrate", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_delays_from_a_small_motion_through_the_command_process(robot: LateRobot, domain_id: int, tmp_path: Path) -> None:
    with listening(domain_id + 8) as operator, running((command_process(),), domain_id + 8, tmp_path) as supervisor:
        assert operator.wait_for(lambda: operator.state.get("mode") == "hold", 30.0), (tmp_path / "command.log").read_text()
        ear = CalibrationEar(robot.profile, "arx_ac_one", commands=True, domain_id=domain_id + 8)
        try:
            with pytest.raises(ConfigurationError, match="the command process is not armed"):
                ear.record(1.0, "left_joint1")
            with pytest.raises(ConfigurationError, match="got an amplitude of 0.2 rad, allowed up to 0.1"):
                ear.record(1.0, "left_joint1", 0.2)
            assert operator.wait_for(lambda: operator.call("command/arm")[0], 10.0)
            with pytest.raises(ConfigurationError, match="/robot publishes on policy/chunk: stop the policy"):
                ear.record(1.0, "left_joint1")
            robot.node.destroy_publisher(robot.chunks)
            # Disarmed in the middle of it, the motion ends with a reason.
            disarm = threading.Timer(0.7, operator.call, ["command/disarm"])
            disarm.start()
            with pytest.raises(ConfigurationError, match="the command process is not armed"):
                ear.record(1.0, "left_joint1")
            disarm.join()
        finally:
            ear.close()
        assert operator.wait_for(lambda: operator.call("command/arm")[0], 10.0)
        words = ("delays", "--move", "left_joint1", "--camera", "head", "--folder", str(tmp_path))
        process = calibrate(domain_id, *words)
        said, problem = process.communicate(timeout=40)
        assert process.returncode == 0, said + problem
        assert supervisor.check() is None and operator.state["mode"] in ("run", "hold") and operator.state["armed"] == "True"
    found = load_calibration(tmp_path, "arx_ac_one", "delays", datetime.now(timezone.utc))
    assert isinstance(found, Delays)
    assert found.actuation_s == pytest.approx(ARM_DELAY_S, abs=0.005)
    assert found.cameras_s["head"] == pytest.approx(CAMERA_DELAY_S, abs=0.005)
    joint = np.array([values[0] for _, values in robot.told[0]])
    assert 0.03 < np.ptp(joint) < 0.062, "0.03 rad about where it was"
    others = np.array([values[1:] for _, values in robot.told[0]])
    assert np.ptp(others, axis=0).max() < 1e-3


def test_grippers_are_read_step_by_step(robot: LateRobot, domain_id: int, tmp_path: Path) -> None:
    process = calibrate(domain_id, "grippers", "--repeats", "1", "--instance", "cell_1", "--folder", str(tmp_path))
    assert process.stdin is not None and process.stdout is not None
    try:
        for place, (left, right) in {"close": (0.04, 0.02), "open": (-3.31, -3.36)}.items():
            line = process.stdout.readline()
            while f"1 of 1: {place} left_gripper and right_gripper fully" not in line:
                assert line, "it ended"
                line = process.stdout.readline()
            robot.positions[[6, 13]] = left, right
            process.stdin.write("\n")
            process.stdin.flush()
        said, problem = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, said + problem
    found = load_calibration(tmp_path, "cell_1", "grippers", datetime.now(timezone.utc))
    assert isinstance(found, Grippers)
    assert (found.readings["left_gripper"].closed, found.readings["left_gripper"].open) == pytest.approx((0.04, -3.31))
    assert (found.readings["right_gripper"].closed, found.readings["right_gripper"].open) == pytest.approx((0.02, -3.36))
