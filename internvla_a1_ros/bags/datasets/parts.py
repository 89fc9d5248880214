"""The files of a dataset that grow episode by episode: parquet, and the videos of each camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from internvla_a1_ros.bags.datasets.encoding import PIXELS, ClipEncoder, Joiner
from internvla_a1_ros.bags.datasets.info import DatasetError, Feature
from internvla_a1_ros.bags.datasets.metadata import COUNTERS, DATA_PATH, VIDEO_PATH, file_names
from internvla_a1_ros.bags.datasets.moments import RunningMoments
from internvla_a1_ros.bags.datasets.reading import Episode
from internvla_a1_ros.core.types import ByteArray

# Statistics of pictures need no more: every tenth picture, of it about 64 by 64 pixels.
_LOOKED_AT_EVERY, _LOOKED_AT_SIDE = 10, 64


class DataFiles:
    """The parquet files: one row group an episode; the next file when one is full."""

    def __init__(self, folder: Path, features: Mapping[str, Feature], full: int) -> None:
        self._folder, self._full = folder, full
        self._number, self._bytes = 0, 0
        self._writer: pq.ParquetWriter | None = None
        self._types = {key: _column_type(feature) for key, feature in {**features, **COUNTERS}.items()}

    def append(self, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
        """Write one episode and return where."""
        size = sum(values.nbytes for values in columns.values())
        if self._writer is not None and self._bytes + size > self._full:
            self.close()
            self._number, self._bytes = self._number + 1, 0
        path, place = file_names(DATA_PATH, self._number)
        if self._writer is None:
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._folder / path, pa.schema(self._types))
        arrays = [_as_column(columns[key], kind) for key, kind in self._types.items()]
        self._writer.write_table(pa.table(arrays, names=list(self._types)), row_group_size=max(len(arrays[0]), 1))
        self._bytes += size
        return {f"data/{name}": number for name, number in place.items()}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class CameraFiles:
    """The videos of one camera: the clip that is being encoded, and the file that clips are joined in."""

    def __init__(self, key: str, folder: Path, fps: Fraction, codec: str, full: int) -> None:
        self.key, self._folder, self._fps, self._codec, self._full = key, folder, fps, codec, full
        self._size: tuple[int, int] | None = None
        self._clip: ClipEncoder | None = None
        self._joiner: Joiner | None = None
        self._taken: Episode | None = None
        self._number, self._coded_as = 0, codec
        self.looked_at, self.looked_at_in_all = 0, 0
        self.moments = RunningMoments(3)

    def add(self, rgb: ByteArray) -> None:
        size = (int(rgb.shape[0]), int(rgb.shape[1]))
        self._size = self._size or size
        if size != self._size:
            (height, width), (h, w) = size, self._size
            raise DatasetError(f"pictures of '{self.key}': got one of {width}x{height}, expected {w}x{h} as the first was")
        if self._clip is None:
            self._clip = ClipEncoder(self._folder / f"clip-{self.key}.mp4", self._fps, self._codec, size)
            self.moments, self.looked_at = RunningMoments(3), 0
        if self._clip.count % _LOOKED_AT_EVERY == 0:
            self._look(rgb)
        self._clip.add(rgb)

    def take(self, episode: Episode, told: Mapping[str, Any] | None = None) -> None:
        """Let the next episode's clip be another dataset's. `told`: its statistics there; without them its pictures are looked at."""
        self.moments, self.looked_at = RunningMoments(3), 0
        if told is not None and self._size is not None:
            self.looked_at = int(np.asarray(told["count"]).reshape(-1)[0])
            rows, columns = (len(range(0, side, _apart(self._size))) for side in self._size)
            self.moments = RunningMoments.of_table(told, self.looked_at * rows * columns)
        else:
            for rgb in episode.frames(self.key, range(0, episode.length, _LOOKED_AT_EVERY)):
                self._size = self._size or (int(rgb.shape[0]), int(rgb.shape[1]))
                self._look(rgb)
        self._taken = episode

    def _look(self, rgb: ByteArray) -> None:
        step = _apart(rgb.shape[:2])
        self.moments.add(rgb[::step, ::step].reshape(-1, 3) / 255.0)
        self.looked_at += 1

    def end_episode(self) -> dict[str, Any]:
        """Join the clip to the file and return where."""
        if self._taken is not None:
            clip = self._taken.clips[self.key]
            where = self._join(clip.path, self._taken.length, clip.start_s)
            self._taken = None
            return where
        assert self._clip is not None
        mine, self._clip = self._clip, None
        mine.close()
        where = self._join(mine.path, mine.count)
        mine.path.unlink()
        return where

    def _join(self, source: Path, frames: int, start_s: float = 0.0) -> dict[str, Any]:
        if self._joiner is not None and self._joiner.bytes >= self._full:
            self.close()
            self._number += 1
        path, place = file_names(VIDEO_PATH, self._number, video_key=self.key)
        self._joiner = self._joiner or Joiner(self._folder / path, self._fps)
        start = self._joiner.frames
        self._joiner.append(source, frames, start_s)
        self._coded_as = self._joiner.codec
        self.looked_at_in_all += self.looked_at
        ends = {"from_timestamp": float(start / self._fps), "to_timestamp": float(self._joiner.frames / self._fps)}
        return {f"videos/{self.key}/{name}": value for name, value in (place | ends).items()}

    def discard(self) -> None:
        """Drop what was added since the last episode ended."""
        self._taken = None
        if self._clip is not None:
            self._clip.abandon()
            self._clip = None

    def close(self) -> None:
        if self._joiner is not None:
            self._joiner.close()
            self._joiner = None

    def feature(self, fps: float) -> dict[str, Any]:
        """Return what `info.json` says of the videos."""
        height, width = self._size or (0, 0)
        told = {
            "video.height": height,
            "video.width": width,
            "video.codec": self._coded_as,
            "video.pix_fmt": PIXELS,
            "video.is_depth_map": False,
            "video.fps": round(fps),
            "video.channels": 3,
            "has_audio": False,
        }
        return {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": told}


def _apart(size: Sequence[int]) -> int:
    """How many rows and columns of a picture of `size` (height, width) lie between those that are looked at."""
    return max(1, min(size) // _LOOKED_AT_SIDE)


def of_pictures(moments: RunningMoments, pictures: int) -> dict[str, Any]:
    """Statistics of colours in [0, 1] are [3, 1, 1], and count pictures."""
    table = moments.as_table()
    return {name: [[[value]] for value in table[name]] for name in ("min", "max", "mean", "std")} | {"count": [pictures]}


def _column_type(feature: Feature) -> pa.DataType:
    kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    return kind if feature.shape == (1,) else pa.list_(kind, feature.width)


def _as_column(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    flat_values = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat_values, kind.list_size) if pa.types.is_fixed_size_list(kind) else flat_values
