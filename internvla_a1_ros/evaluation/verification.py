"""A built engine against the eager reference, stage by stage, on the same seeds. It is kept only where it is close enough.

Stages run one after the other on the engine's own results, as they do in use. Rows of valid tokens only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.evaluation.given import Given
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.model.text import KeysValues

SEEDS = (0, 1)  # the second with its last view missing
STAGES = ("Cosmos", "vision", "prefix KV", "generation KV", "velocity", "chunk", "imagined")
DIFFERS = 1e-3  # normalised; another seed's chunk must be at least so far away
Measured = dict[str, Tensor]
Radians = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Gates:
    """Smallest cosine of each gated stage, and the largest joint error of a chunk in radians (None: not known in radians).

    L1, the mean absolute error over the mean absolute value, may be what vectors at that angle have: a gate against wrong scales.
    """

    cosines: dict[str, float]
    joint_rad: float | None = None

    @staticmethod
    def l1(cosine: float) -> float:
        return math.sqrt(2 * (1 - cosine))


@dataclass(frozen=True, slots=True)
class Line:
    """One stage compared: the worst over the seeds. `floor`: None where it is only reported."""

    stage: str
    cosine: float
    l1: float
    largest: float
    floor: float | None

    @property
    def ok(self) -> bool:
        """Written so that a NaN fails."""
        return self.floor is None or (self.cosine >= self.floor and self.l1 <= Gates.l1(self.floor))


@dataclass(slots=True)
class Outcome:
    """What came out, in lines; `troubles` holds the sentences of what failed."""

    lines: list[Line] = field(default_factory=list)
    joint_rad: float | None = None
    troubles: list[str] = field(default_factory=list)


def measure(engine: Engine, seed: int, steps: int) -> tuple[Measured, dict[str, float]]:
    """Run one cycle. Return what each stage gave, valid tokens only, copied, and its seconds."""
    sizes, given = engine.sizes, Given.draw(engine.sizes, seed, missing_view=bool(seed % 2))
    laps = [time.perf_counter()]
    past, now = (engine.encode(frames) for frames in given.pictures.chunk(2))
    laps.append(time.perf_counter())
    prefix = engine.prefix(given.pixels, given.ids, given.mask)
    laps.append(time.perf_counter())
    got = {"Cosmos": torch.stack((past, now)), "prefix KV": _flat(prefix.tokens)}
    pictured = prefix.tokens.mask.clone()
    pictured[:, sizes.prefix_tokens - sizes.prompt_tokens :] = False
    got["vision"] = torch.cat(
        [each[0][pictured[:, None].expand(each[0].shape[:3])].float() for each in (prefix.tokens.keys, prefix.tokens.values)]
    ).cpu()
    laps.append(time.perf_counter())
    cache = engine.generate(prefix, past, now, given.views)
    laps.append(time.perf_counter())
    got["generation KV"] = _flat(cache.tokens)
    laps.append(time.perf_counter())
    got["chunk"] = engine.flow(cache, given.state, given.noise, make_plan("euler", steps)).float().cpu()
    laps.append(time.perf_counter())
    got["velocity"] = given.noise - engine.flow(cache, given.state, given.noise, make_plan("euler", 1)).float().cpu()
    got["imagined"] = engine.decode(cache)[given.views].float().cpu()
    took = [after - before for before, after in zip(laps, laps[1:], strict=False)]
    seconds = {"encode": took[0] / 2, "prefix": took[1], "generate": took[3], "flow": took[5]}
    return {name: tensor.float().cpu().clone() for name, tensor in got.items()}, seconds


def _flat(tokens: KeysValues) -> Tensor:
    """Keys and values of all layers [2 * layers, valid tokens * K * d]."""
    valid = tokens.mask[:, None].expand(tokens.keys[0].shape[:3])
    return torch.stack([layer[valid].flatten().float() for layer in (*tokens.keys, *tokens.values)]).cpu()


def verify(expected: list[Measured], load: Callable[[], Engine], steps: int, gates: Gates, radians: Radians | None) -> Outcome:
    """Compare what `load` makes with what the reference gave for each of `SEEDS`; load it twice, and see that seeds matter.

    `radians`: normalised actions [H, D] -> joint errors in radians.
    """
    outcome = Outcome()
    engine = load()
    got = [measure(engine, seed, steps)[0] for seed in SEEDS]
    for stage in STAGES:
        pairs = [(a[stage], b[stage]) for a, b in zip(got, expected, strict=True)]
        figures = [_figures(a, b) for a, b in pairs]
        worst = (min(f[0] for f in figures), max(f[1] for f in figures), max(f[2] for f in figures))
        if any(math.isnan(number) for f in figures for number in f):
            worst = (math.nan,) * 3
        line = Line(stage, *worst, gates.cosines.get(stage))
        outcome.lines.append(line)
        if not line.ok:
            allowed = f"at least {line.floor} and at most {Gates.l1(line.floor or 0):.4f}"
            outcome.troubles.append(f"{stage}: cosine {line.cosine:.6f} and L1 {line.l1:.4f}, expected {allowed}")
    if radians is not None:
        errors = [np.abs(radians((a["chunk"] - b["chunk"]).double().numpy())).max() for a, b in zip(got, expected, strict=True)]
        outcome.joint_rad = float(max(errors))
        if gates.joint_rad is not None and not outcome.joint_rad <= gates.joint_rad:
            outcome.troubles.append(f"a joint is {outcome.joint_rad:.4f} rad off, expected at most {gates.joint_rad}")
    if not float((got[0]["chunk"] - got[1]["chunk"]).abs().max()) >= DIFFERS:
        outcome.troubles.append("another seed gave the same chunk: the engine does not see its inputs")
    del engine
    again = measure(load(), SEEDS[0], steps)[0]
    if not torch.equal(again["chunk"], got[0]["chunk"]):
        off = float((again["chunk"] - got[0]["chunk"]).abs().max())
        outcome.troubles.append(f"loaded anew, the same seed gave a chunk that is {off:.1e} off")
    return outcome


def _figures(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """Cosine, L1 and L-infinity of two tensors; of rows of keys and values the worst row's cosine."""
    if a.shape != b.shape:
        raise ConfigurationError(f"the engine gave {list(a.shape)}, the reference {list(b.shape)}")
    rows = (a[None], b[None]) if a.ndim != 2 else (a, b)
    flat = [part.double().flatten(1) for part in rows]
    cosines = (flat[0] * flat[1]).sum(1) / (flat[0].norm(dim=1) * flat[1].norm(dim=1)).clamp(min=1e-300)
    difference = (a.double() - b.double()).abs()
    return float(cosines.min()), float(difference.mean() / b.double().abs().mean().clamp(min=1e-300)), float(difference.max())
