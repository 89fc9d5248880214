"""One expert of the mixture, fused: its layers read and write keys and values in buffers that all three experts share.

T tokens of this expert, S tokens in the buffers, h width, A heads, K key/value heads, d head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from internvla_a1_ros.engines.kernels import Linear, attend, norm_floor, scaled, turn, unit_norm

Discard = Callable[[nn.Module], None]


@dataclass(frozen=True, slots=True)
class Rotary:
    """Tables of T tokens: `cos` [T, 1, d], `sin` [T, 1, d/2]."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor) -> Rotary:
        """From the model's tables [1, 1, T, d]."""
        return cls(cos[0, 0, :, None].contiguous(), sin[0, 0, :, None, : sin.shape[-1] // 2].contiguous())

    def __getitem__(self, tokens: slice) -> Rotary:
        return Rotary(self.cos[tokens], self.sin[tokens])


@dataclass(frozen=True, slots=True)
class Tokens:
    """Keys (after rotary) and values of every layer, [layers, S, K, d], written in place."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, layers: int, length: int, heads: int, width: int, like: Tensor) -> Tokens:
        return cls(*(torch.zeros(layers, length, heads, width, dtype=like.dtype, device=like.device) for _ in range(2)))


class Layer:
    """A layer of the model, its norms' weights folded into the products after them."""

    def __init__(self, layer: Any, last: bool, discard: Discard) -> None:
        """`layer` is the model's; what is copied from it is handed to `discard`. Only the `last` can `store`."""
        attention, mlp = layer.self_attn, layer.mlp
        sizes = attention.sizes
        self.heads, self.shared, self.width = sizes.heads, sizes.kv_heads, sizes.head_dim
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        cut, queries = self.heads * self.width, 1 / math.sqrt(self.width)  # scores are scaled through the queries
        qkv = scaled([part.weight for part in parts], folded(layer.input_layernorm.weight))
        bias = None if attention.q_proj.bias is None else torch.cat([part.bias.float() for part in parts])
        self.head_weight: Tensor | None = None
        if sizes.qk_norm:
            q, k = (norm.weight.float() * math.sqrt(self.width) for norm in (attention.q_norm, attention.k_norm))
            self.head_weight = torch.cat((q.expand(self.heads, -1) * queries, k.expand(self.shared, -1)))
            self.head_floor = norm_floor(self.width, attention.q_norm.eps, q.device)
        else:
            qkv[:cut] *= queries
            if bias is not None:
                bias[:cut] *= queries
        self.qkv = Linear(qkv, bias)
        self.kv = Linear(qkv[cut:], None if bias is None else bias[cut:]) if last else None
        for part in parts:
            discard(part)
        self.o = Linear(attention.o_proj.weight)
        discard(attention.o_proj)
        after = folded(layer.post_attention_layernorm.weight)
        self.gate = Linear(scaled([mlp.gate_proj.weight], after))
        discard(mlp.gate_proj)
        self.up = Linear(scaled([mlp.up_proj.weight], after))
        discard(mlp.up_proj)
        self.down = Linear(mlp.down_proj.weight)
        discard(mlp.down_proj)

    def store(self, normed: Tensor, rotary: Rotary, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [T, K, d] of `normed` [T, h], and nothing else: all that the last layer is needed for."""
        assert self.kv is not None
        k, v = self.kv(normed).view(len(normed), 2, self.shared, self.width).unbind(1)
        keys.copy_(turn(self._head_norm(k, slice(self.heads, None)), rotary.cos, rotary.sin))
        values.copy_(v)

    def project(self, normed: Tensor, rotary: Rotary, keys: Tensor, values: Tensor) -> Tensor:
        """Write keys and values and return the queries [T, A, d], scaled."""
        qkv = self.qkv(normed).view(len(normed), -1, self.width)
        turned = turn(self._head_norm(qkv[:, : -self.shared], slice(None)), rotary.cos, rotary.sin)
        keys.copy_(turned[:, self.heads :])
        values.copy_(qkv[:, -self.shared :])
        return turned[:, : self.heads].to(normed.dtype)

    def _head_norm(self, x: Tensor, heads: slice) -> Tensor:
        return x if self.head_weight is None else (unit_norm(x.float(), self.head_floor) * self.head_weight[heads]).to(x.dtype)


class Expert:
    """The layers of one expert over shared `Tokens`."""

    def __init__(self, stack: Any, eps: float, discard: Discard) -> None:
        """`stack` is the model's `Stack`."""
        self.layers = []
        for layer in stack.layers:
            self.layers.append(Layer(layer, layer is stack.layers[-1], discard))
        width = stack.norm.weight.shape[0]
        self.floor = norm_floor(width, eps, stack.norm.weight.device)
        self.final = folded(stack.norm.weight)

    def remember(self, x: Tensor, rotary: Rotary, tokens: Tokens, at: int, mask: Tensor | None = None) -> Tensor:
        """Pass `x` [T, h] through all layers, writing tokens at..at+T, the last only as far as its keys and values.

        Every token looks at all before it and at its own company, in both directions; `mask` [at + T] is added to the
        scores. Returns what entered the last layer [T, h].
        """
        end = at + len(x)
        for i, layer in enumerate(self.layers[:-1]):
            x = self._layer(layer, x, rotary, tokens.keys[i], tokens.values[i], at, end, mask)
        self.layers[-1].store(unit_norm(x, self.floor), rotary, tokens.keys[-1, at:end], tokens.values[-1, at:end])
        return x

    def run(self, x: Tensor, rotary: Rotary, tokens: Tokens, at: int, mask: Tensor | None = None) -> Tensor:
        """As `remember`, but the last layer too: returns [T, h] after the final norm without its weight (`final`)."""
        end = at + len(x)
        for i, layer in enumerate(self.layers):
            x = self._layer(layer, x, rotary, tokens.keys[i], tokens.values[i], at, end, mask)
        return unit_norm(x, self.floor)

    def finish(self, entering: Tensor, rotary: Rotary, tokens: Tokens, at: int, mask: Tensor | None = None) -> Tensor:
        """The last layer for what entered it (`remember`'s answer) -> [T, h] after the final norm, weighted."""
        end = at + len(entering)
        x = self._layer(self.layers[-1], entering, rotary, tokens.keys[-1], tokens.values[-1], at, end, mask)
        return (unit_norm(x, self.floor) * self.final).to(x.dtype)

    def _layer(
        self, layer: Layer, x: Tensor, rotary: Rotary, keys: Tensor, values: Tensor, at: int, end: int, mask: Tensor | None
    ) -> Tensor:
        q = layer.project(unit_norm(x, self.floor), rotary, keys[at:end], values[at:end])
        x = layer.o.plus(attend(q, keys[:end], values[:end], mask), x)
        normed = unit_norm(x, self.floor)
        return layer.down.plus(layer.up.times(normed, layer.gate.swish(normed)), x)


def folded(weight: Tensor) -> Tensor:
    """A norm's weight [h] in float32 with the factor that `unit_norm` leaves out."""
    return weight.float() * math.sqrt(weight.shape[0])
