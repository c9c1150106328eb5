"""The compiled right-hand side as a torch operation with its gradient, and a fixed-step solver: for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kcnet_eda.dynamics.rhs import pull_back, rate_of_edges

Law = tuple[Tensor, Tensor, Tensor, Tensor]


class EdgeColumns:
    """Which edges there are: ends (node numbers, [E]) and one φ code for all."""

    def __init__(self, source: Tensor, target: Tensor, phi: int) -> None:
        self.ends = (source.numpy().astype(np.uintp), target.numpy().astype(np.uintp))
        self.phi = np.full(len(source), phi, dtype=np.uint8)


class _Rate(torch.autograd.Function):  # type: ignore[misc]  # torch is not there where it is not needed
    @staticmethod
    def forward(ctx: Any, columns: EdgeColumns, v: Tensor, *law: Tensor) -> Tensor:
        ctx.columns = columns
        ctx.save_for_backward(v, *law)
        return torch.from_numpy(rate_of_edges(columns.phi, columns.ends, _numpy(law), v.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:
        v, *law = ctx.saved_tensors
        of_v, of_edges = pull_back(
            ctx.columns.phi, ctx.columns.ends, _numpy(law), v.detach().numpy(), pulls[0].contiguous().numpy()
        )
        return None, torch.from_numpy(of_v), *torch.from_numpy(of_edges)


def _numpy(law: Any) -> Any:
    return tuple(p.detach().contiguous().numpy() for p in law)


def rate(columns: EdgeColumns, law: Law, v: Tensor) -> Tensor:
    """dv/dτ [nodes, samples] at ``v`` [nodes, samples], contiguous doubles on the CPU, for the canonical law's
    (a, b, c, k), each [E]; differentiable in v and all four."""
    return _Rate.apply(columns, v, *law)


def heun(slope: Callable[[Tensor], Tensor], v: Tensor, duration: float, steps: int) -> Iterator[Tensor]:
    """Yield the state after each of ``steps`` Heun steps (order 2) of dv/dτ = slope(v)."""
    h = duration / steps
    for _ in range(steps):
        first = slope(v)
        v = v + 0.5 * h * (first + slope(v + h * first))
        yield v
