"""`stats.json` of a checkpoint: the mean, spread and range of every raw key, put together in the robot's key order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from internvla_a1_ros.core.errors import CheckpointError, RobotMismatch, suggestion
from internvla_a1_ros.model.files import read_json
from internvla_a1_ros.policy.transforms import Array, MeanStd, MinMax, Scale

WHOLE_STATE, WHOLE_ACTION = "observation.state", "action"
Mode = Literal["mean_std", "min_max", "mean_std_by_step"]
BY_STEP = ("mean_by_step", "std_by_step")  # ours: beside the released moments of an action key, [H][W]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a robot type names and orders its vectors, and which joints of a delta chunk are relative (runs, `delta_mask`)."""

    state_keys: tuple[str, ...]
    action_keys: tuple[str, ...]
    camera_keys: tuple[str, ...]
    delta_runs: tuple[int, ...]


def named(parts: tuple[str, ...], state: str, action: str, cameras: str, runs: tuple[int, ...]) -> Layout:
    views = tuple(f"{cameras}.{view}" for view in ("head", "hand_left", "hand_right"))
    return Layout(tuple(f"{state}.{p}.position" for p in parts), tuple(f"{action}.{p}.position" for p in parts), views, runs)


ARX = named(("left_joint", "left_gripper", "right_joint", "right_gripper"), "states", "actions", "images.rgb", (6, -1, 6, -1))
GENIE = named(("left_joint", "right_joint", "left_gripper", "right_gripper"), "states", "actions", "images.rgb", (14, -2))
A2D = named(("joint", "effector"), "observation.states", "actions", "observation.images", (14, -2))
LAYOUTS = {"ARX Lift-2": ARX, "arx_lift2": ARX, "ARX AC One": ARX, "arx_ac_one": ARX, "Genie-1": GENIE, "genie1": GENIE, "a2d": A2D}
ALIASES = (("ARX Lift-2", "arx_lift2"), ("ARX AC One", "arx_ac_one"), ("Genie-1", "genie1"))


def aliases(robot_type: str) -> tuple[str, ...]:
    """All names of the same robot type, its own first."""
    others = [name for group in ALIASES if robot_type in group for name in group if name != robot_type]
    return (robot_type, *others)


def layout_of(robot_type: str) -> Layout:
    """Raises RobotMismatch for a robot type the released data does not know."""
    if robot_type not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise RobotMismatch(f"robot type: got '{robot_type}', expected one of {known}{suggestion(robot_type, list(LAYOUTS))}")
    return LAYOUTS[robot_type]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Statistics of one vector [W], in robot units (deltas where the checkpoint's actions are).

    `by_step`: mean and spread [H, W] of each step of a chunk, where the file has them.
    """

    mean: Array
    std: Array
    minimum: Array
    maximum: Array
    by_step: tuple[Array, Array] | None = None

    @property
    def width(self) -> int:
        return int(self.mean.size)

    def scale(self, mode: Mode) -> Scale:
        """Return the normalisation; a vector that has no steps, as a state, is normalised as a whole."""
        if mode == "mean_std_by_step" and self.by_step is not None:
            return MeanStd(*self.by_step)
        return MinMax(self.minimum, self.maximum) if mode == "min_max" else MeanStd(self.mean, self.std)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What a checkpoint knows of one robot type."""

    robot_type: str
    state: Moments
    action: Moments

    def check_steps(self, mode: Mode, chunk: int) -> None:
        """Raise CheckpointError where `mode` normalises step by step and the file does not tell of every step of a chunk."""
        steps = 0 if self.action.by_step is None else len(self.action.by_step[0])
        if mode == "mean_std_by_step" and steps != chunk:
            raise CheckpointError(
                f"normalisation {mode}: stats.json tells of {steps} steps of '{self.robot_type}', expected the {chunk} of a chunk: "
                f"make it with `internvla-a1 stats DATASET ... --by-step --chunk {chunk}`"
            )


class StatisticsFile:
    """The whole `stats.json`, of one or many robot types."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError where the file is missing or no such table."""
        self.path = path
        self.table = read_json(path)
        self.single = WHOLE_STATE in self.table and WHOLE_ACTION in self.table

    @property
    def robot_types(self) -> tuple[str, ...]:
        """The types the file names; none where it holds `observation.state` and `action` directly, of whatever robot."""
        return () if self.single else tuple(self.table)

    def of(self, robot_type: str) -> Statistics:
        """Return the statistics of `robot_type`, under any of its names. Raises RobotMismatch or CheckpointError."""
        if self.single:
            return self.read(robot_type, self.table)
        for name in aliases(robot_type):
            if name in self.table:
                return self.read(robot_type, self.table[name])
        known = ", ".join(self.robot_types)
        raise RobotMismatch(
            f"'{self.path}': no statistics of robot type '{robot_type}', it has {known}{suggestion(robot_type, list(self.robot_types))}"
        )

    def read(self, robot_type: str, keys: Any) -> Statistics:
        if not isinstance(keys, Mapping):
            raise CheckpointError(f"'{self.path}': '{robot_type}': got {type(keys).__name__}, expected a table of keys")
        if WHOLE_STATE in keys and WHOLE_ACTION in keys:
            return Statistics(robot_type, self.join(keys, (WHOLE_STATE,)), self.join(keys, (WHOLE_ACTION,)))
        layout = layout_of(robot_type)
        return Statistics(robot_type, self.join(keys, layout.state_keys), self.join(keys, layout.action_keys))

    def join(self, keys: Mapping[str, Any], order: tuple[str, ...]) -> Moments:
        """Concatenate the moments of `order`."""
        mean, std, low, high = (np.concatenate([self.numbers(keys, key, m) for key in order]) for m in ("mean", "std", "min", "max"))
        if not mean.size == std.size == low.size == high.size:
            raise CheckpointError(f"'{self.path}': mean, std, min and max of {', '.join(order)} differ in length")
        return Moments(mean, std, low, high, self.by_step(keys, order))

    def by_step(self, keys: Mapping[str, Any], order: tuple[str, ...]) -> tuple[Array, Array] | None:
        """Mean and spread [H, W] of each step; None where no key has them."""
        if not any(moment in keys[key] for key in order for moment in BY_STEP):
            return None
        widths = [self.numbers(keys, key, "mean").size for key in order]
        flat = [[self.numbers(keys, key, moment) for key in order] for moment in BY_STEP]
        lengths = {part.size / width for parts in flat for part, width in zip(parts, widths, strict=True)}
        if len(lengths) > 1 or not next(iter(lengths)).is_integer():
            raise CheckpointError(f"'{self.path}': {' and '.join(BY_STEP)} of {', '.join(order)} differ in length")
        mean, std = (np.concatenate([p.reshape(-1, w) for p, w in zip(parts, widths, strict=True)], axis=1) for parts in flat)
        return mean, std

    def numbers(self, keys: Mapping[str, Any], key: str, moment: str) -> Array:
        if key not in keys:
            raise CheckpointError(f"'{self.path}': missing key '{key}'{suggestion(key, list(keys))}")
        if not isinstance(keys[key], Mapping) or moment not in keys[key]:
            raise CheckpointError(f"'{self.path}': key '{key}' has no '{moment}'")
        try:
            numbers = np.array(keys[key][moment], dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            raise CheckpointError(f"'{self.path}': '{key}.{moment}' is no list of numbers") from None
        if not np.isfinite(numbers).all() or (moment.startswith("std") and (numbers < 0).any()):
            raise CheckpointError(f"'{self.path}': '{key}.{moment}' holds a number that is not finite or a negative spread")
        return numbers
