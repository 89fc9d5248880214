"""Small models of sizes that no reference has, for tests: drawn weights, written in the released format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.nano import draw_model, nano_sizes, nano_sizes_2b
from internvla_a1_ros.model.sizes import Architecture, CosmosSizes, ProcessorSizes, RopeSizes, StackSizes, TokenIds, VisionSizes
from internvla_a1_ros.model.writing import write_checkpoint

torch.set_num_threads(1)

TINY = replace(
    nano_sizes(64, TokenIds(vision_start=60, image=61, vision_end=62, pad=63)),
    understanding=StackSizes(hidden=40, mlp=56, layers=2, heads=4, kv_heads=2, head_dim=16),
    generation=StackSizes(hidden=24, mlp=40, layers=2, heads=6, kv_heads=2, head_dim=16),
    action=StackSizes(hidden=24, mlp=40, layers=2, heads=6, kv_heads=2, head_dim=16),
    vision=VisionSizes(hidden=64, mlp=48, layers=2, heads=16, patch=8, temporal_patch=2, merge=2, table_side=5),
    cosmos=CosmosSizes(
        stem=32, level_channels=(32, 32), encoder_blocks=1, decoder_blocks=2, patch=4, halvings=1, bottleneck=8, latent_channels=8
    ),
    rope=RopeSizes(theta=5_000_000.0, sections=(24, 20, 20)),
    picture=(48, 32),
    grid=(6, 4),
    processor=ProcessorSizes(48 * 32, 48 * 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    cosmos_picture=(32, 64),
    latent_stride=2,
    prompt_tokens=6,
    chunk=7,
    flow_steps=3,
    state_width=20,
    action_width=20,
    robot_width=9,
)

# One change of size each: views, merge, a wider grid than high, one frame one token, other Cosmos folding.
VARIANTS: dict[str, Architecture] = {
    "tiny": TINY,
    "wider_generation": replace(TINY, generation=replace(TINY.generation, hidden=32, mlp=48)),
    "two_views": replace(TINY, views=2),
    "merge_4": replace(TINY, vision=replace(TINY.vision, merge=4), picture=(32, 64), grid=(4, 8)),
    "wide_grid": replace(TINY, picture=(16, 80), grid=(2, 10)),
    "one_token_a_frame": replace(TINY, cosmos_picture=(32, 32), latent_stride=4, chunk=1, flow_steps=1),
    "deeper_cosmos": replace(
        TINY,
        cosmos=CosmosSizes(
            stem=32, level_channels=(64, 32, 32), encoder_blocks=2, decoder_blocks=3, patch=2, halvings=2, bottleneck=4, latent_channels=4
        ),
    ),
}

_EXPERT_2B = StackSizes(hidden=24, mlp=40, layers=2, heads=4, kv_heads=2, head_dim=6, qkv_bias=True, qk_norm=False)
TINY_2B = replace(
    nano_sizes_2b(64, TINY.tokens),
    understanding=_EXPERT_2B,
    generation=_EXPERT_2B,
    action=_EXPERT_2B,
    vision=VisionSizes(hidden=32, mlp=48, layers=2, heads=2, patch=14, temporal_patch=1, merge=2, table_side=4),
    rope=RopeSizes(theta=10_000.0, sections=(3, 0, 0)),
    picture=(56, 56),
    grid=(4, 4),
    **{name: getattr(TINY, name) for name in ("cosmos", "cosmos_picture", "latent_stride", "prompt_tokens", "chunk", "flow_steps")},
    **{name: getattr(TINY, name) for name in ("state_width", "action_width", "robot_width")},
)

VARIANTS_2B: dict[str, Architecture] = {
    "tiny": TINY_2B,
    "two_views": replace(TINY_2B, views=2),
    "larger_pictures_than_the_table": replace(TINY_2B, picture=(84, 112), grid=(6, 8)),
    "narrower_experts": replace(
        TINY_2B,
        **{name: replace(_EXPERT_2B, hidden=16, mlp=24, heads=2) for name in ("generation", "action")},
    ),
    "wider_generation": replace(TINY_2B, generation=replace(_EXPERT_2B, hidden=48)),
    "rotary_bases_differ": replace(TINY_2B, expert_theta=500.0),
}


def tiny_model(sizes: Architecture = TINY, seed: int = 0) -> InternVLAA1:
    return draw_model(sizes, seed)


def write_tiny(folder: Path, sizes: Architecture = TINY, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    write_checkpoint(folder, tiny_model(sizes, seed), dtype)
    return folder


def inputs(sizes: Architecture, seed: int = 1) -> dict[str, Any]:
    """One observation as an engine reads it, and noise; the last two prompt tokens are padding."""
    draw = torch.Generator().manual_seed(seed)
    patches = torch.randn(sizes.views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width, generator=draw)
    mask = torch.ones(sizes.prefix_tokens, dtype=torch.bool)
    mask[-2:] = False
    return {
        "patches": patches,
        "ids": torch.randint(sizes.vocabulary, (sizes.prefix_tokens,), generator=draw),
        "mask": mask,
        "view_mask": torch.ones(sizes.views, dtype=torch.bool),
        "pictures": torch.rand(2 * sizes.views, 3, *sizes.cosmos_picture, generator=draw) * 2 - 1,
        "state": torch.randn(sizes.state_width, generator=draw),
        "noise": torch.randn(sizes.chunk, sizes.action_width, generator=draw),
    }
