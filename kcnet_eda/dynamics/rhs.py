"""The right-hand side: dv_k/dτ = Σ currents into k − Σ currents out of k, compiled, many samples at once."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kcnet_eda.network.graph import Edges, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, RELU

Floats = NDArray[np.float64]


# φ is chosen once an edge, outside the loop over samples, so that each inner loop is branch-free and vectorises.
@njit(cache=True, error_model="numpy")
def _currents_of_edge(phi, a, b, c, k, v_s, v_d, out):  # type: ignore[no-untyped-def]
    if phi == RELU:
        for m in range(out.size):
            out[m] = k * max(a * v_s[m] + b * v_d[m] + c, 0.0)
    elif phi == LEAKY_RELU:
        for m in range(out.size):
            x = a * v_s[m] + b * v_d[m] + c
            out[m] = k * max(x, LEAKY_SLOPE * x)
    elif phi == IDENTITY:
        for m in range(out.size):
            out[m] = k * (a * v_s[m] + b * v_d[m] + c)
    else:
        for m in range(out.size):
            out[m] = k * math.tanh(a * v_s[m] + b * v_d[m] + c)


@njit(cache=True, error_model="numpy")
def _rate_of_many(source, target, a, b, c, k, phi, v, out):  # type: ignore[no-untyped-def]
    out[:] = 0.0
    current = np.empty(v.shape[1])
    for e in range(source.size):
        s, d = source[e], target[e]
        _currents_of_edge(phi[e], a[e], b[e], c[e], k[e], v[s], v[d], current)
        into, out_of = out[d], out[s]
        for m in range(current.size):
            into[m] += current[m]
            out_of[m] -= current[m]
    out[0] = 0.0


@njit(cache=True, error_model="numpy")
def _rate_of_one(source, target, a, b, c, k, phi, v, out):  # type: ignore[no-untyped-def]
    out[:] = 0.0
    for e in range(source.size):
        s, d = source[e], target[e]
        x = a[e] * v[s] + b[e] * v[d] + c[e]
        if phi[e] == RELU:
            x = max(x, 0.0)
        elif phi[e] == LEAKY_RELU:
            x = max(x, LEAKY_SLOPE * x)
        elif phi[e] != IDENTITY:
            x = math.tanh(x)
        out[s] -= k[e] * x
        out[d] += k[e] * x
    out[0] = 0.0


@njit(cache=True, error_model="numpy")
def _currents(source, target, a, b, c, k, phi, v, out):  # type: ignore[no-untyped-def]
    for e in range(source.size):
        _currents_of_edge(phi[e], a[e], b[e], c[e], k[e], v[source[e]], v[target[e]], out[e])


def _columns(edges: Edges) -> tuple[NDArray[np.generic], ...]:
    return edges.source, edges.target, edges.a, edges.b, edges.c, edges.k, edges.phi


def derivative(phase: Phase, v: Floats) -> Floats:
    """dv/dτ in model units for node voltages ``v``: [nodes] or [nodes, samples], samples innermost; ground's is 0."""
    v = np.ascontiguousarray(v, dtype=np.float64)
    out = np.empty_like(v)
    (_rate_of_one if v.ndim == 1 else _rate_of_many)(*_columns(phase.edges), v, out)
    return out


def edge_currents(phase: Phase, v: Floats) -> Floats:
    """i_e in model units for ``v`` [nodes, samples]: shape [E, samples], positive from source to target."""
    out = np.empty((len(phase.edges), v.shape[1]))
    _currents(*_columns(phase.edges), np.ascontiguousarray(v, dtype=np.float64), out)
    return out
