"""The work in hand: one parcel or order, its steps, and how far each has come."""

from __future__ import annotations

from dataclasses import dataclass

from internvla_a1_ros.runtime.cell_io import ResultValue
from internvla_a1_ros.runtime.cell_machine import StepEvent, StepState, step_transition
from internvla_a1_ros.runtime.cell_steps import Route, Step
from internvla_a1_ros.runtime.label_votes import LabelReading, Lying


@dataclass(slots=True)
class StepRun:
    """One step of the work in hand. `told_ns` is when its present try began; `why` what keeps it from having succeeded."""

    step: Step
    state: StepState = StepState.PENDING
    tries: int = 0
    told_ns: int = 0
    right_ns: int | None = None
    wrong_ns: int | None = None
    why: str = ""
    gave_up: bool = False

    def happens(self, event: StepEvent) -> None:
        """Move on as the table says."""
        self.state = step_transition(self.state, event)

    def begin(self, now_ns: int) -> None:
        """Begin a try."""
        self.happens(StepEvent.GIVE)
        self.tries += 1
        self.told_ns, self.right_ns, self.wrong_ns, self.why = now_ns, None, None, ""


@dataclass(slots=True)
class Task:
    """One parcel or order: what it was announced as, what its label says, its steps in the order of the YAML."""

    arrival: str
    began_ns: int
    runs: list[StepRun]
    label: LabelReading | None = None
    lying: Lying = Lying.UNKNOWN
    route: Route | None = None

    def run(self, name: str) -> StepRun:
        """Return the run of a step by its id."""
        return next(run for run in self.runs if run.step.id == name)

    @property
    def over(self) -> bool:
        """Whether every step is done or left out."""
        return all(run.state.over for run in self.runs)

    def active(self) -> list[StepRun]:
        """Return the steps that robots are at."""
        return [run for run in self.runs if run.state.active]

    def again(self) -> None:
        """Let what was begun, or failed, begin anew; a step that failed has all its tries again."""
        for run in self.runs:
            if run.state is StepState.FAILED:
                run.tries = 0
            elif run.state.active:
                run.tries -= 1  # it did not fail: it was interrupted
            run.happens(StepEvent.AGAIN)

    def result(self, outcome: str, now_ns: int, reason: str = "") -> dict[str, ResultValue]:
        """Return what became of it, as plain data."""
        return {
            "outcome": outcome,
            "arrival": self.arrival,
            "label": self.label.text if self.label else None,
            "symbology": self.label.symbology if self.label else None,
            "contrast": round(self.label.contrast, 3) if self.label else None,
            "side": self.label.side if self.label else None,
            "lying": self.lying.value,
            "route": self.route.name if self.route else None,
            "seconds": round((now_ns - self.began_ns) * 1e-9, 3),
            "tries": {run.step.id: run.tries for run in self.runs if run.tries},
            "missing": [run.step.piece or run.step.id for run in self.runs if run.gave_up],
            "reason": reason,
        }
