"""The count of operations against a count by hand, and the floor's arithmetic."""

from __future__ import annotations

import re

import pytest
from tiny import TINY, tiny_model

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.roofline import Cost, stage_costs
from internvla_a1_ros.model.released import released_sizes


def test_the_flow_is_counted_as_by_hand() -> None:
    a, tokens = TINY.action, 1 + TINY.chunk
    seen = TINY.prefix_tokens + TINY.views * 2 * TINY.generation_grid[0] * TINY.generation_grid[1] + tokens
    projections = a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads) + 3 * a.hidden * a.mlp
    layers = a.layers * (2 * tokens * projections + 4 * tokens * seen * a.heads * a.head_dim)
    ends = TINY.chunk * (2 * TINY.action_width * a.hidden + 3 * a.hidden * a.hidden)  # in, time (twice as wide), time, out
    costs = stage_costs(TINY, steps=4, cached_past=True)
    assert costs["flow"].flop == 4 * (layers + 2 * ends)


def test_every_weight_is_read_once_or_not_needed() -> None:
    model, text = tiny_model(), TINY.understanding
    last = f"layers.{text.layers - 1}."
    skipped = sum(  # the last understanding layer is needed for its keys and values only
        parameter.numel()
        for name, parameter in model.understanding.text.named_parameters()
        if name == "norm.weight" or (name.startswith(last) and not re.search(r"k_proj|v_proj|k_norm|input_layernorm", name))
    )
    skipped += model.state_proj.weight.numel() + model.state_proj.bias.numel()  # once a chunk, nothing beside the evaluations
    skipped += model.understanding.text.embed_tokens.weight.numel() - TINY.prefix_tokens * text.hidden  # only the prompt's rows
    twice = TINY.generation.hidden  # the last generation layer's first norm is computed again for the imagined pictures
    read = sum(cost.weight_bytes for cost in stage_costs(TINY, 1, True).values()) / 4
    assert read == sum(parameter.numel() for parameter in model.parameters()) - skipped + twice


def test_cached_past_halves_what_is_encoded_and_nothing_else() -> None:
    with_, without = stage_costs(TINY, 2, True), stage_costs(TINY, 2, False)
    assert 2 * with_["encode"].flop == without["encode"].flop
    assert all(with_[stage] == without[stage] for stage in with_ if stage != "encode")


def test_the_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    cost = Cost(flop=100, weight_bytes=30, activation_bytes=20)
    assert cost.floor_s(10.0, 1000.0) == 10.0
    assert cost.floor_s(1000.0, 10.0) == 5.0
    assert cost.times(3) + cost == cost.times(4)


def test_the_released_size_is_the_measured_one() -> None:
    """3.15 billion parameters and 0.077 of Cosmos; 0.076 of them are the deepstack mergers, which nothing uses."""
    from internvla_a1_ros.model.checkpoint import empty_model

    model = empty_model(released_sizes("3b"))
    cosmos = sum(p.numel() for p in model.cosmos.parameters())
    assert cosmos / 1e9 == pytest.approx(0.077, abs=0.001)
    assert sum(p.numel() for p in model.parameters()) / 1e9 - cosmos / 1e9 == pytest.approx(3.15 - 0.076, abs=0.01)
    with pytest.raises(ConfigurationError, match="3b"):
        released_sizes("3B")
