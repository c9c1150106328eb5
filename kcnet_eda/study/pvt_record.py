"""What a study over conditions and dies found, as one record: its ``report.json``."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.physical.condition import Condition, EdgeShift
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.dies import Cells
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
    shifts: Sequence[EdgeShift],
    inert: Sequence[str],
    right: Counts,
    lost: Counts,
    samples: int,
    cells: Cells,
) -> dict[str, Any]:
    """The record; plain JSON values. ``right`` and ``lost`` [conditions, dies] count the samples that are right and
    that did not stay finite."""
    rows = [
        _row(study, condition, shift, right[i], int(lost[i].sum()), samples)
        for i, (condition, shift) in enumerate(zip(conditions, shifts, strict=True))
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
        "network": {"name": cells.network.name, "edges": cells.theta1.size},
        "provenance": {
            "kcnet_eda": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "level": "engine",
            "surrogate": f"RK4 in single precision, {study.steps} steps; edges of Eq. (6) with θ of the condition and "
            "the die; no corner rounding, leakage or lag",
            "cells": NGSPICE.version(),
            "pdk": kit,
            "mismatch": None if study.mismatch is None else study.mismatch.model_dump(),
            "seed": study.seed,
        },
    }


def add_check(record: dict[str, Any], check: dict[str, Any] | None) -> None:
    """Put into ``record`` how the engine compares with the simulator. Where they do not agree, the engine's headline
    numbers are withheld, and no limit counts as kept."""
    record["check"] = check
    if check is not None and not check["kept"]:
        record["summary"] |= dict.fromkeys(_HEADLINE) | {"kept": False}


def _row(
    study: PvtStudy, condition: Condition, shift: EdgeShift, right: Counts, lost: int, samples: int
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
        "gain_min": min(shift.gain),
        "gain_max": max(shift.gain),
        "shift": shift.shift[0],
        "fit_error": shift.fit_error,
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
