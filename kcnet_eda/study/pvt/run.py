"""``kcnet study pvt`` and ``kcnet study mc``: accuracy and yield over conditions and dies, by the fast engine."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.config import load_settings
from kcnet_eda.dynamics.engine import evolve
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import hold_folder, sha256_bytes, sha256_file, write_atomic
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import labels
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.campaign.failures import failures
from kcnet_eda.study.campaign.farm import make_farm
from kcnet_eda.study.campaign.ladder import ladder
from kcnet_eda.study.campaign.runs_table import RUNS_CSV, RUNS_PARQUET, write_runs
from kcnet_eda.study.mos.export import calibrated_circuit, kit_scaling
from kcnet_eda.study.pvt.chain import CALIBRATED, WORST, ChainStep, chain_arrays, chain_steps
from kcnet_eda.study.pvt.conditions import grid, measured, nominal
from kcnet_eda.study.pvt.dies import NOMINAL, Dies, network_cells
from kcnet_eda.study.pvt.mos import draw_nominal, transistors
from kcnet_eda.study.pvt.noise import NoiseRun, NoiseStudy, noise_on_worker, noise_record, run_noise
from kcnet_eda.study.pvt.noise_spot import SpotChecks, SpotRun, spot_on_worker, spot_record
from kcnet_eda.study.pvt.record import STUDY, calibration_text, make_record, withhold, worst_of
from kcnet_eda.study.pvt.remedies import (
    Due,
    Fitting,
    Place,
    Remedies,
    fitting,
    remedies,
    run_step,
    samples_to_fit,
    step_on_worker,
)
from kcnet_eda.study.pvt.repeat import Behavioral, Case, Level, draw_cases, judge
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.study.pvt.site import Site
from kcnet_eda.study.pvt.work import (
    SOFTWARE_STEPS,
    Block,
    Outcome,
    Repeat,
    Shared,
    block_on_worker,
    case_on_worker,
    run_block,
)
from kcnet_eda.study.references import reference_keys, reference_states
from kcnet_eda.study.simulate import (
    NETWORK,
    OUTPUTS,
    RECORD,
    REPORT,
    STORE,
    changed_labels,
    refuse_foreign,
    require_fit,
)
from kcnet_eda.study.store import PlannedRun, Result, open_store
from kcnet_eda.study.tables import csv_text
from kcnet_eda.tools.simulators import NGSPICE
from kcnet_eda.units import format_si

TABLE, CALIBRATION, SENSITIVITY = "conditions.csv", "calibration.json", "sensitivity.csv"
BLOCK = 50  # dies of a row of the store
_ENGINE = "die engine"
_LEVELS = {
    **dict.fromkeys(("block", "noise", "remedy"), "engine"),
    **dict.fromkeys(("behavioral", "spot", CALIBRATED), "behavioral"),
    **dict.fromkeys(("mos", WORST), "mos"),
}


def study_pvt(
    config: Path,
    out: Path,
    *,
    corners: Sequence[str] = (),
    at_nominal: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the study file ``config`` (:class:`PvtStudy`); leave the run in the folder ``out`` and return its record
    (``report.json``). An interrupted run goes on where it stopped.

    It runs on this machine, in as many threads or processes as ``workers``; at the dask ``scheduler`` of an address; or
    as jobs of the batch system ``cluster`` (slurm, lsf), as the file's ``cluster:`` says.

    ``corners`` restricts the study's corners (globs); ``at_nominal`` replaces its grid by the kit's own condition.

    Raises
    ------
    InvalidInputError
        The study file or what it names cannot be used, or ``out`` is not a run folder.
    KcnetError
        Another process works in ``out``; the kit's models are not here; the simulator gave no result for a cell; or
        the workers are lost.
    """
    progress = progress or NoProgress()
    started = time.monotonic()
    study = load_settings(config, PvtStudy)
    kit = load_pdk(study.pdk)
    source = network_path(study.network)
    cells = network_cells(load_network(source))
    data = load_data(study.data, study.data_dir, features=cells.network.inputs.size, seed=study.seed)
    require_fit(data, cells.network)
    data = data.head(study.samples)
    if data.y is None:
        raise InvalidInputError(f"data {data.name}", ["has no labels to be right about"], "Use labelled data.")
    to_fit = samples_to_fit(study, data, cells.network)
    x0, duration = cells.network.initial_state(data.x), cells.network.phases[0].duration
    points = grid(study, kit, corners, at_nominal=at_nominal, full_scale=float(np.ptp(x0)), duration=duration)
    farm = make_farm(study.cluster, workers, scheduler, cluster)
    refuse_foreign(out, STUDY)
    with hold_folder(out), open_store(out / STORE) as store:
        for stale in (REPORT, RECORD, OUTPUTS, TABLE, CALIBRATION, SENSITIVITY, RUNS_CSV, RUNS_PARQUET):
            (out / stale).unlink(missing_ok=True)  # of an older run: it must not stand beside this one unfinished
        site = Site(out, store, farm, progress)
        found, home = measured(study, kit, points, progress), nominal(kit)
        dies = Dies(cells, found.models, cells.units(found.rig.design), found.spread, study.seed, study.t_unit)
        scaling = kit_scaling(kit, None, study.t_unit)
        truth = evolve(cells.network, x0, steps=SOFTWARE_STEPS, dtype=np.float64, threads=1).v_end
        shared = Shared(study, dies, points, scaling, x0, data.y, labels(cells.network, truth))
        same = "\n".join([__version__, sha256_file(source), sha256_bytes(x0.tobytes() + data.y.tobytes())])
        blocks = _plan(shared, same)
        rows = [
            PlannedRun(key, b.dies.start, "block", points[b.condition].name, f"{b.dies.start}-{b.dies.stop - 1}")
            for key, b in blocks.items()
        ]
        asked = any(samples is not None for samples in to_fit)
        needs_home = asked or study.noise is not None or study.chain > 0
        at_home = measured(study, kit, [home], progress).models[0] if needs_home else None
        noise, noise_runs = None, dict[str, NoiseRun]()
        if study.noise is not None and at_home is not None:
            noise = NoiseStudy(shared, study.noise, kit, home, at_home)
            noise_runs = {noise.key(run, same): run for run in noise.runs}
            rows += [PlannedRun(key, 0, "noise", f"{home.name}, {r.name}", "nominal") for key, r in noise_runs.items()]
        store.forget_plan()
        store.plan_in_order(rows, _ENGINE, __version__, study.seed)
        spot, spot_runs = None, dict[str, SpotRun]()
        if noise is not None and noise.settings.spot_checks:
            spot = SpotChecks(noise, NGSPICE.version())
            spot_runs = {spot.key(run): run for run in spot.runs}
            what = f"{home.name}, transient noise, C {format_si(spot.c, 'F')}"
            rows = [PlannedRun(key, run.sample, "spot", what, "nominal") for key, run in spot_runs.items()]
            store.plan_in_order(rows, NGSPICE.name, spot.simulator_version, study.seed)
        whole = partial(run_block, shared, threads=farm.workers)  # a block's dies in threads, one block after the other
        site.in_engine(blocks, shared, block_on_worker, lambda due: map(whole, due), "blocks of dies")
        outcome = Outcome.zeros(len(points), study.dies)
        for key, block in blocks.items():
            outcome.put(block, site.numbers(key))
        record = make_record(shared, kit.name, data.name, outcome)
        worst = record["summary"]["worst_index"]
        right, lost, agree = outcome.arrays[:3].astype(np.int64)
        arrays = {"right": right, "not_finite": lost, "agree": agree, "margin": outcome.margin}
        cases = draw_cases(study.repeat, study.seed, worst, len(points), study.dies, len(data))
        results = _repeat(shared, Behavioral(dies, points, scaling), cases, site)
        arrays |= _of_cases("case", cases, results, cells.network.max_nodes)
        record |= {"check": results.check, "check_mos": None, "chain": None}
        record |= {"scaling": scaling.as_dict(), "data_grid": data.grid}
        if study.repeat_mos or study.chain:
            level = transistors(dies, points, found.rig, study.models, scaling, progress)
        if study.repeat_mos:
            cases = draw_nominal(study.repeat_mos, study.seed, worst, len(points), len(data))
            results = _repeat(shared, level, cases, site)
            arrays |= _of_cases("case_mos", cases, results, cells.network.max_nodes)
            record["check_mos"] = results.check
        if study.chain and at_home is not None:
            elsewhere = worst_of(record["conditions"], besides=home)
            steps = chain_steps(shared, level, home, at_home, elsewhere)
            record["chain"], of_chain = _chain(shared, steps, data, source, site)
            arrays |= of_chain
        record["noise"] = None
        if noise is not None:
            mos = calibrated_circuit(cells.network, found.rig, scaling, progress)
            with ThreadPoolExecutor(farm.workers) as pool:
                here = partial(pool.map, partial(run_noise, noise))
                site.in_engine(noise_runs, noise, noise_on_worker, here, "noise against C")
            record["noise"] = noise_record(noise, {run: store.result(key) for key, run in noise_runs.items()}, mos)
            record["noise"]["spot"] = None
        if spot is not None:
            site.in_ngspice(spot_runs, spot_on_worker, spot, "spot checks of noise in ngspice")
            record["noise"]["spot"] = spot_record(spot, {run: store.result(key) for key, run in spot_runs.items()})
        found_remedies = None
        if asked and at_home is not None:
            of = fitting(
                shared, to_fit, Place(home, at_home), Place(points[worst].condition, shared.dies.models[worst])
            )
            found_remedies = _remedies(of, same, site)
        write_runs(store, out, _LEVELS)
        record["failures"] = failures(store.planned(), _LEVELS)
    record["sensitivity"] = record["calibration"] = None
    if found_remedies is not None:
        record |= {"sensitivity": found_remedies.sensitivity, "calibration": found_remedies.calibration}
        arrays |= found_remedies.arrays
        if found_remedies.sensitivity is not None:
            write_atomic(out / SENSITIVITY, csv_text(found_remedies.sensitivity["edges"]))
    withhold(record)
    record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
    write_atomic(out / CALIBRATION, calibration_text(points, dies, home, at_home))
    write_atomic(out / TABLE, csv_text(record["conditions"]))
    shutil.copyfile(source, out / NETWORK)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write_atomic(out / OUTPUTS, packed.getvalue())
    write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _remedies(of: Fitting, same: str, site: Site) -> Remedies:
    """What the study's ``sensitivity`` and ``calibration`` ask for, without errors of writing and reading; ``same`` as
    in :func:`_plan`."""
    site.store.plan_in_order(list(of.planned(same).values()), _ENGINE, __version__, of.shared.study.seed)
    whole = partial(run_step, of, threads=site.farm.workers)

    def run(due: Sequence[Due], what: str) -> list[NDArray[np.float64]]:
        items = {of.key(one.step, same): one for one in due}
        site.in_engine(items, of, step_on_worker, lambda left: map(whole, left), what)
        return [site.numbers(key) for key in items]

    return remedies(of, run)


