"""Whether samples come as fast as the model learns from them: rates of decoding, of the cache and of the training step, side by side."""

from __future__ import annotations

import time
from dataclasses import dataclass

from internvla_a1_ros.learning.mixture import Draw
from internvla_a1_ros.learning.running import Prepared
from internvla_a1_ros.learning.samples import Decoded, Samples


@dataclass(frozen=True, slots=True)
class Rates:
    """Samples a second: decoded at every step, from the cache (None where the recipe has none), and taken by the step itself."""

    decoded: float
    cached: float | None
    step: float


def measured(prepared: Prepared, steps: int) -> Rates:
    """Do `steps` steps that are not kept, and make as many samples as they took in either way. Decoding is one thread's."""
    trainer, recipe = prepared.trainer, prepared.recipe
    trainer.advance()  # the first one sets things up
    reports = [trainer.advance() for _ in range(steps)]
    draws = [sampler.draw() for _ in range(max(1, steps * recipe.samples_a_step // len(trainer.samplers))) for sampler in trainer.samplers]
    count = recipe.samples_a_step * steps
    return Rates(
        decoded=_rate(_decoding(prepared), draws),
        cached=None if recipe.cache is None else _rate(trainer.samples, draws),
        step=count / sum(report.seconds - report.data_s for report in reports),
    )


def _decoding(prepared: Prepared) -> Samples:
    model, materials = prepared.trainer.model, prepared.materials
    pictures = [Decoded(material, model.sizes) for material in materials]
    return Samples(model, prepared.tokenizer, materials, pictures, prepared.manifest.history.interval_s, prepared.manifest.history.ahead_s)


def _rate(samples: Samples, draws: list[Draw]) -> float:
    samples.sample(draws[0])
    began = time.perf_counter()
    for draw in draws:
        samples.sample(draw)
    return len(draws) / (time.perf_counter() - began)
