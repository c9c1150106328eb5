"""The law y = factor·x^exponent that measured points follow, with the interval of its exponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class PowerLaw:
    """Least squares in logarithms over ``n`` points; ``interval`` is the exponent's 95 % interval by Student's t, None
    for two points, which a line always meets."""

    exponent: float
    factor: float
    interval: tuple[float, float] | None
    n: int


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """The law of ``y`` over ``x``; None for fewer than two different ``x`` or values that have no logarithm."""
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        return None
    u, w = np.log(x), np.log(y)
    centred = u - u.mean()
    exponent = float(centred @ w / (centred @ centred))
    left = w - w.mean() - exponent * centred
    freedom = len(u) - 2
    interval = None
    if freedom > 0:
        half = float(student.ppf(0.975, freedom) * np.sqrt(left @ left / freedom / (centred @ centred)))
        interval = (exponent - half, exponent + half)
    return PowerLaw(exponent, float(np.exp(w.mean() - exponent * u.mean())), interval, len(u))
