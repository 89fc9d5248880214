"""A whole run from its recipe: what is opened and checked before the first step, the loop, and what is left in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError
from internvla_a1_ros.learning import board
from internvla_a1_ros.learning.balance import Assignment, assign, effective_weights
from internvla_a1_ros.learning.board import Board
from internvla_a1_ros.learning.cache import cached
from internvla_a1_ros.learning.checkpoints import read_snapshot, save_snapshot, write_released
from internvla_a1_ros.learning.material import Material, open_material
from internvla_a1_ros.learning.mixture import Mixture, Sampler, find_mixture, sampling_weights
from internvla_a1_ros.learning.origin import Origin, need_same_origin, origin_of
from internvla_a1_ros.learning.recipe import Recipe, moves
from internvla_a1_ros.learning.samples import Decoded, Pictures, Samples
from internvla_a1_ros.learning.team import ALONE, Team
from internvla_a1_ros.learning.training import StepReport, Trainer, need_even, need_same_recipe
from internvla_a1_ros.learning.warmup_targets import SEEN
from internvla_a1_ros.model.checkpoint import load_architecture, load_model
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.policy.manifest import Manifest, Preset, load_manifest
from internvla_a1_ros.policy.statistics import StatisticsFile, aliases
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer
from internvla_a1_ros.robots.document import read_document, write_whole
from internvla_a1_ros.runtime.deployment import find_checkpoint, models_folder

LOG = "log.jsonl"
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class Watcher(Protocol):
    """Who is told how a run goes."""

    def caching(self, name: str, steps: int) -> Callable[[int], None]:
        """A dataset of so many `steps` is about to be decoded; returns who is told how many are done."""
        ...

    def stepped(self, report: StepReport) -> None: ...

    def left_out(self, why: str) -> None:
        """A sample could not be decoded; told once of each episode."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A run that may begin. `asked`: how often each dataset should be drawn by the mixture, `weights`: how often it is, dealt to the
    workers as they are; `origin`: what the run is begun with; `resumed`: the step it goes on from, 0 at first."""

    recipe: Recipe
    manifest: Manifest
    trainer: Trainer
    tokenizer: PrefixTokenizer
    materials: tuple[Material, ...]
    assignment: Assignment
    asked: tuple[float, ...]
    weights: tuple[float, ...]
    origin: Origin
    resumed: int

    @property
    def out(self) -> Path:
        return Path(self.recipe.out)

    @property
    def stats(self) -> Path:
        return stats_of(self.recipe)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What may surprise, a sentence each."""
        said = []
        datasets, workers = len({i for share in self.assignment.shares for i in share}), len(self.assignment.shares)
        if workers > datasets:
            said.append(f"{workers} workers for {datasets} datasets: the list is gone through again, so some are with several workers")
        said += [sentence for material in self.materials for sentence in material.remarks(self.trainer.model.sizes, self.manifest.actions)]
        if not board.installed():
            said.append(f"no TensorBoard: its package is not installed (pip install tensorboard); the numbers are in {self.out / LOG}")
        return tuple(said)


