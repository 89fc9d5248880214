"""The sizes of the released models, for what needs them without a checkpoint: costs, benchmarks and builds with drawn weights."""

from __future__ import annotations

from dataclasses import replace

from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.model.layout import INTERNA1
from internvla_a1_ros.model.reading_internvl import MAX_PIXELS
from internvla_a1_ros.model.sizes import Architecture, CosmosSizes, ProcessorSizes, RopeSizes, StackSizes, TokenIds, VisionSizes

_3B_EXPERT = StackSizes(hidden=1024, mlp=3072, layers=28, heads=16, kv_heads=8, head_dim=128)
_2B_EXPERT = StackSizes(hidden=896, mlp=4864, layers=24, heads=14, kv_heads=2, head_dim=64, qkv_bias=True, qk_norm=False)

_3B = Architecture(
    understanding=StackSizes(hidden=2048, mlp=6144, layers=28, heads=16, kv_heads=8, head_dim=128),
    generation=_3B_EXPERT,
    action=_3B_EXPERT,
    vision=VisionSizes(hidden=1024, mlp=4096, layers=24, heads=16, patch=16, temporal_patch=2, merge=2, table_side=48),
    cosmos=CosmosSizes(
        stem=128,
        level_channels=(256, 512, 512),
        encoder_blocks=2,
        decoder_blocks=3,
        patch=4,
        halvings=1,
        bottleneck=16,
        latent_channels=16,
    ),
    rope=RopeSizes(theta=5_000_000.0, sections=(24, 20, 20)),
    tokens=TokenIds(vision_start=151652, image=151655, vision_end=151653, pad=151643),
    vocabulary=151936,
    views=3,
    picture=(224, 224),
    grid=(16, 16),
    processor=ProcessorSizes(65_536, 16_777_216, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    cosmos_picture=(256, 256),
    latent_stride=8,
    prompt_tokens=48,
    chunk=50,
    flow_steps=10,
    state_width=32,
    action_width=32,
    robot_width=32,
    rms_norm_eps=1e-6,
    vision_norm_eps=1e-6,
    min_period=4e-3,
    max_period=4.0,
    lambda_generation=0.01,
)

RELEASED = {
    "3b": _3B,
    "2b": replace(
        _3B,
        understanding=_2B_EXPERT,
        generation=_2B_EXPERT,
        action=_2B_EXPERT,
        vision=VisionSizes(hidden=1024, mlp=4096, layers=24, heads=16, patch=14, temporal_patch=1, merge=2, table_side=32),
        rope=RopeSizes(theta=10_000.0, sections=(32, 0, 0)),
        tokens=TokenIds(vision_start=151665, image=151667, vision_end=151666, pad=151643),
        vocabulary=151674,
        picture=(448, 448),
        grid=(32, 32),
        processor=ProcessorSizes(0, MAX_PIXELS, INTERNA1.mean, INTERNA1.std),
        layout=INTERNA1,
    ),
}


def released_sizes(name: str) -> Architecture:
    """Return the sizes of the released model called `name`. Raises ConfigurationError for a name that is none."""
    if name not in RELEASED:
        known = list(RELEASED)
        raise ConfigurationError(f"size: got '{name}', expected one of {', '.join(known)}{suggestion(name, known)}")
    return RELEASED[name]
