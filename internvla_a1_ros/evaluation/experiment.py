"""A question put to training, as a person writes it in YAML: variants of one recipe, their rollouts, what is held against what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.learning.recipe import Text
from internvla_a1_ros.robots.document import Document, overlaid, parse_document, read_mapping
from internvla_a1_ros.runtime.deployment import models_folder
from internvla_a1_ros.simulation.config import Belt
from internvla_a1_ros.simulation.trial import Task

FOLDER = "nano_recipe/experiments"
_COMMON = "common"
Natural = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
# What decides which trials there are: pairs need the same in every variant.
_OF_ALL = ("n", "seed")


@dataclass(frozen=True, slots=True)
class Cell:
    """Rollouts that are counted together. `belt`: which of the variant's ranges; the first is held against the first of another."""

    task: Task
    belt: int
    latency_ms: float


class Trials(Document):
    """Which rollouts a policy is tried in, as options of `internvla-a1 evaluate rollouts`: what is absent is left to its default.

    `seed` and `n`: which trials, the same in each cell. `belts_m_s`: ranges of speed, the task's own where absent.
    """

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = ("ingredient_picking",)
    n: Annotated[int, Field(ge=1, le=1000)] = 100
    seed: Natural = 0
    latencies_ms: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (0.0,)
    belts_m_s: Annotated[tuple[tuple[NotNegative, NotNegative], ...], Field(min_length=1)] | None = None
    preset: Text | None = None
    guidance: Literal["off", "hard", "soft", "pinv"] | None = None
    fade_s: NotNegative | None = None
    compute_ms: NotNegative | None = None
    variation: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _can_be_rolled_out(self) -> Trials:
        """What `evaluate rollouts` would refuse, before anything is trained for it."""
        for low, high in self.belts_m_s or ():
            try:
                Belt().speeds(low, high)
            except ConfigurationError as problem:
                raise ValueError(f"belts_m_s: {problem}") from None
        if len(set(self.cells)) < len(self.cells):
            raise ValueError("got a task or a latency twice, expected each once")
        return self

    @property
    def cells(self) -> list[Cell]:
        belts = range(len(self.belts_m_s or (None,)))
        return [Cell(task, belt, latency_ms) for task in self.tasks for belt in belts for latency_ms in self.latencies_ms]

    def words(self, cell: Cell) -> list[str]:
        """Return the options of one cell."""
        options: dict[str, str | None] = {
            "--task": cell.task,
            "--n": str(self.n),
            "--seed": str(self.seed),
            "--latency": f"{cell.latency_ms:g}",
            "--belt": None if self.belts_m_s is None else "{:g}:{:g}".format(*self.belts_m_s[cell.belt]),
            "--preset": self.preset,
            "--guidance": self.guidance,
        }
        numbers = {"--fade": self.fade_s, "--compute": self.compute_ms, "--variation": self.variation}
        options |= {option: None if number is None else f"{number:g}" for option, number in numbers.items()}
        return [word for option, value in options.items() if value is not None for word in (option, value)]


class Variant(Document):
    """One way to do it: what differs in recipe, manifest and rollouts. `after`: the variant from whose output, of the same seed, it starts.

    `against`: the variant it is held against, the experiment's first where absent.
    """

    name: Name
    told: Text
    recipe: dict[str, Any] = Field(default_factory=dict)
    manifest: dict[str, Any] = Field(default_factory=dict)
    rollouts: dict[str, Any] = Field(default_factory=dict)
    after: str | None = None
    against: str | None = None


