"""Kinds of edge cells: what calibration and a bundle must know of each, its law and how sizes follow from it.

A cell's parameters are a row of ``theta`` [cells, 3]: (θ1, θ2, 1) of a rectifying cell, (a, c, k) of a tanh cell, both
i = gain·φ(slope·x + offset). ``free`` of them, the first, are fitted and corrected. A cell of negative slope is drawn
as one of positive slope and wired with its sensing pins exchanged.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.cell_design import BOX, CellDesign
from kcnet_eda.physical.mos_cell import CellSizes, first_sizes, full_scale, snap_sizes
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.relu_fit import fit_relu
from kcnet_eda.physical.tanh_cell import DRAWING, TanhSizes, within_reach
from kcnet_eda.physical.tanh_fit import fit_tanh

Floats = NDArray[np.float64]
Sizes = CellSizes | TanhSizes
Snapped = tuple[Sizes, list[list[str]]]

_SINK_SPREAD = 1.5  # the sink's output may become this much longer or shorter than its input


class CellKind(Protocol):
    """One kind of edge cell."""

    name: str
    prefix: str
    free: int
    settings: tuple[object, ...]
    """Numbers on which corrections depend beyond a first deck: results of others are not taken from the cache."""

    def shape(self, z: Floats) -> Floats:
        """φ of the law."""

    def law(self, theta: Floats, x: Floats) -> Floats:
        """The trained current [cells, points], I_u, at ``x`` [points] model units."""

    def full_scale(self, theta: Floats) -> Floats:
        """What errors are a share of, I_u [cells]: the largest current in the box, k of a tanh cell."""

    def fit(self, x: Floats, weight: Floats, current: Floats, theta: Floats) -> Floats:
        """The least-squares parameters [cells, 3] of measured currents [cells, points]."""

    def at_edge(self) -> Floats:
        """What an error of each parameter makes of the current where that is largest, [free]."""

    def first(self, pdk: Pdk, design: CellDesign, theta: Floats) -> Snapped:
        """Sizes from the ideal law of the slope's magnitude, where calibration starts, and why some cannot be drawn."""

    def asked(self, design: CellDesign, sizes: Sizes) -> Floats:
        """The parameters [cells, free] that sizes stand for by the cell's ideal law."""

    def corrected(self, pdk: Pdk, design: CellDesign, asked: Floats, before: Sizes, ratio: Floats) -> Snapped:
        """Sizes for other parameters and for a ``ratio`` of what leaves s over what enters d, as :meth:`first`."""

    def ratio(self, weight: Floats, out_of_s: Floats, into_d: Floats, sizes: Sizes) -> Floats:
        """By how much the two ends' currents differ, [cells]: 1 is not at all."""

    def is_off(self, theta: Floats) -> NDArray[np.bool_]:
        """Cells whose current no longer moves at the end of the box where it is least: off, or at −k to a percent."""

    def units(self, sizes: Sizes) -> Floats:
        """A measure of each cell's size: of its share of the supply current, and of its pins' capacitance."""


