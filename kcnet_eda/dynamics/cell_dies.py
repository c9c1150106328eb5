"""A network's cells as built on one die, solved with a pole in every edge current: the check of what training assumes.

    x = θ1·(v_s − v_d) + θ2,    y = corner(x),    lag·di/dτ = y − compression/k·y² + leakage − i

of a cell of k units; i enters d and gain·i leaves s.

Slow and plain on purpose, and without the short cuts of training: its own law, and a state for each edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kcnet_eda.network.graph import Network

Floats = NDArray[np.float64]

_STEPS_PER_LAG = 4  # RK4 is stable up to a lag over 2.8 steps


@dataclass(frozen=True)
class Departures:
    """How edges depart from Eq. (6); currents in I_u, times in T_u. ``rounding`` is half the width of a parabola or the
    scale of a softplus, of which the softplus carries 2.8 times as much current where Eq. (6) turns on. ``unit`` is the
    largest |θ1| and the largest θ2 of a cell of one unit, without which every cell is of one: a cell is of as few as
    carry its nominal θ, and loses the less by saturation. No σ here follows the units."""

    rounding: float = 0.0
    shape: Literal["parabola", "softplus"] = "parabola"
    leakage: float = 0.0
    compression: float = 0.0  # over the square of the current, of a cell of one unit
    unit: tuple[float, float] | None = None
    lag: float = 0.0
    sigma_theta1: float = 0.0  # over θ1
    sigma_theta2: float = 0.0
    sigma_gain: float = 0.0

    def units(self, theta1: Floats, theta2: Floats) -> Floats:
        """How many units each cell is, [E]."""
        if self.unit is None:
            return np.ones(theta1.shape)
        need = np.maximum(np.abs(theta1) / self.unit[0], theta2 / self.unit[1])
        return np.maximum(1.0, np.ceil(need - 1e-9))

    def current(self, x: Floats, units: Floats) -> Floats:
        """The current of edges whose cells, of so many ``units``, Eq. (6) gives ReLU(x), settled."""
        if self.rounding == 0:
            current = np.maximum(x, 0.0)
        elif self.shape == "softplus":
            current = self.rounding * np.logaddexp(0.0, x / self.rounding)
        else:
            within = np.clip(x, -self.rounding, self.rounding) + self.rounding
            current = np.maximum(x - self.rounding, 0.0) + within**2 / (4 * self.rounding)
        return np.asarray(current - self.compression / units * current**2 + self.leakage)


#: What calibrated cells depart by, but for the sink, which is trimmed by its length, and the little that they saturate:
#: ngspice, 3.3 V kits.
TYPICAL = Departures(rounding=0.1, leakage=0.00125, lag=0.02, sigma_theta1=0.03, sigma_theta2=0.04)


def solve_die(
    network: Network, x: Floats, departures: Departures, rng: np.random.Generator, steps: int = 50
) -> tuple[Floats, float]:
    """The final state [n, nodes] for inputs ``x`` on a die drawn by ``rng``, and the largest |v| on the way.

    ``network`` is one phase of Eq. (6) edges. RK4 takes ``steps`` steps, or more where the lag needs them; currents
    start settled to the initial voltages.
    """
    (phase,) = network.phases
    e, d = phase.edges, departures
    theta1 = (e.a * (1 + d.sigma_theta1 * rng.standard_normal(len(e))))[:, None]
    theta2 = (e.c + d.sigma_theta2 * rng.standard_normal(len(e)))[:, None]
    gain = 1 + d.sigma_gain * rng.standard_normal(len(e))
    units = d.units(e.a, e.c)[:, None]
    ends, every = np.concatenate([e.target, e.source]), np.arange(len(e))
    weight = np.concatenate([np.ones(len(e)), -gain]) * (ends != 0)  # ground is held
    into = csr_array((weight, (ends, np.concatenate([every, every]))), shape=(phase.n_nodes, len(e)))

    def settled(v: Floats) -> Floats:
        return d.current(theta1 * (v[e.source] - v[e.target]) + theta2, units)

    def slope(state: Floats) -> Floats:
        v, i = np.split(state, [phase.n_nodes])
        if d.lag == 0:
            return np.asarray(into @ settled(v))
        return np.concatenate([into @ i, (settled(v) - i) / d.lag])

    state = network.initial_state(x).T
    if d.lag > 0:
        state = np.concatenate([state, settled(state)])
        steps = max(steps, int(np.ceil(_STEPS_PER_LAG * phase.duration / d.lag)))
    h, largest = phase.duration / steps, 0.0
    for _ in range(steps):
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(state + h * k3))
        largest = max(largest, float(np.abs(state[: phase.n_nodes]).max()))
    return state[: phase.n_nodes].T, largest
