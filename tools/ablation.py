"""What each idea of the optimised engine is worth: whole chunks with the idea taken out, in turn with chunks that have them all.

    python tools/ablation.py --layers 7 --chunks 5

At the released 3B's widths with drawn weights; `--layers` of each expert and of the vision tower (28 and 24 at full size, 13 GB).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from internvla_a1_ros.engines import experts, kernels, towers
from internvla_a1_ros.engines.experts import Expert
from internvla_a1_ros.engines.kernels import Linear
from internvla_a1_ros.engines.torch_engine import TorchEngine
from internvla_a1_ros.engines.weights import DrawnSource
from internvla_a1_ros.evaluation.engine_bench import STAGES
from internvla_a1_ros.evaluation.given import Given
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.model.released import released_sizes

Lever = Callable[[], Any]


def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`kernels.attend` by torch's fused kernel, query heads sharing key heads through it."""
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True)[0].transpose(0, 1).flatten(1)


def weighted_norm(x: Tensor, floor: Tensor) -> Tensor:
    """`kernels.unit_norm` as torch's norm, with a weight."""
    width = x.shape[-1]
    return F.rms_norm(x, (width,), x.new_full((width,), width**-0.5), float(floor) ** 2 / width)


def remember_all(self: Expert, x: Tensor, *where: Any) -> Tensor:
    entering = REMEMBER(self, x, *where)
    self.finish(entering, *where)
    return entering


REMEMBER = Expert.remember


@contextmanager
def several(*patches: Any) -> Iterator[None]:
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


# What is patched while the engine is made and while it runs.
OUT: dict[str, Lever] = {
    "weights laid out beforehand": lambda: mock.patch.object(kernels, "PACKS", False),
    "activations and sums inside products": lambda: several(
        mock.patch.object(Linear, "swish", lambda self, x: F.silu(self(x))),
        mock.patch.object(Linear, "gelu", lambda self, x, approximate: F.gelu(self(x), approximate=approximate)),
        mock.patch.object(Linear, "plus", lambda self, x, other: self(x) + other),
        mock.patch.object(Linear, "times", lambda self, x, other: self(x) * other),
    ),
    "norms in three kernels, weights folded": lambda: mock.patch.object(experts, "unit_norm", weighted_norm),
    "attention as two products": lambda: mock.patch.object(experts, "attend", flash),
    "only keys and values of last layers": lambda: mock.patch.object(Expert, "remember", remember_all),
    "latents to tokens as one linear map": lambda: mock.patch.object(TorchEngine, "_made_for_ablation", "convolutions", create=True),
    "attention of Cosmos not written out": lambda: mock.patch.object(towers, "PixelAttention", lambda part: part),
    "channels last": lambda: mock.patch.object(towers, "channels_last", lambda module: None),
    "masked tokens left out": lambda: mock.patch.object(TorchEngine, "_made_for_ablation", "masked", create=True),
    "latents of the past frame kept": lambda: mock.patch.object(TorchEngine, "_made_for_ablation", "both", create=True),
    "tables kept from chunk to chunk": lambda: mock.patch.object(TorchEngine, "_made_for_ablation", "tables", create=True),
}


class Run:
    """One engine, made and run with an idea taken out (or none), on an observation drawn from a seed."""

    def __init__(self, source: DrawnSource, lever: Lever | None) -> None:
        self.lever = lever or (lambda: several())
        with self.lever(), torch.inference_mode():
            model = source.whole(torch.float32)
            self.engine = TorchEngine(model, emptied if self.changed != "convolutions" else lambda part: None)
            if self.changed == "convolutions":
                self.engine._latent_patches = lambda latents: model.embed_generation(latents[None])[0]  # type: ignore[assignment]
            self.engine._compact = self.changed != "masked"
        self.given, self.plan = Given.draw(source.sizes, 0), make_plan("euler", 10)
        self.past, self.now = self.given.pictures.chunk(2)
        self.kept = self.engine.encode(self.past).clone()
        self.chunk()

    @property
    def changed(self) -> str:
        with self.lever():
            return getattr(TorchEngine, "_made_for_ablation", "")

    def chunk(self) -> dict[str, float]:
        engine, given, laps = self.engine, self.given, [time.perf_counter()]
        with self.lever():
            if self.changed == "tables":
                for known in (engine._prefixes, engine._generations, engine._times):
                    known.clear()
            if self.changed == "both":
                past, now = engine.encode(given.pictures).chunk(2)
            else:
                past, now = self.kept, engine.encode(self.now)
            laps.append(time.perf_counter())
            prefix = engine.prefix(given.pixels, given.ids, given.mask)
            laps.append(time.perf_counter())
            cache = engine.generate(prefix, past, now, given.views)
            laps.append(time.perf_counter())
            engine.flow(cache, given.state, given.noise, self.plan)
            laps.append(time.perf_counter())
        return dict(zip(STAGES, (after - before for before, after in zip(laps, laps[1:], strict=False)), strict=True))


def emptied(part: torch.nn.Module) -> None:
    for parameter in part.parameters(recurse=False):
        parameter.data = parameter.data.new_empty(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--chunks", type=int, default=5, help="chunks with and without each idea")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    console, source = Console(stderr=True), DrawnSource(replace(released_sizes("3b").with_layers(chosen.layers), vocabulary=1024), 0)
    table = Table("without", "chunk", *STAGES, title=f"3B widths, {chosen.layers} layers, {chosen.threads} threads: time against all ideas")
    told: dict[str, float] = {}
    with console.status("drawing weights") as status:
        everything = Run(source, None)
        for name, lever in OUT.items():
            status.update(name)
            less = Run(source, lever)
            with_all, without = [], []
            for _ in range(chosen.chunks):
                with_all.append(everything.chunk())
                without.append(less.chunk())
            ratios = {stage: middle(without, stage) / middle(with_all, stage) for stage in STAGES}
            whole = statistics.median(sum(r.values()) for r in without) / statistics.median(sum(r.values()) for r in with_all)
            told[name] = round(whole, 3)
            table.add_row(name, f"{whole:.2f}", *(f"{ratios[stage]:.2f}" for stage in STAGES))
    Console().print(table)
    print(json.dumps(told))


def middle(chunks: list[dict[str, float]], stage: str) -> float:
    return statistics.median(chunk[stage] for chunk in chunks)


if __name__ == "__main__":
    main()
