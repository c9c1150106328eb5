"""``kcnet simulate``: a data set through the circuit and through the software truth, side by side."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.dynamics.contract import compare, node_scales
from kcnet_eda.dynamics.reference import RTOL, final_states
from kcnet_eda.errors import InvalidInputError, ToolFailedError
from kcnet_eda.export.bundle import DEFAULT_ERROR, MANIFEST, Bundle, export, read_bundle
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import sha256_bytes, sha256_file, write_atomic
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network, labels, margins
from kcnet_eda.physical.audit import audit
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.batch import Job, prepare_bench, run_jobs
from kcnet_eda.study.store import PlannedRun, Result, Status, Store, open_store
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.simulators import Simulator, choose

Floats = NDArray[np.float64]

RECORD = "report.json"
OUTPUTS = "outputs.npz"
NETWORK = "network.kcnet"
STORE = "study.sqlite"
_CHECKED = 8  # samples that a half-step run checks
_KEPT_WAVEFORMS = 12
_TIMEOUT_S = 120.0


@dataclass(frozen=True, eq=False)
class _Plan:
    bundle: Bundle
    simulator: Simulator
    data: DataSet
    x0: Floats
    seed: int
    base_key: str

    def job(self, sample: int, settings: SolverSettings, keep: bool) -> Job:
        key = sha256_bytes(f"{self.base_key} {settings} ".encode() + self.x0[sample].tobytes())
        return Job(key, int(self.data.index[sample]), self.x0[sample], settings, keep)


def simulate(
    target: str | Path,
    out: Path,
    *,
    data: str = "digits",
    samples: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    simulator: str | None = None,
    timeout_s: float = _TIMEOUT_S,
    error: float = DEFAULT_ERROR,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run ``samples`` of ``data`` (the first; all where None) through a bundle's circuit and through the software
    truth; leave the run in the folder ``out`` and return its record (``report.json``).

    ``target`` is a bundle, or a network file or shipped name, which is exported first (at 1 pF and 1 ps, for
    ``error``) to ``out/bundle``. ``jobs`` simulators run at once (None: one a core). ``seed`` draws the samples of
    the half-step check. ``timeout_s`` bounds one sample. An interrupted run goes on where it stopped.

    Raises
    ------
    InvalidInputError
        Data do not fit the network, or ``out`` is not a run folder.
    ToolMissingError, ToolFailedError
        No simulator or compiler; or not a single run passed.
    """
    progress = progress or NoProgress()
    jobs = jobs if jobs is not None else os.cpu_count() or 1
    if jobs < 1:
        raise InvalidInputError(f"--jobs {jobs}", ["must be at least 1"])
    chosen, warning = choose(simulator)
    dataset = load_data(data).head(samples)
    _claim(out)
    bundle = _bundle(target, out, error)
    if dataset.x.shape[1] != bundle.network.inputs.size:
        raise InvalidInputError(
            f"--data {data}",
            [f"has {dataset.x.shape[1]} values a sample, the network takes {bundle.network.inputs.size}"],
        )
    base = [
        sha256_file(bundle.netlist(chosen.name)),
        *(sha256_file(bundle.path / "veriloga" / f"{m}.va") for m in bundle.circuit.modules),
        chosen.name,
        chosen.version(),
        openvaf.version(find_openvaf()),
    ]
    plan = _Plan(
        bundle, chosen, dataset, bundle.network.initial_state(dataset.x), seed, sha256_bytes("\n".join(base).encode())
    )
    started = time.monotonic()
    with open_store(out / STORE) as store:
        main, check = _run_circuit(plan, store, out, jobs, timeout_s, progress)
        simulated = time.monotonic() - started
        v_ref = _run_reference(plan, store, jobs, progress)
    record = _record(plan, main, check, v_ref, warning)
    record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
    record["timing"] = {"circuit_s": round(simulated, 3), "jobs": jobs}
    shutil.copyfile(bundle.path / "network.kcnet", out / NETWORK)
    _write_outputs(out, plan, main, v_ref)
    write_atomic(out / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def _claim(out: Path) -> None:
    """Take ``out`` as the run folder if it is new, empty, or already one; somebody's folder is left alone."""
    if out.exists() and not (out / STORE).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidInputError(
            str(out), [f"exists and has no {STORE}, so it is not a run of ours"], "Name a new folder for --out."
        )


def _bundle(target: str | Path, out: Path, error: float) -> Bundle:
    path = Path(target)
    if path.is_dir():
        return read_bundle(path)
    return export(target, out / "bundle", error=error)


def _run_circuit(
    plan: _Plan, store: Store, out: Path, workers: int, timeout_s: float, progress: Progress
) -> tuple[list[Result], dict[int, Result]]:
    """Results of every sample, and of the samples repeated at half the step (by position)."""
    settings = plan.bundle.settings
    n = len(plan.data)
    main = [plan.job(i, settings, keep=i < _KEPT_WAVEFORMS) for i in range(n)]
    chosen = np.sort(np.random.default_rng(plan.seed).choice(n, size=min(_CHECKED, n), replace=False))
    check = {int(i): plan.job(int(i), settings.halved(), keep=False) for i in chosen}
    planned = [(job, "main") for job in main] + [(job, "half_step") for job in check.values()]
    version = plan.simulator.version()
    store.plan(
        (PlannedRun(job.key, job.sample, variant) for job, variant in planned), plan.simulator.name, version, plan.seed
    )
    # A run that failed before is tried again: what failed it may be mended.
    due = [job for job, _ in planned if store.result(job.key).status is not Status.PASSED]
    if due:
        bench = prepare_bench(plan.bundle, plan.simulator, out / "work", timeout_s)
        with progress.stage(f"{plan.simulator.name}", len(planned)) as advance:
            advance(len(planned) - len(due))

            def finished(key: str, result: Result) -> None:
                store.finish(key, result)
                advance(1)

            run_jobs(bench, due, workers, finished)
    results = [store.result(job.key) for job in main]
    if not any(r.status is Status.PASSED for r in results):
        raise ToolFailedError(f"none of the {n} runs passed; the first: {results[0].message}")
    return results, {i: store.result(job.key) for i, job in check.items()}


def _run_reference(plan: _Plan, store: Store, jobs: int, progress: Progress) -> Floats:
    network_hash = sha256_file(plan.bundle.path / "network.kcnet")
    keys = [sha256_bytes(f"{network_hash} {RTOL} ".encode() + x0.tobytes()) for x0 in plan.x0]
    known = [store.reference(key) for key in keys]
    due = [i for i, v in enumerate(known) if v is None]
    with progress.stage("software reference", len(keys)) as advance:
        advance(len(keys) - len(due))
        if due:
            for i, v in zip(due, final_states(plan.bundle.network, plan.x0[due], jobs, advance), strict=True):
                store.keep_reference(keys[i], v)
                known[i] = v
    return np.stack([v for v in known if v is not None])


def _record(plan: _Plan, main: list[Result], check: dict[int, Result], v_ref: Floats, warning: str) -> dict[str, Any]:
    network, bundle = plan.bundle.network, plan.bundle
    scaling, settings = bundle.circuit.scaling, bundle.settings
    n = len(main)
    passed = np.array([r.status is Status.PASSED for r in main])
    v = np.full_like(v_ref, np.nan)
    for i in np.flatnonzero(passed):
        v[i] = main[i].v_end
    scales = node_scales(network, plan.x0, v_ref)
    errors = compare(network, v[passed], v_ref[passed], scales)
    half = _half_step(network, main, check, scales)

    software, circuit = labels(network, v_ref), np.full(n, -1)
    circuit[passed] = labels(network, v[passed])
    margin = margins(network, v_ref)
    # Two outputs can each be wrong by the error reached, so only a margin above twice that decides.
    reach = 2 * errors.max_rel_readout * float(scales[network.readout[0]])
    decidable = margin > reach
    agree = passed & decidable & (circuit == software)
    differ = passed & decidable & (circuit != software)
    y = plan.data.y
    failed = [
        {"sample": int(plan.data.index[i]), "status": r.status, "message": r.message}
        for i, r in enumerate(main)
        if r.status is not Status.PASSED
    ]
    failed += [
        {"sample": int(plan.data.index[i]), "status": r.status, "message": f"half-step run: {r.message}"}
        for i, r in check.items()
        if r.status is not Status.PASSED
    ]
    decision = np.array([r.decision_s for r in main if r.decision_s is not None])
    kept = bool(errors.max_rel <= settings.error and (half is None or half <= settings.error))
    t_total = bundle.circuit.t_end

    def proportion(hits: NDArray[np.bool_]) -> dict[str, Any]:
        k = int(hits.sum())
        return {"count": k, "n": n, "value": k / n, "wilson95": wilson(k, n)}

    return {
        "summary": {
            "n": n,
            "software_accuracy": None if y is None else float((software == y).mean()),
            "circuit_accuracy": None if y is None else float((circuit == y).mean()),
            "agreement": float(agree.mean()),
            "max_abs_error": errors.max_abs,
            "max_rel_error": errors.max_rel,
            "t_total_s": t_total,
            "f_hz": 1 / t_total,
            "simulator": plan.simulator.name,
            "simulator_version": plan.simulator.version(),
            "openvaf_version": openvaf.version(find_openvaf()),
            "level": bundle.manifest["level"],
            "failed_runs": len(failed),
        },
        "accuracy": None
        if y is None
        else {
            "software": proportion(software == y),
            "circuit": proportion(circuit == y),
        },
        "agreement": proportion(agree)
        | {
            "undecidable": [int(plan.data.index[i]) for i in np.flatnonzero(~decidable)],
            "disagreeing": [int(plan.data.index[i]) for i in np.flatnonzero(differ)],
            "smallest_margin": float(margin.min()),
            "decidable_above": reach,
        },
        "contract": {
            "requested": settings.error,
            "reached": errors.max_rel,
            "kept": kept,
            "steps": settings.steps,
            "max_rel_readout": errors.max_rel_readout,
            "max_rel_other": errors.max_rel_other,
            "max_abs": errors.max_abs,
            "rms_abs": errors.rms_abs,
            "worst_sample": int(plan.data.index[np.flatnonzero(passed)[errors.worst_sample]]),
            "worst_net": bundle.circuit.nets[errors.worst_node],
            "half_step": {"samples": len(check), "estimated_error": half},
            "readout_range": float(scales[network.readout[0]]),
        },
        "decision_s": {
            "median": float(np.median(decision)),
            "p95": float(np.quantile(decision, 0.95)),
            "max": float(decision.max()),
            "n": int(decision.size),
        },
        "run": {
            "simulate_s_per_sample": float(np.mean([r.wall_s for r in main if r.status is Status.PASSED])),
            "peak_mib": max(r.peak_kib for r in main) / 1024,
        },
        "audit": asdict(audit(network, plan.x0, scaling)),
        "scaling": scaling.as_dict(),
        "network": bundle.manifest["network"],
        "data_grid": plan.data.grid,
        "failed": failed,
        "provenance": {
            "kcnet_eda": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "data": plan.data.name,
            "seed": plan.seed,
            "reference": f"DOP853, rtol {RTOL:g}",
            "solver": bundle.manifest["solver"],
            "edited_files": list(bundle.edited),
            "warning": warning,
            "export_warnings": bundle.manifest["warnings"],
            "sha256": {
                "netlist": sha256_file(bundle.netlist(plan.simulator.name)),
                "network": sha256_file(bundle.path / "network.kcnet"),
                "manifest": sha256_file(bundle.path / MANIFEST),
            },
        },
    }


def _half_step(network: Network, main: list[Result], check: dict[int, Result], scales: Floats) -> float | None:
    """The full step's relative error as the half-step runs tell it, by Richardson at order 2; None without pairs."""
    pairs = [
        (full, r.v_end)
        for full, r in ((main[i].v_end, r) for i, r in check.items())
        if full is not None and r.v_end is not None
    ]
    if not pairs:
        return None
    full, half = np.array(pairs).swapaxes(0, 1)
    return compare(network, full, half, scales).max_rel * 4 / 3


def _write_outputs(out: Path, plan: _Plan, main: list[Result], v_ref: Floats) -> None:
    network = plan.bundle.network
    v_end = np.full_like(v_ref, np.nan)  # a run that failed has no voltages, and no label
    label = np.full(len(main), -1)
    for i, result in enumerate(main):
        if result.v_end is not None:
            v_end[i] = result.v_end
            label[i] = labels(network, result.v_end[None])[0]
    arrays: dict[str, Any] = {
        "x0": plan.x0,
        "v_end": v_end,
        "v_end_software": v_ref,
        "label": label,
        "index": plan.data.index,
    }
    if plan.data.y is not None:
        arrays["y"] = plan.data.y
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(out / OUTPUTS, buffer.getvalue())
