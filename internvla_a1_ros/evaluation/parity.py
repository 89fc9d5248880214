"""A reference folder against our model, stage by stage. Every size is read from the folder.

A model folder holds a checkpoint and `io.safetensors` with the inputs and outputs of the released forward code; stages run one
after the other on our own results, so errors add up as they do in use. Rows of valid tokens only.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.evaluation.comparison import Limits, Numbers, Row, compare, compare_mean
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.model.files import read_json
from internvla_a1_ros.model.flow import TrainingBatch, VelocityField, losses, sample
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.model.layout import INTERNA1
from internvla_a1_ros.model.model import GenerationCache, PrefixCache
from internvla_a1_ros.model.reading_internvl import grid_of
from internvla_a1_ros.model.sizes import Architecture, Pair
from internvla_a1_ros.model.text import KeysValues
from internvla_a1_ros.policy import pictures

PIXELS = re.compile(r"in\.pixel_values_every_(\d+)th_row")
CACHED = re.compile(r"out\.(prefix|prefix_and_generation)_(key|value)_(\d+)")
STEPPED = re.compile(r"out\.actions_(\d+)_steps")


def folder_sizes(folder: Path, io: Numbers) -> Architecture:
    """The checkpoint's sizes, with those that the folder's own inputs and outputs show."""
    sizes = load_architecture(folder)
    raw = io["in.views_uint8"]
    views = raw.shape[1]
    if not (told := folder / "architecture.json").is_file() or "size" not in read_json(told).get("image", {}):
        # The released code is given pictures at its own size, whatever its config's default says. Where the size is told and
        # another, they are a camera's pictures and go the camera's way.
        sizes = replace(sizes, picture=(raw.shape[-2], raw.shape[-1]))
    grid = shown_grid(io) or grid_of(sizes.picture, sizes.vision.patch)
    latents = next((io[name] for name in ("out.cosmos_latents", "out.predicted_future_latents") if name in io), None)
    if latents is not None:
        rows, columns = latents.shape[-2:]
        sizes = replace(sizes, cosmos_picture=(rows * sizes.cosmos.compression, columns * sizes.cosmos.compression))
    sizes = replace(sizes, views=views, grid=grid, chunk=io["in.noise"].shape[1])
    text = io["in.input_ids"].shape[1]
    if sizes.layout is not INTERNA1:
        text -= views * sizes.view_tokens
    if text < 0:
        raise CheckpointError(f"reference folder: {io['in.input_ids'].shape[1]} prefix tokens do not hold {views} views of grid {grid}")
    return replace(sizes, prompt_tokens=text)


def shown_grid(io: Numbers) -> Pair | None:
    """Patches (rows, columns) of a view as the folder's inputs show them, None where they do not."""
    if "in.image_grid_thw" not in io:
        return None
    grids = {(int(rows), int(columns)) for time, rows, columns in io["in.image_grid_thw"].view(-1, 3).tolist()}
    if len(grids) != 1:
        raise CheckpointError(f"reference folder: views of {len(grids)} different grids, expected one")
    return grids.pop()


def whole_prefix(io: Numbers, sizes: Architecture) -> tuple[Tensor, Tensor]:
    """Token ids [B, L] and validity [B, L] of the prefix; of the 2B layout the folder holds the text's alone."""
    ids, mask = io["in.input_ids"], io["in.attention_mask"].bool()
    if sizes.layout is not INTERNA1:
        return ids, mask
    pictures = io["in.image_mask"].bool().repeat_interleave(sizes.view_tokens, 1)
    return torch.cat((torch.zeros_like(pictures, dtype=ids.dtype), ids), 1), torch.cat((pictures, mask), 1)


