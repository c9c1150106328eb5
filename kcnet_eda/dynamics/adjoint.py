"""From recorded waveforms of a network and of its adjoint to the gradient of every edge's parameters.

    ∂L/∂p = ∫ (λ_d − λ_s)·∂i/∂p dτ,     i = k·φ(x),  x = a·v_s + b·v_d + c,  p ∈ {a, b, c, k}

The integrals are taken by quadrature, not by a capacitor a parameter: four for every edge would be forty times the
nodes of the shipped network, and a circuit's own trapezoidal rule meets the corner of a law within a step and falls to
order 1. Here every waveform is linear between the recorded points, so the instant at which an edge opens or closes
within a step is found, and the integrand, of degree 2 on the part that conducts, is integrated exactly by Simpson's
rule. What is left is the error of linear interpolation: order 2, the solver's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Edges
from kcnet_eda.network.laws import LEAKY_RELU, LEAKY_SLOPE, RELU, TANH

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 1 << 18  # edges times steps at once: a few MiB an array
_SIMPSON = ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6))


def edge_gradient(edges: Edges, times: Floats, v: Floats, pull: Floats) -> Floats:
    """∂L/∂(a, b, c, k) [4, E] from node voltages ``v`` and adjoint voltages ``pull`` = ∂L/∂v(τ), [points, nodes], at
    ``times`` [points], rising; model units."""
    found = np.empty((4, len(edges)))
    pull = pull.copy()
    pull[:, 0] = 0.0  # ground is held, whatever flows there
    size = max(1, _BLOCK // times.size)
    for code in np.unique(edges.phi):
        rows = np.flatnonzero(edges.phi == code)
        for start in range(0, rows.size, size):
            block = rows[start : start + size]
            found[:, block] = _of_block(edges.rows(block), int(code), np.diff(times)[:, None], v, pull)
    return found


def _of_block(e: Edges, phi: int, h: Floats, v: Floats, pull: Floats) -> Floats:
    """[4, E] of edges of one law; ``h`` [steps, 1]."""
    v_s, v_d, drive = v[:, e.source], v[:, e.target], pull[:, e.target] - pull[:, e.source]
    x = e.a * v_s + e.b * v_d + e.c
    total = np.zeros((4, len(e)))
    for share, begin, end in _parts(phi, x[:-1], x[1:]):
        for place, weight in _SIMPSON:
            r = begin + place * (end - begin)
            at_s, at_d, at_x, at_drive = (_between(w, r) for w in (v_s, v_d, x, drive))
            measure = share * weight * h * (end - begin) * at_drive
            current = np.tanh(at_x) if phi == TANH else at_x
            of_c = e.k * measure * (1 - current**2) if phi == TANH else e.k * measure
            total += [(of_c * at_s).sum(0), (of_c * at_d).sum(0), of_c.sum(0), (measure * current).sum(0)]
    return total


def _between(w: Floats, r: Floats) -> Floats:
    return np.asarray(w[:-1] + r * (w[1:] - w[:-1]))


def _parts(phi: int, x0: Floats, x1: Floats) -> Iterator[tuple[float, Floats, Floats]]:
    """The parts of each step on which the law is smooth: weight, begin and end as shares of the step [steps, E]."""
    nought, whole = np.zeros_like(x0), np.ones_like(x0)
    if phi in (RELU, LEAKY_RELU):
        on, later = x0 > 0, x1 > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            corner = np.where(on != later, x0 / (x0 - x1), 0.0)
        begin = np.where(on, 0.0, np.where(later, corner, 0.0))
        end = np.where(later, 1.0, np.where(on, corner, 0.0))
        yield 1.0 if phi == RELU else 1.0 - LEAKY_SLOPE, begin, end
    if phi != RELU:
        yield LEAKY_SLOPE if phi == LEAKY_RELU else 1.0, nought, whole


def eq6_rows(edges: Edges) -> Ints:
    """The edges that are of Eq. (6), ReLU(θ1·(v_s − v_d) + θ2)."""
    return np.flatnonzero((edges.phi == RELU) & (edges.b == -edges.a) & (edges.k == 1.0))


def eq6_gradient(of_edges: Floats) -> Floats:
    """∂L/∂(θ1, θ2) [2, n] of edges of Eq. (6) from their ∂L/∂(a, b, c, k) [4, n]: a = θ1, b = −θ1, c = θ2, k = 1."""
    return np.stack([of_edges[0] - of_edges[1], of_edges[2]])
