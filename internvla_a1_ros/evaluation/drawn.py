"""A checkpoint of any size with drawn weights, to measure engines with: one weight in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from internvla_a1_ros.engines.weights import DrawnSource
from internvla_a1_ros.model.checkpoint import WEIGHTS, empty_model
from internvla_a1_ros.model.names import saved
from internvla_a1_ros.model.writing import write_sizes

_DRAWN = "drawn.json"  # what the weights were drawn from, written last


def write_drawn(folder: Path, source: DrawnSource, progress: Callable[[float], None] = lambda share: None) -> None:
    """Write the weights of `source` in float32 into `folder`, unless they are there. `progress` is told the share done.

    Interrupted, it leaves nothing that could be taken for a checkpoint. Raises OSError where the folder cannot be written.
    """
    identity = {"identity": source.identity, "sizes": repr(source.sizes)}
    if (folder / _DRAWN).is_file() and json.loads((folder / _DRAWN).read_text(encoding="utf-8")) == identity:
        return
    shapes = {name: tuple(parameter.shape) for name, parameter in empty_model(source.sizes).named_parameters()}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + torch.Size(shape).numel() * torch.float32.itemsize
        header[saved(name, source.sizes.layout)] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the numbers
    write_sizes(folder, source.sizes, torch.float32)
    partial = folder / f"{WEIGHTS}.partial"
    try:
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in shapes:
                file.write(source.load(name).numpy().tobytes())
                progress((file.tell() - len(text) - 8) / end)
        os.replace(partial, folder / WEIGHTS)
    finally:
        partial.unlink(missing_ok=True)
    (folder / _DRAWN).write_text(json.dumps(identity), encoding="utf-8")
