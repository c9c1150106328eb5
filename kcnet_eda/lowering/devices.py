"""What a phase becomes before units and text: tables of devices, in model units, with the way back to each edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: In what a parameter is measured, by its name without a term's number; SI units of the modules.
UNITS = {
    "gs": "S", "gd": "S", "g": "S", "i0": "A", "k": "1", "t": "V",
    "imax": "A", "ws": "1/V", "wd": "1/V", "x0": "1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """A generated device: ``terms`` of one kind between two nodes.

    ``kind`` is ``pwl`` (i = g·x + i0 + Σ g_j·relu(x − t_j), x = v_s − v_d) or the name of a φ (a sum of such edges).
    A ``gated`` one has an enable terminal.
    """

    kind: str
    terms: int
    gated: bool = False

    @property
    def module(self) -> str:
        """The Verilog-A module's name."""
        return f"kc_{self.kind}{self.terms}" + ("_gated" if self.gated else "")


@dataclass(frozen=True, eq=False)
class DeviceTable:
    """n devices of one kind, as columns, in model units; sorted by target, then source node.

    ``shape`` is None for the hand-written one-edge modules ``kc_edge_<kind>``. ``letter`` and ``number`` make the
    instance name. ``values`` is [n, parameters]; a parameter of term j ends in ``_<j>``. The trained edges that device
    i holds are ``edge[first[i] : first[i + 1]]``, and ``term`` says as which of its terms each acts: 1, 2, ..., or 0
    where it has gone into the linear part.
    """

    kind: str
    shape: Shape | None
    letter: str
    number: Ints
    source: Ints
    target: Ints
    parameters: tuple[str, ...]
    values: Floats
    first: Ints
    edge: Ints
    term: Ints

    def __len__(self) -> int:
        return int(self.number.size)

    @property
    def module(self) -> str:
        """The Verilog-A module's name."""
        return f"kc_edge_{self.kind}" if self.shape is None else self.shape.module


@dataclass(frozen=True, eq=False)
class LoweredPhase:
    """A phase's devices. ``folded`` and ``dropped`` are edges that none of them holds: what flows in them is part of
    the nodes' constant currents (letter i), or nothing."""

    n_nodes: int
    tables: tuple[DeviceTable, ...]
    folded: Ints
    dropped: Ints

    @property
    def n_devices(self) -> int:
        """Devices of all tables."""
        return sum(len(t) for t in self.tables)


def node_currents(current: Floats) -> DeviceTable:
    """A device of no breakpoint from ground to each node into which a constant ``current`` [nodes] flows."""
    node = np.flatnonzero(current)
    nothing = np.empty(0, dtype=np.int64)
    return DeviceTable(
        "pwl", Shape("pwl", 0), "i", node, np.zeros_like(node), node, ("i0",), current[node, None],
        np.zeros(node.size + 1, dtype=np.int64), nothing, nothing,
    )  # fmt: skip


def gated(table: DeviceTable) -> DeviceTable:
    """The same devices with an enable terminal; a one-edge device is then a generated one of a single term."""
    if table.shape is not None:
        return replace(table, shape=replace(table.shape, gated=True))
    names = tuple(f"{name}_1" for name in table.parameters)
    return replace(table, shape=Shape(table.kind, 1, gated=True), parameters=names)
