"""Conditions of a kit, measured: the size classes of the cell at each of them, as :class:`EdgeShift`, cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import numpy as np

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import cache_dir, sha256_bytes, write_atomic
from kcnet_eda.physical.calibration import Calibration, pack
from kcnet_eda.physical.condition import Condition, EdgeShift, edge_shift
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.size_classes import size_classes
from kcnet_eda.progress import Progress
from kcnet_eda.study.calibrate import calibrate, measure
from kcnet_eda.study.pvt_settings import PvtStudy
from kcnet_eda.study.rig import Bench, Rig
from kcnet_eda.study.sizing import size_cells
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE

_VERSION = 1  # of what is kept in the cache
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


def measured(study: PvtStudy, kit: Pdk, conditions: Sequence[Condition], progress: Progress) -> list[EdgeShift]:
    """What each condition does to an edge, out of the kit's cells; each is measured once and kept in the cache.

    Raises
    ------
    KcnetError
        The models are not on this machine, or the simulator gave no result.
    """
    rig = size_cells(Bench(kit, prepare(kit, study.models)))
    home = calibrate(rig, *size_classes(rig.design), progress)
    found = []
    with progress.stage(f"cells at {len(conditions)} conditions", len(conditions)) as advance:
        for condition in conditions:
            found.append(_one(rig, home, condition))
            advance(1)
    return found


def _one(rig: Rig, home: Calibration, at: Condition) -> EdgeShift:
    there = replace(rig, corner=at.corner, resistor_corner=at.resistor, supply=at.supply, temperature=at.temperature)
    words = [str(_VERSION), repr(at), there.header(), rig.pdk.model_dump_json(exclude={"file"}), rig.models.sha256]
    key = sha256_bytes("\n".join([*words, repr(rig.design), NGSPICE.version()]).encode() + pack(home))[:24]
    path = cache_dir() / "mos" / f"condition-{key}.json"
    if path.is_file():
        plain: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(path.read_text()).items()
        }
        return EdgeShift(**plain)
    shift = edge_shift(home, measure(there, home))
    write_atomic(path, json.dumps(asdict(shift), allow_nan=False))
    return shift


def inert_axes(conditions: Sequence[Condition], shifts: Sequence[EdgeShift]) -> list[str]:
    """The axes with several values of which none changes any edge."""
    found = []
    for axis in AXES:
        groups: dict[tuple[object, ...], list[EdgeShift]] = {}
        for condition, shift in zip(conditions, shifts, strict=True):
            rest = tuple(getattr(condition, name) for name in AXES if name != axis)
            groups.setdefault(rest, []).append(shift)
        several = len({getattr(condition, axis) for condition in conditions}) > 1
        if several and all(_alike(group[0], other) for group in groups.values() for other in group[1:]):
            found.append(axis)
    return found


def _alike(one: EdgeShift, other: EdgeShift) -> bool:
    return bool(np.array_equal(one.gain, other.gain) and np.array_equal(one.shift, other.shift))
