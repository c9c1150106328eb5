"""``kcnet simulate``: a data set through the circuit and through the software truth, side by side."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError, ToolFailedError
from kcnet_eda.export.bundle import DEFAULT_ERROR, Bundle, choose_settings, export, read_bundle, solve_examples
from kcnet_eda.files import hold_folder, sha256_bytes, write_atomic
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.progress import Advance, NoProgress, Progress
from kcnet_eda.study.batch import Job, run_jobs
from kcnet_eda.study.engine_run import ENGINE, run_in_engine
from kcnet_eda.study.generative import generates
from kcnet_eda.study.legs import expected_mib, prepare_bench
from kcnet_eda.study.plan import Plan, make_plan
from kcnet_eda.study.record import make_record
from kcnet_eda.study.references import reference_states
from kcnet_eda.study.software_steps import SoftwareStep, software_steps
from kcnet_eda.study.store import PlannedRun, Result, Status, Store, open_store
from kcnet_eda.tools.simulators import Simulator, choose

Floats = NDArray[np.float64]

RECORD = "report.json"
REPORT = "report.html"
OUTPUTS = "outputs.npz"
NETWORK = "network.kcnet"
STORE = "study.sqlite"
BUNDLE = "bundle"
#: How node voltages pass from one phase to the next.
HAND_OVERS = ("staged", "gated")
#: So many samples whose label changed are kept with their waveforms, the first of them.
MOST_CHANGED = 12
#: The kind of its runs; studies have their own, in the record's ``study``.
SIMULATE = "simulate"
_TIMEOUT_S = 120.0


def changed_labels(network: Network, v_ref: Floats, results: Sequence[Result]) -> list[int]:
    """Which of the samples have another label in their ``results`` than in their reference final states ``v_ref`` [n,
    nodes]; a run that failed has none."""
    software = labels(network, v_ref)
    ended = [(i, result.v_end) for i, result in enumerate(results) if result.v_end is not None]
    return [i for i, v_end in ended if labels(network, v_end[None])[0] != software[i]]


def command_of(kind: str) -> str:
    """The command that makes runs of a kind."""
    return f"kcnet {kind}" if kind == SIMULATE else f"kcnet study {kind}"


def simulate(
    target: str | Path,
    out: Path,
    *,
    data: str = "digits",
    data_dir: Path | None = None,
    samples: int | None = None,
    seed: int | None = None,
    jobs: int | None = None,
    simulator: str | None = None,
    timeout_s: float = _TIMEOUT_S,
    error: float | None = None,
    hand_over: str = "staged",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run ``samples`` of ``data`` (None: all) through a bundle's circuit and through the software truth; leave the run
    in the folder ``out`` and return its record (``report.json``).

    ``data`` is a name that :func:`kcnet_eda.network.data.load_data` knows; ``data_dir`` has MNIST's files. The samples
    are the first, or, where a ``seed`` is given, drawn by it; it also draws Gaussian samples and those of the half-step
    check. ``target`` is a bundle, or a network file or shipped name, which is exported first (at 1 pF and 1 ps) to
    ``out/bundle``. ``simulator`` is ngspice, vacask or engine (the network in software, by the fast engine). ``error``
    is the relative error asked for (None: the bundle's, or 1e-3). ``jobs`` simulators run at once (None: one a core).
    ``timeout_s`` bounds one sample. An interrupted run goes on where it stopped.

    A network of several phases runs ``staged`` (a netlist a phase, node voltages handed over exactly) or ``gated`` (one
    netlist with phase enables, as hardware does it), as ``hand_over`` says.

    Raises
    ------
    InvalidInputError
        Data do not fit the network, or ``out`` is not a run folder.
    KcnetError
        Another process works in ``out``.
    ToolMissingError, ToolFailedError
        No simulator or compiler; or not a single run passed.
    """
    progress = progress or NoProgress()
    if hand_over not in HAND_OVERS:
        raise InvalidInputError(f"--hand-over {hand_over}", ["is not known"], f"Use {' or '.join(HAND_OVERS)}.")
    jobs = jobs if jobs is not None else os.cpu_count() or 1
    if jobs < 1:
        raise InvalidInputError(f"--jobs {jobs}", ["must be at least 1"])
    if not timeout_s > 0:
        raise InvalidInputError(f"--timeout {timeout_s:g}", ["must be above 0"])
    if seed is not None and seed < 0:
        raise InvalidInputError(f"--seed {seed}", ["must be at least 0"])
    if simulator == ENGINE and hand_over == "gated":
        raise InvalidInputError(
            "--hand-over gated", ["is a netlist with phase enables; the fast engine has none"], "Leave it out."
        )
    given = read_bundle(Path(target)) if Path(target).is_dir() else None
    chosen, warning = _simulator_for(given, simulator)
    network = load_network(network_path(target)) if given is None else given.network
    dataset = load_data(data, data_dir, features=network.inputs.size, seed=seed or 0)
    require_fit(dataset, network)
    dataset = dataset.head(samples) if seed is None else dataset.draw(samples, seed)
    refuse_foreign(out)
    started = time.monotonic()
    with hold_folder(out), open_store(out / STORE) as store:
        if given is None:
            bundle = export(target, out / BUNDLE, error=DEFAULT_ERROR if error is None else error)
        else:
            bundle = _at(given, error)
        gated = hand_over == "gated" and bundle.circuit.sequenced
        plan = make_plan(bundle, chosen, dataset, seed or 0, gated)
        rows = (PlannedRun(job.key, job.sample, variant) for job, variant in plan.runs)
        store.plan(rows, plan.simulator_name, plan.simulator_version, plan.seed)
        reused = len(plan.runs) - len(_due([job for job, _ in plan.runs], store))
        main, check = _run_circuit(plan, store, out, jobs, timeout_s, progress)
        v_ref = reference_states(store, plan.reference_keys, plan.bundle.network, plan.x0, jobs, progress)
        changed: dict[str, Any] | None = None
        waves: dict[int, Result] = {}
        steps: dict[str, SoftwareStep] = {}
        if not generates(dataset):
            changed, waves = _show_changed(plan, store, main, v_ref, out, jobs, timeout_s, progress)
            steps = software_steps(store, plan.bundle.network, plan.bundle.circuit, plan.x0, jobs, progress)
    record = make_record(plan, main, check, v_ref, warning)
    record |= {"changed": changed, "software_steps": {name: step.record for name, step in steps.items()}}
    record["failed"] += [
        {"sample": plan.sample(i), "status": r.status, "message": f"run again for its waveform: {r.message}"}
        for i, r in waves.items()
        if r.status is not Status.PASSED
    ]
    record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
    record["run"] |= {"jobs": jobs, "reused_runs": reused}
    shutil.copyfile(bundle.path / "network.kcnet", out / NETWORK)
    _write_outputs(out, plan, main, v_ref, steps)
    write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _simulator_for(given: Bundle | None, name: str | None) -> tuple[Simulator | None, str]:
    """The simulator to use (None: the fast engine), and a warning or ''; the levels below the behavioural one are in
    ngspice's language."""
    if name == ENGINE and (given is None or ENGINE in given.settings):
        return None, ""
    if given is None or given.circuit.level == "behavioral":
        return choose(name)
    if name not in (None, *given.circuit.simulators):
        raise InvalidInputError(
            f"--simulator {name}",
            [f"cannot run the {given.circuit.level} level of {given.path}"],
            f"Use {' or '.join(given.circuit.simulators)}.",
        )
    return choose(given.circuit.simulators[0])


