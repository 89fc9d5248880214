"""The 2B layout around its numbers (which are judged in tests/parity): folders, names, precision, prefix, and as a policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, TINY_2B, VARIANTS_2B, inputs, tiny_model, write_tiny
from torch import Tensor

from internvla_a1_ros.cli.make_nano import make_nano
from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError
from internvla_a1_ros.core.types import Frame, JointState, Observation
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.model.checkpoint import empty_model, load_architecture, load_model
from internvla_a1_ros.model.flow import TrainingBatch, losses
from internvla_a1_ros.model.integrators import make_plan
from internvla_a1_ros.model.layout import INTERNA1
from internvla_a1_ros.model.positions import counted_positions
from internvla_a1_ros.model.reading import read_architecture
from internvla_a1_ros.model.released import released_sizes
from internvla_a1_ros.policy.pictures import patches
from internvla_a1_ros.policy.policy import load_policy
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer
from internvla_a1_ros.robots.profile import load_profile
from internvla_a1_ros.runtime.deployment import find_checkpoint

Inputs = dict[str, Any]
BIAS = "model.internvl_with_expert.act_expert.model.layers.1.self_attn.k_proj.bias"
LAMBDA = "model.internvl_with_expert.und_expert.model.vision_tower.encoder.layer.0.lambda_1"
EXPERT = "model.internvl_with_expert.gen_expert.model.layers.0"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("pristine"), TINY_2B)


@pytest.fixture(scope="module")
def engine() -> ReferenceEngine:
    return ReferenceEngine(tiny_model(TINY_2B))


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano_2b")
    make_nano(folder, 0, layout="2b")
    (folder / "manifest.yaml").write_text((find_checkpoint("nano") / "manifest.yaml").read_text())
    return folder


def copy_of(pristine: Path, folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    """The folder with its weights changed."""
    for path in pristine.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(str(pristine / "model.safetensors"))
    change(weights)
    save_file(weights, str(folder / "model.safetensors"))
    return folder


def cycle(engine: ReferenceEngine, given: Inputs) -> tuple[Tensor, Tensor]:
    views, sizes = engine.sizes.views, engine.sizes
    latents = engine.encode(given["pictures"])
    cache = engine.generate(
        engine.prefix(given["patches"], given["ids"], given["mask"]), latents[:views], latents[views:], given["view_mask"]
    )
    return engine.flow(cache, given["state"], given["noise"], make_plan("euler", sizes.flow_steps)), engine.decode(cache)


# Folders


@pytest.mark.parametrize("name", VARIANTS_2B)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    sizes = VARIANTS_2B[name]
    folder = write_tiny(tmp_path, sizes)
    assert load_architecture(folder) == sizes
    original = dict(tiny_model(sizes).named_parameters())
    model = load_model(folder)
    assert all(torch.equal(parameter, original[key]) for key, parameter in model.named_parameters())
    actions, pictures = cycle(ReferenceEngine(model), inputs(sizes))
    assert actions.shape == (sizes.chunk, sizes.action_width) and pictures.shape == (sizes.views, 3, *sizes.cosmos_picture)
    assert actions.isfinite().all() and pictures.isfinite().all()


def test_names_are_the_released_ones(nano: Path) -> None:
    """Every name our writer uses, apart from the number of a layer, stands in the released reference, and the other way round."""

    def kinds(folder: Path) -> set[str]:
        return {
            ".".join("0" if part.isdigit() else part for part in name.split(".")) for name in load_file(str(folder / "model.safetensors"))
        }

    golden = Path(__file__).resolve().parents[1] / "golden" / "a1_2b_tiny"
    assert kinds(nano) == kinds(golden)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(BIAS), ["missing weight", BIAS]),
        (lambda w: w.pop("model.gen_in_proj.weight"), ["missing weight", "model.gen_in_proj.weight"]),
        (lambda w: w.update({f"{EXPERT}.self_attn.q_norm.weight": torch.ones(6)}), ["unknown weight", f"{EXPERT}.self_attn.q_norm.weight"]),
        (lambda w: w.update({"model.cosmos_in_proj.weight": torch.ones(1)}), ["unknown weight", "model.cosmos_in_proj.weight", "2B"]),
        (lambda w: w.update({"model.generation.norm.weight": torch.ones(24)}), ["unknown weight", "model.generation.norm.weight"]),
        (lambda w: w.update({LAMBDA: torch.ones(31)}), [LAMBDA, "[31]", "[32]"]),
        (lambda w: w.update({BIAS: torch.full((12,), torch.nan)}), [BIAS, "not finite"]),
        (lambda w: [w.pop(name) for name in list(w) if "cosmos_tokenizer" in name], ["no Cosmos weights"]),
    ],
)
def test_a_faulty_weight_is_named(pristine: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], words: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(copy_of(pristine, tmp_path, change))
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message, message


def test_what_is_in_the_file_and_not_read_may_be_anything_or_absent(pristine: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights["model.internvl_with_expert.und_expert.lm_head.weight"] += 1
        weights["model.imagenet_mean"] += 1
        del weights["model.imagenet_std"]

    changed, original = load_model(copy_of(pristine, tmp_path, change)), load_model(pristine)
    assert all(torch.equal(a, b) for a, b in zip(changed.parameters(), original.parameters(), strict=True))


def test_imported_cosmos_weights_may_lie_beside_the_policys(pristine: Path, tmp_path: Path) -> None:
    """`import-cosmos` knows no layout: its names are the 3B's."""

    def move(weights: dict[str, Tensor]) -> None:
        moved = {name.replace("cosmos_tokenizer.", "cosmos."): weights.pop(name) for name in list(weights) if "cosmos_tokenizer" in name}
        save_file(moved, str(tmp_path / "cosmos.safetensors"))

    model = load_model(copy_of(pristine, tmp_path, move))
    assert torch.equal(model.cosmos.decoder.conv_out.weight, load_model(pristine).cosmos.decoder.conv_out.weight)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("text_and_experts"), ["24 queries", "heads of 64", "text_and_experts.num_attention_heads"]),
        (lambda t: t["text_and_experts"].update(num_attention_heads=5), ["24 queries", "5 heads"]),
        (lambda t: t["vision"].update(num_attention_heads=5), ["32 is not 5 heads", "vision.num_attention_heads"]),
        (lambda t: t["image"].update(size=57), ["57x57", "multiples of 14"]),
        (lambda t: t["image"].update(size=42), ["3x3", "multiples of 2"]),
        (lambda t: t["image"].update(patch=[14, 7]), ["14x7"]),
    ],
)
def test_a_size_that_cannot_be_is_named(pristine: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: list[str]) -> None:
    folder = copy_of(pristine, tmp_path, lambda weights: None)
    told = json.loads((folder / "architecture.json").read_text())
    change(told)
    (folder / "architecture.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_half_precision_keeps_norms_and_the_last_projection_wide(pristine: Path) -> None:
    model = load_model(pristine, torch.bfloat16)
    wide = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert {"action_out_proj.weight", "understanding.vision.projector.layer_norm.weight", "generation.norm.weight"} <= wide
    assert not any("lambda" in name or "proj.bias" in name for name in wide - {"action_out_proj.bias"})
    given = inputs(TINY_2B)
    (a, _), (b, _) = cycle(ReferenceEngine(load_model(pristine)), given), cycle(ReferenceEngine(model), given)
    assert 0 < (a - b).abs().max() < 0.1


def test_the_released_size_is_about_the_measured_one() -> None:
    """About 1.9 billion parameters, the output head among them, which is in the file and not in our model."""
    sizes = released_sizes("2b")
    parameters = sum(p.numel() for p in empty_model(sizes).parameters()) + sizes.vocabulary * sizes.understanding.hidden
    assert parameters / 1e9 == pytest.approx(1.9, abs=0.1)
    assert sizes.prefix_tokens == 3 * 256 + 48


@pytest.mark.parametrize(("name", "kind"), [("2b", "interna1"), ("3b", "qwena1")])
def test_a_released_folder_needs_no_architecture_file(name: str, kind: str) -> None:
    """Shapes of the weights and the backbone's defaults tell every size; the config's picture size is the 3B's in both."""
    sizes = released_sizes(name)
    shapes = {key: tuple(p.shape) for key, p in empty_model(sizes).named_parameters()}
    assert read_architecture(shapes, {"type": kind, "image_resolution": [224, 224]}, {}, {}) == sizes


# What is seen


def test_positions_count_valid_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]).bool()
    time, row, column = counted_positions(mask)
    assert torch.equal(time, row) and torch.equal(time, column)
    assert time[0][mask[0]].tolist() == [0, 1, 2] and time[1][mask[1]].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("view", [0, 2])
