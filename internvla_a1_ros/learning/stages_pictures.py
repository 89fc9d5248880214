"""Pictures alone, for the stages before the policy's: some steps of every episode, as bytes in a file of their own.

A step in ten is enough for a picture's sake: neighbours look alike, and the file of a thousand episodes stays near a gigabyte and a half.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from internvla_a1_ros.bags.datasets import Dataset, DatasetError, Episode
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import ByteArray, FloatArray
from internvla_a1_ros.learning.cache import Advance, checksum, made_whole
from internvla_a1_ros.learning.material import cameras_of
from internvla_a1_ros.learning.mixture import Draw, Source
from internvla_a1_ros.learning.samples import decoded
from internvla_a1_ros.model.sizes import Architecture, Pair

Caching = Callable[[str, int], Advance]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Box:
    """Where a camera's picture lies in the model's: the rest is padding. Pixels."""

    above: int
    left: int
    rows: int
    columns: int

    @classmethod
    def of(cls, picture: Pair, size: Pair) -> Box:
        """Of a picture (height, width) that `policy.pictures.resize_with_pad` brings to `size`."""
        if picture == size:
            return cls(0, 0, *size)
        ratio = max(picture[1] / size[1], picture[0] / size[0])
        rows, columns = max(1, round(picture[0] / ratio)), max(1, round(picture[1] / ratio))
        return cls((size[0] - rows) // 2, (size[1] - columns) // 2, rows, columns)


@dataclass(frozen=True, slots=True, eq=False)
class Stills:
    """Some steps of one dataset: `pictures` [N, V, h, w, 3], of which views `views` were filmed, `boxes` where in each they lie.

    `places` [N, 2]: the episode (by its place in the dataset) and the step of each. `seen` [N, V, slots, fields]: what is seen in each,
    where a stage asks; stills of episodes `unread`, which do not tell, are not drawn.
    """

    dataset: Dataset
    pictures: ByteArray
    views: tuple[int, ...]
    boxes: tuple[Box, ...]
    places: Whole
    left_out: tuple[str, ...]
    seen: FloatArray | None = None
    unread: tuple[int, ...] = ()

    def numbers(self, held_out: int, kept_back: bool) -> Whole:
        """Return which of the N are of episodes that are kept back, one in `held_out`, or of the others."""
        mine = (self.places[:, 0] % held_out == held_out - 1) == kept_back
        return np.flatnonzero(mine & ~np.isin(self.places[:, 0], self.unread))


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Some pictures [B, h, w, 3] as bytes, where in each the camera's lies [B, 4] (`Box`), and its dataset, number and view [B, 3]."""

    pictures: Tensor
    boxes: Tensor
    origin: Whole

    def unmoved(self) -> Tensor:
        """Return [B, 3, h, w] in [0, 1]."""
        return self.pictures.permute(0, 3, 1, 2).float() / 255

    def shifted(self, down_px: Tensor, right_px: Tensor) -> Tensor:
        """Return [B, 3, h, w] in [0, 1], moved by so many pixels [B] inside their boxes; borders are drawn out, padding stays."""
        height, width = self.pictures.shape[1:3]
        rows = _moved(torch.arange(height), down_px, self.boxes[:, 0], self.boxes[:, 2])
        columns = _moved(torch.arange(width), right_px, self.boxes[:, 1], self.boxes[:, 3])
        each = torch.arange(len(self.pictures))[:, None, None]
        return self.pictures[each, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2).float() / 255

    def inside(self) -> Tensor:
        """Return [B, 1, h, w]: 1 where a camera's picture lies, 0 on padding."""
        height, width = self.pictures.shape[1:3]
        rows = _within(torch.arange(height), self.boxes[:, 0], self.boxes[:, 2])
        columns = _within(torch.arange(width), self.boxes[:, 1], self.boxes[:, 3])
        return (rows[:, :, None] & columns[:, None])[:, None].float()


def _within(at: Tensor, first: Tensor, count: Tensor) -> Tensor:
    return (at >= first[:, None]) & (at < (first + count)[:, None])


