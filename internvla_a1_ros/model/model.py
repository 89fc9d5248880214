"""InternVLA-A1: a mixture of transformers that sees, imagines and acts. What differs between the 3B and the 2B is in `layout.py`.

Shapes: B batch, V views, L prefix tokens, G generation tokens, H actions of a chunk, D padded state and action width, z latent
channels, (lh, lw) latents of a picture. Formulas: arXiv 2601.02456; what is not in the paper was measured on released outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.model.cosmos import Cosmos
from internvla_a1_ros.model.norms import NORMS, LayerNorm
from internvla_a1_ros.model.positions import counted_positions, following, prefix_positions
from internvla_a1_ros.model.sizes import FRAMES, Architecture, Pair
from internvla_a1_ros.model.text import KeysValues, Stack, TextStack, additive, rotary_tables
from internvla_a1_ros.model.vision import VisionTower
from internvla_a1_ros.model.vision_internvl import InternVLTower

LATENT_NORM_EPS = 1e-5  # not the tower's
TOWERS = {"qwen3_vl": VisionTower, "internvl": InternVLTower}


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """What the understanding expert leaves behind. `last_position` [B] is the largest on any axis."""

    tokens: KeysValues
    last_position: Tensor


@dataclass(frozen=True, slots=True)
class GenerationCache:
    """Prefix and generation tokens together, and what `generation_hidden` needs to finish the last layer."""

    tokens: KeysValues
    last_position: Tensor
    entering_last_layer: Tensor
    cos: Tensor
    sin: Tensor
    scores: Tensor


class Understanding(nn.Module):
    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        width = sizes.understanding.hidden
        self.vision = TOWERS[sizes.layout.tower](sizes.vision, width, sizes.vision_norm_eps)
        scale = math.sqrt(width) if sizes.layout.scaled_words else 1.0
        self.text = TextStack(sizes.understanding, sizes.rms_norm_eps, sizes.vocabulary, scale)


def latent_patches(inner: Any, outer: Any) -> tuple[Tensor, Tensor]:
    """Return two Conv2d, `inner` [h, z, 1, 1] and then the strided `outer`, as one linear map: weight [h, z*row*column], bias [h], float32.

    At the 3B's sizes 1 million weights do what 67 million did, at a 64th of the arithmetic.
    """
    weight, outer_bias = outer.weight.float(), outer.bias.float()
    joined = torch.einsum("omij,mz->ozij", weight, inner.weight.float().flatten(1))
    return joined.flatten(1), outer_bias + torch.einsum("omij,m->o", weight, inner.bias.float())


class InternVLAA1(nn.Module):
    """The whole model; `flow.py` samples actions with it and computes its losses."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes = sizes
        width, action_width = sizes.generation.hidden, sizes.action.hidden
        latents, stride = sizes.cosmos.latent_channels, sizes.latent_stride
        self.understanding = Understanding(sizes)
        self.generation = Stack(sizes.generation, sizes.rms_norm_eps)
        self.action = Stack(sizes.action, sizes.rms_norm_eps)
        self.cosmos = Cosmos(sizes.cosmos)
        self.cosmos_in_proj = nn.Conv2d(latents, width, 1)
        self.downsample_conv = nn.Conv2d(width, width, stride, stride)
        self.upsample_conv = nn.ConvTranspose2d(width, width, stride, stride)
        self.cosmos_out_layer_norm = LayerNorm(width, eps=LATENT_NORM_EPS)
        self.cosmos_out_proj = nn.Linear(width, latents)
        self.state_proj = nn.Linear(sizes.state_width, action_width)
        self.action_in_proj = nn.Linear(sizes.action_width, action_width)
        self.action_time_mlp_in = nn.Linear(2 * action_width, action_width)
        self.action_time_mlp_out = nn.Linear(action_width, action_width)
        self.action_out_proj = nn.Linear(action_width, sizes.action_width)

    @property
    def dtype(self) -> torch.dtype:
        return self.state_proj.weight.dtype

    def precision(self, dtype: torch.dtype) -> Iterator[tuple[str, torch.dtype]]:
        """Yield each weight's name and precision where the model works in `dtype`: norms and the flow's last projection stay float32."""
        for prefix, module in self.named_modules():
            wide = isinstance(module, NORMS) or module is self.action_out_proj
            for name, _ in module.named_parameters(prefix, recurse=False):
                yield name, torch.float32 if wide else dtype

    # ---- understanding -------------------------------------------------------------------------------------------------

    def embed_prefix(self, pixel_values: Tensor, input_ids: Tensor, grid: Pair) -> Tensor:
        """Patches [B, V, P, patch width] of a `grid` (rows, columns) and token ids [B, L] -> embeddings [B, L, h]."""
        return self.laid(self.seen(pixel_values, grid), input_ids)

    def seen(self, pixel_values: Tensor, grid: Pair) -> Tensor:
        """What the vision tower says of patches [B, V, P, patch width]: tokens [B, V, T, h]."""
        tokens: Tensor = self.understanding.vision(pixel_values.to(self.dtype).flatten(0, 1), grid)
        return tokens.unflatten(0, pixel_values.shape[:2])

    def laid(self, seen: Tensor, input_ids: Tensor) -> Tensor:
        """Tokens [B, V, T, h] of pictures, laid among the words [B, L] that are kept free for them -> embeddings [B, L, h]."""
        words = self.understanding.text.words(input_ids)
        pieces, at, ends = [], 0, self.sizes.layout.view_ends
        for view in range(seen.shape[1]):
            tokens = seen[:, view]
            first, after = at + ends, at + ends + tokens.shape[1]
            pieces += [words[:, at:first], tokens, words[:, after : after + ends]]
            at = after + ends
        return torch.cat((*pieces, words[:, at:]), 1)

    def prefix(self, embeddings: Tensor, mask: Tensor, positions: Tensor) -> PrefixCache:
        """Run embeddings [B, L, h] of validity `mask` [B, L] at `positions` [3, B, L] through the understanding expert."""
        cos, sin = rotary_tables(positions, self.sizes.rope, self.sizes.understanding.head_dim)
        tokens, _ = self.understanding.text.run(embeddings, cos, sin, mask, additive(mask[:, None], self.dtype), None)
        return PrefixCache(tokens, positions.amax((0, 2)))

    def prefix_positions(self, mask: Tensor, views: int, grid: Pair) -> Tensor:
        """Positions [3, B, L] of a prefix of validity `mask` [B, L] whose views are a `grid` of patches."""
        if self.sizes.layout.positions == "counted":
            return counted_positions(mask)
        merge = self.sizes.vision.merge
        return prefix_positions(mask, views, (grid[0] // merge, grid[1] // merge))

    # ---- generation ----------------------------------------------------------------------------------------------------

    def embed_generation(self, latents: Tensor) -> Tensor:
        """Latents [B, V, 2 (past, now), z, lh, lw] -> tokens [B, G, h] in the order view, time, row, column."""
        weight, bias = latent_patches(self.cosmos_in_proj, self.downsample_conv)
        stride = self.sizes.latent_stride
        blocks = latents.unflatten(5, (-1, stride)).unflatten(4, (-1, stride))  # [B, V, 2, z, r, i, c, j]
        patches = blocks.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(-3).to(self.dtype)
        return F.linear(patches, weight.to(self.dtype), bias.to(self.dtype)).flatten(1, 4)

    def generate(self, prefix: PrefixCache, embeddings: Tensor, view_mask: Tensor, *, masked_advance: bool = True) -> GenerationCache:
        """Append the generation tokens [B, G, h] of views valid in `view_mask` [B, V].

        `masked_advance`: whether masked tokens take a position where the layout lets them. In the 3B they do when actions are
        sampled and do not in the released training code.
        """
        valid = view_mask.repeat_interleave(embeddings.shape[1] // view_mask.shape[1], 1)
        advance = masked_advance and self.sizes.layout.masked_advance
        positions = following(prefix.last_position, torch.ones_like(valid) if advance else valid)
        cos, sin = rotary_tables(positions, self.sizes.expert_rope, self.sizes.generation.head_dim)
        scores = additive(torch.cat((prefix.tokens.mask, valid), 1)[:, None], self.dtype)
        tokens, entering = self.generation.run(embeddings, cos, sin, valid, scores, prefix.tokens)
        return GenerationCache(tokens, positions[0, :, -1], entering, cos, sin, scores)

    def generation_hidden(self, cache: GenerationCache) -> Tensor:
        """Finish the last layer, which control alone does not need -> [B, G, h] after the final norm."""
        return self.generation.finish(cache.entering_last_layer, cache.cos, cache.sin, cache.tokens, cache.scores)

    def predict_latents(self, hidden: Tensor, views: int, grid: Pair) -> Tensor:
        """Hidden states [B, G, h], each frame a `grid` of tokens -> latents [B, V, z, lh, lw] of the imagined future."""
        # A transposed convolution whose stride is its kernel is one product, which a CPU does sooner, backward above all.
        conv, stride = self.upsample_conv, self.sizes.latent_stride
        features = hidden.unflatten(1, (views, FRAMES, *grid)).mean(2)
        blocks = F.linear(features, conv.weight.permute(2, 3, 1, 0).flatten(0, 2)).unflatten(-1, (stride, stride, -1))
        features = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3) + conv.bias
        return self.cosmos_out_proj(self.cosmos_out_layer_norm(features)).permute(0, 1, 4, 2, 3)

    # ---- Cosmos --------------------------------------------------------------------------------------------------------

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [N, 3, ch, cw] in [-1, 1] -> latents [N, z, lh, lw]."""
        latents: Tensor = self.cosmos.encoder(pictures.to(self.dtype))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [N, z, lh, lw] -> raw pictures [N, 3, ch, cw], about [-1, 1]."""
        pictures: Tensor = self.cosmos.decoder(latents.to(self.dtype))
        return pictures

    # ---- action --------------------------------------------------------------------------------------------------------

    def embed_actions(self, x: Tensor, time: Tensor) -> Tensor:
        """Noisy actions [B, H, D] and an embedding of their flow time [B, h] -> tokens [B, H, h]."""
        actions = self.action_in_proj(x.to(self.dtype))
        both = torch.cat((actions, time.to(self.dtype)[:, None].expand_as(actions)), -1)
        tokens: Tensor = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))
        return tokens
