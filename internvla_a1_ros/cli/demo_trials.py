"""The demo's part of the trials that the simulated cell runs: arms for each, disarms after it, keeps the score."""

from __future__ import annotations

import json
from typing import Any

_TASKS = {"express_sorting": "sorted", "ingredient_picking": "picked"}


class Trials:
    """Belongs to the demo's loop, which calls `update` again and again."""

    def __init__(self, operator: Any, task: str) -> None:
        self._operator = operator
        self._verb = _TASKS.get(task, "done")
        self._armed: int | None = None  # the seed that the arms were armed for
        self.rows: list[dict[str, Any]] = []

    @property
    def at_hand(self) -> dict[str, Any]:
        """The trial as the cell tells it; empty before it told any."""
        told: dict[str, Any] = (json.loads(self._operator.cell).get("trial") if self._operator.cell else None) or {}
        return told

    @property
    def text(self) -> str:
        """As an operator reads it."""
        done = sum(row["outcome"]["succeeded"] for row in self.rows)
        grasped = sum(row["outcome"]["grasped"] for row in self.rows)
        score = f"{self._verb} {done}, grasped {grasped} of {len(self.rows)}"
        last = f"; the last: {self.rows[-1]['outcome']['failure'] or self._verb}" if self.rows else ""
        conditions = self.at_hand.get("conditions")
        if not conditions:
            return score + last
        label = f", label {conditions['label']}" if conditions["label"] else ""
        return f"{score}{last}; now a {conditions['kind']}{label}, belt {conditions['belt_speed_m_s']:.2f} m/s"

    def update(self) -> None:
        """Arm where a trial is laid out, disarm where it has come to its end. What is refused is asked for again."""
        told, mode = self.at_hand, self._operator.state.get("mode")
        if not told:
            return
        seed = told["conditions"]["seed"]
        if told["outcome"] is not None:
            if not self.rows or self.rows[-1]["conditions"]["seed"] != seed:
                self.rows.append({"conditions": told["conditions"], "outcome": told["outcome"]})
            if self._operator.state.get("armed") == "True":
                self._operator.call("command/disarm")
        elif mode == "fault":
            self._operator.call("command/reset")
            self._armed = None
        elif seed != self._armed and mode == "hold" and self._operator.call("command/arm")[0]:
            self._armed = seed
