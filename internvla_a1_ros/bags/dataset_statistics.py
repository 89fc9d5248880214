"""`stats.json` from datasets: what a checkpoint normalises by, with the numbers of the released formula, in one pass.

As released: episodes shorter than a chunk are left out, for states and absolute actions too. A delta checkpoint's actions are whole chunks
minus the state at their observation, in the joints of the mask; a chunk that would reach beyond the episode's end is none. The spread is
the population's. (The released script sums squares in float32; here distances from the mean are summed in float64.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from internvla_a1_ros.bags.datasets import Dataset, DatasetError, Episode
from internvla_a1_ros.bags.datasets.moments import RunningMoments
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.policy.statistics import BY_STEP, WHOLE_ACTION, WHOLE_STATE, aliases, layout_of
from internvla_a1_ros.policy.transforms import ActionMode, Array, Mask, delta_mask

_CHUNKS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """What is counted of one dataset: its keys of states and actions in the robot's order, and which joints are relative."""

    states: tuple[str, ...]
    actions: tuple[str, ...]
    relative: Mask


@dataclass(slots=True)
class Counted:
    """Statistics by robot type and key, `steps` those of each step of a chunk, episodes used, and in words which were left out."""

    table: dict[str, dict[str, RunningMoments]] = field(default_factory=dict)
    steps: dict[str, dict[str, RunningMoments]] = field(default_factory=dict)
    episodes: int = 0
    short: int = 0
    unusable: list[str] = field(default_factory=list)

    def as_table(self) -> dict[str, dict[str, dict[str, list[Any]]]]:
        """Return it as `stats.json` has it."""
        told = {robot: {key: moments.as_table() for key, moments in keys.items()} for robot, keys in self.table.items()}
        for robot, keys in self.steps.items():
            for key, moments in keys.items():
                wide = (-1, len(self.table[robot][key].mean))
                told[robot][key] |= {name: x.reshape(wide).tolist() for name, x in zip(BY_STEP, (moments.mean, moments.std), strict=True)}
        return told


def keys_of(dataset: Dataset, mode: ActionMode) -> Keys:
    """Return what is counted of a dataset.

    Raises RobotMismatch for an unknown robot type (absolute `observation.state` and `action` need none), DatasetError for a key it lacks
    or joints of another number than the robot type's.
    """
    whole = WHOLE_STATE in dataset.features and WHOLE_ACTION in dataset.features
    if whole and mode == "abs":
        return Keys((WHOLE_STATE,), (WHOLE_ACTION,), np.zeros(dataset.features[WHOLE_ACTION].width, dtype=np.bool_))
    layout = layout_of(dataset.robot_type)
    states, actions = ((WHOLE_STATE,), (WHOLE_ACTION,)) if whole else (layout.state_keys, layout.action_keys)
    dataset.need((*states, *actions))
    relative = delta_mask(layout.delta_runs)
    for what, keys in (("states", states), ("actions", actions)):
        width = sum(dataset.features[key].width for key in keys)
        if width != len(relative):
            raise DatasetError(f"dataset '{dataset.folder}': got {width} {what}, expected {len(relative)} of '{dataset.robot_type}'")
    return Keys(states, actions, relative)


def count(
    datasets: Sequence[Dataset], mode: ActionMode, chunk: int, advance: Callable[[], None] = lambda: None, *, by_step: bool = False
) -> Counted:
    """Go through all episodes once, `advance` being called after each.

    `by_step`: each step of a delta chunk besides. Raises ConfigurationError where no episode can be used.
    """
    if by_step and mode != "delta":
        raise ConfigurationError(f"statistics by step: got actions '{mode}', expected delta")
    found = Counted()
    for dataset, keys in [(dataset, keys_of(dataset, mode)) for dataset in datasets]:
        name = next((each for each in aliases(dataset.robot_type) if each in found.table), dataset.robot_type)
        of_robot = found.table.setdefault(name, {})
        of_steps = found.steps.setdefault(name, {}) if by_step else None
        for episode in dataset.episodes:
            try:
                if episode.length < chunk:
                    found.short += 1
                else:
                    _add(episode, keys, mode, chunk, of_robot, of_steps)
                    found.episodes += 1
            except DatasetError as problem:
                found.unusable.append(str(problem))
            advance()
    if found.episodes == 0:
        first = f", and {len(found.unusable)} cannot be read, first: {found.unusable[0]}" if found.unusable else ""
        raise ConfigurationError(f"statistics: {found.short} episodes are shorter than a chunk of {chunk}{first}; expected a usable one")
    return found


def _add(
    episode: Episode,
    keys: Keys,
    mode: ActionMode,
    chunk: int,
    into: dict[str, RunningMoments],
    steps: dict[str, RunningMoments] | None,
) -> None:
    table = episode.table((*keys.states, *keys.actions))
    for key in (*keys.states, *(keys.actions if mode == "abs" else ())):
        into.setdefault(key, RunningMoments(table[key].shape[1])).add(table[key])
    if mode == "abs":
        return
    state, action = (np.concatenate([table[key] for key in some], axis=1, dtype=np.float64) for some in (keys.states, keys.actions))
    for deltas in _deltas(state, action, keys.relative, chunk):
        first = 0
        for key in keys.actions:
            width = table[key].shape[1]
            mine = deltas[..., first : first + width]
            into.setdefault(key, RunningMoments(width)).add(mine.reshape(-1, width))
            if steps is not None:
                steps.setdefault(key, RunningMoments(chunk * width)).add(mine.reshape(-1, chunk * width))
            first += width


def _deltas(state: Array, action: Array, relative: Mask, chunk: int) -> Iterator[Array]:
    """Yield the actions [n, chunk, W] of every whole chunk minus the state at its first step, some chunks at a time."""
    windows = np.lib.stride_tricks.sliding_window_view(action, chunk, axis=0).transpose(0, 2, 1)
    held = np.where(relative, state[: len(windows)], 0.0)
    for i in range(0, len(windows), _CHUNKS_AT_ONCE):
        some = slice(i, i + _CHUNKS_AT_ONCE)
        yield windows[some] - held[some, None]
