"""A run in miniature: a tiny model with the nano's words, and a dataset of an ARX whose next state follows from its pictures."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tiny import TINY, write_tiny

from internvla_a1_ros.bags.dataset_statistics import count
from internvla_a1_ros.bags.datasets import Dataset, DatasetWriter, Feature
from internvla_a1_ros.learning.recipe import Recipe
from internvla_a1_ros.learning.running import Prepared, prepare, run
from internvla_a1_ros.learning.warmup_targets import FIELDS, SEEN
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.statistics import ARX, Layout
from internvla_a1_ros.robots.document import read_mapping
from internvla_a1_ros.runtime.deployment import find_checkpoint

NANO = find_checkpoint("nano")
FPS, LENGTHS = 10, (12, 9)
WIDTHS = (6, 1, 6, 1)


def write_start(folder: Path, tiny: Architecture = TINY) -> Path:
    """A start of tiny size, without statistics."""
    nano = load_architecture(NANO)
    sizes = replace(tiny, vocabulary=nano.vocabulary, tokens=nano.tokens, robot_width=14)
    write_tiny(folder, sizes)
    shutil.copyfile(NANO / "tokenizer.json", folder / "tokenizer.json")
    manifest = read_mapping(NANO / "manifest.yaml")
    manifest["actions"]["dt_s"] = 1 / FPS
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def write_dataset(
    folder: Path,
    robot_type: str = "arx_ac_one",
    lengths: tuple[int, ...] = LENGTHS,
    fps: int = FPS,
    led: tuple[range, ...] = (),
    changes: tuple[int, ...] = (),
    seen: bool = False,
    layout: Layout = ARX,
) -> Path:
    """`led`: the steps of each episode in which somebody else has the arms, as the key `led`; no such key where there are none.
    `changes`: the steps of every episode at which the instruction becomes another. `seen`: a key says where the edge of the light is."""
    both = (layout.state_keys, layout.action_keys)
    features = {key: Feature("float32", (width_of(key, layout),)) for keys in both for key in keys}
    features |= {"led": Feature("int64", (1,))} if led else {}
    features |= {SEEN: Feature("float32", (len(layout.camera_keys) * FIELDS,))} if seen else {}
    with DatasetWriter(folder, fps, robot_type, features, layout.camera_keys) as writer:
        for episode, length in enumerate(lengths):
            for k in range(length):
                row: dict[str, Any] = {"led": int(k in led[episode])} if led else {}
                row |= {SEEN: np.tile((1, (2 + 2 * k) / 32, 0.5, *[0] * (FIELDS - 3)), len(ARX.camera_keys))} if seen else {}
                for keys, at in zip(both, (k, k + 1), strict=True):
                    for i, (key, width) in enumerate((key, features[key].width) for key in keys):
                        wave = np.sin(0.3 * at + episode + i + np.arange(width))
                        row[key] = wave if width > 1 else 1.5 * wave - 1.7  # a gripper's motor reads 0 to -3.4
                shown = {key: picture(k, view) for view, key in enumerate(layout.camera_keys)}
                writer.add(row, shown)
            parts = [sum(k >= at for at in changes) for k in range(length)]
            writer.end_episode([f"task {episode}" + f", part {part}" * bool(part) for part in parts])
    return folder


def width_of(key: str, layout: Layout) -> int:
    """Genie-1's arms have seven joints."""
    return 1 if "gripper" in key else 6 if layout is ARX else 7


def picture(k: int, view: int) -> np.ndarray:
    rgb = np.full((24, 32, 3), 40 + 30 * view, np.uint8)
    rgb[:, : 2 + 2 * k] = 220
    return rgb


def write_stats(path: Path, *datasets: Path) -> Path:
    found = count([Dataset.open(folder) for folder in datasets], "delta", TINY.chunk)
    path.write_text(json.dumps(found.as_table()))
    return path


def write_all(folder: Path) -> dict[str, Any]:
    """Make everything, and return a recipe's keys."""
    write_start(folder / "start")
    write_dataset(folder / "data")
    write_stats(folder / "start/stats.json", folder / "data")
    write_mixture(folder / "mixture.yaml", {"path": str(folder / "data")})
    schedule = {"kind": "constant", "peak": 3e-3, "warmup_steps": 3}
    return {
        "name": "tiny",
        "start": str(folder / "start"),
        "mixture": str(folder / "mixture.yaml"),
        "out": str(folder / "out"),
        "steps": 4,
        "batch": 2,
        "schedule": schedule,
        "cache": str(folder / "cache"),
    }


def write_mixture(path: Path, *datasets: dict[str, Any], **more: Any) -> Path:
    path.write_text(yaml.safe_dump({"name": "mix", "datasets": list(datasets), **more}))
    return path


class Quiet:
    """Nobody watches; what is told is kept."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.sentences: list[str] = []

    def caching(self, name: str, steps: int) -> Any:
        return lambda done: None

    def stepped(self, report: Any) -> None:
        self.reports.append(report)

    def left_out(self, why: str) -> None:
        self.sentences.append(why)


def prepared(keys: dict[str, Any], **changes: Any) -> Prepared:
    torch.set_num_threads(1)
    return prepare(Recipe.model_validate(keys | changes), Quiet())


def trained(keys: dict[str, Any], **changes: Any) -> tuple[Prepared, list[Any]]:
    watcher, ready = Quiet(), prepared(keys, **changes)
    run(ready, watcher)
    return ready, watcher.reports


def weights_of(ready: Prepared) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in ready.trainer.model.named_parameters()}


def together(folder: Path, recipe: dict[str, Any], processes: int = 2) -> None:
    """Train by a recipe in several processes."""
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump(recipe))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "internvla_a1_ros.cli.main", "train", str(config)],
            env=os.environ | about | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)},
        )
        for rank in range(processes)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0] * processes
