"""The right-hand side and a fixed-step solver in torch: differentiable, for training only.

Written for networks of a few thousand edges: gathering and scattering are products with dense incidence
matrices, which on a CPU are several times faster here than indexed gathers and their backward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, RELU

Rate = Callable[[Tensor], Tensor]


def phi(code: int, x: Tensor) -> Tensor:
    """φ of :data:`kcnet_eda.network.laws.PHI_NAMES`, elementwise."""
    if code == RELU:
        return torch.relu(x)
    if code == LEAKY_RELU:
        return torch.nn.functional.leaky_relu(x, LEAKY_SLOPE)
    return x if code == IDENTITY else torch.tanh(x)


class Incidence:
    """Which end of which edge lies at which node, as [E, nodes] matrices of zeros and ones."""

    def __init__(self, source: Tensor, target: Tensor, n_nodes: int, dtype: torch.dtype = torch.float32) -> None:
        one_hot = torch.nn.functional.one_hot
        self.at_source = one_hot(source, n_nodes).to(dtype)
        self.at_target = one_hot(target, n_nodes).to(dtype)
        self.into = (self.at_target - self.at_source).T.contiguous()
        self.into[0] = 0  # ground is held

    def rate(self, a: Tensor, b: Tensor, c: Tensor, k: Tensor, code: int) -> Rate:
        """dv/dτ as a function of v [nodes, samples], for edges [E] of the canonical law with one φ."""
        weigh = a[:, None] * self.at_source + b[:, None] * self.at_target
        into = self.into * k
        return lambda v: into @ phi(code, torch.addmm(c[:, None], weigh, v))


def heun(rate: Rate, v: Tensor, duration: float, steps: int) -> Iterator[Tensor]:
    """Yield the state after each of ``steps`` Heun steps (order 2) of dv/dτ = rate(v)."""
    h = duration / steps
    for _ in range(steps):
        first = rate(v)
        v = v + 0.5 * h * (first + rate(v + h * first))
        yield v
