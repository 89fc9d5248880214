"""One dataset as it is learned from: which episodes are whole, their numbers, the cameras of each view, and the way to model units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvla_a1_ros.bags.dataset_statistics import keys_of
from internvla_a1_ros.bags.datasets import Dataset, DatasetError, Episode
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.learning.mixture import Source
from internvla_a1_ros.learning.motion import seen_of
from internvla_a1_ros.learning.warmup_targets import SEEN, need_seen
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.manifest import Actions
from internvla_a1_ros.policy.statistics import LAYOUTS, StatisticsFile
from internvla_a1_ros.policy.transforms import ActionTransform, Array, Pad, StateTransform, action_transform

_LOOKED_AT, _FAR, _PACE = 50, 3.0, 0.01  # episodes; standard deviations; share of a rate
LED_STEP = "simulation.led"  # as `record-sim` names it
VIEWS = ("head", "left", "right")
Whole = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """The numbers of one episode: states and actions [length, W] in robot units (W 0 for video alone), and what it shows step by step.

    `own_until` [length]: from each step the first one in which somebody else has the arms, `NEVER` where there is none any more;
    `until` [length]: the same, or where it is asked for the first in which something else is to be done. `seen` [length, V, slots, 3]:
    where parcels are (`learning.motion.seen_of`), where that is asked for.
    """

    state: Array
    action: Array
    tasks: tuple[str, ...]
    own_until: Whole
    until: Whole
    seen: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Transforms:
    state: StateTransform
    action: ActionTransform


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """`cameras`: the key of each view, None where it is missing; `transforms` None: video alone; `left_out`: in words.

    Samples are each `every`-th step, of those from step `after` on, where nobody else has the arms (by the key `led`, "" for none).
    """

    dataset: Dataset
    cameras: tuple[str | None, ...]
    transforms: Transforms | None
    episodes: tuple[Episode, ...]
    told: tuple[Told, ...]
    left_out: tuple[str, ...]
    every: int = 1
    after: int = 0
    led: str = ""

    def shown(self, number: int) -> range:
        """The steps of the episode at place `number` whose pictures samples may hold, as past, now or future."""
        return range(0, self.episodes[number].length, self.every)

    def steps(self, number: int) -> Whole:
        """Those of them that are samples."""
        return _samples(self.shown(number), self.after, self.told[number])

    @property
    def starts(self) -> Whole:
        """The first sample of each episode among all, and after the last their number."""
        return np.cumsum([0, *(len(self.steps(i)) for i in range(len(self.episodes)))], dtype=np.int64)

    @property
    def frames(self) -> int:
        """How many samples there are."""
        return int(self.starts[-1])

    @property
    def knows_parcels(self) -> bool:
        """Whether it is known where parcels are."""
        return any(told.seen is not None for told in self.told)

    def away(self, past_s: float, ahead_s: float) -> tuple[int, int]:
        """Return how many steps a sample's past and future pictures are away. Raises ConfigurationError where those are not shown."""
        back, ahead = (round(away_s * self.dataset.fps) for away_s in (past_s, ahead_s))
        if back % self.every or ahead % self.every:
            got = f"every {self.every}, and pictures {back} and {ahead} steps away in '{self.dataset.folder}'"
            raise ConfigurationError(f"mixture: every: got {got}, expected a divisor of both")
        return back, ahead

    def need_rate(self, actions: Actions) -> None:
        """Raise ConfigurationError where the manifest's robot would do what it is shown faster or slower than it was shown."""
        if self.transforms is not None and not self._paced(actions):
            got = f"{self.dataset.fps:g} steps a second of '{self.dataset.robot_type}'"
            expected = f"{1 / actions.dt_s:g}, by the manifest's actions.dt_s {actions.dt_s:g}"
            raise ConfigurationError(f"dataset '{self.dataset.folder}': got {got}, expected {expected} (docs/train.md)")

    def _paced(self, actions: Actions) -> bool:
        return abs(self.dataset.fps * actions.dt_s - 1) < _PACE

    def remarks(self, sizes: Architecture, actions: Actions) -> list[str]:
        """What may surprise, a sentence each: actions not learned, or learned by mistake, or far from what statistics promise."""
        if self.transforms is None:
            return []
        said, name, width = [], self.dataset.folder.name, self.transforms.action.pad.robot_width
        looked_at = slice(None, None, max(1, len(self.told) // _LOOKED_AT))
        led = not self.led and LED_STEP in self.dataset.features
        if led and any(episode.table((LED_STEP,))[LED_STEP].any() for episode in self.episodes[looked_at]):
            said.append(f"{name}: what is done where '{LED_STEP}' is not 0 (detours) is learned too; `led: {LED_STEP}` leaves it out")
        if not self._paced(actions):
            told = f"{self.dataset.fps:g} steps a second, the manifest's actions are {actions.dt_s:g} s apart"
            said.append(f"{name}: {told}: it would be done again {1 / (self.dataset.fps * actions.dt_s):.2g} times as fast")
        if width > sizes.robot_width:
            last = f"the last {width - sizes.robot_width} are not learned"
            said.append(f"{name}: {width} actions of '{self.dataset.robot_type}', the manifest's robot has {sizes.robot_width}: {last}")
        some = [(told, step) for told in self.told[looked_at] for step in (0, len(told.action) // 2)]
        chunks = [self.transforms.action.forward(chunk_from(told, step, sizes.chunk), told.state[step]) for told, step in some]
        mean = np.array(chunks)[..., :width].mean((0, 1))
        if abs(mean).max() > _FAR:
            joint = int(abs(mean).argmax())
            of = "0 if these are its statistics: of the same --mode (delta or abs) and robot?"
            said.append(f"{name}: action {joint} is {mean[joint]:.1f} standard deviations off on average, expected about {of}")
        return said

    def without(self, broken: dict[int, str]) -> Material:
        """The same without the episodes whose place is named in `broken`, with why."""
        kept = [i for i in range(len(self.episodes)) if i not in broken]
        episodes, told = tuple(self.episodes[i] for i in kept), tuple(self.told[i] for i in kept)
        return replace(self, episodes=episodes, told=told, left_out=(*self.left_out, *broken.values())).checked()

    def checked(self) -> Material:
        """Raises ConfigurationError where no episode is left."""
        if not self.episodes:
            first = f", first: {self.left_out[0]}" if self.left_out else ""
            raise ConfigurationError(f"dataset '{self.dataset.folder}': {len(self.left_out)} episodes cannot be used{first}; expected one")
        return self


def chunk_from(told: Told, step: int, length: int, until: int = NEVER) -> Array:
    """Return the actions [length, W] from a step on, the last one before `until` and the episode's end repeated."""
    return told.action[np.minimum(step + np.arange(length), min(until, len(told.action)) - 1)]


def open_material(source: Source, statistics: StatisticsFile, actions: Actions, sizes: Architecture, motion: bool = False) -> Material:
    """Open a dataset and read its numbers; `motion`: where parcels are, too, if it says so.

    Raises ConfigurationError for what the whole dataset lacks; a broken episode is left out.
    """
    dataset = Dataset.open(Path(source.path))
    cameras = cameras_of(source, dataset, sizes.views)
    transforms: Transforms | None = None
    keys: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if source.led:
        dataset.need((source.led,))
    motion = motion and SEEN in dataset.features
    if motion:
        need_seen(dataset, sizes.views)
    if source.actions:
        found = keys_of(dataset, actions.mode)
        keys = (found.states, found.actions)
        transforms = transforms_of(dataset, statistics, actions, sizes, found.relative)
    after = round(source.after_s * dataset.fps)
    episodes, told, left_out = [], [], []
    for episode in dataset.episodes:
        try:
            episode.check((), [camera for camera in cameras if camera is not None])
            one = _told(dataset, episode, *keys, source)
            if not len(_samples(range(0, episode.length, source.every), after, one)):
                own = f" where '{source.led}' is 0" if source.led else ""
                raise DatasetError(f"{episode.name}: got {episode.length} steps, expected one from step {after} on{own} (after_s)")
            told.append(replace(one, seen=seen_of(episode, sizes.views)) if motion else one)
            episodes.append(episode)
        except DatasetError as problem:
            left_out.append(str(problem))
    return Material(dataset, cameras, transforms, tuple(episodes), tuple(told), tuple(left_out), source.every, after, source.led).checked()


def cameras_of(source: Source, dataset: Dataset, views: int) -> tuple[str | None, ...]:
    """Return the key of each view: what the mixture says, else the robot type's own; said to be empty, the view is missing.

    Raises ConfigurationError, with near names, for a view or a key that there is not.
    """
    for view in source.cameras:
        if view not in VIEWS[:views]:
            known = list(VIEWS[:views])
            raise ConfigurationError(f"dataset '{source.path}': cameras: got view '{view}'{suggestion(view, known)}, expected {known}")
    usual = LAYOUTS[dataset.robot_type].camera_keys if dataset.robot_type in LAYOUTS else ()
    chosen = []
    for i, view in enumerate(VIEWS[:views]):
        key = source.cameras.get(view, usual[i] if usual else None)
        if key is None:
            known_keys = ", ".join(dataset.camera_keys)
            raise ConfigurationError(f"dataset '{source.path}': cameras: view '{view}' is not named, expected one of {known_keys} (or '')")
        if key:
            dataset.info.need(key, dataset.camera_keys)
        chosen.append(key or None)
    if not any(chosen):
        raise ConfigurationError(f"dataset '{source.path}': cameras: every view is empty, expected one that is not")
    return tuple(chosen)


def transforms_of(
    dataset: Dataset, statistics: StatisticsFile, actions: Actions, sizes: Architecture, relative: npt.NDArray[np.bool_]
) -> Transforms:
    """The very transforms of the policy, by the statistics of the dataset's robot type."""
    mine = statistics.of(dataset.robot_type)
    width, room = len(relative), min(sizes.state_width, sizes.action_width)
    if width > room or not mine.state.width == mine.action.width == width:
        got = f"{mine.state.width} states and {mine.action.width} actions"
        raise ConfigurationError(
            f"'{statistics.path}': got {got} of '{dataset.robot_type}', dataset '{dataset.folder}' has {width}, the model room for {room}"
        )
    mode = actions.normalisation
    mine.check_steps(mode, sizes.chunk)
    state = StateTransform(mine.state.scale(mode), Pad(width, sizes.state_width))
    return Transforms(state, action_transform(actions.mode, relative, mine.action.scale(mode), Pad(width, sizes.action_width)))


def _samples(shown: range, after: int, told: Told) -> Whole:
    steps = np.array([step for step in shown if step >= after], dtype=np.int64)
    return steps[told.own_until[steps] > steps]


def _told(dataset: Dataset, episode: Episode, states: Sequence[str], actions: Sequence[str], source: Source) -> Told:
    table = episode.table((*states, *actions, *([source.led] if source.led else [])))
    nothing = np.zeros((episode.length, 0))
    state, action = (np.concatenate([nothing, *(table[key] for key in keys)], 1) for keys in (states, actions))
    if not (np.isfinite(state).all() and np.isfinite(action).all()):
        raise DatasetError(f"{episode.name}: a state or action is not finite")
    tasks = episode.told(dataset.tasks)
    own_until = _next(table[source.led][:, 0] != 0) if source.led else np.full(episode.length, NEVER, dtype=np.int64)
    until = own_until
    if source.one_task:
        changed = np.array([False, *(now != before for before, now in pairwise(tasks))])
        until = np.minimum(until, np.append(_next(changed)[1:], NEVER))
    return Told(state, action, tasks, own_until, until)


def _next(marked: npt.NDArray[np.bool_]) -> Whole:
    """From each step the first one, itself included, that is marked; `NEVER` where there is none any more."""
    here = np.where(marked, np.arange(len(marked)), NEVER)
    return np.minimum.accumulate(here[::-1])[::-1]
