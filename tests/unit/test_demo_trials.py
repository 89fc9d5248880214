"""The demo's operator: arms once for a trial, disarms once it is over, counts each once."""

from __future__ import annotations

import json
from typing import Any

from internvla_a1_ros.cli.demo_trials import Trials


class Operator:
    """Answers as the command process does, and notes what it was asked."""

    def __init__(self) -> None:
        self.cell, self.state, self.asked = "", {"mode": "hold", "armed": "False"}, list[str]()

    def call(self, service: str) -> tuple[bool, str]:
        self.asked.append(service)
        if service != "command/reset":
            self.state["armed"] = str(service == "command/arm")
        return True, ""

    def tell(self, seed: int, failure: str | None = None, label: str = "up") -> None:
        conditions = {"seed": seed, "kind": "parcel", "label": label, "belt_speed_m_s": 0.08}
        outcome: dict[str, Any] | None = None
        if failure is not None:
            outcome = {"grasped": True, "succeeded": not failure, "failure": failure}
        self.cell = json.dumps({"trial": {"running": True, "conditions": conditions, "outcome": outcome}})


def test_one_after_the_other() -> None:
    operator = Operator()
    trials = Trials(operator, "express_sorting")
    trials.update()
    assert operator.asked == [] and trials.text == "sorted 0, grasped 0 of 0"
    operator.tell(1)
    trials.update()
    operator.state["mode"] = "run"
    trials.update()
    assert operator.asked == ["command/arm"]
    assert trials.text.endswith("now a parcel, label up, belt 0.08 m/s")
    operator.tell(1, "")
    for _ in range(3):
        trials.update()
    assert operator.asked == ["command/arm", "command/disarm"] and len(trials.rows) == 1
    operator.state["mode"] = "hold"
    trials.update()  # the cell has not laid out the next one yet
    operator.tell(2)
    trials.update()
    operator.tell(2, "dropped")
    trials.update()
    assert operator.asked == ["command/arm", "command/disarm"] * 2
    assert trials.text.startswith("sorted 1, grasped 2 of 2; the last: dropped")


def test_a_fault_is_reset_and_armed_again() -> None:
    operator = Operator()
    trials = Trials(operator, "ingredient_picking")
    operator.tell(1, label="")
    trials.update()
    operator.state["mode"] = "fault"
    trials.update()
    operator.state["mode"] = "hold"
    trials.update()
    assert operator.asked == ["command/arm", "command/reset", "command/arm"]


def test_what_is_refused_is_asked_again() -> None:
    operator = Operator()
    trials = Trials(operator, "express_sorting")
    operator.tell(1)
    answers = iter([(False, "no joint states"), (True, "")])
    operator.call = lambda service: next(answers)  # type: ignore[method-assign]
    trials.update()
    trials.update()
    trials.update()  # and not a third time
    assert next(answers, None) is None
