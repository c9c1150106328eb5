"""Pictures of the cells' schematics, drawn by schemdraw, and an xschem symbol: for whoever lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import schemdraw
import schemdraw.elements as elm

from kcnet_eda.export.mos_cells import BIAS, EDGE_PINS, clamp_line, switch_sizes
from kcnet_eda.export.render import render
from kcnet_eda.physical.cell_design import BOX, CellDesign, Geometry
from kcnet_eda.physical.cell_kind import TANH_CELL, CellKind
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.units import format_si

_FET = 1.67  # drawing units from a transistor's drain to its source
_GATE_OUT = 0.92  # from its channel to its gate's end
_NMOS_GATE, _PMOS_GATE = 1.17, 0.5  # below its upper end
_SMALL, _NET = 9, 10  # points

Point = tuple[float, float]
Side = Literal["left", "right"]


class _Sheet:
    """A drawing: transistors by the point of their upper end, wires by their corners. Units are schemdraw's."""

    def __init__(self) -> None:
        self._drawing = schemdraw.Drawing(show=False, canvas="svg")
        self._drawing.config(fontsize=_SMALL, lw=1.2, margin=0.5)  # text is wider than it is taken to be

    def fet(
        self, kind: str, name: str, size: str, at: Point, gate: Side, net: str = "", *, diode: bool = False
    ) -> Point:
        """A transistor, its upper end at ``at``; ``net`` labels its gate, ``diode`` ties the gate to the drain. Returns
        its lower end."""
        n = kind == "nmos"
        shape = (elm.AnalogNFet if n else elm.AnalogPFet)().theta(0).at(at).anchor("drain" if n else "source")
        self._drawing += shape.reverse() if gate == "left" else shape
        side = 1 if gate == "right" else -1
        x, y = at
        end, gx, gy = (x, y - _FET), x + side * _GATE_OUT, y - (_NMOS_GATE if n else _PMOS_GATE)
        self.text((x - side * 0.15, y - _FET / 2), f"{name}\n{size}", "right" if gate == "right" else "left")
        if net:
            self.net((gx, gy), net, gate)
        if diode:
            drain = at if n else end
            self.wire((gx, gy), (gx, drain[1]), drain)
            self.dot(drain)
        return end

    def wire(self, *points: Point) -> None:
        """Straight pieces from point to point."""
        for a, b in pairwise(points):
            self._drawing += elm.Line().at(a).to(b)

    def dot(self, at: Point) -> None:
        """A junction."""
        self._drawing += elm.Dot(radius=0.07).at(at)

    def text(self, at: Point, text: str, align: str) -> None:
        """Text that ends (``right``) or begins (``left``) at a point."""
        self._drawing += elm.Label().at(at).label(text, fontsize=_SMALL, halign=align, valign="center", ofst=0)

    def net(self, at: Point, name: str, side: Side) -> None:
        """A net's name beside the end of a wire."""
        ofst = 0.12 if side == "right" else -0.12
        align = "left" if side == "right" else "right"
        label = elm.Label().at((at[0] + ofst, at[1]))
        self._drawing += label.label(name, fontsize=_NET, halign=align, valign="center", ofst=0, color="#1f4e99")

    def vdd(self, at: Point) -> None:
        """The supply."""
        self._drawing += elm.Vdd().at(at).label("vdd", fontsize=_NET)

    def ground(self, at: Point) -> None:
        """vss."""
        self._drawing += elm.Ground().at(at)

    def resistor(self, a: Point, b: Point, text: str, side: Literal["top", "bottom"] = "top") -> None:
        """A resistor between two points."""
        self._drawing += elm.Resistor().at(a).to(b).label(text, loc=side, fontsize=_SMALL)

    def capacitor(self, a: Point, b: Point, text: str) -> None:
        """A capacitor between two points."""
        self._drawing += elm.Capacitor().at(a).to(b).label(text, fontsize=_SMALL)

    def svg(self, title: str, at: Point) -> bytes:
        """The finished picture with a title."""
        self.text(at, title, "left")
        return bytes(self._drawing.get_imagedata("svg"))


