"""Muon and AdamW side by side: which weight is moved by which, how far, and where to."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import nn

from internvla_a1_ros.learning.optimiser import Group, Kind, Muon, Optimiser, inside_layers, orthogonal
from internvla_a1_ros.learning.recipe import Recipe

KEYS: dict[str, Any] = {"name": "a", "start": "b", "mixture": "c", "out": "d", "steps": 1}


def test_orthogonal_keeps_the_ways_and_makes_them_alike() -> None:
    """Singular values thirtyfold apart all come near 1, their vectors stay where they were."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(4, n, 6, generator=draw)).Q for n in (6, 10))
    values = torch.logspace(0, -1.5, 6)
    made = orthogonal(left * values @ right.transpose(1, 2))
    inside = left.transpose(1, 2) @ made @ right
    on = inside.diagonal(dim1=1, dim2=2)
    assert on.min() > 0.6 and on.max() < 1.3
    assert (inside - torch.diag_embed(on)).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (8, 8)])
def test_a_step_is_along_the_gradient_and_as_large_as_adamws(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(1)
    weights = [nn.Parameter(torch.randn(shape, generator=draw)) for _ in range(3)]
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.randn(shape, generator=draw)
    still = nn.Parameter(torch.ones(shape))
    Muon([{"params": [*weights, still], "lr": 0.01}]).step()
    assert torch.equal(still, torch.ones(shape))
    for weight, former in zip(weights, before, strict=True):
        assert weight.grad is not None
        moved, (u, _, vh) = weight.detach() - former, torch.linalg.svd(weight.grad, full_matrices=False)
        assert torch.cosine_similarity(moved.flatten(), -(u @ vh).flatten(), 0) > 0.97
        assert moved.square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.2)


def test_weights_decay_beside_it() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}]).step()
    assert torch.allclose(weight, torch.full((4, 4), 0.95))


@pytest.mark.parametrize(
    ("name", "shape", "inside"),
    [
        ("action.layers.0.self_attn.q_proj.weight", (4, 4), True),
        ("understanding.vision.blocks.1.attn.qkv.weight", (12, 4), True),
        ("understanding.text.layers.2.mlp.up_proj.weight", (8, 4), True),
        ("understanding.text.embed_tokens.weight", (8, 4), False),
        ("action.layers.0.input_layernorm.weight", (4,), False),
        ("downsample_conv.weight", (4, 4, 2, 2), False),
        ("action_out_proj.weight", (4, 4), False),
    ],
)
def test_what_muon_moves(name: str, shape: tuple[int, ...], inside: bool) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.ones(shape)
    assert inside_layers(name, weight) == inside
    kept: dict[str, Any] = {}
    for kind in get_args(Kind):
        optimiser = Optimiser([Group({name: weight}), Group({"other": nn.Parameter(torch.zeros(3))})], kind, (0.9, 0.95))
        optimiser.step(0.01)
        kept[kind] = set(optimiser.moments(weight)), optimiser.steps(weight)
    adam = {"exp_avg", "exp_avg_sq"}, 1.0
    assert kept == {"adamw": adam, "muon": ({"momentum_buffer"}, None) if inside else adam}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_groups_move_at_their_share_and_decay_by_their_own(kind: Kind) -> None:
    """Without gradients nothing moves; with gradients of zero only the decay does."""
    fast, slow, still = (nn.Parameter(torch.ones(4, 4)) for _ in range(3))
    groups = [Group({"a.layers.0.w": fast}, 1.0, 0.5), Group({"b.layers.0.w": slow}, 0.1, 0.5), Group({"c.layers.0.w": still}, 1.0, 0.5)]
    optimiser = Optimiser(groups, kind, (0.9, 0.95))
    fast.grad, slow.grad = torch.zeros(4, 4), torch.zeros(4, 4)
    optimiser.step(0.1)
    assert torch.allclose(fast, torch.full((4, 4), 0.95)) and torch.allclose(slow, torch.full((4, 4), 0.995))
    assert torch.equal(still, torch.ones(4, 4))
    optimiser.clear()
    assert fast.grad is None and slow.grad is None


def test_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="optimiser: got muon with sharded: true, expected adamw"):
        Recipe.model_validate(KEYS | {"optimiser": "muon", "sharded": True})