def test_a_missing_view_changes_nothing(engine: ReferenceEngine, view: int) -> None:
    given, tokens = inputs(TINY_2B), TINY_2B.view_tokens
    other = {**given, "patches": given["patches"].clone(), "pictures": given["pictures"].clone()}
    other["patches"][view] *= -1
    other["pictures"][view::3] *= -1
    assert not torch.allclose(cycle(engine, given)[0], cycle(engine, other)[0], atol=1e-4)
    mask, view_mask = given["mask"].clone(), given["view_mask"].clone()
    mask[view * tokens : (view + 1) * tokens] = False
    view_mask[view] = False
    masked, others = ({**each, "mask": mask, "view_mask": view_mask} for each in (given, other))
    torch.testing.assert_close(cycle(engine, masked)[0], cycle(engine, others)[0], atol=1e-6, rtol=0)


def test_no_view_and_no_text_stay_finite(engine: ReferenceEngine) -> None:
    given = inputs(TINY_2B)
    given["mask"][:], given["view_mask"][:] = False, False
    assert cycle(engine, given)[0].isfinite().all()


def test_ids_under_pictures_do_not_matter(engine: ReferenceEngine) -> None:
    given = inputs(TINY_2B)
    ids = given["ids"].clone()
    ids[: TINY_2B.views * TINY_2B.view_tokens] = 0
    assert torch.equal(cycle(engine, {**given, "ids": ids})[0], cycle(engine, given)[0])


