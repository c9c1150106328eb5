"""The gradient of a function of v(T) with respect to a die's edges: the die engine, differentiated stage by stage.

Forward, the steps of :mod:`kcnet_eda.dynamics.die_engine` in double precision, states kept after each; backward, their
exact transpose, in which the stages are computed again. It is the gradient of what the engine computes, not of what the
engine approximates. A die is computed by one thread from its own numbers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.die_engine import advance, edge_table, settle, step_rule
from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.dynamics.fused import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: ∂L/∂v(T) [nodes, samples] of a die's number and its v(T) [nodes, samples].
Pull = Callable[[int, Floats], Floats]


@compiled
def _pull_settle(source, target, edges, conductance, v, pull, of_v, of_edges):  # type: ignore[no-untyped-def]
    """The transpose of ``settle`` at ``v``: from ``pull`` = ∂L/∂rate, added to ``of_v`` [nodes, samples] and to
    ``of_edges`` [3, E], of θ1, θ2 and ratio."""
    zero, one, two = 0.0, 1.0, 2.0
    for e in range(source.size):
        s, d = source[e], target[e]
        v_s, v_d, at_s, at_d, into_s, into_d = v[s], v[d], pull[s], pull[d], of_v[s], of_v[d]
        a, b, c, r = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        bend, compression, leakage, ratio = edges[e, 4], edges[e, 5], edges[e, 6], edges[e, 7]
        free_s, free_d = (one if s else zero), (one if d else zero)  # ground's rate is 0 whatever flows there
        of_1 = of_2 = of_r = zero
        for m in range(v_s.size):
            z = a * v_s[m] + b * v_d[m] + c
            within = min(max(z, -r), r) + r
            bent = max(z - r, zero) + bend * within * within
            current = bent * (one - compression * bent) + leakage
            to_d, from_s = free_d * at_d[m], free_s * at_s[m]
            of_current = to_d * (one + conductance * v_d[m]) - ratio * from_s
            of_z = of_current * (one - two * compression * bent) * two * bend * within
            of_1 += of_z * (v_s[m] - v_d[m])
            of_2 += of_z
            of_r -= from_s * current
            into_s[m] += of_z * a
            into_d[m] += of_z * b + to_d * current * conductance
        of_edges[0, e] += of_1
        of_edges[1, e] += of_2
        of_edges[2, e] += of_r


@compiled
def _run(source, target, edges, conductance, rule, steps, v, flow):  # type: ignore[no-untyped-def]
    """``v`` and ``flow`` [steps + 1, nodes, samples] after each step, from ``v[0]``; currents start settled."""
    settle(source, target, edges, conductance, v[0], flow[0])
    for n in range(steps):
        v[n + 1] = v[n]
        flow[n + 1] = flow[n]
        advance(source, target, edges, conductance, rule, 1, v[n + 1], flow[n + 1])


@compiled
def _pull_back(source, target, edges, conductance, rule, steps, v, flow, of_v):  # type: ignore[no-untyped-def]
    """∂L/∂(θ1, θ2, ratio) [3, E] from ``of_v`` = ∂L/∂v(T), by the path of :func:`_run`; the stages and their names are
    those of ``advance``."""
    of_edges = np.zeros((3, source.size))
    of_flow = np.zeros_like(of_v)
    k1, k2, k3 = np.empty_like(of_v), np.empty_like(of_v), np.empty_like(of_v)
    half_left, half_moved, half_kick = rule[0], rule[1], rule[2]
    for back in range(steps):
        n = steps - 1 - back
        at, there = v[n], flow[n]
        settle(source, target, edges, conductance, at, k1)
        middle = at + half_moved * there + half_kick * k1
        flow_there = half_left * there + (1.0 - half_left) * k1
        settle(source, target, edges, conductance, middle, k2)
        second = at + half_moved * there + half_kick * k2
        settle(source, target, edges, conductance, second, k3)
        third = middle + half_moved * flow_there - half_kick * k1 + 2.0 * half_kick * k3

        of_k1, of_k4 = rule[5] * of_v + rule[8] * of_flow, rule[7] * of_v + rule[10] * of_flow
        of_sum = rule[6] * of_v + rule[9] * of_flow  # of k2 + k3
        before, flow_before = of_v.copy(), rule[4] * of_v + rule[3] * of_flow

        of_third = np.zeros_like(of_v)
        _pull_settle(source, target, edges, conductance, third, of_k4, of_third, of_edges)
        of_middle, of_flow_there = of_third.copy(), half_moved * of_third
        of_k1 -= half_kick * of_third

        of_second = np.zeros_like(of_v)
        of_k3 = of_sum + 2.0 * half_kick * of_third
        _pull_settle(source, target, edges, conductance, second, of_k3, of_second, of_edges)
        before += of_second
        flow_before += half_moved * of_second

        of_k2 = of_sum + half_kick * of_second
        _pull_settle(source, target, edges, conductance, middle, of_k2, of_middle, of_edges)
        before += of_middle
        flow_before += half_moved * of_middle + half_left * of_flow_there
        of_k1 += half_kick * of_middle + (1.0 - half_left) * of_flow_there

        _pull_settle(source, target, edges, conductance, at, of_k1, before, of_edges)
        of_v, of_flow = before, flow_before
    _pull_settle(source, target, edges, conductance, v[0], of_flow, of_v, of_edges)
    return of_edges


def edge_gradients(
    ends: tuple[Ints, Ints],
    edges: BuiltEdges,
    x0: Floats,
    duration: float,
    pull: Pull,
    *,
    steps: int,
    threads: int = 1,
) -> Floats:
    """∂L/∂(θ1, θ2, ratio) [dies, 3, E] of an L of each die that sums over the samples ``x0`` [samples, nodes];
    ``ends``, ``edges``, ``duration`` and ``steps`` as of :func:`kcnet_eda.dynamics.die_engine.evolve_dies`."""
    start = np.ascontiguousarray(np.asarray(x0).T, dtype=np.float64)
    table = edge_table(edges, np.float64)
    conductance, rule = float(edges.conductance), step_rule(duration / steps, edges.lag).astype(np.float64)

    def of_die(die: int) -> Floats:
        v, flow = np.empty((2, steps + 1, *start.shape))
        v[0] = start
        _run(*ends, table[die], conductance, rule, steps, v, flow)
        of_end = np.ascontiguousarray(pull(die, v[-1]))
        return np.asarray(_pull_back(*ends, table[die], conductance, rule, steps, v, flow, of_end))

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(of_die, range(len(edges.theta1)))))
