"""The right-hand side of a network of MOS cells on one or more dies, compiled, with its gradient: for training.

    x = θ1·(v_s − v_d) + θ2,    y = corner(x),    i = y − compression·y² + leakage,    i enters d and gain·i leaves s

corner(x) is ReLU with a parabola over −rounding .. rounding: a value and a slope without a jump. The compression, which
is the onset of saturation, is compiled in only where there is one: without it sums are rounded as if there were no such
term. Each die has its own θ1, θ2 and gain (sink over source current) of every edge: arrays [E, dies]; die j has the
j-th of as many equal shares of the samples, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ends = tuple[NDArray[np.uintp], NDArray[np.uintp]]
Dies = tuple[Floats, Floats, Floats]  # θ1, θ2, gain

_compiled = njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})


@dataclass(frozen=True)
class Corner:
    """What all dies share, in model units: half the width of the rounded corner, the current when off, and what each
    cell's current loses over its square, [E]; None is nothing."""

    rounding: float
    leakage: float
    compression: Floats | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounding", max(self.rounding, 1e-12))  # a sharp corner, without a division by 0


@_compiled
def _rate(source, target, theta1, theta2, gain, rounding, leakage, compression, v):  # type: ignore[no-untyped-def]
    rate = np.zeros_like(v)
    samples, dies = v.shape[1], theta1.shape[1]
    bend = 0.25 / rounding
    for e in range(source.size):
        v_s, v_d, into, out_of = v[source[e]], v[target[e]], rate[target[e]], rate[source[e]]
        for die in range(dies):
            t1, t2, g = theta1[e, die], theta2[e, die], gain[e, die]
            for m in range(die * samples // dies, (die + 1) * samples // dies):
                x = t1 * (v_s[m] - v_d[m]) + t2
                within = min(max(x, -rounding), rounding) + rounding
                current = max(x - rounding, 0.0) + bend * within * within
                if compression is not None:
                    current -= compression[e] * current * current
                current += leakage
                into[m] += current
                out_of[m] -= g * current
    rate[0] = 0.0  # ground is held
    return rate


@_compiled
def _pull_back(source, target, theta1, theta2, gain, rounding, compression, v, pull):  # type: ignore[no-untyped-def]
    of_v, of_theta = np.zeros_like(v), np.zeros((2, *theta1.shape))
    samples, dies = v.shape[1], theta1.shape[1]
    steep, bend = 0.5 / rounding, 0.25 / rounding
    for e in range(source.size):
        s, d = source[e], target[e]
        v_s, v_d, at_s, at_d, into_s, into_d = v[s], v[d], pull[s], pull[d], of_v[s], of_v[d]
        free_s, free_d = (1.0 if s else 0.0), (1.0 if d else 0.0)  # ground's rate is 0 whatever flows there
        for die in range(dies):
            t1, t2, g = theta1[e, die], theta2[e, die], gain[e, die] * free_s
            of_1 = of_2 = 0.0
            for m in range(die * samples // dies, (die + 1) * samples // dies):
                drop = v_s[m] - v_d[m]
                x = t1 * drop + t2
                within = min(max(x, -rounding), rounding) + rounding
                of_x = (free_d * at_d[m] - g * at_s[m]) * steep * within
                if compression is not None:
                    of_x *= 1.0 - 2.0 * compression[e] * (max(x - rounding, 0.0) + bend * within * within)
                of_1 += of_x * drop
                of_2 += of_x
                into_s[m] += t1 * of_x
                into_d[m] -= t1 * of_x
            of_theta[0, e, die], of_theta[1, e, die] = of_1, of_2
    return of_v, of_theta


def rate_of_cells(ends: Ends, dies: Dies, corner: Corner, v: Floats) -> Floats:
    """dv/dτ [nodes, samples] at ``v`` [nodes, samples], ground's row 0."""
    return np.asarray(_rate(*ends, *dies, corner.rounding, corner.leakage, corner.compression, v))


def pull_back(ends: Ends, dies: Dies, corner: Corner, v: Floats, pull: Floats) -> tuple[Floats, Floats]:
    """The vector-Jacobian product of :func:`rate_of_cells`: ∂L/∂v [nodes, samples] and ∂L/∂(θ1, θ2) [2, E, dies]."""
    of_v, of_theta = _pull_back(*ends, *dies, corner.rounding, corner.compression, v, pull)
    return np.asarray(of_v), np.asarray(of_theta)
