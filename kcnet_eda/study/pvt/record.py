"""What a study over conditions and dies found, as one record: its ``report.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from kcnet_eda import __version__
from kcnet_eda.dynamics.reference import method
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.sensitivity import sensitivities
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.pvt.conditions import Point, inert_axes
from kcnet_eda.study.pvt.dies import Dies
from kcnet_eda.study.pvt.settings import Bound, Limit
from kcnet_eda.study.pvt.work import SOFTWARE_STEPS, Outcome, Shared
from kcnet_eda.tools.simulators import NGSPICE

_HEADLINE = ("accuracy_min", "yield_min", "yield_everywhere", "yield_everywhere_interval")

_OF_ALL = {"minimum": "the least value", "typical": "the mean", "maximum": "the largest value"}

#: What tells the record of a study over conditions and dies from other runs'.
STUDY = "pvt"


def make_record(shared: Shared, kit: str, data: str, outcome: Outcome) -> dict[str, Any]:
    """The record, of the ``outcome`` of every die at every point on samples of the set ``data``; plain JSON values."""
    study, points, dies, samples = shared.study, shared.points, shared.dies, len(shared.y)
    rows = [_row(shared, i, Outcome(*outcome.arrays[:, i])) for i in range(len(points))]
    worst = worst_of(rows)
    assert worst is not None
    limits = [
        held
        for what, limit, column, unit, sense in (
            ("accuracy", study.limits.accuracy, "accuracy", "", 1),
            ("yield", study.limits.yield_, "yield", "", 1),
            ("agreement", study.limits.agreement, "agreement", "", 1),
            ("margin", study.limits.margin, "margin_v", "V", 1),
            ("latency", study.limits.latency, "latency_s", "s", -1),
            ("energy", study.limits.energy, "energy_j", "J", -1),
        )
        for held in _held(what, limit, [row[column] for row in rows], unit, sense)
    ]
    # A die that works has to work everywhere.
    everywhere = int((outcome.right >= study.limits.die_accuracy * samples).all(axis=0).sum())
    return {
        "study": STUDY,
        "summary": {
            "conditions": len(rows),
            "dies": study.dies,
            "samples": samples,
            "classifications": outcome.right.size * samples,
            "not_finite": int(outcome.not_finite.sum()),
            "worst": rows[worst]["condition"],
            "worst_index": worst,
            "accuracy_min": min(row["accuracy"] for row in rows),
            "yield_min": rows[worst]["yield"],
            "yield_everywhere": everywhere / study.dies,
            "yield_everywhere_interval": list(wilson(everywhere, study.dies)),
            "inert_axes": inert_axes(points, outcome.arrays[:3], outcome.margin),
            "kept": all(limit["kept"] for limit in limits),
        },
        "limits": limits,
        "conditions": rows,
        "network": {"name": dies.cells.network.name, "edges": dies.units.size},
        "provenance": {
            "kcnet_eda": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "level": "engine",
            "surrogate": f"exponential Runge-Kutta of order 4 in single precision, {study.steps} steps; edges as "
            "calibrated at the condition, with the die's mismatch (docs/pvt.md)",
            "reference": method(shared.network),
            "software": f"Eq. (6) as trained, in double precision, {SOFTWARE_STEPS} steps of RK4",
            "write_error": f"each voltage of each {study.write_error_of} by itself",
            "energy": "supply current of cells and bias at the condition, mean over the box, times supply times T",
            "cells": NGSPICE.version(),
            "pdk": kit,
            "data": data,
            "mismatch": None if dies.spread is None else asdict(dies.spread),
            "t_unit_s": study.t_unit,
            "seed": study.seed,
        },
    }


def worst_of(rows: Sequence[dict[str, Any]], besides: Condition | None = None) -> int | None:
    """The number of the worst of a record's conditions, that of least yield, then accuracy, then margin; of those that
    are not ``besides``, whatever the errors there, and None where there is no other."""

    def badness(i: int) -> tuple[float, float, float]:
        margin = rows[i]["margin_v"]
        return rows[i]["yield"], rows[i]["accuracy"], -np.inf if margin is None else margin

    axes = [field.name for field in fields(Condition)]
    of = [
        i for i, row in enumerate(rows) if besides is None or any(row[name] != getattr(besides, name) for name in axes)
    ]
    return min(of, key=badness, default=None)


def checks(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How the engine compares with the simulator, of every kind of repeat that was run, by its key in the record."""
    of_chain = {f"chain.{name}.check": step["check"] for name, step in (record.get("chain") or {}).items()}
    found = {"check": record["check"], "check_mos": record.get("check_mos"), **of_chain}
    return {key: check for key, check in found.items() if check is not None}


