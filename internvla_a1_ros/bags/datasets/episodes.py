"""Where each episode's steps and pictures lie, from the metadata of version 2.x (`episodes.jsonl`) or 3.0 (`meta/episodes`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from internvla_a1_ros.bags.datasets.info import DatasetError, Info


@dataclass(frozen=True, slots=True)
class Clip:
    """An episode's part of a video file, from `start_s`; `end_s` None: to the file's end."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One episode: its number, its steps, what it shows, the parquet file that holds its steps, its clip of each video."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    clips: dict[str, Clip]


def read_places(info: Info) -> list[Place]:
    """Return every episode in order. Raises DatasetError for metadata that is missing or malformed; other files are not looked at."""
    try:
        found = list(_places_v3(info) if info.is_v3 else _places_v2(info))
    except KeyError as problem:
        raise DatasetError(f"dataset '{info.folder}': metadata of its episodes has no {problem}") from None
    except (TypeError, ValueError) as problem:
        if isinstance(problem, DatasetError):
            raise
        raise DatasetError(f"dataset '{info.folder}': metadata of its episodes cannot be read: {problem}") from None
    if len(found) != info.episodes:
        raise DatasetError(f"dataset '{info.folder}': got {len(found)} episodes in its metadata, expected {info.episodes} (meta/info.json)")
    return sorted(found, key=lambda place: place.index)


def read_tasks(info: Info) -> dict[int, str]:
    """Return the texts that `task_index` counts. Raises DatasetError where their file is missing or malformed."""
    path = info.folder / "meta" / ("tasks.parquet" if info.is_v3 else "tasks.jsonl")
    rows = read_rows(path, without="stats/") if info.is_v3 else list(_lines(path))
    try:  # in a parquet file the column of the texts has whatever name the index of a pandas table had
        return {int(row["task_index"]): next(str(text) for key, text in row.items() if key != "task_index") for row in rows}
    except (KeyError, StopIteration, TypeError, ValueError):
        raise DatasetError(f"{path}: got a row without task_index or text, expected both") from None


def read_statistics(info: Info, key: str) -> dict[int, dict[str, Any]]:
    """Return what is told of a key's values in each episode: min, max, mean, std and count. Nothing where a dataset does not say it so.

    Raises DatasetError where the metadata cannot be read.
    """
    prefix, told = f"stats/{key}/", {}
    for path in sorted((info.folder / "meta" / "episodes").glob("*/*.parquet")):
        for row in _rows(path, lambda name: name == "episode_index" or name.startswith(prefix)):
            index = int(row.pop("episode_index"))
            told[index] = {name.removeprefix(prefix): values for name, values in row.items()}
    whole = {"min", "max", "mean", "std", "count"}
    return {index: table for index, table in told.items() if whole <= {name for name, values in table.items() if values is not None}}


def read_rows(path: Path, without: str) -> list[dict[str, Any]]:
    """Return the rows of a parquet file, without columns whose name begins with `without`. Raises DatasetError where it is none."""
    return _rows(path, lambda name: not name.startswith(without))


def _rows(path: Path, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            return list(file.read(columns=[name for name in file.schema_arrow.names if wanted(name)]).to_pylist())
    except (OSError, pa.ArrowException) as problem:
        raise DatasetError(f"{path}: cannot be read as parquet: {first_line(problem)}") from None


def first_line(problem: BaseException) -> str:
    """Libraries explain at length; one line is for people."""
    return str(problem).strip().split("\n")[0].rstrip(".")


def _places_v2(info: Info) -> Iterator[Place]:
    for row in _lines(info.folder / "meta" / "episodes.jsonl"):
        index = int(row["episode_index"])
        names: dict[str, Any] = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        clips = {
            key: Clip(info.folder / info.video_path.format(video_key=key, **names))
            for key, feature in info.features.items()
            if feature.dtype == "video"
        }
        tasks = tuple(str(task) for task in row.get("tasks", ()))
        yield Place(index, int(row["length"]), tasks, info.folder / info.data_path.format(**names), clips)


def _places_v3(info: Info) -> Iterator[Place]:
    files = sorted((info.folder / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"dataset '{info.folder}': no parquet file below meta/episodes")
    for path in files:
        for row in read_rows(path, without="stats/"):
            yield _place_v3(info, row)


def _place_v3(info: Info, row: Mapping[str, Any]) -> Place:
    clips = {}
    for key, feature in info.features.items():
        if feature.dtype == "video":
            part = f"videos/{key}"
            path = info.video_path.format(
                video_key=key, chunk_index=int(row[f"{part}/chunk_index"]), file_index=int(row[f"{part}/file_index"])
            )
            clips[key] = Clip(info.folder / path, float(row[f"{part}/from_timestamp"]), float(row[f"{part}/to_timestamp"]))
    data = info.data_path.format(chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"]))
    tasks = tuple(str(task) for task in row.get("tasks") or ())
    return Place(int(row["episode_index"]), int(row["length"]), tasks, info.folder / data, clips)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise DatasetError(f"{path}: cannot be read: {problem.strerror}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise DatasetError(f"{path}: line {number} is no JSON") from None
