"""The Qwen3-VL vision tower: patches of one picture in, tokens of the understanding expert out.

Shapes: N pictures, P patches a picture in merge order, w the tower's width, R x C the grid of patches, m the merge.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.model.norms import LayerNorm
from internvla_a1_ros.model.sizes import Pair, VisionSizes
from internvla_a1_ros.model.text import rotate


def merge_order(per_patch: Tensor, merge: int) -> Tensor:
    """Reorder [R, C, ...] into [R*C, ...] so that the merge x merge patches of a token follow each other."""
    rows, columns = per_patch.shape[:2]
    blocks = per_patch.unflatten(0, (rows // merge, merge)).unflatten(2, (columns // merge, merge))
    return blocks.transpose(1, 2).flatten(0, 3)


class PatchEmbedding(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        kernel = (sizes.temporal_patch, sizes.patch, sizes.patch)
        self.proj = nn.Conv3d(sizes.channels, sizes.hidden, kernel, stride=kernel)

    def forward(self, patches: Tensor) -> Tensor:
        """[N, P, channel*time*row*column] -> [N, P, w]: the convolution of a patch with itself is one product."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class VisionAttention(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.qkv = nn.Linear(sizes.hidden, 3 * sizes.hidden)
        self.proj = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [N, heads, P, d]
        # Query, key and angles in float32, as released.
        q, k = (rotate(part.float(), cos, sin).to(part.dtype) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class VisionMLP(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(sizes.hidden, sizes.mlp)
        self.linear_fc2 = nn.Linear(sizes.mlp, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_fc2(F.gelu(self.linear_fc1(x), approximate="tanh"))
        return out


class VisionBlock(nn.Module):
    def __init__(self, sizes: VisionSizes, eps: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(sizes.hidden, eps=eps)
        self.attn = VisionAttention(sizes)
        self.norm2 = LayerNorm(sizes.hidden, eps=eps)
        self.mlp = VisionMLP(sizes)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        x = x + self.mlp(self.norm2(x))
        return x


class Merger(nn.Module):
    """Joins merge x merge patches into one token of the text's width."""

    def __init__(self, sizes: VisionSizes, text_hidden: int, eps: float) -> None:
        super().__init__()
        self.wide = sizes.hidden * sizes.merge**2
        self.norm = LayerNorm(sizes.hidden, eps=eps)
        self.linear_fc1 = nn.Linear(self.wide, self.wide)
        self.linear_fc2 = nn.Linear(self.wide, text_hidden)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).reshape(x.shape[0], -1, self.wide)
        out: Tensor = self.linear_fc2(F.gelu(self.linear_fc1(tokens)))
        return out


class VisionTower(nn.Module):
    def __init__(self, sizes: VisionSizes, text_hidden: int, eps: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = PatchEmbedding(sizes)
        self.pos_embed = nn.Embedding(sizes.table_side**2, sizes.hidden)
        self.blocks = nn.ModuleList(VisionBlock(sizes, eps) for _ in range(sizes.layers))
        self.merger = Merger(sizes, text_hidden, eps)

    def forward(self, patches: Tensor, grid: Pair) -> Tensor:
        """[N, P, patch width] in merge order, `grid` = (R, C) with R*C = P -> [N, P/m/m, text width]."""
        cos, sin = self.rotary(grid)
        x = self.patch_embed(patches) + self.positions(grid).to(patches.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        tokens: Tensor = self.merger(x)
        return tokens

    def positions(self, grid: Pair) -> Tensor:
        """Interpolate the learned table to the grid, corners on corners, in merge order -> [P, w]."""
        side, device = self.sizes.table_side, self.pos_embed.weight.device
        table = self.pos_embed.weight.view(side, side, -1)
        row, column = (torch.linspace(0, side - 1, n, device=device) for n in grid)
        top, left = row.long(), column.long()
        bottom, right = (top + 1).clamp(max=side - 1), (left + 1).clamp(max=side - 1)
        down, across = (row - top)[:, None, None], (column - left)[None, :, None]
        upper = table[top][:, left] * (1 - across) + table[top][:, right] * across
        lower = table[bottom][:, left] * (1 - across) + table[bottom][:, right] * across
        return merge_order(upper * (1 - down) + lower * down, self.sizes.merge)

    def rotary(self, grid: Pair) -> tuple[Tensor, Tensor]:
        """Cosines and sines [P, d] of the 2-D rotary positions: rows first, then columns, the whole repeated."""
        head_dim, device = self.sizes.hidden // self.sizes.heads, self.pos_embed.weight.device
        exponents = torch.arange(0, head_dim // 2, 2, device=device).float() / (head_dim // 2)
        frequencies = 1.0 / self.sizes.theta**exponents  # [d/4]
        row, column = (torch.arange(n, device=device).float()[:, None] * frequencies for n in grid)
        rows, columns = grid
        angles = torch.cat((row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)), -1)
        angles = merge_order(angles, self.sizes.merge)
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()
