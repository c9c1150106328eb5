"""Many samples through a simulator: one parsed circuit serves a batch, batches are spread over processes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import BadDataError, KcnetError, NotConvergedError, RunTimeoutError
from kcnet_eda.export.bundle import Bundle
from kcnet_eda.export.testbench import Sample, SolverSettings, render_testbench
from kcnet_eda.study.accuracy import decision_time
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.openvaf import compile_file
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import Simulator, explain

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


@dataclass(frozen=True, eq=False)
class Bench:
    """Where runs happen: ``folder`` is laid out by :func:`prepare_bench`; ``timeout_s`` bounds one sample."""

    bundle: Bundle
    simulator: Simulator
    folder: Path
    osdi: tuple[str, ...]
    timeout_s: float
    cancel: threading.Event = field(default_factory=threading.Event)


def prepare_bench(bundle: Bundle, simulator: Simulator, folder: Path, timeout_s: float) -> Bench:
    """Compile the bundle's devices and copy netlist and devices to ``folder``, so that decks name plain relative
    paths whatever the run folder is called."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = []
    for module in bundle.circuit.modules:
        shutil.copyfile(compile_file(bundle.path / "veriloga" / f"{module}.va"), folder / f"{module}.osdi")
        names.append(f"{module}.osdi")
    shutil.copyfile(bundle.netlist(simulator.name), folder / "circuit.inc")
    return Bench(bundle, simulator, folder, tuple(names), timeout_s)


def run_jobs(bench: Bench, jobs: Sequence[Job], workers: int, done: Callable[[str, Result], None]) -> None:
    """Run all ``jobs`` in ``workers`` simulator processes; ``done(key, result)`` is called here for each as it ends.

    On Ctrl-C, or if ``done`` raises, every simulator is killed before the exception goes on.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="simulator") as pool:
        pending: set[Future[list[tuple[Job, Result]]]] = {
            pool.submit(_run_batch, bench, number, batch) for number, batch in enumerate(_batches(jobs, workers))
        }
        try:
            while pending:
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    for job, result in future.result():
                        done(job.key, result)
        except BaseException:
            bench.cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


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


def _run_batch(bench: Bench, number: int, jobs: Sequence[Job]) -> list[tuple[Job, Result]]:
    """Run a batch in a folder of its own; the folder stays only where a sample failed."""
    folder = bench.folder / f"batch_{number:05d}"
    folder.mkdir()
    scaling = bench.bundle.circuit.scaling
    samples = [Sample(f"sample {job.sample}", job.v0 * scaling.v_unit, f"s{i:05d}") for i, job in enumerate(jobs)]
    deck = folder / f"deck{bench.simulator.suffix}"
    deck.write_text(
        render_testbench(
            bench.bundle.circuit,
            jobs[0].settings,
            samples,
            simulator=bench.simulator.name,
            netlist="../circuit.inc",
            osdi=[f"../{name}" for name in bench.osdi],
        )
    )
    failure: KcnetError
    peak, started = 0, time.monotonic()
    try:
        completed = bench.simulator.run(deck, folder / "log.txt", bench.timeout_s, bench.cancel)
        peak, failure = completed.peak_kib, explain(completed)
    except RunTimeoutError as error:
        failure = error
    wall = time.monotonic() - started
    results = []
    for job, sample in zip(jobs, samples, strict=True):
        path = folder / f"{sample.output}.raw"
        results.append((job, _read(bench.bundle, job, path, failure, wall / len(jobs), peak)))
    if all(result.status is Status.PASSED for _, result in results):
        shutil.rmtree(folder)
    return results


def _read(bundle: Bundle, job: Job, path: Path, failure: KcnetError, wall: float, peak: int) -> Result:
    """The result in a raw file; where there is no file, the batch's own failure says why."""
    circuit, network = bundle.circuit, bundle.network
    if not path.exists():
        return Result(_status(failure), str(failure), wall, peak)
    try:
        waves = read_transient(path, circuit.nets[1:], circuit.t_end)
    except BadDataError as error:
        timed_out = isinstance(failure, RunTimeoutError)  # it was killed while writing this file
        return Result(_status(failure) if timed_out else Status.BAD_DATA, str(error), wall, peak)
    scaling = circuit.scaling
    v_end = np.zeros(len(circuit.nets))
    v_end[1:] = (waves.values[-1] - scaling.v_cm) / scaling.v_unit
    readout = waves.values[:, network.readout - 1]
    kept = (waves.time, readout) if job.keep_waveform else None
    return Result(Status.PASSED, "", wall, peak, v_end, decision_time(waves.time, readout), kept)


def _status(failure: KcnetError) -> Status:
    if isinstance(failure, RunTimeoutError):
        return Status.TIMED_OUT
    return Status.NOT_CONVERGED if isinstance(failure, NotConvergedError) else Status.TOOL_FAILED
