"""The eager model doing all the work that the released code does: the yardstick of `bench model`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.model.integrators import FlowPlan, Guidance
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.text import additive, rotary_tables


class AsReleased(ReferenceEngine):
    """Scores are written out, keys repeated for every query head, last layers finished; the caller encodes every frame anew."""

    name = "reference"

    @torch.inference_mode()
    def encode(self, pictures: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return super().encode(pictures)

    @torch.inference_mode()
    def prefix(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> PrefixCache:
        model = self.model
        pixels, ids, mask = (x.to(self.device)[None] for x in (pixel_values, input_ids, attention_mask.bool()))
        positions = model.prefix_positions(mask, pixels.shape[1], self.sizes.grid)
        cos, sin = rotary_tables(positions, self.sizes.rope, self.sizes.understanding.head_dim)
        scores = additive(mask[:, None], model.dtype)
        with sdpa_kernel(SDPBackend.MATH):
            embeddings = model.embed_prefix(pixels, ids, self.sizes.grid)
            tokens, entering = model.understanding.text.run(embeddings, cos, sin, mask, scores, None)
            model.understanding.text.finish(entering, cos, sin, tokens, scores)
        return PrefixCache(tokens, positions.amax((0, 2)))

    @torch.inference_mode()
    def generate(self, prefix: PrefixCache, latents_past: Tensor, latents_now: Tensor, view_mask: Tensor) -> GenerationCache:
        with sdpa_kernel(SDPBackend.MATH):
            cache = super().generate(prefix, latents_past, latents_now, view_mask)
            self.model.generation_hidden(cache)
        return cache

    def flow(self, cache: GenerationCache, state: Tensor, noise: Tensor, plan: FlowPlan, guidance: Guidance | None = None) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return super().flow(cache, state, noise, plan, guidance)
