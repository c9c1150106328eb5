"""Edge cells measured in ngspice and corrected until each has the θ that it was asked for: a closed loop, cached."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import BadDataError
from kcnet_eda.export.mos_bench import PIN_FREQUENCY, render_calibration
from kcnet_eda.files import cache_dir, sha256_bytes, write_atomic
from kcnet_eda.physical.calibration import TOLERANCE, Calibration, pack, unpack
from kcnet_eda.physical.cell_design import BOX
from kcnet_eda.physical.cell_kind import RELU_CELL, CellKind, Sizes, drawn_sign
from kcnet_eda.physical.edge_model import MeasuredCells
from kcnet_eda.physical.relu_fit import box_points
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.mos.rig import Rig
from kcnet_eda.tools.rawfile import read_ac, read_sweep
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_VERSION = 7  # of what the loop and its fit do: results of another are not taken from the cache
_AIM = 0.0015  # of full scale, what θ1 and θ2 are off at the box's edge: corrections stop here
_RATIO_AIM = 0.003  # likewise of the two ends' currents; the sink's length has steps of 0.4 %
_PASSES = 9
_POINTS, _CHECK_POINTS = (81, 3), (81, 9)
_LARGEST_DECK = 40  # cells: where one does not converge at once, ngspice steps gmin for all of a deck
_DEAD = 0.4  # of what a cell's law gives: less at every x of a row is no solution that a cell has in silicon
_TIMEOUT_S = 900.0
_LARGEST_STEP = 0.5  # of θ, in one correction
_SMALLEST_MOVE = 2e-4  # of θ: smaller moves say nothing about a slope


@dataclass(frozen=True, eq=False)
class _Measured:
    """Currents out of s and into d in I_u [cells, points], all supply current [A, points], and pin capacitances."""

    source: Floats
    sink: Floats
    supply: Floats
    source_pin: Floats
    target_pin: Floats


def calibrate(rig: Rig, theta1: Floats, theta2: Floats, progress: Progress | None = None) -> Calibration:
    """Size, measure and correct a rectifying cell for each (θ1, θ2) of those that can be built
    (:func:`kcnet_eda.physical.mos_cell.range_problems`); as :func:`calibrate_kind`."""
    return calibrate_kind(rig, RELU_CELL, np.stack([theta1, theta2, np.ones(len(theta1))], axis=1), progress)


def calibrate_kind(rig: Rig, kind: CellKind, theta: Floats, progress: Progress | None = None) -> Calibration:
    """Size, measure and correct a cell of a ``kind`` for each row of ``theta`` [cells, 3].

    A result is kept in the cache under the hash of all that determines it: kit, models, simulator, cell, θ.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    progress = progress or NoProgress()
    path = cache_dir() / "mos" / f"calibration-{_key(rig, kind, theta)}.npz"
    if path.is_file():
        return unpack(path.read_bytes())
    done = _closed_loop(rig, kind, np.asarray(theta, float), progress)
    write_atomic(path, pack(done))
    return done


def _key(rig: Rig, kind: CellKind, theta: Floats) -> str:
    deck = _deck(rig, kind.first(rig.pdk, rig.design, theta)[0], theta, _POINTS, capacitance=True)
    aims = (TOLERANCE, _AIM, _RATIO_AIM, _LARGEST_STEP)
    settings = (_VERSION, kind.name, kind.settings, *aims, _PASSES, _POINTS, _CHECK_POINTS)
    words = [deck, rig.pdk.model_dump_json(exclude={"file"}), rig.models.sha256, NGSPICE.version(), repr(settings)]
    return sha256_bytes("\n".join([*words, repr(rig.design)]).encode() + theta.tobytes())[:24]


def _deck(
    rig: Rig,
    sizes: Sizes,
    theta: Floats,
    points: tuple[int, int],
    capacitance: bool,
) -> str:
    return render_calibration(
        rig.pdk,
        rig.design,
        rig.header(),
        sizes,
        theta.tolist(),
        points=points,
        capacitance=capacitance,
        direct=rig.direct,
        supply=rig.supply,
    )


def measure(rig: Rig, known: Calibration) -> Calibration:
    """Cells as they were calibrated, measured where ``rig`` says (another corner, temperature, supply or draw of
    mismatch), nothing corrected. Not cached.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    return _checked(rig, known.kind, known.theta, known.sizes, [[] for _ in known.reason], known.passes)


def pin_currents(rig: Rig, known: Calibration, copies: int = 1, *, fine: bool = True) -> MeasuredCells:
    """Currents of both pins of calibrated cells over the box where ``rig`` says, all cells as often as ``copies``; on
    the grid that results are checked on or, not ``fine``, on the one that corrections are made on. Not cached.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    rows = np.tile(np.arange(len(known.theta)), copies)
    sizes, theta = known.sizes.rows(rows), known.theta[rows]
    points = _CHECK_POINTS if fine else _POINTS
    x, u, weight = box_points(*points)
    mean = u * (BOX - np.abs(x) / 2)
    found = _measure(rig, known.kind, sizes, theta, points, capacitance=False)
    units = known.kind.units(sizes)
    return MeasuredCells(theta[:, 0], theta[:, 1], units, mean + x / 2, mean - x / 2, weight, found.source, found.sink)


