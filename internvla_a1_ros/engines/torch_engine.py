"""The optimised eager engine: the reference's answer with less arithmetic, fewer passes over memory and no repetition.

What it leaves out changes no output: tokens that nobody may look at, the last layers' queries and MLPs, the state token in
every step but the first, whatever depends only on the plan, the instruction or the set of views. LOG.md has each gain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.experts import Expert, Rotary, Tokens
from internvla_a1_ros.engines.graphs import Graphs
from internvla_a1_ros.engines.kernels import Linear
from internvla_a1_ros.engines.mapped import MappedFiles
from internvla_a1_ros.engines.towers import LatentPatches, fused_tower, prepare_cosmos
from internvla_a1_ros.model.checkpoint import checked, load_model
from internvla_a1_ros.model.flow import sample, time_embedding
from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, InternVLAA1, PrefixCache
from internvla_a1_ros.model.positions import following
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.model.text import KeysValues, additive, rotary_tables

_REMEMBERED = 8  # instructions, sets of views and plans whose tables are kept
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Which prefix tokens are run (None: all) and where they stand. `mask` [L] is added to scores; None where all are valid."""

    rows: Tensor | None
    rotary: Rotary
    last_position: Tensor
    mask: Tensor | None
    tokens: KeysValues


@dataclass(frozen=True, slots=True)
class _Generation:
    """The same for the generation tokens and the flow's: `mask` covers prefix and generation, `flow_mask` the suffix too."""

    rows: Tensor | None
    rotary: Rotary
    suffix: Rotary
    last_position: Tensor
    mask: Tensor | None
    flow_mask: Tensor | None
    length: int
    tokens: KeysValues


