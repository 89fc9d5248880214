"""The flow's integrators on an equation with a known solution, what engines rely on in a plan, and guidance between network and plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY, inputs, tiny_model
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.engines.reference import ReferenceEngine
from internvla_a1_ros.model.flow import VelocityField, pull_factor, sample
from internvla_a1_ros.model.integrators import MAX_STEPS, METHODS, SPACINGS, FlowPlan, Guidance, guided, make_plan
from internvla_a1_ros.model.model import GenerationCache

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "ab2": 2, "ab3": 3}


def integrate(velocity: Callable[[np.ndarray, float], np.ndarray], x: np.ndarray, plan: FlowPlan) -> np.ndarray:
    """The engines' loop, in float64."""
    y, known = x, [np.zeros_like(x)] * 3
    for evaluation in plan.evaluations:
        known = [velocity(y, evaluation.time), *known[:2]]
        y = x + sum(weight * v for weight, v in zip(evaluation.weights, known, strict=True))
        x = y if evaluation.advance else x
    return x


FREQUENCIES = np.arange(1.0, 7.0)  # several: the error of one alone may change its sign and be small by chance


def error(method: str, steps: int, spacing: str) -> float:
    """On x' = cos(w t) x, whose solution from x(1) = 1 is exp(-sin(w) / w) at 0."""
    got = integrate(lambda x, t: np.cos(FREQUENCIES * t) * x, np.ones(6), make_plan(method, steps, spacing))
    return float(np.linalg.norm(got - np.exp(-np.sin(FREQUENCIES) / FREQUENCIES)))


@pytest.mark.parametrize(("method", "spacing"), [*product(METHODS, SPACINGS)])
def test_the_error_falls_as_fast_as_the_order_says(method: str, spacing: str) -> None:
    measured = math.log2(error(method, 12, spacing) / error(method, 48, spacing)) / 2
    assert ORDERS[method] - 0.3 < measured < ORDERS[method] + 0.8


@pytest.mark.parametrize(("method", "steps", "spacing"), [*product(METHODS, (1, 2, 3, 10, MAX_STEPS), SPACINGS)])
def test_plans_are_what_engines_rely_on(method: str, steps: int, spacing: str) -> None:
    plan = make_plan(method, steps, spacing)
    assert len(plan.evaluations) == steps * (2 if method in ("midpoint", "heun") else 1)
    assert plan.evaluations[0].time == 1.0 and plan.evaluations[-1].advance
    for i, evaluation in enumerate(plan.evaluations):
        assert 0 < evaluation.time <= 1, "training never shows time 0, and guidance divides by it"
        assert all(number == float(np.float32(number)) for number in (evaluation.time, *evaluation.weights))
        assert not any(evaluation.weights[i + 1 :]), "a velocity before the first"
    whole = sum(sum(evaluation.weights) for evaluation in plan.evaluations if evaluation.advance)
    assert whole == pytest.approx(-1.0, abs=1e-5), "a constant velocity is carried from time 1 to time 0"


def test_adams_bashforth_takes_up_a_polynomial_exactly() -> None:
    """The velocity is a polynomial in time alone, the steps are uneven: order 3 follows a parabola to the end but for its start."""
    for spacing in SPACINGS:
        line = integrate(lambda x, t: np.array([2 * t]), np.zeros(1), make_plan("ab2", 7, spacing))
        assert line[0] == pytest.approx(-1.0, abs=1e-6)
        plan = make_plan("ab3", 7, spacing)
        start = plan.evaluations[2].time  # the first two steps are of order 2
        parabola = integrate(lambda x, t: np.array([3 * t * t]), np.zeros(1), plan)
        first = integrate(lambda x, t: np.array([3 * t * t]), np.zeros(1), replace(plan, evaluations=plan.evaluations[:2]))
        assert parabola[0] - first[0] == pytest.approx(-(start**3), abs=1e-6)


