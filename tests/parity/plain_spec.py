"""Sizes of a 2B reference folder, read from it or made up, and its two JSON files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """Sizes of a folder. `picture`, `cosmos_picture`: (rows, columns) of pixels; `table`: rows of the tower's position table."""

    hidden: int = 24
    mlp: int = 40
    heads: int = 4
    kv_heads: int = 2
    layers: int = 2
    vision: tuple[int, int, int, int] = (16, 24, 2, 2)  # hidden, MLP, heads, layers
    patch: int = 14
    table: int = 4
    picture: tuple[int, int] = (56, 56)
    vocabulary: int = 50
    text: int = 7
    views: int = 3
    chunk: int = 6
    width: int = 12
    robot: int = 5
    cosmos: tuple[int, tuple[int, ...], int, int] = (32, (1, 2), 1, 4)  # channels, multipliers, blocks, latent channels
    cosmos_patch: int = 4
    halvings: int = 1
    cosmos_picture: tuple[int, int] = (32, 32)
    stride: int = 2
    steps: int = 3
    thetas: tuple[float, float] = (10_000.0, 10_000.0)

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @classmethod
    def of(cls, folder: Path, io: dict[str, Tensor]) -> Spec:
        told, config = (json.loads((folder / name).read_text()) for name in ("architecture.json", "config.json"))
        stack, vision, cosmos = told["text_and_experts"], told["vision"], told["cosmos"]
        keys = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
        compression = cosmos["spatial_compression"]
        latents = io["out.predicted_future_latents"]
        return cls(
            **dict(zip(("hidden", "mlp", "heads", "layers"), (stack[key] for key in keys), strict=True)),
            kv_heads=stack["num_key_value_heads"],
            vision=tuple(vision[key] for key in keys),
            patch=vision["patch_size"][0],
            table=vision["image_size"][0] // vision["patch_size"][0],
            picture=tuple(io["in.views_uint8"].shape[-2:]),
            vocabulary=told["vocab_size"],
            text=io["in.input_ids"].shape[1],
            views=io["in.views_uint8"].shape[1],
            chunk=config["chunk_size"],
            width=config["max_action_dim"],
            robot=config["output_features"]["action"]["shape"][0],
            cosmos=(cosmos["channels"], tuple(cosmos["channels_mult"]), cosmos["num_res_blocks"], cosmos["z_channels"]),
            cosmos_patch=cosmos["patch_size"],
            halvings=(compression // cosmos["patch_size"]).bit_length() - 1,
            cosmos_picture=(latents.shape[-2] * compression, latents.shape[-1] * compression),
            stride=config["scale_factor"],
            steps=config["num_inference_steps"],
            thetas=(told["rope_theta"]["understanding"], told["rope_theta"]["experts"]),
        )

    def tables(self) -> dict[str, dict[str, object]]:
        """`config.json` and `architecture.json` as the reference folders have them."""
        channels, multipliers, blocks, latent = self.cosmos
        hidden, mlp, heads, layers = self.vision
        config = {
            "type": "interna1",
            "output_features": {"action": {"type": "ACTION", "shape": [self.robot]}},
            "internvl_variant": "internvl_24l",
            "chunk_size": self.chunk,
            "max_state_dim": self.width,
            "max_action_dim": self.width,
            "num_inference_steps": self.steps,
            "image_resolution": [224, 224],
            "tokenizer_max_length": self.text,
            "scale_factor": self.stride,
        }
        architecture = {
            "text_and_experts": {
                "hidden_size": self.hidden,
                "intermediate_size": self.mlp,
                "num_attention_heads": self.heads,
                "num_hidden_layers": self.layers,
                "num_key_value_heads": self.kv_heads,
            },
            "vision": {
                "hidden_size": hidden,
                "intermediate_size": mlp,
                "num_attention_heads": heads,
                "num_hidden_layers": layers,
                "image_size": [self.table * self.patch] * 2,
                "patch_size": [self.patch] * 2,
            },
            "vocab_size": self.vocabulary,
            "image": {"size": list(self.picture), "patch": [self.patch] * 2},
            "rope_theta": {"understanding": self.thetas[0], "experts": self.thetas[1]},
            "downsample_ratio": 0.5,
            "cosmos": {
                "channels": channels,
                "channels_mult": list(multipliers),
                "num_res_blocks": blocks,
                "patch_size": self.cosmos_patch,
                "z_channels": latent,
                "spatial_compression": self.cosmos_patch << self.halvings,
            },
        }
        return {"config.json": config, "architecture.json": architecture}
