"""Sizes read off the shapes of a checkpoint's weights, and the tables of its JSON files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.layout import QWENA1, Layout
from internvla_a1_ros.model.names import saved
from internvla_a1_ros.model.sizes import CosmosSizes, Pair, ProcessorSizes, RopeSizes, StackSizes, TokenIds, VisionSizes

Shapes = Mapping[str, tuple[int, ...]]
Told = Mapping[str, Any]
GENERATION = "generation"  # in architecture.json, where that expert is not of the size of both


def pair(value: Any, what: str) -> Pair:
    """Read 224 or [224, 320] as (rows, columns). Raises CheckpointError naming `what`."""
    two = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(two) != 2 or not all(isinstance(n, int) and n > 0 for n in two):
        raise CheckpointError(f"{what}: got {value!r}, expected one whole number above 0 or two of them")
    return two[0], two[1]


def section(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return `table[key]` as a mapping, empty where it is absent. Raises CheckpointError where it is something else."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise CheckpointError(f"'{key}': got {type(value).__name__}, expected a table of sizes")
    return value


@dataclass(frozen=True, slots=True)
class Backbone:
    """The sizes that are found in another way in each layout; `sizes.Architecture` says what they are."""

    understanding: StackSizes
    generation: StackSizes
    action: StackSizes
    vision: VisionSizes
    rope: RopeSizes
    tokens: TokenIds
    picture: Pair
    grid: Pair
    processor: ProcessorSizes
    vision_norm_eps: float
    expert_theta: float | None = None


class ShapeReader:
    """Reads sizes off the weights' shapes; what `architecture.json` tells wins, and the loader then names the weight that misfits."""

    def __init__(self, shapes: Shapes, layout: Layout = QWENA1) -> None:
        self.shapes, self.layout = shapes, layout

    def saved(self, name: str) -> str:
        return saved(name, self.layout)

    def size(self, name: str, axis: int) -> int:
        if name not in self.shapes:
            raise CheckpointError(f"missing weight '{self.saved(name)}'")
        shape = self.shapes[name]
        if axis >= len(shape):
            raise CheckpointError(f"weight '{self.saved(name)}': got shape {list(shape)}, expected at least {axis + 1} axes")
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

    def square_side(self, name: str, positions: int) -> int:
        """Rows of a square table of so many `positions`. Raises CheckpointError naming the weight where it is not square."""
        side = round(positions**0.5)
        if side * side != positions:
            raise CheckpointError(f"weight '{self.saved(name)}': got {positions} positions, expected a square number")
        return side

    def stack(self, prefix: str, told: Told, head_dim: int) -> StackSizes:
        layers = f"{prefix}.layers"
        queries, keys = (self.usual(layers, f"self_attn.{which}_proj.weight", 0) for which in "qk")
        return StackSizes(
            hidden=told.get("hidden_size", self.size(f"{prefix}.norm.weight", 0)),
            mlp=told.get("intermediate_size", self.usual(layers, "mlp.gate_proj.weight", 0)),
            layers=told.get("num_hidden_layers", self.count(layers)),
            heads=told.get("num_attention_heads", queries // head_dim),
            kv_heads=told.get("num_key_value_heads", keys // head_dim),
            head_dim=head_dim,
            qkv_bias=self.layout.qkv_bias,
            qk_norm=self.layout.qk_norm,
        )

    def cosmos(self, told: Told) -> CosmosSizes:
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
            groups=told.get("norm_groups", 32),
        )
