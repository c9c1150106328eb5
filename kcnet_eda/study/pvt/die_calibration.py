"""Calibration of a die by itself: its read-out in digital, and DACs on θ2 of a few edges.

All is fitted to the final outputs that the network as trained has on the calibration samples, so labels are not needed;
the die's own outputs on these are all that is measured on it.

- read-out: of each output a gain and an offset (or the offset alone) by least squares; the numbers are ideal.
- DACs: the model of the die without mismatch says how θ2 of the trimmed edges move the outputs; each round measures the
  die and moves all codes by the ridge regression of what is still missing, in whole steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.dynamics.edge_law import BuiltEdges, eq6_edges
from kcnet_eda.study.pvt.dies import Cells, Dies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Final outputs [dies, outputs, samples] of edges on the calibration samples.
Measure = Callable[[BuiltEdges], Floats]

#: A trim of 1 σ has to bring outputs nearer by this mean square, V_u² (0.03 V_u rms): what no trim explains is no
#: noise that more samples would average out.
_RIDGE = 1e-3


def trained_outputs(cells: Cells, x0: Floats, steps: int) -> Floats:
    """Final outputs [outputs, samples] of the network as trained."""
    network = cells.network
    edges = eq6_edges(cells.theta1[None], cells.theta2[None])
    v = evolve_dies(cells.ends, edges, x0, network.phases[0].duration, steps=steps)
    return np.asarray(v[0, network.readout], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ReadOut:
    """``gain`` and ``offset`` [dies, outputs] of each output of each die."""

    gain: Floats
    offset: Floats

    def corrected(self, outputs: Floats) -> Floats:
        """``outputs`` [dies, outputs, samples] as the read-out takes them."""
        return np.asarray(self.gain[:, :, None] * outputs + self.offset[:, :, None])


def fit_readout(outputs: Floats, target: Floats, kind: Literal["affine", "offset"]) -> ReadOut:
    """The read-out that brings ``outputs`` [dies, outputs, samples] nearest to ``target`` [outputs, samples]; that of a
    die with a sample that is not finite changes nothing."""
    finite = np.asarray(np.isfinite(outputs).all(axis=(1, 2)))
    outputs = np.where(finite[:, None, None], outputs, 0.0)
    mean, wanted = outputs.mean(axis=2), target.mean(axis=1)
    gain = np.ones_like(mean)
    if kind == "affine":
        off = outputs - mean[:, :, None]
        square = (off**2).sum(axis=2)
        moves = square > 1e-12 * outputs.shape[2]  # an output that stays where it is has no gain
        gain = np.where(moves, (off * (target - wanted[:, None])).sum(axis=2) / np.where(moves, square, 1.0), 1.0)
    offset = wanted - gain * mean
    return ReadOut(np.where(finite[:, None], gain, 1.0), np.where(finite[:, None], offset, 0.0))


@dataclass(frozen=True, eq=False)
class Trims:
    """DACs of ``bits`` on θ2 of ``edges`` [n]: a code from −2^(bits − 1) to 2^(bits − 1) − 1 adds as many ``step`` [n],
    I_u. ``sigma`` [n] is that of θ2 over dies."""

    edges: Ints
    sigma: Floats
    step: Floats
    bits: int

    def applied(self, edges: BuiltEdges, codes: Floats) -> BuiltEdges:
        """``edges`` with ``codes`` [dies, n] set."""
        theta2 = edges.theta2.copy()
        theta2[:, self.edges] += codes * self.step
        return replace(edges, theta2=theta2)


def trims_of(dies: Dies, edges: Ints, bits: int, span: float) -> Trims:
    """DACs on ``edges`` that reach ``span`` σ of each one's θ2 over dies, its bias's included."""
    assert dies.spread is not None  # the study file has been held to it
    own, bias = dies.spread.of(dies.units)[1], dies.units * dies.spread.bias_offset
    sigma = np.hypot(own, bias)[edges]
    return Trims(edges, sigma, span * sigma / 2 ** (bits - 1), bits)


def fit_trims(
    trims: Trims, nominal: BuiltEdges, built: BuiltEdges, measure: Measure, target: Floats, rounds: int
) -> Floats:
    """Codes [dies, n] that bring what ``measure`` finds on ``built`` nearest to ``target``; a die with a sample that is
    not finite keeps its codes. ``nominal`` is the die without mismatch."""
    n, dies = trims.edges.size, len(built.theta1)
    theta1, theta2, ratio = (np.repeat(p, n, axis=0) for p in (nominal.theta1, nominal.theta2, nominal.ratio))
    up, down = (replace(nominal, theta1=theta1, theta2=theta2.copy(), ratio=ratio) for _ in range(2))
    up.theta2[np.arange(n), trims.edges] += trims.sigma
    down.theta2[np.arange(n), trims.edges] -= trims.sigma
    slope = ((measure(up) - measure(down)) / 2).reshape(n, -1)  # of 1 σ
    ridge = _RIDGE * slope.shape[1]
    least, most = -(2 ** (trims.bits - 1)), 2 ** (trims.bits - 1) - 1
    codes = np.zeros((dies, n))
    for _ in range(rounds):
        missing = (target - measure(trims.applied(built, codes))).reshape(dies, -1)
        finite = np.asarray(np.isfinite(missing).all(axis=1))
        now = codes * trims.step / trims.sigma
        right = slope @ np.where(finite[:, None], missing, 0.0).T - ridge * now.T
        move = np.linalg.solve(slope @ slope.T + ridge * np.eye(n), right).T
        wanted = np.round((now + move) * trims.sigma / trims.step)
        codes = np.where(finite[:, None], np.clip(wanted, least, most), codes)
    return codes
