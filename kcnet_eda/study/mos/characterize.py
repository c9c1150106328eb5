"""``kcnet characterize``: what a kit's transistors and the edge cell made of them do at each corner, cached."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.charac_bench import FREQUENCY, render_lag
from kcnet_eda.export.render import render
from kcnet_eda.files import cache_dir, sha256_bytes, sha256_file, write_atomic
from kcnet_eda.physical.calibration import TOLERANCE, Calibration, pack
from kcnet_eda.physical.cell_design import BOX
from kcnet_eda.physical.gmid import THRESHOLD_A, GmIdTable
from kcnet_eda.physical.mos_cell import CellSizes, full_scale
from kcnet_eda.physical.pdk import DeviceKind, load_pdk
from kcnet_eda.physical.size_classes import class_names, size_classes
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.mos.calibrate import calibrate, measure
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.sizing import gmid_deck, gmid_tables, size_cells
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.rawfile import read_ac
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

FORMAT = 1
#: Shares of the full scale at which a cell's lag is measured.
LAG_SHARES = (0.1, 0.5)
_TIMEOUT_S = 600.0


def characterize(
    pdk: str | Path,
    out: Path,
    corners: Sequence[str] = (),
    *,
    models: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tabulate a kit (a shipped name or a YAML file) into the JSON file ``out``, and for reading into Markdown beside
    it; returns what the JSON file holds. Each corner is kept in the cache under the hash of all that determines it.

    ``corners`` are of transistors or resistors; all if none is given. ``models`` is the models' folder, looked for if
    not given.

    Raises
    ------
    InvalidInputError
        The kit's file is wrong or lacks a corner, or ``out`` would be both files at once.
    KcnetError
        The models are not on this machine, or the simulator gave no result.
    """
    progress = progress or NoProgress()
    readable = out.with_suffix(".md")
    if readable == out:
        raise InvalidInputError(str(out), ["is the name of the Markdown beside the table"], "Name it .json.")
    kit = load_pdk(pdk)
    pairs = kit.corner_pairs(corners)
    rig = size_cells(Bench(kit, prepare(kit, models)))
    nominal = calibrate(rig, *size_classes(rig.design), progress)
    tables = {}
    with progress.stage(f"{len(pairs)} corners", len(pairs)) as advance:
        for corner, resistor_corner in pairs:
            name = corner if resistor_corner == "typ" else resistor_corner
            tables[name] = corner_table(replace(rig, corner=corner, resistor_corner=resistor_corner), nominal)
            advance(1)
    record = {
        "format": FORMAT,
        "pdk": kit.name,
        "description": kit.description,
        "kcnet_eda": __version__,
        "simulator": NGSPICE.version(),
        "models": rig.models.origin,
        "models_sha256": rig.models.sha256,
        "pdk_sha256": sha256_file(kit.file),
        "temperature": kit.operating.nominal_temperature,
        "supply": kit.operating.supply,
        "threshold_a": THRESHOLD_A,
        "lag_shares": list(LAG_SHARES),
        "frequency": FREQUENCY,
        "tolerance": TOLERANCE,
        "design": asdict(rig.design),
        "corners": tables,
    }
    write_atomic(out, json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_atomic(readable, render("mos/characterization.md.j2", **record, out=out.name, box=BOX))
    return record


def corner_table(rig: Rig, nominal: Calibration) -> dict[str, Any]:
    """A corner as plain numbers: gm/I_D tables of both ``transistors``, and ``cells`` as calibrated at the nominal
    corner and measured at this one. Values that do not exist are None."""
    key = _key(rig, nominal)
    path = cache_dir() / "mos" / f"characterize-{key}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    at_home = (rig.corner, rig.resistor_corner) == ("tt", "typ")
    cells = nominal if at_home else measure(rig, nominal)
    table = {
        "transistors": {table.kind: _plain(table) for table in gmid_tables(rig)},
        "cells": _cell_rows(rig, cells, cell_lag(rig, nominal)),
    }
    write_atomic(path, json.dumps(table, allow_nan=False))
    return table


def _key(rig: Rig, nominal: Calibration) -> str:
    words = [rig.pdk.model_dump_json(exclude={"file"}), rig.models.sha256, NGSPICE.version()]
    words += [gmid_deck(rig)[0], _lag_deck(rig, nominal)[0], repr(rig.design), str(FORMAT)]
    return sha256_bytes("\n".join(words).encode() + pack(nominal))[:24]


def _lag_points(nominal: Calibration) -> list[tuple[int, float]]:
    """(cell, x) where each sloped cell carries each share of its full scale."""
    points = []
    span = full_scale(nominal.theta1, nominal.theta2)
    for i in np.flatnonzero(nominal.theta1 > 0).tolist():
        for share in LAG_SHARES:
            points.append((i, float((share * span[i] - nominal.theta2[i]) / nominal.theta1[i])))
    return points


def _lag_deck(rig: Rig, nominal: Calibration) -> tuple[str, list[tuple[int, float]]]:
    points = _lag_points(nominal)
    theta = list(zip(nominal.theta1.tolist(), nominal.theta2.tolist(), strict=True))
    deck = render_lag(
        rig.pdk, rig.design, rig.header(), nominal.sizes, theta, points, direct=rig.direct, supply=rig.supply
    )
    return deck, points


def cell_lag(rig: Rig, nominal: Calibration) -> Floats:
    """How far each cell's output currents lag behind v(ip) − v(in), seconds [cells, shares of :data:`LAG_SHARES`, pins
    s and d]: the time constant of the one pole that has this phase at low frequency. NaN for constant cells.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    deck, points = _lag_deck(rig, nominal)
    names = [f"i(v{pin}{i})" for i in range(len(points)) for pin in "sd"]
    moved = rig.run(deck, "lag", _TIMEOUT_S, lambda folder: read_ac(folder / "lag.raw", names))
    lag = np.full((nominal.theta1.size, len(LAG_SHARES), 2), np.nan)
    rows = [cell for cell, _ in points][:: len(LAG_SHARES)]
    lag[rows] = (-moved.imag / moved.real / (2 * np.pi * FREQUENCY)).reshape(len(rows), len(LAG_SHARES), 2)
    return lag


def _plain(table: GmIdTable) -> dict[str, Any]:
    """A table as numbers for JSON, with what is derived from it."""
    arrays = {f.name: getattr(table, f.name) for f in fields(GmIdTable)} | {
        "threshold": table.threshold,
        "f_t": table.f_t,
    }
    return {name: _numbers(value) if isinstance(value, np.ndarray) else value for name, value in arrays.items()}


def _numbers(values: Floats) -> Any:
    """Nested lists of six digits; what is not finite is None."""
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def gmid_table(record: dict[str, Any], corner: str, kind: DeviceKind) -> GmIdTable:
    """A gm/I_D table out of what :func:`characterize` returned or its JSON file holds.

    Raises
    ------
    InvalidInputError
        The record has no such corner, or is no such record.
    """
    try:
        plain = record["corners"][corner]["transistors"][kind]
        names = ("length", "v_gs", "current", "gm_id", "gds_id", "cgg")
        arrays = {name: np.array(plain[name], dtype=float) for name in names}
        return GmIdTable(kind, float(plain["width"]), float(plain["v_ds"]), **arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            "characterization", [f"has no table of {kind} at corner {corner!r}: {error!r}"], "Characterize again."
        ) from None


def _cell_rows(rig: Rig, cells: Calibration, lag: Floats) -> list[dict[str, Any]]:
    names, sizes = class_names(rig.design), cells.sizes
    assert isinstance(sizes, CellSizes)  # size classes are of rectifying cells
    share, rms = cells.share_of_full_scale(cells.max_error), cells.share_of_full_scale(cells.rms_error)
    columns = {
        "theta1": cells.theta1,
        "theta2": cells.theta2,
        "fitted_theta1": cells.fitted1,
        "fitted_theta2": cells.fitted2,
        "max_error_of_full_scale": share,
        "rms_error_of_full_scale": rms,
        "source_sink_mismatch": cells.mismatch,
        "leakage": cells.leakage,
        "source_pin": cells.source_pin,
        "target_pin": cells.target_pin,
        "supply_current": cells.supply_current,
        "resistance": sizes.resistance,
        "source_width": sizes.source_width,
        "sink_length": sizes.sink_length,
    }
    return [
        {"class": name}
        | {key: _number(float(column[i])) for key, column in columns.items()}
        | {"lag_source": _numbers(lag[i, :, 0]), "lag_target": _numbers(lag[i, :, 1])}
        for i, name in enumerate(names)
    ]
