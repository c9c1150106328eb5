"""What a study over conditions and dies found, as one record: its ``report.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.sensitivity import sensitivities
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.dies import Dies
from kcnet_eda.study.pvt_settings import Limit, PvtStudy
from kcnet_eda.tools.simulators import NGSPICE

Counts = NDArray[np.int64]

_HEADLINE = ("accuracy_min", "yield_min", "yield_everywhere", "yield_everywhere_interval")

#: What tells the record of a study over conditions and dies from other runs'.
STUDY = "pvt"


def make_record(
    study: PvtStudy,
    kit: str,
    conditions: Sequence[Condition],
    dies: Dies,
    inert: Sequence[str],
    right: Counts,
    lost: Counts,
    samples: int,
) -> dict[str, Any]:
    """The record; plain JSON values. ``right`` and ``lost`` [conditions, dies] count the samples that are right and
    that did not stay finite."""
    rows = [
        _row(study, condition, model, right[i], int(lost[i].sum()), samples)
        for i, (condition, model) in enumerate(zip(conditions, dies.models, strict=True))
    ]
    worst = min(rows, key=lambda row: (row["yield"], row["accuracy"]))
    limits = [
        *_held("accuracy", study.limits.accuracy, [row["accuracy"] for row in rows]),
        *_held("yield", study.limits.yield_, [row["yield"] for row in rows]),
    ]
    # A die that works has to work everywhere.
    everywhere = int((right >= study.limits.die_accuracy * samples).all(axis=0).sum())
    return {
        "study": STUDY,
        "summary": {
            "conditions": len(rows),
            "dies": study.dies,
            "samples": samples,
            "classifications": right.size * samples,
            "not_finite": int(lost.sum()),
            "worst": worst["condition"],
            "worst_index": rows.index(worst),
            "accuracy_min": min(row["accuracy"] for row in rows),
            "yield_min": worst["yield"],
            "yield_everywhere": everywhere / study.dies,
            "yield_everywhere_interval": list(wilson(everywhere, study.dies)),
            "inert_axes": list(inert),
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
            "cells": NGSPICE.version(),
            "pdk": kit,
            "mismatch": None if dies.spread is None else asdict(dies.spread),
            "t_unit_s": study.t_unit,
            "seed": study.seed,
        },
    }


def add_checks(record: dict[str, Any], check: dict[str, Any] | None, check_mos: dict[str, Any] | None) -> None:
    """Put into ``record`` how the engine compares with the simulator, on calibrated edges and in transistors. Where one
    of them does not agree, the engine's headline numbers are withheld (the smallest C of ``record["noise"]`` and all
    of ``sensitivity`` and ``calibration``), and no limit counts as kept."""
    record["check"], record["check_mos"] = check, check_mos
    if any(done is not None and not done["kept"] for done in (check, check_mos)):
        record["sensitivity"] = record["calibration"] = None
        record["summary"] |= dict.fromkeys(_HEADLINE) | {"kept": False}
        if record["noise"] is not None:
            record["noise"]["smallest"] = None


def calibration_text(conditions: Sequence[Condition], dies: Dies, home: Condition) -> str:
    """``calibration.json``: the model of the edge at each condition, in the names of ``veriloga/kc_cal_relu.va``."""
    rows = [{**asdict(c), "edges": asdict(m)} for c, m in zip(conditions, dies.models, strict=True)]
    whole = {
        "t_unit_s": dies.t_unit,
        "mismatch": None if dies.spread is None else asdict(dies.spread),
        "about": home.name,
        "sensitivities": sensitivities(conditions, dies.models, home),
        "conditions": rows,
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _row(
    study: PvtStudy, condition: Condition, model: EdgeModel, right: Counts, lost: int, samples: int
) -> dict[str, Any]:
    dies = right.size
    good = int((right >= study.limits.die_accuracy * samples).sum())
    of_dies = right / samples
    return {
        "condition": condition.name,
        **asdict(condition),
        "accuracy": float(of_dies.mean()),
        "accuracy_interval": list(wilson(int(right.sum()), dies * samples)),
        "die_min": float(of_dies.min()),
        "die_median": float(np.median(of_dies)),
        "die_max": float(of_dies.max()),
        "yield": good / dies,
        "yield_interval": list(wilson(good, dies)),
        "not_finite": lost,
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


def _held(what: str, limit: Limit, values: Sequence[float]) -> list[dict[str, Any]]:
    """Each limit that is asked for: its value, what was found, and whether it was kept."""
    checks = (
        ("minimum", limit.minimum, min(values), 1),
        ("typical", limit.typical, float(np.mean(values)), 1),
        ("maximum", limit.maximum, max(values), -1),
    )
    return [
        {"of": what, "kind": kind, "limit": wanted, "found": found, "kept": bool(sign * (found - wanted) >= 0)}
        for kind, wanted, found, sign in checks
        if wanted is not None
    ]