def _chain(
    shared: Shared, steps: Mapping[str, ChainStep], data: DataSet, source: Path, site: Site
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Run the study's ``steps`` of the reconciliation chain, for its record and outputs; ``source`` is the network's
    file. Samples whose label changed are run again, the first of them, for their waveforms."""
    x0 = shared.x0[: shared.study.chain]
    keys = reference_keys(source, shared.network, x0)
    truth = reference_states(site.store, keys, shared.network, x0, site.farm.workers, site.progress)
    found, records = {}, {}
    for name, step in steps.items():
        repeated = _repeat(shared, step.level, step.cases, site)
        found[name] = repeated.results
        changed = changed_labels(shared.network, truth, repeated.results)
        watched = step.watched(changed)
        kept = _repeat(shared, watched.level, watched.cases, site).keys
        shown = [
            {"position": i, "sample": int(data.index[i]), "key": key} for i, key in zip(changed, kept, strict=False)
        ]
        records[name] = step.record(shared) | {
            "simulator": NGSPICE.version(),
            "check": repeated.check,
            "changed": {"count": len(changed), "shown": shown},
        }
    return records, chain_arrays(shared, data, truth, found)


def _plan(shared: Shared, same: str) -> dict[str, Block]:
    """Every block of dies at every point, by key. A key is the hash of all that determines the block's outcome, so
    that an edited study takes over what still holds; ``same`` tells the network and the samples."""
    study, dies = shared.study, shared.dies
    words = [same, str(study.seed), repr(dies.spread), str(study.steps), repr(study.t_unit), repr(shared.scaling)]
    words += [repr(dies.units.tolist()), repr([f.name for f in fields(Outcome)]), study.write_error_of]
    found = {}
    for number, (point, model) in enumerate(zip(shared.points, dies.models, strict=True)):
        for start in range(0, study.dies, BLOCK):
            block = range(start, min(start + BLOCK, study.dies))
            # The point is in it: those that change nothing still are rows of their own.
            key = sha256_bytes("\n".join([*words, repr(model), repr(block), repr(point)]).encode())
            found[key] = Block(number, block)
    return found


@dataclass(frozen=True, eq=False)
class _Repeated:
    """Keys and results of cases in their order, and how the engine compares with them; None: no case was asked for."""

    keys: list[str]
    results: list[Result]
    check: dict[str, Any] | None


def _repeat(shared: Shared, level: Level, cases: Sequence[Case], site: Site) -> _Repeated:
    """Repeat cases in ngspice at a level; those in the store that passed are not run again."""
    if not cases:
        return _Repeated([], [], None)
    by_key = {_case_key(shared, level, case): case for case in cases}
    names = [condition.name for condition in level.conditions]
    rows = [
        PlannedRun(key, c.sample, level.name, names[c.condition], "nominal" if c.die == NOMINAL else str(c.die))
        for key, c in by_key.items()
    ]
    version = NGSPICE.version()
    site.store.plan_in_order(rows, NGSPICE.name, version, shared.study.seed)
    what = f"cases in ngspice, {level.name}"
    site.in_ngspice(by_key, case_on_worker, Repeat(shared, level, version), what)
    results = [site.store.result(key) for key in by_key]
    engine = [shared.engine(level, case, shared.study.steps) for case in cases]
    return _Repeated(list(by_key), results, judge(level, shared.network.readout, engine, results))


def _case_key(shared: Shared, level: Level, case: Case) -> str:
    """The hash of all that determines a case, its label and the ladder included, and of what it is run for and keeps:
    two rows of the plan are not one."""
    words = [
        level.name,
        level.key(case, shared.v0(case)),
        str(int(shared.y[case.sample])),
        repr(ladder(level.settings)),
    ]
    if level.outputs_at is not None:
        words.append(repr(level.outputs_at.tolist()))
    return sha256_bytes("\n".join(words).encode())


def _of_cases(name: str, cases: Sequence[Case], repeated: _Repeated, nodes: int) -> dict[str, NDArray[Any]]:
    """The cases (condition, die, sample) [cases, 3] and ngspice's final states [cases, nodes]; NaN where it failed."""
    v_end = np.full((len(cases), nodes), np.nan)
    for i, result in enumerate(repeated.results):
        if result.v_end is not None:
            v_end[i] = result.v_end
    of = np.array([(c.condition, c.die, c.sample) for c in cases], dtype=np.int64).reshape(-1, 3)
    return {name: of, f"{name}_v_end": v_end}
