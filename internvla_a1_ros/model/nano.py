"""The nano model: a released layout at a few million parameters, for a policy that runs in real time on one CPU thread.

Its weights are drawn, not trained. They are drawn so that whatever comes in, what goes out is bounded: see `calm_flow`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from internvla_a1_ros.model.flow import VelocityField
from internvla_a1_ros.model.layout import INTERNA1
from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.norms import NORMS
from internvla_a1_ros.model.reading_internvl import MAX_PIXELS
from internvla_a1_ros.model.sizes import FRAMES, Architecture, CosmosSizes, ProcessorSizes, RopeSizes, StackSizes, TokenIds, VisionSizes
from internvla_a1_ros.model.threads import torch_threads

UNDERSTANDING = StackSizes(hidden=144, mlp=288, layers=3, heads=4, kv_heads=2, head_dim=32)
# As wide as what one of its tokens stands for: 3 x 3 latents of 16 channels.
GENERATION = StackSizes(hidden=144, mlp=288, layers=3, heads=4, kv_heads=2, head_dim=32)
ACTION = StackSizes(hidden=96, mlp=192, layers=3, heads=4, kv_heads=2, head_dim=32)
PICTURE = (96, 128)  # rows and columns that the understanding expert sees: the shape of a camera's picture, so that none is padding
PROMPT_TOKENS = 24
LAST_OF_BRANCH = ("o_proj", "down_proj", "attn.proj", "linear_fc2", "projection_layer", "mlp.fc2")
TABLES = ("cls_token", "position_embeddings")
INTERNVL_EXPERT = StackSizes(hidden=128, mlp=256, layers=3, heads=4, kv_heads=2, head_dim=32, qkv_bias=True, qk_norm=False)
COSMOS_SIDE = 96  # and of those the generation expert sees and imagines


def nano_sizes(vocabulary: int, tokens: TokenIds) -> Architecture:
    """The nano's sizes around a token table of `vocabulary` rows."""
    return Architecture(
        understanding=UNDERSTANDING,
        generation=GENERATION,
        action=ACTION,
        # Small patches: how a parcel is turned is seen at its edges, a few pixels long.
        vision=VisionSizes(hidden=64, mlp=128, layers=3, heads=2, patch=8, temporal_patch=2, merge=4, table_side=16),
        # Of this shape the best linear autoencoder can be set up at once (learning/autoencoder_start.py).
        cosmos=CosmosSizes(
            stem=64,
            level_channels=(64,),
            encoder_blocks=1,
            decoder_blocks=2,
            patch=8,
            halvings=0,
            bottleneck=16,
            latent_channels=16,
            groups=16,
        ),
        rope=RopeSizes(theta=1_000.0, sections=(6, 5, 5)),
        tokens=tokens,
        vocabulary=vocabulary,
        views=3,
        picture=PICTURE,
        grid=(12, 16),
        processor=ProcessorSizes(PICTURE[0] * PICTURE[1], PICTURE[0] * PICTURE[1], (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        cosmos_picture=(COSMOS_SIDE, COSMOS_SIDE),
        latent_stride=3,
        prompt_tokens=PROMPT_TOKENS,
        chunk=50,
        flow_steps=10,
        state_width=32,
        action_width=32,
        robot_width=14,
        rms_norm_eps=1e-6,
        vision_norm_eps=1e-6,
        min_period=4e-3,
        max_period=4.0,
        lambda_generation=0.01,
    )


def nano_sizes_2b(vocabulary: int, tokens: TokenIds) -> Architecture:
    """A nano of the 2B layout: pictures of 112x112 pixels are 64 patches of 14x14, 16 tokens a view."""
    return replace(
        nano_sizes(vocabulary, tokens),
        understanding=INTERNVL_EXPERT,
        generation=INTERNVL_EXPERT,
        action=INTERNVL_EXPERT,
        vision=VisionSizes(hidden=96, mlp=192, layers=3, heads=3, patch=14, temporal_patch=1, merge=2, table_side=8),
        rope=RopeSizes(theta=10_000.0, sections=(INTERNVL_EXPERT.head_dim // 2, 0, 0)),
        picture=(112, 112),
        grid=(8, 8),
        prompt_tokens=48,
        processor=ProcessorSizes(0, MAX_PIXELS, INTERNA1.mean, INTERNA1.std),
        # Levels and a halving as the released autoencoder has them: every released name is there.
        cosmos=CosmosSizes(
            stem=32, level_channels=(32, 64, 64), encoder_blocks=1, decoder_blocks=2, patch=4, halvings=1, bottleneck=16, latent_channels=16
        ),
        layout=INTERNA1,
    )


def draw_model(sizes: Architecture, seed: int, known: Mapping[str, Tensor] | None = None) -> InternVLAA1:
    """Draw a model of `sizes`: the same seed, the same weights. Those `known` by name are not drawn; the rest is fitted around them."""
    draw = torch.Generator().manual_seed(seed)
    model = InternVLAA1(sizes).eval().requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, NORMS):
            continue
        for kind, parameter in module.named_parameters(recurse=False):
            if kind == "bias":
                parameter.zero_()
                continue
            if kind.startswith("lambda_"):  # one per channel of a layer: as they were made
                continue
            std = 0.02 if isinstance(module, nn.Embedding) or kind in TABLES else 1 / math.sqrt(parameter[0].numel())
            # What is added to the residual stream is small, the deeper the smaller: at first a layer changes little.
            if name.endswith(LAST_OF_BRANCH) and "merger" not in name:
                std /= math.sqrt(2 * sizes.action.layers)
            nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std, generator=draw)
    model.load_state_dict({**model.state_dict(), **(known or {})})
    with torch_threads(1):  # so that sums are made in one order
        calm_flow(model, draw)
    return model


def calm_flow(model: InternVLAA1, draw: torch.Generator, observations: int = 128) -> None:
    """Fit the last projection so that the velocity is about x: noise then shrinks to about a third on its way to actions.

    A field of zero would hand the noise on as it is, up to 4 standard deviations. This is a bound on an untrained model's
    motions, not a skill: least squares over random pictures, words, states, times and noise.
    """
    sizes = model.sizes

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    ids = torch.randint(sizes.vocabulary, (observations, sizes.prefix_tokens), generator=draw)
    mask, view_mask = torch.ones_like(ids, dtype=torch.bool), torch.ones(observations, sizes.views, dtype=torch.bool)
    patches = normal(observations, sizes.views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width)
    prefix = model.prefix(model.embed_prefix(patches, ids, sizes.grid), mask, model.prefix_positions(mask, sizes.views, sizes.grid))
    latents = normal(observations, sizes.views, FRAMES, sizes.cosmos.latent_channels, *sizes.latent_grid)
    cache = model.generate(prefix, model.embed_generation(latents), view_mask)

    x, time = normal(observations, sizes.chunk, sizes.action_width), torch.rand(observations, generator=draw)
    hidden = VelocityField(model, cache, normal(observations, sizes.state_width), sizes.chunk).hidden(x, time).flatten(0, 1).double()
    inputs = torch.cat((hidden, torch.ones(len(hidden), 1, dtype=torch.float64)), 1)
    fitted = torch.linalg.lstsq(inputs, x.flatten(0, 1).double()).solution.float()  # [h + 1, D]
    model.action_out_proj.weight.copy_(fitted[:-1].T)
    model.action_out_proj.bias.copy_(fitted[-1])