def prepare(recipe: Recipe, watcher: Watcher, team: Team = ALONE) -> Prepared:
    """Open everything a run needs and go on where a former one in the same folder stopped.

    Raises ConfigurationError for whatever does not fit together: checkpoint, statistics, manifest, datasets, a former run.
    """
    need_even(recipe, team)
    out, start = Path(recipe.out), start_of(recipe)
    snapshot = read_snapshot(out)
    if snapshot is not None:
        need_same_recipe(out, snapshot.told["recipe"], recipe)
    mixture = read_document(find_mixture(recipe.mixture), Mixture)
    manifest = manifest_of(recipe)
    statistics = StatisticsFile(stats_of(recipe))
    model = started(start, statistics, manifest, recipe.lambda_generation)
    model.cosmos.to(team.device)  # encodes what goes into the cache
    tokenizer = PrefixTokenizer.load(start, model.sizes)
    motion = recipe.motion > 0
    opened = [open_material(source, statistics, manifest.actions, model.sizes, motion) for source in mixture.datasets]
    # Before the long work: whether anything would be drawn, and the pictures that a sample needs are among those that are shown.
    expected = sampling_weights(mixture, [material.frames for material in opened])
    history = manifest.history
    for material in opened:
        material.away(history.interval_s, history.ahead_s)
        if material.dataset.robot_type in aliases(manifest.robot_type):
            material.need_rate(manifest.actions)
    if motion and not any(material.knows_parcels for material in opened):
        got = f"{recipe.motion:g} with mixture '{recipe.mixture}'"
        raise ConfigurationError(f"motion: got {got}, expected a dataset that says where parcels are, with the key '{SEEN}'")
    moving = {name for name, _ in model.named_parameters() if moves(name, recipe.freeze)}
    folders = [material.dataset.folder for material in opened]
    origin = origin_of(model, moving, folders, mixture=mixture, manifest=manifest, stats=statistics.path)
    if snapshot is not None:
        need_same_origin(out, snapshot.told.get("origin", {}), origin)
    if not team.leads:
        team.wait()  # until the leader has made the caches
    with team.others_wait():
        materials, pictures = with_pictures(recipe, opened, (expected > 0).tolist(), model, watcher)
    if team.leads:
        team.wait()
    frames = [material.frames for material in materials]
    weights = sampling_weights(mixture, frames)
    used = [i for i, weight in enumerate(weights) if weight > 0]
    dealt = assign([frames[i] for i in used], recipe.workers)
    assignment = Assignment(tuple(tuple(used[i] for i in share) for share in dealt.shares), dealt.frames)
    samplers = [Sampler(share, frames, weights.tolist(), recipe.seed * recipe.workers + k) for k, share in enumerate(assignment.shares)]
    samples = Samples(model, tokenizer, materials, pictures, history.interval_s, history.ahead_s)
    trainer = Trainer(recipe, model, samples, samplers, team)
    if snapshot is not None:
        trainer.resume(snapshot)
    drawn = tuple(effective_weights(assignment, weights.tolist()).tolist())
    return Prepared(recipe, manifest, trainer, tokenizer, materials, assignment, tuple(weights.tolist()), drawn, origin, trainer.step)


def run(prepared: Prepared, watcher: Watcher, stop: Callable[[], bool] = lambda: False) -> bool:
    """Do the steps that are left; saves on the way, at the end and when `stop` says so. Returns whether the run is complete."""
    trainer, recipe = prepared.trainer, prepared.recipe
    saved = -1  # at the end in any case: a former run may have ended between its two files
    with ExitStack() as closing:
        logs = _logs(prepared, closing) if trainer.team.leads else []
        while trainer.step < recipe.steps and not trainer.team.total(float(stop()))[0]:
            known = len(trainer.undecoded)
            report = trainer.advance()
            for _, why in list(trainer.undecoded.values())[known:]:
                watcher.left_out(why)
            for log in logs:
                log.add(report)
            if trainer.team.leads:
                watcher.stepped(report)
            if trainer.step % recipe.save_every == 0:
                save(prepared)
                saved = trainer.step
    if saved != trainer.step:
        save(prepared)
    return trainer.step >= recipe.steps


def _logs(prepared: Prepared, closing: ExitStack) -> list[Log | Board]:
    step = prepared.trainer.step
    logs: list[Log | Board] = [Log(prepared.out / LOG, step)]
    if board.installed():
        logs.append(closing.enter_context(Board(prepared.out / board.FOLDER, step, prepared.recipe.samples_a_step)))
    return logs


