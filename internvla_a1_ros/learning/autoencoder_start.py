"""An autoencoder that begins as principal components of the pictures' patches: what is best of all that is linear, before any training.

It needs an autoencoder that folds a latent's whole square of pixels into channels (`patch` of 8, no halvings) and norms over groups of four
channels or more. A norm takes the mean and the spread of its group away, and with them how bright a picture is: here each component
shares its group with its negative, which leaves no mean, and with a constant and its negative, which are most of the spread.
silu(x) - silu(-x) = x, so that the way through the last norm is linear too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.model.cosmos import Cosmos, PixelAttention, ResidualBlock, haar
from internvla_a1_ros.model.sizes import CosmosSizes

CONSTANT = 4.0  # in spreads of a component: the larger, the more exact, and the slower the norm is to learn
_A_GROUP = 4


@torch.no_grad()
def begin_with_components(cosmos: Cosmos, sizes: CosmosSizes, pictures: Tensor) -> None:
    """Set all weights so that latents are the first principal components of `pictures` [N, 3, h, w], of spread 1, and their sum is shown.

    Raises ConfigurationError where the autoencoder's sizes leave no linear way.
    """
    count, groups = min(sizes.bottleneck, sizes.latent_channels), cosmos.encoder.norm_out.num_groups
    width = sizes.stem // groups
    if sizes.halvings or set(sizes.level_channels) != {sizes.stem} or width < _A_GROUP or count > groups:
        got = f"{sizes.halvings} halvings, channels {sizes.stem} and {sizes.level_channels} in {groups} groups, {count} latents"
        raise ConfigurationError(f"components: got {got}; expected no halvings, all channels alike, four of them and one latent a group")
    for module in cosmos.modules():  # what a residual block adds is learned from nothing
        if isinstance(module, ResidualBlock):
            _zero(module.conv2)
        elif isinstance(module, PixelAttention):
            _zero(module.proj_out)
    mean, components, std = components_of(pictures, sizes.haar_steps, count)
    inward = (components / std).T
    plus = torch.arange(count) * width
    for layer, norm, out in (
        (cosmos.encoder.conv_in, cosmos.encoder.norm_out, cosmos.encoder.conv_out),
        (cosmos.decoder.conv_in, cosmos.decoder.norm_out, cosmos.decoder.conv_out),
    ):
        _zero(layer)
        _zero(out)
        _constants(layer, norm, plus, width)
    _both(cosmos.encoder.conv_in, plus, inward, -(inward @ mean))
    _both(cosmos.decoder.conv_in, plus, torch.eye(count, sizes.bottleneck), torch.zeros(count))
    _from_both(cosmos.encoder.conv_out, plus, torch.eye(sizes.bottleneck, count))
    _from_both(cosmos.decoder.conv_out, plus, components * std)
    _bias(cosmos.decoder.conv_out).copy_(mean)
    for layer in (cosmos.encoder.quant_conv, cosmos.decoder.post_quant_conv):
        _zero(layer)
        layer.weight[:, :, 0, 0] = torch.eye(*layer.weight.shape[:2])


def components_of(pictures: Tensor, haar_steps: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [W], components [W, count] and their spreads [count] of the patches of pictures, in the channels of the Haar steps."""
    x = pictures
    for _ in range(haar_steps):
        x = haar(x)
    patches = x.permute(0, 2, 3, 1).flatten(0, 2).double()
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    std = variances.flip(0)[:count].clamp(min=1e-8).sqrt()
    return patches.mean(0).float(), components.flip(1)[:, :count].float(), std.float()


def _zero(layer: nn.Conv2d) -> None:
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()


def _constants(layer: nn.Conv2d, norm: nn.GroupNorm, plus: Tensor, width: int) -> None:
    """Let `layer` put the constants beside each component, and `norm` give back what it takes of the spread."""
    bias = _bias(layer)
    bias[plus + 2], bias[plus + 3] = CONSTANT, -CONSTANT
    norm.weight.fill_(math.sqrt((2 + 2 * CONSTANT**2) / width))
    norm.bias.zero_()


def _both(layer: nn.Conv2d, plus: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Let the middle of a 3x3 `layer` make numbers [count], and their negatives beside them."""
    for sign, channels in ((1, plus), (-1, plus + 1)):
        layer.weight[channels, :, 1, 1] = sign * weight
        _bias(layer)[channels] = sign * bias


def _from_both(layer: nn.Conv2d, plus: Tensor, weight: Tensor) -> None:
    layer.weight[:, plus, 1, 1] = weight
    layer.weight[:, plus + 1, 1, 1] = -weight


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
