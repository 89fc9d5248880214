"""What an experiment comes down to: trainings and rollouts, each in a folder whose name depends on what it is made of and on nothing else.

So questions share the policies that they have in common, and whatever changes (recipe, mixture, the start's weights) asks for new ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internvla_a1_ros.core.checksum import sha256_of
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.evaluation.experiment import Cell, Experiment, Trials, Variant
from internvla_a1_ros.evaluation.open_loop_folder import METRICS_FILE
from internvla_a1_ros.learning.mixture import Mixture, find_mixture
from internvla_a1_ros.learning.origin import data_mark
from internvla_a1_ros.learning.recipe import Recipe
from internvla_a1_ros.policy.manifest import Manifest, load_manifest
from internvla_a1_ros.robots.document import overlaid, parse_document, read_document, read_mapping
from internvla_a1_ros.runtime.deployment import find_checkpoint

POLICIES, ROLLOUTS = "policies", "rollouts"
WEIGHTS = "model.safetensors"
# Of a recipe, what does not decide which weights come out, or is told apart otherwise.
_ASIDE = {"name", "out", "start", "manifest", "stats", "mixture", "cache", "save_every"}
_ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Policy:
    """One training: a variant's recipe with one seed. `variant`: the first that asks for it; `key`: stands for what it is made of."""

    variant: str
    recipe: Recipe
    manifest: Mapping[str, Any]
    key: str

    @property
    def place(self) -> Path:
        return Path(self.recipe.out)

    @property
    def file(self) -> Path:
        """The recipe's."""
        return self.place.with_name(f"{self.place.name}.yaml")

    @property
    def words(self) -> tuple[str, ...]:
        return ("train", str(self.file))

    @property
    def told(self) -> str:
        return f"train {self.variant}, seed {self.recipe.seed}"

    @property
    def units(self) -> int:
        return self.recipe.steps

    @property
    def is_there(self) -> bool:
        return (self.place / WEIGHTS).is_file()


@dataclass(frozen=True, slots=True)
class Rolled:
    """The rollouts of one cell with one policy."""

    variant: str
    policy: Policy
    trials: Trials
    cell: Cell
    root: Path

    @property
    def key(self) -> str:
        return mark({"policy": self.policy.key, "options": self.trials.words(self.cell)})

    @property
    def place(self) -> Path:
        return self.root / ROLLOUTS / self.key

    @property
    def words(self) -> tuple[str, ...]:
        options = self.trials.words(self.cell)
        return ("evaluate", "rollouts", *options, "--model", str(self.policy.place), "--videos", "none", "--out", str(self.place))

    @property
    def told(self) -> str:
        belt = "" if self.trials.belts_m_s is None else ", belt {:g} to {:g} m/s".format(*self.trials.belts_m_s[self.cell.belt])
        return f"roll out {self.variant}, seed {self.policy.recipe.seed}: {self.cell.task}, {self.cell.latency_ms:g} ms{belt}"

    @property
    def units(self) -> int:
        return self.trials.n

    @property
    def is_there(self) -> bool:
        try:
            return json.loads((self.place / METRICS_FILE).read_text(encoding="utf-8")).get("partial") is False
        except (OSError, ValueError):
            return False


