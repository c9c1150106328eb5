"""The software truth: an independent high-order solution, Hairer's DOP853 as scipy wraps it, at rtol 1e-10.

It shares the compiled right-hand side with the rest, and nothing of the time stepping. Where a law has a
corner the order drops locally and a tolerance buys less than it says: against a solution at rtol 1e-12 the error
is near 1e-7 of a model unit on the digits network, four decades under the default accuracy contract (tested).
"""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import ode

from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.graph import Network, carry_over, settle
from kcnet_eda.network.store import dump_network, parse_network

Floats = NDArray[np.float64]

RTOL = 1e-10
#: Absolute tolerance over the relative one. Voltages are of order one and swing through 0, where a relative tolerance
#: alone would ask for the impossible; a tenth of it would double the work to take 1e-7 of error to 4e-8.
_ATOL_OVER_RTOL = 10.0
#: How the reference is made, in words: for reports, and for the keys of stored results.
METHOD = f"DOP853, rtol {RTOL:g}, atol {_ATOL_OVER_RTOL * RTOL:g}"
_MAX_STEPS = 1_000_000


def trajectory(network: Network, x0: Floats, times: ArrayLike, rtol: float = RTOL) -> Floats:
    """Node voltages of one sample at model ``times`` (rising, within 0..T): shape [times, nodes of the largest phase].

    ``x0`` is v(0), [nodes]. A node that a phase does not have is NaN there; at a hand-over time the later phase
    is given. The absolute tolerance is ten times ``rtol`` (model units).

    Raises
    ------
    KcnetError
        The solver does not reach a time, or the solution is not finite.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dop853", UserWarning)  # what it warns of is raised below
        return _trajectory(network, x0, np.asarray(times, dtype=np.float64), rtol)


def _trajectory(network: Network, x0: Floats, times: Floats, rtol: float) -> Floats:
    out = np.full((times.size, network.max_nodes), np.nan)
    begin, state = 0.0, np.asarray(x0, dtype=np.float64)[None]
    evolved: list[Floats] = []
    for phase in network.phases:
        end = begin + phase.duration
        rate = RightHandSide(phase)
        solver = ode(lambda _, v, rate=rate: rate(v))
        solver.set_integrator("dop853", rtol=rtol, atol=_ATOL_OVER_RTOL * rtol, nsteps=_MAX_STEPS)
        solver.set_initial_value(carry_over(state, phase)[0], begin)
        for i in np.flatnonzero((times >= begin) & (times < end)):
            out[i, : phase.n_nodes] = solver.integrate(times[i]) if times[i] > solver.t else solver.y
            _require(solver, float(times[i]))
        evolved.append(np.asarray(solver.integrate(end))[None])
        _require(solver, end)
        begin, state = end, settle(network, evolved)
    out[times >= begin, : phase.n_nodes] = state[0]
    return out


def _require(solver: ode, time: float) -> None:
    if not (solver.successful() and np.isfinite(solver.y).all()):
        raise KcnetError(f"the reference solution does not reach τ = {time:g}: the network diverges for this input")


def _end(network: Network, x0: Floats) -> Floats:
    return trajectory(network, x0, [network.duration])[0, : network.phases[-1].n_nodes]


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

    if jobs <= 1 or len(x0) < 2 * jobs:
        for row in range(len(x0)):
            finish(np.array([row]), _end(network, x0[row])[None])
        return result
    payload = dump_network(network)
    pieces = np.array_split(np.arange(len(x0)), min(len(x0), 8 * jobs))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_parent) as pool:
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


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