class Experiment(Document):
    """A question. `base`: the recipe that all variants have in common, changed by `recipe` and, its manifest, by `manifest`.

    `seeds`: of training. `needs`: files and folders that must be there, and how each is made. The first variant is the one that the others
    are held against.
    """

    name: Name
    question: Text
    base: Text
    recipe: dict[str, Any] = Field(default_factory=dict)
    manifest: dict[str, Any] = Field(default_factory=dict)
    seeds: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0, 1, 2)
    needs: dict[str, Text] = Field(default_factory=dict)
    rollouts: Trials = Trials()
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"variants: '{name}' is there twice, expected each once")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {list(self.seeds)}, expected each once")
        for variant in self.variants:
            others = [name for name in names if name != variant.name]
            for key, named in (("after", variant.after), ("against", variant.against)):
                if named is not None and named not in others:
                    raise ValueError(f"variant '{variant.name}': {key}: got '{named}', expected another variant{suggestion(named, others)}")
            if variant.after and "start" in variant.recipe:
                raise ValueError(f"variant '{variant.name}': got both `after` and a `start` of its own, expected one of them")
            if variant.rollouts.keys() & set(_OF_ALL):
                raise ValueError(f"variant '{variant.name}': rollouts: got {' or '.join(_OF_ALL)}, expected them of the experiment alone")
            self._need_an_end(variant)
        for variant in self.variants:
            other = self.against(variant)
            if other is not None and not set(self.trials(variant).cells) & set(self.trials(other).cells):
                raise ValueError(f"variant '{variant.name}' has no task and latency in common with '{other.name}'")
        return self

    def _need_an_end(self, variant: Variant) -> None:
        seen = [variant.name]
        while (before := self.of(seen[-1]).after) is not None:
            if before in seen:
                raise ValueError(f"variants {' and '.join(seen)} start from one another, expected one that starts from the recipe's start")
            seen.append(before)

    def of(self, name: str) -> Variant:
        """Return the variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    def against(self, variant: Variant) -> Variant | None:
        """Return what a variant is held against, None where it is the first."""
        if variant.against is not None:
            return self.of(variant.against)
        return None if variant.name == self.variants[0].name else self.variants[0]

    def trials(self, variant: Variant) -> Trials:
        """Return the rollouts of a variant. Raises ConfigurationError for an option there is not."""
        own = overlaid(self.rollouts.model_dump(exclude_unset=True), variant.rollouts)
        return parse_document(own, Trials, f"experiment '{self.name}', variant '{variant.name}': rollouts")

    def shortened(self, seeds: int | None, n: int | None) -> Experiment:
        """Return the same with the first `seeds` seeds (numbers that follow the last where it has fewer) and `n` trials a cell."""
        chosen = self.seeds
        if seeds is not None:
            last = max(self.seeds)
            chosen = (*self.seeds, *range(last + 1, last + 1 + seeds))[:seeds]
        rollouts = self.rollouts if n is None else parse_document(self.rollouts.model_dump(exclude_unset=True) | {"n": n}, Trials, "--n")
        return self.model_copy(update={"seeds": chosen, "rollouts": rollouts})


def shipped() -> dict[str, Path]:
    """Return the experiments that come along, by name."""
    return {path.stem: path for path in sorted((models_folder() / FOLDER).glob("*.yaml"))}


def find_experiment(name_or_path: str) -> Path:
    """Return the file of an experiment that comes along, or the path given. Raises ConfigurationError with near names."""
    path, known = Path(name_or_path).expanduser(), shipped()
    if path.is_file():
        return path
    if name_or_path in known:
        return known[name_or_path]
    near = suggestion(name_or_path, list(known))
    raise ConfigurationError(f"experiment '{name_or_path}': no such file{near} (experiments that come along: {', '.join(known)})")


def read_experiment(path: Path) -> Experiment:
    """Return the experiment at `path`, laid over the file that its key `common` names beside it. Raises ConfigurationError."""
    content = read_mapping(path)
    common = content.pop(_COMMON, None)
    if common is not None:
        if not isinstance(common, str):
            raise ConfigurationError(f"{path}: {_COMMON}: got {common!r}, expected the name of a file")
        content = overlaid(read_mapping(path.parent / common), content)
    return parse_document(content, Experiment, str(path))
