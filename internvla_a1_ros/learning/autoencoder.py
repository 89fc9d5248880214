"""The first stage: the Cosmos autoencoder learns to show simulated pictures again, then stays as it is.

The generation expert is taught on its latents by squared errors, and their scale is nobody else's to set: it is chosen so that an error in
any channel costs what it changes in the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from internvla_a1_ros.learning.autoencoder_start import begin_with_components
from internvla_a1_ros.learning.stages_loop import Numbers
from internvla_a1_ros.learning.stages_pictures import Gallery, Shown
from internvla_a1_ros.learning.stages_recipe import StageRecipe
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.policy.pictures import cosmos_input

COSMOS = "cosmos."
QUANT, POST_QUANT = "cosmos.encoder.quant_conv", "cosmos.decoder.post_quant_conv"
MEASURED, AT_ONCE = 256, 32  # pictures
LEAST_STD = 1e-4  # of a latent channel that carries nothing
STEP = 0.25  # of a channel's spread: small enough for what it does to be linear


class AutoencoderRecipe(StageRecipe):
    """The loss is |d| + `squares` d^2 + `edges` |gradient of d|, d the error of a picture in [-1, 1], and `latents` times how far
    latents are from mean 0 and spread 1. Padding counts by `padding`. `components`: it begins as principal components
    (`autoencoder_start.py`), not as its start has it."""

    stage: Literal["autoencoder"]
    squares: Annotated[float, Field(ge=0)] = 1.0
    edges: Annotated[float, Field(ge=0)] = 0.5
    latents: Annotated[float, Field(ge=0)] = 1e-3
    padding: Annotated[float, Field(ge=0, le=1)] = 0.05
    components: bool = False


class Autoencoder:
    """Teaches `model.cosmos`, and nothing else of the model."""

    def __init__(self, recipe: AutoencoderRecipe, model: InternVLAA1, gallery: Gallery) -> None:
        self._recipe, self._model, self._gallery = recipe, model, gallery
        self.weights = {name: weight for name, weight in model.named_parameters() if name.startswith(COSMOS)}
        if recipe.components:
            pictures = torch.cat([some for some, _ in self._some(kept_back=False)])
            begin_with_components(model.cosmos, model.sizes.cosmos, pictures)

    def loss(self, shown: Shown, draw: torch.Generator) -> tuple[Tensor, Numbers]:
        recipe, most = self._recipe, self._recipe.shift_px
        down, right = torch.randint(-most, most + 1, (2, len(shown.pictures)), generator=draw)
        pictures = cosmos_input(shown.shifted(down, right), self._model.sizes)
        counts = recipe.padding + (1 - recipe.padding) * self._inside(shown)
        latents = self._model.encode(pictures)
        off = self._model.decode(latents).float() - pictures
        absolute, squares, edges = mean(off.abs(), counts), mean(off**2, counts), edges_of(off, counts)
        spread = unlike_normal(latents.float())
        total = absolute + recipe.squares * squares + recipe.edges * edges + recipe.latents * spread
        parts = {"absolute": absolute, "squares": squares, "edges": edges, "latents": spread}
        return total, {name: float(value.detach()) for name, value in parts.items()}

    @torch.no_grad()
    def measured(self) -> Numbers:
        """The mean of PSNR over pictures that are kept back, padding apart, in dB."""
        found = []
        for pictures, counts in self._some(kept_back=True):
            again = self._model.decode(self._model.encode(pictures)).float().clamp(-1, 1)
            found.append(psnr(again, pictures, counts))
        return {"psnr_db": float(torch.cat(found).mean())}

    @torch.no_grad()
    def finished(self) -> dict[str, Tensor]:
        """The last layer of the encoder and the first of the decoder, so that latents have mean 0, one mean square of 1 over all channels,
        and each channel the share of it that its changes have in the picture."""
        latents = torch.cat([self._model.encode(pictures) for pictures, _ in self._some(kept_back=False)])
        std, average = torch.std_mean(latents.double(), (0, 2, 3))
        scale = one_for_all(self._model.decode, latents[:AT_ONCE], std.clamp(min=LEAST_STD))
        names = [f"{layer}.{kind}" for layer in (QUANT, POST_QUANT) for kind in ("weight", "bias")]
        weight, bias, post_weight, post_bias = (self.weights[name].detach() for name in names)
        return dict(zip(names, folded(weight, bias, post_weight, post_bias, average, scale), strict=True))

    def _some(self, *, kept_back: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pictures as Cosmos sees them [n, 3, ch, cw], and how much of each pixel is filmed, some at a time."""
        shown = self._gallery.some(MEASURED, kept_back=kept_back)
        pictures = cosmos_input(shown.unmoved(), self._model.sizes)
        return zip(torch.split(pictures, AT_ONCE), torch.split(self._inside(shown), AT_ONCE), strict=True)

    def _inside(self, shown: Shown) -> Tensor:
        """How much of each pixel that Cosmos sees is filmed [B, 1, ch, cw]."""
        return (cosmos_input(shown.inside(), self._model.sizes) + 1) / 2


