"""The fast engine: a whole data set through a network in software, by the fused kernel, on all cores.

Fixed-step RK4 is the default: a sample's result depends on nothing but the sample. The adaptive solver (Dormand and
Prince, J. Comput. Appl. Math. 6, 1980: order 5 with an embedded 4) chooses one step for a block of samples; it is the
check of the first. :func:`estimate_error` says what a result is worth, by doubling the steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.fused import FusedPhase, combine, compiled, fused_rate
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.graph import Network, carry_over, settle

Floats = NDArray[Any]

#: RK4 steps a phase. With 20 the published MNIST network's labels are those of ten times as many.
STEPS = 20
BLOCK = 128  # samples: a block's state and stages stay in a core's cache


@compiled
def _widen(v, low, high):  # type: ignore[no-untyped-def]
    for node in range(v.shape[0]):
        for m in range(v.shape[1]):
            low[node] = min(low[node], v[node, m])
            high[node] = max(high[node], v[node, m])


@compiled
def _rk4(pairs, edges, constant, v, duration, steps, low, high):  # type: ignore[no-untyped-def]
    k, stage = np.empty((4, *v.shape), v.dtype), np.empty_like(v)
    h = v.dtype.type(duration / steps)
    half, last = np.array([0.5, 0.5, 1.0]), np.array([1.0, 2.0, 2.0, 1.0]) / 6.0
    half, last = half.astype(v.dtype), last.astype(v.dtype)
    _widen(v, low, high)
    for _ in range(steps):
        fused_rate(pairs, edges, constant, v, k[0])
        for n in range(3):
            combine(v, h, k[n : n + 1], half[n : n + 1], 1, stage)
            fused_rate(pairs, edges, constant, stage, k[n + 1])
        combine(v, h, k, last, 4, stage)
        v[:] = stage
        _widen(v, low, high)


_A = np.array(
    [
        [1 / 5, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ]
)
#: Fifth-order weights less fourth-order ones.
_E = np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])
_SMALLEST_STEP = 1e-9  # of the phase: below it the network is not being followed any more


@compiled
def _dormand_prince(pairs, edges, constant, v, duration, a, e, tol, low, high):  # type: ignore[no-untyped-def]
    """Steps taken, negative where the step became too small; ``tol`` [nodes] are absolute tolerances a step."""
    k, stage, zero = np.empty((7, *v.shape), v.dtype), np.empty_like(v), np.zeros_like(v)
    t, h, taken = 0.0, duration / 100.0, 0
    fused_rate(pairs, edges, constant, v, k[0])
    _widen(v, low, high)
    while t < duration:
        h = min(h, duration - t)
        step = v.dtype.type(h)
        for n in range(6):
            combine(v, step, k, a[n], n + 1, stage)
            fused_rate(pairs, edges, constant, stage, k[n + 1])
        new = stage.copy()  # the sixth stage is the fifth-order result
        combine(zero, step, k, e, 7, stage)
        worst = 0.0
        for node in range(v.shape[0]):
            for m in range(v.shape[1]):
                ratio = abs(stage[node, m]) / tol[node]
                worst = ratio if ratio > worst or ratio != ratio else worst
        if worst <= 1.0:
            t = duration if h >= duration - t else t + h
            v[:], k[0] = new, k[6]
            taken += 1
            _widen(v, low, high)
        elif not (worst < np.inf):
            worst = 1e10
        h *= min(5.0, max(0.2, 0.9 * max(worst, 1e-10) ** -0.2))
        if h < _SMALLEST_STEP * duration:
            return -taken
    return taken


@dataclass(frozen=True, eq=False)
class Evolution:
    """Where samples went: ``v_end`` [n, nodes of the last phase]; ``low`` and ``high`` [phases, nodes of the largest],
    the range each node covered over all samples and steps (infinite the wrong way where a phase lacks the node)."""

    v_end: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def evolve(
    network: Network,
    x0: Floats,
    *,
    steps: int = STEPS,
    dtype: type[np.floating[Any]] = np.float32,
    threads: int | None = None,
    tolerance: Floats | None = None,
    done: Callable[[int], None] = lambda samples: None,
) -> Evolution:
    """Evolve samples ``x0`` [n, nodes of the first phase] to the end of the network.

    RK4 with ``steps`` a phase in precision ``dtype``, or, where a ``tolerance`` [nodes of the largest phase] in model
    units is given, adaptive steps that keep the error of each within it. Blocks of samples are spread over ``threads``
    (None: one a core); ``done(samples)`` is called as each block ends, in order.

    Raises
    ------
    KcnetError
        The adaptive step became too small: the network diverges or is too stiff for an explicit method.
    """
    phases = [FusedPhase(phase, dtype) for phase in network.phases]
    threads = threads or os.cpu_count() or 1
    block = min(BLOCK, -(-len(x0) // threads))
    starts = range(0, len(x0), block)
    v_end = np.empty((len(x0), network.phases[-1].n_nodes))
    low = np.full((len(phases), network.max_nodes), np.inf)
    with ThreadPoolExecutor(threads) as pool:
        blocks = [x0[start : start + block] for start in starts]
        results = pool.map(lambda block: _evolve_block(network, phases, block, steps, tolerance), blocks)
        high = -low
        for start, (end, block_low, block_high) in zip(starts, results, strict=True):
            v_end[start : start + len(end)] = end
            low, high = np.minimum(low, block_low), np.maximum(high, block_high)
            done(len(end))
    return Evolution(v_end, low, high)


def _evolve_block(
    network: Network, phases: list[FusedPhase], x0: Floats, steps: int, tolerance: Floats | None
) -> tuple[Floats, Floats, Floats]:
    state = np.asarray(x0, dtype=np.float64)
    low = np.full((len(phases), network.max_nodes), np.inf)
    high, evolved = -low, []
    for number, (phase, fused) in enumerate(zip(network.phases, phases, strict=True)):
        v = np.ascontiguousarray(carry_over(state, phase).T, dtype=fused.dtype)
        if tolerance is None:
            _rk4(*fused.arrays, v, fused.duration, steps, low[number], high[number])
        else:
            weights = _A.astype(fused.dtype), _E.astype(fused.dtype)
            taken = _dormand_prince(*fused.arrays, v, fused.duration, *weights, tolerance, low[number], high[number])
            if taken < 0:
                raise KcnetError(
                    f"phase {number}: the adaptive step became too small after {-taken} steps: the network diverges, "
                    "or is too stiff for an explicit method"
                )
        evolved.append(v.T.astype(np.float64))
        state = settle(network, evolved)
    return state, low, high


_FIRST_LOOK, _LAST_LOOK = 25, 25_600  # RK4 steps a phase
_ALIKE = 0.05  # of a range: it needs no more digits than a judgement of errors does
AT_REST = 1e-9  # of the network's largest range: a node that moves less is at rest


def with_examples(network: Network, x0: Floats) -> Floats:
    """Initial states ``x0`` and those of the network's own examples, each once: [n, nodes]."""
    return np.unique(np.concatenate([x0, network.initial_state(network.examples)]), axis=0)


