"""Fixed-step solutions of one phase and their gradients, fused: blocks of samples go through all steps in one call.

The gradient of a function L of the states after each step, either way backwards through the steps:

- ``steps`` differentiates the solver itself. Only the states after each step are kept; stages are computed again.
- ``adjoint`` solves the adjoint equation dλ/dτ = −Jᵀλ, λ(T) = ∂L/∂v(T), with the same solver, J = ∂(dv/dτ)/∂v at the
  kept states and, between them, at their cubic interpolation; ∂L/∂θ is the integral of λᵀ ∂(dv/dτ)/∂θ. It is the
  gradient of what the solver approximates: both agree up to the solver's error.

Source of the adjoint: Gao, Sun, Boning, arXiv 2310.15872. Sums over blocks are taken in order: results do not depend
on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.fused import combine, compiled, vector_tanh
from kcnet_eda.network.graph import Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, TANH

Floats = NDArray[Any]
Law = tuple[Floats, Floats, Floats, Floats]  # a, b, c, k, each [E]
Backwards = Literal["steps", "adjoint"]
Solver = Literal["heun", "rk4"]

_BLOCK = 128  # samples: a block's states, stages and their cotangents stay in a core's cache

#: Explicit Runge-Kutta methods: the weights of earlier slopes at each stage, of all slopes in the step (none is 0),
#: and where in the step each stage lies.
METHODS = {
    "heun": ([[0.0, 0.0], [1.0, 0.0]], [1 / 2, 1 / 2], [0.0, 1.0]),
    "rk4": (
        [[0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        [1 / 6, 1 / 3, 1 / 3, 1 / 6],
        [0.0, 0.5, 0.5, 1.0],
    ),
}


@compiled
def _add_bent(source, target, first, low, law, v, rate):  # type: ignore[no-untyped-def]
    """Edges of the laws without a curve, φ(x) = max(x, low·x), by node pair and two at a time."""
    one = np.int64(1)
    for p in range(source.size):
        v_s, v_d, out_of, into = v[source[p]], v[target[p]], rate[source[p]], rate[target[p]]
        e, end = first[p], first[p + 1]
        while e + one < end:
            a, b, c, k, f = law[e, 0], law[e, 1], law[e, 2], law[e, 3], low[e]
            a2, b2, c2, k2, f2 = law[e + 1, 0], law[e + 1, 1], law[e + 1, 2], law[e + 1, 3], low[e + 1]
            for m in range(v_s.size):
                x, x2 = a * v_s[m] + b * v_d[m] + c, a2 * v_s[m] + b2 * v_d[m] + c2
                current = k * max(x, f * x) + k2 * max(x2, f2 * x2)
                out_of[m] -= current
                into[m] += current
            e += 2
        if e < end:
            a, b, c, k, f = law[e, 0], law[e, 1], law[e, 2], law[e, 3], low[e]
            for m in range(v_s.size):
                x = a * v_s[m] + b * v_d[m] + c
                current = k * max(x, f * x)
                out_of[m] -= current
                into[m] += current


@compiled
def _pull_bent(source, target, first, low, law, v, pull, of_v, of_law):  # type: ignore[no-untyped-def]
    """The vector-Jacobian product of :func:`_add_bent`, added to ``of_v`` and ``of_law``. At a corner the slope is that
    of the blocked side. φ(x) = φ'(x)·x spares the sum for k."""
    one, zero = np.int64(1), v.dtype.type(0)
    for p in range(source.size):
        s, d = source[p], target[p]
        v_s, v_d, at_s, at_d, into_s, into_d = v[s], v[d], pull[s], pull[d], of_v[s], of_v[d]
        e, end = first[p], first[p + 1]
        while e + one < end:
            a, b, c, k, f = law[e, 0], law[e, 1], law[e, 2], law[e, 3], low[e]
            a2, b2, c2, k2, f2 = law[e + 1, 0], law[e + 1, 1], law[e + 1, 2], law[e + 1, 3], low[e + 1]
            ka, kb, ka2, kb2 = k * a, k * b, k2 * a2, k2 * b2
            of_a = of_b = of_c = of_a2 = of_b2 = of_c2 = zero
            for m in range(v_s.size):
                gain = at_d[m] - at_s[m]
                g = gain if a * v_s[m] + b * v_d[m] + c > zero else f * gain
                g2 = gain if a2 * v_s[m] + b2 * v_d[m] + c2 > zero else f2 * gain
                of_a += g * v_s[m]
                of_b += g * v_d[m]
                of_c += g
                of_a2 += g2 * v_s[m]
                of_b2 += g2 * v_d[m]
                of_c2 += g2
                into_s[m] += ka * g + ka2 * g2
                into_d[m] += kb * g + kb2 * g2
            _add_sums(of_law, e, a, b, c, k, of_a, of_b, of_c)
            _add_sums(of_law, e + one, a2, b2, c2, k2, of_a2, of_b2, of_c2)
            e += 2
        if e < end:
            a, b, c, k, f = law[e, 0], law[e, 1], law[e, 2], law[e, 3], low[e]
            ka, kb = k * a, k * b
            of_a = of_b = of_c = zero
            for m in range(v_s.size):
                gain = at_d[m] - at_s[m]
                g = gain if a * v_s[m] + b * v_d[m] + c > zero else f * gain
                of_a += g * v_s[m]
                of_b += g * v_d[m]
                of_c += g
                into_s[m] += ka * g
                into_d[m] += kb * g
            _add_sums(of_law, e, a, b, c, k, of_a, of_b, of_c)


