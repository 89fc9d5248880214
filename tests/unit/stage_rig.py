"""The stages before the policy's in miniature: a tiny model, and a dataset of a bright piece that moves, with what is seen of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import TINY
from training_rig import WIDTHS as ARX_WIDTHS
from training_rig import Quiet, write_mixture, write_start, write_stats

from internvla_a1_ros.bags.datasets import DatasetWriter, Feature
from internvla_a1_ros.learning.stages import STAGES, PreparedStage, prepare_stage, run_stage
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.statistics import ARX

HEIGHT, WIDTH, SLOTS, EPISODES, LENGTH = 24, 32, 2, 4, 8


def write_seen(folder: Path, key: str = "simulation.seen") -> Path:
    widths = [*zip(ARX.state_keys, ARX_WIDTHS, strict=True), *zip(ARX.action_keys, ARX_WIDTHS, strict=True), (key, 3 * SLOTS * 10)]
    features = {name: Feature("float32", (width,)) for name, width in widths}
    draw = np.random.default_rng(0)
    with DatasetWriter(folder, 10, "arx_ac_one", features, ARX.camera_keys) as writer:
        for episode in range(EPISODES):
            for _ in range(LENGTH):
                seen, shown = np.zeros((3, SLOTS, 10)), {}
                for view, camera in enumerate(ARX.camera_keys):
                    x, y = draw.uniform(4, WIDTH - 4), draw.uniform(4, HEIGHT - 4)
                    seen[view, episode % SLOTS] = (1, x / WIDTH, y / HEIGHT, 0.4 + 0.1 * view, 1, 0, 0.5, 0.1, 0.05, 0.04)
                    shown[camera] = piece(x, y)
                row: dict[str, Any] = {name: np.sin(np.arange(f.width) + len(shown)) for name, f in features.items()}
                writer.add(row | {key: seen.reshape(-1)}, shown)
            writer.end_episode("task")
    return folder


def piece(x: float, y: float) -> np.ndarray:
    rgb = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    rgb[round(y) - 3 : round(y) + 3, round(x) - 3 : round(x) + 3] = (230, 160, 90)
    return rgb


def write_stage(folder: Path, stage: str, tiny: Architecture = TINY, **changes: Any) -> dict[str, Any]:
    """Make everything, and return a recipe's keys."""
    write_start(folder / "start", tiny)
    write_seen(folder / "data")
    write_stats(folder / "start/stats.json", folder / "data")
    write_mixture(folder / "mixture.yaml", {"path": str(folder / "data")})
    return {
        "stage": stage,
        "name": "tiny",
        "start": str(folder / "start"),
        "mixture": str(folder / "mixture.yaml"),
        "out": str(folder / "out"),
        "cache": str(folder / "cache"),
        "steps": 4,
        "batch": 6,
        "every": 2,
        "held_out": 4,
        "shift_px": 2,
        "schedule": {"kind": "constant", "peak": 3e-3, "warmup_steps": 3},
        **changes,
    }


def ready(keys: dict[str, Any], **changes: Any) -> PreparedStage:
    torch.set_num_threads(1)
    return prepare_stage(STAGES[keys["stage"]].model_validate(keys | changes), Quiet())


def done(keys: dict[str, Any], stop: Callable[[PreparedStage], bool] = lambda _: False, **changes: Any) -> tuple[PreparedStage, list[Any]]:
    watcher, prepared = Quiet(), ready(keys, **changes)
    run_stage(prepared, watcher, lambda: stop(prepared))
    return prepared, watcher.reports
