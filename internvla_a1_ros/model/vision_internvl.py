"""The InternVL vision tower and its projector: patches of one picture in, tokens of the understanding expert out.

Shapes: N pictures, P patches a picture, row by row, w the tower's width, R x C the grid of patches, m patches a side of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.model.norms import LayerNorm
from internvla_a1_ros.model.sizes import Pair, VisionSizes

PROJECTOR_NORM_EPS = 1e-5  # not the tower's


class PatchEmbeddings(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.projection = nn.Conv2d(sizes.channels, sizes.hidden, sizes.patch, sizes.patch)

    def forward(self, patches: Tensor) -> Tensor:
        """[N, P, channel*row*column] -> [N, P, w]: the convolution of a patch with itself is one product."""
        return F.linear(patches, self.projection.weight.flatten(1), self.projection.bias)


class Embeddings(nn.Module):
    """Patches, a class token before them, and the learned position of each."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.side = sizes.table_side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.hidden))
        self.patch_embeddings = PatchEmbeddings(sizes)
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + self.side**2, sizes.hidden))

    def forward(self, patches: Tensor, grid: Pair) -> Tensor:
        """[N, P, channel*row*column] -> [N, 1 + P, w]."""
        tokens = torch.cat((self.cls_token.expand(len(patches), -1, -1), self.patch_embeddings(patches)), 1)
        return tokens + self.positions(grid).to(patches.dtype)

    def positions(self, grid: Pair) -> Tensor:
        """The learned table [1, 1 + P, w]; of another grid than its own it is interpolated, bicubic, the class token's aside."""
        table = self.position_embeddings
        if grid == (self.side, self.side):
            return table
        square = table[:, 1:].unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2).float()
        fitted = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        return torch.cat((table[:, :1].float(), fitted.flatten(2).transpose(1, 2)), 1)


class VisionAttention(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.k_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.v_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.projection_layer = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.projection_layer(mixed.transpose(1, 2).flatten(2))
        return out


class VisionMLP(nn.Module):
    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.hidden, sizes.mlp)
        self.fc2 = nn.Linear(sizes.mlp, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class VisionLayer(nn.Module):
    """A pre-norm block whose two halves are scaled per channel before they are added."""

    def __init__(self, sizes: VisionSizes, eps: float) -> None:
        super().__init__()
        self.layernorm_before = LayerNorm(sizes.hidden, eps=eps)
        self.attention = VisionAttention(sizes)
        self.lambda_1 = nn.Parameter(torch.ones(sizes.hidden))
        self.layernorm_after = LayerNorm(sizes.hidden, eps=eps)
        self.mlp = VisionMLP(sizes)
        self.lambda_2 = nn.Parameter(torch.ones(sizes.hidden))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.lambda_1 * self.attention(self.layernorm_before(x))
        x = x + self.lambda_2 * self.mlp(self.layernorm_after(x))
        return x


class Encoder(nn.Module):
    def __init__(self, sizes: VisionSizes, eps: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList(VisionLayer(sizes, eps) for _ in range(sizes.layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


class Projector(nn.Module):
    """Brings the m x m patches of a token, concatenated, to the text's width."""

    def __init__(self, wide: int, text_hidden: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(wide, eps=PROJECTOR_NORM_EPS)
        self.linear_1 = nn.Linear(wide, text_hidden)
        self.linear_2 = nn.Linear(text_hidden, text_hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.gelu(self.linear_1(self.layer_norm(x))))
        return out


class InternVLTower(nn.Module):
    def __init__(self, sizes: VisionSizes, text_hidden: int, eps: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.embeddings = Embeddings(sizes)
        self.encoder = Encoder(sizes, eps)
        self.projector = Projector(sizes.hidden * sizes.merge**2, text_hidden)

    def forward(self, patches: Tensor, grid: Pair) -> Tensor:
        """[N, P, patch width] row by row, `grid` = (R, C) with R*C = P -> [N, P/m/m, text width], row by row."""
        x = self.encoder(self.embeddings(patches, grid))
        tokens: Tensor = self.projector(self.shuffle(x[:, 1:], grid))  # without the class token, and no norm before
        return tokens

    def shuffle(self, x: Tensor, grid: Pair) -> Tensor:
        """Concatenate the m x m patches of each token as (row, column, channel): [N, P, w] -> [N, P/m/m, m*m*w]."""
        merge = self.sizes.merge
        blocks = x.unflatten(1, (grid[0] // merge, merge, grid[1] // merge, merge))
        return blocks.transpose(2, 3).flatten(3).flatten(1, 2)