@compiled
def _add_sums(of_law, e, a, b, c, k, of_a, of_b, of_c):  # type: ignore[no-untyped-def]
    of_law[e, 0] += k * of_a
    of_law[e, 1] += k * of_b
    of_law[e, 2] += k * of_c
    of_law[e, 3] += a * of_a + b * of_b + c * of_c


@compiled
def _add_curved(source, target, law, v, rate):  # type: ignore[no-untyped-def]
    """Edges of tanh, one by one."""
    x, value = np.empty_like(v[0]), np.empty_like(v[0])
    for e in range(source.size):
        a, b, c, k = law[e, 0], law[e, 1], law[e, 2], law[e, 3]
        v_s, v_d, out_of, into = v[source[e]], v[target[e]], rate[source[e]], rate[target[e]]
        for m in range(x.size):
            x[m] = a * v_s[m] + b * v_d[m] + c
        vector_tanh(x, value)
        for m in range(x.size):
            out_of[m] -= k * value[m]
            into[m] += k * value[m]


@compiled
def _pull_curved(source, target, law, v, pull, of_v, of_law):  # type: ignore[no-untyped-def]
    x, value = np.empty_like(v[0]), np.empty_like(v[0])
    zero, unit = v.dtype.type(0), v.dtype.type(1)
    for e in range(source.size):
        a, b, c, k = law[e, 0], law[e, 1], law[e, 2], law[e, 3]
        s, d = source[e], target[e]
        v_s, v_d, at_s, at_d, into_s, into_d = v[s], v[d], pull[s], pull[d], of_v[s], of_v[d]
        for m in range(x.size):
            x[m] = a * v_s[m] + b * v_d[m] + c
        vector_tanh(x, value)
        of_a = of_b = of_c = of_k = zero
        for m in range(x.size):
            gain = at_d[m] - at_s[m]
            g = k * gain * (unit - value[m] * value[m])
            of_a += g * v_s[m]
            of_b += g * v_d[m]
            of_c += g
            of_k += gain * value[m]
            into_s[m] += a * g
            into_d[m] += b * g
        of_law[e, 0] += of_a
        of_law[e, 1] += of_b
        of_law[e, 2] += of_c
        of_law[e, 3] += of_k


@compiled
def _rate(bent, curved, law, v, rate):  # type: ignore[no-untyped-def]
    rate[:] = 0
    _add_bent(*bent, law, v, rate)  # type: ignore[call-arg]
    _add_curved(*curved, law[bent[3].size :], v, rate)  # type: ignore[call-arg]
    rate[0, :] = 0  # ground is held


@compiled
def _pull(bent, curved, law, v, pull, of_v, of_law):  # type: ignore[no-untyped-def]
    """``of_v`` becomes ∂L/∂v where ``pull`` is ∂L/∂(dv/dτ), whose ground row is set to 0; ``of_law`` gains ∂L/∂law."""
    of_v[:] = 0
    pull[0, :] = 0  # ground's dv/dτ is 0 whatever flows there
    _pull_bent(*bent, law, v, pull, of_v, of_law)  # type: ignore[call-arg]
    tail = bent[3].size
    _pull_curved(*curved, law[tail:], v, pull, of_v, of_law[tail:])  # type: ignore[call-arg]


@compiled
def _evolve(bent, curved, law, h, stages, weights, path):  # type: ignore[no-untyped-def]
    """Fill ``path`` [steps + 1, nodes, samples] from its first state on."""
    k, v = np.empty((weights.size, *path[0].shape), path.dtype), np.empty_like(path[0])
    for n in range(path.shape[0] - 1):
        for i in range(weights.size):
            combine(path[n], h, k, stages[i], i, v)
            _rate(bent, curved, law, v, k[i])
        combine(path[n], h, k, weights, weights.size, path[n + 1])


