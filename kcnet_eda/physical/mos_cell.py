"""The MOS cell of an Eq. (6) edge, i = I_u·ReLU(θ1·(v_s − v_d)/V_u + θ2): from θ to what is programmed into it.

A resistively degenerated NMOS pair senses v_s − v_d. The current of one side, pedestal + (v_s − v_d)/(R + R_g), less
that of a PMOS source, pedestal − θ2, can flow only one way, into a PMOS mirror: the rectifier. ``k`` units of one
pedestal each make the pair, its tails and the source; ``mk`` units make the mirrors. θ1 sets R, θ2 the source's width,
and the length of the sinking mirror's output makes what leaves s equal to what enters d. Sizes are in µm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Edges
from kcnet_eda.network.laws import IDENTITY, PHI_NAMES, RELU
from kcnet_eda.physical.cell_design import BOX, CellDesign, CellLimits
from kcnet_eda.physical.pdk import Pdk

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CellEdges:
    """A network's edges as cells: arrays [n]. The current leaves ``source`` and enters ``target``; ``edge`` is the
    trained edge that a cell is (part) of. ``cell`` is its row in the distinct ``theta1``, ``theta2`` [cells]; where
    θ1 is negative, its two ends are sensed the other way round. ``idle`` are trained edges that conduct nowhere in the
    box and have no cell. ``gain`` [cells] is k of a tanh cell, 1 of a rectifying one."""

    source: Ints
    target: Ints
    edge: Ints
    cell: Ints
    theta1: Floats
    theta2: Floats
    idle: Ints
    gain: Floats

    def __len__(self) -> int:
        return int(self.edge.size)

    @property
    def swapped(self) -> NDArray[np.bool_]:
        """Edges whose sensing pins are exchanged, [n]."""
        return np.asarray(self.theta1[self.cell] < 0)

    @property
    def theta(self) -> Floats:
        """The distinct cells' parameters (θ1, θ2, gain), [cells, 3]."""
        return np.stack([self.theta1, self.theta2, self.gain], axis=1)


_DIGITS = 6  # of θ: edges that differ less are one cell
_SLACK = 1e-3  # of a limit: a network trained to the limit may lie beyond it by its rounding


def cell_edges(edges: Edges, other_cells: tuple[int, ...] = ()) -> tuple[CellEdges, list[str]]:
    """The rectifying cells that a phase's edges are, and why some of them cannot be any: reasons in words, all of them.

    k·ReLU(θ·(v_s − v_d) + c) is one cell, drawn the other way round where k < 0; a conductance is two, back to back.
    Edges of the laws ``other_cells`` (codes of φ) are passed over: other cells are made of them.
    """
    balanced = edges.b == -edges.a
    usable = balanced & np.isin(edges.phi, (RELU, IDENTITY))
    problems = []
    for phi in np.unique(edges.phi[~np.isin(edges.phi, (RELU, IDENTITY, *other_cells))]):
        at = np.flatnonzero(edges.phi == phi)
        problems.append(f"{at.size} edges (first: {at[0]}) have the law {PHI_NAMES[phi]}; the rectifying cell is ReLU")
    other = np.flatnonzero(~balanced)
    if other.size:
        problems.append(f"{other.size} edges (first: {other[0]}) do not depend on v_s − v_d alone")
    row = np.flatnonzero(usable)
    both = row[edges.phi[row] == IDENTITY]
    edge = np.concatenate([row, both])
    backward = np.arange(edge.size) >= row.size  # the second cell of a conductance: ReLU(−x) from d to s
    gain, slope, offset = edges.k[edge], edges.a[edge], edges.c[edge]
    sign = np.where((edges.phi[edge] == RELU) | ~backward, 1.0, -1.0)
    turned = np.where(edges.phi[edge] == RELU, gain < 0, backward)
    # A conductance's gain is part of its argument; a rectifier's only scales it.
    scale = np.where(edges.phi[edge] == RELU, np.abs(gain), gain * sign)
    theta1 = np.where(turned, -scale * slope, scale * slope)
    theta2 = scale * offset
    source = np.where(turned, edges.target[edge], edges.source[edge])
    target = np.where(turned, edges.source[edge], edges.target[edge])
    conducts = (2 * BOX * np.abs(theta1) + theta2 > 0) & (source != target)
    idle = np.setdiff1d(row, edge[conducts])
    pairs = np.round(np.stack([theta1, theta2], axis=1)[conducts], _DIGITS)
    distinct, cell = np.unique(pairs, axis=0, return_inverse=True)
    found = CellEdges(
        source[conducts].astype(np.int64),
        target[conducts].astype(np.int64),
        edge[conducts].astype(np.int64),
        cell.reshape(-1).astype(np.int64),
        distinct[:, 0],
        distinct[:, 1],
        idle.astype(np.int64),
        np.ones(len(distinct)),
    )
    return found, problems


