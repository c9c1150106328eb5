"""The canonical edge law i = k·φ(a·v_s + b·v_d + c) and the published laws that are cases of it.

Source: Gao, Sun, Boning, arXiv 2310.15872, Eq. (6), for the default law; all quantities in model units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: φ by its code in :attr:`Edges.phi`. The order is part of the file format: append, never reorder.
PHI_NAMES = ("relu", "leaky_relu", "tanh", "identity")
RELU, LEAKY_RELU, TANH, IDENTITY = range(4)

LEAKY_SLOPE = 0.01


def eq6(theta1: Floats, theta2: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """``(a, b, c, k)`` of Eq. (6), i = ReLU(θ1·(v_s − v_d) + θ2): the paper's default edge.

    The paper reads it as a conductance θ1 in parallel with a current source θ2, in series with a one-sided
    switch. Arrays of shape [E] in, arrays of shape [E] out.
    """
    theta1 = np.asarray(theta1, dtype=np.float64)
    return theta1, -theta1, np.asarray(theta2, dtype=np.float64), np.ones_like(theta1)