@compiled
def _back_through_steps(bent, curved, law, h, stages, weights, path, pulls, of_law):  # type: ignore[no-untyped-def]
    """∂L/∂v(0), where ``pulls`` [steps + 1, nodes, samples] are L's derivatives by the states of ``path``."""
    count = weights.size
    k, v = np.empty((count, *path[0].shape), path.dtype), np.empty((count, *path[0].shape), path.dtype)
    of_stage = np.empty((count + 1, *path[0].shape), path.dtype)  # and last ∂L/∂(the state after the step)
    zero, pull, shares = np.zeros_like(path[0]), np.empty_like(path[0]), np.zeros(count + 1, path.dtype)
    ones = np.ones(count + 1, path.dtype)
    of_stage[count] = pulls[-1]
    for n in range(path.shape[0] - 2, -1, -1):
        v[0] = path[n]
        for i in range(1, count):
            _rate(bent, curved, law, v[i - 1], k[i - 1])
            combine(path[n], h, k, stages[i], i, v[i])
        for i in range(count - 1, -1, -1):
            shares[:] = 0
            for j in range(i + 1, count):
                shares[j] = stages[j, i]
            shares[count] = weights[i]
            combine(zero, h, of_stage, shares, count + 1, pull)
            _pull(bent, curved, law, v[i], pull, of_stage[i], of_law)
        combine(pulls[n], path.dtype.type(1), of_stage, ones, count + 1, pull)
        of_stage[count] = pull
    return of_stage[count].copy()


@compiled
def _between(v0, v1, slope0, slope1, h, at, out):  # type: ignore[no-untyped-def]
    """The cubic through two states with their slopes, at the share ``at`` of the step."""
    one = out.dtype.type(1)
    rest = one - at
    to0, to1 = rest * rest * (at + at + one), at * at * (rest + rest + one)
    up0, up1 = h * at * rest * rest, -h * at * at * rest
    for node in range(out.shape[0]):
        for m in range(out.shape[1]):
            out[node, m] = to0 * v0[node, m] + to1 * v1[node, m] + up0 * slope0[node, m] + up1 * slope1[node, m]


@compiled
def _back_by_adjoint(bent, curved, law, h, stages, weights, places, path, pulls, of_law):  # type: ignore[no-untyped-def]
    """∂L/∂v(0) as of :func:`_back_through_steps`, by the adjoint equation; each pull is a jump of λ at its time."""
    count = weights.size
    of_stage = np.empty((count, *path[0].shape), path.dtype)
    v, mu, slope = np.empty_like(path[0]), np.empty_like(path[0]), np.empty((2, *path[0].shape), path.dtype)
    one, ones = path.dtype.type(1), np.ones(count, path.dtype)
    of_state = pulls[-1].copy()
    _rate(bent, curved, law, path[-1], slope[1])
    for n in range(path.shape[0] - 2, -1, -1):
        _rate(bent, curved, law, path[n], slope[0])
        for i in range(count):  # of_stage[j] is h·weights[j]·Jᵀμ, so that the integral for the law is summed with it
            combine(of_state, one, of_stage, stages[i] / weights, i, mu)
            mu *= h * weights[i]
            _between(path[n], path[n + 1], slope[0], slope[1], h, one - places[i], v)
            _pull(bent, curved, law, v, mu, of_stage[i], of_law)
        combine(of_state, one, of_stage, ones, count, mu)
        of_state[:] = mu + pulls[n]
        slope[1] = slope[0]
    return of_state


