"""How the flow is integrated from noise (time 1) to actions (time 0): a list of evaluations that every engine runs alike.

An engine keeps two states and three velocities, all of static shape, and knows no method:

    x = y = noise
    for each evaluation:
        v = velocity(y, time)
        y = x + w0 * v + w1 * (v of the evaluation before) + w2 * (v of the one before that)
        if advance: x = y

Euler, midpoint, Heun and Adams-Bashforth on any spacing of the times are such lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from internvla_a1_ros.core.errors import ConfigurationError, suggestion

METHODS = ("euler", "midpoint", "heun", "ab2", "ab3")
MAX_STEPS = 64

# Share of the steps done -> share of the way from noise to actions.
SPACINGS: dict[str, Callable[[float], float]] = {
    "uniform": lambda u: u,
    "dense_at_noise": lambda u: u**1.5,
    "dense_at_actions": lambda u: 1 - (1 - u) ** 1.5,
    "dense_at_ends": lambda u: (1 - math.cos(math.pi * u)) / 2,
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One call of the network at flow `time` (0 < time <= 1) and what is made of its velocity; all numbers are exactly float32.

    `weights`: multiples of this velocity, the one before, the one before that. `advance`: whether the result becomes the state
    from which the next ones start.
    """

    time: float
    weights: tuple[float, float, float]
    advance: bool


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """What an engine runs; `method`, `steps`, `spacing` say where it comes from."""

    method: str
    steps: int
    spacing: str
    evaluations: tuple[Evaluation, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.steps}" + ("" if self.spacing == "uniform" else f" {self.spacing}")


def make_plan(method: str = "euler", steps: int = 10, spacing: str = "uniform") -> FlowPlan:
    """Return the plan of `steps` steps. Euler and Adams-Bashforth evaluate once a step, midpoint and Heun twice.

    Raises ConfigurationError for an unknown method or spacing, or steps outside 1 to 64.
    """
    for what, got, known in (("flow method", method, METHODS), ("flow spacing", spacing, tuple(SPACINGS))):
        if got not in known:
            raise ConfigurationError(f"{what}: got '{got}', expected one of {', '.join(known)}{suggestion(got, list(known))}")
    if not 1 <= steps <= MAX_STEPS:
        raise ConfigurationError(f"flow steps: got {steps}, expected 1 to {MAX_STEPS}")
    times, widths = step_times(steps, spacing)
    if method == "euler":
        evaluations = [_evaluation(time, [width]) for time, width in zip(times, widths, strict=True)]
    elif method == "midpoint":
        evaluations = [each for step in zip(times, widths, strict=True) for each in _midpoint(*step)]
    elif method == "heun":
        evaluations = _heun(times, widths)
    else:
        evaluations = _adams_bashforth(times, widths, order=int(method[2]))
    return FlowPlan(method, steps, spacing, tuple(evaluations))


def step_times(steps: int, spacing: str) -> tuple[list[float], list[float]]:
    """Return where each step begins and its width (negative: time falls from 1 to 0).

    Uniform times are accumulated in float32 as released: exact fractions differ by up to 2.5e-4 in velocity.
    """
    if spacing == "uniform":
        width = np.float32(-1.0 / steps)
        at = [np.float32(1.0)]
        for _ in range(steps - 1):
            at.append(at[-1] + width)
        return [float(time) for time in at], [float(width)] * steps
    times = [_float32(1.0 - SPACINGS[spacing](i / steps)) for i in range(steps)] + [0.0]
    return times[:-1], [after - before for before, after in zip(times[:-1], times[1:], strict=True)]


def _float32(value: float) -> float:
    return float(np.float32(value))


def _evaluation(time: float, weights: Sequence[float], *, advance: bool = True) -> Evaluation:
    w0, w1, w2 = (_float32(weight) for weight in (*weights, 0.0, 0.0)[:3])
    return Evaluation(_float32(time), (w0, w1, w2), advance)


def _midpoint(time: float, width: float) -> list[Evaluation]:
    return [_evaluation(time, [width / 2], advance=False), _evaluation(time + width / 2, [width])]


def _heun(times: list[float], widths: list[float]) -> list[Evaluation]:
    """The last step is a midpoint step: training never shows time 0 (at least 0.001), and guidance divides by the time."""
    evaluations: list[Evaluation] = []
    for time, width, after in zip(times[:-1], widths[:-1], times[1:], strict=True):
        evaluations += [_evaluation(time, [width], advance=False), _evaluation(after, [width / 2, width / 2])]
    return evaluations + _midpoint(times[-1], widths[-1])


def _adams_bashforth(times: list[float], widths: list[float], order: int) -> list[Evaluation]:
    """Each step integrates the polynomial through the last velocities, whatever the distances between them.

    A start by one Euler step would make every order at most 2. Here the second velocity is looked at from an Euler step that is
    then taken back: the first two steps are one, over the line through both velocities. It costs no evaluation.
    """
    if len(times) == 1:
        return [_evaluation(times[0], widths)]
    evaluations = [_evaluation(times[0], [widths[0]], advance=False)]
    evaluations.append(_evaluation(times[1], _polynomial_weights([0.0, -widths[0]], -widths[0], widths[1])))
    for i in range(2, len(times)):
        before = [0.0, -widths[i - 1], -widths[i - 1] - widths[i - 2]]
        evaluations.append(_evaluation(times[i], _polynomial_weights(before[:order], 0.0, widths[i])))
    return evaluations


def _polynomial_weights(nodes: list[float], begin: float, end: float) -> list[float]:
    """Return the weights with which values at `nodes` give the integral of their polynomial from `begin` to `end`."""
    powers = np.arange(len(nodes))[:, None]
    moments = (end ** (powers + 1) - begin ** (powers + 1)) / (powers + 1)
    return [float(weight) for weight in np.linalg.solve(np.array(nodes) ** powers, moments)[:, 0]]


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """What the flow is to arrive at: normalised `actions` [H, D] and how much each counts, `weights` [H] in [0, 1].

    1 pins an action, 0 leaves it free, between them it is drawn. `gradient_clip` None: without gradients, which every engine can
    (`guided`). A number: by the vector-Jacobian product of the clean estimate, multiplied by at most that (arXiv 2506.07339),
    which only an engine with gradients can. Raises ValueError where shapes differ, a number is not finite or a weight is outside.
    """

    actions: Tensor
    weights: Tensor
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or self.weights.shape != self.actions.shape[:1]:
            raise ValueError(
                f"guidance: got actions {tuple(self.actions.shape)} and weights {tuple(self.weights.shape)}, expected [H, D], [H]"
            )
        if not bool(self.actions.isfinite().all()):
            raise ValueError("guidance: got actions that are not finite, expected the committed ones, normalised")
        if not bool(((self.weights >= 0) & (self.weights <= 1)).all()):
            raise ValueError("guidance: got weights outside 0 to 1")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"guidance: got a gradient clip of {self.gradient_clip}, expected a number above 0")


def guided(velocity: Tensor, x: Tensor, time: float, actions: Tensor, weights: Tensor) -> Tensor:
    """Return `velocity` [..., H, D], met in `x` at `time`, turned by `weights` [H] towards what leads straight to `actions`.

    The same as `velocity - weights * (actions - estimate) / time`, where `estimate = x - time * velocity` is where the flow would
    arrive on a straight line. Weight 1 arrives at the action, weight 0 changes no bit.
    """
    return torch.lerp(velocity, (x - actions) / time, weights[:, None].expand_as(velocity))
