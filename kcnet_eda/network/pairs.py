"""The edges of a phase gathered by node pair: exact algebra on the laws, nothing is approximated.

Every rectifying or linear edge between the same two nodes whose law is of the difference x = v_s − v_d of their
voltages is a part of one piecewise linear current,

    i(x) = i0 + g·x + Σ_j gain_j·relu(±(x − threshold_j)),

whichever way round the edge was drawn: one with source and target exchanged carries its current against i and sees −x.
An edge to or from ground is always such an edge, since ground's voltage is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Edges
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, RELU

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """P node pairs with M breakpoints, sorted by source, then target; ``source`` is the larger node number.

    The terms of pair p are ``first[p] : first[p + 1]`` of ``gain``, ``threshold`` and ``falling`` (true where the term
    is relu(threshold − x)); ``term_edge`` [M] names the edge each came from. ``pair_of_edge`` and ``term_of_edge`` [E]
    lead the other way, −1 where there is none: ``rest`` are the edges that no pair holds (tanh, or a law of more than
    the difference), and an edge without a breakpoint has gone into i0 and g.
    """

    source: Ints
    target: Ints
    i0: Floats
    g: Floats
    first: Ints
    gain: Floats
    threshold: Floats
    falling: Flags
    term_edge: Ints
    pair_of_edge: Ints
    term_of_edge: Ints
    rest: Ints

    def __len__(self) -> int:
        return int(self.source.size)


def gather_pairs(edges: Edges) -> Pairs:
    """Gather E edges by node pair; see :class:`Pairs`."""
    source, target = np.maximum(edges.source, edges.target), np.minimum(edges.source, edges.target)
    along = edges.source == source
    alpha, beta = np.where(along, edges.a, edges.b), np.where(along, edges.b, edges.a)
    linear = edges.phi == IDENTITY
    rectifying = (edges.phi == RELU) | (edges.phi == LEAKY_RELU)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bend = -edges.c / alpha
    of_difference = (linear | rectifying) & ((beta == -alpha) | (target == 0))
    merged = np.flatnonzero(of_difference & (linear | (alpha == 0.0) | np.isfinite(bend)))
    alpha, c = alpha[merged], edges.c[merged]
    gain = np.where(along, edges.k, -edges.k)[merged]

    # φ(y) = slope·y + (1 − slope)·relu(y), with y = alpha·x + c; without alpha relu(y) is a constant.
    slope = np.select([linear[merged], edges.phi[merged] == LEAKY_RELU], [1.0, LEAKY_SLOPE], 0.0)
    bends = (slope < 1.0) & (alpha != 0.0)
    constant = np.where(bends, slope * c, np.where(slope < 1.0, np.maximum(c, slope * c), c))

    width = int(source.max(initial=0)) + 1
    key, pair = np.unique(source[merged].astype(np.int64) * width + target[merged], return_inverse=True)
    order = np.argsort(pair[bends], kind="stable")
    term = np.flatnonzero(bends)[order]

    pair_of_edge, term_of_edge = np.full(len(edges), -1), np.full(len(edges), -1)
    pair_of_edge[merged] = pair
    term_of_edge[merged[term]] = np.arange(term.size)
    return Pairs(
        source=key // width,
        target=key % width,
        i0=np.bincount(pair, gain * constant, key.size).astype(np.float64),
        g=np.bincount(pair, gain * slope * alpha, key.size).astype(np.float64),
        first=np.concatenate([[0], np.cumsum(np.bincount(pair[term], minlength=key.size))]),
        gain=(gain * (1.0 - slope) * np.abs(alpha))[term],
        threshold=bend[merged[term]],
        falling=alpha[term] < 0.0,
        term_edge=merged[term],
        pair_of_edge=pair_of_edge,
        term_of_edge=term_of_edge,
        rest=np.flatnonzero(pair_of_edge < 0),
    )
