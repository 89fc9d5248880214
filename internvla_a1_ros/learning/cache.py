"""Pictures decoded and resized once, kept as bytes on disk and mapped; and what is computed from them, as long as its weights are the
same: their latents, and where it is asked for what a frozen vision tower says of them.

A folder for each dataset, its cameras and the model's picture size. Rounding to bytes moves a picture by at most 1/510.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from internvla_a1_ros.bags.datasets import Dataset, DatasetError
from internvla_a1_ros.core.alone import alone
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.learning.checkpoints import removed
from internvla_a1_ros.learning.material import Material
from internvla_a1_ros.learning.samples import decoded, encoded, told_by_tower
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.sizes import Architecture

# Steps of all views that are decoded together, and computed: so few that what layers hand on stays in the cache of a core.
_DECODED_AT_ONCE, _COMPUTED_AT_ONCE = 32, 16
Advance = Callable[[int], None]
Rows = npt.NDArray[np.generic]
J = TypeVar("J")
R = TypeVar("R")


class Cached:
    """Pictures [frames, V, h, w, 3], latents [frames, V, z, lh, lw] and tokens [frames, V, T, h] of one dataset, mapped from files."""

    def __init__(self, folder: Path, latents: Path, tokens: Path | None, starts: Sequence[int], every: int) -> None:
        self._pictures = np.load(folder / "pictures.npy", mmap_mode="r")
        self._latents = np.load(latents, mmap_mode="r")
        self._tokens = None if tokens is None else np.load(tokens, mmap_mode="r")
        self._starts, self._every = starts, every

    def at(self, number: int, steps: Sequence[int]) -> Tensor:
        return _in_unit(self._pictures[self._rows(number, steps)])

    def latents(self, number: int, steps: Sequence[int]) -> Tensor | None:
        return torch.from_numpy(self._latents[self._rows(number, steps)]).transpose(0, 1)

    def seen(self, number: int, step: int) -> Tensor | None:
        return None if self._tokens is None else torch.from_numpy(self._tokens[self._rows(number, (step,))[0]].copy())

    def _rows(self, number: int, steps: Sequence[int]) -> npt.NDArray[np.int64]:
        return self._starts[number] + np.asarray(steps) // self._every


def cached(
    root: Path, material: Material, model: InternVLAA1, advance: Advance = lambda steps: None, tokens: bool = False
) -> tuple[Material, Cached]:
    """Return a dataset's pictures and latents, made where they are not there yet, and the material without what does not decode.

    `tokens`: what the vision tower says of each picture too. `advance` is told how many steps are done, of pictures, of latents and of
    tokens. Raises ConfigurationError where the disk is full.
    """
    folder = root / _key(material, model.sizes)
    table = folder / "left_out.json"
    made_whole(folder, lambda part: _write_pictures(part, material, model.sizes, advance))
    told = json.loads(table.read_text(encoding="utf-8"))
    by_index = {episode.index: i for i, episode in enumerate(material.episodes)}
    rows = {int(index): int(row) for index, row in told["rows"].items()}
    broken = {by_index[int(index)]: str(why) for index, why in told["left_out"].items()}
    kept = material.without(broken)
    computed = {}
    for what in (latents_of(model), *([tokens_of(model)] if tokens else [])):
        computed[what.name] = path = folder / f"{what.name}-{what.key}.npy"
        made_whole(path, partial(what.write, pictures=folder / "pictures.npy", views=model.sizes.views, advance=advance))
    return kept, Cached(folder, computed["latents"], computed.get("tokens"), [rows[episode.index] for episode in kept.episodes], kept.every)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """Something computed `by` weights `of` a model from pictures [N, V, 3, h, w] in [0, 1]: rows [N, V, *shape], kept as float32.

    `sizes`: what decides it besides the weights.
    """

    name: str
    by: Callable[[Tensor], Tensor]
    of: nn.Module
    shape: tuple[int, ...]
    sizes: tuple[object, ...]

    @property
    def key(self) -> str:
        """The same for the same weights and sizes."""
        digest = hashlib.sha256(str(self.sizes).encode())
        for _, weight in sorted(self.of.named_parameters()):
            digest.update(weight.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def write(self, path: Path, pictures: Path, views: int, advance: Advance) -> None:
        stored = np.load(pictures, mmap_mode="r")

        def computed(first: int) -> Rows:
            return self.by(_in_unit(stored[first : first + _COMPUTED_AT_ONCE])).float().cpu().numpy()

        def rows() -> Iterator[Rows]:
            # A recipe's `threads` is the share of one of several processes, of which the others wait meanwhile.
            for _, some in _ahead(computed, range(0, len(stored), _COMPUTED_AT_ONCE), _cores() // torch.get_num_threads()):
                yield some
                advance(len(some))

        _write_rows(path, (len(stored), views, *self.shape), np.dtype(np.float32), rows())


def latents_of(model: InternVLAA1) -> Computed:
    sizes = model.sizes
    shape = (sizes.cosmos.latent_channels, *sizes.latent_grid)
    return Computed("latents", partial(encoded, model), model.cosmos.encoder, shape, (sizes.cosmos_picture, model.dtype))


def tokens_of(model: InternVLAA1) -> Computed:
    sizes, tower = model.sizes, model.understanding.vision
    shape = (math.prod(sizes.token_grid), sizes.understanding.hidden)
    return Computed("tokens", partial(told_by_tower, model), tower, shape, (sizes.vision, sizes.processor, sizes.grid, model.dtype))


def checksum(dataset: Dataset) -> str:
    """Of the metadata's text, and of the names, sizes and dates of all other files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in dataset.folder.rglob("*") if path.is_file()):
        about, name = path.stat(), str(path.relative_to(dataset.folder))
        digest.update(f"{name} {about.st_size}".encode())
        digest.update(path.read_bytes() if name.startswith("meta/") else str(about.st_mtime_ns).encode())
    return digest.hexdigest()


