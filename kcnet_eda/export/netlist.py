"""A circuit as netlist text, for each simulator, and as the edge map that traces it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kcnet_eda.export.circuit import Circuit, DeviceGroup, Stage
from kcnet_eda.export.render import render
from kcnet_eda.export.structural import structural_devices

#: The width of an enable's edge over the solver's step. Only its square counts, so a tenth leaves a hundredth of the
#: step's own error; at a 200th ngspice now and then cuts its step at the edge until it gives up.
_RAMP = 1 / 10


def _by_target(group: DeviceGroup, nets: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The group's devices under one heading a target net; they come sorted by target."""
    t = group.table
    target, source = t.target.tolist(), [nets[n] for n in t.source.tolist()]
    text = [" ".join(filter(None, row)) for row in group.assignments]
    starts = [0, *(np.flatnonzero(np.diff(t.target)) + 1).tolist()]
    for begin, end in zip(starts, [*starts[1:], len(t)], strict=True):
        rows = zip(group.names[begin:end], source[begin:end], text[begin:end], strict=True)
        yield {"target": nets[target[begin]], "devices": list(rows)}


def _groups(stage: Stage, nets: tuple[str, ...], enable: str | None) -> list[dict[str, Any]]:
    found = []
    for group in stage.groups:
        group = group if enable is None else group.gated
        found.append({"module": group.table.module, "enable": enable, "targets": _by_target(group, nets)})
    return found


def render_netlist(circuit: Circuit, stage: Stage, simulator: str) -> str:
    """The netlist of one phase for ``ngspice`` or ``vacask``."""
    if circuit.level == "structural":
        return render_structural(circuit, stage)
    return render(
        f"{simulator}/netlist.j2",
        circuit=circuit,
        scaling=circuit.scaling,
        phase=None if len(circuit.stages) == 1 else stage.number,
        n_devices=stage.n_devices,
        groups=_groups(stage, circuit.nets, None),
        enables=[],
        rail=circuit.nets[0],
        nets=circuit.nets[1 : stage.n_nodes],
    )


def render_structural(circuit: Circuit, stage: Stage) -> str:
    """The netlist of a phase as the paper's Figure 2: conductance and current source in series with a one-sided switch,
    in plain SPICE elements."""
    return render(
        "structural/netlist.j2",
        circuit=circuit,
        scaling=circuit.scaling,
        n_devices=stage.n_devices,
        devices=[row for g in stage.groups for row in structural_devices(g.table, g.values, g.names, circuit.nets)],
        rail=circuit.nets[0],
        nets=circuit.nets[1 : stage.n_nodes],
    )


@dataclass(frozen=True)
class Enable:
    """The enable of a phase: the corners (seconds, volts above the rail) of its source's waveform."""

    net: str
    corners: tuple[tuple[float, float], ...]


def enables(circuit: Circuit, steps: int) -> tuple[Enable, ...]:
    """One enable a phase, 1 V within its window and 0 V outside, each edge centred on the hand-over; ``steps`` are the
    solver's steps a phase."""
    half = 0.5 * _RAMP * min(stage.duration for stage in circuit.stages) / steps
    found, begin = [], 0.0
    for stage in circuit.stages:
        end = begin + stage.duration
        corners = [(0.0, 1.0)] if stage.number == 0 else [(0.0, 0.0), (begin - half, 0.0), (begin + half, 1.0)]
        if stage is not circuit.stages[-1]:
            corners += [(end - half, 1.0), (end + half, 0.0)]
        found.append(Enable(f"en{stage.number}", tuple(corners)))
        begin = end
    return tuple(found)


def gated_nets(circuit: Circuit) -> tuple[tuple[str, ...], ...]:
    """The net of each node in each phase of the one netlist of all phases: a node that vanishes and comes back starts
    anew at the common mode, so it comes back as another capacitor."""
    found: list[tuple[str, ...]] = []
    for stage in circuit.stages:
        known = found[-1] if found else ()
        seen = {net for nets in found for net in nets}
        new = circuit.nets[len(known) : stage.n_nodes]
        found.append((*known[: stage.n_nodes], *(f"{n}_p{stage.number}" if n in seen else n for n in new)))
    return tuple(found)


def render_gated_netlist(circuit: Circuit, steps: int, simulator: str) -> str:
    """One netlist of all phases: the devices of each conduct while its enable is high."""
    nets = gated_nets(circuit)
    signals = enables(circuit, steps)
    return render(
        f"{simulator}/netlist.j2",
        circuit=circuit,
        scaling=circuit.scaling,
        phase=None,
        n_devices=circuit.n_devices,
        groups=[
            g for s, names, en in zip(circuit.stages, nets, signals, strict=True) for g in _groups(s, names, en.net)
        ],
        enables=signals,
        rail=circuit.nets[0],
        nets=list(dict.fromkeys(net for names in nets for net in names[1:])),
    )


def edge_map_csv(circuit: Circuit) -> str:
    """Every trained edge with its device: phase, edge number, instance, module, nets and the device's parameters that
    are this edge's own, one line an edge, in edge order."""
    lines = ["phase,edge,instance,device,source,target,parameters"]
    for stage in circuit.stages:
        rows: list[tuple[int, str]] = []
        for group in stage.groups:
            rows += _map_rows(circuit, stage, group)
        rows += [(e, f"{stage.number},{e},,,,,folded into the nodes' constant currents") for e in stage.folded.tolist()]
        rows += [(e, f"{stage.number},{e},,,,,dropped: it never conducts in range") for e in stage.dropped.tolist()]
        lines += [text for _, text in sorted(rows)]
    return "\n".join(lines) + "\n"


def _map_rows(circuit: Circuit, stage: Stage, group: DeviceGroup) -> Iterator[tuple[int, str]]:
    t = group.table
    text = group.assignments
    of_term: dict[int, list[int]] = {}
    for column, name in enumerate(t.parameters):
        of_term.setdefault(int(name.partition("_")[2] or 0), []).append(column)
    whole = list(range(len(t.parameters)))
    device = np.repeat(np.arange(len(t)), np.diff(t.first)).tolist()
    for edge, i, term in zip(t.edge.tolist(), device, t.term.tolist(), strict=True):
        columns = whole if t.shape is None else of_term.get(term, [])
        own = " ".join(filter(None, (text[i][c] for c in columns))) or "in the nodes' constant currents"
        ends = f"{circuit.nets[t.source[i]]},{circuit.nets[t.target[i]]}"
        yield edge, f"{stage.number},{edge},{group.names[i]},{t.module},{ends},{own}"
