"""The MOS cell of a ShiftTanh1 edge, i = I_u·k·tanh(a·(v_s − v_d)/V_u + c): from the law to what is drawn.

A differential pair's law is tanh in weak inversion only, v = 2·n·U_T·atanh(y); a resistor between the sources takes the
slope down and makes the corners sharper than tanh's. So two pairs of unequal slope work in parallel, the steeper with
most of the tail current, and their sum is close to tanh whatever the inversion (:func:`pair_shapes`). A
PMOS source at the right source node and as much more tail at the left one shift the argument: the offset. One PMOS
mirror a side and a constant sink of k at each end make +i at d and −i at s. Sizes are in µm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Edges
from kcnet_eda.network.laws import TANH
from kcnet_eda.physical.cell_design import WIDER, CellDesign, Geometry
from kcnet_eda.physical.mos_cell import CellEdges
from kcnet_eda.physical.pdk import Pdk

Floats = NDArray[np.float64]

_DIGITS = 6  # of slope, offset and gain: edges that differ less are one cell
_SLACK = 1e-3  # of a limit, as for rectifying cells
#: Over the slope as a share of a pair's own: the steeper pair's share of the tail current, its 1/slope and the other
#: pair's over 1/slope of the whole. Of a coarse grid at slopes of 0.25, 0.5 and 1 and three offsets on GF180MCU, these
#: had about the least of the largest errors against tanh once calibrated: 2.6, 2.2 and 1.4 % of k.
_SLOPES, _SHARE, _STEEP, _SHALLOW = (0.125, 0.25, 0.5), (0.40, 0.50, 0.60), (0.78, 0.80, 0.88), (1.60, 1.75, 2.00)
_STANDING = 0.4  # of a side's current, what the PMOS source carries more than the offset asks, not to be too narrow
_SOURCE_LONGER = 4.0  # than the rectifying cell's, and as much wider, for the same reason
_MIRROR_LENGTH = 2.0  # µm: both mirrors always carry current, so that what they are loaded with matters less
_STEEPEST = 0.75  # of a pair's own slope: a tenth of the steeper pair's argument is across its resistor
_LARGEST_SHIFT = 6.0  # of a side's current: more is power, not offset
#: All that a cell's drawing follows from, beside the design and what is asked.
DRAWING = (_SLOPES, _SHARE, _STEEP, _SHALLOW, _STANDING, _SOURCE_LONGER, _MIRROR_LENGTH, _STEEPEST, _LARGEST_SHIFT)


@dataclass(frozen=True, kw_only=True)
class TanhLimits:
    """What the tanh cell can do, the same in every process."""

    slope_min: float = 0.2
    slope_max: float = 1.25
    offset_max: float = 1.0
    gain_min: float = 0.5
    gain_max: float = 2.0

    def range_text(self) -> str:
        """What can be built, in words."""
        return (
            f"tanh with |a| from {self.slope_min:g} to {self.slope_max:g}, |c| up to {self.offset_max:g} and |k| from "
            f"{self.gain_min:g} to {self.gain_max:g}"
        )

    def problems(self, slope: Floats, offset: Floats, gain: Floats, names: Sequence[str]) -> list[str]:
        """Which of the cells ``names`` (a, c, k as in :func:`tanh_edges`) cannot be built, each with the reason."""
        slope, least, most = np.abs(slope), 1 - _SLACK, 1 + _SLACK
        checks = (
            (slope < least * self.slope_min, f"|a| is below {self.slope_min:g}, too long a resistor: prune it"),
            (slope > most * self.slope_max, f"|a| is above {self.slope_max:g}, steeper than a pair with its offset"),
            (offset > most * self.offset_max, f"|c| is above {self.offset_max:g}, more shift than a pair can carry"),
            (
                gain < least * self.gain_min,
                f"|k| is below {self.gain_min:g}, narrower tails than can be drawn: prune it",
            ),
            (gain > most * self.gain_max, f"|k| is above {self.gain_max:g}: use parallel edges"),
        )
        found = [(i, why) for bad, why in checks for i in np.flatnonzero(bad).tolist()]
        return [
            f"{names[i]}: |a| = {slope[i]:g}, |c| = {offset[i]:g}, |k| = {gain[i]:g}: {why}" for i, why in sorted(found)
        ]


def tanh_edges(edges: Edges) -> CellEdges:
    """The tanh cells that a phase's edges of b = −a are (others are :func:`kcnet_eda.physical.mos_cell.cell_edges`').

    tanh is odd, k·tanh(z) = −k·tanh(−z): of every edge k > 0 and c ≥ 0 can be had by drawing its current from d to s,
    and then a > 0 by exchanging the sensing pins."""
    row = np.flatnonzero((edges.phi == TANH) & (edges.b == -edges.a))
    gain, slope, offset = edges.k[row], edges.a[row], edges.c[row]
    turned = (gain < 0) ^ (offset < 0)
    flows = (gain != 0) & ((slope != 0) | (offset != 0)) & (edges.source[row] != edges.target[row])
    sensed = np.where(gain < 0, -slope, slope)
    rows = np.round(np.stack([sensed, np.abs(offset), np.abs(gain)], axis=1)[flows], _DIGITS)
    distinct, cell = np.unique(rows, axis=0, return_inverse=True)
    return CellEdges(
        np.where(turned, edges.target[row], edges.source[row])[flows].astype(np.int64),
        np.where(turned, edges.source[row], edges.target[row])[flows].astype(np.int64),
        row[flows].astype(np.int64),
        cell.reshape(-1).astype(np.int64),
        distinct[:, 0],
        distinct[:, 1],
        row[~flows].astype(np.int64),
        distinct[:, 2],
    )


@dataclass(frozen=True, eq=False)
class TanhSizes:
    """What is programmed into tanh cells, arrays [n]: the (a, c, k) that devices are drawn for by the pairs' ideal law,
    and the ``balance`` of the sinks at the ends against the tails."""

    slope: Floats
    offset: Floats
    gain: Floats
    balance: Floats

    def __len__(self) -> int:
        return int(self.slope.size)

    def rows(self, rows: NDArray[np.int64]) -> TanhSizes:
        """Some of the cells."""
        return TanhSizes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class DrawnPair:
    """One of a cell's two pairs: each side's transistor, the tails at its two source nodes, the PMOS source at the
    right one (widths of the others), the resistor between them [ohm]."""

    side: float
    fingers: int
    tail1: float
    tail2: float
    source: Geometry
    resistance: float


@dataclass(frozen=True)
class DrawnTanh:
    """A tanh cell as drawn: its pairs, the mirror (one of ``mk``) and the sink at each end, in ``mk`` fingers."""

    pairs: tuple[DrawnPair, DrawnPair]
    mk: int
    mirror: Geometry
    sink: float


def own_slope(design: CellDesign) -> float:
    """The slope of a pair without a resistor, model units: a first guess, which calibration corrects."""
    return design.wide_gm_id * design.v_unit / 2


def pair_shapes(relative: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of the steeper pair and of the other: its share of the tail current, and its 1/slope over that of the whole;
    ``relative`` is the slope as a share of a pair's own."""
    share, steep, shallow = (float(np.interp(relative, _SLOPES, row)) for row in (_SHARE, _STEEP, _SHALLOW))
    return (share, steep), (1 - share, shallow)


