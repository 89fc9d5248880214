"""Engines by name. Importing this room imports no torch; making an engine does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from internvla_a1_ros.core.errors import ConfigurationError, suggestion

if TYPE_CHECKING:
    from internvla_a1_ros.engines.protocol import Engine
    from internvla_a1_ros.model.sizes import Architecture

ENGINES = ("reference", "torch")
PRECISIONS = ("float32", "bfloat16", "float16")


def make_engine(
    name: str,
    checkpoint: Path,
    *,
    threads: int | None = None,
    precision: str = "float32",
    device: str = "cpu",
    sizes: Architecture | None = None,
) -> Engine:
    """Load the checkpoint folder into the engine called `name`, which computes with `threads` threads (None: torch's choice).

    `sizes` stands in for the checkpoint's own. Raises ConfigurationError for an unknown name, precision or device, and
    CheckpointError for a checkpoint that cannot be used.
    """
    for what, got, known in (("engine", name, ENGINES), ("precision", precision, PRECISIONS)):
        if got not in known:
            raise ConfigurationError(f"{what}: got '{got}', expected one of {', '.join(known)}{suggestion(got, list(known))}")
    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads: got {threads}, expected at least 1")

    import torch

    from internvla_a1_ros.engines.reference import ReferenceEngine
    from internvla_a1_ros.engines.torch_engine import TorchEngine

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device: '{device}' cannot be used here: {str(error).splitlines()[0]}") from None
    if threads is not None:
        torch.set_num_threads(threads)
    load = ReferenceEngine.load if name == "reference" else TorchEngine.load
    return load(checkpoint, getattr(torch, precision), device, sizes)
