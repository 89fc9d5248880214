"""The Cosmos CI8x8 autoencoder: pictures [N, 3, h, w] in [-1, 1] <-> continuous latents [N, z, h/8, w/8]. No sampling.

Layer names follow NVIDIA's files, so that their weights load as they are. Sides must be multiples of the compression: the
reflect pad of the original's Haar steps then has no effect and is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.model.norms import GroupNorm
from internvla_a1_ros.model.sizes import CosmosSizes

EPS = 1e-6


def haar(x: Tensor) -> Tensor:
    """One Haar step [N, c, h, w] -> [N, 4c, h/2, w/2], channels LL, LH (low across the width, high down the height), HL, HH.

    The filters' 1/sqrt2 twice is 1/2, and each step is halved again: 1/4.
    """
    top_left, top_right = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    bottom_left, bottom_right = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    low_top, high_top = top_left + top_right, top_left - top_right
    low_bottom, high_bottom = bottom_left + bottom_right, bottom_left - bottom_right
    return torch.cat((low_top + low_bottom, low_top - low_bottom, high_top + high_bottom, high_top - high_bottom), 1) / 4


def inverse_haar(x: Tensor) -> Tensor:
    """The exact inverse of `haar`: [N, 4c, h, w] -> [N, c, 2h, 2w]."""
    ll, lh, hl, hh = x.chunk(4, 1)
    low_top, low_bottom, high_top, high_bottom = ll + lh, ll - lh, hl + hh, hl - hh
    top = torch.stack((low_top + high_top, low_top - high_top), -1).flatten(-2)
    bottom = torch.stack((low_bottom + high_bottom, low_bottom - high_bottom), -1).flatten(-2)
    return torch.stack((top, bottom), -2).flatten(-3, -2)


def norm(channels: int, groups: int) -> GroupNorm:
    return GroupNorm(groups, channels, eps=EPS)


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = norm(before, groups)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = norm(after, groups)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.nin_shortcut(x) + y
        return out


class PixelAttention(nn.Module):
    """Single-head attention over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).flatten(2) for part in (self.q, self.k, self.v))  # [N, c, pixels]
        weights = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(-1)
        mixed = (v @ weights.transpose(1, 2)).view_as(x)
        out: Tensor = x + self.proj_out(mixed)
        return out


class Halve(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y


class Double(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.repeat_interleave(2, -2).repeat_interleave(2, -1))
        return y


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, groups)
        self.attn_1 = PixelAttention(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return y


class DownLevel(nn.Module):
    def __init__(self, before: int, after: int, blocks: int, halve: bool, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*(ResidualBlock(before if i == 0 else after, after, groups) for i in range(blocks)))
        self.downsample = Halve(after) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.downsample(self.block(x))
        return y


class UpLevel(nn.Module):
    def __init__(self, before: int, after: int, blocks: int, double: bool, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*(ResidualBlock(before if i == 0 else after, after, groups) for i in range(blocks)))
        self.upsample = Double(after) if double else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.upsample(self.block(x))
        return y


class CosmosEncoder(nn.Module):
    def __init__(self, sizes: CosmosSizes) -> None:
        super().__init__()
        levels = sizes.level_channels
        self.haar_steps = sizes.haar_steps
        self.conv_in = nn.Conv2d(3 * sizes.patch**2, sizes.stem, 3, padding=1)
        before = (sizes.stem, *levels[:-1])
        self.down = nn.ModuleList(
            DownLevel(before[i], levels[i], sizes.encoder_blocks, i < sizes.halvings, sizes.groups) for i in range(len(levels))
        )
        self.mid = Middle(levels[-1], sizes.groups)
        self.norm_out = norm(levels[-1], sizes.groups)
        self.conv_out = nn.Conv2d(levels[-1], sizes.bottleneck, 3, padding=1)
        self.quant_conv = nn.Conv2d(sizes.bottleneck, sizes.latent_channels, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, 3, h, w] in [-1, 1] -> [N, z, h/8, w/8]."""
        x = pictures
        for _ in range(self.haar_steps):
            x = haar(x)
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        latents: Tensor = self.quant_conv(x)
        return latents


class CosmosDecoder(nn.Module):
    def __init__(self, sizes: CosmosSizes) -> None:
        super().__init__()
        levels = sizes.level_channels
        self.haar_steps = sizes.haar_steps
        self.post_quant_conv = nn.Conv2d(sizes.latent_channels, sizes.bottleneck, 1)
        self.conv_in = nn.Conv2d(sizes.bottleneck, levels[-1], 3, padding=1)
        self.mid = Middle(levels[-1], sizes.groups)
        before = (*levels[1:], levels[-1])  # a level is entered from the deeper one
        doubled_from = len(levels) - sizes.halvings
        self.up = nn.ModuleList(
            UpLevel(before[i], levels[i], sizes.decoder_blocks, i >= doubled_from, sizes.groups) for i in range(len(levels))
        )
        self.norm_out = norm(levels[0], sizes.groups)
        self.conv_out = nn.Conv2d(levels[0], 3 * sizes.patch**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, z, h/8, w/8] -> raw pictures [N, 3, h, w], neither clamped nor rescaled."""
        x = self.mid(self.conv_in(self.post_quant_conv(latents)))
        for level in reversed(self.up):
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        for _ in range(self.haar_steps):
            x = inverse_haar(x)
        return x


class Cosmos(nn.Module):
    def __init__(self, sizes: CosmosSizes) -> None:
        super().__init__()
        self.encoder = CosmosEncoder(sizes)
        self.decoder = CosmosDecoder(sizes)
