"""LeRobot datasets in a local folder: numbers and pictures, episode by episode. Indices are read once, and videos stay open."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from internvla_a1_ros.bags.datasets.episodes import Clip, Place, first_line, read_places, read_tasks
from internvla_a1_ros.bags.datasets.info import DatasetError, Feature, Info
from internvla_a1_ros.bags.datasets.videos import Video, kept_open
from internvla_a1_ros.core.types import ByteArray

Numbers = npt.NDArray[Any]
TASK_INDEX = "task_index"


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode. What is wrong with its files raises DatasetError when they are used, so that a caller may skip it."""

    info: Info
    place: Place

    @property
    def index(self) -> int:
        return self.place.index

    @property
    def length(self) -> int:
        """Steps, by the metadata."""
        return self.place.length

    @property
    def tasks(self) -> tuple[str, ...]:
        """What was to be done, in words."""
        return self.place.tasks

    @property
    def clips(self) -> dict[str, Clip]:
        """Video file and offset of each camera that is stored as video."""
        return self.place.clips

    @property
    def name(self) -> str:
        return f"episode {self.index} of '{self.info.folder}'"

    def table(self, keys: Collection[str]) -> dict[str, Numbers]:
        """Return each key's numbers [length, width], float32 as stored or else float64.

        Raises DatasetError for an unknown key, a missing file, or another number of rows or columns than the metadata's.
        """
        for key in keys:
            if self.info.need(key).is_picture:
                raise DatasetError(f"{self.name}: got '{key}', which holds pictures, expected a key that holds numbers")
        rows = self._rows(keys)
        return {key: _numbers(rows.column(key), self.info.features[key], f"{self.place.data}: '{key}'") for key in dict.fromkeys(keys)}

    def told(self, texts: Mapping[int, str]) -> tuple[str, ...]:
        """Return what is to be done, in words, step by step; `texts` are the dataset's `tasks`.

        Raises DatasetError where steps differ and one of them counts a text that there is not.
        """
        if len(self.tasks) <= 1 or TASK_INDEX not in self.info.features:
            return (self.tasks[:1] or ("",)) * self.length
        numbers = self.table((TASK_INDEX,))[TASK_INDEX][:, 0].astype(int).tolist()
        missing = sorted(set(numbers) - set(texts))
        if missing:
            raise DatasetError(f"{self.name}: got {TASK_INDEX} {missing[0]}, expected one of 0 to {len(texts) - 1} (meta/tasks)")
        return tuple(texts[k] for k in numbers)

    def frames(self, camera_key: str, indices: Sequence[int] | None = None) -> Iterator[ByteArray]:
        """Yield the pictures [height, width, 3] RGB of steps `indices` (None: all), in that order; ascending is cheapest.

        Raises DatasetError for an unknown key, a missing or shorter video, a picture that does not decode, or a step beyond the episode.
        """
        feature = self.info.need(camera_key, self.info.camera_keys)
        wanted = range(self.length) if indices is None else indices
        for index in wanted:
            if not 0 <= index < self.length:
                raise DatasetError(f"{self.name}: got step {index}, expected 0 to {self.length - 1}")
        yield from self._of_video(camera_key, wanted) if feature.dtype == "video" else self._of_images(camera_key, wanted)

    def check(self, keys: Collection[str], camera_keys: Collection[str]) -> None:
        """Raise DatasetError where files of these keys are missing or of another length than the metadata says; decodes nothing."""
        self.table(keys)
        for key in camera_keys:
            if self.info.need(key, self.info.camera_keys).dtype == "video":
                self._opened(key)

    def _rows(self, keys: Collection[str]) -> pa.Table:
        path = self.place.data
        if self.length == 0:
            raise DatasetError(f"{self.name}: holds no steps")
        columns = list(dict.fromkeys([*keys, "episode_index"]))
        try:
            told = path.stat()
            of_file = _table(path, told.st_mtime_ns, told.st_size)
            with pq.ParquetFile(path, metadata=of_file.metadata) as file:
                missing = [key for key in columns if key not in file.schema_arrow.names]
                if missing:
                    raise DatasetError(f"{path}: no column '{missing[0]}', it has {', '.join(file.schema_arrow.names)}")
                table = file.read_row_groups(of_file.groups(self.index), columns=columns)
        except FileNotFoundError:
            raise DatasetError(f"{path}: is missing, expected the {self.length} steps of episode {self.index}") from None
        except (OSError, pa.ArrowException) as problem:
            raise DatasetError(f"{path}: cannot be read as parquet: {first_line(problem)}") from None
        mine = np.flatnonzero(table.column("episode_index").to_numpy() == self.index)
        if len(mine) != self.length:
            raise DatasetError(f"{path}: got {len(mine)} steps of episode {self.index}, expected {self.length} as the metadata says")
        return table.slice(int(mine[0]), self.length) if mine[-1] - mine[0] + 1 == self.length else table.take(mine)

    def _opened(self, key: str) -> Video:
        """Open a clip's video, having compared its length with the episode's. It stays open (`kept_open`)."""
        clip, video = self.place.clips[key], kept_open(self.place.clips[key].path)
        got = video.frames if clip.end_s is None else round((clip.end_s - clip.start_s) * self.info.fps)
        if got and got != self.length:
            raise DatasetError(f"{clip.path}: got {got} pictures of episode {self.index}, expected {self.length}, one for each step")
        return video

    def _of_video(self, key: str, indices: Sequence[int]) -> Iterator[ByteArray]:
        start_s, period_s = self.place.clips[key].start_s, 1 / self.info.fps
        video = self._opened(key)
        for index in indices:
            yield video.at(start_s + index * period_s, 0.1 * period_s)

    def _of_images(self, key: str, indices: Sequence[int]) -> Iterator[ByteArray]:
        column = self._rows((key,)).column(key)
        for index in indices:
            yield _picture(column[index].as_py(), self.info.folder, f"{self.place.data}: '{key}' of step {index}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A LeRobot dataset of version 2.x or 3.0. Only its metadata was read; it can be sent to other processes.

    `tasks` are the texts that the key `task_index` counts, for episodes in which they change from step to step.
    """

    info: Info
    episodes: tuple[Episode, ...]
    tasks: dict[int, str]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Raises DatasetError where the folder is no dataset, its metadata is malformed or of an unknown version."""
        info = Info.read(folder)
        return cls(info, tuple(Episode(info, place) for place in read_places(info)), read_tasks(info))

    @property
    def folder(self) -> Path:
        return self.info.folder

    @property
    def fps(self) -> float:
        return self.info.fps

    @property
    def robot_type(self) -> str:
        return self.info.robot_type

    @property
    def features(self) -> dict[str, Feature]:
        return self.info.features

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Keys that hold pictures, as video or image."""
        return self.info.camera_keys

    @property
    def length(self) -> int:
        """Steps of all episodes."""
        return sum(episode.length for episode in self.episodes)

    def need(self, keys: Collection[str]) -> None:
        """Raise DatasetError, with the near name, for the first of `keys` that the dataset has not."""
        for key in keys:
            self.info.need(key)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """What a parquet file says of itself: of each row group, which episodes it may hold (None: any)."""

    metadata: pq.FileMetaData
    episodes: tuple[tuple[int, int] | None, ...]

    def groups(self, episode: int) -> list[int]:
        return [g for g, known in enumerate(self.episodes) if known is None or known[0] <= episode <= known[1]]


@lru_cache(maxsize=8)
def _table(path: Path, mtime_ns: int, size: int) -> _Table:
    """Of a file of many episodes this takes longer to read than an episode's rows, and each episode asks for it."""
    metadata = pq.read_metadata(path)
    return _Table(metadata, tuple(_episodes(metadata.row_group(g)) for g in range(metadata.num_row_groups)))


def _episodes(group: Any) -> tuple[int, int] | None:
    """The first and last episode that a row group holds, by its statistics."""
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema == "episode_index":
            known = column.statistics
            return None if known is None or not known.has_min_max else (int(known.min), int(known.max))
    return None


def _numbers(column: pa.ChunkedArray, feature: Feature, where: str) -> Numbers:
    """Return a column of numbers, or of lists of them, as [length, width]."""
    flat, rows = column.combine_chunks(), len(column)
    while pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        flat = flat.flatten()
    if flat.null_count or not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type) or pa.types.is_boolean(flat.type)):
        raise DatasetError(f"{where}: got {column.type} with {flat.null_count} empty, expected numbers")
    values = flat.to_numpy(zero_copy_only=False)
    if len(values) != rows * feature.width:
        raise DatasetError(f"{where}: got {len(values) / rows:g} numbers a step, expected {feature.width}")
    return np.asarray(values.reshape(rows, feature.width), dtype=np.float32 if values.dtype == np.float32 else np.float64)


def _picture(stored: Any, folder: Path, where: str) -> ByteArray:
    """Decode a picture stored as bytes, or as the path of a file in the dataset."""
    data = stored.get("bytes") if isinstance(stored, dict) else stored
    path = stored.get("path") if isinstance(stored, dict) else None
    try:
        data = data if data is not None else (folder / str(path)).read_bytes()
    except OSError as problem:
        raise DatasetError(f"{where}: picture '{path}' cannot be read: {problem.strerror}") from None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if len(data) else None
    if decoded is None:
        raise DatasetError(f"{where}: {len(data)} bytes do not decode as a picture")
    return np.asarray(decoded, dtype=np.uint8)
