"""Finds a checkpoint's sizes: `architecture.json` first, then the shapes of its weights.

What neither tells (rope, eps, token ids, the sizes of pictures) has the released backbone's value as its default. The name
of the variant in `config.json` is never asked: the references say `qwen3_vl_2b` and hold three layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.layout import layout_called
from internvla_a1_ros.model.reading_internvl import read_internvl
from internvla_a1_ros.model.shapes import GENERATION, Backbone, ShapeReader, Shapes, Told, pair, section
from internvla_a1_ros.model.sizes import Architecture, ProcessorSizes, RopeSizes, TokenIds, VisionSizes


def read_architecture(shapes: Shapes, config: Mapping[str, Any], told: Told, processor: Told) -> Architecture:
    """Gather all sizes from the weights' `shapes` (our names), `config.json`, `architecture.json` (`told`) and `preprocessor_config.json`.

    The last two may be empty.
    Raises CheckpointError naming the weight or the entry that is missing or cannot be.
    """
    layout = layout_called(config.get("type"))
    reader = ShapeReader(shapes, layout)
    backbone = read_qwen(reader, config, told, processor) if layout.tower == "qwen3_vl" else read_internvl(reader, config, told)
    cosmos, output = section(told, "cosmos"), section(section(config, "output_features"), "action")
    action_width = config.get("max_action_dim", reader.size("action_in_proj.weight", 1))
    return Architecture(
        understanding=backbone.understanding,
        generation=backbone.generation,
        action=backbone.action,
        vision=backbone.vision,
        cosmos=reader.cosmos(cosmos),
        rope=backbone.rope,
        tokens=backbone.tokens,
        vocabulary=told.get("vocab_size", reader.size("understanding.text.embed_tokens.weight", 0)),
        views=told.get("views", 3),
        picture=backbone.picture,
        grid=backbone.grid,
        processor=backbone.processor,
        cosmos_picture=pair(cosmos.get("picture_size", 256), "cosmos.picture_size"),
        latent_stride=config.get("scale_factor", reader.size("downsample_conv.weight", 2)),
        prompt_tokens=config.get("tokenizer_max_length", 48),
        chunk=config.get("chunk_size", told.get("chunk_size", 50)),
        flow_steps=config.get("num_inference_steps", told.get("num_inference_steps", 10)),
        state_width=config.get("max_state_dim", reader.size("state_proj.weight", 1)),
        action_width=action_width,
        robot_width=(output.get("shape") or [told.get("action_dim", action_width)])[0],
        rms_norm_eps=told.get("rms_norm_eps", 1e-6),
        vision_norm_eps=backbone.vision_norm_eps,
        min_period=config.get("min_period", 4e-3),
        max_period=config.get("max_period", 4.0),
        lambda_generation=config.get("lambda_gen", 0.01),
        layout=layout,
        expert_theta=backbone.expert_theta,
    )


def read_qwen(reader: ShapeReader, config: Mapping[str, Any], told: Told, processor: Told) -> Backbone:
    """The sizes around a Qwen3-VL backbone."""
    understanding, experts = section(told, "understanding"), section(told, "experts")
    generation = {**experts, **section(told, GENERATION)}
    image, rope, tokens = (section(told, key) for key in ("image", "rope", "token_ids"))
    vision = qwen_vision(reader, section(told, "vision"), image)
    picture = pair(image.get("size", config.get("image_resolution", 224)), "image.size")
    rule = read_processor(processor)

    def head_dim(prefix: str, table: Told) -> int:
        size: int = table.get("head_dim", reader.usual(f"{prefix}.layers", "self_attn.q_norm.weight", 0))
        return size

    return Backbone(
        understanding=reader.stack("understanding.text", understanding, head_dim("understanding.text", understanding)),
        generation=reader.stack("generation", generation, head_dim("generation", generation)),
        action=reader.stack("action", experts, head_dim("action", experts)),
        vision=vision,
        rope=RopeSizes(float(rope.get("theta", 5_000_000.0)), tuple(rope.get("mrope_section", (24, 20, 20)))),
        tokens=TokenIds(
            tokens.get("vision_start", 151652), tokens.get("image", 151655), tokens.get("vision_end", 151653), tokens.get("pad", 151643)
        ),
        picture=picture,
        grid=pair(image["grid"], "image.grid") if "grid" in image else rule.grid(picture, vision.patch, vision.merge),
        processor=rule,
        vision_norm_eps=told.get("layer_norm_eps", 1e-6),
    )


def qwen_vision(reader: ShapeReader, told: Told, image: Told) -> VisionSizes:
    prefix, patches = "understanding.vision", "understanding.vision.patch_embed.proj.weight"
    hidden = told.get("hidden_size", reader.size(f"{prefix}.merger.norm.weight", 0))
    heads = told.get("num_heads", 16)  # the one size of the tower that its shapes do not tell
    if hidden % heads or (hidden // heads) % 4:
        raise CheckpointError(
            f"vision tower: a width of {hidden} is not {heads} heads of a multiple of 4; architecture.json must say vision.num_heads"
        )
    table = told.get("num_position_embeddings", reader.size(f"{prefix}.pos_embed.weight", 0))
    return VisionSizes(
        hidden=hidden,
        mlp=told.get("intermediate_size", reader.usual(f"{prefix}.blocks", "mlp.linear_fc1.weight", 0)),
        layers=told.get("depth", reader.count(f"{prefix}.blocks")),
        heads=heads,
        patch=image.get("patch", reader.size(patches, 3)),
        temporal_patch=reader.size(patches, 2),
        merge=image.get("merge", round((reader.size(f"{prefix}.merger.linear_fc1.weight", 1) / hidden) ** 0.5)),
        table_side=reader.square_side(f"{prefix}.pos_embed.weight", table),
        channels=reader.size(patches, 1),
    )


def read_processor(config: Mapping[str, Any]) -> ProcessorSizes:
    """Read `preprocessor_config.json` of the Qwen processor, whose bounds are called by either of two names."""
    size = section(config, "size")
    return ProcessorSizes(
        min_pixels=config.get("min_pixels") or size.get("shortest_edge", 65_536),
        max_pixels=config.get("max_pixels") or size.get("longest_edge", 16_777_216),
        mean=tuple(config.get("image_mean", (0.5, 0.5, 0.5))),
        std=tuple(config.get("image_std", (0.5, 0.5, 0.5))),
    )
