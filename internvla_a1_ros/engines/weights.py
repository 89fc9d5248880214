"""Where an export's weights come from: a checkpoint, or a seed where only the sizes matter. One weight is in memory at a time."""

from __future__ import annotations

import hashlib
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.checkpoint import WEIGHTS, Weights, checked, empty_model, load_model
from internvla_a1_ros.model.files import read_config
from internvla_a1_ros.model.layout import layout_called
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.norms import NORMS
from internvla_a1_ros.model.sizes import Architecture


class Source(Protocol):
    """The weights of one model."""

    sizes: Architecture

    @property
    def identity(self) -> str:
        """What tells these weights from any others."""
        ...

    def load(self, name: str) -> Tensor:
        """Return a weight as it is kept, by our name."""
        ...

    def whole(self, dtype: torch.dtype) -> InternVLAA1:
        """Return the eager model with all weights."""
        ...


class CheckpointSource:
    """A checkpoint folder's weights, mapped."""

    def __init__(self, folder: Path, sizes: Architecture) -> None:
        """Raises CheckpointError where the folder is no checkpoint."""
        self.folder, self.sizes = folder, sizes
        self._layout = layout_called(read_config(folder)["type"])
        self._files = ExitStack()
        self._weights = Weights(folder, self._layout, self._files)

    @property
    def identity(self) -> str:
        """Names, sizes and times of the files: reading gigabytes at every start would cost more than loading them."""
        kept = [path.stat() for path in sorted(self.folder.glob("*.safetensors"))]
        return f"{self.folder.resolve()} " + " ".join(f"{stat.st_size}@{stat.st_mtime_ns}" for stat in kept)

    def load(self, name: str) -> Tensor:
        if name not in self._weights.shapes:
            raise CheckpointError(f"checkpoint '{self.folder}': missing weight '{name}' in {WEIGHTS}")
        return checked(f"checkpoint '{self.folder}'", name, self._weights[name], self._layout)

    def whole(self, dtype: torch.dtype) -> InternVLAA1:
        return load_model(self.folder, dtype, sizes=self.sizes)


class DrawnSource:
    """Weights drawn from a seed, each from its own name, so that any of them can be had without the others."""

    def __init__(self, sizes: Architecture, seed: int) -> None:
        self.sizes, self.seed = sizes, seed
        self._model = empty_model(sizes)
        self._kinds = {
            f"{prefix}.{kind}" if prefix else kind: (module, tuple(parameter.shape))
            for prefix, module in self._model.named_modules()
            for kind, parameter in module.named_parameters(recurse=False)
        }

    @property
    def identity(self) -> str:
        return f"seed {self.seed}"

    def load(self, name: str) -> Tensor:
        module, shape = self._kinds[name]
        if name.endswith("bias"):
            return torch.zeros(shape)
        if isinstance(module, NORMS) or len(shape) == 1:
            return torch.ones(shape)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:8], "little") >> 1
        std = 0.02 if isinstance(module, nn.Embedding) else 1 / math.sqrt(math.prod(shape[1:]))
        if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "linear_fc2.weight")) and "merger" not in name:
            std /= math.sqrt(2 * self.sizes.action.layers)  # what is added to the residual stream is small
        return torch.empty(shape).normal_(std=std, generator=torch.Generator().manual_seed(seed))

    def whole(self, dtype: torch.dtype) -> InternVLAA1:
        model = empty_model(self.sizes)
        precision = dict(model.precision(dtype))
        model.load_state_dict({name: self.load(name).to(precision[name]) for name in self._kinds}, assign=True)
        return model.requires_grad_(False)
