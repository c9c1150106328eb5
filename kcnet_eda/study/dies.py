"""The dies of a study: a network's edges as built on each of them at each condition. The same die everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Edges, Network
from kcnet_eda.network.laws import RELU
from kcnet_eda.physical.cell_design import CellLimits
from kcnet_eda.physical.condition import EdgeShift
from kcnet_eda.physical.mos_cell import cell_edges, range_problems
from kcnet_eda.study.pvt_settings import PvtStudy

Floats = NDArray[np.float64]
_DIE = 0  # the first word of a die's key among what the seed draws


@dataclass(frozen=True, eq=False)
class Cells:
    """A network of one phase as rectifying cells: ``ends`` are source and target [E]; ``theta1`` and ``theta2`` [E] as
    trained."""

    network: Network
    ends: tuple[NDArray[np.int64], NDArray[np.int64]]
    theta1: Floats
    theta2: Floats

    def thetas(self, study: PvtStudy, shift: EdgeShift, dies: range) -> tuple[Floats, Floats]:
        """θ1 and θ2 [dies, E] of ``dies`` at a condition."""
        one, two = shift.at(self.theta1, self.theta2)
        one, two = np.tile(one, (len(dies), 1)), np.tile(two, (len(dies), 1))
        if study.mismatch is not None:
            # Each die's numbers are its own, whatever block it is computed in.
            keys = [np.random.SeedSequence(study.seed, spawn_key=(_DIE, die)) for die in dies]
            z = np.stack([np.random.default_rng(key).standard_normal((2, self.theta1.size)) for key in keys])
            one *= 1 + study.mismatch.sigma_gain * z[:, 0]
            two += study.mismatch.sigma_offset * z[:, 1]
        return one, two

    def evolve(self, theta1: Floats, theta2: Floats, x0: Floats, steps: int, threads: int) -> Floats:
        """Final states [dies, nodes, samples] by the fast engine, single precision."""
        return evolve_dies(self.ends, theta1, theta2, x0, self.network.phases[0].duration, steps=steps, threads=threads)

    def on_die(self, theta1: Floats, theta2: Floats) -> Network:
        """The network of one die's ``theta1`` and ``theta2`` [E]."""
        source, target = (end.astype(np.int32) for end in self.ends)
        phi = np.full(source.size, RELU, dtype=self.network.phases[0].edges.phi.dtype)
        edges = Edges(phi=phi, source=source, target=target, a=theta1, b=-theta1, c=theta2, k=np.ones(source.size))
        return replace(self.network, phases=(replace(self.network.phases[0], edges=edges),))


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
