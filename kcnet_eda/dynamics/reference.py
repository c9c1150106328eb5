"""The software truth: an independent high-order solution, Hairer's DOP853 as scipy wraps it, at rtol 1e-10.

It shares the compiled right-hand side with the rest, and nothing of the time stepping. Where a law has a
corner the order drops locally and a tolerance buys less than it says: against a solution at rtol 1e-12 the error
is near 1e-7 of a model unit on the digits network, four decades under the default accuracy contract (tested).
A phase that DOP853 finds stiff is solved by scipy's Radau instead.

Of a large network one sample takes DOP853 a minute and more. There the truth is RK4 on the fused kernel in double
precision, its steps doubled until the result stands still; a test holds it against DOP853.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import ode, solve_ivp

from kcnet_eda.dynamics.engine import BLOCK, covered, evolve
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.dynamics.solvers import require_finite, rk4
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.graph import Network, carry_over, settle
from kcnet_eda.network.store import dump_network, parse_network

Floats = NDArray[np.float64]

RTOL = 1e-10
#: Absolute tolerance over the relative one. Voltages are of order one and swing through 0, where a relative tolerance
#: alone would ask for the impossible; a tenth of it would double the work to take 1e-7 of error to 4e-8.
_ATOL_OVER_RTOL = 10.0
_MAX_STEPS = 1_000_000
_STIFF = -4  # DOP853's code for a phase on which it is limited by stability, not by accuracy
LARGE = 50_000  # edges
_SEEN = 4  # samples, and as many examples, tell what range a node covers
_STILL = 1e-5  # of each node's range: what one more doubling of the steps may change
_DRAWN_STEPS = 100
_FIRST_STEPS, _LAST_STEPS = 200, 12_800


def smallest_error(network: Network) -> float:
    """The relative error below which nothing could be verified against this reference: ten times its own."""
    return 10 * _STILL if network.n_edges > LARGE else 1e-6


def method(network: Network) -> str:
    """How the reference of ``network`` is made, in words: for reports, and for the keys of stored results."""
    if network.n_edges > LARGE:
        return f"RK4 in double precision, steps doubled to a change of {_STILL:g} of the range"
    return f"DOP853, rtol {RTOL:g}, atol {_ATOL_OVER_RTOL * RTOL:g}"


def trajectory(network: Network, x0: Floats, times: ArrayLike, rtol: float = RTOL) -> Floats:
    """Node voltages of one sample at model ``times`` (rising, within 0..T): shape [times, nodes of the largest phase].

    ``x0`` is v(0), [nodes]. A node that a phase does not have is NaN there; at a hand-over time the later phase
    is given. The absolute tolerance is ten times ``rtol`` (model units). Of a large network it is RK4's, linear between
    its steps: to be looked at, not to be measured with.

    Raises
    ------
    KcnetError
        The solver does not reach a time, or the solution is not finite.
    """
    if network.n_edges > LARGE:
        return _drawn(network, x0, np.asarray(times, dtype=np.float64))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dop853", UserWarning)  # what it warns of is raised below
        return _trajectory(network, x0, np.asarray(times, dtype=np.float64), rtol)


def _drawn(network: Network, x0: Floats, times: Floats) -> Floats:
    out = np.full((times.size, network.max_nodes), np.nan)
    before, last = 0.0, x0
    for phase, at, v in rk4(network, x0[None], _DRAWN_STEPS):
        now = v[:, 0]
        inside = (times >= before) & (times <= at) if at > before else times >= at
        share = (times[inside] - before) / (at - before) if at > before else np.zeros(inside.sum())
        first = last if at > before else now
        out[inside] = np.nan
        out[inside, : phase.n_nodes] = first + share[:, None] * (now - first)
        before, last = at, now
    return out


def _trajectory(network: Network, x0: Floats, times: Floats, rtol: float) -> Floats:
    out = np.full((times.size, network.max_nodes), np.nan)
    begin, state = 0.0, np.asarray(x0, dtype=np.float64)[None]
    instant = 1e-12 * network.duration  # times that differ by less are the same: no solver steps from one to the other
    evolved: list[Floats] = []
    for phase in network.phases:
        end = begin + phase.duration
        rate, start = RightHandSide(phase), carry_over(state, phase)[0]
        solver = ode(lambda _, v, rate=rate: rate(v))
        solver.set_integrator("dop853", rtol=rtol, atol=_ATOL_OVER_RTOL * rtol, nsteps=_MAX_STEPS)
        solver.set_initial_value(start, begin)
        inside = (times >= begin - instant) & (times < end - instant)
        for i in np.flatnonzero(inside):
            out[i, : phase.n_nodes] = solver.integrate(times[i]) if times[i] > solver.t + instant else solver.y
            if solver.get_return_code() == _STIFF:
                break
            _require(solver, float(times[i]))
        v_end = solver.integrate(end)
        if solver.get_return_code() == _STIFF:
            out[inside, : phase.n_nodes], v_end = _stiff(rate, start, begin, end, times[inside], rtol)
        else:
            _require(solver, end)
        evolved.append(np.asarray(v_end)[None])
        begin, state = end, settle(network, evolved)
    out[times >= begin - instant, : phase.n_nodes] = state[0]
    return out


def _stiff(
    rate: RightHandSide, v: Floats, begin: float, end: float, times: Floats, rtol: float
) -> tuple[Floats, Floats]:
    """Radau's solution from ``v`` at ``begin``: at ``times`` [times, nodes], and at ``end`` [nodes]."""
    found = solve_ivp(
        lambda _, v: rate(v), (begin, end), v, "Radau", [*times, end], rtol=rtol, atol=_ATOL_OVER_RTOL * rtol
    )
    if not found.success or not np.isfinite(found.y).all():
        raise KcnetError(f"the reference solution does not reach τ = {end:g}: {found.message}")
    return found.y.T[:-1], found.y.T[-1]


