"""The five calls as graphs of fixed shapes. Each stage names its inputs and what the model makes of them.

What follows from the instruction and the set of views alone (words, rotary tables, who may look at whom) comes in from outside:
`tables.py` makes it once per instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from internvla_a1_ros.engines.recording import Recorder
from internvla_a1_ros.model.flow import VelocityField
from internvla_a1_ros.model.model import GenerationCache, InternVLAA1
from internvla_a1_ros.model.sizes import FRAMES, Architecture
from internvla_a1_ros.model.text import KeysValues

Record = Callable[[Recorder, InternVLAA1], None]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the prefix, of prefix and generation together, of everything."""

    prefix: int
    cached: int
    all: int

    @classmethod
    def of(cls, sizes: Architecture) -> Lengths:
        cached = sizes.prefix_tokens + sizes.generation_tokens
        return cls(sizes.prefix_tokens, cached, cached + 1 + sizes.chunk)


def layer_names(sizes: Architecture) -> list[str]:
    """The names under which keys and values of all layers go in and out: key_0, value_0, key_1 ..."""
    return [f"{part}_{i}" for i in range(sizes.action.layers) for part in ("key", "value")]


def stages(sizes: Architecture, pictures: int) -> dict[str, Record]:
    """Return the stages by name; `pictures`: how many Cosmos encodes in one call."""
    return {"encode": _encode(pictures), "prefix": _prefix, "generate": _generate, "flow": _flow, "decode": _decode}


def _encode(pictures: int) -> Record:
    def record(recorder: Recorder, model: InternVLAA1) -> None:
        recorder.output("latents", model.encode(recorder.input("pictures", pictures, 3, *model.sizes.cosmos_picture)))

    return record


def _prefix(recorder: Recorder, model: InternVLAA1) -> None:
    sizes = model.sizes
    tokens, patches = sizes.prefix_tokens, sizes.grid[0] * sizes.grid[1]
    pixels = recorder.input("pixels", 1, sizes.views, patches, sizes.vision.patch_width)
    recorder.words = recorder.input("words", 1, tokens, sizes.understanding.hidden, dtype=model.dtype)
    tables = _tables(recorder, model, tokens, tokens, 1, sizes.understanding.head_dim)
    embeddings = model.embed_prefix(pixels, torch.empty(1, tokens, dtype=torch.long, device="meta"), sizes.grid)
    valid = torch.ones(1, tokens, dtype=torch.bool)
    _put(recorder, model.understanding.text.run(embeddings, tables["cos"], tables["sin"], valid, tables["scores"], None)[0])


def _generate(recorder: Recorder, model: InternVLAA1) -> None:
    sizes = model.sizes
    lengths = Lengths.of(sizes)
    own = lengths.cached - lengths.prefix
    latents = recorder.input("latents", 1, sizes.views, FRAMES, sizes.cosmos.latent_channels, *sizes.latent_grid)
    before = _cache(recorder, model, lengths.prefix)
    tables = _tables(recorder, model, own, lengths.cached, 1, sizes.generation.head_dim)
    valid = torch.ones(1, own, dtype=torch.bool)
    embeddings = model.embed_generation(latents)
    tokens, entering = model.generation.run(embeddings, tables["cos"], tables["sin"], valid, tables["scores"], before)
    _put(recorder, tokens)
    recorder.output("entering", entering)


def _flow(recorder: Recorder, model: InternVLAA1) -> None:
    """One evaluation: the velocity of `x` at the time that `time` embeds."""
    sizes = model.sizes
    lengths = Lengths.of(sizes)
    x = recorder.input("x", 1, sizes.chunk, sizes.action_width)
    time = recorder.input("time", 1, sizes.action.hidden)
    state = recorder.input("state", 1, sizes.state_width)
    own = 1 + sizes.chunk
    tables = _tables(recorder, model, own, lengths.all, own, sizes.action.head_dim)
    nowhere = torch.empty(0)
    tokens = _cache(recorder, model, lengths.cached)
    field = VelocityField.__new__(VelocityField)  # its tables come from outside
    field.model, field.cache = model, GenerationCache(tokens, nowhere, nowhere, nowhere, nowhere, nowhere)
    field.state_token = model.state_proj(state.to(model.dtype))[:, None]
    field.valid = torch.ones(1, own, dtype=torch.bool)
    field.cos, field.sin, field.scores = tables["cos"], tables["sin"], tables["scores"]
    recorder.output("velocity", model.action_out_proj(field.hidden_at(x, time)))


def _decode(recorder: Recorder, model: InternVLAA1) -> None:
    sizes = model.sizes
    lengths = Lengths.of(sizes)
    own = lengths.cached - lengths.prefix
    stack = sizes.generation
    entering = recorder.input("entering", 1, own, stack.hidden, dtype=model.dtype)
    tables = _tables(recorder, model, own, lengths.cached, 1, stack.head_dim)
    key, value = (recorder.input(name, 1, stack.kv_heads, lengths.cached, stack.head_dim, dtype=model.dtype) for name in ("key", "value"))
    nowhere = torch.empty(0)
    cache = GenerationCache(KeysValues((key,), (value,), nowhere), nowhere, entering, tables["cos"], tables["sin"], tables["scores"])
    latents = model.predict_latents(model.generation_hidden(cache), sizes.views, sizes.generation_grid)
    recorder.output("pictures", model.decode(latents[0]).float())


def _tables(recorder: Recorder, model: InternVLAA1, tokens: int, seen: int, rows: int, head_dim: int) -> Mapping[str, Tensor]:
    cos, sin = (recorder.input(name, 1, 1, tokens, head_dim) for name in ("cos", "sin"))
    return {"cos": cos, "sin": sin, "scores": recorder.input("scores", 1, 1, rows, seen, dtype=model.dtype)}


def _cache(recorder: Recorder, model: InternVLAA1, tokens: int) -> KeysValues:
    """Keys and values of `tokens` tokens that come in, under names that begin with `old_`."""
    stack = model.sizes.action
    named = [
        recorder.input(f"old_{name}", 1, stack.kv_heads, tokens, stack.head_dim, dtype=model.dtype) for name in layer_names(model.sizes)
    ]
    return KeysValues(tuple(named[0::2]), tuple(named[1::2]), torch.ones(1, tokens, dtype=torch.bool))


def _put(recorder: Recorder, tokens: KeysValues) -> None:
    for i, (key, value) in enumerate(zip(tokens.keys, tokens.values, strict=True)):
        recorder.output(f"key_{i}", key)
        recorder.output(f"value_{i}", value)