def require_fit(dataset: DataSet, network: Network) -> None:
    """Raise :class:`InvalidInputError` where the values or labels of ``dataset`` are not those of ``network``."""
    problems = []
    if dataset.x.shape[1] != network.inputs.size:
        problems.append(f"has {dataset.x.shape[1]} values a sample, the network takes {network.inputs.size}")
    outputs = network.readout.size
    if dataset.y is not None and not ((dataset.y >= 0) & (dataset.y < outputs)).all():
        worst = dataset.y[(dataset.y < 0) | (dataset.y >= outputs)][0]
        problems.append(f"has the label {worst}; the network's {outputs} outputs say 0 to {outputs - 1}")
    if problems:
        raise InvalidInputError(f"--data {dataset.name}", problems)


def refuse_foreign(out: Path, study: str = SIMULATE) -> None:
    """Take ``out`` as the run folder of a ``study`` if it is new, empty, or already one; somebody's folder, and a run
    of another kind, is left alone."""
    if out.exists() and not (out / STORE).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidInputError(
            str(out), [f"exists and has no {STORE}, so it is not a run of ours"], "Name a new folder for --out."
        )
    try:
        record = json.loads((out / RECORD).read_text())
    except (OSError, ValueError):
        return  # nothing ended there, or it is damaged, which running it again mends
    before = record.get("study", SIMULATE) if isinstance(record, dict) else study
    if before != study:
        raise InvalidInputError(
            str(out), [f"has a finished run of '{command_of(before)}'"], "Name a new folder for --out."
        )


