"""Many samples through a simulator: one parsed circuit serves a batch, batches are spread over processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import BadDataError, KcnetError, NotConvergedError, RunTimeoutError
from kcnet_eda.export.testbench import Sample, SolverSettings, render_testbench
from kcnet_eda.network.graph import carry_over, settle
from kcnet_eda.study.accuracy import decision_time
from kcnet_eda.study.legs import Bench, Leg
from kcnet_eda.study.pool import simulator_pool
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import explain

Floats = NDArray[np.float64]

_LARGEST_BATCH = 25  # a killed run loses at most this many unfinished samples of each worker
_BATCHES_A_WORKER = 4  # so that workers end together and progress is seen


@dataclass(frozen=True, eq=False)
class Job:
    """One run: its store key, its sample number, v(0) [nodes] in model units, and whether its waveform is kept."""

    key: str
    sample: int
    v0: Floats
    settings: SolverSettings
    keep_waveform: bool


def run_jobs(bench: Bench, jobs: Sequence[Job], workers: int, done: Callable[[str, Result], None]) -> None:
    """Run all ``jobs`` in ``workers`` simulator processes; ``done(key, result)`` is called here for each as it ends.

    On Ctrl-C, or if ``done`` raises, every simulator is killed before the exception goes on.
    """
    with simulator_pool(workers, bench.cancel) as pool:
        pending: set[Future[list[tuple[Job, Result]]]] = set()
        for number, batch in enumerate(_batches(jobs, workers)):
            pending.add(pool.submit(_run_batch, bench, number, batch))
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in ended:
                for job, result in future.result():
                    done(job.key, result)


def _batches(jobs: Sequence[Job], workers: int) -> Iterator[Sequence[Job]]:
    """Runs of jobs with equal settings, short enough for the progress and long enough to share the parsing."""
    size = max(1, min(_LARGEST_BATCH, -(-len(jobs) // (workers * _BATCHES_A_WORKER))))
    start = 0
    while start < len(jobs):
        stop = start + 1
        while stop < min(start + size, len(jobs)) and jobs[stop].settings == jobs[start].settings:
            stop += 1
        yield jobs[start:stop]
        start = stop


@dataclass(eq=False)
class _Way:
    """How far a sample has come: its state [1, nodes], what each phase so far evolved to, and its waveforms."""

    state: Floats
    evolved: list[Floats] = field(default_factory=list)
    time: list[Floats] = field(default_factory=list)
    readout: list[Floats] = field(default_factory=list)
    wall: float = 0.0
    peak: int = 0


def _run_batch(bench: Bench, number: int, jobs: Sequence[Job]) -> list[tuple[Job, Result]]:
    """Run a batch, leg by leg, in a folder of its own; the folder stays only where a sample failed."""
    network = bench.bundle.network
    ways = {job.key: _Way(job.v0[None]) for job in jobs}
    results: dict[str, Result] = {}
    elapsed = 0.0
    folder = bench.folder / f"batch_{number:05d}"
    for leg in bench.legs(jobs[0].settings):
        running = [job for job in jobs if job.key not in results]
        if not running:
            break
        place = folder / f"phase{leg.phases.start}"
        place.mkdir(parents=True)
        for job in running:
            ways[job.key].state = carry_over(ways[job.key].state, network.phases[leg.phases.start])
        results |= _run_leg(bench, leg, place, running, ways, elapsed)
        elapsed += leg.window.t_end
    for job in jobs:
        if job.key not in results:
            results[job.key] = _passed(job, ways[job.key])
    if all(result.status is Status.PASSED for result in results.values()):
        shutil.rmtree(folder)
    return [(job, results[job.key]) for job in jobs]


def _run_leg(
    bench: Bench, leg: Leg, folder: Path, jobs: Sequence[Job], ways: dict[str, _Way], begin: float
) -> dict[str, Result]:
    """Run ``jobs`` through a leg that begins at ``begin`` seconds: their ways go on; those that failed are returned."""
    circuit = bench.bundle.circuit
    samples = [
        Sample(f"sample {job.sample}", ways[job.key].state[0, 1:] * circuit.scaling.v_unit, f"s{i:05d}")
        for i, job in enumerate(jobs)
    ]
    deck = folder / f"deck{bench.simulator.suffix}"
    deck.write_text(
        render_testbench(
            circuit,
            leg.window,
            jobs[0].settings,
            samples,
            simulator=bench.simulator.name,
            netlist=f"../../{leg.netlist}",
            osdi=[f"../../{name}" for name in leg.osdi],
            header=leg.header,
        )
    )
    failure: KcnetError
    peak, started = 0, time.monotonic()
    try:
        completed = bench.simulator.run(deck, folder / "log.txt", bench.timeout_s, bench.cancel)
        peak, failure = completed.peak_kib, explain(completed)
    except RunTimeoutError as error:
        failure = error
    wall = (time.monotonic() - started) / len(jobs)
    failed = {}
    for job, sample in zip(jobs, samples, strict=True):
        way = ways[job.key]
        way.wall, way.peak = way.wall + wall, max(way.peak, peak)
        result = _read(bench, leg, way, folder / f"{sample.output}.raw", failure, begin)
        if result is not None:
            failed[job.key] = result
    return failed


def _read(bench: Bench, leg: Leg, way: _Way, path: Path, failure: KcnetError, begin: float) -> Result | None:
    """Take a leg's end from a raw file onto ``way``. Where that cannot be, the result that says why; where there is no
    file at all, the simulator's own failure does."""
    scaling, network = bench.bundle.circuit.scaling, bench.bundle.network
    if not path.exists():
        return Result(status_of(failure), str(failure), way.wall, way.peak)
    try:
        waves = read_transient(path, leg.window.nets, leg.window.t_end)
    except BadDataError as error:
        timed_out = isinstance(failure, RunTimeoutError)  # it was killed while writing this file
        return Result(status_of(failure) if timed_out else Status.BAD_DATA, str(error), way.wall, way.peak)
    column = {net: i for i, net in enumerate(leg.window.nets)}
    nets = leg.spans[-1][1]
    end = np.zeros((1, len(nets)))
    end[0, 1:] = (waves.values[-1, [column[net] for net in nets[1:]]] - scaling.v_cm) / scaling.v_unit
    which = np.searchsorted([until for until, _ in leg.spans[:-1]], waves.time, side="right")
    which[waves.time < leg.window.lead_in] = -1  # the nodes are still being written
    for number, (_, nets) in enumerate(leg.spans):
        if network.readout.max() < len(nets):
            way.time.append(waves.time[which == number] - leg.window.lead_in + begin)
            way.readout.append(waves.values[which == number][:, [column[nets[n]] for n in network.readout]])
        else:  # the outputs begin in a later phase
            way.time.clear()
            way.readout.clear()
    if bench.gated:
        way.state = end
        return None
    way.evolved.append(end)
    way.state = settle(network, way.evolved)
    if network.phases[leg.phases.start].residual_from is not None and way.time:
        way.time.append(np.array([begin + leg.window.t_end]))
        way.readout.append(scaling.v_cm + scaling.v_unit * way.state[:, network.readout])
    return None


def _passed(job: Job, way: _Way) -> Result:
    times, readout = np.concatenate(way.time), np.concatenate(way.readout)
    kept = (times, readout) if job.keep_waveform else None
    return Result(Status.PASSED, "", way.wall, way.peak, way.state[0], decision_time(times, readout), kept)


def status_of(failure: KcnetError) -> Status:
    """How a run ended that ``failure`` is the error of."""
    if isinstance(failure, RunTimeoutError):
        return Status.TIMED_OUT
    if isinstance(failure, BadDataError):
        return Status.BAD_DATA
    return Status.NOT_CONVERGED if isinstance(failure, NotConvergedError) else Status.TOOL_FAILED
