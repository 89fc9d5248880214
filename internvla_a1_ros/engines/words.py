"""The table of words beside an exported engine: mapped, and read where a prompt's words are. In the 3B it is a tenth of all weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.weights import Source
from internvla_a1_ros.model.sizes import Architecture

TABLE, TOLD = "words.bin", "words.json"
NAME = "understanding.text.embed_tokens.weight"
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def write_words(folder: Path, source: Source) -> None:
    """Write the table as the checkpoint keeps it."""
    table = source.load(NAME).contiguous()
    with (folder / TABLE).open("wb") as file:
        for rows in table.split(4096):
            file.write(memoryview(rows.view(torch.uint8).reshape(-1).numpy()))
    (folder / TOLD).write_text(json.dumps({"dtype": str(table.dtype).removeprefix("torch.")}), encoding="utf-8")


class Words:
    """Token ids [L] -> embeddings [1, L, h] float32; the last prompt's are kept."""

    def __init__(self, folder: Path, sizes: Architecture) -> None:
        dtype = KINDS[json.loads((folder / TOLD).read_text(encoding="utf-8"))["dtype"]]
        shape = (sizes.vocabulary, sizes.understanding.hidden)
        path = folder / TABLE
        if path.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
            raise ConfigurationError(f"'{path}': got {path.stat().st_size} bytes, expected a table of {shape}; build it anew with --force")
        self._table = torch.from_file(str(path), shared=False, size=shape[0] * shape[1], dtype=dtype).view(shape)
        self._last: tuple[bytes, Tensor] | None = None

    def __call__(self, input_ids: Tensor) -> Tensor:
        key = input_ids.numpy().tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._table[input_ids.long()].float()[None]
        return self._last[1]
