"""``kcnet study pvt`` and ``kcnet study mc``: accuracy and yield over conditions and dies, by the fast engine."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.config import load_settings
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import hold_folder, sha256_bytes, sha256_file, write_atomic
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.conditions import grid, inert_axes, measured, nominal
from kcnet_eda.study.dies import Dies, network_cells
from kcnet_eda.study.export_mos import kit_scaling
from kcnet_eda.study.pvt_mos import draw_nominal, transistors
from kcnet_eda.study.pvt_record import add_checks, calibration_text, make_record
from kcnet_eda.study.pvt_repeat import Behavioral, Case, Level, draw_cases, judge
from kcnet_eda.study.pvt_settings import PvtStudy
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, STORE, refuse_foreign, require_fit
from kcnet_eda.study.store import PlannedRun, Result, Status, Store, open_store
from kcnet_eda.tools.simulators import NGSPICE

TABLE, CALIBRATION = "conditions.csv", "calibration.json"
BLOCK = 50  # dies of a row of the store
_ENGINE = "die engine"


@dataclass(frozen=True, eq=False)
class Block:
    """A row of the store: some dies at one condition."""

    key: str
    condition: int
    dies: range


def study_pvt(
    config: Path,
    out: Path,
    *,
    corners: Sequence[str] = (),
    at_nominal: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the study file ``config`` (:class:`PvtStudy`) on as many threads as ``workers``; leave the run in the folder
    ``out`` and return its record (``report.json``). An interrupted run goes on where it stopped.

    ``corners`` restricts the study's corners (globs); ``at_nominal`` replaces its grid by the kit's own condition.

    Raises
    ------
    InvalidInputError
        The study file or what it names cannot be used, or ``out`` is not a run folder.
    KcnetError
        Another process works in ``out``; the kit's models are not here; or the simulator gave no result.
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
    conditions = [nominal(kit)] if at_nominal else grid(study, kit, corners)
    refuse_foreign(out)
    with hold_folder(out), open_store(out / STORE) as store:
        found = measured(study, kit, conditions, progress)
        dies = Dies(cells, found.models, cells.units(found.rig.design), found.spread, study.seed, study.t_unit)
        blocks = _plan(study, sha256_file(source), data, dies)
        rows = [PlannedRun(b.key, b.dies.start, conditions[b.condition].name) for b in blocks]
        store.plan(rows, _ENGINE, __version__, study.seed)
        _run(study, dies, data, blocks, store, workers, progress)
        right, lost = np.zeros((2, len(conditions), study.dies), dtype=np.int64)
        for block in blocks:
            counts = store.result(block.key).v_end
            assert counts is not None  # _run has put it there
            columns = slice(block.dies.start, block.dies.stop)
            right[block.condition, columns], lost[block.condition, columns] = counts.reshape(2, -1)
        inert = inert_axes(conditions, found.models)
        record = make_record(study, kit.name, conditions, dies, inert, right, lost, len(data))
        worst = record["summary"]["worst_index"]
        scaling = kit_scaling(kit, None, study.t_unit)
        cases = draw_cases(study.repeat, study.seed, worst, len(conditions), study.dies, len(data))
        check = _repeat(Behavioral(dies, conditions, scaling), cases, study, data, store, out, progress)
        check_mos = None
        if study.repeat_mos:
            level = transistors(dies, conditions, found.rig, scaling, progress)
            cases = draw_nominal(study.repeat_mos, study.seed, worst, len(conditions), len(data))
            check_mos = _repeat(level, cases, study, data, store, out, progress)
    add_checks(record, check, check_mos)
    record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
    write_atomic(out / CALIBRATION, calibration_text(conditions, dies, nominal(kit)))
    write_atomic(out / TABLE, _csv(record["conditions"]))
    shutil.copyfile(source, out / NETWORK)
    of_dies = io.BytesIO()
    np.savez_compressed(of_dies, right=right, not_finite=lost)
    write_atomic(out / OUTPUTS, of_dies.getvalue())
    write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _plan(study: PvtStudy, network_hash: str, data: DataSet, dies: Dies) -> list[Block]:
    """Every block of dies at every condition. A key is the hash of all that determines the block's counts, so that an
    edited study takes over what still holds."""
    assert data.y is not None
    same = [__version__, network_hash, str(study.seed), repr(dies.spread), str(study.steps), repr(study.t_unit)]
    same.append(repr(dies.units.tolist()))
    of_data = sha256_bytes(data.x.tobytes() + data.y.tobytes())
    found = []
    for number, model in enumerate(dies.models):
        for start in range(0, study.dies, BLOCK):
            block = range(start, min(start + BLOCK, study.dies))
            # The condition's place is in it: conditions that change nothing still are rows of their own.
            words = [*same, of_data, repr(model), repr(block), str(number)]
            found.append(Block(sha256_bytes("\n".join(words).encode()), number, block))
    return found


def _run(
    study: PvtStudy,
    dies: Dies,
    data: DataSet,
    blocks: Sequence[Block],
    store: Store,
    workers: int,
    progress: Progress,
) -> None:
    """Run the blocks that are not done: of each die how many samples are right, and how many are not finite."""
    assert data.y is not None
    due = [block for block in blocks if store.result(block.key).status is not Status.PASSED]
    network = dies.cells.network
    x0 = network.initial_state(data.x)
    with progress.stage("blocks of dies", len(blocks)) as advance:
        advance(len(blocks) - len(due))
        for block in due:
            begun = time.monotonic()
            v = dies.evolve(dies.edges(block.condition, block.dies), x0, study.steps, workers)
            counts = _counts(v, network.readout, data.y)
            store.finish(block.key, Result(Status.PASSED, "", time.monotonic() - begun, 0, counts.ravel()))
            advance(1)


def _repeat(
    level: Level,
    cases: Sequence[Case],
    study: PvtStudy,
    data: DataSet,
    store: Store,
    out: Path,
    progress: Progress,
) -> dict[str, Any] | None:
    """Repeat cases at a level; those in the store that passed are not run again. None: there are none."""
    network = level.dies.cells.network
    x0 = network.initial_state(data.x)
    engine, results = [], []
    with progress.stage(f"cases in ngspice, {level.name}", len(cases)) as advance:
        for case in cases:
            v0 = x0[case.sample]
            v = level.dies.evolve(level.edges(case), v0[None], study.steps, 1)
            engine.append(v[0, :, 0].astype(np.float64))
            key = level.key(case, v0)
            store.plan([PlannedRun(key, case.sample, level.name)], NGSPICE.name, NGSPICE.version(), study.seed)
            if store.result(key).status is not Status.PASSED:
                store.finish(key, level.run(case, v0, out / "repeat" / key[:16]))
            results.append(store.result(key))
            advance(1)
    return judge(level, network.readout, engine, results)


def _counts(v: NDArray[Any], readout: NDArray[np.int32], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Right and not finite samples of each die, [2, dies], of final states ``v`` [dies, nodes, samples]. What is not
    finite is wrong."""
    finite = np.isfinite(v).all(axis=1)
    right = (v[:, readout].argmax(axis=1) == y) & finite
    return np.stack([right.sum(axis=1), (~finite).sum(axis=1)]).astype(np.float64)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Conditions as CSV; an interval as two columns."""
    text = io.StringIO()
    flat = [
        {
            column: value
            for name, of in row.items()
            for column, value in (
                [(f"{name}_low", of[0]), (f"{name}_high", of[1])] if isinstance(of, list) else [(name, of)]
            )
        }
        for row in rows
    ]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
