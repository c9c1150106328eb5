"""The decision section: when the answer stands, and what the time of reading tolerates, of waveforms in ngspice.

The exported circuit is run for longer than T, so that a late reading is a voltage that the simulator found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kcnet_eda import __version__
from kcnet_eda.files import sha256_bytes, sha256_file
from kcnet_eda.network.graph import labels
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.batch import Job, run_jobs
from kcnet_eda.study.latency.bench import LatencyBench, Row, made_by, right_means
from kcnet_eda.study.latency.settings import Decision
from kcnet_eda.study.legs import prepare_bench
from kcnet_eda.study.readout import Reading, lost_to_jitter, right_at, tolerated_jitter, tolerated_shift
from kcnet_eda.study.store import PlannedRun, Result, Status
from kcnet_eda.tools.simulators import NGSPICE

VARIANT = "decision"
_JITTER = 1  # the first word of the key by which jitter is drawn
#: Standard deviations of the jitter curve, of T.
_SIGMAS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def run_decision(bench: LatencyBench, section: Decision) -> Row:
    """Run the section; its part of the record."""
    keys, results = _simulate(bench, section)
    n, t_read = len(results), bench.bundle.circuit.t_end
    y = labels(bench.network, bench.v_ref) if bench.data.y is None else bench.data.y
    scaling = bench.bundle.circuit.scaling
    start = scaling.v_cm + scaling.v_unit * bench.x0
    first_outputs = len(bench.network.phases) == 1  # those of a later phase begin with it
    passed = np.flatnonzero([r.waveform is not None for r in results])
    readings = []
    for i in passed:
        waveform = results[i].waveform
        assert waveform is not None
        time, volts = waveform
        if first_outputs and time[0] > 0:
            time = np.append(0.0, time)
            volts = np.concatenate([start[i : i + 1, bench.network.readout], volts])
        readings.append(Reading(time, volts, t_read))
    failed = [
        {"run": VARIANT, "sample": int(bench.data.index[i]), "status": r.status, "message": r.message, "key": keys[i]}
        for i, r in enumerate(results)
        if r.status is not Status.PASSED
    ]
    found: Row = made_by(NGSPICE.name) | {
        "n": n,
        "right_means": right_means(bench.data),
        "t_read_s": t_read,
        "simulated_until_s": t_read * (1 + section.overrun),
        "resolution_points": 100 / n,
        "keys": keys,
        "failed": failed,
    }
    return found if not readings else found | _found(bench, section, readings, passed, y)


def _simulate(bench: LatencyBench, section: Decision) -> tuple[list[str], list[Result]]:
    """Every sample through the exported circuit, run longer in its last phase, with its waveforms kept."""
    circuit = bench.bundle.circuit
    settings = bench.bundle.settings[NGSPICE.name]
    last = circuit.stages[-1]
    # As many steps a second as were chosen for T.
    longer = replace(settings, steps=int(np.ceil(settings.steps * (1 + section.overrun))))
    extended = replace(last, duration=last.duration + section.overrun * circuit.t_end)
    bundle = replace(bench.bundle, circuit=replace(circuit, stages=(*circuit.stages[:-1], extended)))
    sources = bundle.sources(NGSPICE.name, gated=False)
    tools = f"{__version__} {made_by(NGSPICE.name)}"
    same = " ".join([VARIANT, *map(sha256_file, sources), tools, f"{longer} {section.overrun}"])
    jobs = [
        Job(sha256_bytes(same.encode() + x.tobytes()), int(bench.data.index[i]), x, longer, True)
        for i, x in enumerate(bench.x0)
    ]
    rows = [PlannedRun(job.key, job.sample, VARIANT) for job in jobs]
    bench.store.plan(rows, NGSPICE.name, NGSPICE.version(), bench.study.seed)
    due = [job for job in jobs if bench.store.result(job.key).status is not Status.PASSED]
    if due:
        rig = prepare_bench(bundle, NGSPICE, bench.out / "work" / VARIANT, False, bench.study.timeout_s)
        with bench.progress.stage("waveforms", len(jobs)) as advance:
            advance(len(jobs) - len(due))

            def finished(key: str, result: Result) -> None:
                bench.store.finish(key, result)
                advance(1)

            run_jobs(rig, due, bench.jobs, finished)
    return [job.key for job in jobs], [bench.store.result(job.key) for job in jobs]


def _found(bench: LatencyBench, section: Decision, readings: list[Reading], passed: Any, y: Any) -> Row:
    n, t_read = len(bench.data), bench.bundle.circuit.t_end
    mine = y[passed]
    at_t = np.array([r.label for r in readings])
    right = at_t == mine
    decided = np.array([r.decided for r in readings])
    early, late = t_read - decided, np.array([r.leaves for r in readings]) - t_read
    window = section.overrun * t_read
    times = np.linspace(0, t_read * (1 + section.overrun), section.points + 1)
    begin = max(float(r.time[0]) for r in readings)
    times = times[times >= begin]
    z = np.random.default_rng(np.random.SeedSequence(bench.study.seed, spawn_key=(_JITTER,))).standard_normal(
        (section.draws, len(readings))
    )
    margin, slope = np.array([r.margin for r in readings]), np.array([r.slope for r in readings])

    def tolerance(loss: float) -> Row:
        shifts = [tolerated_shift(room, right, n, loss) for room in (early, late)]
        return {
            "loss_points": loss,
            "readings_that_may_be_lost": int(np.floor(loss / 100 * n + 1e-9)),
            "clock_early_s": min(shifts[0], t_read),
            "clock_late_s": min(shifts[1], window),
            "clock_late_at_least": bool(shifts[1] >= window * (1 - 1e-9)),  # nobody has looked farther
            "jitter_s": tolerated_jitter(early, late, right, n, loss, z, t_read),
        }

    return {
        "accuracy_at_t": proportion(int(right.sum()), n),
        "labels_as_software": proportion(int((at_t == labels(bench.network, bench.v_ref)[passed]).sum()), n),
        "decision_s": _spread(decided),
        "margin_v": _spread(margin),
        "slope_v_per_s": _spread(slope),
        "early_exit": [
            {"t_s": float(t), "share_of_t": float(t / t_read), "accuracy": proportion(int(k), n)}
            for t, k in zip(times, right_at(readings, mine, times), strict=True)
        ],
        "jitter": [
            {
                "sigma_s": s * t_read,
                "lost": lost_to_jitter(early, late, right, n, s * t_read, z),
                "draws": section.draws,
            }
            for s in _SIGMAS
        ],
        "tolerances": [tolerance(loss) for loss in section.losses],
        "samples": [
            {
                "sample": int(bench.data.index[i]),
                "label": int(at_t[row]),
                "right": bool(right[row]),
                "decision_s": float(decided[row]),
                "stands_until_s": float(t_read + late[row]),
                "margin_v": float(margin[row]),
                "slope_v_per_s": float(slope[row]),
            }
            for row, i in enumerate(passed.tolist())
        ],
    }


def _spread(values: Any) -> Row:
    """Where values lie."""
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return {
        "n": int(values.size),
        "min": float(values.min()),
        "p5": low,
        "median": median,
        "p95": high,
        "max": float(values.max()),
    }
