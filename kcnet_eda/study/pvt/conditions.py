"""Conditions of a kit, measured: the cell's size classes at each of them, as :class:`EdgeModel`, cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError, ToolFailedError
from kcnet_eda.files import cache_dir, sha256_bytes, write_atomic
from kcnet_eda.physical.calibration import Calibration, pack
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel, FitError, MeasuredCells, fit_model
from kcnet_eda.physical.mismatch import UnitSpread
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.size_classes import model_classes
from kcnet_eda.progress import Progress
from kcnet_eda.study.mos.calibrate import calibrate, pin_currents, supply_currents
from kcnet_eda.study.mos.characterize import cell_lag
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.study.pvt.spread import study_spread
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE
from kcnet_eda.units import format_si

Floats = NDArray[np.float64]

_VERSION = 3  # of what is kept in the cache
_SAME = 1e-6  # of the largest margin: what single precision does not tell apart


@dataclass(frozen=True, order=True)
class Point(Condition):
    """A condition, and σ of each voltage that is written [V] and of the time of reading [s] there."""

    write_error: float = 0.0
    jitter: float = 0.0

    @property
    def condition(self) -> Condition:
        """The condition alone."""
        return Condition(self.corner, self.resistor, self.supply, self.temperature)

    @property
    def name(self) -> str:
        """How tables call it; errors that are 0 are not told."""
        errors = (("write error", self.write_error, "V"), ("jitter", self.jitter, "s"))
        return ", ".join([self.condition.name, *(f"{what} {format_si(v, of)}" for what, v, of in errors if v)])


#: Axes of the grid.
AXES = tuple(f.name for f in fields(Point))


def grid(
    study: PvtStudy,
    kit: Pdk,
    corners: Sequence[str] = (),
    *,
    at_nominal: bool = False,
    full_scale: float = 1.0,
    duration: float = 1.0,
) -> list[Point]:
    """The grid of ``study``; of its corners those that match ``corners`` (globs), if any are given. ``at_nominal``:
    only the kit's own condition, with all errors of writing and reading. Shares of these are of ``full_scale`` [V_u]
    and ``duration`` [T_u].

    A grid of one axis at a time is about the nominal condition without errors, which comes first.

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
    home = Point(**asdict(nominal(kit)))
    axes: dict[str, Sequence[Any]] = {
        "corner": chosen,
        "resistor": resistors,
        "supply": study.volts(kit.operating.supply),
        "temperature": study.temperatures or (home.temperature,),
    }
    if at_nominal:
        axes = {name: (getattr(home, name),) for name in axes}
    axes["write_error"] = study.write_errors(full_scale * kit.operating.v0)
    axes["jitter"] = study.jitters(duration * study.t_unit)
    if study.grid == "full":
        return list(dict.fromkeys(Point(*of) for of in product(*axes.values())))
    return list(dict.fromkeys([home, *(replace(home, **{name: v}) for name, of in axes.items() for v in of)]))


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
    of_points = [c.condition if isinstance(c, Point) else c for c in conditions]
    models = {}
    with progress.stage(f"cells at {len(set(of_points))} conditions", len(set(of_points))) as advance:
        for condition in dict.fromkeys(of_points):
            try:
                models[condition] = _model(rig, home, condition)
            except ToolFailedError as error:
                raise type(error)(f"cells at {condition.name}: {error}") from error
            advance(1)
    return Measured(rig, tuple(models[condition] for condition in of_points), study_spread(study, rig, progress))


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
        a_unit, bias = supply_currents(there, home)
        model = replace(fit_model(*cells_at(rig, home, at)), supply_current=a_unit, bias_current=bias)
        write_atomic(path, json.dumps(asdict(model), allow_nan=False))
    plain: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else FitError(**v) if isinstance(v, dict) else v
        for name, v in json.loads(path.read_text()).items()
    }
    return EdgeModel(**plain)


def inert_axes(points: Sequence[Point], counts: NDArray[Any], margins: Floats) -> list[str]:
    """The axes with several values of which none changes an answer: not one of the ``counts`` [..., points, dies], nor
    a die's margin [points, dies] by more than single precision tells. Dies are the last axis."""
    largest = float(np.abs(margins).max(where=np.isfinite(margins), initial=0.0))

    def alike(one: Any, other: Any) -> bool:
        close = np.isclose(margins[one], margins[other], rtol=0.0, atol=_SAME * largest)
        return bool((counts[..., *one] == counts[..., *other]).all() and close.all())

    found = []
    for axis in AXES:
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, point in enumerate(points):
            rest = tuple(getattr(point, name) for name in AXES if name != axis)
            groups.setdefault(rest, []).append(i)
        pairs = [(group[0], other) for group in groups.values() for other in group[1:]]
        if pairs and all(alike((one, slice(None)), (other, slice(None))) for one, other in pairs):
            found.append(axis)
    if margins.shape[1] > 1 and alike((slice(None), slice(1)), (slice(None), slice(None))):
        found.append("dies")
    return found
