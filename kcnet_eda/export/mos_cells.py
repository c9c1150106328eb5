"""The cells of the MOS level as subcircuit text, and the list of devices that the text places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from kcnet_eda.export.pdk_deck import resistor_line, transistor_line
from kcnet_eda.export.render import render
from kcnet_eda.physical.cell_design import CellDesign, Geometry
from kcnet_eda.physical.cell_kind import Sizes
from kcnet_eda.physical.mos_cell import full_scale
from kcnet_eda.physical.pdk import DeviceKind, Pdk
from kcnet_eda.physical.tanh_cell import TanhSizes, draw_tanh

BIAS = "kc_bias"
#: Pins of an edge cell, in the netlist's order, with their directions in xschem.
EDGE_PINS = (
    ("s", "inout"),
    ("d", "inout"),
    ("ip", "in"),
    ("in", "in"),
    ("vdd", "inout"),
    ("vss", "inout"),
    ("vbn", "in"),
    ("vbp", "in"),
    ("vclp", "in"),
)
BIAS_PINS = ("vref", "vdd", "vss", "vbn", "vbp", "vclp")
_DECOUPLING, _DECOUPLING_A_CELL = 20e-12, 0.2e-12  # farads a bias line
_AMPLIFIER_CURRENT = 2.0  # I_u in the reference amplifier's bias branch
_AMPLIFIER_DROP = 0.9  # volts of its diode
_SWITCH_WIDTH, _SWITCH_CURRENT = 2.0, 2e-6  # µm of a finger of the write switch, for this I_u


@dataclass(frozen=True)
class Device:
    """One placed device: ``kind`` nmos, pmos or resistor; sizes in µm; ``m`` in parallel."""

    cell: str
    name: str
    kind: str
    w: float
    l: float  # noqa: E741
    m: int


class Placer:
    """Writes device lines for a template and keeps a list of what it wrote."""

    def __init__(self, pdk: Pdk, cell: str, direct: bool) -> None:
        self.pdk, self.cell, self._direct = pdk, cell, direct
        self.devices: list[Device] = []

    def _transistor(self, kind: DeviceKind, name: str, nodes: str, w: float, l: float, m: int) -> str:  # noqa: E741
        line = transistor_line(self.pdk, kind, name, nodes.split(), w, l, int(m), direct=self._direct)
        self.devices.append(Device(self.cell, name, kind, w, l, int(m)))
        return line.rstrip("\n")

    def nmos(self, name: str, nodes: str, w: float, l: float, m: int) -> str:  # noqa: E741
        """An n-channel transistor; ``nodes`` are drain, gate, source, bulk."""
        return self._transistor("nmos", name, nodes, w, l, m)

    def pmos(self, name: str, nodes: str, w: float, l: float, m: int) -> str:  # noqa: E741
        """A p-channel transistor."""
        return self._transistor("pmos", name, nodes, w, l, m)

    def resistor(self, name: str, a: str, b: str, bulk: str, length: float) -> str:
        """A poly resistor of the kit's smallest width."""
        width = self.pdk.resistor.width.min
        self.devices.append(Device(self.cell, name, "resistor", width, length, 1))
        return resistor_line(self.pdk, name, a, b, bulk, length, width).rstrip("\n")

    def resistors_between(self, name: str, a: str, b: str, resistance: float) -> str:
        """As many resistors in series as ``resistance`` [ohm] takes."""
        parts = series(self.pdk, resistance, a, b)
        return "\n".join(self.resistor(f"{name}{i}", p, q, "vss", length) for i, (p, q, length) in enumerate(parts, 1))


class MeteredPlacer(Placer):
    """Places an ammeter (``vm<name>``) in every transistor's drain; ``terminals`` are drain, gate and source of each by
    its name."""

    def __init__(self, pdk: Pdk, cell: str, direct: bool) -> None:
        super().__init__(pdk, cell, direct)
        self.terminals: dict[str, tuple[str, str, str]] = {}

    def _transistor(self, kind: DeviceKind, name: str, nodes: str, w: float, l: float, m: int) -> str:  # noqa: E741
        drain, gate, source, bulk = nodes.split()
        self.terminals[name] = drain, gate, source
        line = super()._transistor(kind, name, f"m_{name} {gate} {source} {bulk}", w, l, m)
        return f"vm{name} {drain} m_{name} 0\n{line}"


