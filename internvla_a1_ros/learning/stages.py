"""The stages before the policy's training, from a recipe to a folder: `internvla-a1 train` takes their recipes too (docs/nano.md).

Each leaves a checkpoint in the released format, in which only what the stage teaches differs from its start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.learning.autoencoder import Autoencoder, AutoencoderRecipe
from internvla_a1_ros.learning.checkpoints import read_snapshot, save_snapshot, write_released
from internvla_a1_ros.learning.mixture import Mixture, Sampler, find_mixture, sampling_weights
from internvla_a1_ros.learning.origin import Origin, need_same_origin, origin_of
from internvla_a1_ros.learning.running import DTYPES, LOG, Log
from internvla_a1_ros.learning.stages_loop import Course, Lesson, Numbers, StageReport
from internvla_a1_ros.learning.stages_pictures import Gallery, open_stills, too_few
from internvla_a1_ros.learning.stages_recipe import StageRecipe
from internvla_a1_ros.learning.training import need_same_recipe
from internvla_a1_ros.learning.warmup import Vision, VisionRecipe, with_seen
from internvla_a1_ros.learning.warmup_targets import need_seen
from internvla_a1_ros.model.checkpoint import empty_model, load_model
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.policy.manifest import Manifest, load_manifest
from internvla_a1_ros.robots.document import parse_document, read_document, read_mapping
from internvla_a1_ros.runtime.deployment import find_checkpoint

POLICY = "policy"
STAGES: dict[str, type[StageRecipe]] = {"autoencoder": AutoencoderRecipe, "vision": VisionRecipe}


class Watcher(Protocol):
    """Who is told how a stage goes."""

    def caching(self, name: str, steps: int) -> Callable[[int], None]: ...

    def stepped(self, report: StageReport) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class PreparedStage:
    """A stage that may begin. `origin`: what it is begun with; `resumed`: the step it goes on from, 0 at first."""

    recipe: StageRecipe
    start: Path
    manifest: Manifest
    model: InternVLAA1
    course: Course
    origin: Origin
    resumed: int

    @property
    def out(self) -> Path:
        return Path(self.recipe.out)

    @property
    def told(self) -> tuple[str, ...]:
        """What is learned from, what was left out, how much moves, line by line."""
        gallery, moving = self.course.gallery, sum(weight.numel() for weight in self.course.weights.values())
        lines = [f"{each.dataset.folder.name}: {n} pictures" for each, n in zip(gallery.stills, gallery.counts, strict=True)]
        lines += [f"left out: {sentence}" for each in gallery.stills for sentence in each.left_out]
        lines.append(f"{moving / 1e6:.2f} M weights move")
        return tuple([*lines, f"going on from step {self.resumed}"] if self.resumed else lines)


def read_stage(path: Path) -> StageRecipe | None:
    """Return the recipe at `path` where it is a stage's, None where it is a policy's (`stage` is absent or `policy`).

    Raises ConfigurationError with one sentence.
    """
    content = read_mapping(path)
    stage = content.get("stage", POLICY)
    if stage == POLICY:
        return None
    if stage not in STAGES:
        known = [*STAGES, POLICY]
        raise ConfigurationError(f"{path}: stage: got {stage!r}, expected one of {', '.join(known)}{suggestion(str(stage), known)}")
    recipe = parse_document(content, STAGES[stage], str(path))
    if Path(recipe.out).resolve() == find_checkpoint(recipe.start).resolve():
        raise ConfigurationError(f"{path}: out: got the start '{recipe.start}', expected another folder")
    return recipe


def prepare_stage(recipe: StageRecipe, watcher: Watcher) -> PreparedStage:
    """Open everything a stage needs and go on where a former run in the same folder stopped.

    Raises ConfigurationError for whatever does not fit together: checkpoint, manifest, datasets, a former run.
    """
    out, start = Path(recipe.out), find_checkpoint(recipe.start)
    snapshot = read_snapshot(out)
    if snapshot is not None:
        need_same_recipe(out, snapshot.told["recipe"], recipe)
    mixture = read_document(find_mixture(recipe.mixture), Mixture)
    model, manifest = load_model(start), load_manifest(start)
    need_material(recipe, mixture, model.sizes.views)
    stills = [open_stills(Path(recipe.cache), source, model.sizes, recipe.every, watcher.caching) for source in mixture.datasets]
    if isinstance(recipe, VisionRecipe):
        stills = [with_seen(each, model.sizes.views) for each in stills]
    gallery = Gallery(stills, recipe.held_out)
    weights = sampling_weights(mixture, gallery.counts)
    sampler = Sampler(range(len(stills)), gallery.counts, weights.tolist(), recipe.seed)
    course = Course(recipe, lesson_of(recipe, model, gallery), gallery, sampler)
    origin = origin_of(model, course.weights, [Path(source.path) for source in mixture.datasets], mixture=mixture)
    if snapshot is not None:
        need_same_origin(out, snapshot.told.get("origin", {}), origin)
        course.resume(snapshot)
    return PreparedStage(recipe, start, manifest, model, course, origin, course.step)


def need_material(recipe: StageRecipe, mixture: Mixture, views: int) -> None:
    """Raise ConfigurationError where datasets lack what the stage needs, which would else be found after the long work of decoding."""
    datasets = [Dataset.open(Path(source.path)) for source in mixture.datasets]
    for dataset in datasets:
        if len(dataset.episodes) < recipe.held_out:
            raise too_few(dataset, len(dataset.episodes), recipe.held_out)
        if isinstance(recipe, VisionRecipe):
            need_seen(dataset, views)
    sampling_weights(mixture, [dataset.length for dataset in datasets])


def lesson_of(recipe: StageRecipe, model: InternVLAA1, gallery: Gallery) -> Lesson:
    if isinstance(recipe, AutoencoderRecipe):
        return Autoencoder(recipe, model, gallery)
    if isinstance(recipe, VisionRecipe):
        return Vision(recipe, model, gallery)
    raise TypeError(f"recipe: got {type(recipe).__name__}, expected one of {', '.join(STAGES)}")


def run_stage(prepared: PreparedStage, watcher: Watcher, stop: Callable[[], bool] = lambda: False) -> bool:
    """Do the steps that are left; saves on the way, at the end and when `stop` says so. Returns whether the stage is complete."""
    course, recipe = prepared.course, prepared.recipe
    log = Log(prepared.out / LOG, course.step)
    saved = -1  # at the end in any case: a former run may have ended between its two files
    while course.step < recipe.steps and not stop():
        report = course.advance()
        if course.step % recipe.save_every == 0 or course.step == recipe.steps:
            report, saved = replace(report, measured=save_stage(prepared)), course.step
        log.add(report)
        watcher.stepped(report)
    if saved != course.step:
        save_stage(prepared)
    return course.step >= recipe.steps


def save_stage(prepared: PreparedStage) -> Numbers:
    """Write what the stage goes on from, then the folder that is used; return how good that is on what is kept back.

    Raises ConfigurationError; the former files then stay.
    """
    course, recipe = prepared.course, prepared.recipe
    snapshot = course.snapshot
    save_snapshot(prepared.out, replace(snapshot, told={**snapshot.told, "origin": prepared.origin}))
    with course.averaged():
        measured = course.lesson.measured()
        model = handed_out(prepared.model, course.lesson.finished())
        told = prepared.manifest.model_dump(exclude_unset=True, exclude={"sha256"})
        told |= {"name": recipe.name, "source": f"internvla-a1 train: {recipe.start}, {course.step} steps"}
        stats, dtype = prepared.start / "stats.json", DTYPES[recipe.saved_precision]
        write_released(prepared.out, model, prepared.start, stats, Manifest.model_validate(told), dtype)
    return measured


@torch.no_grad()
def handed_out(model: InternVLAA1, instead: dict[str, torch.Tensor]) -> InternVLAA1:
    """Return the model with some of its weights replaced; it shares the memory of the others."""
    copy = empty_model(model.sizes)
    copy.load_state_dict({name: instead.get(name, weight.detach()) for name, weight in model.named_parameters()}, assign=True)
    return copy