def covered(network: Network, x0: Floats) -> tuple[Evolution, int]:
    """The ranges that nodes cover from initial states ``x0`` [n, nodes], and the RK4 steps a phase that they took:
    doubled until no range changes by more than a twentieth, since an explicit step that is too long for a stiff network
    gives a range that is finite, and nonsense.

    Raises
    ------
    KcnetError
        They do not stand still: the network diverges, or is too stiff for an explicit method.
    """
    steps = _FIRST_LOOK
    now = evolve(network, x0, steps=steps, dtype=np.float64)
    while steps < _LAST_LOOK:
        steps, before = 2 * steps, now
        now = evolve(network, x0, steps=steps, dtype=np.float64)
        held = np.isfinite(now.low)  # not every phase has every node
        size, was = (now.high - now.low)[held], (before.high - before.low)[held]
        if np.isfinite(now.v_end).all() and (np.abs(size - was) <= _ALIKE * size + AT_REST * size.max()).all():
            return now, steps
    raise KcnetError(
        f"the nodes' voltage ranges do not stand still at {steps} steps a phase: the network diverges for these "
        "inputs, or is too stiff for an explicit method"
    )


@dataclass(frozen=True, eq=False)
class ErrorEstimate:
    """What the error of final states is at most: ``bound`` [nodes of the last phase] in model units, the largest over
    the samples ``rows`` [m] that were computed again."""

    bound: NDArray[np.float64]
    rows: NDArray[np.int64]


#: Where doubling the steps at least halves the error e, e ≤ |difference| + e/2, so e is at most twice the difference;
#: and that is at most 3e. Corners of the laws leave RK4 order 2 or better, and smooth laws its 4, where it is 1.875e.
_HALVING = 2.0


def estimate_error(
    network: Network,
    x0: Floats,
    ways: Evolution,
    *,
    steps: int = STEPS,
    samples: int = 64,
    seed: int = 0,
    threads: int | None = None,
) -> ErrorEstimate:
    """Estimate the error of ``ways``, which :func:`evolve` made of ``x0`` [n, nodes] with ``steps`` in any precision.

    ``samples`` of them (all, where there are fewer), drawn by ``seed``, are computed again with twice the steps in
    double precision; twice the largest difference of each node is the estimate. It holds for these samples, between
    one and three times their true error, where ``steps`` are enough that doubling them halves the error; rounding in
    single precision is included.

    Raises
    ------
    KcnetError
        A sample does not stay finite, at ``steps`` or at twice as many: its error has no estimate.
    """
    rows = np.sort(np.random.default_rng(seed).choice(len(x0), min(samples, len(x0)), replace=False))
    finer = evolve(network, x0[rows], steps=2 * steps, dtype=np.float64, threads=threads)
    difference = np.abs(finer.v_end - ways.v_end[rows])
    bad = rows[~np.isfinite(difference).all(axis=1)]
    if bad.size:
        raise KcnetError(
            f"no error estimate: {bad.size} of {rows.size} samples do not stay finite at {steps} and {2 * steps} steps "
            f"a phase (the first is sample {bad[0]}). Take more steps; if that does not help, the network diverges."
        )
    return ErrorEstimate(_HALVING * difference.max(axis=0), rows)
