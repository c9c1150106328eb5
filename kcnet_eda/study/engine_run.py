"""``--simulator engine``: samples through the network in software by fixed Runge-Kutta steps of the fused kernel.

No circuit simulator takes part; runs, store, half-step check and record are those of every other simulator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.dynamics.engine import BLOCK
from kcnet_eda.dynamics.solvers import rk4
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.study.accuracy import decision_time
from kcnet_eda.study.batch import Job
from kcnet_eda.study.store import Result, Status

ENGINE = "engine"
VERSION = f"fast engine of kcnet_eda {__version__}"


def run_in_engine(
    network: Network, scaling: Scaling, jobs: Sequence[Job], threads: int, done: Callable[[str, Result], None]
) -> None:
    """Run all ``jobs`` in blocks spread over ``threads``; ``done(key, result)`` is called here as each block ends."""
    with ThreadPoolExecutor(threads) as pool:
        for block in pool.map(lambda block: _run_block(network, scaling, block), _blocks(jobs)):
            for job, result in block:
                done(job.key, result)


def _blocks(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    for settings in dict.fromkeys(job.settings for job in jobs):
        alike = [job for job in jobs if job.settings == settings]
        yield from (alike[start : start + BLOCK] for start in range(0, len(alike), BLOCK))


def _run_block(network: Network, scaling: Scaling, jobs: Sequence[Job]) -> list[tuple[Job, Result]]:
    started = time.monotonic()
    times: list[float] = []
    readout: list[NDArray[np.float64]] = []  # [outputs, samples] each, volts
    v = np.empty((0, 0))
    for _, tau, v in rk4(network, np.stack([job.v0 for job in jobs]), jobs[0].settings.steps):
        if network.readout.max() < len(v):
            times.append(tau * scaling.t_unit)
            readout.append(scaling.v_cm + scaling.v_unit * v[network.readout])
        else:  # the outputs begin in a later phase
            times.clear()
            readout.clear()
    wall = (time.monotonic() - started) / len(jobs)
    at, out = np.array(times), np.stack(readout)
    return [(job, _result(job, v[:, i], at, out[:, :, i], wall)) for i, job in enumerate(jobs)]


def _result(
    job: Job, v_end: NDArray[np.float64], times: NDArray[np.float64], readout: NDArray[np.float64], wall: float
) -> Result:
    if not np.isfinite(v_end).all():
        return Result(Status.NOT_CONVERGED, "the fast engine's solution does not stay finite", wall)
    kept = (times, readout) if job.keep_waveform else None
    return Result(Status.PASSED, "", wall, 0, v_end.copy(), decision_time(times, readout), kept)
