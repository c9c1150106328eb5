"""Decks of a characterisation: transistors alone for the gm/I_D table, and the lag of edge cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kcnet_eda.export.mos_cells import bench
from kcnet_eda.export.pdk_deck import transistor_line
from kcnet_eda.export.render import render
from kcnet_eda.physical.cell_design import CellDesign
from kcnet_eda.physical.cell_kind import Sizes
from kcnet_eda.physical.gmid import table_gates, table_lengths, table_width
from kcnet_eda.physical.pdk import DeviceKind, Pdk

#: Hertz of the AC analyses: far below every pole, far above rounding.
FREQUENCY = 1e5


@dataclass(frozen=True)
class GateProbe:
    """One transistor of the deck: its ``name`` there, its gate and drain supply nets, and its line."""

    name: str
    gate: str
    drain: str
    line: str


def gmid_probes(pdk: Pdk, kind: DeviceKind, direct: bool) -> list[GateProbe]:
    """The transistors of a gm/I_D table, by length, then gate voltage."""
    letter, width = kind[0], table_width(pdk, kind)
    probes = []
    for i, length in enumerate(table_lengths(pdk, kind)):
        for j in range(len(table_gates(pdk))):
            name = f"{letter}{i}x{j}"
            line = transistor_line(pdk, kind, name, [f"d{name}", f"g{name}", "0", "0"], width, length, direct=direct)
            probes.append(GateProbe(name, f"{letter}g{j}", f"{letter}d", line.rstrip("\n")))
    return probes


def render_gmid(pdk: Pdk, header: str, probes: Sequence[GateProbe], v_ds: float) -> str:
    """Write the operating point into ``op.raw`` (a sweep of one point, at 0) and what the gates and drains move into
    ``g.raw`` and ``d.raw``; ``v_ds`` in volts."""
    gates = table_gates(pdk)
    return render("mos/gmid.j2", pdk=pdk, header=header, probes=probes, v_ds=v_ds, v_gs=gates, frequency=FREQUENCY)


def render_lag(
    pdk: Pdk,
    design: CellDesign,
    header: str,
    sizes: Sizes,
    theta: Sequence[Sequence[float]],
    points: Sequence[tuple[int, float]],
    *,
    direct: bool,
    supply: float | None = None,
) -> str:
    """Write into ``lag.raw`` what the output currents of cells do when x = (v_s − v_d)/V_u is moved by one, for each
    (cell, x) of ``points``."""
    common = bench(pdk, design, header, sizes, theta, len(points), direct=direct, supply=supply)
    instances = [(common["names"][cell], x) for cell, x in points]
    return render("mos/lag.j2", **common, instances=instances, frequency=FREQUENCY)
