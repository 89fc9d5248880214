"""The table of words beside an exported engine, read where a prompt's words are. In the 3B it is a tenth of all weights."""

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
    """Token ids [L] -> embeddings [1, L, h] float32; the last prompt's are kept.

    Rows are read, not mapped: around each row touched the system maps up to megabytes, 0.4 GiB for a random prompt of the 3B.
    """

    def __init__(self, folder: Path, sizes: Architecture) -> None:
        """Raises ConfigurationError where the table has not the size it should."""
        self._dtype = KINDS[json.loads((folder / TOLD).read_text(encoding="utf-8"))["dtype"]]
        self._shape, self._path = (sizes.vocabulary, sizes.understanding.hidden), folder / TABLE
        self._row = self._shape[1] * self._dtype.itemsize
        if self._path.stat().st_size != self._shape[0] * self._row:
            got = self._path.stat().st_size
            raise ConfigurationError(f"'{self._path}': got {got} bytes, expected a table of {self._shape}; build it anew with --force")
        self._last: tuple[bytes, Tensor] | None = None

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Raises IndexError for an id beyond the table."""
        key = input_ids.numpy().tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._read(input_ids)
        return self._last[1]

    def _read(self, input_ids: Tensor) -> Tensor:
        ids, places = input_ids.long().unique(return_inverse=True)
        if int(ids[0]) < 0 or int(ids[-1]) >= self._shape[0]:
            raise IndexError(f"token ids from {int(ids[0])} to {int(ids[-1])}, the table has {self._shape[0]} rows")
        rows = bytearray(len(ids) * self._row)
        with self._path.open("rb", buffering=0) as file:
            for i, token in enumerate(ids.tolist()):
                file.seek(token * self._row)
                file.readinto(memoryview(rows)[i * self._row : (i + 1) * self._row])
        return torch.frombuffer(rows, dtype=self._dtype).view(len(ids), -1).float()[places][None]
