"""Writes a checkpoint folder in the released format, together with the files that say its sizes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from internvla_a1_ros.model.model import InternVLAA1
from internvla_a1_ros.model.names import FILE_PREFIX, TOKEN_TABLE, saved
from internvla_a1_ros.model.shapes import GENERATION
from internvla_a1_ros.model.sizes import Architecture, StackSizes

Table = dict[str, Any]


def write_checkpoint(folder: Path, model: InternVLAA1, dtype: torch.dtype) -> None:
    """Write weights (in `dtype`, under their released names) and sizes of `model`; statistics and tokenizer are the caller's."""
    sizes = model.sizes
    weights = {saved(name, sizes.layout): tensor.detach().to(dtype).contiguous() for name, tensor in model.named_parameters()}
    if sizes.layout.tower == "internvl":
        weights |= unread_weights(model, dtype)
    write_sizes(folder, sizes, dtype)
    save_tensors(folder / "model.safetensors", weights)


def save_tensors(path: Path, tensors: dict[str, Tensor], told: dict[str, str] | None = None) -> None:
    """Write a safetensors file that whoever may read other new files may read: a robot's nodes seldom run as the one who trains.

    The library leaves it to its owner alone. Raises OSError and SafetensorError.
    """
    save_file(tensors, str(path), told)
    others = os.umask(0o077)
    os.umask(others)
    path.chmod(0o666 & ~others)


def write_sizes(folder: Path, sizes: Architecture, dtype: torch.dtype) -> None:
    """Write the files that say the sizes of a model whose weights are saved in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(sizes, dtype)
    if sizes.layout.tower == "internvl":
        config |= {"imagenet_mean": list(sizes.processor.mean), "imagenet_std": list(sizes.processor.std)}
        tables = {"config.json": config, "architecture.json": internvl_architecture_of(sizes)}
    else:
        tables = {"config.json": config, "architecture.json": architecture_of(sizes), "preprocessor_config.json": processor_of(sizes)}
    for name, table in tables.items():
        write_json(folder / name, table)


def unread_weights(model: InternVLAA1, dtype: torch.dtype) -> dict[str, Tensor]:
    """What the released 2B code saves besides and its loader asks for: the output head (as tied) and the pictures' constants."""
    processor = model.sizes.processor
    constants = {"imagenet_mean": processor.mean, "imagenet_std": processor.std}
    weights = {FILE_PREFIX + name: torch.tensor(numbers).view(1, -1, 1, 1).to(dtype) for name, numbers in constants.items()}
    table = model.get_parameter(TOKEN_TABLE).detach()
    return weights | {f"{FILE_PREFIX}internvl_with_expert.und_expert.lm_head.weight": table.to(dtype, copy=True)}


def write_json(path: Path, table: Table) -> None:
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def config_of(sizes: Architecture, dtype: torch.dtype) -> Table:
    """What the released `config.json` says of the sizes."""
    return {
        "type": sizes.layout.kind,
        "dtype": str(dtype).removeprefix("torch."),
        "input_features": {"observation.state": {"type": "STATE", "shape": [sizes.state_width]}},
        "output_features": {"action": {"type": "ACTION", "shape": [sizes.robot_width]}},
        "chunk_size": sizes.chunk,
        "n_action_steps": sizes.chunk,
        "max_state_dim": sizes.state_width,
        "max_action_dim": sizes.action_width,
        "num_inference_steps": sizes.flow_steps,
        "min_period": sizes.min_period,
        "max_period": sizes.max_period,
        "image_resolution": list(sizes.picture),
        "tokenizer_max_length": sizes.prompt_tokens,
        "scale_factor": sizes.latent_stride,
        "lambda_gen": sizes.lambda_generation,
    }