def _moved(at: Tensor, by: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Return [B, n]: from where each place takes what it shows."""
    last = (first + count - 1)[:, None]
    source = (at - by[:, None]).maximum(first[:, None]).minimum(last)
    return torch.where(_within(at, first, count), source, at)


class Gallery:
    """The stills of several datasets, drawn from by number: a still and a view are one."""

    def __init__(self, stills: Sequence[Stills], held_out: int) -> None:
        """Raises ConfigurationError where a dataset has too few episodes to keep one back."""
        self.stills = tuple(stills)
        self._learned = [each.numbers(held_out, kept_back=False) for each in stills]
        self._kept_back = [each.numbers(held_out, kept_back=True) for each in stills]
        for each, learned, kept_back in zip(stills, self._learned, self._kept_back, strict=True):
            if not (len(learned) and len(kept_back)):
                raise too_few(each.dataset, len(np.setdiff1d(each.places[:, 0], each.unread)), held_out)

    @property
    def counts(self) -> list[int]:
        """Pictures of each dataset that are learned from."""
        return [len(numbers) * len(each.views) for numbers, each in zip(self._learned, self.stills, strict=True)]

    def drawn(self, draws: Sequence[Draw]) -> Shown:
        return self._shown([self._origin(self._learned, draw.dataset, draw.frame) for draw in draws])

    def some(self, most: int, *, kept_back: bool) -> Shown:
        """Return at most so many pictures, evenly chosen, of episodes that are kept back, or of the others."""
        numbers = self._kept_back if kept_back else self._learned
        every = [(i, k) for i, each in enumerate(self.stills) for k in range(len(numbers[i]) * len(each.views))]
        chosen = np.unique(np.linspace(0, len(every) - 1, most).round().astype(int))
        return self._shown([self._origin(numbers, *every[k]) for k in chosen])

    def _origin(self, numbers: Sequence[Whole], dataset: int, k: int) -> tuple[int, int, int]:
        views = self.stills[dataset].views
        return dataset, int(numbers[dataset][k // len(views)]), views[k % len(views)]

    def _shown(self, origins: Sequence[tuple[int, int, int]]) -> Shown:
        pictures = np.stack([self.stills[i].pictures[n, view] for i, n, view in origins])
        boxes = [self.stills[i].boxes[view] for i, _, view in origins]
        where = torch.tensor([(box.above, box.left, box.rows, box.columns) for box in boxes])
        return Shown(torch.from_numpy(pictures), where, np.array(origins))


def too_few(dataset: Dataset, count: int, held_out: int) -> ConfigurationError:
    """What to raise where none of a dataset's episodes is left to be kept back, or none to be learned from."""
    return ConfigurationError(
        f"dataset '{dataset.folder}': got {count} episodes, expected {held_out}, of which one is kept back (`held_out`)"
    )


def open_stills(root: Path, source: Source, sizes: Architecture, every: int, caching: Caching) -> Stills:
    """Return a dataset's stills, decoded where they are not in `root` yet; an episode that does not decode is named and left out.

    `caching`: called with the dataset's name and steps where they are decoded; it returns who is told how many are done.
    Raises ConfigurationError where no episode is left or the disk is full.
    """
    dataset = Dataset.open(Path(source.path))
    cameras = cameras_of(source, dataset, sizes.views)
    told = json.dumps([checksum(dataset), cameras, every])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    folder = root / f"{dataset.folder.name}-stills-{sizes.picture[0]}x{sizes.picture[1]}-{digest}"
    if not folder.is_dir():
        advance = caching(dataset.folder.name, dataset.length)
        made_whole(folder, lambda part: _write(part, dataset.episodes, cameras, sizes, every, advance))
    table = json.loads((folder / "stills.json").read_text(encoding="utf-8"))
    if not table["places"]:
        first = f", first: {table['left_out'][0]}" if table["left_out"] else ""
        raise ConfigurationError(f"dataset '{dataset.folder}': none of its episodes can be used{first}; expected one")
    shape = (len(table["places"]), sizes.views, *sizes.picture, 3)
    pictures = np.memmap(folder / "pictures.bytes", np.uint8, "r", shape=shape)
    boxes = tuple(Box.of(dataset.features[camera].shape[:2] if camera else sizes.picture, sizes.picture) for camera in cameras)  # type: ignore[arg-type]
    views = tuple(i for i, camera in enumerate(cameras) if camera)
    return Stills(dataset, pictures, views, boxes, np.array(table["places"], np.int64), tuple(table["left_out"]))


def _write(
    part: Path, episodes: Sequence[Episode], cameras: Sequence[str | None], sizes: Architecture, every: int, advance: Advance
) -> None:
    places: list[tuple[int, int]] = []
    left_out: list[str] = []
    part.mkdir()
    with (part / "pictures.bytes").open("wb") as file:
        for place, rows in enumerate(_decoded(episodes, cameras, sizes, every)):
            if isinstance(rows, str):
                left_out.append(rows)
            else:
                file.write(rows.tobytes())
                places += [(place, step) for step in range(0, episodes[place].length, every)]
            advance(episodes[place].length)
        file.flush()
        os.fsync(file.fileno())
    (part / "stills.json").write_text(json.dumps({"places": places, "left_out": left_out}), encoding="utf-8")


def _decoded(episodes: Sequence[Episode], cameras: Sequence[str | None], sizes: Architecture, every: int) -> Iterator[ByteArray | str]:
    """Yield the pictures [n, V, h, w, 3] of each episode, or in words why there are none; threads decode ahead, which holds no lock."""

    def pictures(episode: Episode) -> ByteArray | str:
        try:
            shown = decoded(episode, cameras, range(0, episode.length, every), sizes)
        except DatasetError as problem:
            return str(problem)
        rows: ByteArray = (shown * 255).round_().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous().numpy()
        return rows

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for first in range(0, len(episodes), 4 * workers):
            yield from pool.map(pictures, episodes[first : first + 4 * workers])
