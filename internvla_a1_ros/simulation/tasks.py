"""The tasks that can be tried in the cell: each with its trial and its expert."""

from __future__ import annotations

from typing import Protocol

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.simulation.cell import Cell
from internvla_a1_ros.simulation.scripted import PickFromBelt
from internvla_a1_ros.simulation.sorting import SortingTrial
from internvla_a1_ros.simulation.sorting_expert import SortingExpert
from internvla_a1_ros.simulation.trial import Conditions, PickingTrial, Trial


class Expert(Protocol):
    """Acts in one trial by the truth. It keeps nothing from call to call, so it goes on from wherever noise or a policy has brought it."""

    def act(self, dt_s: float) -> FloatArray:
        """Return the command [dof], in robot units, to be reached `dt_s` from now."""
        ...


def start_trial(cell: Cell, conditions: Conditions) -> Trial:
    """Begin a trial in `cell`, which is reset."""
    return SortingTrial(cell, conditions) if conditions.task == "express_sorting" else PickingTrial(cell, conditions)


def expert_of(trial: Trial) -> Expert:
    """Return who shows how this trial is done."""
    return SortingExpert(trial) if isinstance(trial, SortingTrial) else PickFromBelt(trial.cell, "right", trial.slot)
