"""What an exported engine computes outside its graphs: words, rotary tables and masks, once per instruction and set of views.

They are made by the model's own code: its stacks of layers are put aside, and what they would have been given is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from internvla_a1_ros.model.checkpoint import empty_model
from internvla_a1_ros.model.flow import VelocityField, time_embedding
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.model.text import KeysValues


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Cosines and sines [1, 1, T, d], what is added to scores [1, 1, T or 1, S]; the tokens' validity [1, P] and last position [1]."""

    cos: Tensor
    sin: Tensor
    scores: Tensor
    mask: Tensor
    last_position: Tensor


class TableMaker:
    """The model without its layers."""

    def __init__(self, sizes: Architecture, dtype: torch.dtype) -> None:
        self.sizes = sizes
        self._model = empty_model(sizes)
        self._model.state_proj = nn.Linear(sizes.state_width, sizes.action.hidden, dtype=dtype)  # its kind of number is the model's
        self._given: tuple[Tensor, Tensor, Tensor] = (torch.empty(0),) * 3
        for stack in (self._model.understanding.text, self._model.generation):
            stack.run = self._keep  # type: ignore[method-assign]

    def _keep(self, x: Any, cos: Tensor, sin: Tensor, valid: Tensor, scores: Tensor, before: KeysValues | None) -> Any:
        mask = valid if before is None else torch.cat((before.mask, valid), 1)
        self._given = cos, sin, scores
        return KeysValues((), (), mask), x

    def prefix(self, attention_mask: Tensor) -> Tables:
        """Of a prefix of validity `attention_mask` [L]."""
        mask = attention_mask.bool().cpu()[None]
        positions = self._model.prefix_positions(mask, self.sizes.views, self.sizes.grid)
        cache = self._model.prefix(torch.empty(0), mask, positions)
        return Tables(*self._given, cache.tokens.mask, cache.last_position)

    def generation(self, prefix: Tables, view_mask: Tensor) -> Tables:
        """Of the generation tokens of views valid in `view_mask` [V], after `prefix`."""
        before = PrefixCache(KeysValues((), (), prefix.mask), prefix.last_position)
        cache = self._model.generate(before, torch.empty(1, self.sizes.generation_tokens, 0), view_mask.bool().cpu()[None])
        return Tables(*self._given, cache.tokens.mask, cache.last_position)

    def suffix(self, generation: Tables) -> Tables:
        """Of state and actions, after `generation`."""
        nowhere = torch.empty(0)
        cache = GenerationCache(KeysValues((), (), generation.mask), generation.last_position, nowhere, nowhere, nowhere, nowhere)
        state = torch.zeros(1, self.sizes.state_width)
        field = VelocityField(self._model, cache, state, self.sizes.chunk)
        return Tables(field.cos, field.sin, field.scores, generation.mask, generation.last_position)

    def time(self, time: float) -> Tensor:
        """Embed a time of the flow -> [1, h]."""
        sizes = self.sizes
        return time_embedding(torch.tensor([time]), sizes.action.hidden, sizes.min_period, sizes.max_period)