def series(pdk: Pdk, resistance: float, a: str, b: str) -> list[tuple[str, str, float]]:
    """``resistance`` [ohm] between ``a`` and ``b`` as resistors in series that can be drawn: ends and length [µm]."""
    r = pdk.resistor
    n = max(1, -int(-resistance // r.resistance(r.length.max)))
    length = r.length.snap(r.length_for(resistance / n))
    nodes = [a, *(f"{a}_{b}{i}" for i in range(1, n)), b]
    return [(p, q, length) for p, q in pairwise(nodes)]


def source_fingers(pdk: Pdk, width: float, length: float, k: int) -> list[tuple[float, float, int]]:
    """The PMOS source as ``k`` fingers, sizes in µm: widths, lengths and how many, together worth a total ``width`` of
    ``length``. The last finger takes up the others' rounding, and its own by its length: the current goes as W/L, and a
    step of the width's grid would be 0.5 % of a unit, of the length's an eighth of that."""
    span, along = pdk.devices.pmos.width, pdk.devices.pmos.length
    w = min(max(span.snap(width / k), span.min), span.max)
    rest = width - (k - 1) * w
    last = span.snap(rest)
    if last < rest:
        last = span.snap(last + span.grid)
    if span.complaint(last):
        return [(w, length, k)]
    trimmed = min(along.snap(length * last / rest), along.max)
    if last == w and trimmed == length:
        return [(w, length, k)]
    return [(w, length, k - 1), (last, trimmed, 1)] if k > 1 else [(last, trimmed, 1)]


def clamp_size(pdk: Pdk, design: CellDesign, theta: Sequence[float], mk: int) -> Geometry:
    """The clamp of a cell of these (θ1, θ2) with ``mk`` units of mirror: at the turn-on point it and the mirror carry
    the root of the product of their widths, which is to go as the full scale. One clamp for all sizes would round small
    cells' corners and wake large ones late."""
    scale = float(full_scale(np.array(theta[0]), np.array(theta[1]))) / design.full_scale_per_mirror
    span, along = pdk.devices.pmos.width, pdk.devices.pmos.length
    width = design.clamp.w * scale**2 / mk
    longer = max(1.0, span.min / width)  # where it cannot be as narrow
    return Geometry(span.snap(min(max(width, span.min), span.max)), along.snap(min(design.clamp.l * longer, along.max)))


def edge_cells(
    pdk: Pdk,
    design: CellDesign,
    sizes: Sizes,
    theta: Sequence[Sequence[float]],
    names: Sequence[str],
    direct: bool,
) -> Iterator[tuple[str, list[Device]]]:
    """The subcircuit of each cell (pins :data:`EDGE_PINS`) and its devices; ``sizes`` are on the grid and ``theta`` are
    the parameters to name in the comment."""
    for i, name in enumerate(names):
        placer = Placer(pdk, name, direct)
        yield edge_cell(placer, design, sizes, i, theta[i]), placer.devices


def edge_cell(placer: Placer, design: CellDesign, sizes: Sizes, at: int, theta: Sequence[float]) -> str:
    """The subcircuit of cell ``at`` of ``sizes``, its devices placed by ``placer``."""
    if isinstance(sizes, TanhSizes):
        return _tanh_cell(placer, design, sizes, at, theta)
    pdk, k, resistance = placer.pdk, int(sizes.k[at]), float(sizes.resistance[at])
    return render(
        "mos/edge_relu.j2",
        name=placer.cell,
        theta1=abs(theta[0]),
        theta2=theta[1],
        c=design,
        i_unit=design.i_unit,
        v_unit=design.v_unit,
        k=k,
        mk=int(sizes.mk[at]),
        well_capacitance=design.well_capacitance[0] + k * design.well_capacitance[1],
        lead_capacitance=design.lead / resistance,
        resistors=series(pdk, resistance, "e1", "e2") if resistance < float("inf") else [],
        source_fingers=source_fingers(pdk, float(sizes.source_width[at]), design.source.l, k),
        clamp=clamp_size(pdk, design, theta, int(sizes.mk[at])),
        sink_length=float(sizes.sink_length[at]),
        nmos=placer.nmos,
        pmos=placer.pmos,
        resistor=placer.resistor,
    )


def _tanh_cell(placer: Placer, design: CellDesign, sizes: TanhSizes, at: int, theta: Sequence[float]) -> str:
    drawn = draw_tanh(placer.pdk, design, sizes, at)
    return render(
        "mos/edge_tanh.j2",
        name=placer.cell,
        slope=abs(theta[0]),
        offset=theta[1],
        gain=theta[2],
        c=design,
        i_unit=design.i_unit,
        v_unit=design.v_unit,
        drawn=drawn,
        well_capacitance=sum(design.well_capacitance),
        nmos=placer.nmos,
        pmos=placer.pmos,
        resistors_between=placer.resistors_between,
    )


@dataclass(frozen=True)
class ClampLine:
    """How the bias generator makes the clamps' few nanoamperes ``current`` [A] of I_u, in two steps: a small PMOS
    ``source`` beside the source unit, then a mirror of ``down`` NMOS ``sink`` to one whose output ``out`` reference
    clamps share."""

    source: Geometry
    sink: Geometry
    down: int
    out: int
    current: float


def clamp_line(pdk: Pdk, design: CellDesign) -> ClampLine:
    """The devices of the clamps' gate line."""
    p, n = pdk.devices.pmos, pdk.devices.nmos
    source, c_out = design.source, 4
    small_l = p.length.snap(min(2.5 * source.l, p.length.max))
    small_w = p.width.snap(max(0.4 * source.w, p.width.min))
    first = design.i_unit * (small_w / small_l) / (source.w / source.l)
    wanted = design.clamp_share * design.full_scale_per_mirror * design.i_unit
    c_down = max(1, round(first / (c_out * wanted)))
    small_sink = Geometry(n.width.snap(max(design.tail.w / 2, n.width.min)), design.source.l)
    return ClampLine(Geometry(small_w, small_l), small_sink, c_down, c_out, first / (c_down * c_out))


def bias_cell(placer: Placer, design: CellDesign, n_cells: int) -> str:
    """The bias generator (pins :data:`BIAS_PINS`) for ``n_cells`` cells, its devices placed by ``placer``."""
    return render(
        "mos/bias.j2",
        c=design,
        i_unit=design.i_unit,
        r_ref=design.v_ref / (2 * design.i_unit),
        r_amp=(design.supply - _AMPLIFIER_DROP) / (_AMPLIFIER_CURRENT * design.i_unit),
        line=clamp_line(placer.pdk, design),
        decoupling=_DECOUPLING + _DECOUPLING_A_CELL * n_cells,
        nmos=placer.nmos,
        pmos=placer.pmos,
        resistors_between=placer.resistors_between,
    )


def bench(
    pdk: Pdk,
    design: CellDesign,
    header: str,
    sizes: Sizes,
    theta: Sequence[Sequence[float]],
    n_instances: int,
    *,
    direct: bool,
    supply: float | None,
) -> dict[str, Any]:
    """What every deck says that measures cells as ``n_instances`` instances: for its template. ``supply`` [V] is the
    design's if None."""
    names = [f"kc_edge_{i}" for i in range(len(sizes))]
    return {
        "header": header,
        "bias": bias_cell(Placer(pdk, BIAS, direct), design, n_instances),
        "bias_name": BIAS,
        "cells": [text for text, _ in edge_cells(pdk, design, sizes, theta, names, direct)],
        "names": names,
        "design": design,
        "supply": design.supply if supply is None else supply,
    }


def switch_sizes(pdk: Pdk, design: CellDesign) -> tuple[Geometry, Geometry]:
    """A finger of the write switch: n and p."""
    nmos, pmos = pdk.devices.nmos, pdk.devices.pmos
    share = design.i_unit / _SWITCH_CURRENT
    n = Geometry(nmos.width.snap(max(_SWITCH_WIDTH * share, nmos.width.min)), nmos.length.min)
    p = Geometry(pmos.width.snap(max(2 * _SWITCH_WIDTH * share, pmos.width.min)), pmos.length.min)
    return n, p


def write_cell(pdk: Pdk, design: CellDesign, direct: bool) -> tuple[str, list[Device]]:
    """The write switch (pins in out wr wrb vdd vss), and its devices."""
    placer = Placer(pdk, "kc_write", direct)
    n, p = switch_sizes(pdk, design)
    return render("mos/write_switch.j2", n=n, p=p, nmos=placer.nmos, pmos=placer.pmos), placer.devices


def read_cell(pdk: Pdk, design: CellDesign, direct: bool) -> tuple[str, list[Device]]:
    """The read buffer (pins in out vdd vss vbn), and its devices."""
    placer = Placer(pdk, "kc_read", direct)
    return render("mos/read_buffer.j2", c=design, nmos=placer.nmos, pmos=placer.pmos), placer.devices
