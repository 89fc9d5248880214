"""What a run leaves behind: a folder in the released format, and one file from which the run goes on to the bit.

`training.safetensors` holds everything that changes: weights, their running mean, the optimiser's moments, and as JSON the step and the
samplers. (Noise and flow times are drawn from seed and step, so no random state is left over.) It is one file, so it is whole or not at
all. `model.safetensors` follows it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from internvla_a1_ros.core.alone import alone
from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError
from internvla_a1_ros.model.checkpoint import counted, open_weights
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.writing import save_tensors, write_checkpoint
from internvla_a1_ros.policy.manifest import Manifest

TRAINING = "training.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # of AdamW, and of Muon
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Tensors by name, and what else the run knows of itself, as JSON."""

    tensors: dict[str, Tensor]
    told: dict[str, Any]

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by what they are (`weight`, `mean`, one of `MOMENTS`), then by the weight's name."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            kind, _, rest = name.partition(".")
            found.setdefault(kind, {})[rest] = tensor
        return found


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Inside, no other run works in `folder`, which is there, and what one that was killed left half written is gone.

    Raises ConfigurationError where another one is at work, or the folder cannot be made. It is not left behind empty.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigurationError(f"{folder}: cannot be written: {problem.strerror or problem}") from None
    with alone(folder, f"'{folder}': another run is at work in it, expected none: wait, or choose another `out`"):
        for part in folder.glob(".*.part"):
            removed(part)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()


def removed(part: Path) -> None:
    """Remove a file or folder, where it is there and may be removed."""
    shutil.rmtree(part, ignore_errors=True)
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Put the snapshot in place whole. Raises ConfigurationError where it cannot be written; the former then stays."""
    place = folder / TRAINING
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(part, snapshot.tensors, {"told": json.dumps(snapshot.told)})
        _synced(part)
        os.replace(part, place)
    except (OSError, SafetensorError) as problem:
        raise ConfigurationError(f"{place}: cannot be written{_why(problem)}; {_former(folder)}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_snapshot(folder: Path) -> Snapshot | None:
    """Return what a run in `folder` left, None where there was none. Raises CheckpointError for a file that cannot be read or is no run's.

    Its tensors lie in the file and come into memory when they are read: several processes have them once. The file may be replaced.
    """
    place = folder / TRAINING
    if not place.is_file():
        return None
    with ExitStack() as stack:
        file = open_weights(place, stack)
        told = json.loads((file.metadata() or {}).get("told", "{}"))
        if "recipe" not in told:
            raise CheckpointError(f"{place}: got no recipe in it, expected what a run left; choose another `out` or remove it")
        return Snapshot({name: file.get_tensor(name) for name in file.keys()}, told)  # noqa: SIM118 - not a dict


def need_same(folder: Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where a snapshot holds other weights than the model."""
    where = f"{folder / TRAINING}: of another model"
    for what, names in (("missing", expected.keys() - got.keys()), ("unknown", got.keys() - expected.keys())):
        if names:
            raise CheckpointError(f"{where}: {counted(f'{what} weight', sorted(names))}")
    for name, tensor in expected.items():
        if tensor.shape != got[name].shape:
            raise CheckpointError(f"{where}: '{name}': got shape {list(got[name].shape)}, expected {list(tensor.shape)}")


def write_released(folder: Path, model: InternVLAA1, start: Path, stats: Path, manifest: Manifest, dtype: torch.dtype) -> None:
    """Write the folder that `load_policy` takes, file by file whole. Raises ConfigurationError where the disk is full."""
    part = folder / f".released.{os.getpid()}.part"
    try:
        part.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if (start / name).is_file():
                shutil.copyfile(start / name, part / name)
        write_checkpoint(part, model, dtype)
        shutil.copyfile(stats, part / "stats.json")
        table = manifest.model_dump(exclude_unset=True)
        (part / "manifest.yaml").write_text(yaml.safe_dump(table, sort_keys=False, allow_unicode=True), encoding="utf-8")
        for path in sorted(part.iterdir()):
            _synced(path)
        for path in sorted(part.iterdir()):
            os.replace(path, folder / path.name)
    except (OSError, SafetensorError) as problem:
        raise ConfigurationError(f"{folder}: model cannot be written{_why(problem)}; {_former(folder)}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _why(problem: Exception) -> str:
    full = isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(problem):  # safetensors wraps the system's reason in its own
        return ": the disk is full"
    return f": {problem.strerror if isinstance(problem, OSError) and problem.strerror else problem}"


def way_on(folder: Path) -> str:
    """How to go on after a batch that cannot be learned. Nothing was saved: weights that blow up must not replace sound ones."""
    start = f" and `start: {folder}`, its last save," if (folder / TRAINING).is_file() else ""
    return f"the same command meets it again, a new run with another seed{start} does not"


def _former(folder: Path) -> str:
    return "the former checkpoint stays" if (folder / TRAINING).is_file() else "nothing was there before"
