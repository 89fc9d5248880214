"""Where each token stands on the three rotary axes (time, row, column).

B batch, V views, L prefix tokens. The prefix is, for each view, R*C picture tokens (in the 3B layout between a start and an end
token); then text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from internvla_a1_ros.model.sizes import Pair

MASKED_POSITION = 1  # of the released code, not 0


def counted_positions(mask: Tensor) -> Tensor:
    """Return [3, B, L] positions that are the number of valid tokens before, the same on all axes, for validity `mask` [B, L]."""
    return (mask.long().cumsum(1) - 1).expand(3, -1, -1)


def prefix_positions(mask: Tensor, views: int, token_grid: Pair) -> Tensor:
    """Return [3, B, L] positions for a prefix of validity `mask` [B, L], each view a `token_grid` of R x C tokens between two others.

    Text advances all axes together; a picture takes (0, row, column) from where it starts and what follows starts after its
    largest; masked tokens do not advance.
    """
    rows, columns = token_grid
    device, batch = mask.device, mask.shape[0]
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    start, end = torch.zeros(1, device=device, dtype=torch.long), torch.full((1,), 1 + max(rows, columns), device=device)
    inside = torch.stack([torch.cat((start, 1 + axis, end)) for axis in (torch.zeros_like(row), row, column)])  # [3, R*C + 2]
    advance = max(rows, columns) + 2

    view_tokens = views * inside.shape[1]
    seen = mask[:, :view_tokens].view(batch, views, -1)[:, :, 0].long()  # [B, V]: a view is valid as a whole
    offsets = (seen.cumsum(1) - seen) * advance
    pictures = (offsets[None, :, :, None] + inside[:, None, None]).flatten(2)  # [3, B, V*(R*C + 2)]
    text = seen.sum(1, keepdim=True) * advance + mask[:, view_tokens:].long().cumsum(1) - 1
    positions = torch.cat((pictures, text.expand(3, -1, -1)), 2)
    return torch.where(mask, positions, MASKED_POSITION)


def following(last: Tensor, advances: Tensor) -> Tensor:
    """Return [3, B, T] positions after `last` [B], one step for every token that `advances` [B, T]."""
    return (last[:, None] + advances.long().cumsum(1)).expand(3, -1, -1)
