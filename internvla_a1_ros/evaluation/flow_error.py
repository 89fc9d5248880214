"""How far a way to run the flow is from the flow's own solution, in radians at the arms, over evaluations of the network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.evaluation.stream import Stream
from internvla_a1_ros.model.integrators import FlowPlan, Guidance, make_plan
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.manifest import load_manifest
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.policy.statistics import StatisticsFile
from internvla_a1_ros.robots.profile import RobotProfile

# The solution everything is compared with, and a second one of another kind: how far apart they are says how well it is known.
SOLUTION, SECOND = make_plan("midpoint", 64), make_plan("ab3", 64)


class Capturing:
    """The engine it is given, which notes what its flow was asked for and answers with zeros."""

    differentiable = False
    encodes_early = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.asked: tuple[GenerationCache, Tensor] | None = None

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def sizes(self) -> Architecture:
        return self._engine.sizes

    def encode(self, pictures: Tensor) -> Tensor:
        return self._engine.encode(pictures)

    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        return self._engine.prefix(pixel_values, input_ids, attention_mask)

    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        return self._engine.generate(prefix, latents_past, latents_now, view_mask)

    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        self.asked = cache, state
        return torch.zeros_like(noise)

    def decode(self, cache: GenerationCache) -> Tensor:
        return self._engine.decode(cache)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One observation as the flow reads it, and one draw of noise [H, D]."""

    cache: GenerationCache
    state: Tensor
    noise: Tensor


@dataclass(slots=True)
class Result:
    """What one plan was off, one entry a case: root mean square over the arms' joints and the chunk, and the largest."""

    plan: FlowPlan
    rms_rad: list[float] = field(default_factory=list)
    largest_rad: list[float] = field(default_factory=list)

    @property
    def evaluations(self) -> int:
        return len(self.plan.evaluations)

    @property
    def error_rad(self) -> float:
        """Root mean square over all cases."""
        return float(np.sqrt(np.mean(np.square(self.rms_rad)))) if self.rms_rad else float("nan")

    @property
    def worst_rad(self) -> float:
        return max(self.largest_rad, default=float("nan"))


class FlowBench:
    """Cases of one checkpoint, and plans measured on them. `results` is whole after each case: it may be cut off between two."""

    def __init__(self, checkpoint: Path, profile: RobotProfile, engine: Engine, plans: Sequence[FlowPlan]) -> None:
        self._engine = Capturing(engine)
        self._flow = engine.flow
        self._profile = profile
        self.manifest = load_manifest(checkpoint)
        self._policy = load_policy(checkpoint, profile, profile.name, engine=self._engine)
        statistics = StatisticsFile(checkpoint / "stats.json").of(self.manifest.robot_type)
        self._scale = statistics.action.scale(self.manifest.actions.normalisation)
        self.results = {plan: Result(plan) for plan in plans}
        self.second = Result(SECOND)
        self.cases = 0
        self._evaluations, self._seconds = 0, 0.0

    @property
    def evaluation_ms(self) -> float:
        """Mean time of one evaluation of the network, with its share of what a flow does once."""
        return 1e3 * self._seconds / self._evaluations if self._evaluations else float("nan")

    def draw(self, observations: int, seeds: int) -> Iterator[Case]:
        """Yield `observations` * `seeds` cases: moments of the simulated stream one second apart, noise from seeds 0, 1, ..."""
        stream = Stream(self._profile, self.manifest.history.spec, 1.0 + observations)
        for second in range(1, observations + 1):
            observation = stream.observe(second * 1_000_000_000, stream.swing(float(second)))
            self._policy.infer(observation, self.manifest.instructions[second % len(self.manifest.instructions)])
            assert self._engine.asked is not None
            cache, state = self._engine.asked
            shape = self._engine.sizes.chunk, self._engine.sizes.action_width
            for seed in range(seeds):
                yield Case(cache, state, torch.randn(shape, generator=torch.Generator().manual_seed(seed)))

    def measure(self, case: Case) -> Iterator[FlowPlan]:
        """Run all plans on `case`, yielding each once it is done; the results take it up when all are."""
        solution = self._arms(case, SOLUTION)
        found = []
        for result in (*self.results.values(), self.second):
            off = self._arms(case, result.plan) - solution
            found.append((result, float(np.sqrt(np.mean(off**2))), float(np.abs(off).max())))
            yield result.plan
        for result, rms, largest in found:
            result.rms_rad.append(rms)
            result.largest_rad.append(largest)
        self.cases += 1

    def _arms(self, case: Case, plan: FlowPlan) -> FloatArray:
        """Return the arms' actions [H, joints] in radians, as differences where the checkpoint learned differences."""
        began = time.perf_counter()
        raw = self._flow(case.cache, case.state, case.noise, plan).double().cpu().numpy()
        self._seconds += time.perf_counter() - began
        self._evaluations += len(plan.evaluations)
        actions = self._scale.inverse(raw[:, : self._profile.dof])
        return np.asarray(actions[:, ~self._profile.is_gripper])


def cheapest(results: Sequence[Result], error_rad: float) -> Result:
    """Return the result of the fewest evaluations whose error is at most `error_rad`; of several the most exact."""
    good = [result for result in results if result.error_rad <= error_rad]
    fewest = min(result.evaluations for result in good)
    return min((result for result in good if result.evaluations == fewest), key=lambda result: result.error_rad)
