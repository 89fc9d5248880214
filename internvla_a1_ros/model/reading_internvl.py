"""The sizes around an InternVL3 backbone (the 2B layout)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.shapes import GENERATION, Backbone, ShapeReader, Told, pair, section
from internvla_a1_ros.model.sizes import Pair, ProcessorSizes, RopeSizes, TokenIds, VisionSizes

HEAD_DIM = 64  # of the released backbone; without norms of q and k no shape tells it
THETA = 10_000.0  # of the released code, whatever InternVL3's own configuration says
MAX_PIXELS = 16_777_216  # as in the 3B layout; nothing depends on it


def read_internvl(reader: ShapeReader, config: Mapping[str, Any], told: Told) -> Backbone:
    """Raises CheckpointError naming the weight or the entry that is missing or cannot be."""
    shared = section(told, "text_and_experts")
    understanding, experts = ({**shared, **section(told, key)} for key in ("understanding", "experts"))
    image, rope, tokens = (section(told, key) for key in ("image", "rope_theta", "token_ids"))
    vision = internvl_vision(reader, section(told, "vision"), image, told)
    # The released config's `image_resolution` is its 3B default: the position table says what the tower was made for.
    picture = pair(image.get("size", vision.table_side * vision.patch), "image.size")
    head_dim = told_head_dim(reader, understanding)
    theta = float(rope.get("understanding", THETA))
    expert_theta = float(rope.get("experts", theta))
    return Backbone(
        understanding=reader.stack("understanding.text", understanding, head_dim),
        generation=reader.stack("generation", {**experts, **section(told, GENERATION)}, head_dim),
        action=reader.stack("action", experts, head_dim),
        vision=vision,
        rope=RopeSizes(theta, (head_dim // 2, 0, 0)),
        expert_theta=None if expert_theta == theta else expert_theta,
        tokens=TokenIds(
            tokens.get("vision_start", 151665), tokens.get("image", 151667), tokens.get("vision_end", 151666), tokens.get("pad", 151643)
        ),
        picture=picture,
        grid=grid_of(picture, vision.patch),
        processor=ProcessorSizes(
            min_pixels=0,  # pictures come at the tower's own size
            max_pixels=MAX_PIXELS,
            mean=tuple(config.get("imagenet_mean", reader.layout.mean)),
            std=tuple(config.get("imagenet_std", reader.layout.std)),
        ),
        vision_norm_eps=told.get("vision_layer_norm_eps", 1e-6),
    )


def told_head_dim(reader: ShapeReader, told: Told) -> int:
    """Width of a head: told, else that of the told heads, else the released backbone's."""
    queries = reader.usual("understanding.text.layers", "self_attn.q_proj.weight", 0)
    heads = told.get("num_attention_heads")
    head_dim: int = told.get("head_dim", queries // heads if heads else HEAD_DIM)
    if queries % head_dim or (heads and heads * head_dim != queries):
        raise CheckpointError(
            f"experts: {queries} queries are not {heads or 'whole'} heads of {head_dim}; "
            "architecture.json must say text_and_experts.num_attention_heads"
        )
    return head_dim


def internvl_vision(reader: ShapeReader, told: Told, image: Told, whole: Told) -> VisionSizes:
    prefix = "understanding.vision"
    embeddings, projector = f"{prefix}.embeddings", f"{prefix}.projector"
    patches, table = f"{embeddings}.patch_embeddings.projection.weight", f"{embeddings}.position_embeddings"
    hidden = told.get("hidden_size", reader.size(f"{embeddings}.cls_token", 2))
    heads = told.get("num_attention_heads", 16)  # the one size of the tower that its shapes do not tell
    if hidden % heads:
        raise CheckpointError(
            f"vision tower: a width of {hidden} is not {heads} heads; architecture.json must say vision.num_attention_heads"
        )
    patch = pair(image.get("patch", told.get("patch_size", reader.size(patches, 3))), "image.patch")
    if patch[0] != patch[1]:
        raise CheckpointError(f"image.patch: got {patch[0]}x{patch[1]}, expected as many rows as columns")
    merge = round(1 / whole["downsample_ratio"]) if "downsample_ratio" in whole else None
    return VisionSizes(
        hidden=hidden,
        mlp=told.get("intermediate_size", reader.usual(f"{prefix}.encoder.layer", "mlp.fc1.weight", 0)),
        layers=told.get("num_hidden_layers", reader.count(f"{prefix}.encoder.layer")),
        heads=heads,
        patch=patch[0],
        temporal_patch=1,
        merge=merge or round((reader.size(f"{projector}.layer_norm.weight", 0) / hidden) ** 0.5),
        table_side=reader.square_side(table, reader.size(table, 1) - 1),
        channels=reader.size(patches, 1),
    )


def grid_of(picture: Pair, patch: int) -> Pair:
    """Patches (rows, columns) of a picture, which must be whole."""
    if picture[0] % patch or picture[1] % patch:
        raise CheckpointError(f"image.size: got {picture[0]}x{picture[1]}, expected multiples of {patch}, the pixels of a patch")
    return picture[0] // patch, picture[1] // patch
