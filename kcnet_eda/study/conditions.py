"""Conditions of a kit, measured: the cell's size classes at each of them, as :class:`EdgeModel`, cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import cache_dir, sha256_bytes, write_atomic
from kcnet_eda.physical.calibration import Calibration, pack
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import ADDED, EdgeModel, FitError, MeasuredCells, fit_model
from kcnet_eda.physical.mismatch import UnitSpread
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.size_classes import model_classes
from kcnet_eda.progress import Progress
from kcnet_eda.study.calibrate import calibrate, pin_currents
from kcnet_eda.study.characterize import cell_lag
from kcnet_eda.study.pvt_settings import PvtStudy
from kcnet_eda.study.rig import Bench, Rig
from kcnet_eda.study.sizing import size_cells
from kcnet_eda.study.spread import study_spread
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_VERSION = 2  # of what is kept in the cache
#: Axes of the grid, as :class:`Condition` names them.
AXES = ("corner", "resistor", "supply", "temperature")


def grid(study: PvtStudy, kit: Pdk, corners: Sequence[str] = ()) -> list[Condition]:
    """The full grid of ``study``; of its corners those that match ``corners`` (globs), if any are given.

    Raises
    ------
    InvalidInputError
        A name or pattern matches no corner of the kit; all of these are listed.
    """
    problems: list[str] = []
    chosen = _match("corner", study.corners, list(kit.corners), problems)
    if corners:
        chosen = _match("corner among the study's", corners, chosen, problems)
    resistors = _match("resistor corner", study.resistors, list(kit.resistor_corners), problems)
    if problems:
        there = f"transistors have {', '.join(kit.corners)}, resistors {', '.join(kit.resistor_corners)}"
        raise InvalidInputError(str(kit.file), problems, f"The {there}.")
    supplies = dict.fromkeys(study.volts(kit.operating.supply))
    temperatures = dict.fromkeys(study.temperatures or (kit.operating.nominal_temperature,))
    return [Condition(*of) for of in product(chosen, resistors, supplies, temperatures)]


def nominal(kit: Pdk) -> Condition:
    """The kit's own condition."""
    return Condition("tt", "typ", kit.operating.supply, kit.operating.nominal_temperature)


def _match(what: str, patterns: Sequence[str], names: Sequence[str], problems: list[str]) -> list[str]:
    problems += [f"has no {what} {p!r}" for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


@dataclass(frozen=True, eq=False)
class Measured:
    """Cells of a kit: where they were calibrated, their model at each condition, and the spread of the dies."""

    rig: Rig
    models: tuple[EdgeModel, ...]
    spread: UnitSpread | None


def measured(study: PvtStudy, kit: Pdk, conditions: Sequence[Condition], progress: Progress) -> Measured:
    """What each condition does to an edge, out of the kit's cells, and the study's mismatch, out of the kit's own
    statistics where the study asks for them; each is measured once and kept in the cache.

    Raises
    ------
    InvalidInputError
        The study asks for statistics that the kit lacks.
    KcnetError
        The models are not on this machine, or the simulator gave no result.
    """
    if study.mismatch == "kit" and kit.mismatch is None:
        raise InvalidInputError(str(kit.file), ["has no key 'mismatch'"], "State the study's mismatch in σ, or null.")
    rig = size_cells(Bench(kit, prepare(kit, study.models)))
    home = calibrate(rig, *model_classes(rig.design), progress)
    models = []
    with progress.stage(f"cells at {len(conditions)} conditions", len(conditions)) as advance:
        for condition in conditions:
            models.append(_model(rig, home, condition))
            advance(1)
    return Measured(rig, tuple(models), study_spread(study, rig, progress))


def at_condition(rig: Rig, at: Condition) -> Rig:
    """The rig at a condition."""
    return replace(rig, corner=at.corner, resistor_corner=at.resistor, supply=at.supply, temperature=at.temperature)


def cells_at(rig: Rig, home: Calibration, at: Condition) -> tuple[MeasuredCells, Floats]:
    """Calibrated cells measured at a condition: currents, and lags [s]."""
    there = at_condition(rig, at)
    return pin_currents(there, home), cell_lag(there, home)


def _model(rig: Rig, home: Calibration, at: Condition) -> EdgeModel:
    there = at_condition(rig, at)
    words = [str(_VERSION), repr(at), there.header(), rig.pdk.model_dump_json(exclude={"file"}), rig.models.sha256]
    key = sha256_bytes("\n".join([*words, repr(rig.design), NGSPICE.version()]).encode() + pack(home))[:24]
    path = cache_dir() / "mos" / f"condition-{key}.json"
    if not path.is_file():
        write_atomic(path, json.dumps(asdict(fit_model(*cells_at(rig, home, at))), allow_nan=False))
    plain: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else FitError(**v) if isinstance(v, dict) else v
        for name, v in json.loads(path.read_text()).items()
    }
    return EdgeModel(**plain)


def inert_axes(conditions: Sequence[Condition], models: Sequence[EdgeModel]) -> list[str]:
    """The axes with several values of which none changes any edge's currents."""
    found = []
    for axis in AXES:
        groups: dict[tuple[object, ...], list[EdgeModel]] = {}
        for condition, model in zip(conditions, models, strict=True):
            rest = tuple(getattr(condition, name) for name in AXES if name != axis)
            groups.setdefault(rest, []).append(model)
        several = len({getattr(condition, axis) for condition in conditions}) > 1
        if several and all(_alike(group[0], other) for group in groups.values() for other in group[1:]):
            found.append(axis)
    return found


def _alike(one: EdgeModel, other: EdgeModel) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("gain", "shift", *ADDED))