def test_uniform_adams_bashforth_by_the_book() -> None:
    def scaled(plan: FlowPlan) -> list[float]:
        return [weight * -plan.steps for weight in plan.evaluations[5].weights]

    assert scaled(make_plan("ab2", 10)) == pytest.approx([3 / 2, -1 / 2, 0], abs=1e-5)
    assert scaled(make_plan("ab3", 10)) == pytest.approx([23 / 12, -16 / 12, 5 / 12], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("eulr",), "flow method: got 'eulr', expected one of euler, midpoint, heun, ab2, ab3, did you mean 'euler'?"),
        (("euler", 10, "dense"), "flow spacing: got 'dense', expected one of uniform, dense_at_noise, dense_at_actions, dense_at_ends"),
        (("euler", 0), "flow steps: got 0, expected 1 to 64"),
        (("ab2", 65), "flow steps: got 65, expected 1 to 64"),
    ],
)
def test_what_is_no_plan_is_refused(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        make_plan(*arguments)
    assert str(refusal.value).startswith(told)


def test_a_plan_says_what_it_is() -> None:
    assert str(make_plan()) == "euler 10" and str(make_plan("ab3", 4, "dense_at_ends")) == "ab3 4 dense_at_ends"


# On the model


@pytest.fixture(scope="module")
def engine() -> ReferenceEngine:
    return ReferenceEngine(tiny_model())


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return inputs(TINY)


@pytest.fixture(scope="module")
def cache(engine: ReferenceEngine, given: dict[str, Any]) -> GenerationCache:
    latents = engine.encode(given["pictures"])
    prefix = engine.prefix(given["patches"], given["ids"], given["mask"])
    return engine.generate(prefix, *latents.chunk(2), given["view_mask"])


@torch.inference_mode()
def test_released_sampling_to_the_bit(engine: ReferenceEngine, cache: GenerationCache, given: dict[str, Any]) -> None:
    """Euler, dt = -1/N and the time accumulated, both in float32 tensors."""
    field = VelocityField(engine.model, cache, given["state"][None], TINY.chunk)
    x, time, step = given["noise"][None], torch.tensor(1.0), torch.tensor(-1.0 / 10)
    for _ in range(10):
        x = x + step * field(x, time[None])
        time = time + step
    assert float(time - step) != float(np.float32(0.1)), "this is where exact fractions would differ"
    assert torch.equal(engine.flow(cache, given["state"], given["noise"], make_plan("euler", 10)), x[0])


@torch.inference_mode()
def test_all_methods_go_to_the_same_actions(engine: ReferenceEngine, cache: GenerationCache, given: dict[str, Any]) -> None:
    """How fast cannot be asked of drawn weights: their velocity is rough in time."""

    def distance(plan: FlowPlan) -> float:
        return float((engine.flow(cache, given["state"], given["noise"], plan) - exact).abs().mean())

    exact = engine.flow(cache, given["state"], given["noise"], make_plan("midpoint", 64))
    for method, spacing in product(METHODS, SPACINGS):
        far, near = (distance(make_plan(method, steps, spacing)) for steps in (4, 64))
        assert near < 0.04 and near < 0.5 * far, f"{method} {spacing}: {far} {near}"
    field = VelocityField(engine.model, cache, given["state"][None], TINY.chunk)
    assert sample(field, given["noise"][None], make_plan("heun", 3))[1].shape == (1, 6, TINY.chunk, TINY.action_width)


def guidance(weights: list[float], clip: float | None = None) -> Guidance:
    wanted = torch.randn(TINY.chunk, TINY.action_width, generator=torch.Generator().manual_seed(9))
    return Guidance(wanted, torch.tensor(weights), clip)


@pytest.mark.parametrize("clip", [None, 5.0])
@pytest.mark.parametrize("method", METHODS)
def test_weight_zero_is_no_guidance(engine: Any, cache: Any, given: dict[str, Any], method: str, clip: float | None) -> None:
    plan = make_plan(method, 4)
    free = engine.flow(cache, given["state"], given["noise"], plan)
    assert torch.equal(engine.flow(cache, given["state"], given["noise"], plan, guidance([0.0] * TINY.chunk, clip)), free)


@pytest.mark.parametrize(("method", "steps"), [*product(METHODS, (1, 2, 5))])
def test_pinned_actions_are_kept_and_heard(engine: Any, cache: Any, given: dict[str, Any], method: str, steps: int) -> None:
    plan, pins = make_plan(method, steps), guidance([1, 1, 0.5, 0, 0, 0, 0])
    free = engine.flow(cache, given["state"], given["noise"], plan)
    held = engine.flow(cache, given["state"], given["noise"], plan, pins)
    torch.testing.assert_close(held[:2], pins.actions[:2], atol=2e-5, rtol=0)
    drawn = (held[2] - pins.actions[2]).abs().mean()
    assert drawn < 0.8 * (free[2] - pins.actions[2]).abs().mean()
    assert drawn > 1e-3, "drawn, not pinned"
    if len(plan.evaluations) > 1:
        assert not torch.allclose(held[3:], free[3:], atol=1e-4), "the rest of the chunk takes notice"


def test_a_whole_chunk_may_be_pinned(engine: Any, cache: Any, given: dict[str, Any]) -> None:
    pins = guidance([1.0] * TINY.chunk)
    held = engine.flow(cache, given["state"], given["noise"], make_plan(), pins)
    torch.testing.assert_close(held, pins.actions, atol=2e-5, rtol=0)


def test_gradients_draw_towards_the_wish(engine: Any, cache: Any, given: dict[str, Any]) -> None:
    wish, plan = guidance([1, 1, 0.5, 0, 0, 0, 0], 5.0), make_plan("euler", 20)
    free = engine.flow(cache, given["state"], given["noise"], plan)
    drawn = engine.flow(cache, given["state"], given["noise"], plan, wish)
    assert not drawn.requires_grad
    assert (drawn[:2] - wish.actions[:2]).abs().mean() < 0.25 * (free[:2] - wish.actions[:2]).abs().mean()
    assert not torch.allclose(drawn[3:], free[3:], atol=1e-4)


def test_the_pull_is_clipped_at_both_ends() -> None:
    assert pull_factor(1.0, 5.0) == 5.0 and pull_factor(0.01, 5.0) == 5.0
    assert pull_factor(0.5, 5.0) == pytest.approx(2.0)  # (0.25 + 0.25) / 0.25


def test_guidance_by_hand() -> None:
    velocity, x, wanted = torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0], [1.0]]), torch.tensor([[4.0], [4.0]])
    got = guided(velocity, x, 0.5, wanted, torch.tensor([1.0, 0.25]))
    assert got[:, 0].tolist() == [(1 - 4) / 0.5, 2 - 0.25 * (4 - 0) / 0.5]


@pytest.mark.parametrize(
    ("actions", "weights", "clip", "told"),
    [
        (torch.zeros(3, 2), torch.zeros(2), None, "got actions (3, 2) and weights (2,)"),
        (torch.zeros(3), torch.zeros(3), None, "got actions (3,)"),
        (torch.tensor([[torch.nan]]), torch.zeros(1), None, "not finite"),
        (torch.zeros(1, 1), torch.tensor([1.5]), None, "outside 0 to 1"),
        (torch.zeros(1, 1), torch.tensor([torch.nan]), None, "outside 0 to 1"),
        (torch.zeros(1, 1), torch.zeros(1), 0.0, "gradient clip of 0.0"),
    ],
)
def test_what_is_no_guidance_is_refused(actions: Tensor, weights: Tensor, clip: float | None, told: str) -> None:
    with pytest.raises(ValueError, match=r"^guidance: ") as refusal:
        Guidance(actions, weights, clip)
    assert told in str(refusal.value)
