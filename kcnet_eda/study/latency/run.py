"""``kcnet study latency``: where 1/f holds, where it breaks, and what it costs; every number from runs in the store."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.config import load_settings
from kcnet_eda.dynamics.contract import require_error
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.export.bundle import export
from kcnet_eda.files import hold_folder, write_atomic
from kcnet_eda.network.data import load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.latency.bench import LatencyBench, Row
from kcnet_eda.study.latency.decision import run_decision
from kcnet_eda.study.latency.inference import run_inference
from kcnet_eda.study.latency.physical import read_block, run_physical
from kcnet_eda.study.latency.record import STUDY, TABLES, make_record
from kcnet_eda.study.latency.scaling import run_scaling
from kcnet_eda.study.latency.settings import LatencyStudy
from kcnet_eda.study.latency.size import PUBLISHED, run_size
from kcnet_eda.study.simulate import BUNDLE, NETWORK, OUTPUTS, RECORD, REPORT, STORE, refuse_foreign, require_fit
from kcnet_eda.study.store import Status, Store, open_store
from kcnet_eda.study.tables import csv_text
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.simulators import NGSPICE, SIMULATORS


def study_latency(
    config: Path, out: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the study file ``config`` (:class:`LatencyStudy`); leave the run in the folder ``out`` and return its record
    (``report.json``). ``jobs`` simulators run at once where many samples go through one circuit (None: one a core). An
    interrupted run goes on where it stopped.

    Raises
    ------
    InvalidInputError
        The study file or what it names cannot be used, or ``out`` is not a run folder.
    KcnetError
        Another process works in ``out``, or a kit's models are not here.
    ToolMissingError, ToolFailedError
        No simulator or compiler.
    """
    progress = progress or NoProgress()
    started = time.monotonic()
    study = load_settings(config, LatencyStudy)
    runners = {
        "scaling": (study.scaling, run_scaling),
        "size": (study.size, run_size),
        "decision": (study.decision, run_decision),
        "inference": (study.inference, run_inference),
        "physical": (study.physical, run_physical),
    }
    wanted = {name: (section, run) for name, (section, run) in runners.items() if section is not None}
    if not wanted:
        raise InvalidInputError(
            str(config), ["asks for no section"], f"Give some of {', '.join(runners)}; {{}} will do."
        )
    _require_named(config, study)
    source = network_path(study.network)
    network = load_network(source)
    if network.readout.size < 2 and (study.decision or study.inference):
        raise InvalidInputError(
            str(source), ["has one output, so that there is nothing to decide"], "Leave out decision and inference."
        )
    require_error(network, study.error, f"{config}: error")
    data = load_data(study.data, study.data_dir, features=network.inputs.size, seed=study.seed)
    require_fit(data, network)
    data = data.head(study.samples)
    refuse_foreign(out, STUDY)
    with hold_folder(out), open_store(out / STORE) as store:
        tables = [file for section in TABLES.values() for file, _ in section]
        for stale in (REPORT, RECORD, OUTPUTS, *tables):  # an older run's must not stand beside a newer run's failure
            (out / stale).unlink(missing_ok=True)
        bundle = export(source, out / BUNDLE, c=study.c, t_unit=study.t_unit, v_unit=study.v_unit, error=study.error)
        bench = LatencyBench(study, bundle, data, store, out, jobs or os.cpu_count() or 1, progress)
        found: dict[str, Row] = {}
        for name, (section, run) in wanted.items():
            found[name] = run(bench, section)  # type: ignore[operator]
        record = make_record(bench, found)
        record["summary"]["wall_s"] = round(time.monotonic() - started, 3)
        shutil.copyfile(source, out / NETWORK)
        arrays = io.BytesIO()
        shown = _shown_waveform(store, found["inference"]) if "inference" in found else {}
        np.savez_compressed(arrays, x0=bench.x0, v_end_software=bench.v_ref, index=data.index, **shown)
        write_atomic(out / OUTPUTS, arrays.getvalue())
        for name, section_found in found.items():
            for file, rows in TABLES[name]:
                if section_found.get(rows):
                    write_atomic(out / file, csv_text(section_found[rows]))
        write_atomic(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
        if not record["failed"]:  # whose messages name their logs there
            shutil.rmtree(out / "work", ignore_errors=True)
    return record


def _require_named(config: Path, study: LatencyStudy) -> None:
    """Raise with all that the study file names and is not here, before hours of the first sections are spent. Published
    networks are not asked for: a machine without them still runs the rest, and the report says which are absent."""
    asked: list[tuple[str, Callable[[], object]]] = [("compiler", find_openvaf)]
    for i, block in enumerate(study.physical or ()):
        asked.append((f"physical.{i}", partial(read_block, block, study)))
    simulators: set[str] = set(study.scaling.simulators) if study.scaling is not None else set()
    if study.size is not None:
        for name in study.size.networks:
            if not name.startswith(PUBLISHED):
                asked.append(("size.networks", partial(lambda of: load_network(network_path(of)), name)))
    if study.decision or study.physical:
        simulators.add(NGSPICE.name)
    asked += [(f"simulator {name}", SIMULATORS[name].version) for name in sorted(simulators)]
    problems = []
    for where, use in asked:
        try:
            use()
        except KcnetError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            if isinstance(error, InvalidInputError) and len(error.problems) > 1:  # of a network, a thousand edges
                lines = [f"{error.where}: {len(error.problems)} problems, the first: {error.problems[0]}"]
            problems.append(f"{where}: {'; '.join(lines)}")
    if problems:
        raise InvalidInputError(str(config), problems)


def _shown_waveform(store: Store, inference: Row) -> dict[str, Any]:
    """The waveforms of the first whole inference that passed, for the report: seconds, volts of outputs and holds."""
    key = next((row["key"] for row in inference["samples"] if row["status"] == Status.PASSED), None)
    waveform = None if key is None else store.result(key).waveform
    return {} if waveform is None else {"inference_time": waveform[0], "inference_volts": waveform[1]}
