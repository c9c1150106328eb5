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
#: step's own error at order 2; at a 200th ngspice now and then cuts its step at the edge until it gives up. VACASK's
#: longer steps of order 3 need sharper edges, and it takes them.
_RAMP = {"ngspice": 1 / 10, "vacask": 1 / 100}


def _by_target(group: DeviceGroup, nets: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The group's devices (instance, source, parameters) under one heading a target net; they come sorted by target."""
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
        phase=stage.number if circuit.sequenced else None,
        n_devices=stage.n_devices,
        groups=_groups(stage, circuit.nets, None),
        enables=[],
        transfers=[],
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
    """The enable of a phase or a transfer window: the corners (seconds, volts above the rail) of its source's
    waveform."""

    net: str
    corners: tuple[tuple[float, float], ...]


def _half_ramp(circuit: Circuit, steps: int, simulator: str) -> float:
    return 0.5 * _RAMP[simulator] * min(stage.duration for stage in circuit.stages) / steps


def _later(corners: list[tuple[float, float]], lead: float, half: float) -> tuple[tuple[float, float], ...]:
    """The corners ``lead`` seconds later; one that was on from the start rises then."""
    if lead == 0.0:
        return tuple(corners)
    head = [(0.0, 0.0)] + ([(lead - half, 0.0), (lead + half, 1.0)] if corners[0][1] else [])
    return (*head, *((t + lead, volts) for t, volts in corners[1:]))


def enables(
    circuit: Circuit, steps: int, simulator: str, lead: float = 0.0, freeze: bool = False
) -> tuple[Enable, ...]:
    """One enable a phase, 1 V within its time and 0 V outside, each edge centred on the hand-over; ``steps`` are the
    solver's steps a phase. The first phase begins after ``lead`` seconds; with ``freeze`` the last one's falls too."""
    half, line = _half_ramp(circuit, steps, simulator), circuit.timeline
    found = []
    for number, (begin, end) in enumerate(line.phases):
        corners = [(0.0, 1.0)] if number == 0 else [(0.0, 0.0), (begin - half, 0.0), (begin + half, 1.0)]
        if end < line.end or freeze:
            corners += [(end - half, 1.0), (end + half, 0.0)]
        found.append(Enable(f"en{number}", _later(corners, lead, half)))
    return tuple(found)


def transfer_enables(circuit: Circuit, steps: int, simulator: str, lead: float = 0.0) -> dict[int, Enable]:
    """The enable of each transfer window, by the number of the bank that is filled. It rises after the enable of the
    phase before has fallen, and falls before that of the phase after rises: while both were on, buffers would pull
    back what edges move."""
    half, line = _half_ramp(circuit, steps, simulator), circuit.timeline
    found = {}
    for number, (begin, end) in line.windows.items():
        corners = [(0.0, 0.0), (begin + half, 0.0), (begin + 3 * half, 1.0)]
        if end < line.end:
            corners += [(end - 3 * half, 1.0), (end - half, 0.0)]
        found[number] = Enable(f"tr{number}", _later(corners, lead, half))
    return found


def all_nets(circuit: Circuit) -> tuple[str, ...]:
    """The nets of every capacitor in the one netlist of all phases, the first phase's first."""
    return tuple(dict.fromkeys(net for bank in circuit.banks for net in bank.nets[1:]))


def render_gated_netlist(circuit: Circuit, steps: int, simulator: str, lead: float = 0.0, freeze: bool = False) -> str:
    """One netlist of all phases: the devices of each conduct while its enable is high, and buffers move voltages
    between capacitors while that of a transfer window is. For the first ``lead`` seconds nothing conducts; with
    ``freeze`` nothing does after T."""
    signals = enables(circuit, steps, simulator, lead, freeze)
    windows = transfer_enables(circuit, steps, simulator, lead)
    return render(
        f"{simulator}/netlist.j2",
        circuit=circuit,
        scaling=circuit.scaling,
        phase=None,
        n_devices=circuit.n_devices,
        groups=[
            g
            for stage, bank, en in zip(circuit.stages, circuit.banks, signals, strict=False)  # the last bank is read
            for g in _groups(stage, bank.nets, en.net)
        ],
        enables=[*signals, *windows.values()],
        transfers=[
            {"enable": en.net, "devices": [(f"n{i}t{j}", t) for j, t in enumerate(circuit.banks[i].transfers)]}
            for i, en in windows.items()
        ],
        rail=circuit.nets[0],
        nets=all_nets(circuit),
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
