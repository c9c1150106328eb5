"""Edges of each size of the cell: what tables and studies of the cell are made on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.cell_design import BOX, CellDesign
from kcnet_eda.physical.mos_cell import first_sizes

Floats = NDArray[np.float64]

_UNITS = (1, 2, 3, 4, 6, 9, 12)
_SHARE = 0.95  # of the θ1 that so many units can do
_THETA2 = 0.25
_CONSTANT = 1.0  # θ2 of the edge without a slope
_LOW, _HIGH = -1.0, 1.0  # θ2 beyond that of the table, where the edge's model is fitted too
_JUST = 0.02  # of full scale above the least


def size_classes(design: CellDesign) -> tuple[Floats, Floats]:
    """(θ1, θ2) [classes] of an edge for each number of units, and last of a constant one (θ1 = 0)."""
    theta1 = np.array([_SHARE * design.slope_per_unit * k for k in _UNITS])
    theta1 = theta1[(theta1 >= design.theta1_min) & (theta1 <= design.theta1_max)]
    return np.append(theta1, 0.0), np.append(np.full(theta1.size, _THETA2), min(_CONSTANT, design.theta2_max))


def model_classes(design: CellDesign) -> tuple[Floats, Floats]:
    """(θ1, θ2) [edges] to fit the edge's model on: those of :func:`size_classes`, each size also with low and high θ2,
    and a smaller constant edge."""
    theta1, theta2 = size_classes(design)
    sloped = theta1[:-1]
    low = np.maximum(_LOW, design.full_scale_min + _JUST - 2 * BOX * sloped)
    high = np.full(sloped.size, min(_HIGH, design.theta2_max))
    return np.concatenate([theta1, sloped, sloped, [0.0]]), np.concatenate([theta2, low, high, [theta2[-1] / 2]])


def class_names(design: CellDesign) -> list[str]:
    """What tables call each class: its units of pedestal and of mirror."""
    sizes = first_sizes(design, *size_classes(design))
    return [f"k = {k}, mk = {mk}" for k, mk in zip(sizes.k.tolist(), sizes.mk.tolist(), strict=True)]