def _at(bundle: Bundle, error: float | None) -> Bundle:
    """The bundle with solver settings for ``error``; its own where that is None."""
    if error is None or all(s.error == error for s in bundle.settings.values()):
        return bundle
    if bundle.circuit.level == "mos":
        settings = {simulator: replace(s, error=error) for simulator, s in bundle.settings.items()}
    else:
        settings = choose_settings(bundle.network, solve_examples(bundle.network), error)
    return replace(bundle, settings=settings)


def _due(jobs: Iterable[Job], store: Store) -> list[Job]:
    """Those still to do. One that failed before is tried again: what failed it may be mended."""
    return [job for job in jobs if store.result(job.key).status is not Status.PASSED]


def _run_circuit(
    plan: Plan, store: Store, out: Path, workers: int, timeout_s: float, progress: Progress
) -> tuple[list[Result], dict[int, Result]]:
    """Results of every sample, and of the samples repeated at half the step (by position)."""
    due = _due([job for job, _ in plan.runs], store)
    if due:
        for stale in (REPORT, RECORD, OUTPUTS):  # an older run's report must not stand beside a newer run's failure
            (out / stale).unlink(missing_ok=True)
        what, run = _runner(plan, due, out / "work", workers, timeout_s)
        with progress.stage(what, len(plan.runs)) as advance:
            advance(len(plan.runs) - len(due))
            run(_keeper(store, advance))
    results = [store.result(job.key) for job in plan.main]
    if not any(r.status is Status.PASSED for r in results):
        raise ToolFailedError(f"none of the {len(results)} runs passed; the first: {results[0].message}")
    return results, {i: store.result(job.key) for i, job in plan.half_step.items()}


def _keeper(store: Store, advance: Advance) -> Callable[[str, Result], None]:
    """Takes results as they come: into the store, and onto the bar."""

    def finished(key: str, result: Result) -> None:
        store.finish(key, result)
        advance(1)

    return finished


def _runner(
    plan: Plan, due: list[Job], folder: Path, workers: int, timeout_s: float
) -> tuple[str, Callable[[Callable[[str, Result], None]], None]]:
    """What runs the jobs that are ``due`` in ``folder``, in words, and the function that runs them and tells of each as
    it ends."""
    if plan.simulator is None:
        network, scaling = plan.bundle.network, plan.bundle.circuit.scaling
        return "fast engine", lambda done: run_in_engine(network, scaling, due, workers, done)
    bench = prepare_bench(plan.bundle, plan.simulator, folder, plan.gated, timeout_s)
    memory = expected_mib(bench, plan.settings.halved())
    what = f"{plan.simulator.name}, about {memory:.0f} MiB a process"
    example = plan.bundle.example
    if example is not None:
        seconds = example["seconds"]
        what += f" and {seconds:.2g} s a run, {len(due) * seconds / workers:.0f} s in all"
    return what, lambda done: run_jobs(bench, due, workers, done)


def _show_changed(
    plan: Plan,
    store: Store,
    main: list[Result],
    v_ref: Floats,
    out: Path,
    workers: int,
    timeout_s: float,
    progress: Progress,
) -> tuple[dict[str, Any], dict[int, Result]]:
    """See to it that the store has the waveforms of samples whose label is not software's, of at most
    :data:`MOST_CHANGED` of them: those that the run did not keep are run again. The record of it, and the results of
    what was run again, by position."""
    network = plan.bundle.network
    changed = changed_labels(network, v_ref, main)
    again: dict[int, Job] = {}
    shown = changed[:MOST_CHANGED]
    for i in shown:
        if main[i].waveform is None:
            key = sha256_bytes(f"{plan.main[i].key} with its waveform".encode())
            again[i] = replace(plan.main[i], key=key, keep_waveform=True)
    rows = [PlannedRun(job.key, job.sample, "waveform") for job in again.values()]
    store.plan(rows, plan.simulator_name, plan.simulator_version, plan.seed)
    due = _due(again.values(), store)
    if due:
        _, run = _runner(plan, due, out / "work_changed", workers, timeout_s)
        with progress.stage("waveforms of changed labels", len(due)) as advance:
            run(_keeper(store, advance))
    found = [{"position": i, "sample": plan.sample(i), "key": again.get(i, plan.main[i]).key} for i in shown]
    results = {i: store.result(job.key) for i, job in again.items()}
    return {"count": len(changed), "shown": found}, results


def _write_outputs(out: Path, plan: Plan, main: list[Result], v_ref: Floats, steps: dict[str, SoftwareStep]) -> None:
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
    arrays |= {f"v_end_{name}": step.v_end for name, step in steps.items() if step.v_end is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(out / OUTPUTS, buffer.getvalue())
