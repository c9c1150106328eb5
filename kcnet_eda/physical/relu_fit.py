"""What (θ1, θ2) a measured edge has: the least-squares ReLU(θ1·x + θ2) over the box of node voltages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.cell_design import BOX

Floats = NDArray[np.float64]

_ROUNDS = 60
_SETTLED = 1e-9


def box_points(n_x: int, n_u: int) -> tuple[Floats, Floats, Floats]:
    """The points of a sweep: x = v_s − v_d from −2·BOX to 2·BOX in the inner loop, and in the outer u from −1 to 1,
    where the mean of v_s and v_d is u·(BOX − |x|/2); with each point's share of the box's area, by Simpson's rule over
    u (``n_u`` is odd and at least 3), so that a coarse and a fine grid fit the same law. Arrays [n_x · n_u]."""
    x = np.tile(np.linspace(-2 * BOX, 2 * BOX, n_x), n_u)
    u = np.repeat(np.linspace(-1, 1, n_u), n_x)
    across = BOX - np.abs(x) / 2 + 2 * BOX / n_x  # the tips stand for a little area too
    simpson = np.where(np.arange(n_u) % 2, 4.0, 2.0)
    simpson[[0, -1]] = 1.0
    weight = across * np.repeat(simpson, n_x)
    return x, u, weight / weight.sum()


def fit_relu(x: Floats, weight: Floats, current: Floats, theta1: Floats, theta2: Floats) -> tuple[Floats, Floats]:
    """θ1 and θ2 [n] of ``current`` [n, points] at ``x`` with ``weight`` [points], from a first guess.

    Which points conduct changes with the fit, so a corner near a column of points has a least sum of squares on either
    side of it. The fit starts there and half a column away on both sides, and the least of the three counts.

    θ1 stays 0 where the guess is 0: a constant current has no corner to find.
    """
    away = np.abs(theta1) * np.diff(np.unique(x)).min() / 2
    found = [_gauss_newton(x, weight, current, theta1, theta2 + shift) for shift in (0.0, away, -away)]
    rest = [(((current - np.maximum(t1[:, None] * x + t2[:, None], 0)) ** 2) * weight).sum(1) for t1, t2 in found]
    best = np.argmin(rest, axis=0)
    rows = np.arange(theta1.size)
    return np.stack([t1 for t1, _ in found])[best, rows], np.stack([t2 for _, t2 in found])[best, rows]


def _gauss_newton(x: Floats, weight: Floats, current: Floats, theta1: Floats, theta2: Floats) -> tuple[Floats, Floats]:
    t1, t2 = theta1.copy(), theta2.copy()
    sloped = theta1 != 0
    for _ in range(_ROUNDS):
        z = t1[:, None] * x + t2[:, None]
        on = (z > 0) * weight
        r = (current - np.maximum(z, 0)) * on
        s0, s1, s2 = on.sum(1), (on * x).sum(1), (on * x * x).sum(1)
        b0, b1 = r.sum(1), (r * x).sum(1)
        s1, b1 = np.where(sloped, s1, 0.0), np.where(sloped, b1, 0.0)
        s2 = np.where(sloped, s2, 1.0)
        det = s0 * s2 - s1 * s1
        good = det > 1e-12 * np.maximum(s0 * s2, 1e-30)
        det = np.where(good, det, 1.0)
        d1 = np.where(good, (s0 * b1 - s1 * b0) / det, 0.0)
        d2 = np.where(good, (s2 * b0 - s1 * b1) / det, 0.0)
        t1, t2 = t1 + d1, t2 + d2
        if max(float(np.abs(d1).max(initial=0)), float(np.abs(d2).max(initial=0))) < _SETTLED:
            break
    return t1, t2
