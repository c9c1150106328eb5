"""The fused kernel: dv/dτ of many samples at once, edges gathered by node pair, samples innermost.

Each pair's difference is formed once for all its edges, g·relu(x − t) is taken as g·max(x, t) − g·t with the constants
summed at the nodes beforehand, and the loops over samples have no branches, so they vectorise. A block of samples stays
in the cache through all steps of a solver; blocks are independent, so results do not depend on how threads share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kcnet_eda.network.graph import Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, RELU, TANH
from kcnet_eda.network.pairs import Pairs, gather_pairs

Floats = NDArray[Any]

#: nogil: blocks of samples run in threads. Sums may be reordered to vectorise, at the level of rounding; NaN and
#: infinity keep their meaning, since a diverging network must be seen to diverge.
compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})

_TANH_LIMIT = 20.0  # where tanh is 1 to the last bit
_TANH_SQUARINGS = 6


@compiled
def vector_tanh(x, out):  # type: ignore[no-untyped-def]
    """tanh of a vector by (1 − e^−2|x|)/(1 + e^−2|x|), in operations that vectorise: the exponential of a 64th by its
    series (14 terms, |argument| ≤ 0.625), squared six times. Absolute error below 1e-14 in double precision."""
    for m in range(x.size):
        z = min(abs(x[m]), x.dtype.type(_TANH_LIMIT)) * x.dtype.type(-2.0 / 2**_TANH_SQUARINGS)
        e = x.dtype.type(1.0)
        for n in range(14, 0, -1):
            e = x.dtype.type(1.0) + z * e * x.dtype.type(1.0 / n)
        for _ in range(_TANH_SQUARINGS):
            e = e * e
        t = (x.dtype.type(1.0) - e) / (x.dtype.type(1.0) + e)
        out[m] = t if x[m] >= 0 else -t


@compiled
def _add_pairs(first_pair, target, linear, first_row, rows, v, rate):  # type: ignore[no-untyped-def]
    """Pairs sorted by source: ``first_pair`` [nodes + 1]; ``rows`` [·, 4] are (gain, t) of a rising and of a falling
    term, the pair's own at ``first_row``; the falling one's gain comes negated, relu(t − x) = t − min(x, t)."""
    x, current, total = np.empty_like(v[0]), np.empty_like(v[0]), np.empty_like(v[0])
    one = np.int64(1)
    for s in range(v.shape[0]):
        if first_pair[s] == first_pair[s + 1]:
            continue
        v_s = v[s]
        total[:] = 0
        for p in range(first_pair[s], first_pair[s + 1]):
            v_d, into = v[target[p]], rate[target[p]]
            begin, end, g = first_row[p], first_row[p + 1], linear[p]
            if end - begin == one and g == 0:  # by far the most frequent
                g0, t0, h0, u0 = rows[begin, 0], rows[begin, 1], rows[begin, 2], rows[begin, 3]
                for m in range(total.size):
                    difference = v_s[m] - v_d[m]
                    i = g0 * max(difference, t0) + h0 * min(difference, u0)
                    total[m] += i
                    into[m] += i
                continue
            for m in range(total.size):
                x[m] = v_s[m] - v_d[m]
                current[m] = g * x[m]
            j = begin
            while j + one < end:
                g0, t0, h0, u0 = rows[j, 0], rows[j, 1], rows[j, 2], rows[j, 3]
                g1, t1, h1, u1 = rows[j + 1, 0], rows[j + 1, 1], rows[j + 1, 2], rows[j + 1, 3]
                for m in range(total.size):
                    current[m] += g0 * max(x[m], t0) + h0 * min(x[m], u0) + g1 * max(x[m], t1) + h1 * min(x[m], u1)
                j += 2
            if j < end:
                g0, t0, h0, u0 = rows[j, 0], rows[j, 1], rows[j, 2], rows[j, 3]
                for m in range(total.size):
                    current[m] += g0 * max(x[m], t0) + h0 * min(x[m], u0)
            for m in range(total.size):
                total[m] += current[m]
                into[m] += current[m]
        for m in range(total.size):
            rate[s, m] -= total[m]


@compiled
def _add_edges(phi, source, target, law, v, rate):  # type: ignore[no-untyped-def]
    """Edges that no pair holds, one by one; ``law`` [·, 4] are (a, b, c, k)."""
    x, current = np.empty_like(v[0]), np.empty_like(v[0])
    for e in range(source.size):
        a, b, c, k = law[e, 0], law[e, 1], law[e, 2], law[e, 3]
        v_s, v_d, out_of, into = v[source[e]], v[target[e]], rate[source[e]], rate[target[e]]
        for m in range(x.size):
            x[m] = a * v_s[m] + b * v_d[m] + c
        if phi[e] == TANH:
            vector_tanh(x, current)
        elif phi[e] == RELU:
            for m in range(x.size):
                current[m] = max(x[m], v.dtype.type(0.0))
        elif phi[e] == LEAKY_RELU:
            for m in range(x.size):
                current[m] = max(x[m], v.dtype.type(LEAKY_SLOPE) * x[m])
        elif phi[e] == IDENTITY:
            current[:] = x
        for m in range(x.size):
            out_of[m] -= k * current[m]
            into[m] += k * current[m]


@compiled
def fused_rate(pairs, edges, constant, v, rate):  # type: ignore[no-untyped-def]
    """``rate`` [nodes, samples] becomes dv/dτ at ``v``; the first three are :attr:`FusedPhase.arrays`."""
    for node in range(v.shape[0]):
        rate[node, :] = constant[node]
    _add_pairs(*pairs, v, rate)  # type: ignore[call-arg]
    _add_edges(*edges, v, rate)  # type: ignore[call-arg]
    rate[0, :] = 0  # ground is held


@compiled
def combine(v, h, k, weight, count, out):  # type: ignore[no-untyped-def]
    """``out`` = v + h·Σ_{n < count} weight[n]·k[n]."""
    for node in range(v.shape[0]):
        row, into = v[node], out[node]
        for m in range(row.size):
            into[m] = row[m]
        for n in range(count):
            factor, slope = h * weight[n], k[n, node]
            if factor != 0:
                for m in range(row.size):
                    into[m] += factor * slope[m]


class FusedPhase:
    """The kernel's view of a phase, in double (default) or single precision.

    ``arrays`` are the first arguments of :func:`fused_rate`.
    """

    def __init__(self, phase: Phase, dtype: type[np.floating[Any]] = np.float64) -> None:
        pairs = gather_pairs(phase.edges)
        first_row, rows = _rows(pairs)
        e, rest = phase.edges, pairs.rest
        law = np.stack([e.a[rest], e.b[rest], e.c[rest], e.k[rest]], axis=1)
        ends = np.arange(phase.n_nodes + 1)
        self.n_nodes, self.duration, self.dtype = phase.n_nodes, phase.duration, dtype
        self.arrays = (
            (np.searchsorted(pairs.source, ends), pairs.target, pairs.g.astype(dtype), first_row, rows.astype(dtype)),
            (e.phi[rest], e.source[rest].astype(np.int64), e.target[rest].astype(np.int64), law.astype(dtype)),
            _constants(pairs, phase.n_nodes).astype(dtype),
        )

    def __call__(self, v: Floats) -> Floats:
        """dv/dτ [nodes, samples] at ``v`` [nodes, samples], whose ground row is 0; ground's dv/dτ is 0."""
        v = np.ascontiguousarray(v, dtype=self.dtype)
        rate = np.empty_like(v)
        fused_rate(*self.arrays, v, rate)
        return rate