class ModelParity:
    """The stages of one model folder; each yields its rows and keeps what the next one needs."""

    def __init__(self, folder: Path, engine: str, precision: str, device: str, limits: Limits) -> None:
        """Raises ConfigurationError where folder or engine cannot be used."""
        self.io, self.limits = Numbers(folder), limits
        self.sizes = folder_sizes(folder, self.io)
        self.engine = make_engine(engine, folder, precision=precision, device=device, sizes=self.sizes, build=True)
        # What lies inside the five calls can only be seen in the eager model.
        self.model = self.engine.model if isinstance(self.engine, ReferenceEngine) else None
        self.device = device
        self.input_ids, self.mask = whole_prefix(self.io, self.sizes)
        self.view_mask = self.io["in.image_mask"].bool()

    @torch.inference_mode()
    def rows(self) -> Iterator[Row]:
        views = self.pictures()  # [V, 3 times, 3, h, w]
        yield from self.processor(views)
        prefix = yield from self.understanding()
        cache = yield from self.generation(prefix, views)
        yield from self.flow(cache)
        yield from self.future(cache)
        yield from self.losses()

    def row(self, stage: str, name: str, got: Tensor, valid: Tensor | None = None) -> Iterator[Row]:
        """Compare with `name`, where the folder has it, in the rows [B, T] or [B, V] that are `valid`."""
        if name in self.io:
            want = self.io[name]
            if valid is not None and got.shape == want.shape:
                got, want = got.cpu()[valid], want[valid]
            yield compare(stage, name, got, want, self.limits)

    def pictures(self) -> Tensor:
        raw = self.io["in.views_uint8"][0]
        frames = [pictures.model_picture(frame.permute(1, 2, 0).numpy(), self.sizes.picture) for frame in raw.flatten(0, 1)]
        return torch.stack(frames).unflatten(0, raw.shape[:2])

    def processor(self, views: Tensor) -> Iterator[Row]:
        self.pixel_values = pictures.patches(views[:, -2], self.sizes)
        for name in self.io.names:
            if found := PIXELS.fullmatch(name):
                yield from self.row("processor", name, self.pixel_values.flatten(0, 1)[None, :: int(found[1])])

    def understanding(self) -> Generator[Row, None, PrefixCache]:
        yield from self.row("prefix", "out.prefix_pad_mask", self.mask)
        if self.model is not None:
            grid = self.sizes.grid
            embeddings = self.model.embed_prefix(self.pixel_values[None].to(self.device), self.input_ids.to(self.device), grid)
            yield from self.row("prefix", "out.prefix_embeddings", embeddings, self.mask)
            positions = self.model.prefix_positions(self.mask.to(self.device), self.sizes.views, grid)
            positions = positions[0] if self.sizes.layout.positions == "counted" else positions
            yield from self.row("prefix", "out.prefix_position_ids", positions, self.mask.expand_as(positions))
        prefix = self.engine.prefix(self.pixel_values, self.input_ids[0], self.mask[0])
        yield from self.cached("prefix", prefix.tokens, self.mask)
        return prefix

    def cached(self, which: str, tokens: KeysValues, valid: Tensor) -> Iterator[Row]:
        """Keys and values of every layer the folder holds, of tokens that are `valid` [1, T] there; an engine may keep only those."""
        for name in self.io.names:
            found = CACHED.fullmatch(name)
            if found and found[1] == which:
                kept = tokens.keys if found[2] == "key" else tokens.values
                if int(found[3]) >= len(kept):
                    raise CheckpointError(f"reference folder: '{name}', but the model has {len(kept)} layers")
                got, want = kept[int(found[3])][:, :, tokens.mask[0]], self.io[name][:, :, valid[0]]
                yield compare(which.replace("_and_", " + "), name, got, want, self.limits)

    def generation(self, prefix: PrefixCache, views: Tensor) -> Generator[Row, None, GenerationCache]:
        count, times = views.shape[:2]
        latents = self.engine.encode(pictures.cosmos_input(views.flatten(0, 1), self.sizes)).unflatten(0, (count, times))
        self.latents = latents[None].cpu()
        yield from self.row("cosmos", "out.cosmos_latents", self.latents)
        valid = self.view_mask.repeat_interleave(self.sizes.generation_tokens // self.sizes.views, 1)
        yield from self.row("generation", "out.generation_pad_mask", valid)
        if self.model is not None:
            embeddings = self.model.embed_generation(latents[None, :, :-1])
            yield from self.row("generation", "out.generation_embeddings", embeddings, valid)
        cache = self.engine.generate(prefix, latents[:, 0], latents[:, 1], self.view_mask[0])
        yield from self.cached("prefix_and_generation", cache.tokens, torch.cat((self.mask, valid), 1))
        if self.model is not None:
            hidden = self.model.generation_hidden(cache)
            yield from self.row("generation", "out.generation_hidden", hidden, valid)
        return cache

    def flow(self, cache: GenerationCache) -> Iterator[Row]:
        state, noise = self.io["in.state"], self.io["in.noise"]
        if self.model is not None and "out.velocities" in self.io:
            field = VelocityField(self.model, cache, state.to(self.device), self.sizes.chunk)
            _, velocities = sample(field, noise.to(self.device), make_plan(steps=self.io["out.velocities"].shape[1]))
            yield from self.row("flow", "out.velocities", velocities)
        stepped = {int(found[1]): name for name in self.io.names if (found := STEPPED.fullmatch(name))}
        for steps, name in [(self.sizes.flow_steps, "out.actions"), *sorted(stepped.items())]:
            if name in self.io:
                actions = self.engine.flow(cache, state[0], noise[0], make_plan(steps=steps))
                yield from self.row("actions", name, actions[None])

    def future(self, cache: GenerationCache) -> Iterator[Row]:
        if self.model is not None:
            hidden = self.model.generation_hidden(cache)
            latents = self.model.predict_latents(hidden, self.sizes.views, self.sizes.generation_grid)
            yield from self.row("future", "out.predicted_future_latents", latents, self.view_mask)
        name = "out.predicted_future_images"
        if name in self.io:
            shown = self.engine.decode(cache)[None]
            stride = max(1, shown.shape[-1] // self.io[name].shape[-1])  # the folder keeps every so-manieth pixel
            yield from self.row("future", name, shown[..., ::stride, ::stride], self.view_mask)

    def losses(self) -> Iterator[Row]:
        if self.model is None or not any(name.startswith("out.loss") for name in self.io.names):
            return
        actions, noise, time = (self.io[f"in.train_{name}"].to(self.device) for name in ("actions", "noise", "time"))
        batch = TrainingBatch(
            pixel_values=self.pixel_values[None].to(self.device),
            grid=self.sizes.grid,
            input_ids=self.input_ids.to(self.device),
            attention_mask=self.mask.to(self.device),
            view_mask=self.view_mask.to(self.device),
            latents=self.latents.to(self.device),
            state=self.io["in.state"].to(self.device),
            actions=actions,
        )
        ours = losses(self.model, batch, noise, time)
        yield from self.row("losses", "out.loss_action", ours.action)
        for name, got in (("out.loss_action", ours.action), ("out.loss_generation", ours.generation)):
            if name in self.io:
                yield compare_mean("losses", name, got, self.io[name], self.limits)
