"""Finds a checkpoint's sizes: `architecture.json` first, then the shapes of its weights.

What neither tells (rope, eps, token ids, the sizes of pictures) has the released backbone's value as its default. The name
of the variant in `config.json` is never asked: the references say `qwen3_vl_2b` and hold three layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.names import saved
from internvla_a1_ros.model.sizes import Architecture, CosmosSizes, Pair, ProcessorSizes, RopeSizes, StackSizes, TokenIds, VisionSizes

Shapes = Mapping[str, tuple[int, ...]]


def pair(value: Any, what: str) -> Pair:
    """Read 224 or [224, 320] as (rows, columns). Raises CheckpointError naming `what`."""
    two = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(two) != 2 or not all(isinstance(n, int) and n > 0 for n in two):
        raise CheckpointError(f"{what}: got {value!r}, expected one whole number above 0 or two of them")
    return two[0], two[1]


def read_architecture(shapes: Shapes, config: Mapping[str, Any], told: Mapping[str, Any], processor: Mapping[str, Any]) -> Architecture:
    """Gather all sizes from the weights' `shapes` (our names), `config.json`, `architecture.json` (`told`) and `preprocessor_config.json`.

    The last two may be empty.
    Raises CheckpointError naming the weight or the entry that is missing or cannot be.
    """
    reader = ShapeReader(shapes)
    told_experts = section(told, "experts")
    image, cosmos, rope, tokens = (section(told, key) for key in ("image", "cosmos", "rope", "token_ids"))
    understanding = reader.stack("understanding.text", section(told, "understanding"))
    vision = reader.vision(section(told, "vision"), image)
    picture = pair(image.get("size", config.get("image_resolution", 224)), "image.size")
    rule = read_processor(processor)
    grid = pair(image["grid"], "image.grid") if "grid" in image else rule.grid(picture, vision.patch, vision.merge)
    output = section(section(config, "output_features"), "action")
    action_width = config.get("max_action_dim", reader.size("action_in_proj.weight", 1))
    return Architecture(
        understanding=understanding,
        generation=reader.stack("generation", told_experts),
        action=reader.stack("action", told_experts),
        vision=vision,
        cosmos=reader.cosmos(cosmos),
        rope=RopeSizes(float(rope.get("theta", 5_000_000.0)), tuple(rope.get("mrope_section", (24, 20, 20)))),
        tokens=TokenIds(
            tokens.get("vision_start", 151652), tokens.get("image", 151655), tokens.get("vision_end", 151653), tokens.get("pad", 151643)
        ),
        vocabulary=told.get("vocab_size", reader.size("understanding.text.embed_tokens.weight", 0)),
        views=told.get("views", 3),
        picture=picture,
        grid=grid,
        processor=rule,
        cosmos_picture=pair(cosmos.get("picture_size", 256), "cosmos.picture_size"),
        latent_stride=config.get("scale_factor", reader.size("downsample_conv.weight", 2)),
        prompt_tokens=config.get("tokenizer_max_length", 48),
        chunk=config.get("chunk_size", told.get("chunk_size", 50)),
        flow_steps=config.get("num_inference_steps", told.get("num_inference_steps", 10)),
        state_width=config.get("max_state_dim", reader.size("state_proj.weight", 1)),
        action_width=action_width,
        robot_width=(output.get("shape") or [told.get("action_dim", action_width)])[0],
        rms_norm_eps=told.get("rms_norm_eps", 1e-6),
        vision_norm_eps=told.get("layer_norm_eps", 1e-6),
        min_period=config.get("min_period", 4e-3),
        max_period=config.get("max_period", 4.0),
        lambda_generation=config.get("lambda_gen", 0.01),
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


def section(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return `table[key]` as a mapping, empty where it is absent. Raises CheckpointError where it is something else."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise CheckpointError(f"'{key}': got {type(value).__name__}, expected a table of sizes")
    return value


class ShapeReader:
    """Reads sizes off the weights' shapes; what `architecture.json` tells wins, and the loader then names the weight that misfits."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def size(self, name: str, axis: int) -> int:
        if name not in self.shapes:
            raise CheckpointError(f"missing weight '{saved(name)}'")
        shape = self.shapes[name]
        if axis >= len(shape):
            raise CheckpointError(f"weight '{saved(name)}': got shape {list(shape)}, expected at least {axis + 1} axes")
        return shape[axis]

    def count(self, prefix: str) -> int:
        """One more than the largest number i of the names prefix.i, so that a gap is found missing later."""
        cut = len(prefix) + 1
        numbers = {name[cut:].split(".", 1)[0] for name in self.shapes if name.startswith(prefix + ".")}
        return max((int(n) + 1 for n in numbers if n.isdigit()), default=0)

    def usual(self, prefix: str, name: str, axis: int) -> int:
        """The size most layers prefix.i.name have, so that one misshapen layer is the one that gets named."""
        found = [f"{prefix}.{i}.{name}" for i in range(self.count(prefix)) if f"{prefix}.{i}.{name}" in self.shapes]
        return Counter(self.size(f, axis) for f in found or [f"{prefix}.0.{name}"]).most_common(1)[0][0]

    def stack(self, prefix: str, told: Mapping[str, Any]) -> StackSizes:
        layers = f"{prefix}.layers"
        head_dim = told.get("head_dim", self.usual(layers, "self_attn.q_norm.weight", 0))
        return StackSizes(
            hidden=told.get("hidden_size", self.size(f"{prefix}.norm.weight", 0)),
            mlp=told.get("intermediate_size", self.usual(layers, "mlp.gate_proj.weight", 0)),
            layers=told.get("num_hidden_layers", self.count(layers)),
            heads=told.get("num_attention_heads", self.usual(layers, "self_attn.q_proj.weight", 0) // head_dim),
            kv_heads=told.get("num_key_value_heads", self.usual(layers, "self_attn.k_proj.weight", 0) // head_dim),
            head_dim=head_dim,
        )

    def vision(self, told: Mapping[str, Any], image: Mapping[str, Any]) -> VisionSizes:
        prefix, patches = "understanding.vision", "understanding.vision.patch_embed.proj.weight"
        hidden = told.get("hidden_size", self.size(f"{prefix}.merger.norm.weight", 0))
        heads = told.get("num_heads", 16)  # the one size of the tower that its shapes do not tell
        if hidden % heads or (hidden // heads) % 4:
            raise CheckpointError(
                f"vision tower: a width of {hidden} is not {heads} heads of a multiple of 4; architecture.json must say vision.num_heads"
            )
        table = told.get("num_position_embeddings", self.size(f"{prefix}.pos_embed.weight", 0))
        side = round(table**0.5)
        if side * side != table:
            raise CheckpointError(f"weight '{saved(prefix + '.pos_embed.weight')}': got {table} positions, expected a square number")
        return VisionSizes(
            hidden=hidden,
            mlp=told.get("intermediate_size", self.usual(f"{prefix}.blocks", "mlp.linear_fc1.weight", 0)),
            layers=told.get("depth", self.count(f"{prefix}.blocks")),
            heads=heads,
            patch=image.get("patch", self.size(patches, 3)),
            temporal_patch=self.size(patches, 2),
            merge=image.get("merge", round((self.size(f"{prefix}.merger.linear_fc1.weight", 1) / hidden) ** 0.5)),
            table_side=side,
            channels=self.size(patches, 1),
        )

    def cosmos(self, told: Mapping[str, Any]) -> CosmosSizes:
        levels = self.count("cosmos.encoder.down")
        channels = tuple(self.size(f"cosmos.encoder.down.{i}.block.0.conv1.weight", 0) for i in range(levels))
        if "channels" in told and "channels_mult" in told:
            channels = tuple(told["channels"] * multiple for multiple in told["channels_mult"])
        patch = told.get("patch_size", round((self.size("cosmos.encoder.conv_in.weight", 1) / 3) ** 0.5))
        halvings = sum(f"cosmos.encoder.down.{i}.downsample.conv.weight" in self.shapes for i in range(levels))
        if "spatial_compression" in told:
            halvings = (told["spatial_compression"] // patch).bit_length() - 1
        encoder_blocks = told.get("num_res_blocks", self.count("cosmos.encoder.down.0.block"))
        return CosmosSizes(
            stem=told.get("channels", self.size("cosmos.encoder.conv_in.weight", 0)),
            level_channels=channels,
            encoder_blocks=encoder_blocks,
            decoder_blocks=encoder_blocks + 1 if "num_res_blocks" in told else self.count("cosmos.decoder.up.0.block"),
            patch=patch,
            halvings=halvings,
            bottleneck=told.get("z_channels", self.size("cosmos.encoder.conv_out.weight", 0)),
            latent_channels=self.size("cosmos.encoder.quant_conv.weight", 0),
        )
