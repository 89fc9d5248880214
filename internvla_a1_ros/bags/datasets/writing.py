"""Writes a LeRobot dataset of version 3.0, step by step: whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from internvla_a1_ros.bags.datasets.encoding import choose_codec
from internvla_a1_ros.bags.datasets.info import DatasetError, Feature
from internvla_a1_ros.bags.datasets.metadata import COUNTERS, EPISODES_PATH, flat, write_info, write_json, write_tasks
from internvla_a1_ros.bags.datasets.moments import RunningMoments
from internvla_a1_ros.bags.datasets.parts import CameraFiles, DataFiles, of_pictures
from internvla_a1_ros.bags.datasets.reading import Episode
from internvla_a1_ros.core.types import ByteArray

_MB = 1024 * 1024
_EPISODES_AT_ONCE = 100


class DatasetWriter:
    """Appends episodes to a new dataset in `folder`; use it with `with`: the folder appears, whole, when the block ends without an error.

    `features` are the numbers of a step, `names` of their elements where they have any; `camera_keys` become videos of the size of
    their first picture. Memory holds the numbers of one episode. Raises ConfigurationError where `folder` exists, a step does not fit,
    or the disk is full; then nothing is left behind.
    """

    def __init__(
        self,
        folder: Path,
        fps: float,
        robot_type: str,
        features: Mapping[str, Feature],
        camera_keys: Sequence[str] = (),
        *,
        names: Mapping[str, Sequence[str]] | None = None,
        codec: str = "",
        data_file_mb: int = 100,
        video_file_mb: int = 200,
    ) -> None:
        self.folder, self.fps, self.robot_type = folder, fps, robot_type
        self.episodes, self.steps = 0, 0
        self._length = 0
        self._rate = Fraction(fps).limit_denominator(1001)
        self._features, self._names = dict(features), dict(names or {})
        self._codec = choose_codec(codec) if camera_keys else ""
        self._sizes_mb = (data_file_mb, video_file_mb)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DatasetError(f"dataset '{folder}': exists already, expected a new folder")
        for key, feature in self._features.items():
            if len(feature.shape) != 1 or feature.is_picture:
                raise DatasetError(f"dataset '{folder}': '{key}': got {feature}, expected a vector of numbers")
        self._part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        self._tasks: dict[str, int] = {}
        self._cameras = {key: CameraFiles(key, self._part, self._rate, self._codec, video_file_mb * _MB) for key in camera_keys}
        self._data = DataFiles(self._part, self._features, data_file_mb * _MB)
        self._rows: list[dict[str, Any]] = []
        self._table: pq.ParquetWriter | None = None
        self._totals: dict[str, RunningMoments] = {}
        self._steps: dict[str, list[npt.NDArray[Any]]] = {}
        with self._sentences():
            self._part.mkdir(parents=True)
        self._forget()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if problem is None:
            self.finish()
        else:
            self.abandon()

    @property
    def length(self) -> int:
        """Steps of the episode that is being written."""
        return self._length

    def add(self, numbers: Mapping[str, npt.ArrayLike], pictures: Mapping[str, ByteArray]) -> None:
        """Add one step: numbers [width] of each feature, a picture [height, width, 3] of each camera."""
        for got, expected, what in ((numbers, self._features, "numbers"), (pictures, self._cameras, "pictures")):
            if set(got) != set(expected):
                raise DatasetError(f"dataset '{self.folder}': got {what} of {', '.join(got)}, expected {', '.join(expected)}")
        for key, feature in self._features.items():
            values = np.asarray(numbers[key], dtype=np.dtype(feature.dtype)).reshape(-1)
            if len(values) != feature.width or not np.isfinite(values).all():
                raise DatasetError(f"dataset '{self.folder}': '{key}': got {values.tolist()}, expected {feature.width} finite numbers")
            self._steps[key].append(values)
        with self._sentences():
            for key, camera in self._cameras.items():
                camera.add(pictures[key])
        self._length += 1

    def end_episode(self, task: str | Sequence[str]) -> None:
        """Close the episode; `task` says in words what is done in it, one text for all its steps or one for each of them."""
        if self._length == 0:
            raise DatasetError(f"dataset '{self.folder}': episode {self.episodes} has no steps, expected at least one")
        n = self._length
        told = [task] * n if isinstance(task, str) else list(task)
        if len(told) != n:
            raise DatasetError(f"dataset '{self.folder}': got {len(told)} tasks in an episode of {n} steps, expected one a step")
        numbers = [self._tasks.setdefault(text, len(self._tasks)) for text in told]
        counters = {
            "timestamp": np.arange(n) / self.fps,
            "frame_index": np.arange(n),
            "episode_index": np.full(n, self.episodes),
            "index": np.arange(self.steps, self.steps + n),
            "task_index": np.array(numbers),
        }
        columns = {key: np.stack(steps) for key, steps in self._steps.items()}
        columns |= {key: values.reshape(n, 1).astype(COUNTERS[key].dtype) for key, values in counters.items()}
        row: dict[str, Any] = {"episode_index": self.episodes, "tasks": list(dict.fromkeys(told)), "length": n}
        with self._sentences():
            row |= self._data.append(columns)
            row |= {"dataset_from_index": self.steps, "dataset_to_index": self.steps + n}
            for camera in self._cameras.values():
                row |= camera.end_episode()
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            self._rows.append(row | flat(self._statistics(columns)))
            if len(self._rows) == _EPISODES_AT_ONCE:
                self._write_rows()
        self.episodes, self.steps = self.episodes + 1, self.steps + n
        self._forget()

    def append(self, episode: Episode, task: str | Sequence[str], told: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Add an episode of another dataset that has the features and cameras of this one; its videos are copied as they are coded.

        `task` as in `end_episode`. `told`: statistics of its pictures by camera, where they are known; to decode some takes longest.
        """
        if self._length:
            raise DatasetError(f"dataset '{self.folder}': got another episode after {self._length} steps, expected them to be ended first")
        for key, feature in {**self._features, **dict.fromkeys(self._cameras)}.items():
            if feature is not None and episode.info.need(key) != feature:
                raise DatasetError(f"{episode.name}: '{key}': got {episode.info.features[key]}, expected {feature}")
            if feature is None and key not in episode.clips:
                raise DatasetError(f"{episode.name}: '{key}': got pictures that are stored one by one, expected a video, to be copied")
        episode.check((), self._cameras)
        table = episode.table(self._features)
        self._steps = {key: list(values.astype(self._features[key].dtype)) for key, values in table.items()}
        self._length = episode.length
        with self._sentences():
            for key, camera in self._cameras.items():
                camera.take(episode, (told or {}).get(key))
        self.end_episode(task)

    def discard_episode(self) -> None:
        """Drop the steps added since the last episode ended."""
        for camera in self._cameras.values():
            camera.discard()
        self._forget()

    def finish(self) -> None:
        """Write the metadata and put the dataset in its place."""
        try:
            if self._length:
                raise DatasetError(f"dataset '{self.folder}': got {self._length} steps after the last episode, expected it to be ended")
            if self.episodes == 0:
                raise DatasetError(f"dataset '{self.folder}': got no episode, expected at least one")
            with self._sentences():
                self._data.close()
                for camera in self._cameras.values():
                    camera.close()
                self._write_rows()
                self._close_table()
                self._write_metadata()
                if self.folder.is_dir():
                    self.folder.rmdir()  # empty, as was seen at the start
                os.replace(self._part, self.folder)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Remove everything that was written."""
        self.discard_episode()
        for closing in (self._data.close, self._close_table, *(camera.close for camera in self._cameras.values())):
            with suppress(OSError, av.FFmpegError, pa.ArrowException):  # a full disk: what cannot be closed is removed all the same
                closing()
        shutil.rmtree(self._part, ignore_errors=True)

    def _forget(self) -> None:
        self._length = 0
        self._steps = {key: [] for key in self._features}

    def _statistics(self, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, Any]]:
        """Return the episode's statistics by key, and add them to the whole dataset's."""
        found = {}
        for key, values in columns.items():
            found[key] = RunningMoments(values.shape[1])
            found[key].add(values)
        tables = {key: moments.as_table() for key, moments in found.items()}
        for key, camera in self._cameras.items():
            found[key] = camera.moments
            tables[key] = of_pictures(found[key], camera.looked_at)
        for key, moments in found.items():
            self._totals.setdefault(key, RunningMoments(len(moments.mean))).merge(moments)
        return tables

    def _write_rows(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows)
        if self._table is None:
            path = self._part / EPISODES_PATH
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table = pq.ParquetWriter(path, table.schema)
        self._table.write_table(table)
        self._rows = []

    def _write_metadata(self) -> None:
        numbers = {**self._features, **COUNTERS}
        features = {
            key: {"dtype": feature.dtype, "shape": list(feature.shape), "names": list(self._names[key]) if key in self._names else None}
            for key, feature in numbers.items()
        }
        features |= {key: camera.feature(self.fps) for key, camera in self._cameras.items()}
        totals = {"total_episodes": self.episodes, "total_frames": self.steps, "total_tasks": len(self._tasks)}
        write_info(self._part, self.fps, self.robot_type, features, totals, self._sizes_mb)
        write_tasks(self._part, list(self._tasks))
        stats = {
            key: of_pictures(moments, self._cameras[key].looked_at_in_all) if key in self._cameras else moments.as_table()
            for key, moments in self._totals.items()
        }
        write_json(self._part / "meta" / "stats.json", stats)

    def _close_table(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError, pa.ArrowException) as problem:
            full = getattr(problem, "errno", None) == errno.ENOSPC
            reason = "the disk is full" if full else getattr(problem, "strerror", None) or str(problem)
            raise DatasetError(f"dataset '{self.folder}': cannot be written: {reason}") from None
