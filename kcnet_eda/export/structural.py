"""Edges as the paper draws them (arXiv 2310.15872, Figure 2): two-terminal elements that plain SPICE knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.lowering.devices import DeviceTable
from kcnet_eda.network.graph import Edges
from kcnet_eda.network.laws import IDENTITY, PHI_NAMES, RELU

#: The closed switch conducts this much better than the edge's conductance, and the open one this much worse.
_ON, _OFF = 1e7, 1e-9


def two_terminal_problems(edges: Edges) -> list[str]:
    """Why edges are no conductance, source and switch: reasons in words; empty if they are."""
    other = np.flatnonzero(~np.isin(edges.phi, (RELU, IDENTITY)))
    laws = ", ".join(PHI_NAMES[phi] for phi in np.unique(edges.phi[other]))
    found = [f"{other.size} edges (first: {other[0]}) have the law {laws}, which Figure 2 is not"] if other.size else []
    single = np.flatnonzero(edges.b != -edges.a)
    if single.size:
        found.append(f"{single.size} edges (first: {single[0]}) do not depend on v_s - v_d alone")
    return found


def structural_devices(
    table: DeviceTable, values: NDArray[np.float64], names: Sequence[str], nets: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Each device of one-edge devices: name, nets, conductance [S], source current [A], and whether it rectifies.

    k·ReLU(x) with k < 0 flows the other way: it is drawn the other way round.
    """
    at = {name: values[:, i] for i, name in enumerate(table.parameters)}
    gain = at.get("k", np.ones(len(table)))
    turned = (gain < 0) & (table.kind == "relu")
    scale = np.where(turned, -gain, gain)
    g, i0 = np.where(turned, -scale, scale) * at["gs"], scale * at["i0"]
    source = np.where(turned, table.target, table.source)
    target = np.where(turned, table.source, table.target)
    rows = zip(names, source.tolist(), target.tolist(), g.tolist(), i0.tolist(), strict=True)
    for name, s, d, conductance, current in rows:
        if conductance or (current > 0 or table.kind != "relu"):
            yield {
                "name": name,
                "s": nets[s],
                "d": nets[d],
                "g": conductance,
                "i0": current,
                "switched": table.kind == "relu" and conductance != 0,
                "on": _ON * abs(conductance),
                "off": _OFF * abs(conductance),
            }