def _size(g: Geometry, units: str = "") -> str:
    return f"{g.w:g}/{g.l:g}" + (f" ×{units}" if units else "")


def edge_schematic(c: CellDesign) -> bytes:
    """SVG of the rectifying edge cell; k and mk are units, sizes in µm."""
    s = _Sheet()
    low, top, x_row, e_row, pair, right = 3.2, 8.0, 6.0, 3.5, 5.6, 5.2
    for x, gate, net, pin, n in ((0.0, "left", "vbn", "ip", "1"), (right, "right", "vbn", "in", "2")):
        side: Side = "left" if gate == "left" else "right"
        end = s.fet("nmos", f"pair{n}", _size(c.pair, "k"), (x, pair), side, pin)
        s.wire(end, (x, low))
        s.dot((x, e_row))
        s.ground(s.fet("nmos", f"tail{n}", _size(c.tail, "k"), (x, low), side, net))
    # the follower that holds pair1's well
    s.vdd((-3.8, top))
    s.wire((-3.8, top), (-3.8, pair))
    end = s.fet("nmos", "fol", _size(c.pair), (-3.8, pair), "left", "ip")
    s.wire(end, (-3.8, low))
    s.dot((-3.8, e_row))
    s.net((-3.8, e_row), "w1", "right")
    s.ground(s.fet("nmos", "folt", _size(c.tail), (-3.8, low), "left", "vbn"))
    s.resistor((0.0, e_row), (right, e_row), "deg: R = V0/(I0·θ1) − 2/gm", "bottom")
    for x in (1.0, right - 1.0):
        s.dot((x, e_row))
        s.wire((x, e_row), (x, e_row + 0.6))
    s.capacitor((1.0, e_row + 0.6), (right - 1.0, e_row + 0.6), f"{format_si(c.lead, 's')}/R")
    s.net((right, pair), "vdd", "right")
    s.vdd((0.0, top))
    s.wire(s.fet("pmos", "src", f"{c.source.l:g} long, k − θ2 units", (0.0, top), "left", "vbp"), (0.0, pair))
    # node x: the rectifier
    s.wire((0.0, x_row), (8.8, x_row))
    s.dot((0.0, x_row))
    s.net((2.6, x_row + 0.2), "x", "right")
    s.vdd((8.8, top))
    s.wire(s.fet("pmos", "mir", _size(c.mirror, "mk"), (8.8, top), "right"), (8.8, x_row))
    s.wire((8.8 + _GATE_OUT, top - _PMOS_GATE), (8.8 + _GATE_OUT, x_row), (8.8, x_row))
    s.dot((8.8, x_row))
    s.ground(s.fet("pmos", "clamp", f"{c.clamp.w:g}·f²/mk wide\n{c.clamp.l:g} long", (8.8, x_row), "right", "vclp"))
    s.wire((8.8 + _GATE_OUT, top - _PMOS_GATE), (11.6 - _GATE_OUT, top - _PMOS_GATE))
    s.vdd((11.6, top))
    end = s.fet("pmos", "out", _size(c.mirror, "mk"), (11.6, top), "left")
    s.wire(end, (11.6, 5.6))
    s.net((11.6, 5.4), "d", "right")
    # the cascoded sink
    s.vdd((14.6, top))
    s.wire(s.fet("pmos", "copy", _size(c.mirror, "mk"), (14.6, top), "left", "x"), (14.6, pair))
    s.wire(s.fet("nmos", "cas1", _size(c.cascode, "mk"), (14.6, pair), "right", diode=True), (14.6, low))
    s.ground(s.fet("nmos", "snk1", _size(c.sink, "mk"), (14.6, low), "right", diode=True))
    s.wire((18.8, 6.2), (18.8, pair))
    s.net((18.8, 6.4), "s", "right")
    s.wire(s.fet("nmos", "cas2", _size(c.cascode, "mk"), (18.8, pair), "left"), (18.8, low))
    s.ground(s.fet("nmos", "snk2", f"{c.sink.w:g}/trim ×mk", (18.8, low), "left"))
    for y in (pair - _NMOS_GATE, low - _NMOS_GATE):
        s.wire((14.6 + _GATE_OUT, y), (18.8 - _GATE_OUT, y))
    # the trickle: into y, and back to s
    s.dot((14.6, 5.6))
    s.net((14.7, 5.6), "y", "right")
    for x, name, net in ((21.6, "trk1", "y"), (24.8, "trk2", "s")):
        s.vdd((x, top))
        s.wire(s.fet("pmos", name, _size(c.trickle), (x, top), "left", "vbp"), (x, 5.6))
        s.net((x, 5.4), net, "right")
    title = "Edge cell: i(s → d) = I0·ReLU(θ1·(v(ip) − v(in))/V0 + θ2). W/L in µm, ×units in parallel"
    notes = (
        "p-wells: pair1 and fol in w1, pair2 in its source; all others in vss. The netlist has the wells' capacitance",
        f"f = ({2 * BOX:g}·|θ1| + θ2)/{c.full_scale_per_mirror:g}: the cell's full scale over a mirror unit's. Where "
        "the clamp cannot be drawn so narrow, it is longer",
    )
    for y, note in zip((9.9, 9.3), notes, strict=True):
        s.text((-5.6, y), note, "left")
    return s.svg(title, (-5.6, 10.5))


