"""Muon, an optimizer for the weights of hidden layers.

It replaces the momentum of a weight matrix by the nearest matrix whose singular values are all
about 1 (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024). torch's
Muon takes matrices only; this one also takes kernels, as matrices (out, in * height * width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from training.tiny_model import fast_precision

# A quintic Newton-Schulz iteration, which brings singular values in 0..1 near 1 in a few steps.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.9


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with the same singular vectors, and singular values of about 1 (0.7 to 1.2).

    It is computed in bfloat16 where that is fast, else in float32.
    """
    a, b, c = _QUINTIC
    wide = matrix.to(fast_precision(matrix.device))
    wide = wide if matrix.shape[0] <= matrix.shape[1] else wide.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for weights of 2 or more dimensions.

    lr: about the spectral norm of a step, for a weight matrix that is not taller than wide.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, weight_decay: float = 0.02) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step for all weights that have a gradient. closure: must be None."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
                ahead = weight.grad.lerp(momentum, _MOMENTUM).flatten(1)
                step = orthogonal(ahead).to(weight.dtype).reshape(weight.shape)
                taller = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step, alpha=-group["lr"] * taller)
