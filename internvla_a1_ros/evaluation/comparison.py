"""One compared quantity: how far two tensors are apart and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from internvla_a1_ros.core.errors import CheckpointError

MAX_ERROR = 5e-5
MIN_COSINE = 0.999999
LOSS_MEAN_ERROR = 1e-4  # relative
RESIZE_ERROR = 1e-3  # its references are kept in half precision


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest absolute error and smallest cosine; both were set for float32 and widen together for coarser engines."""

    max_error: float = MAX_ERROR
    min_cosine: float = MIN_COSINE

    @classmethod
    def of(cls, tolerance: float) -> Limits:
        """The limits for a `tolerance` on the error: the distance of the cosine from 1 grows in proportion, and never shrinks."""
        return cls(tolerance, 1 - (1 - MIN_COSINE) * max(1.0, tolerance / MAX_ERROR))

    def at_least(self, max_error: float) -> Limits:
        return Limits(max(self.max_error, max_error), self.min_cosine)

    @property
    def widened(self) -> float:
        """How many times wider than for float32, at least 1."""
        return max(1.0, self.max_error / MAX_ERROR)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `cosine` None: not asked for. `trouble`: why no numbers could be compared."""

    stage: str
    name: str
    error: float
    allowed: float
    cosine: float | None = None
    trouble: str = ""
    ok: bool = True


def compare(stage: str, name: str, got: Tensor, want: Tensor, limits: Limits) -> Row:
    """Compare all numbers of two tensors of the same shape, in float64."""
    if got.shape != want.shape:
        trouble = f"got shape {list(got.shape)}, reference has {list(want.shape)}"
        return Row(stage, name, float("nan"), limits.max_error, None, trouble, ok=False)
    if got.numel() == 0:
        return Row(stage, name, float("nan"), limits.max_error, None, "nothing valid to compare", ok=False)
    a, b = got.detach().cpu().double().flatten(), want.double().flatten()
    error, norms = float((a - b).abs().max()), float(a.norm() * b.norm())
    cosine = float(a @ b) / norms if norms > 0 else float(error == 0)
    # Written so that a NaN fails.
    return Row(stage, name, error, limits.max_error, cosine, ok=error <= limits.max_error and cosine >= limits.min_cosine)


def compare_mean(stage: str, name: str, got: Tensor, want: Tensor, limits: Limits) -> Row:
    """Compare two means, relative to the reference's."""
    allowed, reference = LOSS_MEAN_ERROR * limits.widened, float(want.double().mean())
    error = abs(float(got.detach().cpu().double().mean()) - reference) / max(abs(reference), 1e-12)
    return Row(stage, f"{name}, relative", error, allowed, ok=error <= allowed)


class Numbers:
    """The tensors of an `io.safetensors`, and which of them have been asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where the file is missing or cut short."""
        self.path = folder / "io.safetensors"
        if not self.path.is_file():
            raise CheckpointError(f"reference folder: '{self.path}' is missing")
        try:
            with safe_open(str(self.path), framework="pt") as file:
                self.tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"reference folder: '{self.path}' cannot be read as safetensors: {error}") from None
        self.asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        """Raises CheckpointError where there is no such tensor."""
        if name not in self.tensors:
            raise CheckpointError(f"reference folder: '{self.path}' has no '{name}'")
        self.asked.add(name)
        return self.tensors[name]

    @property
    def names(self) -> list[str]:
        return sorted(self.tensors)

    def unasked(self, prefix: str = "") -> list[str]:
        return [name for name in self.names if name.startswith(prefix) and name not in self.asked]
