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
    return float(decision_times(time, readout[:, :, None])[0])


def decision_times(time: NDArray[np.float64], readout: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """:func:`decision_time` of each sample of ``readout`` [points, outputs, samples], [samples]. What is not finite
    has no leader."""
    leader = np.where(np.isfinite(readout).all(axis=1), readout.argmax(axis=1), -1)
    other = leader != leader[-1]
    sample = np.flatnonzero(other.any(axis=0))
    found = np.full(leader.shape[1], float(time[0]))
    before = len(time) - 1 - other[::-1, sample].argmax(axis=0)
    first, then = leader[-1, sample], leader[before, sample]
    gap = [(readout[at, first, sample] - readout[at, then, sample]).astype(np.float64) for at in (before, before + 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = -gap[0] / (gap[1] - gap[0])
    share = np.where(np.isfinite(share), np.clip(share, 0.0, 1.0), 1.0)
    found[sample] = time[before] + share * (time[before + 1] - time[before])
    return found
