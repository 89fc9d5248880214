"""The command on folders of other sizes, grids, views, chunks, steps and masks: it must read every size from the folder.

The numbers here come from our own model, so this judges the command, not the model.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, VARIANTS, inputs, tiny_model, write_tiny

from internvla_a1_ros.evaluation.comparison import Limits
from internvla_a1_ros.evaluation.parity import ModelParity
from internvla_a1_ros.model.flow import TrainingBatch, VelocityField, losses, sample
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.policy.pictures import cosmos_input, model_picture, patches

STRIDE = 3  # of the processor's rows kept


@torch.inference_mode()
def write_reference(folder: Path, sizes: Architecture, missing: tuple[int, ...]) -> Path:
    """A reference folder in the released form, as the tensors of `sizes` say."""
    model = tiny_model(sizes)
    write_tiny(folder, sizes)
    draw = torch.Generator().manual_seed(5)
    views = torch.randint(256, (1, sizes.views, 3, 3, *sizes.picture), dtype=torch.uint8, generator=draw)
    frames = torch.stack([model_picture(frame.permute(1, 2, 0).numpy(), sizes.picture) for frame in views[0].flatten(0, 1)])
    frames = frames.unflatten(0, (sizes.views, 3))
    pixels = patches(frames[:, 1], sizes)[None]
    given = inputs(sizes)
    view_mask, mask, ids = given["view_mask"][None], given["mask"][None], given["ids"][None]
    for view in missing:
        view_mask[0, view] = False
        mask[0, view * sizes.view_tokens : (view + 1) * sizes.view_tokens] = False
    state, noise = given["state"][None], given["noise"][None]
    train_noise, actions = torch.randn(2, *noise.shape, generator=draw)

    embeddings, positions = model.embed_prefix(pixels, ids, sizes.grid), model.prefix_positions(mask, sizes.views, sizes.grid)
    prefix = model.prefix(embeddings, mask, positions)
    latents = model.encode(cosmos_input(frames.flatten(0, 1), sizes)).unflatten(0, (1, sizes.views, 3))
    tokens = model.embed_generation(latents[:, :, :2])
    cache = model.generate(prefix, tokens, view_mask)
    hidden = model.generation_hidden(cache)
    future = model.predict_latents(hidden, sizes.views, sizes.generation_grid)
    field = VelocityField(model, cache, state, sizes.chunk)
    time = torch.tensor([0.4])
    loss = losses(model, TrainingBatch(pixels, sizes.grid, ids, mask, view_mask, latents, state, actions), train_noise, time)
    layer = sizes.action.layers - 1
    io = {
        "in.views_uint8": views,
        "in.input_ids": ids,
        "in.attention_mask": mask.long(),
        "in.image_grid_thw": torch.tensor([[[1, *sizes.grid]] * sizes.views]),
        f"in.pixel_values_every_{STRIDE}th_row": pixels.flatten(1, 2)[:, ::STRIDE],
        "in.image_mask": view_mask,
        "in.state": state,
        "in.noise": noise,
        "in.train_actions": actions,
        "in.train_noise": train_noise,
        "in.train_time": time,
        "out.prefix_embeddings": embeddings,
        "out.prefix_position_ids": positions,
        f"out.prefix_key_{layer}": prefix.tokens.keys[layer],
        f"out.prefix_value_{layer}": prefix.tokens.values[layer],
        "out.generation_embeddings": tokens,
        "out.generation_pad_mask": cache.tokens.mask[:, sizes.prefix_tokens :],
        f"out.prefix_and_generation_key_{layer}": cache.tokens.keys[layer],
        "out.generation_hidden": hidden,
        "out.cosmos_latents": latents,
        "out.predicted_future_latents": future,
        "out.predicted_future_images": model.decode(future[0])[None, ..., ::4, ::4],
        "out.velocities": sample(field, noise, make_plan(steps=sizes.flow_steps))[1],
        "out.actions": sample(field, noise, make_plan(steps=sizes.flow_steps))[0],
        "out.actions_3_steps": sample(field, noise, make_plan(steps=3))[0],
        "out.actions_7_steps": sample(field, noise, make_plan(steps=7))[0],
        "out.loss_action": loss.action,
        "out.loss_generation": loss.generation[None],
    }
    for name in ("prefix_embeddings", "generation_embeddings", "generation_hidden", "predicted_future_latents"):
        valid = {"prefix": mask, "predicted": view_mask}.get(name.split("_")[0], io["out.generation_pad_mask"])
        io[f"out.{name}"][~valid] = torch.nan  # rows that mean nothing must not be looked at
    save_file({name: tensor.contiguous() for name, tensor in io.items()}, str(folder / "io.safetensors"))
    return folder


def faults(folder: Path) -> list[str]:
    parity = ModelParity(folder, "reference", "float32", "cpu", Limits())
    rows = list(parity.rows())
    assert not parity.io.unasked("out.")
    assert len(rows) == 19
    return [f"{row.name}: {row.error:.1e} {row.trouble}" for row in rows if not row.ok]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_size_is_read_from_the_folder(tmp_path: Path, name: str) -> None:
    assert faults(write_reference(tmp_path, VARIANTS[name], ())) == []


@pytest.mark.parametrize("missing", [(0,), (1,), (2,), (0, 1), (0, 2)])
def test_any_view_may_be_missing(tmp_path: Path, missing: tuple[int, ...]) -> None:
    assert faults(write_reference(tmp_path, TINY, missing)) == []


def test_what_the_folder_shows_beats_what_its_files_say(tmp_path: Path) -> None:
    """Views, grid, chunk, prompt and Cosmos sides are seen in the tensors; the files may be silent or the released defaults."""
    folder = write_reference(tmp_path, replace(TINY, views=4, picture=(64, 64), grid=(8, 8), chunk=9, prompt_tokens=11), (3,))
    told = json.loads((folder / "architecture.json").read_text())
    for table, key in ((told, "views"), (told["cosmos"], "picture_size"), (told["image"], "grid"), (told["image"], "size")):
        del table[key]
    (folder / "architecture.json").write_text(json.dumps(told))
    config = json.loads((folder / "config.json").read_text())
    config.update(chunk_size=50, tokenizer_max_length=48, image_resolution=[224, 224])
    (folder / "config.json").write_text(json.dumps(config))
    assert faults(folder) == []


def test_camera_pictures_are_fitted_first(tmp_path: Path) -> None:
    """Where the views are not at the model's size they go the way of a camera's picture. Halving undoes doubling."""
    folder = write_reference(tmp_path, TINY, ())
    io = load_file(str(folder / "io.safetensors"))
    big = io["in.views_uint8"].repeat_interleave(2, -1).repeat_interleave(2, -2)
    save_file({**io, "in.views_uint8": big}, str(folder / "io.safetensors"))
    assert faults(folder) == []