def _key(material: Material, sizes: Architecture) -> str:
    rest = json.dumps([checksum(material.dataset), material.cameras, [episode.index for episode in material.episodes], material.every])
    return f"{material.dataset.folder.name}-{sizes.picture[0]}x{sizes.picture[1]}-{hashlib.sha256(rest.encode()).hexdigest()[:16]}"


def made_whole(place: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a sibling and put it in place, where nobody has yet; whatever interrupts, nothing is left half written.

    One process at a time makes something in a folder; the others wait, and find it made. Raises ConfigurationError where the disk is full.
    """
    if place.exists():
        return
    part = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place.parent):
            if place.exists():  # since we waited
                return
            removed(part)  # of one that was killed
            try:
                write(part)
                os.replace(part, place)
            finally:
                removed(part)
    except OSError as problem:
        raise ConfigurationError(f"cache '{place}': cannot be written: {problem.strerror or problem}") from None


def _write_pictures(folder: Path, material: Material, sizes: Architecture, advance: Advance) -> None:
    folder.mkdir(parents=True)
    left_out: dict[int, str] = {}

    def decode(job: tuple[int, range]) -> tuple[Rows, str]:
        number, steps = job
        try:
            shown = decoded(material.episodes[number], material.cameras, steps, sizes)
        except DatasetError as problem:
            return np.zeros((len(steps), sizes.views, *sizes.picture, 3), np.uint8), str(problem)
        return (shown * 255).round_().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy(), ""

    def pictures() -> Iterator[Rows]:
        for (number, steps), (rows, problem) in _ahead(decode, _jobs(material), _cores()):
            if problem:
                left_out.setdefault(material.episodes[number].index, problem)
            yield rows
            advance(len(steps))

    # All that may be shown, whichever steps are samples: the folder serves any `after_s`.
    starts = np.cumsum([0, *(len(material.shown(i)) for i in range(len(material.episodes)))])
    _write_rows(folder / "pictures.npy", (int(starts[-1]), sizes.views, *sizes.picture, 3), np.dtype(np.uint8), pictures())
    rows = {episode.index: int(start) for episode, start in zip(material.episodes, starts, strict=False)}
    (folder / "left_out.json").write_text(json.dumps({"rows": rows, "left_out": left_out}), encoding="utf-8")


def _jobs(material: Material) -> Iterator[tuple[int, range]]:
    """Places of episodes and steps of each, some at a time."""
    for number in range(len(material.episodes)):
        steps = material.shown(number)
        for first in range(0, len(steps), _DECODED_AT_ONCE):
            yield number, steps[first : first + _DECODED_AT_ONCE]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ahead(work: Callable[[J], R], jobs: Iterable[J], workers: int) -> Iterator[tuple[J, R]]:
    """Yield each job with its result, in order, while up to 8 threads do the next ones: neither decoding nor computing holds the lock."""
    workers = min(8, max(1, workers))
    waiting: deque[tuple[J, Future[R]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="cache") as pool:
        for job in jobs:
            waiting.append((job, pool.submit(work, job)))
            if len(waiting) > 2 * workers:
                first, done = waiting.popleft()
                yield first, done.result()
        for first, done in waiting:
            yield first, done.result()


def _write_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], rows: Iterable[Rows]) -> None:
    """Write an .npy block by block: a full disk is then an error, where a mapped file would kill the process."""
    with path.open("wb") as file:
        told = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, told)
        for block in rows:
            file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _in_unit(stored: Rows) -> Tensor:
    """Bytes [N, V, h, w, 3] -> [N, V, 3, h, w] in [0, 1]."""
    return torch.from_numpy(np.array(stored)).permute(0, 1, 4, 2, 3).float() / 255
