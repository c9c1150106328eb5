"""One edge for each size of the cell: what tables and studies of the cell are made on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.cell_design import CellDesign
from kcnet_eda.physical.mos_cell import first_sizes

Floats = NDArray[np.float64]

_UNITS = (1, 2, 3, 4, 6, 9, 12)
_SHARE = 0.95  # of the θ1 that so many units can do
_THETA2 = 0.25
_CONSTANT = 1.0  # θ2 of the edge without a slope


def size_classes(design: CellDesign) -> tuple[Floats, Floats]:
    """(θ1, θ2) [classes] of an edge for each number of units, and last of a constant one (θ1 = 0)."""
    theta1 = np.array([_SHARE * design.slope_per_unit * k for k in _UNITS])
    theta1 = theta1[(theta1 >= design.theta1_min) & (theta1 <= design.theta1_max)]
    return np.append(theta1, 0.0), np.append(np.full(theta1.size, _THETA2), min(_CONSTANT, design.theta2_max))


def class_names(design: CellDesign) -> list[str]:
    """What tables call each class: its units of pedestal and of mirror."""
    sizes = first_sizes(design, *size_classes(design))
    return [f"k = {k}, mk = {mk}" for k, mk in zip(sizes.k.tolist(), sizes.mk.tolist(), strict=True)]
