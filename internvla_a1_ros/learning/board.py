"""The log's numbers for TensorBoard, where its package is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.training import StepReport

FOLDER = "tensorboard"


def installed() -> bool:
    return find_spec("tensorboard") is not None


class Board:
    """Writes scalars of every step into `folder`; of steps that are done again the former ones are no longer shown."""

    def __init__(self, folder: Path, step: int, samples_a_step: int) -> None:
        """Go on after `step`. Raises ConfigurationError where the folder cannot be written."""
        from torch.utils.tensorboard import SummaryWriter

        self._samples = samples_a_step
        try:
            self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)
        except OSError as problem:
            raise ConfigurationError(f"{folder}: cannot be written: {problem.strerror or problem}") from None

    def add(self, report: StepReport) -> None:
        """Raises ConfigurationError where it cannot be written."""
        scalars = {
            "loss/total": report.loss,
            "loss/action": report.action,
            "loss/future": report.generation,
            "loss/motion": report.motion,
            "learning_rate": report.rate,
            "gradient_norm": report.gradient,
            "samples_per_second": self._samples / report.seconds,
            "share_of_time_in_samples": report.data_s / report.seconds,
        }
        try:
            for name, number in scalars.items():
                self._writer.add_scalar(name, number, report.step)
        except OSError as problem:
            raise ConfigurationError(f"TensorBoard's file cannot be written: {problem.strerror or problem}") from None

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
