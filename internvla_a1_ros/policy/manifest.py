"""What a checkpoint cannot say of itself: how its labels were made, how it wants to be run, how exact an engine must be.

One `manifest.yaml` lies beside each checkpoint; docs/deploy.md says what to write for a released one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import CheckpointError, suggestion
from internvla_a1_ros.core.history import HistorySpec
from internvla_a1_ros.robots.document import Document, read_document


class History(Document):
    """How far back the past frame lies, in seconds (0: it is the present one), and how far ahead the imagined one."""

    interval_s: float = Field(default=15 / 30, ge=0)
    ahead_s: float = Field(default=15 / 30, gt=0)
    tolerance_s: float = Field(default=1 / 30, ge=0)

    @property
    def spec(self) -> HistorySpec:
        return HistorySpec(round(self.interval_s * 1e9), round(self.tolerance_s * 1e9))


class Pictures(Document):
    """How pictures reach the model. `jpeg` "reduced": decoded at a half, a quarter or an eighth where that is no smaller than the
    model's own size, which is cheaper and averages where the released way takes single pixels: for models that were trained so."""

    jpeg: Literal["whole", "reduced"] = "whole"


class Actions(Document):
    """What the labels mean: `offset` 1 where the action of step k is the next state, 0 where it is the command of that step.

    `normalisation` "mean_std_by_step": each step of a chunk by its own spread. The first steps of a delta chunk are small, and they are
    what is executed; by one spread for all steps (as released) an error of theirs hardly counts.
    """

    mode: Literal["delta", "abs"]
    offset: Literal[0, 1]
    dt_s: float = Field(default=1 / 30, gt=0)
    normalisation: Literal["mean_std", "min_max", "mean_std_by_step"] = "mean_std"


class Preset(Document):
    """A way to run the flow; `error_rad` is what `internvla-a1 bench flow` measured for it.

    `noise`: how much of the noise that was drawn a chunk begins from. 1 is the flow as it was taught. With one step, 0 gives the mean
    of what could be done, the same for the same pictures, where drawn noise makes every chunk another one.
    """

    method: Literal["euler", "midpoint", "heun", "ab2", "ab3"] = "euler"
    steps: int = Field(default=10, ge=1, le=64)
    spacing: Literal["uniform", "dense_at_noise", "dense_at_actions", "dense_at_ends"] = "uniform"
    noise: float = Field(default=1.0, ge=0, le=1)
    error_rad: float | None = Field(default=None, ge=0)


class Continuation(Document):
    """How a chunk continues what is committed (`policy/guiding.py`); `soft_s`: how long after what is pinned it is drawn."""

    mode: Literal["off", "hard", "soft", "pinv"] = "off"
    soft_s: float = Field(default=0.3, ge=0, le=5)


class Tolerances(Document):
    """How far an engine may be from the eager reference."""

    float32_cosine: float = Field(default=0.99999, gt=0, le=1)
    half_prefix_cosine: float = Field(default=0.999, gt=0, le=1)
    half_chunk_cosine: float = Field(default=0.999, gt=0, le=1)
    int8_chunk_cosine: float = Field(default=0.99, gt=0, le=1)
    int8_joint_rad: float = Field(default=0.02, gt=0)


class Manifest(Document):
    """The manifest of one model."""

    name: str
    trained: bool
    source: str
    robot_type: str
    actions: Actions
    history: History = History()
    pictures: Pictures = Pictures()
    target_rate_hz: float = Field(default=10.0, gt=0)
    instructions: list[str] = Field(min_length=1)
    presets: dict[str, Preset] = Field(default_factory=lambda: {"exact": Preset()})
    default_preset: str = "exact"
    guidance: Continuation = Continuation()
    tolerances: Tolerances = Tolerances()
    sha256: str | None = None

    @model_validator(mode="after")
    def _has_its_default(self) -> Manifest:
        if self.default_preset not in self.presets:
            near = suggestion(self.default_preset, list(self.presets))
            raise ValueError(f"default_preset: got '{self.default_preset}', expected one of {', '.join(sorted(self.presets))}{near}")
        return self


def load_manifest(checkpoint: Path) -> Manifest:
    """Read `manifest.yaml` of a checkpoint folder. Raises CheckpointError with one sentence."""
    path = checkpoint / "manifest.yaml"
    if not checkpoint.is_dir():
        raise CheckpointError(f"checkpoint '{checkpoint}': no such folder, expected one with config.json and model.safetensors")
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint '{checkpoint}': no manifest.yaml; write one beside it (docs/deploy.md): robot_type, actions and instructions, "
            "which the checkpoint itself does not tell"
        )
    return read_document(path, Manifest, CheckpointError)
