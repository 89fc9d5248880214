"""Every size of a model; `reading.py` finds them in a checkpoint. No size is written anywhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.layout import QWENA1, Layout

Pair = tuple[int, int]
FRAMES = 2  # past and now: what the generation expert reads of each view


@dataclass(frozen=True, slots=True)
class StackSizes:
    """One expert: a stack of Qwen3 layers, or of Qwen2 layers, which have biases on q, k, v and no norm of q and k."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    qk_norm: bool = True


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """The vision tower. `table_side`: rows (and columns) of the learned position table. `merge`: patches a side of a token.

    `temporal_patch` is 1 where a picture is not repeated in time; `theta` is of a tower with rotary positions.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    patch: int
    temporal_patch: int
    merge: int
    table_side: int
    channels: int = 3
    theta: float = 10_000.0

    @property
    def patch_width(self) -> int:
        """Numbers in one flattened patch: channel, time, row, column."""
        return self.channels * self.temporal_patch * self.patch * self.patch


@dataclass(frozen=True, slots=True)
class CosmosSizes:
    """The Cosmos autoencoder: `stem` channels enter the levels, whose channels go from the picture inwards.

    `patch`: pixels a side that the Haar steps fold into channels; `halvings`: strided convolutions after them; `groups`: of every norm.
    """

    stem: int
    level_channels: tuple[int, ...]
    encoder_blocks: int
    decoder_blocks: int
    patch: int
    halvings: int
    bottleneck: int
    latent_channels: int
    groups: int = 32

    @property
    def haar_steps(self) -> int:
        return self.patch.bit_length() - 1

    @property
    def compression(self) -> int:
        """Pixels a side of one latent."""
        return self.patch << self.halvings


@dataclass(frozen=True, slots=True)
class RopeSizes:
    """Rotary positions. `sections`: frequencies of (time, row, column); (all, 0, 0) are the usual ones of one axis."""

    theta: float
    sections: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenIds:
    vision_start: int
    image: int
    vision_end: int
    pad: int


@dataclass(frozen=True, slots=True)
class ProcessorSizes:
    """The processor's rule: sides rounded to whole tokens within so many pixels, then (x - mean) / std per channel."""

    min_pixels: int
    max_pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def grid(self, picture: Pair, patch: int, merge: int) -> Pair:
        """Patches (rows, columns) of a picture (height, width): each side to the nearest token, then into the bounds."""
        unit, (height, width) = patch * merge, picture
        sides = [round(side / unit) * unit for side in picture]
        if sides[0] * sides[1] > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            sides = [max(unit, math.floor(side / shrink / unit) * unit) for side in picture]
        elif sides[0] * sides[1] < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            sides = [math.ceil(side * grow / unit) * unit for side in picture]
        return sides[0] // patch, sides[1] // patch


@dataclass(frozen=True, slots=True)
class Architecture:
    """Every size of a checkpoint, and its layout.

    `picture` (height, width) is what the cameras' pictures are padded to, `grid` the patches (rows, columns) the processor
    makes of it, `cosmos_picture` what the Cosmos encoder reads. `rope` is the understanding expert's; `expert_theta` the base
    of the other two where theirs differs.
    """

    understanding: StackSizes
    generation: StackSizes
    action: StackSizes
    vision: VisionSizes
    cosmos: CosmosSizes
    rope: RopeSizes
    tokens: TokenIds
    vocabulary: int
    views: int
    picture: Pair
    grid: Pair
    processor: ProcessorSizes
    cosmos_picture: Pair
    latent_stride: int
    prompt_tokens: int
    chunk: int
    flow_steps: int
    state_width: int
    action_width: int
    robot_width: int
    rms_norm_eps: float
    vision_norm_eps: float
    min_period: float
    max_period: float
    lambda_generation: float
    layout: Layout = QWENA1
    expert_theta: float | None = None

    def __post_init__(self) -> None:
        shared = {(s.layers, s.kv_heads, s.head_dim) for s in (self.understanding, self.generation, self.action)}
        if len(shared) > 1:
            raise CheckpointError(f"the experts' (layers, key/value heads, head_dim) are {sorted(shared)}, expected the same for all")
        if self.grid[0] % self.vision.merge or self.grid[1] % self.vision.merge:
            raise CheckpointError(f"image.grid: got {self.grid[0]}x{self.grid[1]} patches, expected multiples of {self.vision.merge}")
        unit, side = self.cosmos.compression * self.latent_stride, self.cosmos_picture
        if side[0] % unit or side[1] % unit:
            raise CheckpointError(f"cosmos.picture_size: got {side[0]}x{side[1]}, expected multiples of {unit}")
        if not 0 < self.robot_width <= self.action_width:
            raise CheckpointError(f"output_features.action.shape: got {self.robot_width}, expected 1 to {self.action_width}")

    @property
    def token_grid(self) -> Pair:
        """Understanding tokens (rows, columns) of one view."""
        return self.grid[0] // self.vision.merge, self.grid[1] // self.vision.merge

    @property
    def view_tokens(self) -> int:
        """Prefix tokens of one view, its start and end included where the layout has them."""
        return self.token_grid[0] * self.token_grid[1] + 2 * self.layout.view_ends

    @property
    def patch_block(self) -> int:
        """Patches stand in blocks of so many a side, row by row inside and among them."""
        return self.vision.merge if self.layout.merge_order else 1

    @property
    def expert_rope(self) -> RopeSizes:
        """Rotary positions of the generation and action experts."""
        return self.rope if self.expert_theta is None else replace(self.rope, theta=self.expert_theta)

    @property
    def prefix_tokens(self) -> int:
        return self.views * self.view_tokens + self.prompt_tokens

    @property
    def latent_grid(self) -> Pair:
        """Latents (rows, columns) of one picture."""
        return self.cosmos_picture[0] // self.cosmos.compression, self.cosmos_picture[1] // self.cosmos.compression

    def with_layers(self, layers: int) -> Architecture:
        """The same with at most so many layers in each stack."""
        stacks = {name: getattr(self, name) for name in ("understanding", "generation", "action", "vision")}
        return replace(self, **{name: replace(stack, layers=min(layers, stack.layers)) for name, stack in stacks.items()})

    @property
    def generation_tokens(self) -> int:
        """Generation tokens of all views and frames."""
        return self.views * FRAMES * self.generation_grid[0] * self.generation_grid[1]

    @property
    def generation_grid(self) -> Pair:
        """Generation tokens (rows, columns) of one frame."""
        return self.latent_grid[0] // self.latent_stride, self.latent_grid[1] // self.latent_stride
