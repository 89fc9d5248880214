"""Reads a checkpoint folder in the released format: `config.json`, `model.safetensors`, and `architecture.json` where there is one.

Weights are mapped from the file and assigned to an empty model, so there is no second copy in memory. Nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model import names
from internvla_a1_ros.model.files import read_config, read_json
from internvla_a1_ros.model.layout import QWENA1, Layout, layout_called
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.reading import read_architecture
from internvla_a1_ros.model.sizes import Architecture

WEIGHTS = "model.safetensors"
COSMOS_WEIGHTS = "cosmos.safetensors"
BLOCK = 1 << 18  # numbers looked at at once: finding a NaN must not cost memory, and a block stays in the cache
READ_AHEAD = 1 << 26  # bytes asked for at once


class Weights:
    """The tensors of a folder's files under our names, mapped, not copied."""

    def __init__(self, folder: Path, layout: Layout, stack: ExitStack) -> None:
        """Open the files for as long as `stack`. Raises CheckpointError for a file that is missing or cut short, or a foreign name."""
        self.folder, self.layout = folder, layout
        self.where: dict[str, tuple[Any, str]] = {}
        paths = [folder / WEIGHTS]
        if (folder / COSMOS_WEIGHTS).is_file():
            paths.append(folder / COSMOS_WEIGHTS)
        self.paths = paths
        for path in paths:
            file = open_weights(path, stack)
            for saved in file.keys():  # noqa: SIM118 - not a dict
                name = names.ours(saved, layout)
                if name is None:
                    raise CheckpointError(f"'{path}': unknown weight '{saved}' for the {layout.title} layout")
                tied = layout.tied_table is not None and saved.endswith(layout.tied_table)
                if not name.startswith(layout.unused) and not (name in self.where and tied):
                    self.where[name] = file, saved
        self.shapes = {name: tuple(file.get_slice(saved).get_shape()) for name, (file, saved) in self.where.items()}

    def read_ahead(self) -> None:
        """Ask the system to read the files while what is there already is worked on."""
        for path in self.paths:
            with path.open("rb") as file:
                for begin in range(0, path.stat().st_size, READ_AHEAD):
                    os.posix_fadvise(file.fileno(), begin, READ_AHEAD, os.POSIX_FADV_WILLNEED)

    def __getitem__(self, name: str) -> Tensor:
        file, saved = self.where[name]
        tensor: Tensor = file.get_tensor(saved)
        return tensor


def open_weights(path: Path, stack: ExitStack) -> Any:
    """Open a safetensors file. Raises CheckpointError where it is missing, cut short or of another kind."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint: '{path}' is missing")
    try:
        return stack.enter_context(safe_open(str(path), framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint: '{path}' cannot be read as safetensors, is it cut short? ({error})") from None


def load_architecture(folder: Path) -> Architecture:
    """Read every size of the checkpoint in `folder` without reading its weights. Raises CheckpointError."""
    config = read_config(folder)
    with ExitStack() as stack:
        return architecture_of(folder, config, Weights(folder, layout_called(config["type"]), stack))


def architecture_of(folder: Path, config: Mapping[str, Any], weights: Weights) -> Architecture:
    if not any(name.startswith("cosmos.") for name in weights.shapes):
        jit = " (run `internvla-a1 import-cosmos` on its .jit files once)" if any(folder.glob("*.jit")) else ""
        raise CheckpointError(f"checkpoint '{folder}': no Cosmos weights, neither in {WEIGHTS} nor in {COSMOS_WEIGHTS}{jit}")
    told, processor = folder / "architecture.json", folder / "preprocessor_config.json"
    try:
        return read_architecture(
            weights.shapes, config, read_json(told) if told.is_file() else {}, read_json(processor) if processor.is_file() else {}
        )
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from None
    except (TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        raise CheckpointError(f"checkpoint '{folder}': config.json or architecture.json holds a size that cannot be: {error}") from None


def empty_model(sizes: Architecture) -> InternVLAA1:
    """Build a model of `sizes` that takes no memory. Raises CheckpointError where no such model exists."""
    try:
        with torch.device("meta"):
            return InternVLAA1(sizes).eval().requires_grad_(False)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"the sizes read from the checkpoint describe no model: {error}") from None


def load_model(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu", sizes: Architecture | None = None, *, finite: bool = True
) -> InternVLAA1:
    """Load the checkpoint in `folder` in the given precision, norms and the last projection in float32 whatever it is.

    `sizes` stands in for the folder's own, where pictures or grids differ from what it says. Raises CheckpointError, naming
    the weight, where one is missing, unknown, misshapen, not a float or, unless the caller looks for itself when it comes to
    read them (`finite` False), not finite.
    """
    config = read_config(folder)
    with ExitStack() as stack:
        layout = layout_called(config["type"])
        weights = Weights(folder, layout, stack)
        model = empty_model(sizes or architecture_of(folder, config, weights))
        precision = dict(model.precision(dtype))
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        check_names(folder, layout, expected, weights.shapes)
        where = f"checkpoint '{folder}'"
        weights.read_ahead()
        look = checked if finite else checked_kind
        state = {name: look(where, name, weights[name], layout).to(device, precision[name]) for name in expected}
    model.load_state_dict(state, assign=True)
    return model


def check_names(folder: Path, layout: Layout, expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError naming what is missing, unknown or misshapen."""
    missing = sorted(names.saved(name, layout) for name in expected.keys() - got.keys())
    unknown = sorted(names.saved(name, layout) for name in got.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"checkpoint '{folder}': {counted('missing weight', missing)}")
    if unknown:
        raise CheckpointError(f"checkpoint '{folder}': {counted('unknown weight', unknown)}")
    for name, shape in expected.items():
        if got[name] != shape:
            got_, want = list(got[name]), list(shape)
            raise CheckpointError(f"checkpoint '{folder}': weight '{names.saved(name, layout)}': got shape {got_}, expected {want}")


def counted(what: str, found: list[str]) -> str:
    """Name the first few of `found` and count the rest."""
    shown = ", ".join(f"'{name}'" for name in found[:3])
    return f"{what} {shown}" + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def checked(where: str, name: str, tensor: Tensor, layout: Layout = QWENA1) -> Tensor:
    """Return `tensor` if it holds finite floats, looking at a block at a time. Raises CheckpointError naming the weight."""
    checked_kind(where, name, tensor, layout)
    for block in tensor.flatten().split(BLOCK):
        # A sum carries whatever is not finite and reads ten times faster; one that overflowed by itself is looked at again.
        if not block.sum().isfinite() and not block.isfinite().all():
            raise CheckpointError(f"{where}: weight '{names.saved(name, layout)}' holds a number that is not finite")
    return tensor


def checked_kind(where: str, name: str, tensor: Tensor, layout: Layout = QWENA1) -> Tensor:
    """Return `tensor` if it is of a floating kind. Raises CheckpointError naming the weight."""
    if not tensor.is_floating_point():
        raise CheckpointError(f"{where}: weight '{names.saved(name, layout)}': got {tensor.dtype}, expected floating point")
    return tensor
