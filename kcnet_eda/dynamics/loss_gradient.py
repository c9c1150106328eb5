"""The gradient of a loss of v(T) in software: discretise, then differentiate. Truth for the adjoint circuit.

The forward pass is classical RK4 in double precision; the backward pass is its exact transpose, stage by stage, by the
vector-Jacobian product of the right-hand side. Nothing of a circuit is in it, nor the adjoint equation.

Where an edge opens or closes within a step, its slope jumps and a stage sees one side of the jump: equal steps are
then of order 1 in the gradient (measured on the digits network). So steps end just before and just after each such
instant: what lies between is smooth, and the steps across are too short to matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.gradient import PhaseSolver
from kcnet_eda.dynamics.loss import Loss
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.laws import LEAKY_RELU, RELU

Floats = NDArray[np.float64]

STEPS = 800
#: Of T: half the length of a step across an instant at which an edge opens or closes.
ACROSS = 3e-7
#: The instants are found on the way that the steps before gave; after two rounds they are as good as the way is.
_ROUNDS = 2
_BISECTIONS = 45  # of a step: below the rounding of its length


@dataclass(frozen=True, eq=False)
class Gradient:
    """∂L/∂v(0) [nodes], ground's 0, and ∂L/∂(a, b, c, k) [4, E], of one sample, in model units."""

    v0: Floats
    edges: Floats

    @property
    def flat(self) -> Floats:
        """Both as one vector [nodes + 4·E], for stores."""
        return np.concatenate([self.v0, self.edges.ravel()])

    @classmethod
    def of_flat(cls, values: Floats, n_nodes: int) -> Gradient:
        """Back from :attr:`flat`."""
        return cls(values[:n_nodes], values[n_nodes:].reshape(4, -1))


@dataclass(frozen=True, eq=False)
class Way:
    """Where a sample goes: ``v`` and ``rate`` = dv/dτ, [points, nodes], at ``times`` [points]."""

    times: Floats
    v: Floats
    rate: Floats


def require_one_phase(network: Network) -> None:
    """Raise :class:`InvalidInputError` where ``network`` is not of a single phase without a residual: the adjoint of
    what passes between phases is not built."""
    if len(network.phases) > 1 or network.phases[0].residual_from is not None:
        what = f"has {len(network.phases)} phases" if len(network.phases) > 1 else "adds a residual at its end"
        raise InvalidInputError(
            f"network {network.name!r}",
            [f"{what}; the adjoint is built for one phase without a residual"],
            "Use a network of one phase.",
        )


class _Flow:
    """dv/dτ of a phase, and its transpose, one sample at a time."""

    def __init__(self, phase: Phase) -> None:
        e = phase.edges
        self.rate = RightHandSide(phase)
        self._transpose = PhaseSolver(phase, steps=1).transposed((e.a, e.b, e.c, e.k))

    def transpose(self, v: Floats, pull: Floats) -> tuple[Floats, Floats]:
        """From ∂L/∂(dv/dτ) [nodes] to ∂L/∂v [nodes] and ∂L/∂(a, b, c, k) [4, E]."""
        of_v, of_law = self._transpose(v[:, None], pull[:, None])
        of_v[0] = 0.0  # ground is held
        return of_v[:, 0], np.stack(of_law)


def _stages(flow: _Flow, v: Floats, h: float) -> tuple[list[Floats], Floats]:
    """The four states at which an RK4 step from ``v`` evaluates the right-hand side, and the state it ends at."""
    k1 = flow.rate(v)
    second = v + 0.5 * h * k1
    k2 = flow.rate(second)
    third = v + 0.5 * h * k2
    k3 = flow.rate(third)
    fourth = v + h * k3
    return [v, second, third, fourth], v + h / 6.0 * (k1 + 2.0 * (k2 + k3) + flow.rate(fourth))


def way_of(network: Network, v0: Floats, times: Floats) -> Way:
    """Where ``v0`` [nodes] goes in RK4 steps that end at ``times`` (rising, from 0 to T).

    Raises
    ------
    KcnetError
        The state leaves the finite numbers.
    """
    flow = _Flow(network.phases[0])
    v, rate = np.empty((2, times.size, v0.size))
    v[0] = v0
    for i, h in enumerate(np.diff(times)):
        _, v[i + 1] = _stages(flow, v[i], h)
    if not np.isfinite(v[-1]).all():
        raise KcnetError("the software solution does not stay finite: the network is unstable for this input")
    for i in range(times.size):
        rate[i] = flow.rate(v[i])
    return Way(times, v, rate)


