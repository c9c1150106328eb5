"""The trained network in torch's own operations, in double precision: what training saw, without any kernel of ours.

torch is imported here alone of what simulations use; a caller that may not have it imports this module late.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kcnet_eda.dynamics.gradient import METHODS, Solver
from kcnet_eda.dynamics.torch_path import carry_over
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, RELU, TANH

Floats = NDArray[np.float64]

_AT_ONCE = 4_000_000  # voltages of edge ends: memory stays at a few times 32 MB
_PHI = {
    RELU: torch.relu,
    LEAKY_RELU: lambda x: torch.nn.functional.leaky_relu(x, LEAKY_SLOPE),
    TANH: torch.tanh,
    IDENTITY: lambda x: x,
}


def torch_states(network: Network, x0: Floats, solver: Solver, steps: int) -> Floats:
    """Final states [n, nodes of the last phase] from ``x0`` [n, nodes], in ``steps`` steps of ``solver`` a phase; not
    finite where they do not stay so."""
    block = max(1, _AT_ONCE // max(1, *(len(phase.edges) for phase in network.phases)))
    with torch.no_grad():
        ends = [_solve(network, v0, solver, steps) for v0 in torch.from_numpy(x0).split(block)]
    return np.asarray(torch.cat(ends, dim=1).T.contiguous().numpy())


def _solve(network: Network, v0: Tensor, solver: Solver, steps: int) -> Tensor:
    evolved: list[Tensor] = []
    state = v0.T
    for phase in network.phases:
        evolved.append(_evolve(phase, carry_over(state, phase), solver, steps))
        state = evolved[-1] if phase.residual_from is None else evolved[-1] + evolved[phase.residual_from]
    return state


def _evolve(phase: Phase, v: Tensor, solver: Solver, steps: int) -> Tensor:
    stages, weights, _ = METHODS[solver]
    step, parts = phase.duration / steps, _parts(phase)
    for _ in range(steps):
        slopes: list[Tensor] = []
        for earlier in stages:
            at = v + step * sum((w * k for w, k in zip(earlier, slopes, strict=False) if w), torch.zeros_like(v))
            slopes.append(_rate(parts, at))
        v = v + step * sum((w * k for w, k in zip(weights, slopes, strict=True)), torch.zeros_like(v))
    return v


def _parts(phase: Phase) -> list[tuple[int, Tensor, Tensor, tuple[Tensor, ...]]]:
    """The edges of each φ: its code, their ends, and (a, b, c, k), each [E, 1]."""
    edges, found = phase.edges, []
    for code in np.unique(edges.phi):
        own = edges.rows(np.flatnonzero(edges.phi == code))
        law = tuple(torch.tensor(p)[:, None] for p in (own.a, own.b, own.c, own.k))
        found.append((int(code), torch.tensor(own.source).long(), torch.tensor(own.target).long(), law))
    return found


def _rate(parts: list[tuple[int, Tensor, Tensor, tuple[Tensor, ...]]], v: Tensor) -> Tensor:
    """dv/dτ [nodes, samples] by Kirchhoff's current law; ground stays at 0."""
    rate = torch.zeros_like(v)
    for code, source, target, (a, b, c, k) in parts:
        current = k * _PHI[code](a * v[source] + b * v[target] + c)
        rate.index_add_(0, target, current)
        rate.index_add_(0, source, current, alpha=-1)
    rate[0] = 0.0
    return rate
