"""The operating point of every transistor of one edge cell and of the bias generator, for a designer to read."""

from __future__ import annotations

from pathlib import Path

from kcnet_eda.export.mos_cells import BIAS, BIAS_PINS, EDGE_PINS, Device, MeteredPlacer, bias_cell, edge_cell
from kcnet_eda.export.render import render
from kcnet_eda.physical.calibration import Calibration, OperatingPoint
from kcnet_eda.physical.gmid import GmIdTable
from kcnet_eda.study.mos.rig import Rig
from kcnet_eda.study.mos.sizing import gmid_tables
from kcnet_eda.tools.rawfile import read_sweep

_TIMEOUT_S = 120.0


def operating_points(rig: Rig, found: Calibration, at: int, name: str, x: float) -> list[OperatingPoint]:
    """Of cell ``at`` of a calibration, called ``name``, with its sensing pins ``x`` model units apart around the common
    mode, then of the bias generator.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    design = rig.design
    edge, bias = MeteredPlacer(rig.pdk, name, rig.direct), MeteredPlacer(rig.pdk, BIAS, rig.direct)
    theta = found.theta[at].tolist()
    sensed, x = ("d s", -x) if theta[0] < 0 else ("s d", x)
    deck = render(
        "mos/operating_point.j2",
        header=rig.header(),
        design=design,
        bias=bias_cell(bias, design, 1),
        cell=edge_cell(edge, design, found.sizes, at, theta),
        bias_name=BIAS,
        name=name,
        sensed=sensed,
        v_s=design.v_cm + design.v_unit * x / 2,
        v_d=design.v_cm - design.v_unit * x / 2,
    )
    own = {pin: pin for pin, _ in EDGE_PINS} | dict(zip(("ip", "in"), sensed.split(), strict=True)) | {"vss": ""}
    outer = {pin: pin for pin in BIAS_PINS} | {"vss": ""}
    tables = dict(zip(("nmos", "pmos"), gmid_tables(rig), strict=True))
    wanted = []
    for placer, instance, pins in ((edge, "xcell", own), (bias, "xbias", outer)):
        for device in placer.devices:
            if device.kind != "resistor":
                nets = [pins.get(net, f"{instance}.{net}") for net in placer.terminals[device.name]]
                wanted.append((device, f"i(v.{instance}.vm{device.name})", nets))

    def read(folder: Path) -> list[OperatingPoint]:
        names = list(dict.fromkeys(n for _, meter, nets in wanted for n in (meter, *nets) if n))
        _, values = read_sweep(folder / "op.raw", names, 0.0)
        value = dict(zip(names, values[0].tolist(), strict=True)) | {"": 0.0}  # vss is ground
        return [
            _point(device, value[meter], (value[nets[0]], value[nets[1]], value[nets[2]]), tables[device.kind])
            for device, meter, nets in wanted
        ]

    return rig.run(deck, "operating-point", _TIMEOUT_S, read)


def _point(
    device: Device, into_drain: float, terminals: tuple[float, float, float], table: GmIdTable
) -> OperatingPoint:
    drain, gate, source = terminals
    sign = 1.0 if device.kind == "nmos" else -1.0
    current = sign * into_drain
    density = current / (device.m * device.w)
    covered = density > 0 and table.reaches(density, device.l)
    gm_id = table.gm_id_at(density, device.l) if covered else None
    d = device
    return OperatingPoint(
        d.cell, d.name, d.kind, d.w, d.l, d.m, current, sign * (gate - source), sign * (drain - source), gm_id
    )
