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


#: Adams-Moulton rules by order: the weights of dv/dτ at a step's end, at its start, and one step before.
_WEIGHTS = {2: (1 / 2, 1 / 2, 0.0), 3: (5 / 12, 8 / 12, -1 / 12)}
#: Order 3 has nothing before its first step and takes it in eight trapezoidal ones, which leave a 64th of one's error:
#: as little as the small first steps of a circuit simulator do.
_START = 8


def adams_moulton(network: Network, x0: Floats, steps: int, order: int = 2, still: Floats | None = None) -> Floats:
    """v(T) [samples, nodes] by the Adams-Moulton rule of ``order`` 2 (the trapezoidal rule) or 3 with ``steps`` equal
    steps a phase: what a circuit simulator with a fixed step does, so the error at a step count can be known before one
    is run.

    The implicit equation is solved by fixed-point iteration, until no node moves by more than ``still`` [nodes of the
    largest phase] (None: 1e-10 of the largest initial voltage). It contracts wherever the step resolves the network's
    fastest rate; where it does not, NaN is returned: that step is too long to be of use.
    """
    if still is None:
        still = np.full(network.max_nodes, 1e-10 * max(1.0, float(np.abs(x0).max())))
    state = x0
    evolved: list[Floats] = []
    for phase in network.phases:
        v = np.ascontiguousarray(carry_over(state, phase).T)
        v = _march(FusedPhase(phase), v, phase.duration / steps, steps, order, still[: phase.n_nodes, None])
        evolved.append(v.T)
        state = settle(network, evolved)
    return np.ascontiguousarray(state)


def fixed_step(network: Network, x0: Floats, steps: int, order: int, still: Floats | None = None) -> Floats:
    """v(T) [samples, nodes] by the rule of ``order``: 2 and 3 are :func:`adams_moulton`'s, 4 is :func:`rk4`."""
    if order != 4:
        return adams_moulton(network, x0, steps, order, still)
    *_, (_, _, v) = rk4(network, x0, steps)
    return v.T


def _march(rate: FusedPhase, v: Floats, h: float, steps: int, order: int, still: Floats) -> Floats:
    """``v`` [nodes, samples] after ``steps`` steps of ``h``; NaN where one of them cannot be solved."""
    here = before = rate(v)
    for step in range(steps):
        if order > 2 and step == 0:
            v = _march(rate, v, h / _START, _START, 2, still)
            now = rate(v)
        else:
            v, now = _implicit(rate, v, h, order, here, before, still)
        if np.isnan(v).any():
            break
        here, before = now, here
    return v


def _implicit(
    rate: FusedPhase, v: Floats, h: float, order: int, here: Floats, before: Floats, still: Floats
) -> tuple[Floats, Floats]:
    """One step from ``v``, where dv/dτ is ``here`` and was ``before`` a step earlier: v, NaN where the iteration does
    not contract, and dv/dτ there."""
    of_end, of_start, of_before = (h * weight for weight in _WEIGHTS[order])
    known = v + of_start * here + of_before * before
    guess = v + h * (1.5 * here - 0.5 * before)
    for _ in range(60):
        slope = rate(guess)
        better = known + of_end * slope
        moved = (np.abs(better - guess) > still).any()
        guess = better
        if not moved or np.isnan(guess).any():
            return guess, slope
    return np.full_like(v, np.nan), here


def require_finite(v_end: Floats, what: str) -> None:
    """Raise :class:`KcnetError` where a software solution has left the finite numbers."""
    bad = np.flatnonzero(~np.isfinite(v_end).all(axis=1))
    if bad.size:
        raise KcnetError(
            f"{what}: {bad.size} of {len(v_end)} samples do not stay finite (the first is sample {bad[0]}). The "
            "network is unstable for these inputs."
        )
