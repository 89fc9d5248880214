"""What the optimised engine is made of: products with weights laid out once, and the few operations between them.

T tokens of one observation, A heads, K key/value heads, d head_dim, S tokens attended to. No batch: an engine sees one
observation at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

_DNN = torch.ops.mkldnn
# oneDNN's own operations, which torch's compiler uses too: the weight is laid out once for this CPU, and what follows a
# product (activation, sum, product) happens while its result is still in the cache.
PACKS = torch.backends.mkldnn.is_available() and all(hasattr(_DNN, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))


class Linear:
    """x [T, in] -> [T, out], with a weight [out, in] that is laid out for this machine and an optional bias."""

    __slots__ = ("_bias", "_packed", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None, rows: int = 64) -> None:
        """`rows`: about how many tokens come at once. `weight` is copied where it is packed, kept where not."""
        self._packed = packs(weight)
        weight = weight.detach().contiguous()
        self._weight = _DNN._reorder_linear_weight(weight, rows) if self._packed else weight
        self._bias = None if bias is None else bias.detach().to(weight.dtype).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            return _DNN._linear_pointwise.default(x, self._weight, self._bias, "none", [], "")
        return F.linear(x, self._weight, self._bias)

    def swish(self, x: Tensor) -> Tensor:
        """silu(W x + b)."""
        if self._packed:
            return _DNN._linear_pointwise.default(x, self._weight, self._bias, "swish", [], "")
        return F.silu(F.linear(x, self._weight, self._bias))

    def gelu(self, x: Tensor, approximate: str) -> Tensor:
        """gelu(W x + b), `approximate` "tanh" or "none"."""
        if self._packed:
            return _DNN._linear_pointwise.default(x, self._weight, self._bias, "gelu", [], approximate)
        return F.gelu(F.linear(x, self._weight, self._bias), approximate=approximate)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """W x + b + other."""
        if self._packed:
            return _DNN._linear_pointwise.binary(x, other, self._weight, self._bias, "add")
        return F.linear(x, self._weight, self._bias).add_(other)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(W x + b) * other."""
        if self._packed:
            return _DNN._linear_pointwise.binary(x, other, self._weight, self._bias, "mul")
        return F.linear(x, self._weight, self._bias).mul_(other)


def packs(weight: Tensor) -> bool:
    return PACKS and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and _packable(weight.dtype)


@cache
def _packable(dtype: torch.dtype) -> bool:
    """Whether this CPU has the instructions: it is tried once. One without those for bfloat16 refuses to lay such weights out."""
    try:
        _DNN._reorder_linear_weight(torch.zeros(16, 16, dtype=dtype), 16)
    except RuntimeError:
        return False
    return True


def scaled(parts: Sequence[Tensor], columns: Tensor) -> Tensor:
    """The weights [out, in] one below the other, their columns times `columns` [in], computed in float32.

    Where products are packed, which copies, the answer is written over at the next call: fresh memory for every layer of a
    large model would take longer than its arithmetic.
    """
    rows, dtype = sum(len(part) for part in parts), parts[0].dtype
    if not packs(parts[0]) or dtype != torch.float32:
        return (torch.cat([part.float() for part in parts]) * columns).to(dtype)
    if _SCRATCH.numel() < rows * len(columns):
        _SCRATCH.resize_(rows * len(columns))
    joined = _SCRATCH[: rows * len(columns)].view(rows, -1)
    for part, place in zip(parts, joined.split([len(part) for part in parts]), strict=True):
        torch.mul(part, columns, out=place)
    return joined


_SCRATCH = torch.empty(0)


def unit_norm(x: Tensor, floor: Tensor) -> Tensor:
    """RMS norm over the last axis without its weight and without the factor sqrt(width), which go into what follows.

    x / sqrt(|x|^2 + floor^2) with `floor` = sqrt(width * eps) (see `norm_floor`): three kernels instead of five, and one
    pass less over `x`. Computed in float32.
    """
    wide = x.float()
    return torch.div(wide, torch.hypot(torch.linalg.vector_norm(wide, dim=-1, keepdim=True), floor)).to(x.dtype)


def norm_floor(width: int, eps: float, device: torch.device) -> Tensor:
    return torch.tensor(math.sqrt(width * eps), device=device)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: pairs (j, j + d/2) of `x` [..., d] by `cos` [..., d] and `sin` [..., d/2] (the rest broadcasts)."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin, value=-1)
    out[..., half:].addcmul_(x[..., :half], sin)
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q [T, A, d], scaled already, over k and v [S, K, d] -> [T, A*d]; `mask` [S] is added to the scores.

    The heads that share a key head are stacked as rows, so that keys and values are read once and never repeated.
    """
    tokens, heads, width = q.shape
    shared = k.shape[1]
    rows = q.view(tokens, shared, heads // shared, width).permute(1, 2, 0, 3).reshape(shared, -1, width)
    k, v = k.transpose(0, 1), v.transpose(0, 1)
    if q.device.type == "cpu" and mask is None:  # a few hundred rows and columns: two products beat the flash kernel
        mixed = torch.bmm(torch.bmm(rows, k.transpose(1, 2)).softmax(-1), v)
    else:
        mixed = F.scaled_dot_product_attention(rows[None], k[None], v[None], None if mask is None else mask[None], scale=1.0)
    return mixed.view(shared, heads // shared, tokens, width).permute(2, 0, 1, 3).reshape(tokens, heads * width)
