"""Several datasets, written side by side, become one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from internvla_a1_ros.bags.datasets.episodes import read_statistics
from internvla_a1_ros.bags.datasets.info import INFO, DatasetError
from internvla_a1_ros.bags.datasets.metadata import COUNTERS
from internvla_a1_ros.bags.datasets.reading import Dataset
from internvla_a1_ros.bags.datasets.writing import DatasetWriter


def merge(folders: Sequence[Path], out: Path) -> None:
    """Write the episodes of all `folders`, in this order, as one dataset `out`: what processes wrote side by side becomes one.

    Raises DatasetError where one has other features, cameras, coding, rate or robot type than the first, or a step has no task; then
    nothing is left behind.
    """
    datasets = [Dataset.open(folder) for folder in folders]
    first = datasets[0]
    for dataset in datasets:
        for what in ("fps", "robot_type", "features"):
            if getattr(dataset, what) != getattr(first, what):
                raise DatasetError(f"dataset '{dataset.folder}': {what} differ from those of '{first.folder}', expected the same to merge")
    numbers = {key: feature for key, feature in first.features.items() if not feature.is_picture and key not in COUNTERS}
    names = {key: names for key in numbers if (names := _names(first, key))}
    with DatasetWriter(out, first.fps, first.robot_type, numbers, first.camera_keys, names=names) as writer:
        for dataset in datasets:
            told = {key: read_statistics(dataset.info, key) for key in first.camera_keys}
            for episode in dataset.episodes:
                known = {key: found[episode.index] for key, found in told.items() if episode.index in found}
                writer.append(episode, episode.told(dataset.tasks), known)


def _names(dataset: Dataset, key: str) -> list[str]:
    """Return what a key's numbers are called, nothing where that is not said as a list."""
    said = json.loads((dataset.folder / INFO).read_text(encoding="utf-8"))["features"][key].get("names")
    return [str(name) for name in said] if isinstance(said, list) and len(said) == dataset.features[key].width else []
