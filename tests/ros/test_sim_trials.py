"""Trials in the simulated cell over DDS: time stands still until the arms follow a plan, then the trial runs to its end, then the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from std_msgs.msg import String

from internvla_a1_ros.evaluation.rollout_trials import seeds
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.simulation.trial import Conditions

# One of the ten that conftest.py keeps for this run.
DOMAIN = 10 + (os.getpid() * 10) % 60 + 4
ENVIRONMENT = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class Operator:
    """Plays the command process and hears what the cell tells of its trials."""

    def __init__(self) -> None:
        self._context = rclpy.context.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN)
        self._node = rclpy.create_node("command", context=self._context)
        self._executor = rclpy.executors.SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._state = self._node.create_publisher(DiagnosticStatus, "~/state", qos.LATCHED)
        self.told: list[dict[str, Any]] = []
        self.said: list[str] = []
        self._node.create_subscription(String, "/sim_node/status", lambda m: self.told.append(json.loads(m.data)), qos.COMMAND)
        self._node.create_subscription(String, "/instruction", lambda m: self.said.append(m.data), qos.COMMAND)

    def tell(self, mode: str, armed: bool) -> None:
        values = {"mode": mode, "armed": str(armed), "at_rest": str(not armed)}
        self._state.publish(DiagnosticStatus(name="command", values=[KeyValue(key=k, value=v) for k, v in values.items()]))

    def until(self, done: Callable[[dict[str, Any]], bool], what: str, seconds: float = 60.0) -> dict[str, Any]:
        """The first status from now on of which `done` holds."""
        heard, end = len(self.told), time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.1)
            for told in self.told[heard:]:
                if done(told):
                    return told
        raise AssertionError(f"waited {seconds} s in vain: {what}; last heard {self.told[-1:]}")

    def close(self) -> None:
        rclpy.shutdown(context=self._context)


@pytest.fixture
def operator() -> Iterator[Operator]:
    made = Operator()
    yield made
    made.close()


def started(*parameters: str) -> subprocess.Popen[str]:
    options = [word for parameter in ("niceness:=0", *parameters) for word in ("-p", parameter)]
    command = [sys.executable, "-m", "internvla_a1_ros.nodes.sim_node", "--ros-args", *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_a_trial_waits_for_the_arms_runs_and_makes_room_for_the_next(operator: Operator) -> None:
    first, second = seeds(3, 2)
    # As fast as it can, and pictures as few as can be: only the trial is looked at.
    process = started("task:=ingredient_picking", "seed:=3", "real_time_factor:=0.0", "camera_rate_hz:=1.0", "width:=32", "height:=24")
    try:
        laid_out = operator.until(lambda told: told["trial"] is not None, "a trial")
        again = operator.until(lambda told: True, "another status")
        assert laid_out["time_s"] == again["time_s"] == 0.0 and not again["trial"]["running"]
        conditions = Conditions.drawn("ingredient_picking", first)
        assert again["trial"]["conditions"]["seed"] == first and again["trial"]["conditions"]["kind"] == conditions.kind
        assert operator.said and operator.said[0].startswith(("Pick up", "Track"))

        operator.tell("run", armed=True)
        over = operator.until(lambda told: told["trial"]["outcome"] is not None, "an outcome")
        assert over["belt_speed_m_s"] == pytest.approx(conditions.belt_speed_m_s)
        # Nobody moved the arms.
        assert over["trial"]["outcome"]["failure"] == "passed" and not over["trial"]["outcome"]["succeeded"]
        still = operator.until(lambda told: True, "another status")
        assert still["trial"]["outcome"] == over["trial"]["outcome"] and still["time_s"] == over["time_s"]

        operator.tell("hold", armed=False)
        following = operator.until(lambda told: told["trial"]["conditions"]["seed"] == second, "the next trial")
        assert following["time_s"] == 0.0 and following["trial"]["outcome"] is None
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_task_that_there_is_not_is_one_sentence() -> None:
    process = started("task:=ingredient_piking")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert (
        "task: got 'ingredient_piking', expected one of ingredient_picking, express_sorting, did you mean 'ingredient_picking'?" in errors
    )
