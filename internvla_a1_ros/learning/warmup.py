"""The second stage: the vision tower learns on simulated targets where parcels are, then the head that says so is thrown away.

A tower of transformer layers learns to see slowly from the errors of actions alone (issue 6). Here each of its tokens is asked for the
parcels whose centre lies in one of its cells: where exactly, how far, how turned, how large, and which way the label faces.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from internvla_a1_ros.bags.datasets import DatasetError
from internvla_a1_ros.learning.stages_loop import Numbers
from internvla_a1_ros.learning.stages_pictures import Gallery, Shown, Stills
from internvla_a1_ros.learning.stages_recipe import StageRecipe
from internvla_a1_ros.learning.training import generator
from internvla_a1_ros.learning.warmup_targets import CHANNELS, FIELDS, SEEN, found, laid_out, need_seen
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.sizes import Pair
from internvla_a1_ros.policy.pictures import patches

TOWER, HEAD = "understanding.vision.", "head."
MEASURED, AT_ONCE = 1024, 64  # pictures
# Of each channel but the first in the loss: the centre first, its turn, the label; sizes hardly vary.
WEIGHTS = (4.0, 4.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 4.0, 4.0)
# What brings a token to the text's width.
LAST = {"qwen3_vl": "merger.linear_fc2", "internvl": "projector.linear_2"}
RARE = -3.5  # the logit of about one parcel in 34 cells


class VisionRecipe(StageRecipe):
    """`cells`: a side of the cells that each token answers for. Brightness is varied by up to `brightness`, each colour by up to
    `colour` of it."""

    stage: Literal["vision"]
    cells: Annotated[int, Field(ge=1, le=8)] = 2
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.2
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Head(nn.Module):
    """Tokens [N, T, w] of a `grid` (rows, columns) -> answers [N, rows * cells, columns * cells, 12], objects as logits."""

    def __init__(self, width: int, grid: Pair, cells: int, draw: torch.Generator) -> None:
        super().__init__()
        self.grid, self.cells = grid, cells
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, cells * cells * len(CHANNELS))
        nn.init.normal_(self.out.weight, std=0.1 / math.sqrt(width), generator=draw)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.out.bias[:: len(CHANNELS)] = RARE  # else the first hundred steps teach that most cells are empty

    def forward(self, tokens: Tensor) -> Tensor:
        answers = self.out(self.norm(tokens)).unflatten(-1, (self.cells, self.cells, len(CHANNELS))).unflatten(1, self.grid)
        cells: Tensor = answers.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return cells


class Vision:
    """Teaches the vision tower of a model and a head of its own, and nothing else of the model."""

    def __init__(self, recipe: VisionRecipe, model: InternVLAA1, gallery: Gallery) -> None:
        """The stills of `gallery` say what is seen in them (`with_seen`)."""
        sizes = model.sizes
        self._recipe, self._model, self._gallery = recipe, model, gallery
        self._cells = (sizes.token_grid[0] * recipe.cells, sizes.token_grid[1] * recipe.cells)
        self._head = Head(sizes.understanding.hidden, sizes.token_grid, recipe.cells, generator(recipe.seed, 0))
        self.weights = {name: weight for name, weight in model.named_parameters() if name.startswith(TOWER)}
        self.weights |= {f"{HEAD}{name}": weight for name, weight in self._head.named_parameters()}

    def loss(self, shown: Shown, draw: torch.Generator) -> tuple[Tensor, Numbers]:
        most, count = self._recipe.shift_px, len(shown.pictures)
        down, right = torch.randint(-most, most + 1, (2, count), generator=draw)
        light = 1 + self._recipe.brightness * (2 * torch.rand(count, 1, 1, 1, generator=draw) - 1)
        colours = 1 + self._recipe.colour * (2 * torch.rand(count, 3, 1, 1, generator=draw) - 1)
        pictures = (shown.shifted(down, right) * light * colours).clamp(0, 1)
        targets = self._targets(shown, down, right)
        objects, rest = errors(self._answers(pictures), targets)
        return objects + rest, {"objects": float(objects.detach()), "rest": float(rest.detach())}

    @torch.no_grad()
    def measured(self) -> Numbers:
        """Medians over parcels found in pictures that are kept back; the centre in pixels of the model's picture."""
        shown = self._gallery.some(MEASURED, kept_back=True)
        answers = torch.cat([self._answers(some) for some in torch.split(shown.unmoved(), AT_ONCE)])
        still = torch.zeros(len(shown.pictures), dtype=torch.long)
        return found(answers, self._targets(shown, still, still), self._model.sizes.picture)

    @torch.no_grad()
    def finished(self) -> dict[str, Tensor]:
        """The tower's last layer, so that each number of a token has mean 0, and all together a mean square of 1.

        The experts' first norm divides by what all tokens have in common otherwise.
        """
        shown = self._gallery.some(MEASURED, kept_back=False)
        tokens = torch.cat([self._tokens(some) for some in torch.split(shown.unmoved(), AT_ONCE)]).double()
        mean, scale = tokens.mean((0, 1)), tokens.var((0, 1), correction=0).mean().sqrt().clamp(min=1e-6)
        names = [f"{TOWER}{LAST[self._model.sizes.layout.tower]}.{kind}" for kind in ("weight", "bias")]
        weight, bias = (self.weights[name].detach() for name in names)
        folded = (weight.double() / scale, (bias.double() - mean) / scale)
        return {name: part.to(weight.dtype) for name, part in zip(names, folded, strict=True)}

    def _answers(self, pictures: Tensor) -> Tensor:
        answers: Tensor = self._head(self._tokens(pictures))
        return answers.float()

    def _tokens(self, pictures: Tensor) -> Tensor:
        """What the tower says [N, T, h] of pictures [N, 3, h, w] in [0, 1]."""
        sizes = self._model.sizes
        tokens: Tensor = self._model.understanding.vision(patches(pictures, sizes), sizes.grid)
        return tokens

    def _targets(self, shown: Shown, down: Tensor, right: Tensor) -> Tensor:
        stills = self._gallery.stills
        seen = np.stack([stills[dataset].seen[number, view] for dataset, number, view in shown.origin])
        return laid_out(seen, shown.boxes, down, right, self._model.sizes.picture, self._cells)


def errors(answers: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of objects over all cells, and smooth L1 of the rest where there is one, both for each object."""
    objects = targets[..., 0]
    count = objects.sum().clamp(min=1)
    missed = F.binary_cross_entropy_with_logits(answers[..., 0], objects, reduction="sum")
    off = F.smooth_l1_loss(answers[..., 1:], targets[..., 1:], beta=0.1, reduction="none")
    return missed / count, (off * torch.tensor(WEIGHTS) * objects[..., None]).sum() / count


def with_seen(stills: Stills, views: int) -> Stills:
    """Return a dataset's stills with what is seen in them [N, V, slots, 10]; an episode whose table cannot be read is named and left out.

    Raises ConfigurationError where the dataset does not say so for every view.
    """
    need_seen(stills.dataset, views)
    rows = np.zeros((len(stills.places), views, stills.dataset.features[SEEN].width // (views * FIELDS), FIELDS))
    unread: dict[int, str] = {}
    for place in np.unique(stills.places[:, 0]).tolist():
        mine = stills.places[:, 0] == place
        try:
            table = stills.dataset.episodes[place].table((SEEN,))[SEEN]
        except DatasetError as problem:
            unread[place] = str(problem)
            continue
        rows[mine] = table[stills.places[mine, 1]].reshape(-1, *rows.shape[1:])
    return replace(stills, seen=rows, unread=tuple(unread), left_out=(*stills.left_out, *unread.values()))
