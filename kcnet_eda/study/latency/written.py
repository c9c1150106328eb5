"""What kT/C noise of the written voltages and incomplete writing cost: the exported circuit in ngspice from initial
voltages that are off by them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.files import sha256_bytes, sha256_file
from kcnet_eda.network.graph import labels
from kcnet_eda.physical.thermal import ktc_noise
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.batch import Job, run_jobs
from kcnet_eda.study.latency.bench import Floats, LatencyBench, Row, Task, failures, made_by
from kcnet_eda.study.latency.settings import Inference
from kcnet_eda.study.legs import prepare_bench
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.simulators import NGSPICE

NOISE, WRITE = "ktc_noise", "write_error"
_DRAWN = 2  # the first word of the key by which noise is drawn


def what_writing_costs(bench: LatencyBench, section: Inference) -> Row:
    """Accuracy with noise of each C, and with each share of the inputs left unwritten. A row of the store is all draws
    of all samples: how many are right, of how many, and how many runs failed, which are right nowhere."""
    y = labels(bench.network, bench.v_ref) if bench.data.y is None else bench.data.y
    v_unit, sigmas = bench.study.v_unit, [ktc_noise(c, section.temperature) for c in section.capacitances]
    sources = bench.bundle.sources(NGSPICE.name, gated=False)
    same = " ".join([*map(sha256_file, sources), repr(bench.bundle.settings[NGSPICE.name])])
    same = f"{same} {made_by(NGSPICE.name)} {sha256_bytes(bench.x0.tobytes() + y.tobytes())}"

    def task(variant: str, words: str, start: Callable[[int], Floats], draws: int) -> Task:
        def make() -> Result:
            return _count(bench, np.concatenate([start(k) for k in range(draws)]), np.tile(y, draws))

        return Task(f"{same} {words}", 0, variant, NGSPICE.name, NGSPICE.version(), make, bench.study.seed)

    def noisy(sigma: float) -> Callable[[int], Floats]:
        def start(k: int) -> Floats:
            key = np.random.SeedSequence(bench.study.seed, spawn_key=(_DRAWN, k))
            z = np.random.default_rng(key).standard_normal(bench.x0.shape)
            z[:, 0] = 0.0  # the rail is held
            return np.asarray(bench.x0 + sigma / v_unit * z)

        return start

    def partly(left: float) -> Callable[[int], Floats]:
        return lambda _: np.asarray(bench.x0 * (1 - left))

    noise = [
        task(NOISE, f"{sigma!r} {v_unit} {section.draws} {bench.study.seed}", noisy(sigma), section.draws)
        for sigma in sigmas
    ]
    shares = (0.0, *section.write_errors)
    written = [task(WRITE, repr(left), partly(left), 1) for left in shares]
    results = bench.attempt([*noise, *written], "noise and write errors")
    trials = [section.draws * len(y)] * len(noise) + [len(y)] * len(written)
    rows = [
        made_by(NGSPICE.name) | {"accuracy": _share(result, n), "failed": _failed(result, n), "key": job.key}
        for result, n, job in zip(results, trials, [*noise, *written], strict=True)
    ]
    of_noise, of_writing = rows[: len(noise)], rows[len(noise) :]
    return {
        "noise": [
            {"c": c, "sigma_v": sigma, "draws": section.draws, "temperature": section.temperature} | row
            for c, sigma, row in zip(section.capacitances, sigmas, of_noise, strict=True)
        ],
        "write_errors": [{"left": left} | row for left, row in zip(shares, of_writing, strict=True)],
        "failed": failures([*noise, *written], results),
    }


def _count(bench: LatencyBench, x0: Floats, y: NDArray[np.int64]) -> Result:
    """Run the circuit from each of ``x0`` [n, nodes]: how many have the label of ``y`` [n], n, and how many failed."""
    begun, settings = time.monotonic(), bench.bundle.settings[NGSPICE.name]
    rig = prepare_bench(bench.bundle, NGSPICE, bench.out / "work" / NOISE, False, bench.study.timeout_s)
    found: dict[str, Result] = {}
    jobs = [Job(str(i), i, x, settings, False) for i, x in enumerate(x0)]
    run_jobs(rig, jobs, bench.jobs, found.__setitem__)
    right = sum(
        v is not None and int(labels(bench.network, v[None])[0]) == label
        for v, label in zip((found[job.key].v_end for job in jobs), y, strict=True)
    )
    failed = [result for result in found.values() if result.status is not Status.PASSED]
    peak = max(result.peak_kib for result in found.values())
    numbers = np.array([right, len(jobs), len(failed)], dtype=np.float64)
    status, message = Status.PASSED, ""
    if failed:  # so that the same command tries again; what was counted stands until then
        status, message = failed[0].status, f"{len(failed)} of {len(jobs)}, the first: {failed[0].message}"
    return Result(status, message, time.monotonic() - begun, peak, numbers)


def _share(result: Result, n: int) -> dict[str, Any]:
    """What is right, of all that it was to be."""
    return proportion(0 if result.v_end is None else int(result.v_end[0]), n)


def _failed(result: Result, n: int) -> int:
    return n if result.v_end is None else int(result.v_end[2])