@torch.no_grad()
def one_for_all(decode: Callable[[Tensor], Tensor], latents: Tensor, std: Tensor) -> Tensor:
    """What to divide each channel of latents [N, z, h, w] of spread `std` [z] by.

    Afterwards the same step in any channel changes the decoded picture by the same mean square, and the mean square of all is 1.
    """
    shown = decode(latents)
    effect = torch.zeros_like(std)
    for channel, spread in enumerate(std.tolist()):
        moved = latents.clone()
        moved[:, channel] += STEP * spread
        effect[channel] = (decode(moved) - shown).double().square().mean().sqrt() / (STEP * spread)
    effect = effect.clamp(min=LEAST_STD * float(effect.max()))
    return (std * effect).square().mean().sqrt() / effect


def folded(
    weight: Tensor, bias: Tensor, post_weight: Tensor, post_bias: Tensor, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the 1x1 convolutions around the latents so that these are (latents - mean) / std [z] and what is decoded stays the same."""
    w, b, pw, pb = (part.double() for part in (weight, bias, post_weight, post_bias))
    per_channel = std.double()[:, None, None, None]
    inner = w / per_channel, (b - mean.double()) / std.double()
    outer = pw * std.double()[None, :, None, None], pb + pw[:, :, 0, 0] @ mean.double()
    return tuple(part.to(weight.dtype) for part in (*inner, *outer))  # type: ignore[return-value]


def mean(per_pixel: Tensor, counts: Tensor) -> Tensor:
    """The mean of [N, c, h, w] by counts [N, 1, h, w]."""
    return (per_pixel * counts).sum() / (counts.sum() * per_pixel.shape[1])


def edges_of(off: Tensor, counts: Tensor) -> Tensor:
    """The mean absolute gradient of an error: what is blurred costs more than what is a little too bright."""
    across, down = off[..., 1:] - off[..., :-1], off[..., 1:, :] - off[..., :-1, :]
    return mean(across.abs(), counts[..., 1:]) + mean(down.abs(), counts[..., 1:, :])


def unlike_normal(latents: Tensor) -> Tensor:
    """How far latents [N, z, h, w] are from mean 0 and spread 1: squares of the mean and of the logarithm of the mean square."""
    squares = latents.square().mean((0, 2, 3)).clamp(min=LEAST_STD**2)
    return latents.mean((0, 2, 3)).square().mean() + squares.log().square().mean()


def psnr(again: Tensor, pictures: Tensor, counts: Tensor) -> Tensor:
    """Of each of the pictures [N, 3, h, w] in [-1, 1], in dB, over what counts [N, 1, h, w]; their range is 2."""
    squares = ((again - pictures).square() * counts).sum((1, 2, 3)) / (counts.sum((1, 2, 3)) * pictures.shape[1])
    return 10 * torch.log10(4 / squares.clamp(min=1e-12))