def bias_schematic(pdk: Pdk, c: CellDesign) -> bytes:
    """SVG of the bias generator."""
    s = _Sheet()
    top, mid, low = 8.0, 5.6, 3.0
    small = clamp_line(pdk, c)
    # reference amplifier
    s.vdd((0, top))
    s.resistor((0, top), (0, mid), "amp")
    s.wire((0, mid), (0, low))
    s.ground(s.fet("nmos", "ab", _size(c.tail, "2"), (0, low), "right", "ab", diode=True))
    for x, gate, name, load, net in ((3.4, "left", "a1", "a3", "vref"), (7.6, "right", "a2", "a4", "fb")):
        side: Side = "left" if gate == "left" else "right"
        s.vdd((x, top))
        other: Side = "right" if gate == "left" else "left"
        end = s.fet("pmos", load, _size(c.source), (x, top), other, diode=load == "a3")
        s.wire(end, (x, mid))
        s.wire(s.fet("nmos", name, _size(c.pair, "2"), (x, mid), side, net), (x, 3.5), (5.5, 3.5))
    s.wire((3.4 + _GATE_OUT, top - _PMOS_GATE), (7.6 - _GATE_OUT, top - _PMOS_GATE))
    s.dot((7.6, mid))
    s.wire((7.6, mid), (8.7, mid))
    s.net((8.1, mid + 0.2), "g", "right")
    s.wire((5.5, 3.5), (5.5, low))
    s.dot((5.5, 3.5))
    s.ground(s.fet("nmos", "at", _size(c.tail, "2"), (5.5, low), "left", "ab"))
    # V_ref over R
    s.vdd((11.0, top))
    s.wire(s.fet("pmos", "pm", _size(c.source, "2"), (11.0, top), "right", "pm", diode=True), (11.0, mid))
    end = s.fet("nmos", "pass", _size(c.pair, "4"), (11.0, mid), "left", "g")
    s.dot(end)
    s.net(end, "fb", "right")
    s.resistor(end, (11.0, 1.4), "ref: v(vref)/(2·I0)")
    s.ground((11.0, 1.4))
    # gate lines
    for x, p, n, p_net, p_diode, line in (
        (14.4, "pn", "bn", "pm", False, "vbn"),
        (17.8, "bp2", "bp1", "", True, "vbp"),
    ):
        s.vdd((x, top))
        s.wire(s.fet("pmos", p, _size(c.source), (x, top), "left", p_net, diode=p_diode), (x, low))
        n_net = "" if not p_diode else "vbn"
        s.ground(s.fet("nmos", n, _size(c.tail), (x, low), "left", n_net, diode=not p_diode))
        s.dot((x, 4.2))
        s.wire((x, 4.2), (x + 0.8, 4.2))
        s.net((x + 0.8, 4.2), line, "right")
    # the clamps' line
    s.vdd((21.4, top))
    s.wire(s.fet("pmos", "c1", _size(small.source), (21.4, top), "left", "vbp"), (21.4, low))
    s.ground(s.fet("nmos", "c2", _size(small.sink, f"{small.down}"), (21.4, low), "right", diode=True))
    s.vdd((25.8, top))
    end = s.fet("pmos", "c4", _size(c.mirror, f"{small.out}"), (25.8, top), "right", diode=True)
    s.wire(end, (25.8, mid))
    s.wire(s.fet("pmos", "c5", _size(c.clamp, f"{small.out}"), (25.8, mid), "right", "vclp", diode=True), (25.8, low))
    s.ground(s.fet("nmos", "c3", _size(small.sink), (25.8, low), "left"))
    s.wire((21.4 + _GATE_OUT, low - _NMOS_GATE), (25.8 - _GATE_OUT, low - _NMOS_GATE))
    return s.svg(
        "Bias generator: I0 = v(vref)/(2·R) with R of the edges' type. W/L in µm; capacitors on g, vbn, vbp, vclp",
        (-1.5, 9.6),
    )


