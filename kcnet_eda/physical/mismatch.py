"""Mismatch of cells, out of a kit's own Monte Carlo, by Pelgrom's rule: σ falls as 1/√area.

A cell of k units is k times the devices of one. Its θ1 and the ratio of its two currents have σ/√k of a unit's, its θ2,
a difference of k currents and k others, σ·√k. The bias of a die is off too, and all its cells with it: their θ1 by one
factor, their θ2 by one current a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.edge_model import MeasuredCells
from kcnet_eda.physical.relu_fit import fit_relu

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnitSpread:
    """σ of a cell of one unit, independent from cell to cell: of θ1 over θ1, of θ2 in I_u, of the sink over the source
    current; and of the die's bias: of all θ1 over θ1, of θ2 in I_u a unit. ``dies`` is on how many it was measured, 0
    where it was stated."""

    sigma_gain: float
    sigma_offset: float
    sigma_ratio: float
    bias_gain: float = 0.0
    bias_offset: float = 0.0
    dies: int = 0

    def of(self, units: Floats) -> tuple[Floats, Floats, Floats]:
        """σ of θ1 over θ1, of θ2 and of the ratio, of cells of so many ``units``."""
        root = np.sqrt(units)
        return self.sigma_gain / root, self.sigma_offset * root, self.sigma_ratio / root


def within_dies(dies: Sequence[MeasuredCells]) -> tuple[Floats, Floats, Floats]:
    """Sizes of ``dies``, each of which has the same several times: θ1 and θ2 [2, sizes], units [sizes], and variances
    within a die of θ1 over θ1, of θ2 and of sink over source current [3, sizes]."""
    first, values = dies[0], np.array([_values(die) for die in dies])  # [dies, 3, cells]
    sizes, which = np.unique(np.stack([first.theta1, first.theta2]), axis=1, return_inverse=True)
    rows = [which.reshape(-1) == i for i in range(sizes.shape[1])]
    units = np.array([first.units[row][0] for row in rows])
    return sizes, units, np.stack([values[:, :, row].var(axis=2, ddof=1).mean(axis=0) for row in rows], axis=1)


def unit_spread(dies: Sequence[MeasuredCells]) -> UnitSpread:
    """The spread in ``dies``, each of which has the same sizes several times."""
    first, values = dies[0], np.array([_values(die) for die in dies])
    sizes, units, within = within_dies(dies)
    sloped = sizes[0] > 0
    # What a mirror multiplies is θ1's in a sloped cell, and all there is in a constant one: that one's θ2 is not asked.
    gain, offset = (within[0] * units)[sloped].mean(), (within[1] / units)[sloped].mean()
    # The best linear estimates of what each die's cells share, and the variance that their own mismatch leaves in them.
    on = np.where(first.theta1 > 0, first.units, 0.0)
    shared_gain = values[:, 0] @ on / on.sum()
    shared_offset = (values[:, 1] - values[:, 1].mean(axis=0)) @ on / (on**2).sum()
    left = gain / on.sum(), offset * (on**3).sum() / (on**2).sum() ** 2
    bias = [
        np.sqrt(max(0.0, float(of.var(ddof=1)) - v)) for of, v in zip((shared_gain, shared_offset), left, strict=True)
    ]
    return UnitSpread(
        float(np.sqrt(gain)),
        float(np.sqrt(offset)),
        float(np.sqrt((within[2] * units).mean())),
        float(bias[0]),
        float(bias[1]),
        len(dies),
    )


def _values(die: MeasuredCells) -> Floats:
    """θ1 over that wanted, θ2, and sink over source current [3, cells]."""
    x = die.v_s - die.v_d
    theta1, theta2 = fit_relu(x, die.weight, die.sink, die.theta1, die.theta2)
    ratio = (die.source * die.sink * die.weight).sum(1) / (die.sink**2 * die.weight).sum(1)
    return np.stack([theta1 / np.where(die.theta1 > 0, die.theta1, 1.0), theta2, ratio])
