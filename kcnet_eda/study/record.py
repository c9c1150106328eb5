"""What a study found, as one record: the ``report.json`` that every view of it is made from."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.dynamics.contract import compare, node_scales
from kcnet_eda.dynamics.engine import covered, with_examples
from kcnet_eda.dynamics.reference import method
from kcnet_eda.export.bundle import MANIFEST, Bundle
from kcnet_eda.files import sha256_file
from kcnet_eda.network.graph import Network, labels, margins
from kcnet_eda.physical.audit import audit
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.generative import two_sample
from kcnet_eda.study.plan import Plan
from kcnet_eda.study.store import Result, Status

Floats = NDArray[np.float64]


def make_record(
    plan: Plan, main: list[Result], check: dict[int, Result], v_ref: Floats, warning: str
) -> dict[str, Any]:
    """The record of a study whose runs have ended, at least one of them well; plain JSON values, SI units but for
    names that say otherwise. ``check`` are the half-step runs by position; ``v_ref`` [n, nodes] is the reference."""
    network, bundle = plan.bundle.network, plan.bundle
    scaling, settings = bundle.circuit.scaling, plan.settings
    n = len(main)
    passed = np.array([r.status is Status.PASSED for r in main])
    v = np.full_like(v_ref, np.nan)
    for i in np.flatnonzero(passed):
        v[i] = main[i].v_end
    seen = covered(network, with_examples(network, plan.x0))
    scales = node_scales(network, plan.x0, seen[0])
    errors = compare(network, v[passed], v_ref[passed], scales)
    half = _half_step(network, main, check, scales)

    software, circuit = labels(network, v_ref), np.full(n, -1)
    circuit[passed] = labels(network, v[passed])
    margin = margins(network, v_ref)
    # Two outputs can each be wrong by the error reached, so only a margin above twice that decides.
    # Transistors promise no error bound: there every label counts.
    bounded = bundle.circuit.level != "mos"
    reach = 2 * errors.max_rel_readout * float(scales[network.readout[0]]) if bounded else 0.0
    decidable = margin > reach
    agree = passed & decidable & (circuit == software)
    differ = passed & decidable & (circuit != software)
    y = plan.data.y
    failed = [
        {"sample": plan.sample(int(i)), "status": r.status, "message": r.message}
        for i, r in enumerate(main)
        if r.status is not Status.PASSED
    ]
    failed += [
        {"sample": plan.sample(int(i)), "status": r.status, "message": f"half-step run: {r.message}"}
        for i, r in check.items()
        if r.status is not Status.PASSED
    ]
    decision = np.array([r.decision_s for r in main if r.decision_s is not None])
    kept = bool(errors.max_rel <= settings.error and (half is None or half <= settings.error))
    t_total, line = bundle.circuit.run_time(plan.gated), bundle.circuit.timeline

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
            "simulator": plan.simulator_name,
            "simulator_version": plan.simulator_version,
            "openvaf_version": plan.compiler_version,
            "level": "fast engine" if plan.simulator is None else bundle.manifest["level"],
            "failed_runs": len(failed),
        },
        "accuracy": None
        if y is None
        else {
            "software": proportion(int((software == y).sum()), n),
            "circuit": proportion(int((circuit == y).sum()), n),
        },
        "agreement": proportion(int(agree.sum()), n)
        | {
            "undecidable": [plan.sample(int(i)) for i in np.flatnonzero(~decidable)],
            "disagreeing": [plan.sample(int(i)) for i in np.flatnonzero(differ)],
            "smallest_margin": float(margin.min()) if np.isfinite(margin).all() else None,
            "decidable_above": reach,
        },
        "contract": {
            "requested": settings.error,
            "reached": errors.max_rel,
            "kept": kept if bounded else None,
            "steps": settings.steps,
            "method": settings.method,
            "max_rel_readout": errors.max_rel_readout,
            "max_rel_other": errors.max_rel_other,
            "max_abs": errors.max_abs,
            "rms_abs": errors.rms_abs,
            "worst_sample": plan.sample(int(np.flatnonzero(passed)[errors.worst_sample])),
            "worst_net": bundle.circuit.nets[errors.worst_node],
            "half_step": {"samples": len(check), "estimated_error": half},
            "readout_range": float(scales[network.readout[0]]),
        },
        "node_error": _node_error(network, v[passed], v_ref[passed]),
        "mos": bundle.manifest.get("mos"),
        "outside_range": None if plan.simulator is None else _outside_range(bundle, plan.x0),
        "two_sample": two_sample(network, plan.data, v[passed], v_ref[passed]),
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
        "audit": asdict(audit(network, plan.x0, scaling, seen)),
        "scaling": scaling.as_dict(),
        "network": bundle.manifest["network"]
        | {
            "phases": len(network.phases),
            "devices": bundle.circuit.n_devices,
            "lowering": list(bundle.circuit.passes),
            "hand_over": "gated" if plan.gated else "staged",
        },
        "time": {
            "phases_s": bundle.circuit.t_end,
            "write_s": bundle.write_time,  # before T
            "transfers_s": line.in_windows,  # a staged run hands over without them
            "windows_s": [list(window) for window in line.windows.values()] if plan.gated else [],
        },
        "data_grid": plan.data.grid,
        "shown": next(
            (
                {"position": i, "sample": job.sample, "key": job.key}
                for i, (job, r) in enumerate(zip(plan.main, main, strict=True))
                if r.waveform is not None
            ),
            None,
        ),
        "failed": failed,
        "provenance": {
            "kcnet_eda": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "data": plan.data.name,
            "seed": plan.seed,
            "reference": method(network),
            "solver": settings.as_dict(scaling),
            "edited_files": list(bundle.edited),
            "warning": warning,
            "export_warnings": bundle.manifest["warnings"],
            "sha256": {
                **{path.name: sha256_file(path) for path in plan.netlists},
                "network": sha256_file(bundle.path / "network.kcnet"),
                "manifest": sha256_file(bundle.path / MANIFEST),
            },
        },
    }


def _outside_range(bundle: Bundle, x0: Floats) -> dict[str, Any] | None:
    """Whether nodes leave, in software, the voltage ranges within which dropping edges is exact: how many, and which
    by most [model units]. None where nothing was dropped by range."""
    ranges = bundle.manifest["lowering"]["ranges"]
    if ranges is None:
        return None
    ways, _ = covered(bundle.network, x0)
    beyond = np.zeros(bundle.network.max_nodes)
    for (low, high), seen_low, seen_high in zip(ranges, ways.low, ways.high, strict=True):
        n = len(low)
        beyond[:n] = np.maximum(beyond[:n], np.maximum(low - seen_low[:n], seen_high[:n] - high))
    worst = int(np.argmax(beyond))
    return {"nodes": int((beyond > 0).sum()), "worst_net": bundle.circuit.nets[worst], "by": float(beyond[worst])}


def _node_error(network: Network, v_end: Floats, v_ref: Floats) -> dict[str, float]:
    """The largest node error of a sample at T, in model units: its median and its worst over the samples; and the
    worst at the read-out."""
    error = np.abs(v_end - v_ref)
    worst = error.max(axis=1)
    return {
        "median": float(np.median(worst)),
        "max": float(worst.max()),
        "max_readout": float(error[:, network.readout].max()),
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
