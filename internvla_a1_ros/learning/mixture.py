"""Which datasets are learned from and in which measure, and the drawing of samples: the same again from any point on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.robots.document import Document

MIXTURES = Path(__file__).parent / "mixtures"
Tier = Literal["synthetic", "open_real", "task"]


class Source(Document):
    """One dataset folder. `weight` is its share within its tier, by frames where absent; `actions` false: video alone, which teaches
    the imagined future only. `every`: only each so-manieth frame becomes a sample (neighbours are much alike, and a cache is smaller).
    `after_s`: samples begin so long after an episode's start, and what lies before is only seen as the past (docs/record.md).
    `led`: a key that is not 0 where somebody else had the arms; such a step is no sample, and chunks count up to the next one.
    `one_task`: chunks count up to where the instruction changes, so that nothing is done that was not asked for yet."""

    path: Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
    tier: Tier = "task"
    weight: Annotated[float, Field(ge=0)] | None = None
    actions: bool = True
    every: Annotated[int, Field(ge=1)] = 1
    after_s: Annotated[float, Field(ge=0)] = 0.0
    led: str = ""
    one_task: bool = False
    cameras: dict[str, str] = Field(default_factory=dict)


class Mixture(Document):
    """The data pyramid: datasets, and what each tier weighs against the others (by frames where none is named)."""

    name: Annotated[str, Field(min_length=1)]
    datasets: Annotated[tuple[Source, ...], Field(min_length=1)]
    tiers: dict[Tier, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _each_once(self) -> Mixture:
        paths = [source.path for source in self.datasets]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"datasets: '{path}' is listed twice")
        return self


def find_mixture(name_or_path: str) -> Path:
    """Return the file of a mixture that comes with the package, or the path given. Raises ConfigurationError with near names."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    shipped = {each.stem: each for each in sorted(MIXTURES.glob("*.yaml"))}
    if name_or_path in shipped:
        return shipped[name_or_path]
    near = suggestion(name_or_path, list(shipped))
    raise ConfigurationError(f"mixture '{name_or_path}': no such file{near} (mixtures that come along: {', '.join(shipped)})")


def sampling_weights(mixture: Mixture, frames: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return how often each dataset is drawn, summing to 1: the tier's weight times the dataset's share in it.

    Raises ConfigurationError where nothing would be drawn, or a tier that weighs something has no dataset that does.
    """
    sizes = np.asarray(frames, dtype=np.float64)
    if len(sizes) != len(mixture.datasets):
        raise ConfigurationError(f"mixture '{mixture.name}': got frames of {len(sizes)} datasets, expected {len(mixture.datasets)}")
    tiers = list(dict.fromkeys(source.tier for source in mixture.datasets))
    for tier in mixture.tiers:
        if mixture.tiers[tier] > 0 and tier not in tiers:
            raise ConfigurationError(f"mixture '{mixture.name}': tier '{tier}' weighs {mixture.tiers[tier]:g} and has no dataset")
    unnamed = [tier for tier in tiers if tier not in mixture.tiers]
    if mixture.tiers and unnamed:
        raise ConfigurationError(f"mixture '{mixture.name}': tiers: got none for '{unnamed[0]}', expected one for each tier, or for none")
    weights = np.zeros(len(sizes))
    for tier in tiers:
        mine = np.array([source.tier == tier for source in mixture.datasets])
        asked = np.array([np.nan if source.weight is None else source.weight for source in mixture.datasets])
        within = np.where(np.isnan(asked), sizes, asked) * mine
        if np.isnan(asked[mine]).any() and not np.isnan(asked[mine]).all():
            raise ConfigurationError(f"mixture '{mixture.name}': tier '{tier}': got weights for some of its datasets, expected all or none")
        outer = mixture.tiers.get(tier, float(sizes[mine].sum() / sizes.sum()))
        if outer > 0 and within.sum() == 0:
            raise ConfigurationError(f"mixture '{mixture.name}': tier '{tier}': its datasets all weigh 0, expected one above it")
        weights += outer * within / within.sum() if outer > 0 else 0.0
    if weights.sum() == 0:
        raise ConfigurationError(f"mixture '{mixture.name}': every dataset weighs 0, nothing would be drawn")
    weights /= weights.sum()
    return weights


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample: frame `frame` of dataset `dataset`."""

    dataset: int
    frame: int


class Sampler:
    """Draws samples of one worker without end: a dataset by weight, in it every frame once before any comes again.

    Which dataset comes next is balanced, not drawn: whichever lags most behind its weight. Which frame is a shuffle of
    its frames, another one each time round. Deterministic in `seed`; `state` resumes to the sample. Memory does not grow with frames.
    """

    def __init__(self, datasets: Sequence[int], frames: Sequence[int], weights: Sequence[float], seed: int) -> None:
        """`datasets`: the worker's own, by number; `frames` and `weights`: of all. Raises ConfigurationError where none weighs anything."""
        self._datasets, self._frames, self._seed = list(datasets), list(frames), seed
        mine = np.array([weights[i] for i in self._datasets], dtype=np.float64)
        if mine.sum() <= 0:
            raise ConfigurationError(f"worker: its datasets {self._datasets} all weigh 0, nothing would be drawn")
        self._weights = mine / mine.sum()
        self._counts = np.zeros(len(self._datasets), dtype=np.int64)

    @property
    def state(self) -> dict[str, Any]:
        """What `resume` takes."""
        return {"seed": self._seed, "counts": self._counts.tolist()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on after the last sample drawn. Raises ConfigurationError for a state of other data."""
        if state["seed"] != self._seed or len(state["counts"]) != len(self._counts):
            got = f"seed {state['seed']}, {len(state['counts'])} datasets"
            raise ConfigurationError(f"sampler: got a state of {got}, expected seed {self._seed}, {len(self._counts)} datasets")
        self._counts = np.array(state["counts"], dtype=np.int64)

    def draw(self) -> Draw:
        """Return the next sample."""
        lag = self._weights * (self._counts.sum() + 1) - self._counts
        lag[self._weights == 0] = -np.inf
        which = int(lag.argmax())
        dataset, n = self._datasets[which], int(self._counts[which])
        self._counts[which] += 1
        turn, place = divmod(n, self._frames[dataset])
        return Draw(dataset, shuffled(place, self._frames[dataset], (self._seed, dataset, turn)))


def shuffled(place: int, count: int, key: tuple[int, ...]) -> int:
    """Return where `place` comes to lie in a shuffle of `count` places, without a table: a Feistel cipher that walks until it is inside.

    For each key a permutation (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max(1, (max(1, count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = np.random.SeedSequence(key).generate_state(4).tolist()
    while True:
        left, right = place >> half, place & mask
        for round_key in keys:
            left, right = right, left ^ (_mixed(right, round_key) & mask)
        place = left << half | right
        if place < count:
            return place


def _mixed(value: int, key: int) -> int:
    """A few rounds of a multiplicative hash (splitmix64)."""
    z = (value * 0x9E3779B97F4A7C15 + key) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ z >> 31