def draw_tanh(pdk: Pdk, design: CellDesign, sizes: TanhSizes, at: int) -> DrawnTanh:
    """The devices of cell ``at``, on the grid; sizes are within what :func:`within_reach` leaves."""
    slope, offset = float(sizes.slope[at]), float(sizes.offset[at])
    gain, balance = float(sizes.gain[at]), float(sizes.balance[at])
    n, p, r = pdk.devices.nmos.width, pdk.devices.pmos, pdk.resistor
    long = p.length.snap(min(_SOURCE_LONGER * design.source.l, p.length.max))
    source = Geometry(design.source.w * long / design.source.l, long)
    pairs = []
    for share, wider in pair_shapes(slope / own_slope(design)):
        units = share * gain  # of I_u, a side at equal currents
        drop = wider / slope - 1 / own_slope(design)  # volts/V_u across the resistor at all of a side's current
        shift = offset / slope / drop
        fingers = max(1, math.ceil(WIDER * units / 2))
        pairs.append(
            DrawnPair(
                n.snap(max(WIDER * design.pair.w * units / fingers, n.min)),
                fingers,
                n.snap(max(design.tail.w * units * (1 + shift), n.min)),
                n.snap(max(design.tail.w * units * (1 + _STANDING), n.min)),
                Geometry(p.width.snap(max(source.w * units * (shift + _STANDING), p.width.min)), source.l),
                max(drop * design.v_unit / (design.i_unit * units), r.resistance(r.length.min)),
            )
        )
    mk = max(1, math.ceil(2 * gain - 1e-9))
    length = p.length.snap(max(_MIRROR_LENGTH, p.length.min))
    mirror = Geometry(p.width.snap(max(design.mirror.w * length / design.mirror.l, p.width.min)), length)
    return DrawnTanh((pairs[0], pairs[1]), mk, mirror, n.snap(max(design.tail.w * gain * balance / mk, n.min)))


def within_reach(design: CellDesign, sizes: TanhSizes) -> tuple[TanhSizes, list[list[str]]]:
    """Sizes that can be drawn, and for each cell why the ones asked for cannot (empty where they can)."""
    steepest = _STEEPEST * own_slope(design)
    slope = np.clip(sizes.slope, 1e-2, steepest)
    relative = slope / own_slope(design)
    drop = np.interp(relative, _SLOPES, _STEEP) - relative  # of the steeper pair's argument, across its resistor
    largest, smallest = _LARGEST_SHIFT * drop, -0.8 * _STANDING * drop
    reasons: list[list[str]] = [[] for _ in range(len(sizes))]
    for bad, what in (
        (sizes.slope > steepest, "its steeper pair would have next to no resistor: the slope is too large for it"),
        (sizes.offset > largest, f"its PMOS source would carry more than {_LARGEST_SHIFT:g} times a side's current"),
    ):
        for i in np.flatnonzero(bad).tolist():
            reasons[i].append(what)
    offset = np.clip(sizes.offset, smallest, largest)
    return TanhSizes(slope, offset, np.maximum(sizes.gain, 0.1), np.clip(sizes.balance, 0.5, 2.0)), reasons
