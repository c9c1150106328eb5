"""``kcnet study adjoint``: gradients out of the adjoint circuit, held against the differentiated software."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.config import load_settings
from kcnet_eda.dynamics.loss_gradient import STEPS, Gradient, software_gradient
from kcnet_eda.errors import ToolFailedError
from kcnet_eda.files import hold_folder, sha256_file, write_atomic
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.adjoint.plan import HALVED, AdjointPlan, make_adjoint_plan
from kcnet_eda.study.adjoint.record import STUDY, make_record
from kcnet_eda.study.adjoint.settings import AdjointStudy
from kcnet_eda.study.adjoint.simulate import prepare_adjoint, run_adjoint
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, REPORT, STORE, refuse_foreign
from kcnet_eda.study.store import PlannedRun, Result, Status, Store, open_store
from kcnet_eda.tools.simulators import NGSPICE

#: Where the two circuits lie in a run folder: netlists and devices, and the decks of one sample.
CIRCUIT = "circuit"


def study_adjoint(config: Path, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run the study file ``config`` (:class:`kcnet_eda.study.adjoint.settings.AdjointStudy`); leave the run in the
    folder ``out`` and return its record (``report.json``). An interrupted run goes on where it stopped.

    Raises
    ------
    InvalidInputError
        The study file or what it names cannot be used, or ``out`` is not a run folder.
    KcnetError
        Another process works in ``out``; or the network is unstable for a sample.
    ToolMissingError, ToolFailedError
        No ngspice or compiler; or not a single run passed.
    """
    progress = progress or NoProgress()
    study = load_settings(config, AdjointStudy)
    source = network_path(study.network)
    plan = make_adjoint_plan(study, load_network(source), sha256_file(source))
    refuse_foreign(out, STUDY)
    started = time.monotonic()
    with hold_folder(out), open_store(out / STORE) as store:
        _run_circuits(plan, store, out, progress)
        results = [[store.result(job.key) for job in row] for row in plan.jobs]
        if not any(r.status is Status.PASSED for row in results for r in row):
            raise ToolFailedError(f"none of the runs passed; the first: {results[0][0].message}")
        _run_software(plan, store, progress)
        truths, halved = ([_stored(store, keys[i], plan.network) for keys in plan.truth_keys] for i in range(2))
    record = make_record(plan, results, truths, halved)
    record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
    shutil.copyfile(source, out / NETWORK)
    _write_outputs(out, plan, results[-1], truths)
    write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _run_circuits(plan: AdjointPlan, store: Store, out: Path, progress: Progress) -> None:
    """Run what has not passed yet. What failed before is tried again: what failed it may be mended."""
    jobs = [job for row in plan.jobs for job in row]
    rows = [PlannedRun(job.key, job.sample, f"adjoint_{job.settings.steps}") for job in jobs]
    store.plan(rows, NGSPICE.name, NGSPICE.version(), plan.study.seed or 0)
    due = [job for job in jobs if store.result(job.key).status is not Status.PASSED]
    if not due:
        return
    for stale in (REPORT, RECORD, OUTPUTS):  # an older run's report must not stand beside a newer run's failure
        (out / stale).unlink(missing_ok=True)
    bench = prepare_adjoint(plan.network, plan.circuit, plan.loss, out / CIRCUIT, plan.study.timeout_s)
    with progress.stage("ngspice, forward and adjoint", len(jobs)) as advance:
        advance(len(jobs) - len(due))
        for job in due:
            store.finish(job.key, run_adjoint(bench, job))
            advance(1)


def _run_software(plan: AdjointPlan, store: Store, progress: Progress) -> None:
    """Gradients by the software, at both step counts; those in the store are not made again."""
    with progress.stage("software gradient", len(plan.truth_keys)) as advance:
        for job, keys in zip(plan.jobs[0], plan.truth_keys, strict=True):
            for key, steps in zip(keys, (STEPS, HALVED), strict=True):
                if store.reference(key) is None:
                    found = software_gradient(plan.network, job.v0, plan.loss, job.label, steps)
                    store.keep_reference(key, found.flat)
            advance(1)


def _stored(store: Store, key: str, network: Network) -> Gradient:
    flat = store.reference(key)
    assert flat is not None  # _run_software has put it there
    return Gradient.of_flat(flat, network.max_nodes)


def _write_outputs(out: Path, plan: AdjointPlan, results: list[Result], truths: list[Gradient]) -> None:
    """The gradients at the last step count, NaN where a run failed, and the software's."""
    nodes, nothing = plan.network.max_nodes, np.full(truths[0].flat.size, np.nan)
    found = [Gradient.of_flat(nothing if r.v_end is None else r.v_end, nodes) for r in results]
    arrays: dict[str, Any] = {
        "x0": np.stack([job.v0 for job in plan.jobs[0]]),
        "index": plan.data.index,
        "of_v0": np.stack([g.v0 for g in found]),
        "of_edges": np.stack([g.edges for g in found]),
        "of_v0_software": np.stack([g.v0 for g in truths]),
        "of_edges_software": np.stack([g.edges for g in truths]),
    }
    if plan.data.y is not None:
        arrays["y"] = plan.data.y
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(out / OUTPUTS, buffer.getvalue())
