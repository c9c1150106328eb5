"""Trimming cells by runs of their network: by how much less or more of each makes the runs follow the trained laws.

Calibration fits every cell's law over the whole box, one by one. What it leaves, the shape of a corner, the charge of
turning on, the last bit of a size, adds up along a run, and a network multiplies it. The runs say where it matters:
with J the sensitivities of the trained laws along a run, the small change x of all cells and capacitors that makes up
for the differences d of the nodes is that of least |J x - d|²/σ_v² + |x/σ_x|² (Gauss-Newton with a Gaussian prior; as
in Nocedal and Wright, Numerical Optimization, 2nd ed., chapter 10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from kcnet_eda.physical.calibration import CellGroup
from kcnet_eda.physical.cell_kind import RELU_CELL, CellKind

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

#: What each knob is expected to need, σ: a cell's parameters as shares of its full scale at the box's edge, the ratio
#: of its two ends' currents, and a node's capacitance as a share of C.
PARAMETER_SPREAD, RATIO_SPREAD, CAPACITANCE_SPREAD = 2e-3, 3e-3, 1e-2
#: Instants a unit of time at which runs are compared.
INSTANTS = 20
_STEPS = 50  # of RK4 a unit of time: sensitivities need no more
_LEAST = 1e-6  # of σ_v, V_u
_MOVE = 1e-4  # of a knob, for one-sided differences: far above rounding, and few corners lie within it


@dataclass(frozen=True, eq=False)
class Turned:
    """How far knobs are turned: for each group of cells its parameters [..., cells, free] in the law's units and the
    ratio of what leaves s over what enters d less 1 [..., cells]; of each node but ground, its capacitance over C less
    1 [..., nodes]."""

    parameters: tuple[Floats, ...]
    ratio: tuple[Floats, ...]
    capacitance: Floats


def knobs_of(kind: CellKind, cells: int) -> int:
    """The knobs of so many cells of a kind: each one's parameters and ratio."""
    return cells * (kind.free + 1)


