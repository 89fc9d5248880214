"""What moves the weights: AdamW, and for the products inside the layers Muon where the recipe asks for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from internvla_a1_ros.learning.team import ALONE, Team

Kind = Literal["adamw", "muon"]
# Of a polynomial that brings all singular values between 0 and 1 near 1 in five rounds (Keller Jordan, Muon, 2024).
_ROUNDS, _POLYNOMIAL = 5, (3.4445, -4.7750, 2.0315)
_AS_ADAMW = 0.2  # the size of AdamW's steps, by which Muon's have the same rate (arXiv 2502.16982)
_STEP = "step"  # AdamW counts its own


class Muon(torch.optim.Optimizer):
    """Each matrix moves along its momentum with all singular values made alike. Weights of one shape are worked on together.

    torch's own computes in bfloat16, a tenth as fast as float32 on a CPU that has no instruction for it, and one matrix at a time.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], team: Team = ALONE, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum})
        self._team = team

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(tuple(sorted(weight.shape)), []).append(weight)
            for weights in alike.values():
                for weight, way in zip(weights, self._ways(weights, group["momentum"]), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(way, alpha=group["lr"] * _AS_ADAMW * math.sqrt(max(weight.shape)))

    def _ways(self, weights: list[Tensor], momentum: float) -> list[Tensor]:
        """Where each goes. Of several processes each makes some of them orthogonal."""
        lying = torch.stack([_lying(self._looking_ahead(weight, momentum)) for weight in weights])
        rank, size = self._team.rank, self._team.size
        mine = orthogonal(lying[rank::size])
        if size > 1:
            lying = torch.zeros_like(lying)
            lying[rank::size] = mine
            distributed.all_reduce(lying)
        else:
            lying = mine
        return [way if weight.shape == way.shape else way.T for weight, way in zip(weights, lying, strict=True)]

    def _looking_ahead(self, weight: Tensor, momentum: float) -> Tensor:
        """The running mean of its gradients, one step further (Nesterov)."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices [N, m, n], m at most n, with singular values between about 0.7 and 1.2 and the singular vectors they had."""
    a, b, c = _POLYNOMIAL
    x: Tensor = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def _lying(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Weights by name that move at a `share` of the learning rate and decay by `weight_decay` of it."""

    weights: Mapping[str, nn.Parameter]
    share: float = 1.0
    weight_decay: float = 0.0


class Optimiser:
    """Moves the weights of one run. `kind`: whether Muon moves the products inside layers, or AdamW everything."""

    def __init__(self, groups: Sequence[Group], kind: Kind, betas: tuple[float, float], eps: float = 1e-8, team: Team = ALONE) -> None:
        by_muon = {name for group in groups for name, weight in group.weights.items() if kind == "muon" and inside_layers(name, weight)}
        every = {name for group in groups for name in group.weights}
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(_told(groups, every - by_muon), lr=0.0, betas=betas, eps=eps)]
        if by_muon:
            self._parts.append(Muon(_told(groups, by_muon), team))

    def clear(self) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Move the weights by their gradients at a learning rate."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["share"]
            part.step()

    def moments(self, weight: Tensor) -> dict[str, Tensor]:
        """What is kept of a weight's former gradients, by name; nothing before it had one."""
        return {name: value for name, value in self._state(weight).items() if name != _STEP}

    def steps(self, weight: Tensor) -> float | None:
        """How often AdamW has moved a weight; None where it has not."""
        count = self._state(weight).get(_STEP)
        return None if count is None else float(count)

    def resume(self, weight: Tensor, moments: Mapping[str, Tensor], steps: float | None) -> None:
        """Go on with what was kept of a weight; `steps` is of AdamW alone."""
        part = self._of(weight)
        counted = {} if steps is None or isinstance(part, Muon) else {_STEP: torch.tensor(float(steps))}
        part.state[weight] = {**counted, **moments}

    def _state(self, weight: Tensor) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = self._of(weight).state.get(weight, {})
        return found

    def _of(self, weight: Tensor) -> torch.optim.Optimizer:
        return next(part for part in self._parts if any(weight is each for group in part.param_groups for each in group["params"]))


def inside_layers(name: str, weight: Tensor) -> bool:
    """Whether it is a product of a transformer layer, of an expert or of a vision tower."""
    return weight.ndim == 2 and (".layers." in name or ".blocks." in name)


def _told(groups: Sequence[Group], names: Set[str]) -> list[dict[str, Any]]:
    """The groups as torch has them, of some of the weights."""
    return [
        {
            "params": [weight for name, weight in group.weights.items() if name in names],
            "share": group.share,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]
