"""The fused solver of a phase as a torch operation with its gradient, and what leads on from phase to phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kcnet_eda.dynamics.gradient import PhaseSolver
from kcnet_eda.network.graph import Phase

Law = tuple[Tensor, Tensor, Tensor, Tensor]


class _Evolution(torch.autograd.Function):  # type: ignore[misc]  # torch is not there where it is not needed
    @staticmethod
    def forward(ctx: Any, solver: PhaseSolver, v0: Tensor, *law: Tensor) -> Tensor:
        path = torch.from_numpy(solver.evolve(_numpy(law), v0.detach().numpy()))
        ctx.solver = solver
        ctx.save_for_backward(path, *law)
        return path

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:
        path, *law = ctx.saved_tensors
        of_v0, of_law = ctx.solver.pull_back(_numpy(law), path.numpy(), pulls[0].contiguous().numpy())
        of_law = [torch.from_numpy(of).to(p.dtype) for of, p in zip(of_law, law, strict=True)]
        return None, torch.from_numpy(of_v0), *of_law


def _numpy(law: Any) -> Any:
    return tuple(p.detach().contiguous().numpy() for p in law)


def evolve(solver: PhaseSolver, law: Law, v0: Tensor) -> Tensor:
    """The states [steps + 1, nodes, samples] of a phase from ``v0`` [nodes, samples] on, in its precision, for the
    canonical law's (a, b, c, k), each [E]; differentiable in v0 and all four, so in the states of every step."""
    path: Tensor = _Evolution.apply(solver, v0, *law)
    return path


def carry_over(v: Tensor, phase: Phase) -> Tensor:
    """As :func:`kcnet_eda.network.graph.carry_over`, of states [nodes, samples]."""
    held = min(len(v), phase.n_nodes)
    new = v.new_zeros(phase.n_nodes - held, v.shape[1])
    if phase.fill == "repeat" and len(new):
        new = v[1 + torch.arange(held - 1, phase.n_nodes - 1) % (held - 1)]
    return torch.cat([v[:held], new])


def paths(solvers: Sequence[PhaseSolver], laws: Sequence[Law], v0: Tensor) -> tuple[list[Tensor], Tensor]:
    """The states of every phase, as of :func:`evolve`, from ``v0`` [nodes of the first phase, samples] on, and the
    state at the end of the last, its residual added."""
    found: list[Tensor] = []
    state = v0
    for solver, law in zip(solvers, laws, strict=True):
        found.append(evolve(solver, law, carry_over(state, solver.phase)))
        earlier = solver.phase.residual_from
        state = found[-1][-1] if earlier is None else found[-1][-1] + found[earlier][-1]
    return found, state