class Knobs:
    """What can be turned in a network of ``groups`` on ``nodes`` nodes (ground not counted): a vector of ``size``
    numbers, in shares; ``spread`` [size] is their σ, 0 of those that stay (a tanh cell has no such ratio). Those that
    are ``coarse`` [size] have steps of some permille: the ratio is a length on the process's grid."""

    def __init__(self, groups: Sequence[CellGroup], nodes: int) -> None:
        self._groups, self._nodes = groups, nodes
        self._cells = [group.found.theta.shape[0] for group in groups]
        self._free = [group.found.kind.free for group in groups]
        widths = [knobs_of(group.found.kind, n) for group, n in zip(groups, self._cells, strict=True)]
        self._bounds = np.cumsum([0, *widths])
        self.size = int(self._bounds[-1]) + nodes
        self.spread: Floats = np.full(self.size, CAPACITANCE_SPREAD)
        self.coarse: NDArray[np.bool_] = np.zeros(self.size, bool)
        # A knob of all cells of a group is a column of its part
        for group, spread, coarse in zip(groups, self._parts(self.spread), self._parts(self.coarse), strict=True):
            spread[:, :-1], spread[:, -1] = PARAMETER_SPREAD, RATIO_SPREAD if group.found.kind is RELU_CELL else 0.0
            coarse[:, -1] = group.found.kind is RELU_CELL

    def turned(self, x: Floats) -> Turned:
        """What vectors [..., size] of shares mean."""
        parameters, ratio = [], []
        for group, part in zip(self._groups, self._parts(x), strict=True):
            found = group.found
            parameters.append(part[..., :-1] * found.full_scale[:, None] / found.kind.at_edge())
            ratio.append(part[..., -1])
        return Turned(tuple(parameters), tuple(ratio), x[..., self._bounds[-1] :])

    def _parts(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """Each group's part of vectors [..., size], a view: [..., cells, free + 1]."""
        return [
            x[..., a:b].reshape(*x.shape[:-1], n, free + 1)
            for a, b, n, free in zip(self._bounds[:-1], self._bounds[1:], self._cells, self._free, strict=True)
        ]

    def sensitivity(self, start: Floats, instants: Floats) -> Singles:
        """∂v/∂knob along the trained run from ``start`` [nodes], model units, at rising ``instants``:
        [instants, nodes, size], in single precision since it is kept for all runs."""
        x = np.concatenate([np.zeros((1, self.size)), _MOVE * np.eye(self.size)])
        ways = self.runs(x, start, instants)
        return ((ways[:, 1:] - ways[:, :1]).transpose(0, 2, 1) / _MOVE).astype(np.float32)

    def runs(self, x: Floats, start: Floats, instants: Floats) -> Floats:
        """Runs with knobs turned by each row of ``x`` [n, size]: [instants, n, nodes]."""
        parts, turned = [], self.turned(x)
        for group, parameters, ratio in zip(self._groups, turned.parameters, turned.ratio, strict=True):
            edges, found = group.edges, group.found
            theta = np.tile(found.theta, (len(x), 1, 1))
            theta[:, :, : found.kind.free] += parameters
            leaves, enters = _incidence(edges.source, self._nodes), _incidence(edges.target, self._nodes)
            parts.append((found.kind.shape, theta[:, edges.cell], 1 + ratio[:, edges.cell], leaves, enters))
        capacitance = 1 + turned.capacitance

        def slope(v: Floats) -> Floats:
            total = np.zeros_like(v)
            for shape, theta, ratio, leaves, enters in parts:
                across = v @ (leaves - enters).T
                current = theta[:, :, 2] * shape(theta[:, :, 0] * across + theta[:, :, 1])
                total += current @ enters - (ratio * current) @ leaves
            return total / capacitance

        v, now, found_at = np.tile(start, (len(x), 1)), 0.0, []
        for instant in instants.tolist():
            steps = int(np.ceil((instant - now) * _STEPS - 1e-9))
            for _ in range(steps):
                v = _rk4(slope, v, (instant - now) / steps)
            now = instant
            found_at.append(v)
        return np.array(found_at)


def _incidence(node: NDArray[np.int64], nodes: int) -> Floats:
    """[edges, nodes], a 1 where an edge's end is a node; nothing at ground."""
    table = np.zeros((node.size, nodes + 1))
    table[np.arange(node.size), node] = 1.0
    return table[:, 1:]


def _rk4(slope: Callable[[Floats], Floats], v: Floats, h: float) -> Floats:
    a = slope(v)
    b = slope(v + h / 2 * a)
    c = slope(v + h / 2 * b)
    return np.asarray(v + h / 6 * (a + 2 * b + 2 * c + slope(v + h * c)))


class Trimmer:
    """Where knobs should stand, from runs with them as they stand: sensitivities [instants, nodes, size] of each run,
    and the runs' differences [instants, nodes] from the trained ones with all knobs at rest, and then again and again.
    σ_v, what no knob makes up for, is taken to be the rms of the first differences: much of them stays."""

    def __init__(self, knobs: Knobs, sensitivities: Sequence[Singles], differences: Sequence[Floats]) -> None:
        self._rows = [s.reshape(-1, knobs.size) for s in sensitivities]
        self._unexplained = max(float(np.sqrt(np.mean(np.square(differences)))), _LEAST)
        normal = np.zeros((knobs.size, knobs.size))
        for rows in self._rows:
            exact = rows.astype(np.float64)
            normal += exact.T @ exact
        self._normal = normal / self._unexplained**2
        self._turns = knobs.spread > 0
        self._prior = 1 / np.where(self._turns, knobs.spread, np.inf) ** 2
        self._coarse = knobs.coarse

    def better(self, stand: Floats, differences: Sequence[Floats], *, fine: bool) -> Floats:
        """From where knobs ``stand`` [size], with ``differences`` of the runs there, to where they should: the prior is
        about the whole of what is turned. ``fine``: coarse knobs stay."""
        pull = np.sum([rows.T @ d.reshape(-1) for rows, d in zip(self._rows, differences, strict=True)], axis=0)
        pull = pull / self._unexplained**2 + self._prior * stand
        turn = self._turns & ~(self._coarse & fine)
        there = stand.copy()
        there[turn] -= solve((self._normal + np.diag(self._prior))[np.ix_(turn, turn)], pull[turn], assume_a="pos")
        return there
