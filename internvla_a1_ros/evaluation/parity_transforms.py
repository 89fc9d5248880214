"""A folder of reference transforms against ours: resize with pad, normalisation, delta actions of each robot type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.core.types import ByteArray
from internvla_a1_ros.evaluation.comparison import RESIZE_ERROR, Limits, Numbers, Row, compare
from internvla_a1_ros.policy.pictures import model_picture
from internvla_a1_ros.policy.statistics import LAYOUTS, StatisticsFile
from internvla_a1_ros.policy.transforms import ActionMode, Array, Mask, Pad, StateTransform, action_transform, delta_mask

RESIZED = re.compile(r"resize_with_pad\.(\d+)x(\d+)\.to\.(\d+)(?:x(\d+))?")

MODES: tuple[ActionMode, ...] = ("abs", "delta")


def reference_picture(height: int, width: int) -> ByteArray:
    """The picture of the references: pixel[y, x, c] = (3x + 5y(c + 1) + xy // 7) mod 256."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((x * 3 + y * 5 * (c + 1) + (x * y) // 7) % 256).astype(np.uint8)


def transform_rows(folder: Path, io: Numbers, limits: Limits) -> Iterator[Row]:
    """Compare everything the folder holds. Raises ConfigurationError where `stats.json` or a robot type cannot be used."""
    for name in io.names:
        found = RESIZED.fullmatch(name)
        if found:
            height, width, rows, columns = (int(n) for n in found.groups(default=found[3]))
            got = model_picture(reference_picture(height, width), (rows, columns))
            yield compare("resize", name, got, io[name], limits.at_least(RESIZE_ERROR))
    robots = [name.removesuffix(".state") for name in io.names if name.endswith(".state")]
    statistics = StatisticsFile(folder / "stats.json") if robots else None
    for robot in robots:
        assert statistics is not None
        yield from robot_rows(robot, statistics, io, limits)


def robot_rows(robot: str, statistics: StatisticsFile, io: Numbers, limits: Limits) -> Iterator[Row]:
    def row(what: str, got: Array | Mask, name: str) -> Row:
        want = io[f"{robot}.{name}"]
        return compare(robot, what, torch.from_numpy(got), want[..., : got.shape[-1]], limits)

    moments, state = statistics.of(robot), numbers(io[f"{robot}.state"])
    mask = numbers(io[f"{robot}.delta_mask"]).astype(bool)
    if robot in LAYOUTS:
        yield row("delta_mask", delta_mask(LAYOUTS[robot].delta_runs), "delta_mask")
    output = numbers(io[f"{robot}.model_output"])
    pad = Pad(state.shape[-1], output.shape[-1])
    transform = StateTransform(moments.state.scale("mean_std"), pad)
    normalised = transform.forward(state)
    yield row("state_normalised", pad.inverse(normalised), "state_normalised")
    yield row("state, there and back", transform.inverse(normalised), "state")
    for mode in MODES:
        name = f"actions_{mode}"
        if f"{robot}.{name}" in io:
            transformed = action_transform(mode, mask, moments.action.scale("mean_std"), pad)
            actions = transformed.inverse(output, state)
            yield row(name, actions, name)
            yield row(f"{name}, there and back", pad.inverse(transformed.forward(actions, state)), "model_output")


def numbers(tensor: Tensor) -> Array:
    array: Array = tensor.double().numpy()
    return array