def steps_between_corners(network: Network, v0: Floats, steps: int = STEPS) -> Floats:
    """Times [points] for :func:`way_of`: ``steps`` equal steps, and steps of 2·:data:`ACROSS`·T across each instant at
    which an edge's law has a corner."""
    end = network.duration
    equal = np.linspace(0.0, end, steps + 1)
    times = equal
    for _ in range(_ROUNDS):
        instants = corner_instants(network.phases[0], way_of(network, v0, times))
        around = np.concatenate([instants - ACROSS * end, instants + ACROSS * end])
        times = np.unique(np.concatenate([equal, around[(around > 0) & (around < end)]]))
    return times


def corner_instants(phase: Phase, way: Way) -> Floats:
    """When edges of a law with a corner open or close on the way, found on the cubic through values and slopes of
    each step."""
    bent = np.flatnonzero((phase.edges.phi == RELU) | (phase.edges.phi == LEAKY_RELU))
    e = phase.edges.rows(bent)

    def argument(i: int) -> Floats:
        return np.asarray(e.a * way.v[i][e.source] + e.b * way.v[i][e.target] + e.c)

    found = []
    now = argument(0)
    for i, h in enumerate(np.diff(way.times)):
        before, now = now, argument(i + 1)
        crossed = np.flatnonzero((before > 0) != (now > 0))
        if crossed.size:
            part = e.rows(crossed)
            slope = [h * (part.a * r[part.source] + part.b * r[part.target]) for r in way.rate[i : i + 2]]
            found.append(way.times[i] + h * _root(before[crossed], now[crossed], *slope))
    return np.concatenate(found) if found else np.empty(0)


def _root(x0: Floats, x1: Floats, m0: Floats, m1: Floats) -> Floats:
    """Where in 0..1 the cubic of values ``x0``, ``x1`` and slopes ``m0``, ``m1`` changes its sign, by bisection."""
    low, high = np.zeros_like(x0), np.ones_like(x0)
    for _ in range(_BISECTIONS):
        r = 0.5 * (low + high)
        x = (1 - r) ** 2 * ((1 + 2 * r) * x0 + r * m0) + r**2 * ((3 - 2 * r) * x1 - (1 - r) * m1)
        same = (x > 0) == (x0 > 0)
        low, high = np.where(same, r, low), np.where(same, high, r)
    return 0.5 * (low + high)


def discrete_gradient(network: Network, way: Way, of_end: Floats) -> Gradient:
    """The gradient of the v(T) that RK4 gives in the steps of ``way``, from ``of_end`` = ∂L/∂v(T) [nodes]: exact to
    rounding."""
    flow = _Flow(network.phases[0])
    pull, of_edges = of_end.copy(), np.zeros((4, len(network.phases[0].edges)))
    pull[0] = 0.0
    for i, h in reversed(list(enumerate(np.diff(way.times)))):
        at, _ = _stages(flow, way.v[i], h)
        end, of_v = pull, np.zeros_like(pull)
        for state, weight, onward in zip(
            reversed(at), (h / 6, h / 3, h / 3, h / 6), (0.0, h, 0.5 * h, 0.5 * h), strict=True
        ):
            of_v, of_law = flow.transpose(state, weight * end + onward * of_v)
            pull = pull + of_v
            of_edges += of_law
    return Gradient(pull, of_edges)


def software_gradient(network: Network, v0: Floats, loss: Loss, label: int, steps: int = STEPS) -> Gradient:
    """The gradient of the loss of one sample ``v0`` [nodes], by steps that end at the corners of the laws.

    Raises
    ------
    InvalidInputError
        The network has more than one phase, or a residual.
    KcnetError
        The state leaves the finite numbers.
    """
    require_one_phase(network)
    way = way_of(network, v0, steps_between_corners(network, v0, steps))
    return discrete_gradient(network, way, loss.gradient(network, way.v[-1], label))


def relative_error(found: Floats, truth: Floats) -> float:
    """‖found − truth‖/‖truth‖ in the 2-norm over all entries; absolute where the truth is 0 throughout."""
    return float(np.linalg.norm(found - truth) / (np.linalg.norm(truth) or 1.0))
