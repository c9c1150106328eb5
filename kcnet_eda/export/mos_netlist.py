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
from kcnet_eda.physical.calibration import Calibration, CellGroup, ExampleRun, OperatingPoint, TrimRun
from kcnet_eda.physical.cell_design import BOX, CellDesign
from kcnet_eda.physical.cell_kind import RELU_CELL
from kcnet_eda.physical.mos_cell import CellSizes
from kcnet_eda.physical.pdk import Pdk, is_shipped
from kcnet_eda.physical.tanh_cell import TanhLimits

Floats = NDArray[np.float64]

#: How nodes start: held by .ic in the operating point, or written through switches.
STARTS = ("ic", "switches")
#: Of a model unit of time: how long the switches write, more than ten of their time constants, and their gates' edges.
WRITE_SHARE, _EDGE_SHARE = 0.1, 1 / 300

#: Of a bundle whose kit is not a shipped one, or has its models elsewhere.
KIT_FILE = "pdk.yaml"
_FF = 1e15  # a farad


@dataclass(frozen=True, eq=False)
class MosCircuit:
    """The transistors of a circuit: its edges as calibrated cells, a group for each kind of cell. ``direct`` places the
    transistors' own models instead of their wrapper subcircuits. ``start`` is one of :data:`STARTS`. ``operating`` are
    the operating points of one cell's transistors of each kind and of the bias generator's, ``example`` what the
    bundle's example did here, ``models`` their folder, where nothing but the bundle can tell. Where cells were trimmed
    by runs of the network, ``trim`` says what that did, and each node's capacitance is C and a ``capacitance_share``
    [nodes without ground] of it."""

    circuit: Circuit
    pdk: Pdk
    design: CellDesign
    groups: tuple[CellGroup, ...]
    direct: bool
    warnings: tuple[str, ...] = ()
    start: str = "ic"
    operating: tuple[OperatingPoint, ...] = ()
    example: ExampleRun | None = None
    models: Path | None = None
    capacitance_share: Floats | None = None
    trim: TrimRun | None = None

    @property
    def kit_file(self) -> str | None:
        """The bundle's own file of the kit; None if it is as shipped."""
        return None if is_shipped(self.pdk) and self.models is None else KIT_FILE

    def header(self, models: str | Path, osdi: Sequence[str | Path]) -> str:
        """The lines that load the kit's models from ``models``."""
        return model_header(self.pdk, models, osdi, direct=self.direct)

    def as_dict(self) -> dict[str, Any]:
        """What a manifest says of it; a kit that is not shipped is in the bundle's own file."""
        return {
            "pdk": self.pdk.name,
            "pdk_file": self.kit_file,
            "direct": self.direct,
            "write_time": self.write_time,
            "example": None if self.example is None else asdict(self.example),
            "trim": None if self.trim is None else asdict(self.trim),
            "design": asdict(self.design),
            "cells": len(self.cell_names),
            "cell_instances": self.n_instances,
            "idle_edges": self.idle,
            "fit": _worst([group.found for group in self.groups]),
            "kinds": {
                group.found.kind.name: _worst([group.found])
                | {"cells": len(group.names), "instances": len(group.edges)}
                for group in self.groups
            },
            "static_power_w": self.static_current * self.design.supply,
            "area_um2": self.area(),
        }

    @cached_property
    def cell_names(self) -> tuple[str, ...]:
        """The subcircuit of each distinct cell."""
        return tuple(name for group in self.groups for name in group.names)

    @property
    def n_instances(self) -> int:
        """Cells of all edges."""
        return sum(len(group.edges) for group in self.groups)

    @property
    def idle(self) -> list[int]:
        """Trained edges that have no cell."""
        return sorted(edge for group in self.groups for edge in group.edges.idle.tolist())

    @cached_property
    def instances(self) -> list[tuple[str, str, str, str, str, str]]:
        """Name, nets of s, d, ip and in, and subcircuit of each cell."""
        nets = self.circuit.nets
        found: list[tuple[str, str, str, str, str, str]] = []
        for group in self.groups:
            e, names = group.edges, group.names
            rows = zip(e.source.tolist(), e.target.tolist(), e.swapped.tolist(), e.cell.tolist(), strict=True)
            for source, target, swapped, cell in rows:
                s, d = nets[source], nets[target]
                sensed = (d, s) if swapped else (s, d)
                found.append((f"xe{len(found)}", s, d, *sensed, names[cell]))
        return found

    @cached_property
    def parasitics(self) -> Floats:
        """What the cells' pins add to each node, F [nodes]."""
        c = np.zeros(len(self.circuit.nets))
        for group in self.groups:
            e, found = group.edges, group.found
            np.add.at(c, e.source, found.source_pin[e.cell])
            np.add.at(c, e.target, found.target_pin[e.cell])
        return c

    @property
    def write_time(self) -> float:
        """Seconds for which switches write the nodes before the network evolves; 0 where .ic holds them."""
        return WRITE_SHARE * self.circuit.scaling.t_unit if self.start == "switches" else 0.0

    @property
    def drawn_capacitance(self) -> Floats:
        """What is left to draw of each node's capacitor, F [nodes]; none where its cells have as much or more."""
        c = np.full(len(self.circuit.nets), self.circuit.scaling.c)
        if self.capacitance_share is not None:
            c[1:] *= 1 + self.capacitance_share
        return np.maximum(c - self.parasitics, 0.0)

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
        return [
            cell
            for group in self.groups
            for cell in edge_cells(
                self.pdk, self.design, group.found.sizes, group.found.theta.tolist(), group.names, self.direct
            )
        ]

    @cached_property
    def _bias(self) -> tuple[str, list[Device]]:
        placer = Placer(self.pdk, BIAS, self.direct)
        return bias_cell(placer, self.design, self.n_instances), placer.devices

    @cached_property
    def _write_cell(self) -> tuple[str, list[Device]]:
        return write_cell(self.pdk, self.design, self.direct)

    @property
    def static_current(self) -> float:
        """Supply current of all cells, mean over the box of node voltages [A]."""
        return float(sum(group.found.supply_current[group.edges.cell].sum() for group in self.groups))

    def devices(self) -> list[tuple[Device, int]]:
        """Every kind of device with how many cells have it."""
        times = [n for group in self.groups for n in np.bincount(group.edges.cell, minlength=len(group.names)).tolist()]
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
        leads = sum(
            float((self.design.lead / group.found.sizes.resistance)[group.edges.cell].sum())
            for group in self.groups
            if isinstance(group.found.sizes, CellSizes)
        )
        capacitors = (float(self.drawn_capacitance[1:].sum()) + leads) * _FF / self.pdk.capacitor.density
        return {"gates": gates, "resistors": resistors, "capacitors": capacitors}

    def readme(self) -> dict[str, Any]:
        """What the bundle's README says beyond the circuit itself."""
        return {
            "box": BOX,
            "kinds": {group.found.kind.name for group in self.groups},
            "tanh_range": TanhLimits().range_text(),
            "measured": [(group, _measured(group.found)) for group in self.groups],
            "area": self.area(),
            "design": asdict(self.design),
            "pins_min": float(self.parasitics[1:].min()),
            "pins_max": float(self.parasitics[1:].max()),
        }

    def netlist(self, supply: float | None = None, supply_ohms: float = 0.0) -> str:
        """The circuit without models and initial voltages, which a testbench brings; ``supply`` [V] is the design's if
        None, and changes no device, nor does the resistance ``supply_ohms`` in front of all cells."""
        return render(
            "mos/netlist.j2",
            circuit=self.circuit,
            pdk=self.pdk,
            design=self.design if supply is None else replace(self.design, supply=supply),
            supply_ohms=supply_ohms,
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
        head = (
            "edge,instance,cell,source,target,theta1,theta2,fitted_theta1,fitted_theta2,max_error_percent,"
            "rms_error_percent,k,mk,resistance_ohm,source_width_um,sink_length_um,law,gain,fitted_gain"
        )
        rows: list[Sequence[object]] = []
        for group in self.groups:
            e, c = group.edges, group.found
            share, rms = c.share_of_full_scale(c.max_error), c.share_of_full_scale(c.rms_error)
            for edge, cell in zip(e.edge.tolist(), e.cell.tolist(), strict=True):
                name, s, d, _, _, kind = self.instances[len(rows)]
                rows.append(
                    [
                        *(edge, name, kind, s, d),
                        *(f"{v:.6g}" for v in (c.theta1[cell], c.theta2[cell])),
                        *(f"{v:.6g}" for v in (c.fitted1[cell], c.fitted2[cell])),
                        *(f"{100 * v:.3f}" for v in (share[cell], rms[cell])),
                        *_sizes_of(c, cell),
                        *(c.kind.name, f"{c.theta[cell, 2]:.6g}", f"{c.fitted[cell, 2]:.6g}"),
                    ]
                )
        rows += [[edge, *[""] * head.count(",")] for edge in self.idle]
        return _csv(head, sorted(rows, key=lambda row: (row[0], row[1])))

    def devices_csv(self) -> str:
        """Every kind of device, how often it occurs, and the area it draws in all."""
        rows = [
            (d.cell, d.name, d.kind, f"{d.w:.9g}", f"{d.l:.9g}", d.m, n, f"{n * d.m * d.w * d.l:.6g}")
            for d, n in self.devices()
        ]
        return _csv("cell,device,kind,w_um,l_um,parallel,cells,area_um2", rows)


def _worst(found: Sequence[Calibration]) -> dict[str, float]:
    """The worst of calibrated cells: parameters' difference, errors as shares of full scale, mismatch of the ends."""
    return {
        "max_theta_error": float(max(c.miss.max() for c in found)),
        "max_error_of_full_scale": float(max(c.share_of_full_scale(c.max_error).max() for c in found)),
        "rms_error_of_full_scale": float(max(c.share_of_full_scale(c.rms_error).max() for c in found)),
        "max_mismatch_of_full_scale": float(max(c.mismatch.max() for c in found)),
    }


def _measured(c: Calibration) -> list[tuple[str, str, str]]:
    """What was measured of cells of one kind: name, median and worst."""
    rectifies = c.kind is RELU_CELL
    parameters, full_scale = ("θ1, θ2", "4·abs(θ1) + θ2") if rectifies else ("a, c, k", "k")
    rows = (
        (f"fitted against trained {parameters}, largest difference", c.miss, "{:.4f}"),
        (f"largest error, of full scale {full_scale}", 100 * c.share_of_full_scale(c.max_error), "{:.2f} %"),
        ("rms error, of full scale", 100 * c.share_of_full_scale(c.rms_error), "{:.2f} %"),
        ("current out of s less current into d, of full scale", 100 * c.mismatch, "{:.2f} %"),
        ("off current [nA]", 1e9 * c.leakage[np.isfinite(c.leakage)], "{:.3f}"),
    )
    return [(name, f.format(np.median(v)), f.format(v.max())) for name, v, f in rows if v.size]


def _sizes_of(c: Calibration, cell: int) -> list[object]:
    """The columns of sizes in edge_map.csv; a tanh cell's are in devices.csv."""
    s = c.sizes
    if not isinstance(s, CellSizes):
        return [""] * 5
    widths = (f"{v:.6g}" for v in (s.resistance[cell], s.source_width[cell], s.sink_length[cell]))
    return [s.k[cell], s.mk[cell], *widths]


def _csv(head: str, rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head.split(","))
    writer.writerows(rows)
    return out.getvalue()