def architecture_of(sizes: Architecture) -> Table:
    """The sizes that the released config names only by variant. `cosmos.picture_size` and `views` are ours."""
    vision = sizes.vision
    return {
        "understanding": stack_of(sizes.understanding),
        **experts_of(sizes),
        "vision": {
            "depth": vision.layers,
            "hidden_size": vision.hidden,
            "intermediate_size": vision.mlp,
            "num_heads": vision.heads,
            "num_position_embeddings": vision.table_side**2,
        },
        "vocab_size": sizes.vocabulary,
        "token_ids": asdict(sizes.tokens),
        "cosmos": cosmos_of(sizes),
        "rope": {"theta": sizes.rope.theta, "mrope_section": list(sizes.rope.sections), "mrope_interleaved": True},
        "rms_norm_eps": sizes.rms_norm_eps,
        "layer_norm_eps": sizes.vision_norm_eps,
        "image": {"size": list(sizes.picture), "patch": vision.patch, "merge": vision.merge, "grid": list(sizes.grid)},
        "views": sizes.views,
    }


def internvl_architecture_of(sizes: Architecture) -> Table:
    """The same for the 2B layout, whose three experts are usually of one size. `token_ids`, `cosmos.picture_size`, `views` are ours."""
    vision, side = sizes.vision, sizes.vision.table_side * sizes.vision.patch
    theta = sizes.rope.theta
    if sizes.action == sizes.generation == sizes.understanding:
        stacks = {"text_and_experts": stack_of(sizes.understanding)}
    else:
        stacks = {"understanding": stack_of(sizes.understanding), **experts_of(sizes)}
    return {
        **stacks,
        "vision": {
            "hidden_size": vision.hidden,
            "intermediate_size": vision.mlp,
            "num_attention_heads": vision.heads,
            "num_hidden_layers": vision.layers,
            "image_size": [side, side],
            "patch_size": [vision.patch, vision.patch],
        },
        "vocab_size": sizes.vocabulary,
        "token_ids": asdict(sizes.tokens),
        "image": {"size": list(sizes.picture), "patch": [vision.patch, vision.patch]},
        "rope_theta": {"understanding": theta, "experts": sizes.expert_rope.theta},
        "rms_norm_eps": sizes.rms_norm_eps,
        "vision_layer_norm_eps": sizes.vision_norm_eps,
        "downsample_ratio": 1 / vision.merge,
        "cosmos": cosmos_of(sizes),
        "views": sizes.views,
    }


def experts_of(sizes: Architecture) -> Table:
    """The released experts are of one size; a generation expert of its own size has an entry of its own."""
    generation = {} if sizes.generation == sizes.action else {GENERATION: stack_of(sizes.generation)}
    return {"experts": stack_of(sizes.action), **generation}


def cosmos_of(sizes: Architecture) -> Table:
    cosmos = sizes.cosmos
    return {
        "channels": cosmos.stem,
        "channels_mult": [channels // cosmos.stem for channels in cosmos.level_channels],
        "num_res_blocks": cosmos.encoder_blocks,
        "patch_size": cosmos.patch,
        "z_channels": cosmos.bottleneck,
        "spatial_compression": cosmos.compression,
        **({} if cosmos.groups == 32 else {"norm_groups": cosmos.groups}),
        "picture_size": list(sizes.cosmos_picture),
    }


def stack_of(stack: StackSizes) -> Table:
    return {
        "hidden_size": stack.hidden,
        "intermediate_size": stack.mlp,
        "num_attention_heads": stack.heads,
        "head_dim": stack.head_dim,
        "num_hidden_layers": stack.layers,
        "num_key_value_heads": stack.kv_heads,
    }


def processor_of(sizes: Architecture) -> Table:
    """What Qwen's `preprocessor_config.json` says of the sizes."""
    return {
        "size": {"shortest_edge": sizes.processor.min_pixels, "longest_edge": sizes.processor.max_pixels},
        "patch_size": sizes.vision.patch,
        "temporal_patch_size": sizes.vision.temporal_patch,
        "merge_size": sizes.vision.merge,
        "image_mean": list(sizes.processor.mean),
        "image_std": list(sizes.processor.std),
    }