class ReluKind:
    """i = ReLU(θ1·x + θ2)."""

    name, prefix, free = "relu", "kc_edge", 2
    settings: tuple[object, ...] = (_SINK_SPREAD,)

    def shape(self, z: Floats) -> Floats:
        return np.maximum(z, 0)

    def law(self, theta: Floats, x: Floats) -> Floats:
        return self.shape(theta[:, :1] * x + theta[:, 1:2])

    def full_scale(self, theta: Floats) -> Floats:
        return full_scale(theta[:, 0], theta[:, 1])

    def fit(self, x: Floats, weight: Floats, current: Floats, theta: Floats) -> Floats:
        found = fit_relu(x, weight, current, theta[:, 0], theta[:, 1])
        return np.stack([*found, theta[:, 2]], axis=1)

    def at_edge(self) -> Floats:
        return np.array([2 * BOX, 1.0])

    def first(self, pdk: Pdk, design: CellDesign, theta: Floats) -> Snapped:
        return snap_sizes(pdk, first_sizes(design, theta[:, 0], theta[:, 1]))

    def asked(self, design: CellDesign, sizes: Sizes) -> Floats:
        assert isinstance(sizes, CellSizes)
        total = sizes.resistance + design.gate_resistance / sizes.k
        return np.stack(
            [design.v_unit / (design.i_unit * total), sizes.k - sizes.source_width / design.source.w], axis=1
        )

    def corrected(self, pdk: Pdk, design: CellDesign, asked: Floats, before: Sizes, ratio: Floats) -> Snapped:
        assert isinstance(before, CellSizes)
        constant = np.isinf(before.resistance)
        theta1 = np.maximum(asked[:, 0], 1e-3 * design.theta1_min)
        resistance = design.v_unit / (design.i_unit * theta1) - design.gate_resistance / before.k
        low, high = design.sink.l / _SINK_SPREAD, design.sink.l * _SINK_SPREAD
        sizes = CellSizes(
            before.k,
            before.mk,
            np.where(constant, np.inf, resistance),
            design.source.w * (before.k - asked[:, 1]),
            np.clip(before.sink_length * ratio, low, high),
        )
        return snap_sizes(pdk, sizes)

    def ratio(self, weight: Floats, out_of_s: Floats, into_d: Floats, sizes: Sizes) -> Floats:
        top, bottom = (out_of_s * into_d * weight).sum(1), (into_d**2 * weight).sum(1)
        return np.asarray(np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 1.0))

    def is_off(self, theta: Floats) -> NDArray[np.bool_]:
        return np.asarray(theta[:, 1] < 2 * BOX * np.abs(theta[:, 0]))

    def units(self, sizes: Sizes) -> Floats:
        assert isinstance(sizes, CellSizes)
        return np.asarray(sizes.k, dtype=float)


class TanhKind:
    """i = k·tanh(a·x + c)."""

    name, prefix, free = "tanh", "kc_tanh", 3
    settings: tuple[object, ...] = DRAWING

    def shape(self, z: Floats) -> Floats:
        return np.tanh(z)

    def law(self, theta: Floats, x: Floats) -> Floats:
        return theta[:, 2:] * self.shape(theta[:, :1] * x + theta[:, 1:2])

    def full_scale(self, theta: Floats) -> Floats:
        return np.asarray(theta[:, 2])

    def fit(self, x: Floats, weight: Floats, current: Floats, theta: Floats) -> Floats:
        return fit_tanh(x, weight, current, theta)

    def at_edge(self) -> Floats:
        return np.ones(3)  # |dy/da| is at most 0.66/a, and a small one is told apart from k only loosely

    def first(self, pdk: Pdk, design: CellDesign, theta: Floats) -> Snapped:
        return within_reach(design, TanhSizes(np.abs(theta[:, 0]), theta[:, 1], theta[:, 2], np.ones(len(theta))))

    def asked(self, design: CellDesign, sizes: Sizes) -> Floats:
        assert isinstance(sizes, TanhSizes)
        return np.stack([sizes.slope, sizes.offset, sizes.gain], axis=1)

    def corrected(self, pdk: Pdk, design: CellDesign, asked: Floats, before: Sizes, ratio: Floats) -> Snapped:
        assert isinstance(before, TanhSizes)
        return within_reach(design, TanhSizes(asked[:, 0], asked[:, 1], asked[:, 2], before.balance * ratio))

    def ratio(self, weight: Floats, out_of_s: Floats, into_d: Floats, sizes: Sizes) -> Floats:
        # What the two mirrors put in together less what the two sinks take: into_d − out_of_s, of 2·k
        assert isinstance(sizes, TanhSizes)
        return np.asarray(1 + ((into_d - out_of_s) * weight).sum(1) / (2 * sizes.gain))

    def is_off(self, theta: Floats) -> NDArray[np.bool_]:
        return np.asarray(2 * BOX * np.abs(theta[:, 0]) - theta[:, 1] > 2.5)

    def units(self, sizes: Sizes) -> Floats:
        assert isinstance(sizes, TanhSizes)
        return sizes.gain


def drawn_sign(kind: CellKind, theta: Floats) -> Floats:
    """What turns parameters of edges into those that sizes are of, and back: −1 for a negative slope, which is drawn as
    a positive one, 1 for all else. [cells, free]."""
    return np.where(theta[:, :1] < 0, [-1.0, *[1.0] * (kind.free - 1)], 1.0)


RELU_CELL, TANH_CELL = ReluKind(), TanhKind()
KINDS: dict[str, CellKind] = {kind.name: kind for kind in (RELU_CELL, TANH_CELL)}
