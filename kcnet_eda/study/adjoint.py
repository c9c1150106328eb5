"""``kcnet study adjoint``: gradients out of the adjoint circuit, held against the differentiated software."""

from __future__ import annotations

import io
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.config import load_settings
from kcnet_eda.dynamics.gradient import STEPS, Gradient, require_one_phase, software_gradient
from kcnet_eda.dynamics.loss import Loss
from kcnet_eda.errors import InvalidInputError, ToolFailedError
from kcnet_eda.export.adjoint import render_adjoint
from kcnet_eda.export.circuit import Circuit, build_circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import ORDERS, SolverSettings
from kcnet_eda.files import hold_folder, sha256_bytes, sha256_file, write_atomic
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.adjoint_record import make_record
from kcnet_eda.study.adjoint_run import AdjointJob, module_files, prepare_adjoint, run_adjoint
from kcnet_eda.study.adjoint_settings import AdjointStudy
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, REPORT, STORE, refuse_foreign, require_fit
from kcnet_eda.study.store import PlannedRun, Status, Store, open_store
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.openvaf import with_includes
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_HALVED = STEPS // 2


@dataclass(frozen=True, eq=False)
class AdjointPlan:
    """Every sample at every step count (``jobs`` [step counts][samples]); ``truth_keys`` are where its gradient by the
    software is stored, at :data:`STEPS` steps and at half as many, by sample. Keys are hashes of all that determines a
    result."""

    study: AdjointStudy
    network: Network
    circuit: Circuit
    data: DataSet
    loss: Loss
    jobs: tuple[tuple[AdjointJob, ...], ...]
    truth_keys: tuple[tuple[str, str], ...]


def study_adjoint(config: Path, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run the study file ``config`` (:class:`kcnet_eda.study.adjoint_settings.AdjointStudy`); leave the run in the
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
    plan = _plan(study, load_network(source), sha256_file(source))
    refuse_foreign(out)
    started = time.monotonic()
    with hold_folder(out), open_store(out / STORE) as store:
        _run_circuits(plan, store, out, progress)
        _run_software(plan, store, progress)
        results = [[store.result(job.key) for job in row] for row in plan.jobs]
        if not any(r.status is Status.PASSED for row in results for r in row):
            raise ToolFailedError(f"none of the runs passed; the first: {results[0][0].message}")
        truths, halved = (
            [_stored(store, keys[i], plan.network) for keys in plan.truth_keys] for i in range(2)
        )
    record = make_record(plan, results, truths, halved)
    record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
    shutil.copyfile(source, out / NETWORK)
    _write_outputs(out, plan, results[-1], truths)
    write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _plan(study: AdjointStudy, network: Network, network_hash: str) -> AdjointPlan:
    require_one_phase(network)
    loss = Loss(study.loss, study.gain)
    data = load_data(study.data, study.data_dir, features=network.inputs.size, seed=study.seed or 0)
    require_fit(data, network)
    data = data.head(study.samples) if study.seed is None else data.draw(study.samples, study.seed)
    if data.y is None and loss.needs_label:
        raise InvalidInputError(
            f"data {data.name}", [f"has no labels, which the loss {study.loss!r} needs"], "Use the loss 'sum'."
        )
    scaling = resolve(c=study.c, v_unit=study.v_unit, t_unit=study.t_unit, v_cm=study.v_cm)
    circuit = build_circuit(network, scaling, ())
    x0 = network.initial_state(data.x)
    labels = np.zeros(len(data), dtype=int) if data.y is None else data.y
    sources = [sha256_file(f) for module in module_files(circuit) for f in with_includes(module)]
    texts = [render_netlist(circuit, circuit.stages[0], NGSPICE.name), render_adjoint(circuit)]
    tools = [__version__, NGSPICE.version(), openvaf.version(find_openvaf())]
    of_circuit = " ".join([*sources, *(sha256_bytes(text.encode()) for text in texts), *tools])

    def key(what: str, i: int) -> str:
        return sha256_bytes(f"{what} {loss} {labels[i]} ".encode() + x0[i].tobytes())

    def job(steps: int, i: int) -> AdjointJob:
        settings = SolverSettings(study.error, steps, ORDERS[NGSPICE.name])
        found = key(f"{of_circuit} {settings}", i)
        return AdjointJob(found, int(data.index[i]), int(labels[i]), x0[i], settings)

    rows = range(len(data))
    truth = f"{__version__} {network_hash}"
    return AdjointPlan(
        study,
        network,
        circuit,
        data,
        loss,
        tuple(tuple(job(steps, i) for i in rows) for steps in study.steps),
        tuple((key(f"{truth} {STEPS}", i), key(f"{truth} {_HALVED}", i)) for i in rows),
    )


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
    bench = prepare_adjoint(plan.network, plan.circuit, plan.loss, out / "work", plan.study.timeout_s)
    with progress.stage("ngspice, forward and adjoint", len(jobs)) as advance:
        advance(len(jobs) - len(due))
        for job in due:
            store.finish(job.key, run_adjoint(bench, job))
            advance(1)


def _run_software(plan: AdjointPlan, store: Store, progress: Progress) -> None:
    """Gradients by the software, at both step counts; those in the store are not made again."""
    with progress.stage("software gradient", len(plan.truth_keys)) as advance:
        for job, keys in zip(plan.jobs[0], plan.truth_keys, strict=True):
            for key, steps in zip(keys, (STEPS, _HALVED), strict=True):
                if store.reference(key) is None:
                    found = software_gradient(plan.network, job.v0, plan.loss, job.label, steps)
                    store.keep_reference(key, found.flat)
            advance(1)


def _stored(store: Store, key: str, network: Network) -> Gradient:
    flat = store.reference(key)
    assert flat is not None  # _run_software has put it there
    return Gradient.of_flat(flat, network.max_nodes)


def _write_outputs(out: Path, plan: AdjointPlan, results: list[Any], truths: list[Gradient]) -> None:
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
