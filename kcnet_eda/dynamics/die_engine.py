"""The fast engine over dies: every die has its own edges (:class:`BuiltEdges`), and all samples go through each die.

Where all edge currents have one lag, so has the sum F of those into a node, exactly but for the output conductance:

    dv/dτ = F,     lag·dF/dτ = f(v) − F

with f the rate without lag: a state for each node instead of each edge. Cox and Matthews' exponential Runge-Kutta rule
of order 4 (J. Comput. Phys. 176, 2002) takes fixed steps of it in single precision, stable however short the lag; it
evaluates the edges as often as RK4, which it is where the lag is 0. Currents start settled to the initial voltages. A
die is computed by one thread from its own numbers alone, so its result does not depend on how many threads there are.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import SHARPEST, BuiltEdges
from kcnet_eda.dynamics.fused import compiled

Floats = NDArray[Any]
Ints = NDArray[np.int64]


@compiled
def settle(source, target, edges, conductance, v, rate):  # type: ignore[no-untyped-def]
    """``rate`` = f(v); ``edges`` [E, 8] of :func:`edge_table`."""
    rate[:] = 0
    zero, one = v.dtype.type(0), v.dtype.type(1)
    for e in range(source.size):
        v_s, v_d, into, out_of = v[source[e]], v[target[e]], rate[target[e]], rate[source[e]]
        a, b, c, r = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        bend, compression, leakage, ratio = edges[e, 4], edges[e, 5], edges[e, 6], edges[e, 7]
        for m in range(v_s.size):
            z = a * v_s[m] + b * v_d[m] + c
            within = min(max(z, -r), r) + r
            current = max(z - r, zero) + bend * within * within
            current = current * (one - compression * current) + leakage
            into[m] += current * (one + conductance * v_d[m])
            out_of[m] -= ratio * current
    rate[0, :] = 0  # ground is held


@compiled
def _mix(a, x, b, y, c, z, out):  # type: ignore[no-untyped-def]
    """``out`` = a·x + b·y + c·z, arrays [nodes, samples]."""
    for node in range(out.shape[0]):
        row_x, row_y, row_z, into = x[node], y[node], z[node], out[node]
        for m in range(row_x.size):
            into[m] = a * row_x[m] + b * row_y[m] + c * row_z[m]


@compiled
def advance(source, target, edges, conductance, rule, steps, v, flow):  # type: ignore[no-untyped-def]
    """Steps of ``v`` and of the sums ``flow`` of currents, in place [nodes, samples]; ``rule`` of :func:`step_rule`."""
    one, two = v.dtype.type(1), v.dtype.type(2)
    k1, k2, k3, k4 = np.empty_like(v), np.empty_like(v), np.empty_like(v), np.empty_like(v)
    middle, stage, flow_there = np.empty_like(v), np.empty_like(v), np.empty_like(v)
    half_left, half_moved, half_kick = rule[0], rule[1], rule[2]
    left, moved = rule[3], rule[4]
    for _ in range(steps):
        settle(source, target, edges, conductance, v, k1)
        _mix(one, v, half_moved, flow, half_kick, k1, middle)
        _mix(half_left, flow, one - half_left, k1, one - one, k1, flow_there)
        settle(source, target, edges, conductance, middle, k2)
        _mix(one, v, half_moved, flow, half_kick, k2, stage)
        settle(source, target, edges, conductance, stage, k3)
        _mix(one, middle, half_moved, flow_there, -half_kick, k1, stage)
        _mix(one, stage, two * half_kick, k3, one - one, k3, stage)
        settle(source, target, edges, conductance, stage, k4)
        _mix(one, k2, one, k3, one - one, k3, k2)
        _mix(one, v, moved, flow, rule[5], k1, v)
        _mix(one, v, rule[6], k2, rule[7], k4, v)
        _mix(left, flow, rule[8], k1, rule[9], k2, flow)
        _mix(one, flow, rule[10], k4, one - one, k4, flow)


@compiled
def _solve(source, target, edges, conductance, rule, steps, v):  # type: ignore[no-untyped-def]
    """In place; currents start settled."""
    flow = np.empty_like(v)
    settle(source, target, edges, conductance, v, flow)
    advance(source, target, edges, conductance, rule, steps, v, flow)


def step_rule(h: float, lag: float) -> NDArray[np.float64]:
    """Weights of a step: of half a step what is left of F, what F and a rate move v by; of a whole step the same of F,
    then what k1, k2 + k3 and k4 move v by, and what they add to F."""
    if lag == 0:
        return np.array([0, 0, h / 2, 0, 0, h / 6, h / 3, h / 6, 0, 0, 1])
    p1, p2, p3 = _phi(-h / lag)
    at_z = np.array([p1 - 3 * p2 + 4 * p3, 2 * p2 - 4 * p3, 4 * p3 - p2])
    half, whole = math.exp(-h / (2 * lag)), math.exp(-h / lag)
    kick = h / 2 * (1 - _phi(-h / (2 * lag))[0])
    moves = h * (np.array([1 / 6, 1 / 3, 1 / 6]) - at_z)
    return np.array([half, lag * (1 - half), kick, whole, lag * (1 - whole), *moves, *(h / lag * at_z)])


def _phi(z: float) -> tuple[float, float, float]:
    """φ1, φ2 and φ3 of exponential integrators, (e^z − 1)/z and so on, at z < 0."""
    if z > -1:  # differences would cancel
        third = sum(z**n / math.factorial(n + 3) for n in range(16))
        second = z * third + 1 / 2
        return z * second + 1, second, third
    first = math.expm1(z) / z
    second = (first - 1) / z
    return first, second, (second - 1 / 2) / z


def edge_table(edges: BuiltEdges, dtype: type[np.floating[Any]]) -> Floats:
    """[dies, E, 8]: weights of v_s and v_d, θ2, rounding, 1/(4·rounding), compression, leakage, ratio."""
    rounding = np.maximum(edges.rounding, SHARPEST)
    shared = (rounding, 1 / (4 * rounding), edges.compression, edges.leakage)
    half = edges.common_mode / 2
    columns = [edges.theta1 + half, half - edges.theta1, edges.theta2]
    columns += [np.broadcast_to(column, edges.theta1.shape) for column in shared]
    return np.stack([*columns, edges.ratio], axis=2).astype(dtype)


def evolve_dies(
    ends: tuple[Ints, Ints],
    edges: BuiltEdges,
    x0: Floats,
    duration: float,
    *,
    steps: int,
    threads: int = 1,
    dtype: type[np.floating[Any]] = np.float32,
) -> Floats:
    """Final states [dies, nodes, samples] of samples ``x0`` [samples, nodes], or [dies, samples, nodes] where each die
    has its own, in model units. ``ends`` are the source and the target of each edge [E]."""
    v = _begin(edges, x0, dtype)
    table = edge_table(edges, dtype)
    conductance, rule = dtype(edges.conductance), step_rule(duration / steps, edges.lag).astype(dtype)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda die: _solve(*ends, table[die], conductance, rule, steps, v[die]), range(len(v))))
    return v


def watch_dies(
    ends: tuple[Ints, Ints],
    edges: BuiltEdges,
    x0: Floats,
    duration: float,
    nodes: NDArray[np.integer],
    *,
    steps: int,
    beyond: int,
    threads: int = 1,
    dtype: type[np.floating[Any]] = np.float32,
) -> tuple[Floats, Floats]:
    """As :func:`evolve_dies`, bit for bit; and the voltages of ``nodes`` at the end of every step, from the start to
    ``beyond`` steps after T: [dies, steps + beyond + 1, nodes, samples]."""
    v = _begin(edges, x0, dtype)
    table, at_t = edge_table(edges, dtype), np.empty_like(v)
    conductance, rule = dtype(edges.conductance), step_rule(duration / steps, edges.lag).astype(dtype)
    seen = np.empty((len(v), steps + beyond + 1, len(nodes), v.shape[2]), dtype)

    def solve(die: int) -> None:
        flow = np.empty_like(v[die])
        settle(*ends, table[die], conductance, v[die], flow)
        seen[die, 0] = v[die, nodes]
        for step in range(1, steps + beyond + 1):
            advance(*ends, table[die], conductance, rule, 1, v[die], flow)
            seen[die, step] = v[die, nodes]
            if step == steps:
                at_t[die] = v[die]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(solve, range(len(v))))
    return at_t, seen


def _begin(edges: BuiltEdges, x0: Floats, dtype: type[np.floating[Any]]) -> Floats:
    """The initial states [dies, nodes, samples]."""
    start = np.asarray(x0)
    start = start if start.ndim == 3 else np.broadcast_to(start, (len(edges.theta1), *start.shape))
    return np.array(start.transpose(0, 2, 1), dtype=dtype, order="C")
