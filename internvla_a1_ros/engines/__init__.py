"""Engines by name. Importing this room imports no torch; making an engine does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from internvla_a1_ros.core.errors import ConfigurationError, suggestion

if TYPE_CHECKING:
    from internvla_a1_ros.engines.protocol import Engine
    from internvla_a1_ros.model.sizes import Architecture

# Each engine's precisions.
_TORCH = ("float32", "bfloat16", "float16")
ENGINES = {"reference": _TORCH, "torch": _TORCH, "onnx": ("float32", "int8"), "tensorrt": _TORCH}
BUILT = ("onnx", "tensorrt")  # those that `internvla-a1 build` makes first


def check_engine(name: str, precision: str) -> None:
    """Raise ConfigurationError for an unknown engine, or a precision it has not."""
    for what, got, known in (("engine", name, tuple(ENGINES)), ("precision", precision, ENGINES.get(name, ()))):
        if got not in known:
            raise ConfigurationError(f"{what}: got '{got}', expected one of {', '.join(known)}{suggestion(got, list(known))}")


def engine_and_precision(text: str, precision: str = "float32") -> tuple[str, str]:
    """Return what "onnx:int8" says, a deployment's one word for both; `precision` where it says none. Raises as `check_engine`."""
    name, _, told = text.partition(":")
    check_engine(name, told or precision)
    return name, told or precision


def make_engine(
    name: str,
    checkpoint: Path,
    *,
    threads: int | None = None,
    precision: str = "float32",
    device: str = "cpu",
    sizes: Architecture | None = None,
    build: bool = False,
) -> Engine:
    """Load the checkpoint folder into the engine called `name`, which computes with `threads` threads (None: the library's choice).

    `name` may hold the precision, as in "onnx:int8".
    `sizes` stands in for the checkpoint's own. `build`: an engine that has to be built is, unverified, where it is not yet. Raises
    ConfigurationError for an unknown name, precision or device, or an engine that is not built, and CheckpointError for a
    checkpoint that cannot be used.
    """
    name, precision = engine_and_precision(name, precision)
    if threads is not None and threads < 1:
        raise ConfigurationError(f"threads: got {threads}, expected at least 1")
    if name in BUILT:
        return _built(name, checkpoint, precision, threads, sizes, build)

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


def _built(name: str, checkpoint: Path, precision: str, threads: int | None, sizes: Architecture | None, build: bool) -> Engine:
    import torch

    from internvla_a1_ros.engines import building

    if threads is not None:
        torch.set_num_threads(threads)
    order = building.Order.of_checkpoint(name, precision, checkpoint, sizes)
    if build:
        building.ensure_built(order)
    return building.load(order, threads)
