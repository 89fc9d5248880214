"""What looks at pictures, fused: both layouts' vision towers, and what is faster in Cosmos and on the way from its latents.

N pictures, P patches a picture, w the tower's width, A heads, d head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.engines.experts import Discard
from internvla_a1_ros.engines.kernels import Linear, turn
from internvla_a1_ros.model.model import latent_patches
from internvla_a1_ros.model.sizes import Pair


@dataclass(frozen=True, slots=True)
class Block:
    """A pre-norm block of either tower. `gelu`: its approximation."""

    norm1: nn.Module
    qkv: Linear
    proj: Linear
    norm2: nn.Module
    fc1: Linear
    fc2: Linear
    heads: int
    gelu: str

    def __call__(self, x: Tensor, pictures: int, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """[N*P, w] with tables [P, 1, 1, d] and [P, 1, 1, d/2] where the tower turns queries and keys."""
        parts = self.qkv(self.norm1(x)).view(pictures, -1, 3, self.heads, x.shape[-1] // self.heads)
        qk = parts[:, :, :2] if rotary is None else turn(parts[:, :, :2].float(), *rotary).to(x.dtype)
        q, k = qk.permute(2, 0, 3, 1, 4)  # [N, A, P, d]
        mixed = F.scaled_dot_product_attention(q, k, parts[:, :, 2].transpose(1, 2))
        x = self.proj.plus(mixed.transpose(1, 2).reshape(x.shape), x)
        return self.fc2.plus(self.fc1.gelu(self.norm2(x), self.gelu), x)


class QwenTower(nn.Module):
    """Stands in for the model's Qwen3-VL tower: the same call, the same answer."""

    def __init__(self, tower: Any, discard: Discard) -> None:
        super().__init__()
        self._patches = taken(tower.patch_embed.proj, discard)
        self._blocks = [
            Block(
                block.norm1,
                taken(block.attn.qkv, discard),
                taken(block.attn.proj, discard),
                block.norm2,
                taken(block.mlp.linear_fc1, discard),
                taken(block.mlp.linear_fc2, discard),
                block.attn.heads,
                "tanh",
            )
            for block in tower.blocks
        ]
        self._norm, self._wide = tower.merger.norm, tower.merger.wide
        self._fc1, self._fc2 = (taken(part, discard) for part in (tower.merger.linear_fc1, tower.merger.linear_fc2))
        self._tables = cache(lambda grid: self._of(tower, grid))

    @staticmethod
    def _of(tower: Any, grid: Pair) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Learned positions [P, w] and rotary tables of a grid."""
        cos, sin = tower.rotary(grid)
        half = sin.shape[-1] // 2
        return tower.positions(grid), (cos[:, None, None].contiguous(), sin[:, None, None, :half].contiguous())

    def forward(self, patches: Tensor, grid: Pair) -> Tensor:
        """[N, P, patch width] in merge order, `grid` = (R, C) with R*C = P -> [N, P/m/m, text width]."""
        positions, rotary = self._tables(grid)
        x = (self._patches(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]) + positions.to(patches.dtype)).flatten(0, 1)
        for block in self._blocks:
            x = block(x, len(patches), rotary)
        tokens = self._fc2(self._fc1.gelu(self._norm(x).view(-1, self._wide), "none"))
        return tokens.unflatten(0, (len(patches), -1))


class InternVLTower(nn.Module):
    """Stands in for the model's InternVL tower; the scales of its blocks' halves go into their last products."""

    def __init__(self, tower: Any, discard: Discard) -> None:
        super().__init__()
        self._embeddings, self._shuffle, projector = tower.embeddings, tower.shuffle, tower.projector
        self._blocks = [
            Block(
                layer.layernorm_before,
                joined((layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj), discard),
                taken(layer.attention.projection_layer, discard, layer.lambda_1),
                layer.layernorm_after,
                taken(layer.mlp.fc1, discard),
                taken(layer.mlp.fc2, discard, layer.lambda_2),
                layer.attention.heads,
                "none",
            )
            for layer in tower.encoder.layer
        ]
        self._norm = projector.layer_norm
        self._linear_1, self._linear_2 = (taken(part, discard) for part in (projector.linear_1, projector.linear_2))

    def forward(self, patches: Tensor, grid: Pair) -> Tensor:
        """[N, P, patch width] row by row, `grid` = (R, C) with R*C = P -> [N, P/m/m, text width]."""
        embedded = self._embeddings(patches, grid)
        x = embedded.flatten(0, 1)
        for block in self._blocks:
            x = block(x, len(patches), None)
        normed = self._norm(self._shuffle(x.view_as(embedded)[:, 1:], grid))
        tokens = self._linear_2(self._linear_1.gelu(normed.flatten(0, 1), "none"))
        return tokens.unflatten(0, normed.shape[:2])


def fused_tower(tower: nn.Module, kind: str, discard: Discard) -> nn.Module:
    """The stand-in for the tower of a layout (`Layout.tower`)."""
    return {"qwen3_vl": QwenTower, "internvl": InternVLTower}[kind](tower, discard)


def taken(part: Any, discard: Discard, scale: Tensor | None = None) -> Linear:
    """Lay out a linear layer, or a convolution of a patch with itself, times `scale` per output, and let go of it."""
    weight, bias = part.weight.flatten(1), part.bias
    if scale is not None:
        weight, bias = (weight.float() * scale.float()[:, None]).to(weight.dtype), bias.float() * scale.float()
    linear = Linear(weight, bias)
    discard(part)
    return linear


def joined(parts: Sequence[Any], discard: Discard) -> Linear:
    """Lay out linear layers that read the same input as one."""
    linear = Linear(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))
    for part in parts:
        discard(part)
    return linear


class PixelAttention(nn.Module):
    """Stands in for the Cosmos middle's attention: the same answer without writing the scores out."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.proj_out = part.norm, part.q, part.k, part.v, part.proj_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))  # [N, pixels, c]
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        out: Tensor = x + self.proj_out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))
        return out


class LatentPatches:
    """From latents to generation tokens, with the map made once."""

    def __init__(self, inner: Any, outer: Any, discard: Discard) -> None:
        """`inner` [h, z, 1, 1], then `outer` [h, h, stride, stride]."""
        self.stride = outer.stride[0]
        weight, bias = latent_patches(inner, outer)
        self.product = Linear(weight.to(outer.weight.dtype), bias)
        discard(outer)

    def __call__(self, latents: Tensor) -> Tensor:
        """[V, F, z, lh, lw] -> [G, h] in the order view, time, row, column."""
        blocks = latents.unflatten(-1, (-1, self.stride)).unflatten(-3, (-1, self.stride))  # [V, F, z, r, i, c, j]
        return self.product(blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(0, 3))


def prepare_cosmos(cosmos: nn.Module) -> None:
    """Put the faster attention into the autoencoder's middle and lay its convolutions out for this machine."""
    for half in cosmos.children():
        half.mid.attn_1 = PixelAttention(half.mid.attn_1)  # type: ignore[union-attr,assignment]
    channels_last(cosmos)


def channels_last(module: nn.Module) -> None:
    """Lay the convolutions out for pictures whose channels lie together: what CPUs and tensor cores read fastest."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.to(memory_format=torch.channels_last)