def test_patches_stand_row_by_row_as_channel_row_column() -> None:
    """And are normalised as ImageNet's pictures are."""
    picture = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    got = patches(picture, TINY_2B)
    assert got.shape == (1, 16, 3 * 14 * 14)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (INTERNA1.mean, INTERNA1.std))
    for row, column in ((0, 0), (0, 1), (1, 0), (3, 2)):
        want = (picture[0, :, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14] - mean) / std
        torch.testing.assert_close(got[0, 4 * row + column].view(3, 14, 14), want)


def test_training_reaches_every_weight_that_counts() -> None:
    model, sizes, draw = tiny_model(TINY_2B).requires_grad_(True), TINY_2B, torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=draw)

    batch = TrainingBatch(
        pixel_values=normal(sizes.views, sizes.grid[0] * sizes.grid[1], sizes.vision.patch_width),
        grid=sizes.grid,
        input_ids=torch.randint(sizes.vocabulary, (2, sizes.prefix_tokens), generator=draw),
        attention_mask=torch.ones(2, sizes.prefix_tokens, dtype=torch.bool),
        view_mask=torch.ones(2, sizes.views, dtype=torch.bool),
        latents=normal(sizes.views, 3, sizes.cosmos.latent_channels, *sizes.latent_grid),
        state=normal(sizes.state_width),
        actions=normal(sizes.chunk, sizes.action_width),
    )
    losses(model, batch, normal(sizes.chunk, sizes.action_width), torch.tensor([0.2, 0.9])).total.backward()
    untouched = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    last = f"understanding.text.layers.{sizes.understanding.layers - 1}."
    # Cosmos is frozen; of the understanding expert's last layer only keys and values are used.
    unused = ("cosmos.", "understanding.text.norm", *(last + part for part in ("mlp", "post", "self_attn.q_", "self_attn.o_")))
    assert {name for name in untouched if not name.startswith(unused)} == set()


# As a policy


def test_a_prefix_is_pictures_then_text_and_nothing_between(nano: Path) -> None:
    tokenizer = PrefixTokenizer.load(nano, load_architecture(nano))
    sizes, mask = tokenizer.sizes, np.array([True, False, True])
    made, pictures = tokenizer("Wait.", mask), 3 * 16
    assert made.input_ids.shape == (sizes.prefix_tokens,) == (pictures + 48,)
    assert set(made.input_ids[:pictures]) == {sizes.tokens.image}
    assert made.attention_mask[:pictures].tolist() == [True] * 16 + [False] * 16 + [True] * 16
    valid = made.attention_mask[pictures:]
    assert tokenizer.tokenizer.decode(made.input_ids[pictures:][valid].tolist()) == "Wait."
    assert PrefixTokenizer(tokenizer.tokenizer, replace(sizes, tokens=replace(sizes.tokens, vision_start=151665))), "not needed"
    with pytest.raises(CheckpointError, match="token id of image"):
        PrefixTokenizer(tokenizer.tokenizer, replace(sizes, tokens=replace(sizes.tokens, image=151667)))


def test_camera_pictures_become_a_chunk(nano: Path) -> None:
    arms = load_profile("arx_ac_one")
    policy = load_policy(nano, arms, "cell", threads=1)
    ready = arms.ready_from(np.full(14, -1.7))

    def observed(seed: int) -> Observation:
        draw = np.random.default_rng(seed)
        shown = tuple(Frame(camera.name, 1, 1, draw.integers(0, 256, (480, 640, 3), dtype=np.uint8)) for camera in arms.cameras)
        return Observation(1, shown, shown, JointState(1, ready), 0)

    def chunk(seed: int, sentence: str) -> Any:
        again = load_policy(nano, arms, "cell", threads=1)
        return again.infer(observed(seed), sentence).chunk.positions

    policy.warm_up("Wait.")
    answer = policy.infer(observed(0), "Wait.", imagine=True)
    assert answer.chunk.positions.shape == (50, 14) and np.isfinite(answer.chunk.positions).all()
    assert np.abs(answer.chunk.positions[:, :6] - ready[:6]).max() < 0.1, "untrained, it stays near where it is"
    assert answer.imagined is not None and answer.imagined.shape == (3, 96, 96, 3)
    first = chunk(0, "Wait.")
    assert np.array_equal(first, chunk(0, "Wait."))
    assert not np.array_equal(first, chunk(1, "Wait.")) and not np.array_equal(first, chunk(0, "Stop."))


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean '2b'"):
        make_nano(tmp_path, 0, layout="2bb")


def test_the_3b_says_so_itself() -> None:
    assert TINY.layout.title == "3B" and TINY_2B.layout is INTERNA1
    assert TINY.view_tokens - TINY.token_grid[0] * TINY.token_grid[1] == 2
    assert TINY_2B.view_tokens == TINY_2B.token_grid[0] * TINY_2B.token_grid[1]
