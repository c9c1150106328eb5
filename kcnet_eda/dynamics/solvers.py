"""Fixed-step solutions of a whole network, many samples at once, samples innermost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.fused import FusedPhase
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.graph import Network, Phase, carry_over, settle

Floats = NDArray[np.float64]


def rk4(network: Network, x0: Floats, steps: int) -> Iterator[tuple[Phase, float, Floats]]:
    """Yield ``(phase, τ since the start, v [nodes, samples])`` at the start of each phase and after each of its
    ``steps`` classical Runge-Kutta steps (order 4 where the laws are smooth); at last the final state.

    ``x0`` is [samples, nodes], model units.
    """
    elapsed, state = 0.0, x0
    evolved: list[Floats] = []
    for phase in network.phases:
        rate = FusedPhase(phase)
        v = np.ascontiguousarray(carry_over(state, phase).T)
        h = phase.duration / steps
        yield phase, elapsed, v
        for step in range(1, steps + 1):
            k1 = rate(v)
            k2 = rate(v + 0.5 * h * k1)
            k3 = rate(v + 0.5 * h * k2)
            v = v + h / 6.0 * (k1 + 2.0 * (k2 + k3) + rate(v + h * k3))
            yield phase, elapsed + step * h, v
        evolved.append(v.T)
        elapsed, state = elapsed + phase.duration, settle(network, evolved)
    yield phase, elapsed, np.ascontiguousarray(state.T)


def trapezoidal(network: Network, x0: Floats, steps: int) -> Floats:
    """v(T) [samples, nodes] by the trapezoidal rule with ``steps`` equal steps a phase: what a circuit simulator
    with a fixed step does, so the error at a step count can be known before one is run.

    The implicit equation is solved by fixed-point iteration, which contracts wherever the step resolves the
    network's fastest rate; where it does not, NaN is returned: that step is too long to be of use.
    """
    still = 1e-10 * max(1.0, float(np.abs(x0).max()))  # far under any error asked for
    state = x0
    evolved: list[Floats] = []
    for phase in network.phases:
        v = np.ascontiguousarray(carry_over(state, phase).T)
        rate = FusedPhase(phase)
        h = phase.duration / steps
        here = before = rate(v)
        for _ in range(steps):
            guess = v + h * (1.5 * here - 0.5 * before)
            for _ in range(60):
                better = v + 0.5 * h * (here + rate(guess))
                change = np.abs(better - guess).max()
                guess = better
                if not change > still:  # NaN leaves as well
                    break
            else:
                return np.full((x0.shape[0], phase.n_nodes), np.nan)
            v, here, before = guess, rate(guess), here
        evolved.append(v.T)
        state = settle(network, evolved)
    return np.ascontiguousarray(state)


def require_finite(v_end: Floats, what: str) -> None:
    """Raise :class:`KcnetError` where a software solution has left the finite numbers."""
    bad = np.flatnonzero(~np.isfinite(v_end).all(axis=1))
    if bad.size:
        raise KcnetError(
            f"{what}: {bad.size} of {len(v_end)} samples do not stay finite (the first is sample {bad[0]}). The "
            "network is unstable for these inputs."
        )