def full_scale(theta1: Floats, theta2: Floats) -> Floats:
    """The largest current in the box, I_u."""
    return np.asarray(2 * BOX * np.abs(theta1) + theta2)


def range_problems(limits: CellLimits, theta1: Floats, theta2: Floats, names: Sequence[str]) -> list[str]:
    """Which of the cells ``names`` cannot be built, each with the reason; empty if all can."""
    a, fs = np.abs(theta1), full_scale(theta1, theta2)
    least, most = 1 - _SLACK, 1 + _SLACK
    checks = (
        (
            (a > 0) & (a < least * limits.theta1_min),
            f"|θ1| is below {limits.theta1_min:g}, too long a resistor: prune it",
        ),
        (a > most * limits.theta1_max, f"|θ1| is above {limits.theta1_max:g}: use parallel edges"),
        (theta2 > most * limits.theta2_max, f"θ2 is above {limits.theta2_max:g}: use parallel edges"),
        (
            fs < least * limits.full_scale_min,
            f"4·|θ1| + θ2 is below {limits.full_scale_min:g}, lost in the corner: prune it",
        ),
    )
    found: dict[int, list[str]] = {}
    for bad, why in checks:
        for i in np.flatnonzero(bad).tolist():
            found.setdefault(i, []).append(why)
    return [f"{names[i]}: θ1 = {theta1[i]:g}, θ2 = {theta2[i]:g}: {'; '.join(found[i])}" for i in sorted(found)]


@dataclass(frozen=True, eq=False)
class CellSizes:
    """What is programmed into cells, arrays [n]: units ``k`` and ``mk``, the degeneration ``resistance`` [ohm] (inf: no
    resistor, for θ1 = 0), the PMOS source's total width and the sink's output length [µm]. Not yet on any grid."""

    k: Ints
    mk: Ints
    resistance: Floats
    source_width: Floats
    sink_length: Floats

    def __len__(self) -> int:
        return int(self.k.size)

    def rows(self, rows: NDArray[np.int64]) -> CellSizes:
        """Some of the cells."""
        return CellSizes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def first_sizes(design: CellDesign, theta1: Floats, theta2: Floats) -> CellSizes:
    """Sizes of cells from the ideal law of the cell: where calibration starts. θ1's sign is left to the wiring."""
    hair = 1e-9  # a θ1 of whole units is no unit more, whatever the rounding
    theta1 = np.abs(theta1)
    need = np.maximum(theta1 / design.slope_per_unit, theta2 / design.offset_per_unit)
    k = np.maximum(1, np.ceil(need - hair)).astype(np.int64)
    mk = np.maximum(1, np.ceil(full_scale(theta1, theta2) / design.full_scale_per_mirror - hair)).astype(np.int64)
    with np.errstate(divide="ignore"):
        total = design.v_unit / (design.i_unit * theta1)
    return CellSizes(
        k,
        mk,
        np.maximum(total - design.gate_resistance / k, 0.05 * design.gate_resistance / k),
        design.source.w * (k - theta2),
        np.full(k.size, design.sink.l),
    )


def snap_sizes(pdk: Pdk, sizes: CellSizes) -> tuple[CellSizes, list[list[str]]]:
    """The sizes that can be drawn, and for each cell why the ones asked for cannot (empty where they can)."""
    p, n, r = pdk.devices.pmos, pdk.devices.nmos, pdk.resistor
    source = sizes.source_width  # drawn to a fraction of the grid: the last finger's length takes it up
    length = np.round(np.round(sizes.sink_length / n.length.grid) * n.length.grid, 9)
    low, high = sizes.k * p.width.min, sizes.k * p.width.max
    shortest = r.resistance(r.length.min)
    reasons: list[list[str]] = [[] for _ in range(len(sizes))]
    for bad, what in (
        (source < low, f"its PMOS source would be narrower than {p.width.min:g} µm a unit: θ2 is too large for it"),
        (source > high, f"its PMOS source would be wider than {p.width.max:g} µm a unit: θ2 is too negative for it"),
        (length < n.length.min, f"its sink would be shorter than {n.length.min:g} µm"),
        (length > n.length.max, f"its sink would be longer than {n.length.max:g} µm"),
        (sizes.resistance < shortest, f"its resistor would be below {shortest:.3g} ohm, the shortest that is drawn"),
    ):
        for i in np.flatnonzero(bad).tolist():
            reasons[i].append(what)
    return replace(
        sizes,
        resistance=np.maximum(sizes.resistance, shortest),
        source_width=np.clip(source, low, high),
        sink_length=np.clip(length, n.length.min, n.length.max),
    ), reasons
