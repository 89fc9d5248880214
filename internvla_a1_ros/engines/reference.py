"""The engine to be read and compared with: plain eager torch over `model/`. It is not fast on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from internvla_a1_ros.model.checkpoint import load_model
from internvla_a1_ros.model.flow import VelocityField, sample
from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, InternVLAA1, PrefixCache
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.model.text import KeysValues


class ReferenceEngine:
    """`Engine` over the eager model; shapes as in the protocol."""

    name = "reference"
    differentiable = True
    encodes_early = False

    def __init__(self, model: InternVLAA1) -> None:
        self.model = model
        self.device = model.state_proj.weight.device

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype, device: str, sizes: Architecture | None) -> ReferenceEngine:
        return cls(load_model(folder, dtype, device, sizes))

    @property
    def sizes(self) -> Architecture:
        return self.model.sizes

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        return self.model.encode(pictures.to(self.device))

    @torch.inference_mode()
    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        pixels, ids, mask = (x.to(self.device)[None] for x in (pixel_values, input_ids, attention_mask.bool()))
        positions = self.model.prefix_positions(mask, pixels.shape[1], self.sizes.grid)
        return self.model.prefix(self.model.embed_prefix(pixels, ids, self.sizes.grid), mask, positions)

    @torch.inference_mode()
    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        latents = torch.stack((latents_past, latents_now), 1).to(self.device)
        return self.model.generate(prefix, self.model.embed_generation(latents[None]), view_mask.bool().to(self.device)[None])

    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        if guidance is not None and guidance.gradient_clip is not None:
            with torch.no_grad():  # what inference mode made cannot take part in gradients: a copy can
                return self._sample(_copied(cache), state, noise, plan, guidance)
        with torch.inference_mode():
            return self._sample(cache, state, noise, plan, guidance)

    def _sample(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None) -> Tensor:
        field = VelocityField(self.model, cache, state.to(self.device)[None], noise.shape[0])
        return sample(field, noise.to(self.device)[None], plan, guidance)[0][0]

    @torch.inference_mode()
    def decode(self, cache: GenerationCache) -> Tensor:
        latents = self.model.predict_latents(self.model.generation_hidden(cache), self.sizes.views, self.sizes.generation_grid)
        return self.model.decode(latents[0])


def _copied(cache: GenerationCache) -> GenerationCache:
    tokens = cache.tokens
    keys, values = (tuple(layer.clone() for layer in layers) for layers in (tokens.keys, tokens.values))
    return replace(cache, tokens=KeysValues(keys, values, tokens.mask.clone()), last_position=cache.last_position.clone())
