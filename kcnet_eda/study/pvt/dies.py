"""The dies of a study: a network's edges as built on each of them at each condition. The same die at every level."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.die_engine import evolve_dies, watch_dies
from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.cell_design import CellDesign, CellLimits
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.mismatch import UnitSpread
from kcnet_eda.physical.mos_cell import cell_edges, first_sizes, range_problems

Floats = NDArray[np.float64]
NOMINAL = -1  # the number of the die without mismatch
_AT_ONCE = 50  # dies whose final states are kept in memory
# The first words of a die's keys among what the seed draws: its edges, what is written, when it is read.
_DIE, _WRITTEN, _READ = 0, 3, 4


@dataclass(frozen=True, eq=False)
class Cells:
    """A network of one phase as rectifying cells: ``ends`` are source and target [E]; ``theta1`` and ``theta2`` [E] as
    trained."""

    network: Network
    ends: tuple[NDArray[np.int64], NDArray[np.int64]]
    theta1: Floats
    theta2: Floats

    def units(self, design: CellDesign) -> Floats:
        """How many units of pedestal each cell is, [E]."""
        return first_sizes(design, np.abs(self.theta1), self.theta2).k.astype(float)


@dataclass(frozen=True, eq=False)
class Dies:
    """Cells at the conditions of ``models``, of so many ``units`` each [E], on dies that ``seed`` draws; ``spread`` is
    None where all are the same. ``t_unit`` [s] is a model unit of time."""

    cells: Cells
    models: tuple[EdgeModel, ...]
    units: Floats
    spread: UnitSpread | None
    seed: int
    t_unit: float

    def nominal(self, condition: int) -> BuiltEdges:
        """The edges of a die without mismatch: one die."""
        c = self.cells
        edges = self.models[condition].edges(c.theta1, c.theta2, self.units, self.t_unit)
        return replace(edges, theta1=edges.theta1[None], theta2=edges.theta2[None], ratio=edges.ratio[None])

    def normals(self, die: int) -> tuple[Floats, Floats]:
        """What makes a die itself: normal numbers of each edge's θ1, θ2 and ratio [3, E], and of the bias's gain and
        offset [2]; its own, whatever else is computed with it, and 0 of the nominal one."""
        if die == NOMINAL:
            return np.zeros((3, self.units.size)), np.zeros(2)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_DIE, die)))
        return rng.standard_normal((3, self.units.size)), rng.standard_normal(2)

    def written(self, die: int, shape: tuple[int, ...]) -> Floats:
        """Normal numbers of a die's errors of the written voltages, ``shape`` [..., nodes]; 0 for ground, which is
        held. Of more samples the first are the same."""
        z = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_WRITTEN, die))).standard_normal(shape)
        z[..., 0] = 0.0
        return z

    def read(self, die: int, samples: int) -> Floats:
        """Normal numbers of a die's times of reading [samples]; of more samples the first are the same."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_READ, die))).standard_normal(samples)

    def biased(self, condition: int, die: int) -> BuiltEdges:
        """The edges of one die with its bias's deviation, but without their own."""
        edges = self.nominal(condition)
        if self.spread is None:
            return edges
        gain, offset = self.normals(die)[1]
        return replace(
            edges,
            theta1=edges.theta1 * (1 + self.spread.bias_gain * gain),
            theta2=edges.theta2 + self.units * self.spread.bias_offset * offset,
        )

    def edges(self, condition: int, dies: range, scale: float | Floats = 1.0) -> BuiltEdges:
        """The edges of ``dies`` at a condition; ``scale`` (of all, or [E]) is by how much the σ of each edge's own
        mismatch is multiplied."""
        biased = [self.biased(condition, die) for die in dies]
        theta1, theta2, ratio = (
            np.concatenate([getattr(die, name) for die in biased]) for name in ("theta1", "theta2", "ratio")
        )
        if self.spread is not None:
            of_gain, of_offset, of_ratio = self.spread.of(self.units)
            z = scale * np.stack([self.normals(die)[0] for die in dies])
            theta1 = theta1 * (1 + of_gain * z[:, 0])
            theta2 = theta2 + of_offset * z[:, 1]
            ratio = ratio * (1 + of_ratio * z[:, 2])
        return replace(biased[0], theta1=theta1, theta2=theta2, ratio=ratio)

    def evolve(self, edges: BuiltEdges, x0: Floats, steps: int, threads: int) -> Floats:
        """Final states [dies, nodes, samples] by the fast engine, single precision."""
        duration = self.cells.network.phases[0].duration
        return evolve_dies(self.cells.ends, edges, x0, duration, steps=steps, threads=threads)

    def watch(self, edges: BuiltEdges, x0: Floats, steps: int, beyond: int, threads: int) -> tuple[Floats, Floats]:
        """As :meth:`evolve`; and the outputs at every step until ``beyond`` steps after T
        [dies, points, outputs, samples]."""
        network = self.cells.network
        duration, nodes = network.phases[0].duration, network.readout
        return watch_dies(self.cells.ends, edges, x0, duration, nodes, steps=steps, beyond=beyond, threads=threads)

    def outputs(self, edges: BuiltEdges, x0: Floats, steps: int, threads: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Final outputs [dies, outputs, samples] by the fast engine, and which [dies, samples] are finite."""
        found, finite = [], []
        for start in range(0, len(edges.theta1), _AT_ONCE):
            part = {p: getattr(edges, p)[start : start + _AT_ONCE] for p in ("theta1", "theta2", "ratio")}
            v = self.evolve(replace(edges, **part), x0, steps, threads)
            found.append(v[:, self.cells.network.readout].astype(np.float64))
            finite.append(np.isfinite(v).all(axis=1))
        return np.concatenate(found), np.concatenate(finite)


def right_labels(outputs: Floats, finite: NDArray[np.bool_], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Right samples, [dies, samples], by ``outputs`` [dies, outputs, samples]; what is not finite is wrong."""
    return np.asarray((outputs.argmax(axis=1) == y) & finite)


def network_cells(network: Network) -> Cells:
    """``network`` as cells.

    Raises
    ------
    InvalidInputError
        It has several phases or a residual, or edges that are no rectifying cells or beyond the range of these.
    """
    problems = []
    if len(network.phases) > 1 or network.phases[0].residual_from is not None:
        problems.append("has several phases or a residual; a die is of one phase")
    cells, why = cell_edges(network.phases[0].edges)
    names = [f"cell {i}" for i in range(cells.theta1.size)]
    # Beyond what a cell can be, what was measured of cells says nothing.
    why += range_problems(CellLimits(), cells.theta1, cells.theta2, names)
    if problems or why:
        raise InvalidInputError(f"network {network.name!r}", [*problems, *why], "Train one for the MOS cell.")
    return Cells(network, (cells.source, cells.target), cells.theta1[cells.cell], cells.theta2[cells.cell])