def withhold(record: dict[str, Any]) -> None:
    """Where one of the :func:`checks` of ``record`` does not agree, withhold the engine's headline numbers (the
    smallest C of ``record["noise"]`` and all of ``sensitivity`` and ``calibration``): no limit counts as kept then.
    Where the noise's spot checks do not agree, the smallest C alone is withheld."""
    if not all(check["kept"] for check in checks(record).values()):
        record["sensitivity"] = record["calibration"] = None
        record["summary"] |= dict.fromkeys(_HEADLINE) | {"kept": False}
        record["limits"] = [limit | {"kept": False} for limit in record["limits"]]
        if record["noise"] is not None:
            record["noise"]["smallest"] = None
    noise = record["noise"]
    if noise is not None and noise.get("spot") is not None and not noise["spot"]["kept"]:
        noise["smallest"] = None


def calibration_text(points: Sequence[Point], dies: Dies, home: Condition, at_home: EdgeModel | None) -> str:
    """``calibration.json``: the model of the edge at each condition, in the names of ``veriloga/kc_cal_relu.va``; also
    that ``at_home``, where the study used it."""
    of = dict(zip([point.condition for point in points], dies.models, strict=True))
    told = of if at_home is None else {home: at_home} | of
    rows = [{**asdict(condition), "edges": asdict(model)} for condition, model in told.items()]
    whole = {
        "t_unit_s": dies.t_unit,
        "mismatch": None if dies.spread is None else asdict(dies.spread),
        "about": home.name,
        "sensitivities": sensitivities(list(of), list(of.values()), home),
        "conditions": rows,
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _row(shared: Shared, number: int, outcome: Outcome) -> dict[str, Any]:
    """A point's part of the record; ``outcome`` is of its dies, [dies]."""
    point, model, samples = shared.points[number], shared.dies.models[number], len(shared.y)
    right, dies, units = outcome.right, outcome.right.size, shared.dies.units
    good = int((right >= shared.study.limits.die_accuracy * samples).sum())
    of_dies, trials = right / samples, dies * samples
    latency = shared.network.phases[0].duration * shared.study.t_unit
    supply_current = model.supply_current * float(units.sum()) + model.bias_current
    return {
        "condition": point.name,
        **asdict(point),
        "accuracy": float(of_dies.mean()),
        "accuracy_interval": list(wilson(int(right.sum()), trials)),
        "die_min": float(of_dies.min()),
        "die_median": float(np.median(of_dies)),
        "die_max": float(of_dies.max()),
        "yield": good / dies,
        "yield_interval": list(wilson(good, dies)),
        "agreement": float(outcome.agree.sum()) / trials,
        "agreement_interval": list(wilson(int(outcome.agree.sum()), trials)),
        "margin_v": _finite(float(np.median(outcome.margin)) * shared.scaling.v_unit),
        "margin_die_min_v": _finite(float(outcome.margin.min()) * shared.scaling.v_unit),
        "latency_s": latency,
        "supply_current_a": supply_current,
        "energy_j": supply_current * point.supply * latency,
        "not_finite": int(outcome.not_finite.sum()),
        "gain_min": min(model.gain),
        "gain_max": max(model.gain),
        "shift": model.shift[0],
        "rounding": model.rounding,
        "lag_s": model.lag,
        "fit_error": model.error.largest,
        "fit_rms": model.error.rms,
        "plain_fit_error": model.plain_error.largest,
        "departure": model.departure,
    }


def _held(
    what: str, limit: Limit | Bound, values: Sequence[float | None], unit: str, sense: int
) -> list[dict[str, Any]]:
    """Each limit that is asked for: its value, what was found, and whether it was kept; one on what a point does not
    have is not kept. ``sense`` is 1 where more is better, −1 where less is."""
    there = [value for value in values if value is not None]
    least, mean, most = (
        (min(there), float(np.mean(there)), max(there)) if len(there) == len(values) else (None, None, None)
    )
    checks = (
        ("minimum", limit.minimum, least, 1),
        ("typical", limit.typical, mean, sense),
        ("maximum", limit.maximum, most, -1),
    )
    return [
        {
            "of": what,
            "kind": kind,
            "asks": f"{_OF_ALL[kind]} is at {'least' if sign > 0 else 'most'} this",
            "unit": unit,
            "limit": wanted,
            "found": found,
            "kept": found is not None and bool(sign * (found - wanted) >= 0),
        }
        for kind, wanted, found, sign in checks
        if wanted is not None
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
