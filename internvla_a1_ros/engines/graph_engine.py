"""The five calls over built graphs, whatever runs them.

Keys and values are written by one graph into the memory from which the next reads them; all memory is had once, when the engine is
made. A cache is therefore good until the next call of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.graphs import Graphs
from internvla_a1_ros.engines.stages import Lengths, layer_names
from internvla_a1_ros.engines.tables import TableMaker, Tables
from internvla_a1_ros.engines.words import Words
from internvla_a1_ros.model.flow import sample
from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.model.text import KeysValues

STAGES = ("encode", "prefix", "generate", "flow", "decode")
_REMEMBERED = 64  # sets of valid tokens whose tables are kept; they are small


class Stage(Protocol):
    """A built graph with its memory, which never moves."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def put(self, name: str, tensor: Tensor) -> None:
        """Copy `tensor` into an input, from wherever it is."""
        ...

    def run(self) -> None: ...


# A stage by name, with the memory that it shares with others.
MakeStage = Callable[[str, Mapping[str, Tensor]], Stage]


class GraphEngine:
    """`Engine` over stages; shapes as in the protocol. Caches are good until the next `prefix` or `generate`."""

    def __init__(self, name: str, sizes: Architecture, make: MakeStage, words: Words, dtype: torch.dtype, graphs: Graphs) -> None:
        """`dtype`: of keys and values. `graphs`: runs a stage as it is, or records it and replays it from then on."""
        self.name, self.sizes = name, sizes
        self._maker, self._words, self._graphs = TableMaker(sizes, dtype), words, graphs
        self._encode = make("encode", {})
        self.device = device = self._encode.inputs["pictures"].device
        self.encodes_early = device.type == "cpu"
        names, lengths, stack = layer_names(sizes), Lengths.of(sizes), sizes.action

        def memory(tokens: int) -> dict[str, Tensor]:
            return {each: torch.zeros(1, stack.kv_heads, tokens, stack.head_dim, dtype=dtype, device=device) for each in names}

        first, both = memory(lengths.prefix), memory(lengths.cached)
        last = sizes.generation.layers - 1
        self._prefix = make("prefix", first)
        self._generate = make("generate", {**_old(first), **both})
        self._flow = make("flow", _old(both))
        shared = {each: self._generate.inputs[each] for each in ("cos", "sin", "scores")} | {"entering": self._generate.outputs["entering"]}
        self._decode = make("decode", {**shared, "key": both[f"key_{last}"], "value": both[f"value_{last}"]})
        self._caches = [tuple(buffers[each] for each in names) for buffers in (first, both)]
        self._noise = torch.zeros(1, sizes.chunk, sizes.action_width, device=device)
        self._committed = torch.zeros(sizes.chunk, sizes.action_width, device=device), torch.zeros(sizes.chunk, device=device)
        self._tables: dict[bytes, Tables] = {}
        self._held: dict[int, Tables] = {}
        self._times: dict[float, Tensor] = {}
        self._now: tuple[PrefixCache, Tables] | None = None
        self._then: GenerationCache | None = None

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        room, latents = self._encode.inputs["pictures"].shape[0], []
        for some in pictures.split(room):
            whole = some if len(some) == room else torch.cat((some, some.new_zeros(room - len(some), *some.shape[1:])))
            self._encode.put("pictures", whole)
            self._run(self._encode, "encode")
            latents.append(self._encode.outputs["latents"][: len(some)].clone())
        return torch.cat(latents) if len(latents) > 1 else latents[0]

    @torch.inference_mode()
    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        mask = attention_mask.bool().cpu()
        tables = self._remembered(b"prefix" + mask.numpy().tobytes(), lambda: self._maker.prefix(mask))
        self._prefix.put("pixels", pixel_values[None])
        self._prefix.put("words", self._words(input_ids.cpu()))
        self._put(self._prefix, tables)
        self._run(self._prefix, "prefix")
        cache = PrefixCache(self._tokens(0, tables), tables.last_position)
        self._now, self._then = (cache, tables), None
        return cache

    @torch.inference_mode()
    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        if self._now is None or prefix is not self._now[0]:
            raise ConfigurationError(f"engine '{self.name}': the prefix cache is of an earlier cycle, expected the last one made")
        before, seen = self._now[1], view_mask.bool().cpu()
        key = before.mask.numpy().tobytes() + seen.numpy().tobytes()
        tables = self._remembered(b"generation" + key, lambda: self._maker.generation(before, seen))
        self._generate.put("latents", torch.stack((latents_past, latents_now), 1)[None])
        self._put(self._generate, tables)
        self._run(self._generate, "generate")
        self._put(self._flow, self._remembered(b"suffix" + key, lambda: self._maker.suffix(tables)))
        entering, generation = self._generate.outputs["entering"], self._generate.inputs
        self._then = GenerationCache(
            self._tokens(1, tables), tables.last_position, entering, generation["cos"], generation["sin"], generation["scores"]
        )
        return self._then

    @torch.inference_mode()
    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        self._check(cache)
        if guidance is not None and guidance.gradient_clip is not None:
            raise ConfigurationError(f"engine '{self.name}' has no gradients; guidance: use 'hard' or 'soft', or engine 'reference'")
        self._flow.put("state", state[None])
        self._noise.copy_(noise[None])
        towards = None
        if guidance is not None:
            for held, given in zip(self._committed, (guidance.actions, guidance.weights), strict=True):
                held.copy_(given)
            towards = Guidance(*self._committed)
        embedded = [self._embedded(evaluation.time) for evaluation in plan.evaluations]
        actions: Tensor = self._graphs(("flow", plan, guidance is None), lambda: self._integrate(embedded, plan, towards))
        return actions[0].clone()

    def _integrate(self, embedded: list[Tensor], plan: FlowPlan, guidance: Guidance | None) -> Tensor:
        times = iter(embedded)  # the sampler asks once for each evaluation, in order

        def velocity(x: Tensor, _: Tensor) -> Tensor:
            self._flow.inputs["time"].copy_(next(times))
            self._flow.inputs["x"].copy_(x)
            self._flow.run()
            return self._flow.outputs["velocity"].clone()

        return sample(velocity, self._noise, plan, guidance)[0]

    @torch.inference_mode()
    def decode(self, cache: GenerationCache) -> Tensor:
        self._check(cache)
        self._run(self._decode, "decode")
        return self._decode.outputs["pictures"].clone()

    def _run(self, stage: Stage, name: str) -> None:
        self._graphs(name, stage.run)

    def _check(self, cache: GenerationCache) -> None:
        if cache is not self._then:
            raise ConfigurationError(f"engine '{self.name}': the generation cache is of an earlier cycle, expected the last one made")

    def _tokens(self, which: int, tables: Tables) -> KeysValues:
        buffers = self._caches[which]
        return KeysValues(buffers[0::2], buffers[1::2], tables.mask)

    def _put(self, stage: Stage, tables: Tables) -> None:
        if self._held.get(id(stage)) is not tables:
            self._held[id(stage)] = tables
            for name in ("cos", "sin", "scores"):
                stage.put(name, getattr(tables, name))

    def _embedded(self, time: float) -> Tensor:
        if time not in self._times:
            self._times[time] = self._maker.time(time).to(self._noise.device)
        return self._times[time]

    def _remembered(self, key: bytes, make: Callable[[], Any]) -> Tables:
        """Make tables once per set of valid tokens; few sets ever come."""
        if key not in self._tables:
            if len(self._tables) >= _REMEMBERED:
                self._tables.clear()
            self._tables[key] = make()
        return self._tables[key]


def _old(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"old_{name}": tensor for name, tensor in buffers.items()}
