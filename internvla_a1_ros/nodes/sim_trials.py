"""Trials in the simulated cell over DDS: laid out, begun once the arms follow a plan, judged by the truth, one after the other.

Until the command process has ramped in, time in the cell stands still, so that the ramp costs no parcel. Who arms and disarms is the
operator (`internvla-a1 evaluate rollouts --live`); the next trial is laid out once the arms are disarmed and at rest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.evaluation.rollout_trials import SEEDS_EACH, seeds
from internvla_a1_ros.nodes import qos
from internvla_a1_ros.nodes.entities import Entities
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.tasks import start_trial
from internvla_a1_ros.simulation.trial import TASKS, Conditions, Trial
from internvla_a1_ros.simulation.variation import Variation


class SimTrials:
    """Owns the trials of one cell. Belongs to the thread that advances it."""

    def __init__(self, entities: Entities, cell: Cell, task: str, run: int, variation: float) -> None:
        """Raises ConfigurationError for a task that there is not."""
        known = {each: each for each in TASKS}
        if task not in known:
            raise ConfigurationError(f"task: got '{task}', expected one of {', '.join(TASKS)}{suggestion(task, list(TASKS))}")
        self._cell, self._task, self._variation = cell, known[task], variation
        self._waiting = deque(seeds(run, SEEDS_EACH))
        self._state: dict[str, str] = {}
        self._trial: Trial | None = None
        self.running = False
        self._instruction = entities.publisher(String, "instruction", qos.COMMAND)
        entities.polled(DiagnosticStatus, "command/state", self._on_state, qos.LATCHED)
        self._lay_out()

    def _on_state(self, message: Any, _: int) -> None:
        self._state = {item.key: item.value for item in message.values}

    @property
    def belt_speed_m_s(self) -> float:
        """How fast the belt goes in the trial at hand."""
        return 0.0 if self._trial is None else self._trial.conditions.belt_speed_m_s

    def look(self) -> None:
        """Take in what the cell has come to."""
        trial = self._trial
        if trial is None:
            return
        if trial.outcome is not None:
            if self._state.get("armed") == "False" and self._state.get("at_rest") == "True":
                self._lay_out()
            return
        if not self.running:
            self.running = self._state.get("mode") == "run"
            return
        said = trial.instruction
        trial.look()
        if trial.instruction != said:
            self.instruct()
        self.running = trial.outcome is None

    def _lay_out(self) -> None:
        self._trial = None
        if self._waiting:
            conditions = Conditions.drawn(self._task, self._waiting.popleft())
            Variation.drawn(conditions.seed, self._variation).apply(self._cell)
            self._trial = start_trial(self._cell, conditions)
            self.instruct()

    def instruct(self) -> None:
        """Say what the policy is to do; said again and again, for who comes late."""
        if self._trial is not None:
            self._instruction.publish(String(data=self._trial.instruction))

    def status(self) -> dict[str, Any] | None:
        """Return the trial at hand: its conditions, whether it runs, and its outcome once there is one."""
        trial = self._trial
        if trial is None:
            return None
        outcome = None if trial.outcome is None else asdict(trial.outcome)
        return {"running": self.running, "conditions": asdict(trial.conditions), "outcome": outcome}
