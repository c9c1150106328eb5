"""What the claim hides: currents, charge, energy and voltage range of a network at a scaling, in SI units."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.engine import Evolution, covered, with_examples
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.dynamics.solvers import require_finite, rk4
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.scaling import Scaling

#: RK4 steps a phase at least; the audit's integrals and peaks are stable to three digits at this count (tested).
AUDIT_STEPS = 50
_BLOCK = 64  # samples at a time


@dataclass(frozen=True)
class Audit:
    """Worst and mean over the audited samples; SI units. Edges are ideal two-terminal current paths: supply and
    bias overhead of a real cell come on top."""

    n_samples: int
    n_voltage_samples: int
    """Samples and examples of the network that node voltages were looked at for."""
    v_min: float
    """Lowest node voltage at any time, any of them [V]."""
    v_max: float
    """Highest node voltage [V]."""
    edge_current_peak: float
    """Largest current of one edge [A]."""
    total_current_peak: float
    """Largest sum over the edges of |i| at one time [A]."""
    total_current_mean: float
    """Mean over time and samples of the sum over the edges of |i| [A]."""
    charge_moved: float
    """Charge moved through all edges in one inference, mean over samples [C]."""
    energy_dissipated: float
    """Energy that the edges turn to heat in one inference (where the current runs down the voltage), mean [J]."""
    energy_delivered: float
    """Energy that the edges must supply (where the current runs up the voltage), mean [J]."""

    def as_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


Floats = NDArray[np.float64]

#: Of the range seen, on either side, for inputs that have not been seen.
_MARGIN = 0.1


def voltage_ranges(network: Network, x0: Floats) -> list[tuple[Floats, Floats]]:
    """For each phase the lowest and highest voltage of each of its nodes over initial states ``x0`` [n, nodes], in
    model units, widened by a tenth of the range on either side."""
    ways, _ = covered(network, x0)
    found = []
    for low, high, phase in zip(ways.low, ways.high, network.phases, strict=True):
        low, high = low[: phase.n_nodes], high[: phase.n_nodes]
        margin = _MARGIN * (high - low)
        found.append((low - margin, high + margin))
    return found


def audit(network: Network, x0: Floats, scaling: Scaling, seen: tuple[Evolution, int] | None = None) -> Audit:
    """Audit ``network`` for initial states ``x0`` [n, nodes] in model units, in software. ``seen`` is what ``covered``
    says of them and of the network's examples, if that is known.

    Integrals over time are by the trapezoidal rule on the fixed RK4 steps.
    """
    edge_peak = total_peak = 0.0
    charge = dissipated = delivered = 0.0
    everything = with_examples(network, x0)
    ways, steps = seen or covered(network, everything)
    steps = max(AUDIT_STEPS, steps)
    sides = {id(phase): RightHandSide(phase) for phase in network.phases}
    for start in range(0, len(x0), _BLOCK):
        block = x0[start : start + _BLOCK]
        before: tuple[float, Floats] | None = None
        for phase, tau, v in rk4(network, block, steps):
            require_finite(v.T, "audit")
            peak, sums = sides[id(phase)].flows(v)
            edge_peak, total_peak = max(edge_peak, peak), max(total_peak, float(sums[0].max()))
            rates = sums.sum(axis=1)
            # A phase's first point has the time of the point before it, so it adds nothing across the hand-over.
            if before is not None:
                q, heat, supply = 0.5 * (tau - before[0]) * (rates + before[1])
                charge, dissipated, delivered = charge + q, dissipated + heat, delivered + supply
            before = (tau, rates)
    n, i_u, t_u, v_u = len(x0), scaling.i_unit, scaling.t_unit, scaling.v_unit
    volts = [scaling.v_cm + v_u * v for v in (float(ways.low.min()), float(ways.high.max()))]
    return Audit(
        n_samples=n,
        n_voltage_samples=len(everything),
        v_min=volts[0],
        v_max=volts[1],
        edge_current_peak=edge_peak * i_u,
        total_current_peak=total_peak * i_u,
        total_current_mean=charge / n / network.duration * i_u,
        charge_moved=charge / n * i_u * t_u,
        energy_dissipated=dissipated / n * i_u * t_u * v_u,
        energy_delivered=delivered / n * i_u * t_u * v_u,
    )
