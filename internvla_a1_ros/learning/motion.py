"""How far parcels have come since the past frame, asked of the generation expert besides its imagined future.

What is to be imagined teaches it where things are long before it teaches how fast they go: an expert that knows the mean speed is already
right about most of a picture. Where the simulation says where parcels were and are, the tokens that enter the expert's last layer, which
is as deep as the action expert looks, answer for it. Like the head of the second stage, the readout is thrown away in the end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.bags.datasets import Episode
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.learning.warmup_targets import FIELDS, IN_VIEW, SEEN, U, V
from internvla_a1_ros.model.sizes import FRAMES, Architecture, Pair

READOUT = "readout."  # how the names of its weights begin in a run's own file
# Of a target: whether a parcel's centre lies in the cell now, and how far it has come to the right and down, in steps of a 20th of
# the picture, which is about what half a second does on the belt.
CHANNELS = ("parcel", "right", "down")
_STEPS = 20.0


def seen_of(episode: Episode, views: int) -> FloatArray:
    """Where parcels are in each step of an episode: [length, V, slots, 3] of in view, right and down (0 to 1 of the picture)."""
    table = episode.table((SEEN,))[SEEN].reshape(episode.length, views, -1, FIELDS)
    where: FloatArray = table[..., [IN_VIEW, U, V]]
    return where


def displaced(past: FloatArray, now: FloatArray, views: npt.NDArray[np.bool_], cells: Pair) -> Tensor:
    """Targets [V, rows, columns, 3] of a picture's `cells` from where parcels were and are, [V, slots, 3] each (`seen_of`).

    Nobody can tell it of a parcel that was not in view then, nor in a view that is not shown (`views` [V]): cells like those without one.
    """
    rows, columns = cells
    targets = np.zeros((len(now), rows, columns, len(CHANNELS)), np.float32)
    inside = ((now[..., 1:] >= 0) & (now[..., 1:] < 1)).all(-1)
    for view, slot in np.argwhere((past[..., 0] > 0) & (now[..., 0] > 0) & inside & views[:, None]):
        right, down = now[view, slot, 1:]
        way = (now[view, slot, 1:] - past[view, slot, 1:]) * _STEPS
        targets[view, int(down * rows), int(right * columns)] = (1.0, *way)
    return torch.from_numpy(targets)


class Readout(nn.Module):
    """Says from the tokens of both frames at one place how far what is there has moved. It begins by saying: not at all."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self._views, self._cells = sizes.views, sizes.generation_grid
        self.norm = nn.LayerNorm(FRAMES * sizes.generation.hidden)
        self.out = nn.Linear(FRAMES * sizes.generation.hidden, len(CHANNELS) - 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Smooth L1 over the parcels of `targets` [B, V, rows, columns, 3], read from `tokens` [B, G, h]; 0 where there is none."""
        rows, columns = self._cells
        frames = tokens.float().view(len(tokens), self._views, FRAMES, rows, columns, -1)
        places = torch.cat((frames[:, :, 0], frames[:, :, 1]), -1)
        said = self.out(self.norm(places))
        there = targets[..., 0]
        off = F.smooth_l1_loss(said, targets[..., 1:], beta=0.1, reduction="none").mean(-1)
        error: Tensor = (off * there).sum() / there.sum().clamp(min=1)
        return error
