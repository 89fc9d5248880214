"""The model at sizes that no reference has: what may look at what, the flow, the losses. The released numbers are in tests/parity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, VARIANTS, inputs, tiny_model, write_tiny
from torch import Tensor

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError
from internvla_a1_ros.engines import make_engine
from internvla_a1_ros.engines.protocol import Engine
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.model.cosmos import haar, inverse_haar
from internvla_a1_ros.model.flow import TrainingBatch, VelocityField, losses, time_embedding
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.model.positions import following, prefix_positions
from internvla_a1_ros.model.sizes import Architecture
from internvla_a1_ros.model.text import additive, attend

Inputs = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> ReferenceEngine:
    return ReferenceEngine(tiny_model())


def cycle(engine: Engine, given: Inputs, steps: int = 3) -> tuple[Tensor, Tensor]:
    """Actions [H, D] and imagined pictures [V, 3, ch, cw] of one observation."""
    views = engine.sizes.views
    latents = engine.encode(given["pictures"])
    prefix = engine.prefix(given["patches"], given["ids"], given["mask"])
    cache = engine.generate(prefix, latents[:views], latents[views:], given["view_mask"])
    return engine.flow(cache, given["state"], given["noise"], make_plan(steps=steps)), engine.decode(cache)


def without_view(given: Inputs, view: int, sizes: Architecture) -> Inputs:
    view_mask, mask = given["view_mask"].clone(), given["mask"].clone()
    view_mask[view] = False
    mask[view * sizes.view_tokens : (view + 1) * sizes.view_tokens] = False
    return {**given, "view_mask": view_mask, "mask": mask}


def with_other_view(given: Inputs, view: int, sizes: Architecture) -> Inputs:
    """The same observation with other pictures in one view."""
    patches, pictures = given["patches"].clone(), given["pictures"].clone()
    patches[view] = -patches[view]
    pictures[view], pictures[sizes.views + view] = -pictures[view], -pictures[sizes.views + view]
    return {**given, "patches": patches, "pictures": pictures}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_whole_cycle_at_other_sizes(name: str) -> None:
    sizes = VARIANTS[name]
    engine = ReferenceEngine(tiny_model(sizes))
    actions, pictures = cycle(engine, inputs(sizes), sizes.flow_steps)
    assert actions.shape == (sizes.chunk, sizes.action_width) and actions.dtype == torch.float32
    assert pictures.shape == (sizes.views, 3, *sizes.cosmos_picture)
    assert actions.isfinite().all() and pictures.isfinite().all()


@pytest.mark.parametrize("view", [0, 1, 2])
def test_a_missing_view_changes_nothing(engine: ReferenceEngine, view: int) -> None:
    given = inputs(TINY)
    seen, other = cycle(engine, given)[0], cycle(engine, with_other_view(given, view, TINY))[0]
    assert not torch.allclose(seen, other, atol=1e-4)
    masked = without_view(given, view, TINY)
    actions, pictures = cycle(engine, masked)
    again, pictures_again = cycle(engine, with_other_view(masked, view, TINY))
    there = masked["view_mask"]
    torch.testing.assert_close(again, actions, atol=1e-6, rtol=0)
    torch.testing.assert_close(pictures_again[there], pictures[there], atol=1e-5, rtol=0)


def test_padding_of_the_instruction_changes_nothing(engine: ReferenceEngine) -> None:
    given = inputs(TINY)
    ids = given["ids"].clone()
    ids[-2:] = 5
    assert torch.equal(cycle(engine, {**given, "ids": ids})[0], cycle(engine, given)[0])
    ids[-3] = (ids[-3] + 1) % TINY.vocabulary
    assert not torch.equal(cycle(engine, {**given, "ids": ids})[0], cycle(engine, given)[0])


def test_no_view_at_all_stays_finite(engine: ReferenceEngine) -> None:
    given = inputs(TINY)
    for view in range(TINY.views):
        given = without_view(given, view, TINY)
    given["mask"][:] = False
    assert cycle(engine, given)[0].isfinite().all()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near(tmp_path: Path, precision: str) -> None:
    folder = write_tiny(tmp_path)
    whole, half = (make_engine("reference", folder, precision=p) for p in ("float32", precision))
    given = without_view(inputs(TINY), 1, TINY)
    (a, _), (b, _) = cycle(whole, given), cycle(half, given)
    assert 0 < (a - b).abs().max() < 0.1


def test_an_engine_is_found_by_name(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path)
    assert isinstance(make_engine("reference", folder, threads=1), Engine)
    for words, message in (
        ({"name": "referense"}, "did you mean 'reference'"),
        ({"precision": "float23"}, "did you mean 'float32'"),
        ({"threads": 0}, "threads"),
        ({"device": "tpu9"}, "tpu9"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make_engine(**{"name": "reference", "checkpoint": folder, **words})  # type: ignore[arg-type]
    with pytest.raises(CheckpointError):
        make_engine("reference", tmp_path / "nowhere")


# Attention and positions


def test_attention_is_softmax_of_what_may_be_seen() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, tokens, 8, generator=draw) for heads, tokens in ((4, 3), (2, 5), (2, 5)))
    mask = torch.tensor([[[1, 1, 0, 1, 0]], [[0, 1, 1, 1, 1]]]).bool()
    got = attend(q, k, v, additive(mask, torch.float32)).view(2, 3, 4, 8)
    for batch in range(2):
        for head in range(4):
            keys = k[batch, head // 2][mask[batch, 0]]
            weights = (q[batch, head] @ keys.T / 8**0.5).softmax(-1)
            torch.testing.assert_close(got[batch, :, head], weights @ v[batch, head // 2][mask[batch, 0]], atol=1e-6, rtol=1e-5)


def test_positions_by_hand() -> None:
    """Two views of 2x3 tokens and three words, all there: a view takes 1 + max(2, 3) + 1 = 5 positions."""
    mask = torch.ones(1, 2 * 8 + 3, dtype=torch.bool)
    time, row, column = prefix_positions(mask, 2, (2, 3))[:, 0].tolist()
    assert time == [0, 1, 1, 1, 1, 1, 1, 4, 5, 6, 6, 6, 6, 6, 6, 9, 10, 11, 12]
    assert row == [0, 1, 1, 1, 2, 2, 2, 4, 5, 6, 6, 6, 7, 7, 7, 9, 10, 11, 12]
    assert column == [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(("missing", "text"), [(0, [5, 6, 1]), (1, [5, 6, 1])])
def test_positions_of_a_missing_view(missing: int, text: list[int]) -> None:
    mask = torch.ones(1, 19, dtype=torch.bool)
    mask[0, missing * 8 : missing * 8 + 8] = False
    mask[0, -1] = False
    positions = prefix_positions(mask, 2, (2, 3))[:, 0]
    there = 1 - missing
    assert (positions[:, missing * 8 : missing * 8 + 8] == 1).all(), "masked tokens hold position 1"
    assert positions[0, there * 8] == 0, "and do not advance"
    assert positions[0, -3:].tolist() == text


def test_what_follows_counts_on() -> None:
    last = torch.tensor([7, 3])
    valid = torch.tensor([[True, False, True], [True, True, True]])
    assert following(last, valid)[1].tolist() == [[8, 8, 9], [4, 5, 6]]
    assert following(last, torch.ones_like(valid))[2].tolist() == [[8, 9, 10], [4, 5, 6]]


# The flow


def field_of(engine: ReferenceEngine, given: Inputs) -> VelocityField:
    latents = engine.encode(given["pictures"])
    cache = engine.generate(engine.prefix(given["patches"], given["ids"], given["mask"]), *latents.chunk(2), given["view_mask"])
    return VelocityField(engine.model, cache, given["state"][None], TINY.chunk)


@torch.inference_mode()
def test_euler_steps_by_hand(engine: ReferenceEngine) -> None:
    given = inputs(TINY)
    field, x, time = field_of(engine, given), given["noise"][None], np.float32(1)
    for _ in range(3):
        x = x - field(x, torch.tensor([time])) / 3
        time = np.float32(time + np.float32(-1 / 3))
    torch.testing.assert_close(cycle(engine, given, 3)[0], x[0], atol=1e-6, rtol=0)
    assert not torch.allclose(cycle(engine, given, 5)[0], x[0], atol=1e-4)


def test_time_embedding_by_hand() -> None:
    got = time_embedding(torch.tensor([0.3]), 6, 0.004, 4.0)[0]
    periods = [0.004, 0.004 * 1000**0.5, 4.0]
    angles = [2 * np.pi * float(np.float32(0.3)) / period for period in periods]
    want = [np.sin(angle) for angle in angles] + [np.cos(angle) for angle in angles]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float32), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_the_state_token_does_not_see_the_actions(engine: ReferenceEngine) -> None:
    """Its row of the mask: prefix, generation and itself; rows of actions: everything valid."""
    field = field_of(engine, inputs(TINY))
    before = int(field.cache.tokens.mask.shape[1])
    seen = field.scores[0, 0] == 0
    assert seen[0, before:].tolist() == [True] + [False] * TINY.chunk
    assert seen[1:, before:].all()
    assert (seen[:, :before] == field.cache.tokens.mask).all()


def test_haar_and_back() -> None:
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse_haar(haar(x)), x, atol=1e-6, rtol=0)
    flat = haar(torch.full((1, 3, 4, 4), 0.5))
    assert torch.equal(flat[:, :3], torch.full((1, 3, 2, 2), 0.5)) and not flat[:, 3:].any()


# The losses


def batch_of(sizes: Architecture, seed: int = 3, size: int = 2) -> tuple[TrainingBatch, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=draw)

    batch = TrainingBatch(
        pixel_values=normal(sizes.views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width),
        grid=sizes.grid,
        input_ids=torch.randint(sizes.vocabulary, (size, sizes.prefix_tokens), generator=draw),
        attention_mask=torch.ones(size, sizes.prefix_tokens, dtype=torch.bool),
        view_mask=torch.ones(size, sizes.views, dtype=torch.bool),
        latents=normal(sizes.views, 3, sizes.cosmos.latent_channels, *sizes.latent_grid),
        state=normal(sizes.state_width),
        actions=normal(sizes.chunk, sizes.action_width),
    )
    return batch, normal(sizes.chunk, sizes.action_width), torch.tensor([0.2, 0.9])[:size]


def trainable(sizes: Architecture = TINY) -> Any:
    return tiny_model(sizes).requires_grad_(True)


def test_total_is_the_robots_widths_and_a_little_of_the_future() -> None:
    model = trainable()
    batch, noise, time = batch_of(TINY)
    out = losses(model, batch, noise, time)
    assert out.action.shape == batch.actions.shape and out.generation.shape == ()
    torch.testing.assert_close(out.total, out.action[..., : TINY.robot_width].mean() + 0.01 * out.generation)


def test_every_weight_that_counts_is_reached() -> None:
    model = trainable()
    batch, noise, time = batch_of(TINY)
    losses(model, batch, noise, time).total.backward()
    untouched = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    last = TINY.understanding.layers - 1
    # Cosmos is frozen; of the understanding expert's last layer only keys and values are used.
    unused = ("cosmos.", "understanding.text.norm", *(f"understanding.text.layers.{last}.{part}" for part in UNUSED_OF_LAST_LAYER))
    assert {name for name in untouched if not name.startswith(unused)} == set()


UNUSED_OF_LAST_LAYER = ("mlp", "post_attention_layernorm", "self_attn.q_", "self_attn.o_")


@pytest.mark.parametrize(
    "name", ["action_out_proj.bias", "state_proj.bias", "upsample_conv.bias", "generation.layers.0.mlp.up_proj.weight"]
)
def test_gradients_are_slopes(name: str) -> None:
    model = trainable()
    batch, noise, time = batch_of(TINY)
    weight = dict(model.named_parameters())[name]

    def total() -> Tensor:
        return losses(model, batch, noise, time).total

    (gradient,) = torch.autograd.grad(total(), weight)
    direction = gradient.sign()
    step, total_at = 1e-2, []
    with torch.no_grad():
        for sign in (1, -2):
            weight += sign * step * direction
            total_at.append(float(total()))
    slope = (total_at[0] - total_at[1]) / (2 * step)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.02)


def test_a_few_steps_learn_one_batch() -> None:
    model = trainable()
    batch, noise, time = batch_of(TINY)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    course = []
    for _ in range(30):
        loss = losses(model, batch, noise, time).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.append(loss.item())
    assert course[-1] < 0.5 * course[0]


def mask_view(batch: TrainingBatch, view: int) -> TrainingBatch:
    attention, views = batch.attention_mask.clone(), batch.view_mask.clone()
    attention[:, view * TINY.view_tokens : (view + 1) * TINY.view_tokens] = False
    views[:, view] = False
    return replace(batch, attention_mask=attention, view_mask=views)


@pytest.mark.parametrize("disturb", ["pixel_values", "latents"])
def test_a_missing_view_does_not_count(disturb: str) -> None:
    model = trainable().requires_grad_(False)
    batch, noise, time = batch_of(TINY)
    changed = getattr(batch, disturb).clone()
    changed[:, 1] += 1
    disturbed = replace(batch, **{disturb: changed})
    assert losses(model, batch, noise, time).total != losses(model, disturbed, noise, time).total
    left, right = (losses(model, mask_view(b, 1), noise, time).total for b in (batch, disturbed))
    torch.testing.assert_close(left, right, atol=1e-6, rtol=0)


def test_a_batch_is_its_items(engine: ReferenceEngine) -> None:
    """Two observations at once, one with a view missing, give what each gives alone."""
    batch, noise, time = batch_of(TINY)
    views = batch.view_mask.clone()
    views[1, 0] = False
    attention = batch.attention_mask.clone()
    attention[1, : TINY.view_tokens] = False
    batch = replace(batch, view_mask=views, attention_mask=attention)
    together = losses(engine.model, batch, noise, time).action

    def only(i: int) -> Callable[[Any], Any]:
        return lambda value: value[i : i + 1] if isinstance(value, Tensor) else value

    for i in range(2):
        alone = TrainingBatch(**{name: only(i)(getattr(batch, name)) for name in TrainingBatch.__slots__})
        torch.testing.assert_close(
            losses(engine.model, alone, noise[i : i + 1], time[i : i + 1]).action[0], together[i], atol=1e-5, rtol=1e-5
        )
