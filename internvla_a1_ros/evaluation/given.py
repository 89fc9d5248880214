"""One observation as an engine reads it, drawn from a seed: where weights are drawn too, no picture would mean more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from internvla_a1_ros.model.sizes import Architecture

_SENTENCE = 14  # tokens of "Pick up the package from the conveyor and place it in the bin"; padding follows


def shown_tokens(sizes: Architecture) -> int:
    """Tokens of the prompt that are valid, at least one; some of it is always padding."""
    return min(_SENTENCE, max(1, sizes.prompt_tokens - 2))


@dataclass(frozen=True, slots=True)
class Given:
    """`pictures` are the views' past frames, then their present ones; the others as in `engines/protocol.py`."""

    pictures: Tensor
    pixels: Tensor
    ids: Tensor
    mask: Tensor
    views: Tensor
    state: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, sizes: Architecture, seed: int, *, missing_view: bool = False) -> Given:
        """`missing_view`: the last view is not there, where there are others."""
        draw = torch.Generator().manual_seed(seed)
        mask = torch.ones(sizes.prefix_tokens, dtype=torch.bool)
        views = torch.ones(sizes.views, dtype=torch.bool)
        text = sizes.prefix_tokens - sizes.prompt_tokens
        mask[text + shown_tokens(sizes) :] = False
        if missing_view and sizes.views > 1:
            views[-1] = False
            mask[text - text // sizes.views : text] = False
        return cls(
            pictures=torch.rand(2 * sizes.views, 3, *sizes.cosmos_picture, generator=draw) * 2 - 1,
            pixels=torch.randn(sizes.views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width, generator=draw),
            ids=torch.randint(sizes.vocabulary, (sizes.prefix_tokens,), generator=draw),
            mask=mask,
            views=views,
            state=torch.randn(sizes.state_width, generator=draw),
            noise=torch.randn(sizes.chunk, sizes.action_width, generator=draw),
        )
