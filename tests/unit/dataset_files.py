"""LeRobot datasets in miniature: written by our writer (3.0), or file by file as version 2.1 lays them out."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from internvla_a1_ros.bags.datasets import Dataset, DatasetWriter, Feature
from internvla_a1_ros.bags.datasets.encoding import ClipEncoder

FPS = 30
SIZE = (48, 64)
LENGTHS = (31, 1, 12)
ARM, GRIPPER, HEAD, HAND = "states.left_joint.position", "states.left_gripper.position", "images.rgb.head", "images.rgb.hand_left"
V2_PLACES = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
FEATURES = {ARM: Feature("float32", (6,)), GRIPPER: Feature("float32", (1,))}


def arm(episode: int, k: int) -> np.ndarray:
    return np.arange(6) + 0.25 * k + 100 * episode


def picture(episode: int, k: int, camera: str = HEAD) -> np.ndarray:
    """Two halves whose grey levels tell episode and step, so that no other picture is as near."""
    rgb = np.empty((*SIZE, 3), np.uint8)
    rgb[:, :32] = 20 + 70 * episode + (40 if camera == HAND else 0)
    rgb[:, 32:] = 10 + 7 * k
    return rgb


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(a.astype(int) - b).mean())


def write_v3(folder: Path, lengths: tuple[int, ...] = LENGTHS, **options: Any) -> Path:
    with DatasetWriter(folder, FPS, "arx_lift2", FEATURES, (HEAD, HAND), **options) as writer:
        for episode, length in enumerate(lengths):
            for k in range(length):
                shown = {key: picture(episode, k, key) for key in (HEAD, HAND)}
                writer.add({ARM: arm(episode, k), GRIPPER: [k]}, shown)
            writer.end_episode(f"task {episode % 2}")
    return folder


def write_v2(folder: Path, lengths: tuple[int, ...] = LENGTHS, version: str = "v2.1", images: str = "video") -> Path:
    """`images`: how the head's pictures are stored: as video, as image bytes, or as paths of files."""
    features: dict[str, Any] = {key: {"dtype": "float32", "shape": list(f.shape), "names": None} for key, f in FEATURES.items()}
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in ("frame_index", "episode_index", "index", "task_index")}
    features |= {HEAD: {"dtype": "video" if images == "video" else "image", "shape": [*SIZE, 3], "names": ["height", "width", "channel"]}}
    info = {
        "codebase_version": version,
        "robot_type": "arx_lift2",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": 2,
        "total_chunks": 1,
        "chunks_size": 2,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        **V2_PLACES,
        "features": features,
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    write_lines(folder / "meta/tasks.jsonl", [{"task_index": i, "task": f"task {i}"} for i in range(2)])
    rows = [{"episode_index": e, "tasks": [f"task {e % 2}"], "length": length} for e, length in enumerate(lengths)]
    write_lines(folder / "meta/episodes.jsonl", rows)
    first = 0
    for episode, length in enumerate(lengths):
        write_v2_episode(folder, episode, length, first, images)
        first += length
    return folder


def write_v2_episode(folder: Path, episode: int, length: int, first: int, images: str) -> None:
    chunk = f"chunk-{episode // 2:03d}"
    columns = {
        ARM: pa.array([arm(episode, k).astype(np.float32).tolist() for k in range(length)], pa.list_(pa.float32())),
        GRIPPER: pa.array([float(k) for k in range(length)], pa.float32()),
        "frame_index": pa.array(range(length), pa.int64()),
        "episode_index": pa.array([episode] * length, pa.int64()),
        "index": pa.array(range(first, first + length), pa.int64()),
        "task_index": pa.array([episode % 2] * length, pa.int64()),
    }
    if images == "video":
        path = folder / "videos" / chunk / HEAD / f"episode_{episode:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        encoder = ClipEncoder(path, Fraction(FPS), "h264", SIZE)
        for k in range(length):
            encoder.add(picture(episode, k))
        encoder.close()
    else:
        stored = []
        for k in range(length):
            data, name = png(picture(episode, k)), f"images/{HEAD}/episode_{episode:06d}/frame_{k:06d}.png"
            if images == "path":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            stored.append({"bytes": data if images == "bytes" else None, "path": name})
        columns[HEAD] = pa.array(stored, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    path = folder / "data" / chunk / f"episode_{episode:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def as_v2(dataset: Dataset, folder: Path) -> Path:
    """The same numbers, and the same pictures coded again, as version 2.1 lays them out."""
    told = json.loads((dataset.folder / "meta/info.json").read_text())
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(told | V2_PLACES | {"codebase_version": "v2.1", "chunks_size": 1000}))
    tasks = list(dict.fromkeys(task for episode in dataset.episodes for task in episode.told(dataset.tasks)))
    write_lines(folder / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)])
    rows, first = [], 0
    for episode in dataset.episodes:
        said, steps, name = episode.told(dataset.tasks), range(episode.length), f"chunk-000/episode_{episode.index:06d}"
        rows.append({"episode_index": episode.index, "tasks": sorted(set(said)), "length": episode.length})
        table = episode.table([key for key in dataset.features if key not in dataset.camera_keys and "_index" not in key])
        columns = {key: pa.array(list(values), pa.list_(pa.float32())) for key, values in table.items()}
        counted = {"frame_index": steps, "index": range(first, first + episode.length)}
        counted |= {"episode_index": [episode.index] * episode.length, "task_index": [tasks.index(task) for task in said]}
        columns |= {key: pa.array(values, pa.int64()) for key, values in counted.items()}
        (folder / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / "data" / f"{name}.parquet")
        for camera in dataset.camera_keys:
            path = folder / "videos/chunk-000" / camera / f"episode_{episode.index:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            encoder = None
            for rgb in episode.frames(camera, list(steps)):
                encoder = encoder or ClipEncoder(path, Fraction(dataset.fps), "h264", rgb.shape[:2])
                encoder.add(rgb)
            encoder.close()
        first += episode.length
    write_lines(folder / "meta/episodes.jsonl", rows)
    return folder


def png(rgb: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", rgb[:, :, ::-1])[1].tobytes())


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_info(folder: Path, **values: Any) -> None:
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
