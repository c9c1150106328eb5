"""A network in transistors: which cell each edge is, what is drawn of each node's capacitor, and all of it as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.export.circuit import Circuit
from kcnet_eda.export.mos_cells import BIAS, Device, Placer, bias_cell, edge_cells, read_cell, write_cell
from kcnet_eda.export.pdk_deck import model_header
from kcnet_eda.export.render import render
from kcnet_eda.physical.calibration import Calibration, ExampleRun, OperatingPoint
from kcnet_eda.physical.cell_design import BOX, CellDesign
from kcnet_eda.physical.mos_cell import CellEdges
from kcnet_eda.physical.pdk import Pdk, shipped_pdks

Floats = NDArray[np.float64]

#: How nodes start: held by .ic in the operating point, or written through switches.
STARTS = ("ic", "switches")
#: Of a model unit of time: how long the switches write, some 40 of their time constants, and their gates' edges.
WRITE_SHARE, _EDGE_SHARE = 0.1, 1 / 300

#: Of a bundle whose kit is not a shipped one.
KIT_FILE = "pdk.yaml"
_FF = 1e15  # a farad


@dataclass(frozen=True, eq=False)
class MosCircuit:
    """The transistors of a circuit: its edges as cells, the cells as calibrated. ``direct`` places the transistors'
    own models instead of their wrapper subcircuits. ``start`` is one of :data:`STARTS`. ``operating`` are the operating
    points of one cell's and the bias generator's transistors, ``example`` what the bundle's example did here."""

    circuit: Circuit
    pdk: Pdk
    design: CellDesign
    edges: CellEdges
    calibration: Calibration
    direct: bool
    warnings: tuple[str, ...] = ()
    start: str = "ic"
    operating: tuple[OperatingPoint, ...] = ()
    example: ExampleRun | None = None

    def header(self, models: str | Path, osdi: Sequence[str | Path]) -> str:
        """The lines that load the kit's models from ``models``."""
        return model_header(self.pdk, models, osdi, direct=self.direct)

    def as_dict(self) -> dict[str, Any]:
        """What a manifest says of it; a kit that is not shipped is in the bundle's own file."""
        c = self.calibration
        return {
            "pdk": self.pdk.name,
            "pdk_file": None if shipped_pdks().get(self.pdk.name) == self.pdk.file else KIT_FILE,
            "direct": self.direct,
            "write_time": self.write_time,
            "example": None if self.example is None else asdict(self.example),
            "design": asdict(self.design),
            "cells": len(self.cell_names),
            "cell_instances": len(self.edges),
            "idle_edges": self.edges.idle.tolist(),
            "fit": {
                "max_theta_error": float(np.abs([c.fitted1 - c.theta1, c.fitted2 - c.theta2]).max(initial=0.0)),
                "max_error_of_full_scale": float(c.share_of_full_scale(c.max_error).max(initial=0.0)),
                "rms_error_of_full_scale": float(c.share_of_full_scale(c.rms_error).max(initial=0.0)),
            },
            "static_power_w": self.static_current * self.design.supply,
            "area_um2": self.area(),
        }

    @cached_property
    def cell_names(self) -> tuple[str, ...]:
        """The subcircuit of each kind of cell."""
        return tuple(f"kc_edge_{i}" for i in range(self.calibration.theta1.size))

    @cached_property
    def instances(self) -> list[tuple[str, str, str, str, str, str]]:
        """Name, nets of s, d, ip and in, and subcircuit of each cell."""
        e, nets = self.edges, self.circuit.nets
        found = []
        rows = zip(e.source.tolist(), e.target.tolist(), e.swapped.tolist(), e.cell.tolist(), strict=True)
        for i, (source, target, swapped, cell) in enumerate(rows):
            s, d = nets[source], nets[target]
            sensed = (d, s) if swapped else (s, d)
            found.append((f"xe{i}", s, d, *sensed, self.cell_names[cell]))
        return found

    @cached_property
    def parasitics(self) -> Floats:
        """What the cells' pins add to each node, F [nodes]."""
        c = np.zeros(len(self.circuit.nets))
        np.add.at(c, self.edges.source, self.calibration.source_pin[self.edges.cell])
        np.add.at(c, self.edges.target, self.calibration.target_pin[self.edges.cell])
        return c

    @property
    def write_time(self) -> float:
        """Seconds for which switches write the nodes before the network evolves; 0 where .ic holds them."""
        return WRITE_SHARE * self.circuit.scaling.t_unit if self.start == "switches" else 0.0

    @property
    def drawn_capacitance(self) -> Floats:
        """What is left to draw of each node's capacitor, F [nodes]."""
        return self.circuit.scaling.c - self.parasitics

    def capacitance_problems(self) -> list[str]:
        """Nodes whose cells alone have more capacitance than the node may have; empty if there are none."""
        c = self.circuit.scaling.c
        return [
            f"node {net} has {1e15 * own:.0f} fF of its {1e15 * c:.0f} fF in its cells' pins"
            for net, own in zip(self.circuit.nets[1:], self.parasitics[1:].tolist(), strict=True)
            if own >= c
        ]

    @cached_property
    def _cells(self) -> list[tuple[str, list[Device]]]:
        theta = list(zip(self.calibration.theta1.tolist(), self.calibration.theta2.tolist(), strict=True))
        return list(edge_cells(self.pdk, self.design, self.calibration.sizes, theta, self.cell_names, self.direct))

    @cached_property
    def _bias(self) -> tuple[str, list[Device]]:
        placer = Placer(self.pdk, BIAS, self.direct)
        return bias_cell(placer, self.design, len(self.edges)), placer.devices

    @cached_property
    def _write_cell(self) -> tuple[str, list[Device]]:
        return write_cell(self.pdk, self.design, self.direct)

    @property
    def static_current(self) -> float:
        """Supply current of all cells, mean over the box of node voltages [A]."""
        return float(self.calibration.supply_current[self.edges.cell].sum())

    def devices(self) -> list[tuple[Device, int]]:
        """Every kind of device with how many cells have it."""
        times = np.bincount(self.edges.cell, minlength=len(self.cell_names)).tolist()
        found = [(device, 1) for device in self._bias[1]]
        if self.write_time:
            nodes = len(self.circuit.nets) - 1
            found += [(device, nodes) for device in self._write_cell[1]]
        for n, (_, devices) in zip(times, self._cells, strict=True):
            found += [(device, n) for device in devices]
        return found

    def area(self) -> dict[str, float]:
        """Drawn area in µm²: gates, resistors and capacitors, without wiring, contacts and wells."""
        gates = sum(n * d.m * d.w * d.l for d, n in self.devices() if d.kind != "resistor")
        resistors = sum(n * d.m * d.w * d.l for d, n in self.devices() if d.kind == "resistor")
        leads = float((self.design.lead / self.calibration.sizes.resistance)[self.edges.cell].sum())
        capacitors = (float(self.drawn_capacitance[1:].clip(0).sum()) + leads) * _FF / self.pdk.capacitor.density
        return {"gates": gates, "resistors": resistors, "capacitors": capacitors}

    def readme(self) -> dict[str, Any]:
        """What the bundle's README says beyond the circuit itself."""
        c = self.calibration
        miss = np.maximum(np.abs(c.fitted1 - c.theta1), np.abs(c.fitted2 - c.theta2))
        rows = (
            ("fitted against trained θ1, θ2, largest difference", miss, "{:.4f}"),
            ("largest error, of full scale 4·abs(θ1) + θ2", 100 * c.share_of_full_scale(c.max_error), "{:.2f} %"),
            ("rms error, of full scale", 100 * c.share_of_full_scale(c.rms_error), "{:.2f} %"),
            ("current out of s less current into d, of full scale", 100 * c.mismatch, "{:.2f} %"),
            ("off current [nA]", 1e9 * c.leakage[np.isfinite(c.leakage)], "{:.3f}"),
        )
        return {
            "box": BOX,
            "measured": [(name, f.format(np.median(v)), f.format(v.max())) for name, v, f in rows if v.size],
            "area": self.area(),
            "design": asdict(self.design),
            "pins_min": float(self.parasitics[1:].min()),
            "pins_max": float(self.parasitics[1:].max()),
        }

    def netlist(self, supply: float | None = None) -> str:
        """The circuit without models and initial voltages, which a testbench brings; ``supply`` [V] is the design's if
        None, and changes no device."""
        return render(
            "mos/netlist.j2",
            circuit=self.circuit,
            pdk=self.pdk,
            design=self.design if supply is None else replace(self.design, supply=supply),
            scaling=self.circuit.scaling,
            rail=self.circuit.nets[0],
            box=BOX,
            bias=self._bias[0],
            bias_name=BIAS,
            cells=[text for text, _ in self._cells],
            instances=self.instances,
            write_time=self.write_time,
            write_cell=self._write_cell[0],
            edge_time=_EDGE_SHARE * self.circuit.scaling.t_unit,
            nets=list(zip(self.circuit.nets[1:], self.drawn_capacitance[1:].tolist(), strict=True)),
        )

    def periphery(self) -> str:
        """The cells that put voltages on nodes and read them, which the testbenches' ideal sources do without."""
        read = read_cell(self.pdk, self.design, self.direct)[0]
        return "* Write switch and read buffer, for use beside the circuit\n" + self._write_cell[0] + read

    def edge_map_csv(self) -> str:
        """Every trained edge with its cell, its sizes, and the law that was fitted to it."""
        c, s = self.calibration, self.calibration.sizes
        share, rms = c.share_of_full_scale(c.max_error), c.share_of_full_scale(c.rms_error)
        rows: list[Sequence[object]] = []
        for name, e, cell, swapped in zip(
            (i[0] for i in self.instances),
            self.edges.edge.tolist(),
            self.edges.cell.tolist(),
            self.edges.swapped.tolist(),
            strict=True,
        ):
            sign = -1.0 if swapped else 1.0
            i = self.instances[len(rows)]
            rows.append(
                [
                    *(e, name, i[5], i[1], i[2]),
                    *(f"{v:.6g}" for v in (sign * c.theta1[cell], c.theta2[cell])),
                    *(f"{v:.6g}" for v in (sign * c.fitted1[cell], c.fitted2[cell])),
                    *(f"{100 * v:.3f}" for v in (share[cell], rms[cell])),
                    *(s.k[cell], s.mk[cell]),
                    *(f"{v:.6g}" for v in (s.resistance[cell], s.source_width[cell], s.sink_length[cell])),
                ]
            )
        rows += [[e, "", "", "", "", "", "", "", "", "", "", "", "", "", "", ""] for e in self.edges.idle.tolist()]
        head = (
            "edge,instance,cell,source,target,theta1,theta2,fitted_theta1,fitted_theta2,max_error_percent,"
            "rms_error_percent,k,mk,resistance_ohm,source_width_um,sink_length_um"
        )
        return _csv(head, sorted(rows, key=lambda row: (row[0], row[1])))

    def devices_csv(self) -> str:
        """Every kind of device, how often it occurs, and the area it draws in all."""
        rows = [
            (d.cell, d.name, d.kind, f"{d.w:.9g}", f"{d.l:.9g}", d.m, n, f"{n * d.m * d.w * d.l:.6g}")
            for d, n in self.devices()
        ]
        return _csv("cell,device,kind,w_um,l_um,parallel,cells,area_um2", rows)


def _csv(head: str, rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head.split(","))
    writer.writerows(rows)
    return out.getvalue()
