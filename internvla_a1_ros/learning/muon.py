"""Muon: the momentum of every product is made orthogonal before it moves the weight; all other weights are moved as by AdamW.

Keller Jordan, Muon: an optimizer for hidden layers in neural networks (2024); the scale that gives it AdamW's rates and decay is of
arXiv 2502.16982. torch.optim.Muon orthogonalises in bfloat16 and one weight after the other, which a CPU without such products pays
for with more than the step itself costs: here it is float32, and weights of one shape are done together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Optimiser = Literal["adamw", "muon"]
_TOWERS = ("understanding.", "generation.", "action.")
_QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0: after five rounds all singular values lie in 0.7 .. 1.2
_ROUNDS = 5
_LIKE_ADAMW = 0.2  # the root mean square of an update of AdamW's


def products(weights: Mapping[str, Tensor]) -> set[str]:
    """Return the names of those that Muon is for: the products inside towers and experts; not tables, nor what leads in or out."""
    return {name for name, weight in weights.items() if weight.ndim == 2 and name.startswith(_TOWERS) and "embed" not in name}


class Muon(torch.optim.AdamW):
    """AdamW of `others`, groups of weights; `products` [rows, columns] are moved at the same rate by Muon, with Nesterov's momentum."""

    def __init__(
        self,
        products: Iterable[Tensor],
        others: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(list(others), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.add_param_group({"params": list(products)})
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        group = self.param_groups[-1]
        by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        moved = [weight for weight in group["params"] if weight.grad is not None]
        for weight in moved:
            state = self.state[weight]
            if not state:
                state["exp_avg"], state["step"] = torch.zeros_like(weight), torch.zeros(())
            state["step"] += 1
            state["exp_avg"].lerp_(weight.grad, 1 - self._momentum)
            by_shape.setdefault(tuple(weight.shape), []).append(weight)
        for (rows, columns), weights in by_shape.items():
            ahead = [weight.grad.lerp(self.state[weight]["exp_avg"], self._momentum) for weight in weights if weight.grad is not None]
            updates = orthogonal(torch.stack(ahead))
            far = group["lr"] * _LIKE_ADAMW * math.sqrt(max(rows, columns))
            for weight, update in zip(weights, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-far)
        held = [(weight, weight.grad) for weight in moved]
        for weight, _ in held:
            weight.grad = None  # AdamW leaves alone what has none
        super().step()
        for weight, gradient in held:
            weight.grad = gradient


def orthogonal(many: Tensor) -> Tensor:
    """Matrices [N, rows, columns] with all singular values about 1, by Newton-Schulz rounds, directions kept."""
    a, b, c = _QUINTIC
    tall = many.shape[-2] > many.shape[-1]
    x: Tensor = many.mT if tall else many
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ROUNDS):
        squares = x @ x.mT
        x = a * x + (b * squares + c * squares @ squares) @ x
    return x.mT if tall else x
