"""Muon: orthogonal updates of products, AdamW's of all else, and a run of it that goes on to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from internvla_a1_ros.learning.muon import Muon, orthogonal, products
from internvla_a1_ros.learning.recipe import Recipe


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_all_singular_values_are_about_one_and_directions_stay(rows: int, columns: int, seed: int) -> None:
    many = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed))
    made = orthogonal(many)
    assert torch.linalg.svdvals(made).max() < 1.25
    # Singular vectors are kept: what is made lies along the matrix itself, the more the better it is conditioned.
    assert (torch.linalg.matrix_norm(many, "nuc") * 0.6 < (made * many).sum((1, 2))).all()


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"action.layers.0.up": (8, 4), "action.layers.1.up": (8, 4), "action.layers.0.norm": (4,), "action_out_proj.weight": (3, 4)}
    return {name: torch.randn(shape, generator=draw).requires_grad_() for name, shape in shapes.items()}


def test_products_are_those_inside() -> None:
    assert products(weights()) == {"action.layers.0.up", "action.layers.1.up"}
    assert products({"understanding.text.embed_tokens.weight": torch.zeros(4, 4), "generation.conv": torch.zeros(4, 4, 1, 1)}) == set()


def test_the_others_move_as_by_adamw() -> None:
    mine, plain = weights(), weights()
    told = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    inner = products(mine)
    optimiser = Muon([mine[name] for name in inner], [{"params": [mine[n] for n in mine if n not in inner]}], **told)  # type: ignore[arg-type]
    reference = torch.optim.AdamW(list(plain.values()), **told)  # type: ignore[arg-type]
    before = {name: weight.detach().clone() for name, weight in mine.items()}
    for step in range(3):
        for some in (mine, plain):
            draw = torch.Generator().manual_seed(step)
            for weight in some.values():
                weight.grad = torch.randn(weight.shape, generator=draw)
        optimiser.step()
        reference.step()
    for name in mine:
        assert torch.equal(mine[name], plain[name]) == (name not in inner)
        assert mine[name].grad is not None
    # Each step moved a product by at most 0.2 sqrt(8) times the rate along each direction, besides the decay.
    for name in inner:
        moved = mine[name].detach() - before[name] * (1 - 0.01 * 0.1) ** 3
        assert 0.1 * 0.01 < torch.linalg.matrix_norm(moved, 2) < 3 * 1.25 * 0.2 * math.sqrt(8) * 0.01


def test_parts_of_a_product_cannot_be_made_orthogonal() -> None:
    told = {"name": "a", "start": "nano", "mixture": "m", "out": "o", "steps": 1}
    with pytest.raises(ValueError, match="got muon with sharded, expected adamw"):
        Recipe.model_validate(told | {"optimiser": "muon", "sharded": True})


def test_one_without_a_gradient_stays() -> None:
    mine = weights()
    names = sorted(products(mine))
    optimiser = Muon(
        [mine[name] for name in names], [{"params": [mine["action_out_proj.weight"]]}], lr=0.1, betas=(0.9, 0.9), eps=1e-8, weight_decay=0.1
    )
    before = mine[names[1]].detach().clone()
    mine[names[0]].grad = torch.ones(8, 4)
    optimiser.step()
    assert torch.equal(mine[names[1]], before) and mine[names[1]] not in optimiser.state
    assert float(optimiser.state[mine[names[0]]]["step"]) == 1
