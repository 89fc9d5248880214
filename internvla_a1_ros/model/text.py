"""Qwen3 (or Qwen2) layers whose attention the three experts share: each reads the keys and values of those before it, then its own.

Shapes: B batch, T tokens of this expert, P tokens cached before it, h its width, A heads, K key/value heads, d head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.model.norms import RMSNorm
from internvla_a1_ros.model.sizes import RopeSizes, StackSizes

MASKED_SCORE = -2.3819763e38  # of the released code


@dataclass(frozen=True, slots=True)
class KeysValues:
    """Per layer keys (after rotary) and values, each [B, K, P, d], and which tokens may be attended to: `mask` [B, P] bool."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor


def rotary_tables(positions: Tensor, rope: RopeSizes, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [B, 1, T, d] float32 of interleaved M-RoPE for `positions` [3, B, T] (time, row, column).

    With no frequencies for rows and columns it is the usual rotary embedding of the first axis.
    """
    half = head_dim // 2
    j = torch.arange(half, device=positions.device)
    frequencies = 1.0 / rope.theta ** (2 * j.float() / head_dim)
    angles = positions.float()[..., None] * frequencies  # [3, B, T, half]
    row = (j % 3 == 1) & (j < 3 * rope.sections[1])
    column = (j % 3 == 2) & (j < 3 * rope.sections[2])
    mixed = torch.where(row, angles[1], torch.where(column, angles[2], angles[0]))
    mixed = torch.cat((mixed, mixed), -1)[:, None]
    return mixed.cos(), mixed.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (j, j + d/2) of `x` [..., T, d] by their angles."""
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn `mask` [B, T or 1, S] bool (True: may look) into what is added to the scores [B, 1, T or 1, S].

    Finite in every precision: the released value is minus infinity in float16, and a row all masked would be NaN.
    """
    masked = max(MASKED_SCORE, torch.finfo(dtype).min)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, masked)[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    """Grouped-query attention: q [B, A, T, d], k and v [B, K, S, d], `scores` added [B, 1, T or 1, S] -> [B, T, A*d]."""
    mixed = F.scaled_dot_product_attention(q, k, v, scores, enable_gqa=True)  # accumulates in float32
    return mixed.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, sizes: StackSizes, eps: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.q_proj = nn.Linear(sizes.hidden, sizes.heads * sizes.head_dim, bias=sizes.qkv_bias)
        self.k_proj = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=sizes.qkv_bias)
        self.v_proj = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=sizes.qkv_bias)
        self.o_proj = nn.Linear(sizes.heads * sizes.head_dim, sizes.hidden, bias=False)
        self.q_norm = RMSNorm(sizes.head_dim, eps) if sizes.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(sizes.head_dim, eps) if sizes.qk_norm else nn.Identity()

    def heads(self, flat: Tensor) -> Tensor:
        """[B, T, n*d] -> [B, T, n, d]."""
        return flat.unflatten(-1, (-1, self.sizes.head_dim))

    def queries(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(self.q_norm(self.heads(self.q_proj(x))).transpose(1, 2), cos, sin)

    def keys(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(self.k_norm(self.heads(self.k_proj(x))).transpose(1, 2), cos, sin)

    def values(self, x: Tensor) -> Tensor:
        return self.heads(self.v_proj(x)).transpose(1, 2)


class SwiGLU(nn.Module):
    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.mlp, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.mlp, bias=False)
        self.down_proj = nn.Linear(sizes.mlp, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, sizes: StackSizes, eps: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(sizes.hidden, eps)
        self.self_attn = Attention(sizes, eps)
        self.post_attention_layernorm = RMSNorm(sizes.hidden, eps)
        self.mlp = SwiGLU(sizes)

    def keys_values(self, normed: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, T, d] of `input_layernorm`'s output [B, T, h]."""
        return self.self_attn.keys(normed, cos, sin), self.self_attn.values(normed)

    def forward(self, x: Tensor, normed: Tensor, cos: Tensor, sin: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
        """Attend from `x` [B, T, h] (and what the first norm made of it) to all `k`, `v` [B, K, P+T, d], then the MLP."""
        x = x + self.self_attn.o_proj(attend(self.self_attn.queries(normed, cos, sin), k, v, scores))
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Stack(nn.Module):
    """The layers of one expert. Nothing but keys and values leaves the last layer, unless `finish` is asked for more."""

    def __init__(self, sizes: StackSizes, eps: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes, eps) for _ in range(sizes.layers))
        self.norm = RMSNorm(sizes.hidden, eps)

    def run(
        self, x: Tensor, cos: Tensor, sin: Tensor, valid: Tensor, scores: Tensor, before: KeysValues | None
    ) -> tuple[KeysValues, Tensor]:
        """Pass `x` [B, T, h] through all layers, the last only as far as its keys and values.

        `valid` [B, T]: tokens that may be looked at later. `scores` [B, 1, T or 1, P+T]: who may look at what now (`additive`).
        Returns the keys and values of all P+T tokens and what entered the last layer [B, T, h].
        """
        keys, values = [], []
        for i, layer in enumerate(cast("Sequence[Layer]", self.layers)):
            normed = layer.input_layernorm(x)
            k, v = layer.keys_values(normed, cos, sin)
            if before is not None:
                k, v = torch.cat((before.keys[i], k), 2), torch.cat((before.values[i], v), 2)
            keys.append(k)
            values.append(v)
            if i + 1 < len(self.layers):
                x = layer(x, normed, cos, sin, k, v, scores)
        everything = valid if before is None else torch.cat((before.mask, valid), 1)
        return KeysValues(tuple(keys), tuple(values), everything), x

    def finish(self, x: Tensor, cos: Tensor, sin: Tensor, tokens: KeysValues, scores: Tensor) -> Tensor:
        """Complete the last layer for `x`, which entered it, over all `tokens`, and apply the final norm -> [B, T, h]."""
        last = cast("Sequence[Layer]", self.layers)[-1]
        hidden: Tensor = self.norm(last(x, last.input_layernorm(x), cos, sin, tokens.keys[-1], tokens.values[-1], scores))
        return hidden


class TextStack(Stack):
    """The understanding expert's layers, with its token table, whose rows are multiplied by `scale` where it is not 1."""

    def __init__(self, sizes: StackSizes, eps: float, vocabulary: int, scale: float = 1.0) -> None:
        super().__init__(sizes, eps)
        self.embed_tokens = nn.Embedding(vocabulary, sizes.hidden)
        self.scale = scale

    def words(self, input_ids: Tensor) -> Tensor:
        """Token ids [B, L] -> embeddings [B, L, h]."""
        embeddings: Tensor = self.embed_tokens(input_ids)
        return embeddings if self.scale == 1.0 else embeddings * self.scale