Job = Policy | Rolled


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it, seed by seed, so that a part of it has something to say. `jobs`: each once, in an order in which they can be done."""

    experiment: Experiment
    root: Path
    rolled: tuple[Rolled, ...]
    jobs: tuple[Job, ...]

    @property
    def policies(self) -> list[Policy]:
        return [job for job in self.jobs if isinstance(job, Policy)]

    @property
    def missing(self) -> list[str]:
        """What must be there and is not, a sentence each."""
        found = [f"'{path}' is missing, it is made so: {how}" for path, how in self.experiment.needs.items() if not Path(path).exists()]
        told = set(self.experiment.needs)
        for policy in self.policies:
            for source in read_document(find_mixture(policy.recipe.mixture), Mixture).datasets:
                if source.path not in told and not Path(source.path).exists():
                    told.add(source.path)
                    found.append(f"dataset '{source.path}' of mixture '{policy.recipe.mixture}' is missing")
        return found


def plan(experiment: Experiment, root: Path, steps: int | None = None) -> Plan:
    """Work out everything; `steps`: of the experiment's recipe, others and the schedules go with it.

    Raises ConfigurationError where a recipe, a manifest or a mixture does not come out right.
    """
    planner = _Planner(experiment, root, steps)
    rolled, jobs = [], dict[str, Job]()
    for seed in experiment.seeds:
        for variant in experiment.variants:
            for policy in planner.line(variant, seed):
                jobs.setdefault(policy.key, policy)
            trials = experiment.trials(variant)
            _need_preset(trials, planner.policy(variant, seed))
            mine = [Rolled(variant.name, planner.policy(variant, seed), trials, cell, root) for cell in trials.cells]
            rolled += mine
            jobs |= {each.key: each for each in mine if each.key not in jobs}
    return Plan(experiment, root, tuple(rolled), tuple(jobs.values()))


def _need_preset(trials: Trials, policy: Policy) -> None:
    known = [*policy.manifest.get("presets", {"exact": {}})]
    if trials.preset is not None and trials.preset not in known:
        near = suggestion(trials.preset, known) or f", expected one of {', '.join(known)}"
        raise ConfigurationError(f"variant '{policy.variant}': rollouts: preset: got '{trials.preset}', which its manifest has not{near}")


@dataclass(slots=True)
class _Planner:
    experiment: Experiment
    root: Path
    steps: int | None
    _known: dict[tuple[str, int], Policy] = field(default_factory=dict)
    _sums: dict[Path, str] = field(default_factory=dict)

    def line(self, variant: Variant, seed: int) -> list[Policy]:
        """Return the policy and before it those it starts from."""
        before = self.line(self.experiment.of(variant.after), seed) if variant.after else []
        return [*before, self.policy(variant, seed)]

    def policy(self, variant: Variant, seed: int) -> Policy:
        if (variant.name, seed) not in self._known:
            before = self.policy(self.experiment.of(variant.after), seed) if variant.after else None
            self._known[variant.name, seed] = self._made(variant, seed, before)
        return self._known[variant.name, seed]

    def _made(self, variant: Variant, seed: int, before: Policy | None) -> Policy:
        asked, where = self.experiment, f"experiment '{self.experiment.name}', variant '{variant.name}'"
        content: dict[str, Any] = overlaid(self._base(), variant.recipe)
        own = {"seed": seed, "start": str(before.place)} if before else {"seed": seed}
        recipe = self._lengthened(parse_document(content | own, Recipe, f"{where}: recipe"))
        below = before.manifest if before else overlaid(_manifest_below(recipe), asked.manifest)
        manifest = parse_document(overlaid(below, variant.manifest), Manifest, f"{where}: manifest").model_dump(exclude_unset=True)
        key = mark(self._made_of(recipe, manifest, before))
        out = self.root / POLICIES / f"{key}-seed{seed}"
        done = {"name": f"{recipe.name}-{key}", "out": str(out), "manifest": str(out.with_name(f"{out.name}.manifest.yaml"))}
        return Policy(variant.name, recipe.model_copy(update=done), manifest, key)

    def _base(self) -> dict[str, Any]:
        path = Path(self.experiment.base)
        read_document(path, Recipe)  # so that a mistake in it is told as its own
        base: dict[str, Any] = overlaid(read_mapping(path), self.experiment.recipe)
        return base

    def _lengthened(self, recipe: Recipe) -> Recipe:
        if self.steps is None:
            return recipe
        factor, schedule = self.steps / parse_document(self._base(), Recipe, self.experiment.base).steps, recipe.schedule
        warmup = round(factor * schedule.warmup_steps)
        decay = max(warmup + 1, round(factor * schedule.decay_steps))
        schedule = schedule.model_copy(update={"warmup_steps": warmup, "decay_steps": decay})
        return recipe.model_copy(update={"steps": max(1, round(factor * recipe.steps)), "schedule": schedule})

    def _made_of(self, recipe: Recipe, manifest: Mapping[str, Any], before: Policy | None) -> dict[str, Any]:
        mixture = read_document(find_mixture(recipe.mixture), Mixture)
        start = None if before else _folder_of(recipe.start)
        return {
            "recipe": recipe.model_dump(mode="json", exclude=_ASIDE),
            "manifest": {key: value for key, value in manifest.items() if key not in ("name", "source")},
            "mixture": mixture.model_dump(mode="json"),
            "data": [data_mark(Path(source.path)) for source in mixture.datasets],
            "start": before.key if before else self._sum(start / WEIGHTS) if start else _ABSENT,
            "stats": self._sum(Path(recipe.stats)) if recipe.stats else self._sum(start / "stats.json") if start else _ABSENT,
        }

    def _sum(self, path: Path) -> str:
        if path not in self._sums:
            self._sums[path] = sha256_of(path, _ABSENT)
        return self._sums[path]


def _folder_of(start: str) -> Path | None:
    try:
        return find_checkpoint(start)
    except ConfigurationError:
        return None


def _manifest_below(recipe: Recipe) -> dict[str, Any]:
    """What the recipe's manifest says. Where its start is not there yet: that of the model that comes along, so that there is a plan."""
    if recipe.manifest is not None:
        return read_mapping(Path(recipe.manifest))
    folder = _folder_of(recipe.start) or find_checkpoint("nano")
    return load_manifest(folder).model_dump(exclude_unset=True, exclude={"sha256"})


def mark(told: Mapping[str, Any]) -> str:
    """Return ten letters that stand for what was told."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]