def periphery_schematics(pdk: Pdk, c: CellDesign) -> dict[str, bytes]:
    """SVG of the write switch and of the read buffer."""
    s = _Sheet()
    sizes = dict(zip(("nmos", "pmos"), switch_sizes(pdk, c), strict=True))
    for x, kind, name, gate in ((0.0, "nmos", "sn", "wr"), (3.4, "pmos", "sp", "wrb")):
        s.wire(s.fet(kind, name, _size(sizes[kind], "2"), (x, 3.0), "left", gate), (x, 0.9))
        s.wire((x, 3.0), (x, 3.6))
    s.wire((-1.0, 0.9), (3.4, 0.9))
    s.dot((0.0, 0.9))
    s.dot((3.4, 3.6))
    s.net((-1.0, 0.9), "in", "left")
    s.wire((0.0, 3.6), (13.6, 3.6))
    s.net((13.6, 3.6), "out", "right")
    for x, kind, name, gate in ((6.8, "nmos", "dn", "wrb"), (11.2, "pmos", "dp", "wr")):
        end = s.fet(kind, name, _size(sizes[kind]), (x, 3.0), "left", gate)
        s.wire((x, 3.6), (x, 3.0))
        s.wire(end, (x, end[1] - 0.2), (x + 1.5, end[1] - 0.2), (x + 1.5, 3.6))
        s.dot((x + 1.5, 3.6))
        s.dot((x, 3.6))
    write = s.svg("Write switch; the shorted halves take up its charge. W/L in µm", (-1.0, 4.6))
    r = _Sheet()
    for x, gate, name, load, net in ((0.0, "left", "in", "m1", "in"), (4.4, "right", "fb", "m2", "out")):
        side: Side = "left" if gate == "left" else "right"
        other: Side = "right" if gate == "left" else "left"
        r.vdd((x, 6.0))
        r.wire(r.fet("pmos", load, _size(c.mirror, "8"), (x, 6.0), other, diode=load == "m1"), (x, 3.6))
        size = f"{c.pair.w:g}/{2 * c.pair.l:g} ×8"
        r.wire(r.fet("nmos", name, size, (x, 3.6), side, net), (x, 1.6), (2.2, 1.6))
    r.wire((_GATE_OUT, 6.0 - _PMOS_GATE), (4.4 - _GATE_OUT, 6.0 - _PMOS_GATE))
    r.dot((4.4, 3.9))
    r.wire((4.4, 3.9), (5.6, 3.9))
    r.net((5.6, 3.9), "out", "right")
    r.dot((2.2, 1.6))
    r.ground(r.fet("nmos", "tail", _size(c.tail, "8"), (2.2, 1.6), "left", "vbn"))
    return {
        "kc_write.svg": write,
        "kc_read.svg": r.svg("Read buffer: five transistors as a follower. W/L in µm", (-1.0, 7.6)),
    }