class TorchEngine:
    """`Engine` over fused layers; shapes as in the protocol. Caches are valid until the next `prefix` call."""

    name = "torch"

    def __init__(self, model: InternVLAA1, discard: Callable[[nn.Module], None] = lambda part: None) -> None:
        """Lay the weights of `model` out anew; each layer that is copied is handed to `discard`. `model` is used up."""
        self.sizes: Architecture = model.sizes
        sizes, action = model.sizes, model.sizes.action
        self.device, self.dtype = model.state_proj.weight.device, model.dtype
        self._compact = self.device.type == "cpu"  # a GPU keeps all tokens: its graphs have static shapes
        self.encodes_early = self.device.type == "cpu"
        self._model, self._graphs = model, Graphs(self.device)
        model.understanding.vision = fused_tower(model.understanding.vision, sizes.layout.tower, discard)
        self._understanding, self._generation, self._action = (
            Expert(stack, sizes.rms_norm_eps, discard) for stack in (model.understanding.text, model.generation, model.action)
        )
        prepare_cosmos(model.cosmos)
        self._latent_patches = LatentPatches(model.cosmos_in_proj, model.downsample_conv, discard)
        self._take_action_head(model)
        length = sizes.prefix_tokens + self.sizes.generation_tokens + 1 + sizes.chunk
        self._tokens = Tokens.empty(action.layers, length, action.kv_heads, action.head_dim, model.state_proj.weight)
        self._committed = torch.zeros(sizes.chunk, sizes.action_width, device=self.device), torch.zeros(sizes.chunk, device=self.device)
        self._prefixes: OrderedDict[Hashable, _Prefix] = OrderedDict()
        self._generations: OrderedDict[Hashable, _Generation] = OrderedDict()
        self._times: OrderedDict[Hashable, list[Tensor]] = OrderedDict()
        self._now: tuple[PrefixCache, bytes, _Prefix] | None = None
        self._then: tuple[GenerationCache, Hashable, _Generation] | None = None

    def _take_action_head(self, model: InternVLAA1) -> None:
        """What stands between x and the tokens is linear up to the first activation: one product and a constant of the time."""
        joined, inner = model.action_time_mlp_in, model.action_in_proj
        of_actions, of_time = joined.weight.double().chunk(2, 1)
        self._from_actions = (of_actions @ inner.weight.double()).float()
        self._of_time = of_time.float()
        self._of_nothing = (joined.bias.double() + of_actions @ inner.bias.double()).float()
        self._to_tokens = Linear(model.action_time_mlp_out.weight, model.action_time_mlp_out.bias)
        self._velocity = (model.action_out_proj.weight.float() * self._action.final, model.action_out_proj.bias.float())

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype, device: str, sizes: Architecture | None) -> TorchEngine:
        """Load and lay out a checkpoint, reading each weight once. Raises CheckpointError where one cannot be used."""
        model = load_model(folder, dtype, device, sizes, finite=False)
        done = _Done(folder, model)
        with torch.inference_mode():
            engine = cls(model, done)
            done.finish()
        return engine

    # ---- the five calls ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        latents: Tensor = self._graphs(("encode", len(pictures)), self._encode, self._to_device(pictures))
        return latents.clone()

    @torch.inference_mode()
    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        mask = attention_mask.bool().cpu()
        key = mask.numpy().tobytes()
        layout = remembered(self._prefixes, key, lambda: self._prefix_layout(mask))

        def body(pixels: Tensor, ids: Tensor) -> None:
            x = self._model.embed_prefix(pixels[None], ids[None], self.sizes.grid)[0]
            x = x if layout.rows is None else x[layout.rows]
            self._understanding.remember(x, layout.rotary, self._tokens, 0, layout.mask)

        self._graphs(("prefix", key), body, self._to_device(pixel_values), self._to_device(input_ids))
        cache = PrefixCache(layout.tokens, layout.last_position)
        self._now, self._then = (cache, key, layout), None
        return cache

    @torch.inference_mode()
    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        if self._now is None or prefix is not self._now[0]:
            raise ConfigurationError("engine 'torch': the prefix cache is of an earlier cycle, expected the last one made")
        seen = view_mask.bool().cpu()
        _, masked, before = self._now
        key = (masked, seen.numpy().tobytes())
        layout = remembered(self._generations, key, lambda: self._generation_layout(before, seen))

        def body(past: Tensor, now: Tensor) -> Tensor:
            x = self._latent_patches(torch.stack((past, now), 1).to(self.dtype))
            x = x if layout.rows is None else x[layout.rows]
            return self._generation.remember(x, layout.rotary, self._tokens, layout.length - len(x), layout.mask)

        entering = self._graphs(("generate", key), body, self._to_device(latents_past), self._to_device(latents_now))
        scores = entering.new_zeros(0) if layout.mask is None else layout.mask
        cache = GenerationCache(layout.tokens, layout.last_position, entering, layout.rotary.cos, layout.rotary.sin, scores)
        self._then = (cache, key, layout)
        return cache

    @torch.inference_mode()
    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        if guidance is not None and guidance.gradient_clip is not None:
            raise ConfigurationError("engine 'torch' has no gradients, which this guidance asks for; use engine 'reference'")
        key, layout = self._current(cache)
        times = remembered(self._times, plan, lambda: self._time_tables(plan))

        towards = None
        if guidance is not None:  # looked at here: a recording may not wait for what it would find
            for held, given in zip(self._committed, (guidance.actions, guidance.weights), strict=True):
                held.copy_(given)
            towards = Guidance(*self._committed)

        def body(state: Tensor, noise: Tensor) -> Tensor:
            return self._integrate(layout, plan, times, state, noise, towards)

        inputs = self._to_device(state), self._to_device(noise).float()
        actions: Tensor = self._graphs(("flow", key, plan, guidance is None), body, *inputs)
        return actions.clone()

    @torch.inference_mode()
    def decode(self, cache: GenerationCache) -> Tensor:
        key, layout = self._current(cache)
        pictures: Tensor = self._graphs(("decode", key), lambda entering: self._decode(layout, entering), cache.entering_last_layer)
        return pictures.clone()

    # ---- their bodies --------------------------------------------------------------------------------------------------

    def _encode(self, pictures: Tensor) -> Tensor:
        return self._model.encode(pictures.contiguous(memory_format=torch.channels_last)).contiguous()

    def _integrate(
        self, layout: _Generation, plan: FlowPlan, times: list[Tensor], state: Tensor, noise: Tensor, guidance: Guidance | None
    ) -> Tensor:
        """The state token looks at no action and not at the time: it goes through the layers once, the actions at each step."""
        at, suffix = layout.length, layout.suffix
        token = self._model.state_proj(state.to(self.dtype))[None]
        masks = (None, None) if layout.flow_mask is None else (layout.flow_mask[: at + 1], layout.flow_mask)
        self._action.remember(token, suffix[:1], self._tokens, at, masks[0])
        rotary = suffix[1:]
        constants = iter(times)  # the sampler asks once for each evaluation, in order

        def velocity(x: Tensor, _: Tensor) -> Tensor:
            tokens = self._to_tokens(F.silu(torch.addmm(next(constants), x[0], self._from_actions.t())).to(self.dtype))
            return F.linear(self._action.run(tokens, rotary, self._tokens, at + 1, masks[1]).float(), *self._velocity)[None]

        return sample(velocity, noise[None], plan, guidance)[0][0]

    def _decode(self, layout: _Generation, entering: Tensor) -> Tensor:
        at = layout.length - len(entering)
        hidden = self._generation.finish(entering, layout.rotary, self._tokens, at, layout.mask)
        if layout.rows is not None:
            hidden = hidden.new_zeros(self.sizes.generation_tokens, hidden.shape[1]).index_copy_(0, layout.rows, hidden)
        latents = self._model.predict_latents(hidden[None], self.sizes.views, self.sizes.generation_grid)[0]
        return self._model.decode(latents.contiguous(memory_format=torch.channels_last)).contiguous()

    # ---- what is computed once -----------------------------------------------------------------------------------------

    def _prefix_layout(self, mask: Tensor) -> _Prefix:
        positions = self._model.prefix_positions(mask[None], self.sizes.views, self.sizes.grid).to(self.device)
        rows = None if bool(mask.all()) or not self._compact else mask.nonzero()[:, 0]
        run = positions if rows is None else positions[..., rows]
        last = positions.amax((0, 2))
        scores = None if self._compact or bool(mask.all()) else self._additive(mask)
        rotary = Rotary.of(*rotary_tables(run, self.sizes.rope, self.sizes.understanding.head_dim))
        return _Prefix(rows, rotary, last, scores, self._keys_values(run.shape[-1], scores))

    def _generation_layout(self, before: _Prefix, seen: Tensor) -> _Generation:
        valid = seen.repeat_interleave(self.sizes.generation_tokens // len(seen))
        advance = torch.ones_like(valid) if self.sizes.layout.masked_advance else valid
        positions = following(before.last_position, advance[None].to(self.device))
        suffix = following(positions[0, :, -1], torch.ones(1, 1 + self.sizes.chunk, dtype=torch.bool, device=self.device))
        rows = None if bool(valid.all()) or not self._compact else valid.nonzero()[:, 0]
        run = positions if rows is None else positions[..., rows]
        length = before.tokens.mask.shape[1] + run.shape[-1]
        mask = flow_mask = None
        if not self._compact and not (before.mask is None and bool(valid.all())):
            prefix = torch.zeros(length - len(valid), dtype=self.dtype, device=self.device) if before.mask is None else before.mask
            mask = torch.cat((prefix, self._additive(valid)))
            flow_mask = torch.cat((mask, mask.new_zeros(1 + self.sizes.chunk)))
        rope, width = self.sizes.expert_rope, self.sizes.action.head_dim
        own, after = (Rotary.of(*rotary_tables(where, rope, width)) for where in (run, suffix))
        return _Generation(rows, own, after, positions[0, :, -1], mask, flow_mask, length, self._keys_values(length, mask))

    def _time_tables(self, plan: FlowPlan) -> list[Tensor]:
        """What the time of each evaluation adds before the first activation, [h] each."""
        times = torch.tensor([evaluation.time for evaluation in plan.evaluations], device=self.device)
        embedded = time_embedding(times, self.sizes.action.hidden, self.sizes.min_period, self.sizes.max_period)
        return list(F.linear(embedded.to(self.dtype).float(), self._of_time, self._of_nothing))

    def _additive(self, mask: Tensor) -> Tensor:
        return additive(mask[None, None].to(self.device), self.dtype)[0, 0, 0]

    def _keys_values(self, length: int, scores: Tensor | None) -> KeysValues:
        """Views of the first `length` tokens of the buffers, as other engines return theirs."""
        keys, values = (tuple(layer[:length].transpose(0, 1)[None] for layer in part) for part in (self._tokens.keys, self._tokens.values))
        valid = torch.ones(length, dtype=torch.bool, device=self.device) if scores is None else scores == 0
        return KeysValues(keys, values, valid[None])

    def _current(self, cache: GenerationCache) -> tuple[Hashable, _Generation]:
        if self._then is None or cache is not self._then[0]:
            raise ConfigurationError("engine 'torch': the generation cache is of an earlier cycle, expected the last one made")
        return self._then[1:]

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)


def remembered(known: OrderedDict[Any, Value], key: Hashable, make: Callable[[], Value]) -> Value:
    """Return `known[key]`, made where it is not there; the oldest is dropped beyond a few."""
    if key not in known:
        known[key] = make()
        if len(known) > _REMEMBERED:
            known.popitem(last=False)
    return known[key]


class _Done:
    """Looks at a layer's weights once they have been copied, while they are still at hand, and gives their memory back."""

    def __init__(self, folder: Path, model: InternVLAA1) -> None:
        self._where, self._model, self._layout = f"checkpoint '{folder}'", model, model.sizes.layout
        self._files = MappedFiles(folder)
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def __call__(self, part: nn.Module) -> None:
        for parameter in part.parameters(recurse=False):
            checked(self._where, self._names.pop(id(parameter)), parameter, self._layout)
            self._files.release(parameter)
            parameter.data = parameter.data.new_empty(0)

    def finish(self) -> None:
        """Look at the weights that stay as they are. The token table is read by row: its pages may go."""
        for parameter in self._model.parameters():
            if (name := self._names.pop(id(parameter), None)) is not None:
                checked(self._where, name, parameter, self._layout)
        self._files.release(self._model.understanding.text.embed_tokens.weight)