def save(prepared: Prepared) -> None:
    """Write what the run goes on from, then the folder that is used. Raises ConfigurationError; the former files then stay."""
    recipe, manifest, trainer = prepared.recipe, prepared.manifest, prepared.trainer
    if not (trainer.team.leads or trainer.team.sharded):
        return
    snapshot, model = trainer.snapshot, trainer.handed_out  # where the model is in shards, all put it together
    if not trainer.team.leads:
        return
    save_snapshot(prepared.out, replace(snapshot, told={**snapshot.told, "origin": prepared.origin}))
    source, learned = f"internvla-a1 train: {recipe.start}, {trainer.step} steps", manifest.trained or trainer.step > 0
    told = manifest.model_dump(exclude_unset=True) | {"name": recipe.name, "trained": learned, "source": source}
    told.pop("sha256", None)
    # What was measured of the start is not true of this model.
    presets = {name: preset.model_dump(exclude_unset=True) | {"error_rad": None} for name, preset in manifest.presets.items()}
    told["presets"] = {name: Preset.model_validate(preset).model_dump(exclude_none=True) for name, preset in presets.items()}
    mine, dtype = Manifest.model_validate(told), DTYPES[recipe.saved_precision]
    write_released(prepared.out, model, start_of(recipe), prepared.stats, mine, dtype)


def start_of(recipe: Recipe) -> Path:
    """Raises ConfigurationError, with near names, where there is no such folder and no model of that name comes along."""
    return find_checkpoint(recipe.start)


def stats_of(recipe: Recipe) -> Path:
    """Raises CheckpointError where the statistics are missing."""
    path = Path(recipe.stats) if recipe.stats else start_of(recipe) / "stats.json"
    if not path.is_file():
        raise CheckpointError(f"statistics '{path}' are missing: make them with `internvla-a1 stats DATASET ...` and name them in `stats`")
    return path


def manifest_of(recipe: Recipe) -> Manifest:
    return read_document(Path(recipe.manifest), Manifest, CheckpointError) if recipe.manifest else load_manifest(start_of(recipe))


def started(start: Path, statistics: StatisticsFile, manifest: Manifest, lambda_generation: float | None = None) -> InternVLAA1:
    """Load the start, its own width that of the manifest's robot. Raises CheckpointError."""
    sizes, width = load_architecture(start), statistics.of(manifest.robot_type).action.width
    if width > sizes.action_width:
        raise CheckpointError(f"'{statistics.path}': got {width} actions of '{manifest.robot_type}', the model has {sizes.action_width}")
    weight = sizes.lambda_generation if lambda_generation is None else lambda_generation
    return load_model(start, sizes=replace(sizes, robot_width=width, lambda_generation=weight))


def with_pictures(
    recipe: Recipe, opened: list[Material], drawn: list[bool], model: InternVLAA1, watcher: Watcher
) -> tuple[tuple[Material, ...], list[Pictures]]:
    """Return where the pictures of each dataset come from; what does not decode is left out while a cache is made.

    `drawn`: whether anything is; there is no cache of what is not.
    """
    if recipe.cache is None:
        return tuple(opened), [Decoded(material, model.sizes) for material in opened]
    materials: list[Material] = []
    pictures: list[Pictures] = []
    for material, wanted in zip(opened, drawn, strict=True):
        if not wanted:
            materials.append(material)
            pictures.append(Decoded(material, model.sizes))
            continue
        parts = 3 if recipe.cache_tokens else 2  # pictures, then their latents, then what the tower says of them
        steps = parts * sum(len(material.shown(i)) for i in range(len(material.episodes)))
        advance = watcher.caching(name_of(material.dataset), steps)
        kept, source = cached(Path(recipe.cache), material, model, advance, recipe.cache_tokens)
        materials.append(kept)
        pictures.append(source)
    return tuple(materials), pictures


def name_of(dataset: Dataset) -> str:
    return dataset.folder.name


class Log:
    """A line of JSON a step."""

    def __init__(self, path: Path, step: int) -> None:
        """Drop lines of steps that will be done again. Raises ConfigurationError where the file cannot be written."""
        self._path = path
        with self._written():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
                write_whole(path, "".join(f"{line}\n" for line in kept).encode())

    def add(self, report: Any) -> None:
        with self._written(), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise ConfigurationError(f"{self._path}: cannot be written: {problem.strerror or problem}") from None


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut short


def read_recipe(path: Path) -> Recipe:
    """Raises ConfigurationError with one sentence."""
    recipe = read_document(path, Recipe)
    if Path(recipe.out).resolve() in (Path(recipe.start).resolve(), (models_folder() / recipe.start).resolve()):
        raise ConfigurationError(f"{path}: out: got the start '{recipe.start}', expected another folder")
    return recipe
