"""Cosmos CI8x8 stated a second time, plainly, in float64; and the weights, which are drawn where they are not given."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from plain_spec import Spec
from torch import Tensor
from torch.nn import functional as F


@dataclass
class PlainCosmos:
    """`weights`: by released names, without "model."; what is missing is drawn, representable in bfloat16."""

    spec: Spec
    weights: dict[str, Tensor] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.draw = torch.Generator().manual_seed(self.seed)

    def w(self, name: str, *shape: int) -> Tensor:
        if name not in self.weights:
            kind, normal = name.rsplit(".", 2)[-2:], torch.randn(shape, generator=self.draw)
            if kind[-1] == "bias":
                normal = 0.1 * normal
            elif len(shape) == 1:  # weights of norms and scales of layers
                normal = 1 + 0.2 * normal
            elif len(shape) > 1 and kind[-1] == "weight" and "embed_tokens" not in name:
                normal = normal / math.sqrt(math.prod(shape[1:]) if "upsample" not in name else shape[0])
            else:
                normal = 0.3 * normal
            self.weights[name] = normal.bfloat16().float()
        assert tuple(self.weights[name].shape) == shape, name
        return self.weights[name].double()

    def linear(self, name: str, x: Tensor, width: int, bias: bool = True) -> Tensor:
        y = x @ self.w(f"{name}.weight", width, x.shape[-1]).T
        return y + self.w(f"{name}.bias", width) if bias else y

    def conv(self, name: str, x: Tensor, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = self.w(f"{name}.weight", channels, x.shape[1], kernel, kernel), self.w(f"{name}.bias", channels)
        return F.conv2d(x, weight, bias, stride, padding)

    def block(self, name: str, x: Tensor, channels: int) -> Tensor:
        y = self.conv(f"{name}.conv1", self.group(f"{name}.norm1", x), channels, 3, padding=1)
        y = self.conv(f"{name}.conv2", self.group(f"{name}.norm2", y), channels, 3, padding=1)
        return y + (x if x.shape[1] == channels else self.conv(f"{name}.nin_shortcut", x, channels, 1))

    def group(self, name: str, x: Tensor, activate: bool = True) -> Tensor:
        y = F.group_norm(x, 32, self.w(f"{name}.weight", x.shape[1]), self.w(f"{name}.bias", x.shape[1]), 1e-6)
        return y * y.sigmoid() if activate else y

    def middle(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = self.block(f"{name}.block_1", x, channels)
        y = self.group(f"{name}.attn_1.norm", x, activate=False)
        q, k, v = (self.conv(f"{name}.attn_1.{part}", y, channels, 1).flatten(2) for part in "qkv")
        weights = torch.einsum("ncq,nck->nqk", q, k).div(math.sqrt(channels)).softmax(-1)
        y = torch.einsum("nqk,nck->ncq", weights, v).view_as(x)
        return self.block(f"{name}.block_2", x + self.conv(f"{name}.attn_1.proj_out", y, channels, 1), channels)

    def encode(self, pictures: Tensor) -> Tensor:
        """[N, 3, h, w] in [0, 1] -> latents [N, z, lh, lw]."""
        x = F.interpolate(pictures, size=self.spec.cosmos_picture, mode="bilinear", align_corners=False) * 2 - 1
        for _ in range(self.spec.cosmos_patch.bit_length() - 1):
            x = haar(x)
        channels, multipliers, blocks, latent = self.spec.cosmos
        name = "cosmos_tokenizer._enc_model.encoder"
        x = self.conv(f"{name}.conv_in", x, channels, 3, padding=1)
        for i, multiplier in enumerate(multipliers):
            for j in range(blocks):
                x = self.block(f"{name}.down.{i}.block.{j}", x, channels * multiplier)
            if i < self.spec.halvings:
                x = self.conv(f"{name}.down.{i}.downsample.conv", F.pad(x, (0, 1, 0, 1)), channels * multiplier, 3, 2)
        x = self.group(f"{name}.norm_out", self.middle(f"{name}.mid", x))
        return self.conv("cosmos_tokenizer._enc_model.quant_conv", self.conv(f"{name}.conv_out", x, latent, 3, padding=1), latent, 1)

    def decode(self, latents: Tensor) -> Tensor:
        channels, multipliers, blocks, latent = self.spec.cosmos
        name, levels = "cosmos_tokenizer._dec_model.decoder", len(multipliers)
        x = self.conv("cosmos_tokenizer._dec_model.post_quant_conv", latents, latent, 1)
        x = self.middle(f"{name}.mid", self.conv(f"{name}.conv_in", x, channels * multipliers[-1], 3, padding=1))
        for i in reversed(range(levels)):
            for j in range(blocks + 1):
                x = self.block(f"{name}.up.{i}.block.{j}", x, channels * multipliers[i])
            if i >= levels - self.spec.halvings:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = self.conv(f"{name}.up.{i}.upsample.conv", x, channels * multipliers[i], 3, padding=1)
        x = self.conv(f"{name}.conv_out", self.group(f"{name}.norm_out", x), 3 * self.spec.cosmos_patch**2, 3, padding=1)
        for _ in range(self.spec.cosmos_patch.bit_length() - 1):
            x = unhaar(x)
        return x


def haar(x: Tensor) -> Tensor:
    """Low and high across the width, then each low and high down the height; halved."""

    def low(y: Tensor, axis: int) -> Tensor:
        return sum(half(y, axis)) / math.sqrt(2)

    def high(y: Tensor, axis: int) -> Tensor:
        first, second = half(y, axis)
        return (first - second) / math.sqrt(2)

    across = low(x, -1), high(x, -1)
    return torch.cat([part(y, -2) for y in across for part in (low, high)], 1) / 2


def half(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    even = torch.arange(0, x.shape[axis], 2)
    return x.index_select(axis, even), x.index_select(axis, even + 1)


def unhaar(x: Tensor) -> Tensor:
    """Solved from `haar`: a pair (low, high) of neighbours came from (low + high, low - high) / sqrt(2)."""
    ll, lh, hl, hh = (2 * part for part in x.chunk(4, 1))
    low, high = unhalf(ll, lh).transpose(-1, -2), unhalf(hl, hh).transpose(-1, -2)
    return unhalf(low, high).transpose(-1, -2)


def unhalf(low: Tensor, high: Tensor) -> Tensor:
    """Neighbours down the height from their low and high."""
    return torch.stack(((low + high) / math.sqrt(2), (low - high) / math.sqrt(2)), -2).flatten(-3, -2)
