"""White noise of the edges' currents in the fast engine: stochastic integration in fixed steps.

An edge's current has noise of the one-sided density 4kT·γ·g A²/Hz, the same into d and (times ratio) out of s, with

    g = |θ1|·slope + mirror·y        in G_u; slope of the corner: 0 where the edge is off, 1 where it conducts

``mirror`` is the transconductance, in G_u per I_u, of the mirrors that the current y passes. In model units, with
T_u = C·V_u/I_u, nothing else of the scaling remains than ε = kT/(C·V_u²):

    dv = f dτ + Σ ±sqrt(2·γ·ε·g(v)) dW        (Itô; a Wiener process for each edge)

A step is split after Strang: half a step of noise, a step of the engine without noise, half a step of noise. On a node
with a conductance g the stationary variance is γ·ε·(gh)·coth(gh), so (gh)²/3 too large at a step h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.die_engine import Ints, advance, edge_table, settle, step_rule
from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.dynamics.fused import compiled
from kcnet_eda.network.graph import Network, labels

Floats = NDArray[Any]


@dataclass(frozen=True)
class WhiteNoise:
    """``level`` is γ·kT/(C·V_u²), ``mirror`` [G_u/I_u] as above."""

    level: float
    mirror: float = 0.0


@compiled
def _kick(source, target, edges, mirror, scale, z, v, moved):  # type: ignore[no-untyped-def]
    """Half a step of noise of ``v`` [nodes, samples], in place: all amplitudes are those of the state before it."""
    moved[:] = 0
    zero, one, two = v.dtype.type(0), v.dtype.type(1), v.dtype.type(2)
    for e in range(source.size):
        v_s, v_d, into, out_of, drawn = v[source[e]], v[target[e]], moved[target[e]], moved[source[e]], z[e]
        a, b, c, r = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        bend, compression, leakage, ratio = edges[e, 4], edges[e, 5], edges[e, 6], edges[e, 7]
        gain = abs(a - b) / two
        for m in range(v_s.size):
            x = a * v_s[m] + b * v_d[m] + c
            within = min(max(x, -r), r) + r
            current = max(x - r, zero) + bend * within * within
            current = max(current * (one - compression * current) + leakage, zero)
            kick = scale * np.sqrt(gain * two * bend * within + mirror * current) * drawn[m]
            into[m] += kick
            out_of[m] -= ratio * kick
    moved[0, :] = 0  # ground is held
    for node in range(v.shape[0]):
        for m in range(v.shape[1]):
            v[node, m] += moved[node, m]


def evolve_noisy(
    ends: tuple[Ints, Ints],
    edges: BuiltEdges,
    x0: Floats,
    duration: float,
    noise: WhiteNoise,
    rng: np.random.Generator,
    *,
    steps: int,
    dtype: type[np.floating[Any]] = np.float32,
) -> Floats:
    """Final states [nodes, samples] of samples ``x0`` [samples, nodes] on the first die of ``edges``, in model units.
    ``rng`` draws 2 · ``steps`` times [E, samples] normal numbers, whatever the noise: the same generator gives the same
    paths of all Wiener processes at every level."""
    v = np.array(np.asarray(x0).T, dtype=dtype, order="C")
    table, conductance = edge_table(edges, dtype)[0], dtype(edges.conductance)
    h = duration / steps
    rule, scale, mirror = step_rule(h, edges.lag).astype(dtype), dtype(math.sqrt(noise.level * h)), dtype(noise.mirror)
    flow, moved = np.empty_like(v), np.empty_like(v)
    settle(*ends, table, conductance, v, flow)

    def kick() -> None:
        z = rng.standard_normal((len(table), v.shape[1]), dtype=dtype)
        _kick(*ends, table, mirror, scale, z, v, moved)

    for _ in range(steps):
        kick()
        advance(*ends, table, conductance, rule, 1, v, flow)
        kick()
    return v


def right_with_noise(
    network: Network,
    ends: tuple[Ints, Ints],
    edges: BuiltEdges,
    x0: Floats,
    y: Ints,
    noise: tuple[float, WhiteNoise],
    rng: np.random.Generator,
    *,
    steps: int,
) -> int:
    """How many of the samples ``x0`` [samples, nodes] have the label ``y`` [samples] at the end of the network's one
    phase on the first die of ``edges``. ``noise``: σ of every initial voltage but ground's [V_u], and that of
    edges. What is not finite is wrong."""
    sigma, white = noise
    written = rng.standard_normal(x0.shape)
    written[:, 0] = 0.0  # ground is held
    v = evolve_noisy(ends, edges, x0 + sigma * written, network.phases[0].duration, white, rng, steps=steps).T
    return int(((labels(network, v) == y) & np.isfinite(v).all(axis=1)).sum())
