"""The right-hand side: dv_k/dτ = Σ currents into k − Σ currents out of k, compiled, one sample or many at once."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kcnet_eda.dynamics.fused import FusedPhase
from kcnet_eda.network.graph import Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, PHI_NAMES, RELU, TANH

Floats = NDArray[np.float64]

# Unsigned indices spare numba its check for negative ones and let the loops below vectorise; so does leave to
# reorder sums. Rounding then depends on the machine's vector width, at the 1e-16 level.
_compiled = njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})


@_compiled
def _currents_of_one(start, source, target, a, b, c, k, v, current):  # type: ignore[no-untyped-def]
    """``start[φ]`` .. ``start[φ + 1]`` are the edges of law φ: each law is a loop without branches."""
    for e in range(start[RELU], start[RELU + 1]):
        current[e] = k[e] * max(a[e] * v[source[e]] + b[e] * v[target[e]] + c[e], 0.0)
    for e in range(start[LEAKY_RELU], start[LEAKY_RELU + 1]):
        x = a[e] * v[source[e]] + b[e] * v[target[e]] + c[e]
        current[e] = k[e] * max(x, LEAKY_SLOPE * x)
    for e in range(start[TANH], start[TANH + 1]):
        current[e] = k[e] * math.tanh(a[e] * v[source[e]] + b[e] * v[target[e]] + c[e])
    for e in range(start[IDENTITY], start[IDENTITY + 1]):
        current[e] = k[e] * (a[e] * v[source[e]] + b[e] * v[target[e]] + c[e])


@_compiled
def _sum_at_nodes(into_start, into, from_start, out_of, current, rate):  # type: ignore[no-untyped-def]
    rate[0] = 0.0  # ground is held
    for node in range(1, rate.size):
        total = 0.0
        for j in range(into_start[node], into_start[node + 1]):
            total += current[into[j]]
        for j in range(from_start[node], from_start[node + 1]):
            total -= current[out_of[j]]
        rate[node] = total


@_compiled
def _rate_of_one(start, source, target, a, b, c, k, into_start, into, from_start, out_of, v):  # type: ignore[no-untyped-def]
    current, rate = np.empty(source.size), np.empty(v.size)
    _currents_of_one(start, source, target, a, b, c, k, v, current)
    _sum_at_nodes(into_start, into, from_start, out_of, current, rate)
    return rate


@_compiled
def _current_of_many(phi, a, b, c, k, v_s, v_d, current):  # type: ignore[no-untyped-def]
    """One edge, all samples: φ is chosen outside the loop over samples."""
    for m in range(current.size):
        current[m] = a * v_s[m] + b * v_d[m] + c
    if phi == RELU:
        for m in range(current.size):
            current[m] = max(current[m], 0.0)
    elif phi == LEAKY_RELU:
        for m in range(current.size):
            current[m] = max(current[m], LEAKY_SLOPE * current[m])
    elif phi == TANH:
        for m in range(current.size):
            current[m] = math.tanh(current[m])
    for m in range(current.size):
        current[m] *= k


@_compiled
def _flows(phi, source, target, a, b, c, k, v, total, heat, supply):  # type: ignore[no-untyped-def]
    """The largest |i| of one edge; for each sample the sums over edges of |i| and of the power either way."""
    current = np.empty(v.shape[1])
    peak = 0.0
    for e in range(source.size):
        v_s, v_d = v[source[e]], v[target[e]]
        _current_of_many(phi[e], a[e], b[e], c[e], k[e], v_s, v_d, current)
        for m in range(current.size):
            magnitude, power = abs(current[m]), current[m] * (v_s[m] - v_d[m])
            peak = max(peak, magnitude)
            total[m] += magnitude
            heat[m] += max(power, 0.0)
            supply[m] += max(-power, 0.0)
    return peak


class RightHandSide:
    """dv/dτ and the edge currents of one phase, in model units."""

    def __init__(self, phase: Phase) -> None:
        e = phase.edges
        order = np.lexsort((e.target, e.phi))
        self._phi = e.phi[order]
        source, target = e.source[order], e.target[order]
        self._edges = (source.astype(np.uintp), target.astype(np.uintp), e.a[order], e.b[order], e.c[order], e.k[order])
        self._start = np.searchsorted(self._phi, np.arange(len(PHI_NAMES) + 1)).astype(np.uintp)
        self._incidence = (*_edges_at(target, phase.n_nodes), *_edges_at(source, phase.n_nodes))
        self._phase = phase

    def __call__(self, v: Floats) -> Floats:
        """dv/dτ at node voltages ``v``: [nodes], or [nodes, samples] with samples innermost; ground's is 0."""
        if v.ndim == 1:
            return np.asarray(_rate_of_one(self._start, *self._edges, *self._incidence, v))
        return self._fused(v)

    @cached_property
    def _fused(self) -> FusedPhase:
        return FusedPhase(self._phase)  # not for those who ask for one sample at a time

    def flows(self, v: Floats) -> tuple[float, Floats]:
        """What flows at ``v`` [nodes, samples]: the largest current of one edge, and [3, samples]: the sums over the
        edges of |i|, of the power turned to heat (i runs down the voltage), and of the power to be supplied (up)."""
        sums = np.zeros((3, v.shape[1]))
        peak = _flows(self._phi, *self._edges, np.ascontiguousarray(v), *sums)
        return float(peak), sums


def _edges_at(ends: NDArray[np.int32], n_nodes: int) -> tuple[NDArray[np.uintp], NDArray[np.uintp]]:
    """Edges by the node at one of their ends: ``edge[start[n] : start[n + 1]]`` are those at node n."""
    edge = np.argsort(ends, kind="stable")
    start = np.searchsorted(ends[edge], np.arange(n_nodes + 1))
    return start.astype(np.uintp), edge.astype(np.uintp)
