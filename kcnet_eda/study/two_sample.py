"""How far two clouds of points are from being drawn from one distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]


def energy_distance(x: Floats, y: Floats) -> float:
    """The energy distance 2·E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖ between two clouds [n, d] and [m, d], Euclidean norm.

    Means are over all pairs, a point with itself included, so it is never below 0, and 0 only for equal clouds.
    Source: Székely and Rizzo, "Energy statistics: A class of statistics based on distances", J. Stat. Plan. Inference
    143 (2013), Eq. (5). (:func:`scipy.stats.energy_distance` gives, in one dimension, its square root.)
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return float(2.0 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())
