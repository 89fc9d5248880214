"""The policy under test, asked several times about one observation: the noise differs, what it rests on is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.core.types import Frame, Observation
from internvla_a1_ros.engines import engine_and_precision, make_engine
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.inference import Inference
from internvla_a1_ros.policy.policy import Policy, load_policy
from internvla_a1_ros.robots.profile import RobotProfile


class Predicts(Protocol):
    """What an open loop asks for chunks."""

    def predict(self, observation: Observation, instruction: str, seed: int, *, imagine: bool = False) -> Inference:
        """Return the chunk of one seed; the same observation and seed give the same. Raises ValueError where a picture does not decode."""

    def knows(self, frame: Frame) -> bool:
        """Return whether the latents of `frame` are still at hand."""

    def forget(self) -> None:
        """Drop what was seen: another recording begins."""


class Seeded:
    """The engine it is given, whose noise depends on seed and observation alone, not on what was asked before.

    Asked about the observation it was asked about last, it answers with the prefix and the generation computed then.
    """

    differentiable = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.noise = 1.0  # what it is multiplied by: the preset's, which the policy knows
        self._generator = torch.Generator()
        self._asked_ns: int | None = None
        self._again = False
        self._prefix: PrefixCache | None = None
        self._cache: GenerationCache | None = None

    def asked(self, stamp_ns: int, seed: int) -> None:
        """Prepare for one observation and seed."""
        self._again = stamp_ns == self._asked_ns and self._cache is not None
        self._asked_ns = stamp_ns
        mixed = np.random.SeedSequence([seed, stamp_ns]).generate_state(1, np.uint64)[0]
        self._generator.manual_seed(int(mixed >> np.uint64(1)))

    def forget(self) -> None:
        """Compute anew whatever comes."""
        self._asked_ns, self._prefix, self._cache = None, None, None

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def sizes(self) -> Architecture:
        return self._engine.sizes

    @property
    def encodes_early(self) -> bool:
        return self._engine.encodes_early

    @property
    def device(self) -> torch.device | str:
        return getattr(self._engine, "device", "cpu")

    def encode(self, pictures: Tensor) -> Tensor:
        return self._engine.encode(pictures)

    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        if not self._again or self._prefix is None:
            self._prefix = self._engine.prefix(pixel_values, input_ids, attention_mask)
        return self._prefix

    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        if not self._again or self._cache is None:
            self._cache = self._engine.generate(prefix, latents_past, latents_now, view_mask)
        return self._cache

    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        drawn = self.noise * torch.randn(noise.shape, generator=self._generator)
        return self._engine.flow(cache, state, drawn, plan, guidance)

    def decode(self, cache: GenerationCache) -> Tensor:
        return self._engine.decode(cache)


class SeededPolicy:
    """One checkpoint in one engine on one robot. `instance` is whose chunks they are, `engine` may hold the precision."""

    def __init__(
        self, checkpoint: Path, profile: RobotProfile, instance: str, *, engine: str, preset: str | None, threads: int | None
    ) -> None:
        """Raises ConfigurationError in one sentence."""
        name, precision = engine_and_precision(engine)
        self._engine = Seeded(make_engine(name, checkpoint, threads=threads, precision=precision))
        # Nothing is committed in an open loop, so nothing can be continued.
        self._policy: Policy = load_policy(checkpoint, profile, instance, engine=self._engine, preset=preset, guidance="off")
        self._engine.noise = self._policy.noise

    @property
    def chunk(self) -> int:
        """How many actions a chunk has."""
        return self._engine.sizes.chunk

    def knows(self, frame: Frame) -> bool:
        return self._policy.knows(frame)

    def forget(self) -> None:
        self._policy.forget()
        self._engine.forget()

    def warm_up(self, instruction: str) -> None:
        """Run whole cycles, so that the first measured one is as fast as any."""
        self._policy.warm_up(instruction)
        self._engine.forget()

    def predict(self, observation: Observation, instruction: str, seed: int, *, imagine: bool = False) -> Inference:
        self._engine.asked(observation.stamp_ns, seed)
        try:
            return self._policy.infer(observation, instruction, imagine=imagine)
        except ValueError:
            self._engine.forget()
            raise
