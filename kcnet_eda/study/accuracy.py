"""Accuracies with their intervals, and when a read-out has decided."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson, JASA 22, 1927); (0, 1) for no trials."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At 0 and n successes the exact bound is 0 or 1; rounding would leave it a hair inside.
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))


def proportion(count: int, n: int) -> dict[str, Any]:
    """A proportion of ``n`` with Wilson's interval, as records hold it."""
    return {"count": count, "n": n, "value": count / n, "wilson95": list(wilson(count, n))}


def decision_time(time: NDArray[np.float64], readout: NDArray[np.float64]) -> float:
    """The earliest time from which the largest of ``readout`` [points, outputs] stays the same output to the end.

    Between the last point with another leader and the next, the crossing is interpolated linearly.
    """
    leader = np.argmax(readout, axis=1)
    others = np.flatnonzero(leader != leader[-1])
    if others.size == 0:
        return float(time[0])
    before = int(others[-1])
    gap = readout[before : before + 2, leader[-1]] - readout[before : before + 2, leader[before]]
    share = 1.0 if gap[1] == gap[0] else min(1.0, max(0.0, float(-gap[0] / (gap[1] - gap[0]))))
    return float(time[before] + share * (time[before + 1] - time[before]))