def supply_currents(rig: Rig, known: Calibration) -> tuple[float, float]:
    """What a unit of calibrated cells takes from the supply where ``rig`` says, mean over the box, and what the bias
    takes [A]: the slope and the rest of the straight line through one cell alone and all of them. Not cached.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    _, _, weight = box_points(*_POINTS)
    points = []
    for rows in (np.arange(1), np.arange(min(len(known.theta), _LARGEST_DECK))):
        sizes = known.sizes.rows(rows)
        found = _measure(rig, known.kind, sizes, known.theta[rows], _POINTS, capacitance=False)
        points.append((float(known.kind.units(sizes).sum()), float((found.supply * weight).sum())))
    (few, low), (many, high) = points
    a_unit = (high - low) / (many - few)
    return a_unit, low - few * a_unit


def _closed_loop(rig: Rig, kind: CellKind, theta: Floats, progress: Progress) -> Calibration:
    """Broyden's method on each cell by itself: what sizes are asked for by the cell's ideal law against what is
    fitted."""
    n, free, design = len(theta), kind.free, rig.design
    sign = drawn_sign(kind, theta)
    wanted = sign * theta[:, :free]
    allowed = np.minimum(_AIM * kind.full_scale(theta)[:, None] / kind.at_edge(), TOLERANCE / 2)
    sizes, reasons = kind.first(rig.pdk, design, theta)
    asked = kind.asked(design, sizes)
    slope = np.tile(np.eye(free), (n, 1, 1))
    best, best_error, best_reasons = sizes, np.full(n, np.inf), list(reasons)
    last_asked, last_fit = np.full((n, free), np.nan), np.full((n, free), np.nan)
    due = np.arange(n)
    x, _, weight = box_points(*_POINTS)
    passes = 0
    with progress.stage(f"calibration of {n} cells", n) as advance:
        while passes < _PASSES and due.size:
            passes += 1
            found = _measure(rig, kind, sizes.rows(due), theta[due], _POINTS, capacitance=False)
            mean = (found.source + found.sink) / 2
            fit = sign[due] * kind.fit(x, weight, mean, theta[due])[:, :free]
            ratio = kind.ratio(weight, found.source, found.sink, sizes.rows(due))
            error = (np.abs(fit - wanted[due]) / allowed[due]).max(axis=1)
            error = np.maximum(error, np.abs(ratio - 1) / _RATIO_AIM)
            better = error < best_error[due]
            best = _put(best, due[better], sizes.rows(due[better]))
            best_error[due[better]] = error[better]
            for i in due[better].tolist():
                best_reasons[i] = reasons[i]
            slope[due] = _broyden(slope[due], asked[due] - last_asked[due], fit - last_fit[due])
            last_asked[due], last_fit[due] = asked[due], fit
            left = error > 1.0
            advance(int((~left).sum()))
            due, fit, ratio = due[left], fit[left], ratio[left]
            step = np.linalg.solve(slope[due], (wanted[due] - fit)[:, :, None])[:, :, 0]
            asked[due] += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
            snapped, said = kind.corrected(rig.pdk, design, asked[due], sizes.rows(due), ratio)
            sizes = _put(sizes, due, snapped)
            for i, text in zip(due.tolist(), said, strict=True):
                reasons[i] = text
            asked[due] = kind.asked(design, snapped)
        advance(int(due.size))
    return _checked(rig, kind, theta, best, best_reasons, passes)


def _put(sizes: Sizes, rows: NDArray[np.int64], new: Sizes) -> Sizes:
    """``sizes`` with some rows replaced."""
    columns = []
    for f in fields(sizes):
        column = getattr(sizes, f.name).copy()
        column[rows] = getattr(new, f.name)
        columns.append(column)
    return type(sizes)(*columns)


def _broyden(slope: Floats, moved: Floats, changed: Floats) -> Floats:
    """The slopes [n, p, p] after a move [n, p] changed the fit [n, p]; the same where there was no move to speak of."""
    size = (moved**2).sum(axis=1)
    told = np.isfinite(changed).all(axis=1) & (size > _SMALLEST_MOVE**2)
    moved, changed = np.where(told[:, None], moved, 0.0), np.where(told[:, None], changed, 0.0)
    off = changed - (slope @ moved[:, :, None])[:, :, 0]
    new = slope + off[:, :, None] * moved[:, None, :] / np.where(told, size, 1.0)[:, None, None]
    usable = np.abs(np.linalg.det(new)) > 0.05  # a slope that no longer tells the two apart is not believed
    return np.asarray(np.where((told & usable)[:, None, None], new, slope))


def _checked(
    rig: Rig, kind: CellKind, theta: Floats, sizes: Sizes, reasons: list[list[str]], passes: int
) -> Calibration:
    """Measure what was arrived at, on a finer grid."""
    x, _, weight = box_points(*_CHECK_POINTS)
    found = _measure(rig, kind, sizes, theta, _CHECK_POINTS, capacitance=True)
    fitted = kind.fit(x, weight, (found.source + found.sink) / 2, theta)
    ideal = kind.law(theta, x)
    errors = np.abs(np.stack([found.source - ideal, found.sink - ideal]))
    off = x == np.where(theta[:, :1] < 0, x.max(), x.min())
    currents = np.maximum(np.abs(found.source), np.abs(found.sink))
    leakage = np.where(off, currents, 0).max(axis=1) * rig.design.i_unit
    miss = np.abs(fitted - theta).max(axis=1)
    said = []
    for i, text in enumerate(reasons):
        if miss[i] <= TOLERANCE:
            said.append("")
        else:
            why = "; ".join(text) or "the loop did not settle"
            values = ", ".join(f"{value:.4f}" for value in fitted[i, : kind.free])
            said.append(f"θ fitted as ({values}), off by {miss[i]:.4f}: {why}")
    units = kind.units(sizes)
    return Calibration(
        kind,
        theta,
        sizes,
        fitted,
        errors.max(axis=(0, 2)),
        np.sqrt((errors**2 * weight).sum(axis=2)).max(axis=0),
        np.where(kind.is_off(theta) & (kind is RELU_CELL), leakage, np.nan),
        np.abs(found.source - found.sink).max(axis=1) / kind.full_scale(theta),
        _pin(found.source_pin, theta, units, kind),
        _pin(found.target_pin, theta, units, kind),
        units / units.sum() * float((found.supply * weight).sum()),
        tuple(said),
        passes,
    )


def _pin(measured: Floats, theta: Floats, units: Floats, kind: CellKind) -> Floats:
    """Capacitance of a pin, F [cells]. That of a cell which is still on where it was measured holds its transfer's lag
    too, or, where it is a constant, what the bias lines move when all cells of a deck are moved at once; it gets the
    median of the others, a unit, times its units (nothing is subtracted where there are no others)."""
    clean = kind.is_off(theta)
    a_unit = float(np.median((measured / units)[clean])) if clean.any() else 0.0
    return np.asarray(np.where(clean, measured, a_unit * units))


def _measure(
    rig: Rig, kind: CellKind, sizes: Sizes, theta: Floats, points: tuple[int, int], *, capacitance: bool
) -> _Measured:
    order, parts = [], []
    decks = [np.arange(start, min(start + _LARGEST_DECK, len(sizes))) for start in range(0, len(sizes), _LARGEST_DECK)]
    while decks:
        rows = decks.pop(0)
        found = _sweep(rig, sizes.rows(rows), theta[rows], points, capacitance)
        dead = _dead(kind, theta[rows], found, points)
        if dead.any() and len(rows) > 1:
            # A compiled model has solutions that no transistor has (a node at a kilovolt), and a sweep that once found
            # one stays there: such a cell is measured from a start of its own, the others without it.
            decks = [*([rows[~dead]] if not dead.all() else []), *np.split(rows[dead], dead.sum()), *decks]
            continue
        order.append(rows)
        parts.append(found)
    back = np.argsort(np.concatenate(order))
    return _Measured(
        np.concatenate([p.source for p in parts])[back],
        np.concatenate([p.sink for p in parts])[back],
        np.sum([p.supply for p in parts], axis=0),
        np.concatenate([p.source_pin for p in parts])[back],
        np.concatenate([p.target_pin for p in parts])[back],
    )


def _dead(kind: CellKind, theta: Floats, found: _Measured, points: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells that at some common mode never come near what their law gives, [cells]."""
    ideal = kind.law(theta, box_points(*points)[0])
    most = [np.abs(i).reshape(len(theta), points[1], points[0]).max(axis=2) for i in (found.sink, ideal)]
    return np.asarray((most[0] < _DEAD * most[1]).any(axis=1))


