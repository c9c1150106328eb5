"""A circuit as netlist text, for each simulator, and as the edge map that traces it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from kcnet_eda.export.circuit import Circuit, DeviceGroup
from kcnet_eda.export.render import render
from kcnet_eda.units import spice_number


def _columns(circuit: Circuit, group: DeviceGroup) -> Iterator[tuple[int, str, str, list[str]]]:
    nets = circuit.nets
    text = [[spice_number(v) for v in column] for column in group.values.T.tolist()]
    rows = zip(group.edge.tolist(), group.source.tolist(), group.target.tolist(), zip(*text, strict=True), strict=True)
    for edge, source, target, values in rows:
        yield edge, nets[source], nets[target], [f"{n}={v}" for n, v in zip(group.parameters, values, strict=True)]


def _by_target(circuit: Circuit, group: DeviceGroup) -> Iterator[dict[str, Any]]:
    """The group's rows under one heading a target net; rows come sorted by target."""
    heading: dict[str, Any] | None = None
    for edge, source, target, values in _columns(circuit, group):
        if heading is None or heading["target"] != target:
            if heading is not None:
                yield heading
            heading = {"target": target, "devices": []}
        heading["devices"].append({"edge": edge, "source": source, "target": target, "values": " ".join(values)})
    if heading is not None:
        yield heading


def render_netlist(circuit: Circuit, simulator: str) -> str:
    """The circuit's netlist for ``ngspice`` or ``vacask``."""
    groups = [{"module": g.module, "n": g.edge.size, "targets": _by_target(circuit, g)} for g in circuit.groups]
    return render(
        f"{simulator}/netlist.j2",
        circuit=circuit,
        scaling=circuit.scaling,
        groups=groups,
        rail=circuit.nets[0],
        nets=circuit.nets[1:],
    )


def edge_map_csv(circuit: Circuit) -> str:
    """Trained edge number, instance, device, nets and device parameters, one line an edge, in edge order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["edge", "instance", "device", "source", "target", "parameters"])
    rows = [
        (edge, f"ne{edge}", group.module, source, target, " ".join(values))
        for group in circuit.groups
        for edge, source, target, values in _columns(circuit, group)
    ]
    writer.writerows(sorted(rows))
    return out.getvalue()
