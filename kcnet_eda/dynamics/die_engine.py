"""The fast engine over dies: every die has its own θ1 and θ2 of every edge, and all samples go through each die.

    i = ReLU(θ1·(v_s − v_d) + θ2) leaves s and enters d

RK4 with fixed steps in single precision. A die is computed by one thread from its own numbers alone, so its result
does not depend on how many threads there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.fused import compiled

Floats = NDArray[Any]
Ints = NDArray[np.int64]


@compiled
def _rate(source, target, theta1, theta2, v, rate):  # type: ignore[no-untyped-def]
    rate[:] = 0
    for e in range(source.size):
        v_s, v_d, into, out_of = v[source[e]], v[target[e]], rate[target[e]], rate[source[e]]
        t1, t2 = theta1[e], theta2[e]
        for m in range(v_s.size):
            current = max(t1 * (v_s[m] - v_d[m]) + t2, v.dtype.type(0))
            into[m] += current
            out_of[m] -= current
    rate[0, :] = 0  # ground is held


@compiled
def _advance(v, h, k, out):  # type: ignore[no-untyped-def]
    for node in range(v.shape[0]):
        row, slope, into = v[node], k[node], out[node]
        for m in range(row.size):
            into[m] = row[m] + h * slope[m]


@compiled
def _solve(source, target, theta1, theta2, duration, steps, v):  # type: ignore[no-untyped-def]
    """RK4 in place; ``v`` [nodes, samples]."""
    k, stage, total = np.empty_like(v), np.empty_like(v), np.empty_like(v)
    h = v.dtype.type(duration / steps)
    half, third, sixth = h / v.dtype.type(2), h / v.dtype.type(3), h / v.dtype.type(6)
    for _ in range(steps):
        _rate(source, target, theta1, theta2, v, k)
        _advance(v, sixth, k, total)
        _advance(v, half, k, stage)
        _rate(source, target, theta1, theta2, stage, k)
        _advance(total, third, k, total)
        _advance(v, half, k, stage)
        _rate(source, target, theta1, theta2, stage, k)
        _advance(total, third, k, total)
        _advance(v, h, k, stage)
        _rate(source, target, theta1, theta2, stage, k)
        _advance(total, sixth, k, v)


def evolve_dies(
    ends: tuple[Ints, Ints],
    theta1: Floats,
    theta2: Floats,
    x0: Floats,
    duration: float,
    *,
    steps: int,
    threads: int = 1,
    dtype: type[np.floating[Any]] = np.float32,
) -> Floats:
    """Final states [dies, nodes, samples] of samples ``x0`` [samples, nodes], in model units.

    ``ends`` are the source and the target of each edge [E], ``theta1`` and ``theta2`` [dies, E].
    """
    start = np.ascontiguousarray(np.asarray(x0).T, dtype=dtype)
    v = np.repeat(start[None], len(theta1), axis=0)
    one, two = (np.ascontiguousarray(theta, dtype=dtype) for theta in (theta1, theta2))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda die: _solve(*ends, one[die], two[die], duration, steps, v[die]), range(len(v))))
    return v
