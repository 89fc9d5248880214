"""What a run was begun with, so that it never goes on with something else of the same name."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.model.model import InternVLAA1

Origin = dict[str, str]
_DATASET = "dataset"
_LOOKED_AT = 1024  # values of each weight: one that was taught again differs everywhere, and a large model has billions


def origin_of(model: InternVLAA1, moving: Collection[str], datasets: Iterable[Path], **told: BaseModel | Path) -> Origin:
    """Return marks of `told`, documents and files by the recipe's key that names them, of the folders of `datasets`, and of the weights
    that are not `moving`.
    """
    marks = {key: _mark(it.read_bytes() if isinstance(it, Path) else it.model_dump_json().encode()) for key, it in told.items()}
    marks |= {f"{_DATASET} '{folder}'": data_mark(folder) for folder in datasets}
    still = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if name not in moving:
            values = weight.detach().flatten()
            still.update(name.encode() + values[:: max(1, len(values) // _LOOKED_AT)].float().cpu().numpy().tobytes())
    return {**marks, "start": still.hexdigest()[:16]}


def need_same_origin(out: Path, former: Mapping[str, str], now: Origin) -> None:
    """Raise ConfigurationError where the run in `out` was begun with something that changed since; one that never said is believed."""
    for key, mark in now.items():
        if former.get(key, mark) != mark:
            raise ConfigurationError(f"'{out}': {_said(key)} changed since its run was begun: choose another `out` or remove it")


def _said(key: str) -> str:
    if key == "start":
        return "the weights of `start` that stay as they are"
    return key if key.startswith(_DATASET) else f"what `{key}` names"


def data_mark(folder: Path) -> str:
    """Of what a dataset says of itself, the statistics of its numbers and pictures included: the same wherever it lies."""
    digest, meta = hashlib.sha256(), folder / "meta"
    for path in sorted(path for path in meta.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(meta)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