def _sweep(rig: Rig, sizes: Sizes, theta: Floats, points: tuple[int, int], capacitance: bool) -> _Measured:
    n = len(sizes)
    pins = [f"i(v{pin}{i})" for pin in "sd" for i in range(n)]
    x, _, _ = box_points(*points)
    i_unit = rig.design.i_unit

    def read(folder: Path) -> _Measured:
        swept, values = read_sweep(folder / "sweep.raw", [*pins, "i(vvdd)"], float(x[-1]))
        if swept.size != x.size:
            raise BadDataError(f"{folder / 'sweep.raw'}: has {swept.size} points, not {x.size}")
        pin_c = np.full((2, n), np.nan)
        if capacitance:
            for at, pin in enumerate("sd"):
                current = read_ac(folder / f"pin_{pin}.raw", pins[at * n : (at + 1) * n])
                other = read_ac(folder / f"pin_{pin}_high.raw", pins[at * n : (at + 1) * n])
                current = np.where(theta[:, 0] < 0, other, current)
                pin_c[at] = current.imag / (2 * np.pi * PIN_FREQUENCY)
        return _Measured(values[:, :n].T / i_unit, -values[:, n : 2 * n].T / i_unit, -values[:, -1], pin_c[0], pin_c[1])

    deck = _deck(rig, sizes, theta, points, capacitance)
    return rig.run(deck, "cells", _TIMEOUT_S, read)