def edge_symbol(cell: str, parameters: Mapping[str, float]) -> str:
    """An xschem symbol of an edge cell: pins in the netlist's order, parameter ``cell`` the subcircuit; ``cell`` and
    ``parameters`` are what a new instance has."""
    places: Sequence[tuple[int, int]] = (
        *((-80, -20), (80, -20), (-80, 10), (-80, 30)),
        *((0, -70), (0, 70), (80, 10), (80, 30), (80, 50)),
    )
    pins = [(name, way, x, y) for (name, way), (x, y) in zip(EDGE_PINS, places, strict=True)]
    return render("mos/edge.sym.j2", pins=pins, cell=cell, parameters=parameters)


def tanh_schematic(c: CellDesign) -> bytes:
    """SVG of the tanh edge cell: one of its two pairs, the mirrors and the sinks."""
    s = _Sheet()
    top, low = 8.0, 3.2
    e_row, pair = 3.5, 5.6
    for x, gate, pin, n, end in ((0.0, "left", "ip", "1", "d"), (4.2, "right", "in", "2", "s")):
        side: Side = "left" if gate == "left" else "right"
        away = -1 if gate == "left" else 1
        s.vdd((x, top))
        other: Side = "right" if gate == "left" else "left"
        s.wire(s.fet("pmos", f"m{n}", "×mk", (x, top), side, diode=True), (x, pair))
        s.wire(s.fet("nmos", f"p1{n}", f"{c.pair.l:g} long", (x, pair), side, pin), (x, low))
        s.dot((x, e_row))
        s.ground(s.fet("nmos", f"t1{n}", f"{c.tail.l:g} long", (x, low), side, "vbn"))
        out = x + 5.0 * away
        s.vdd((out, top))
        s.wire((x + away * _GATE_OUT, top - _PMOS_GATE), (out - away * _GATE_OUT, top - _PMOS_GATE))
        s.wire(s.fet("pmos", f"o{n}", "×mk", (out, top), other), (out, low))
        s.dot((out, 4.6))
        s.wire((out, 4.6), (out + 0.8 * away, 4.6))
        s.net((out + 0.8 * away, 4.6), end, side)
        s.ground(s.fet("nmos", f"snk{n}", "k units", (out, low), side, "vbn"))
    s.resistor((0.0, e_row), (4.2, e_row), "deg1")
    s.text(
        (-6.8, 10.2), "second pair of a smaller slope (p21, p22, t21, t22, deg2) in parallel at a1, a2, ip, in", "left"
    )
    s.text(
        (-6.8, 9.6),
        "PMOS src1 from vdd into the node of t12, gate vbp: the offset. Each side of a pair in its own p-well",
        "left",
    )
    title = "Tanh cell: i(s → d) = I0·k·tanh(a·(v(ip) − v(in))/V0 + c). Lengths in µm"
    return s.svg(title, (-6.8, 10.8))


def write_schematics(
    folder: Path, pdk: Pdk, design: CellDesign, examples: Mapping[CellKind, tuple[str, Sequence[float]]]
) -> None:
    """Write pictures and symbols into ``folder``, which is made; ``examples`` are a cell and its parameters of each
    kind that there is."""
    folder.mkdir()
    draw = {kind.prefix: tanh_schematic if kind is TANH_CELL else edge_schematic for kind in examples}
    pictures = {
        **{f"{prefix}.svg": picture(design) for prefix, picture in draw.items()},
        f"{BIAS}.svg": bias_schematic(pdk, design),
        **periphery_schematics(pdk, design),
    }
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture)
    for kind, (cell, theta) in examples.items():
        names = ("slope", "offset", "k") if kind is TANH_CELL else ("theta1", "theta2")
        symbol = edge_symbol(cell, dict(zip(names, theta, strict=False)))
        (folder / f"{kind.prefix}.sym").write_text(symbol)
