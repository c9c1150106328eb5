"""The accuracy contract: what an error of 1e-3 means, and how fine a fixed step has to be to keep it.

Read-out nodes are judged against the range of the read-out nodes at T over the samples; every other node against
the range that it covers itself, over the samples and the run. The network's own examples count as samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.engine import AT_REST, Evolution, covered, with_examples
from kcnet_eda.dynamics.reference import smallest_error
from kcnet_eda.dynamics.solvers import fixed_step, require_finite
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Network

Floats = NDArray[np.float64]

#: The step is chosen on a few example inputs; a whole data set has worse ones. A quarter of the error asked for
#: is left to the examples: a corner's crossing time shifts the error by less than the factor 4 that halving the
#: step makes at order 2, to which corners hold a rule of higher order as well.
SAFETY = 4.0
_STEPS = tuple(round(20 * 1.2**i) for i in range(45))  # 20 .. about 60,000 steps a phase
_IMPLICIT = 1e-3  # of the error asked for, over all steps together: what solving the implicit equation may leave


def node_scales(network: Network, x0: Floats, ways: Evolution | None = None) -> Floats:
    """The voltage range each node's error is judged against, shape [nodes of the last phase], model units.

    ``x0`` are the initial states [n, nodes], ``ways`` where they and the examples went, if that is known. The network's
    own examples count as samples too: over one sample alone a node may hardly move, and that is not its range.
    """
    if ways is None:
        ways, _ = covered(network, with_examples(network, x0))
    last = network.phases[-1].n_nodes
    low = np.minimum(ways.low.min(axis=0)[:last], ways.v_end.min(axis=0))
    scale = np.maximum(ways.high.max(axis=0)[:last], ways.v_end.max(axis=0)) - low
    out = ways.v_end[:, network.readout]
    if np.ptp(out) > 0:  # one output of one sample has no range but its own way from the start
        scale[network.readout] = np.ptp(out)
    whole = float(scale.max()) or 1.0
    scale[scale < AT_REST * whole] = whole  # a node at rest is judged against the network's range
    return np.asarray(scale)


@dataclass(frozen=True)
class ErrorReport:
    """Errors of final states against the reference: absolute in model units, relative as the contract says."""

    max_abs: float
    rms_abs: float
    max_rel_readout: float
    max_rel_other: float
    worst_sample: int
    worst_node: int

    @property
    def max_rel(self) -> float:
        """The number that the contract bounds."""
        return max(self.max_rel_readout, self.max_rel_other)


def compare(network: Network, v: Floats, v_ref: Floats, scales: Floats) -> ErrorReport:
    """Compare final states ``v`` with ``v_ref``, both [n, nodes of the last phase], all rows finite."""
    error = np.abs(v - v_ref)
    relative = error[:, 1:] / scales[1:]
    is_readout = np.zeros(v.shape[1] - 1, dtype=bool)
    is_readout[network.readout - 1] = True
    sample, node = np.unravel_index(np.argmax(relative), relative.shape)
    others = relative[:, ~is_readout]
    return ErrorReport(
        max_abs=float(error.max()),
        rms_abs=float(np.sqrt(np.mean(error[:, 1:] ** 2))),
        max_rel_readout=float(relative[:, is_readout].max()),
        max_rel_other=float(others.max()) if others.size else 0.0,
        worst_sample=int(sample),
        worst_node=int(node) + 1,
    )


def require_error(network: Network, error: float, where: str = "--error") -> None:
    """Raise :class:`InvalidInputError` where a relative ``error``, asked for at ``where``, is none that can be asked
    for of ``network``."""
    smallest = smallest_error(network)
    if not smallest <= error < 1:
        raise InvalidInputError(f"{where} {error:g}", [f"must lie between {smallest:g} and 1"])


def steps_for(network: Network, x0: Floats, v_ref: Floats, scales: Floats, error: float, order: int = 2) -> int:
    """The number of equal steps a phase of the rule of ``order`` (:func:`kcnet_eda.dynamics.solvers.fixed_step`) that
    keeps ``error`` / SAFETY of ``scales`` (:func:`node_scales`) on the examples ``x0``.

    Raises
    ------
    InvalidInputError
        ``error`` is out of range, or no step count up to 60,000 reaches it.
    """
    require_error(network, error)
    require_finite(v_ref, "reference solution of the example inputs")
    # Nodes that the last phase has not are held to the strictest tolerance of those it has.
    still = np.full(network.max_nodes, scales[1:].min())
    still[: scales.size] = scales
    still *= _IMPLICIT * error

    def reached(steps: int) -> float:
        v = fixed_step(network, x0, steps, order, still / steps)
        return compare(network, v, v_ref, scales).max_rel if np.isfinite(v).all() else np.inf

    # One coarse run says at the rule's order where to look.
    trial = _STEPS[0]
    while (coarse := reached(trial)) == np.inf and trial < _STEPS[-1]:
        trial *= 2
    likely = trial * (coarse * SAFETY / error) ** (1 / order)
    for steps in _STEPS:
        if steps >= min(likely, _STEPS[-1]) and (found := reached(steps)) <= error / SAFETY:
            return steps
    raise InvalidInputError(
        f"--error {error:g}",
        [f"{_STEPS[-1]} steps a phase reach only {found * SAFETY:.2g}"],
        "Ask for less.",
    )