def _rows(pairs: Pairs) -> tuple[NDArray[np.int64], Floats]:
    """Each pair's terms as rows (rising gain, t, −falling gain, t): as many as it has of the more frequent kind."""
    pair = np.repeat(np.arange(len(pairs)), np.diff(pairs.first))
    counts = [np.bincount(pair[mask], minlength=len(pairs)) for mask in (~pairs.falling, pairs.falling)]
    first_row = np.concatenate([[0], np.cumsum(np.maximum(*counts))])
    rows = np.zeros((first_row[-1], 4))
    for column, mask, count, sign in ((0, ~pairs.falling, counts[0], 1.0), (2, pairs.falling, counts[1], -1.0)):
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... within each pair
        at = first_row[pair[mask]] + place
        rows[at, column], rows[at, column + 1] = sign * pairs.gain[mask], pairs.threshold[mask]
    return first_row, rows


def _constants(pairs: Pairs, n_nodes: int) -> Floats:
    """What flows into each node whatever the voltages: the pairs' i0, and the −g·t of their terms, [nodes]."""
    pair = np.repeat(np.arange(len(pairs)), np.diff(pairs.first))
    sign = np.where(pairs.falling, 1.0, -1.0)
    current = pairs.i0 + np.bincount(pair, sign * pairs.gain * pairs.threshold, len(pairs))
    into = np.bincount(pairs.target, current, n_nodes) - np.bincount(pairs.source, current, n_nodes)
    into[0] = 0.0
    return np.asarray(into)
