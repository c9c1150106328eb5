"""The calibrated edge of a condition: what a cell trained to be θ1, θ2 is there, out of cells that were measured.

The law is :class:`kcnet_eda.dynamics.edge_law.BuiltEdges`. A cell of k units of pedestal has gain·θ1 and θ2 + shift,
and k times a unit's common mode, rounding and leakage and 1/k of its compression; conductance, ratio and lag are one
number for all. The gain is interpolated between the sizes measured; the shift is a plane over (θ1, θ2). All but the lag
are fitted together to the currents of both pins over the box of node voltages, by least squares of their errors over
each cell's full scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.physical.mos_cell import full_scale

Floats = NDArray[np.float64]

#: What a unit (or, the last two, any cell) adds to gain and shift, and where its fit begins.
ADDED = {
    "rounding": 0.05,
    "common_mode": 0.0,
    "compression": 0.0,
    "leakage": 0.0,
    "conductance": 0.0,
    "ratio": 1.0,
}


@dataclass(frozen=True)
class FitError:
    """Of currents over the full scale of their cell: the largest error, and the largest rms over the box of a cell."""

    largest: float
    rms: float


@dataclass(frozen=True)
class EdgeModel:
    """Edges at a condition, in model units but for ``lag`` [s]. ``gain`` holds at the sizes ``theta1`` (both [sizes],
    rising), the ends beyond them; ``shift`` are the plane's value at the origin and its slopes over θ1 and θ2.

    ``lag`` is the median of those measured, 0 where that is a lead; ``lag_span`` the least and the largest measured.
    ``supply_current`` [A] is what a unit takes from the supply, mean over the box, ``bias_current`` what the bias does.
    ``error`` is of this law, ``plain_error`` of the best gain and shift alone, ``departure`` the largest distance of a
    measured current from the law as trained, over full scale.
    """

    theta1: tuple[float, ...]
    gain: tuple[float, ...]
    shift: tuple[float, float, float]
    rounding: float = 0.0
    common_mode: float = 0.0
    compression: float = 0.0
    leakage: float = 0.0
    conductance: float = 0.0
    ratio: float = 1.0
    lag: float = 0.0
    lag_span: tuple[float, float] = (0.0, 0.0)
    supply_current: float = 0.0
    bias_current: float = 0.0
    error: FitError = FitError(0.0, 0.0)
    plain_error: FitError = FitError(0.0, 0.0)
    departure: float = 0.0

    def edges(self, theta1: Floats, theta2: Floats, units: Floats, t_unit: float) -> BuiltEdges:
        """Edges [E] trained to be ``theta1`` (of either sign) and ``theta2``, of so many ``units``, with ``t_unit``
        seconds a unit of time."""
        size = np.abs(theta1)
        origin, by_1, by_2 = self.shift
        return BuiltEdges(
            np.interp(size, self.theta1, self.gain) * theta1,
            theta2 + origin + by_1 * size + by_2 * theta2,
            np.full(theta1.shape, self.ratio),
            self.common_mode * units,
            self.rounding * units,
            self.compression / units,
            self.leakage * units,
            self.conductance,
            self.lag / t_unit,
        )


@dataclass(frozen=True, eq=False)
class MeasuredCells:
    """Currents of cells trained to be θ1 ≥ 0, θ2 [cells], of ``units`` of pedestal, in I_u [cells, points]: ``source``
    leaves s, ``sink`` enters d, at ``v_s`` and ``v_d`` [points] in V_u, of which each has its ``weight``."""

    theta1: Floats
    theta2: Floats
    units: Floats
    v_s: Floats
    v_d: Floats
    weight: Floats
    source: Floats
    sink: Floats

    def errors(self, edges: BuiltEdges) -> Floats:
        """Errors of ``edges`` [2, points, cells] over the full scale."""
        entering, leaving = edges.settled(self.v_s[:, None], self.v_d[:, None])
        miss = np.stack([entering - self.sink.T, leaving - self.source.T])
        return np.asarray(miss / full_scale(self.theta1, self.theta2))

    def fit_error(self, edges: BuiltEdges) -> FitError:
        """How far ``edges`` are from what was measured."""
        errors = self.errors(edges)
        rms = np.sqrt(np.einsum("pnc,n->c", errors**2, self.weight) / 2)
        return FitError(float(np.abs(errors).max()), float(rms.max()))


def fit_model(cells: MeasuredCells, lag: Floats, added: tuple[str, ...] = tuple(ADDED)) -> EdgeModel:
    """The model that fits ``cells`` best, of ``added`` and gain and shift; ``lag`` [s] as measured, NaN where not."""
    lags = lag[np.isfinite(lag)]
    plain, model = _fit(cells, ()), _fit(cells, added)
    trained = BuiltEdges(cells.theta1, cells.theta2, np.ones(cells.theta1.size), *np.zeros((4, cells.theta1.size)))
    values = {name: getattr(model, name) for name in ("theta1", "gain", "shift", *ADDED)}
    return EdgeModel(
        **values,
        lag=max(0.0, float(np.median(lags))),
        lag_span=(float(lags.min()), float(lags.max())),
        error=_error(cells, model),
        plain_error=_error(cells, plain),
        departure=cells.fit_error(trained).largest,
    )


def _fit(cells: MeasuredCells, added: tuple[str, ...]) -> EdgeModel:
    sizes = np.unique(cells.theta1[cells.theta1 > 0])
    root = np.sqrt(cells.weight)[:, None]

    def model(p: Floats) -> EdgeModel:
        gain, shift, rest = np.split(p, [sizes.size, sizes.size + 3])
        extra = dict(zip(added, rest.tolist(), strict=True))
        if "rounding" in extra:
            extra["rounding"] = abs(extra["rounding"])
        plane = float(shift[0]), float(shift[1]), float(shift[2])
        return EdgeModel(tuple(sizes.tolist()), tuple(gain.tolist()), plane, **extra)

    def rest(p: Floats) -> Floats:
        edges = model(p).edges(cells.theta1, cells.theta2, cells.units, 1.0)
        return np.asarray((cells.errors(edges) * root).ravel())

    start = np.concatenate([np.ones(sizes.size), np.zeros(3), [ADDED[name] for name in added]])
    return model(least_squares(rest, start, method="lm").x)


def _error(cells: MeasuredCells, model: EdgeModel) -> FitError:
    return cells.fit_error(model.edges(cells.theta1, cells.theta2, cells.units, 1.0))
