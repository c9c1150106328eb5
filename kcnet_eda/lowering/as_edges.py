"""The devices of a lowered phase as edges of the canonical law: what the netlists hold, for the software truth to
solve. A device i = g·x + i0 + Σ g_j·relu(x − t_j), x = v_s − v_d, is an identity edge and one rectifying edge a term.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.lowering.devices import DeviceTable
from kcnet_eda.network.graph import Edges
from kcnet_eda.network.laws import IDENTITY, PHI_NAMES, RELU, TANH

Floats = NDArray[np.float64]


def as_edges(tables: Iterable[DeviceTable]) -> Edges:
    """All devices of ``tables`` as edges between the same nodes, in model units."""
    parts = [part for table in tables for part in (_of_pairs(table) if table.kind == "pwl" else _of_sums(table))]
    nothing: NDArray[Any] = np.empty(0)
    return Edges(*(np.concatenate([nothing, *(getattr(p, f.name) for p in parts)]) for f in fields(Edges)))


def _column(table: DeviceTable, name: str, default: float = 0.0) -> Floats:
    if name in table.parameters:
        return np.asarray(table.values[:, table.parameters.index(name)])
    return np.full(len(table), default)


def _edges(table: DeviceTable, a: Floats, b: Floats, c: Floats, k: Floats, phi: int) -> Edges:
    ends = table.source.astype(np.int32), table.target.astype(np.int32)
    return Edges(*ends, a, b, c, k, np.full(len(table), phi, np.uint8))


def _of_pairs(table: DeviceTable) -> Iterator[Edges]:
    one = np.ones(len(table))
    g, i0 = _column(table, "g"), _column(table, "i0")
    if g.any() or i0.any():
        yield _edges(table, g, -g, i0, one, IDENTITY)
    for j in range(1, 1 + (table.shape.terms if table.shape else 0)):
        yield _edges(table, one, -one, -_column(table, f"t_{j}"), _column(table, f"g_{j}"), RELU)


def _of_sums(table: DeviceTable) -> Iterator[Edges]:
    phi = PHI_NAMES.index(table.kind)
    names = ("ws", "wd", "x0", "imax") if phi == TANH else ("gs", "gd", "i0", "k")
    for term in [""] if table.shape is None else [f"_{j}" for j in range(1, 1 + table.shape.terms)]:
        a, b, c, k = (_column(table, name + term, float(name == "k")) for name in names)
        yield _edges(table, a, b, c, k, phi)
