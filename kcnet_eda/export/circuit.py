"""The circuit of a network: named nodes, capacitors and edge devices with parameters in SI units, as columns.

Behavioural level, one phase. Everything downstream (netlists of each simulator, edge map, README) is text made
from this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Edges, Network
from kcnet_eda.network.laws import PHI_NAMES, TANH
from kcnet_eda.network.validate import problems
from kcnet_eda.physical.scaling import Scaling

#: The net that model ground maps to.
RAIL = "vcm"

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = {RAIL, "time", "gnd", "temp", "hertz"}  # SPICE gives these a meaning of their own
_LONGEST_NAME = 32


@dataclass(frozen=True, eq=False)
class DeviceGroup:
    """The edges of one law: module ``kc_edge_<law>``; rows are sorted by target, then source node.

    ``edge`` are edge numbers of the trained network, ``values`` [len(edge), parameters] in the units that the
    module declares.
    """

    module: str
    edge: NDArray[np.int64]
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    parameters: tuple[str, ...]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Circuit:
    """A one-phase behavioural circuit. ``nets[i]`` is the net of node i; ``nets[0]`` is the common-mode rail."""

    name: str
    nets: tuple[str, ...]
    scaling: Scaling
    groups: tuple[DeviceGroup, ...]
    t_end: float
    """Run time in seconds."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The Verilog-A modules that occur."""
        return tuple(g.module for g in self.groups)

    @property
    def n_devices(self) -> int:
        """Edge devices."""
        return sum(g.edge.size for g in self.groups)


def _parameters(edges: Edges, code: int, rows: NDArray[np.int64], s: Scaling) -> tuple[tuple[str, ...], np.ndarray]:
    a, b, c, k = (column[rows] for column in (edges.a, edges.b, edges.c, edges.k))
    if code == TANH:
        return ("imax", "ws", "wd", "x0"), np.stack([k * s.i_unit, a / s.v_unit, b / s.v_unit, c], axis=1)
    values = [a * s.g_unit, b * s.g_unit, c * s.i_unit]
    if (k == 1.0).all():  # the module's default, and Eq. (6)'s: not worth a column
        return ("gs", "gd", "i0"), np.stack(values, axis=1)
    return ("gs", "gd", "i0", "k"), np.stack([*values, k], axis=1)


def _export_problems(network: Network) -> list[str]:
    found = problems(network)
    if len(network.phases) > 1:
        found.append(f"has {len(network.phases)} phases; the behavioural export takes one")
    bad = [
        n for n in network.node_names[1:] if not _IDENTIFIER.fullmatch(n) or n in _RESERVED or len(n) > _LONGEST_NAME
    ]
    if bad:
        found.append(
            f"{len(bad)} node names cannot be nets in every simulator (first: {bad[0]!r}); use lower-case letters, "
            f"digits and _, a letter first, at most {_LONGEST_NAME}, and none of {', '.join(sorted(_RESERVED))}"
        )
    return found


def build_circuit(network: Network, scaling: Scaling) -> Circuit:
    """The behavioural circuit of ``network`` at ``scaling``.

    Raises
    ------
    InvalidInputError
        The network cannot become one; every reason is listed, and nothing was written.
    """
    found = _export_problems(network)
    if found:
        raise InvalidInputError(f"network {network.name!r} cannot be exported", found)
    edges = network.phases[0].edges
    groups = []
    for code in np.unique(edges.phi):
        rows = np.flatnonzero(edges.phi == code)
        rows = rows[np.lexsort((edges.source[rows], edges.target[rows]))]
        names, values = _parameters(edges, int(code), rows, scaling)
        module = f"kc_edge_{PHI_NAMES[code]}"
        groups.append(DeviceGroup(module, rows, edges.source[rows], edges.target[rows], names, values))
    nets = (RAIL, *network.node_names[1:])
    return Circuit(network.name, nets, scaling, tuple(groups), network.duration * scaling.t_unit)
