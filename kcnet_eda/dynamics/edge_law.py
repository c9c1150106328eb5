"""Edges as built: Eq. (6) with what a cell adds to it, in model units, as arrays. The law that every level shares.

    z = θ1·(v_s − v_d) + common_mode·(v_s + v_d)/2 + θ2
    y = corner(z) − compression·corner(z)² + leakage
    lag·di/dτ = y − i
    (1 + conductance·v_d)·i enters d        ratio·i leaves s

corner(z) is ReLU with a parabola over −rounding .. rounding, as in training (:mod:`kcnet_eda.dynamics.cell_rhs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

SHARPEST = 1e-5  # a rounding that single precision can divide by; the corner is off by a quarter of it


@dataclass(frozen=True, eq=False)
class BuiltEdges:
    """Edges: ``theta1``, ``theta2`` and ``ratio`` (sink over source current) [dies, E], what depends on the cell's size
    alone [E], and what all share. Voltages in V_u, currents in I_u, times in T_u."""

    theta1: Floats
    theta2: Floats
    ratio: Floats
    common_mode: Floats
    rounding: Floats
    compression: Floats
    leakage: Floats
    conductance: float = 0.0
    lag: float = 0.0

    def settled(self, v_s: Floats, v_d: Floats) -> tuple[Floats, Floats]:
        """What enters d and what leaves s once the lag is over; voltages [..., 1 or E] against [dies, E]."""
        z = self.theta1 * (v_s - v_d) + self.common_mode * (v_s + v_d) / 2 + self.theta2
        rounding = np.maximum(self.rounding, SHARPEST)
        within = np.clip(z, -rounding, rounding) + rounding
        current = np.maximum(z - rounding, 0.0) + within**2 / (4 * rounding)
        current = current * (1 - self.compression * current) + self.leakage
        return current * (1 + self.conductance * v_d), current * self.ratio


def eq6_edges(theta1: Floats, theta2: Floats) -> BuiltEdges:
    """Edges that add nothing to Eq. (6) but the sharpest corner there is; ``theta1`` and ``theta2`` [dies, E]."""
    none = np.zeros(theta1.shape[-1])
    return BuiltEdges(theta1, theta2, np.ones_like(theta1), none, none, none, none)