class PhaseSolver:
    """By what steps a phase is solved, and how its gradient is found; the law's parameters are arguments, those of the
    phase's edges are not read. Results are in the precision of the states given; ``threads`` (None: one a core) share
    the blocks of samples.
    """

    def __init__(
        self,
        phase: Phase,
        *,
        steps: int,
        solver: Solver = "heun",
        backwards: Backwards = "steps",
        threads: int | None = None,
    ) -> None:
        source, target, phi = phase.edges.source, phase.edges.target, phase.edges.phi
        ends = np.maximum(source, target).astype(np.int64), np.minimum(source, target).astype(np.int64)
        curved = phi == TANH
        self._order = np.lexsort((ends[1], ends[0], curved))
        self._place = np.argsort(self._order)
        self._against = (source < target)[self._order]  # drawn from the pair's target to its source
        s, d = (end[self._order] for end in ends)
        n_bent = int(np.count_nonzero(~curved))
        new = np.flatnonzero((np.diff(s[:n_bent], prepend=-1) != 0) | (np.diff(d[:n_bent], prepend=-1) != 0))
        self._pairs = s[new], d[new], np.append(new, n_bent)
        self._low = np.select([phi == IDENTITY, phi == LEAKY_RELU], [1.0, LEAKY_SLOPE], 0.0)[self._order][:n_bent]
        self._curved = s[n_bent:], d[n_bent:]
        self._method = tuple(np.array(part) for part in METHODS[solver])
        self.phase, self.steps, self._backwards, self._threads = phase, steps, backwards, threads

    def evolve(self, law: Law, v0: Floats) -> Floats:
        """The states [steps + 1, nodes, samples] from ``v0`` [nodes, samples], whose ground row is 0, on."""
        path = np.empty((self.steps + 1, *v0.shape), v0.dtype)
        bent, rows, h, (stages, weights, _) = self._in(v0.dtype, law)

        def work(start: int) -> None:
            block = np.empty((self.steps + 1, v0.shape[0], min(_BLOCK, v0.shape[1] - start)), v0.dtype)
            block[0] = v0[:, start : start + _BLOCK]
            _evolve(bent, self._curved, rows, h, stages, weights, block)
            path[:, :, start : start + _BLOCK] = block

        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(work, range(0, v0.shape[1], _BLOCK)))
        return path

    def pull_back(self, law: Law, path: Floats, pulls: Floats) -> tuple[Floats, Law]:
        """∂L/∂v(0) [nodes, samples] and ∂L/∂(a, b, c, k), each [E], where ``pulls`` [steps + 1, nodes, samples] are
        ∂L/∂(the states of ``path``), which :meth:`evolve` made."""
        bent, rows, h, (stages, weights, places) = self._in(path.dtype, law)

        def work(start: int) -> tuple[Floats, Floats]:
            block, at = (np.ascontiguousarray(x[:, :, start : start + _BLOCK]) for x in (path, pulls))
            of_rows = np.zeros_like(rows)
            if self._backwards == "steps":
                of_v = _back_through_steps(bent, self._curved, rows, h, stages, weights, block, at, of_rows)
            else:
                of_v = _back_by_adjoint(bent, self._curved, rows, h, stages, weights, places, block, at, of_rows)
            return of_v, of_rows

        of_v0, of_rows = np.empty_like(path[0]), np.zeros_like(rows)
        with ThreadPoolExecutor(self._workers) as pool:
            starts = range(0, path.shape[2], _BLOCK)
            for start, (of_v, of_block) in zip(starts, pool.map(work, starts), strict=True):
                of_v0[:, start : start + _BLOCK] = of_v
                of_rows += of_block
        return of_v0, self._columns(of_rows)

    def transposed(self, law: Law) -> Callable[[Floats, Floats], tuple[Floats, Law]]:
        """The transpose of dv/dτ's derivative, in double precision: a function from ``v`` and ``pull`` = ∂L/∂(dv/dτ),
        [nodes, samples], to ∂L/∂v [nodes, samples] and ∂L/∂(a, b, c, k), each [E]. Ground's share of ``pull`` does not
        count."""
        bent, rows, _, _ = self._in(np.dtype(np.float64), law)

        def transpose(v: Floats, pull: Floats) -> tuple[Floats, Law]:
            of_v, of_rows = np.empty_like(v), np.zeros_like(rows)
            _pull(bent, self._curved, rows, v, pull.copy(), of_v, of_rows)
            return of_v, self._columns(of_rows)

        return transpose

    @property
    def _workers(self) -> int:
        return self._threads or os.cpu_count() or 1

    def _in(self, dtype: Any, law: Law) -> tuple[Any, Floats, Any, tuple[Floats, ...]]:
        with np.errstate(over="ignore"):  # what does not fit in single precision becomes infinite, and is seen as such
            rows = np.stack([p.astype(dtype) for p in law], axis=1)[self._order]
        rows[self._against, :2] = rows[self._against, 1::-1]
        rows[self._against, 3] *= -1
        method = tuple(part.astype(dtype) for part in self._method)
        return (*self._pairs, self._low.astype(dtype)), rows, dtype.type(self.phase.duration / self.steps), method

    def _columns(self, rows: Floats) -> Law:
        """The gradient by the law as it was given, from that by :meth:`_in`'s rows, which are turned in place."""
        rows[self._against, :2] = rows[self._against, 1::-1]
        rows[self._against, 3] *= -1
        a, b, c, k = rows[self._place].T
        return a, b, c, k