def _require(solver: ode, time: float) -> None:
    if not (solver.successful() and np.isfinite(solver.y).all()):
        raise KcnetError(
            f"the reference solution does not reach τ = {time:g}: the network diverges for this input "
            f"(DOP853's code: {solver.get_return_code()})"
        )


def _end(network: Network, x0: Floats) -> Floats:
    return trajectory(network, x0, [network.duration])[0, : network.phases[-1].n_nodes]


def _still_ends(network: Network, x0: Floats, scale: Floats, threads: int) -> Floats:
    """v(T) of ``x0`` [n, nodes] by RK4, the steps doubled until no node moves by more than ``_STILL`` of ``scale``."""
    steps = _FIRST_STEPS
    before = evolve(network, x0, steps=steps, dtype=np.float64, threads=threads)
    while steps < _LAST_STEPS:
        steps *= 2
        now = evolve(network, x0, steps=steps, dtype=np.float64, threads=threads)
        moved = np.abs(now.v_end - before.v_end).max(axis=0)
        if (moved <= _STILL * scale + np.finfo(float).tiny).all():
            return now.v_end
        before = now
    require_finite(before.v_end, "the software reference")
    raise KcnetError(
        f"the software reference still moves at {steps} RK4 steps a phase; the network is too stiff for it"
    )


def _ends(network_bytes: bytes, x0: Floats) -> Floats:
    network = parse_network(network_bytes, "network")
    return np.stack([_end(network, x) for x in x0])


def final_states(
    network: Network,
    x0: Floats,
    jobs: int = 1,
    done: Callable[[NDArray[np.int64], Floats], None] = lambda rows, v: None,
) -> Floats:
    """v(T) of samples ``x0`` [n, nodes]: shape [n, nodes of the last phase], spread over ``jobs`` processes.

    ``done(rows, v)`` is called with each piece as it ends: which rows of ``x0``, and their v(T).
    """
    result = np.empty((len(x0), network.phases[-1].n_nodes))

    def finish(rows: NDArray[np.int64], v_end: Floats) -> None:
        result[rows] = v_end
        done(rows, v_end)

    if network.n_edges > LARGE:
        # Over few samples a node may hardly move, and that is not its range: the network's examples count as well.
        seen = np.concatenate([x0[:_SEEN], network.initial_state(network.examples[:_SEEN])])
        ways, _ = covered(network, seen)
        scale = (ways.high[-1] - ways.low[-1])[: result.shape[1]]
        for start in range(0, len(x0), BLOCK * jobs):
            rows = np.arange(start, min(start + BLOCK * jobs, len(x0)))
            finish(rows, _still_ends(network, x0[rows], scale, jobs))
        return result
    if jobs <= 1 or len(x0) < 2 * jobs:
        for row in range(len(x0)):
            finish(np.array([row]), _end(network, x0[row])[None])
        return result
    payload = dump_network(network)
    pieces = np.array_split(np.arange(len(x0)), min(len(x0), 8 * jobs))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent) as pool:
        with _without_main():
            futures = {pool.submit(_ends, payload, x0[piece]): piece for piece in pieces}
        try:
            for future in as_completed(futures):
                finish(futures[future], future.result())
        except BrokenProcessPool:
            raise KcnetError(
                "a worker process of the reference solution was killed, perhaps for memory. What it had finished is "
                "kept; run again with fewer --jobs."
            ) from None
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the caller's script while workers start: they need nothing of it, and would run it again from its top."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
