"""What a condition of process, supply and temperature does to an edge, out of cells that were measured there.

A cell trained to be θ1, θ2 is, at the condition, the edge of gain·θ1 and θ2 + shift. The gain is interpolated between
the size classes; the shift is the plane over (θ1, θ2) that fits theirs best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.calibration import Calibration

Floats = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Condition:
    """A corner of the transistors and one of the resistor, the supply [V] and the temperature [°C]."""

    corner: str
    resistor: str
    supply: float
    temperature: float

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.corner}/{self.resistor} {self.supply:g} V {self.temperature:g} °C"


@dataclass(frozen=True)
class EdgeShift:
    """Edges at a condition. ``gain`` holds at the sizes ``theta1`` (both [classes], rising in θ1), the ends beyond
    them; ``shift`` are the plane's value at the origin and its slopes over θ1 and θ2. ``fit_error`` is the largest
    distance of a measured shift from the plane, ``departure`` the largest of a measured current from the trained
    law over full scale, ``leakage`` [A] the largest current of a cell that is off. Shifts in I_u."""

    theta1: tuple[float, ...]
    gain: tuple[float, ...]
    shift: tuple[float, float, float]
    fit_error: float
    departure: float
    leakage: float

    def at(self, theta1: Floats, theta2: Floats) -> tuple[Floats, Floats]:
        """θ1 and θ2 at the condition of edges trained to be ``theta1`` and ``theta2``, of one shape."""
        size = np.abs(theta1)
        gain = np.interp(size, self.theta1, self.gain)
        origin, by_1, by_2 = self.shift
        return gain * theta1, theta2 + origin + by_1 * size + by_2 * theta2


def edge_shift(home: Calibration, there: Calibration) -> EdgeShift:
    """The condition where the cells ``home``, as calibrated, were measured as ``there``.

    Both are taken from what was fitted: what calibration left over at home is no part of the condition.
    """
    sloped = np.flatnonzero(home.theta1 > 0)
    order = sloped[np.argsort(home.theta1[sloped])]
    wanted = np.stack([np.ones(home.theta1.size), home.theta1, home.theta2], axis=1)
    moved = there.fitted2 - home.fitted2
    plane = np.linalg.lstsq(wanted, moved, rcond=None)[0]
    return EdgeShift(
        tuple(home.theta1[order].tolist()),
        tuple((there.fitted1[order] / home.fitted1[order]).tolist()),
        (float(plane[0]), float(plane[1]), float(plane[2])),
        float(np.abs(wanted @ plane - moved).max()),
        float(there.share_of_full_scale(there.max_error).max()),
        float(np.nanmax(there.leakage)),
    )
