"""From a trained edge to its device and back."""

from __future__ import annotations

import re

import numpy as np

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.bundle import Bundle
from kcnet_eda.export.circuit import DeviceGroup, Stage
from kcnet_eda.lowering.devices import UNITS
from kcnet_eda.network.laws import PHI_NAMES
from kcnet_eda.units import format_si


def trace(bundle: Bundle, wanted: str) -> list[str]:
    """What became of a trained edge (``12`` or ``phase:12``), or which edges a device (its instance name) is made of:
    lines for people.

    Raises
    ------
    InvalidInputError
        There is no such edge or device.
    """
    edge = re.fullmatch(r"(?:(\d+):)?(\d+)", wanted)
    if edge is None:
        return _device(bundle, wanted.lower())
    phase, number = int(edge[1] or 0), int(edge[2])
    phases = bundle.network.phases
    if phase >= len(phases) or number >= len(phases[phase].edges):
        sizes = ", ".join(f"{i}:0 to {i}:{len(p.edges) - 1}" for i, p in enumerate(phases))
        raise InvalidInputError(f"--trace {wanted}", ["there is no such edge"], f"Edges are {sizes}.")
    return [_trained(bundle, phase, number), *_where(bundle, bundle.circuit.stages[phase], number)]


def _trained(bundle: Bundle, phase: int, edge: int) -> str:
    e = bundle.network.phases[phase].edges
    names = bundle.network.node_names
    law = f"{e.k[edge]:g}·{PHI_NAMES[e.phi[edge]]}({e.a[edge]:g}·v_s {e.b[edge]:+g}·v_d {e.c[edge]:+g})"
    return f"edge {phase}:{edge}, {names[e.source[edge]]} to {names[e.target[edge]]}: i = {law} in model units"


def _where(bundle: Bundle, stage: Stage, edge: int) -> list[str]:
    if edge in stage.folded:
        return ["  is constant: folded into the constant currents of its two nodes (devices with the letter i)"]
    if edge in stage.dropped:
        return ["  never conducts in the audited voltage range: it has no device"]
    for group in stage.groups:
        t = group.table
        for at in np.flatnonzero(t.edge == edge):
            device = int(np.searchsorted(t.first, at, side="right")) - 1
            term = None if t.shape is None else int(t.term[at])
            role = "" if term is None else f", {_role(term)}"
            return [f"  is in device {group.names[device]} ({t.module}){role}:", *_values(bundle, group, device, term)]
    return ["  has gone into the constant currents of its two nodes"]


def _role(term: int) -> str:
    return f"term {term}" if term else "in its linear part"


def _values(bundle: Bundle, group: DeviceGroup, device: int, term: int | None = None) -> list[str]:
    """A device's ends and parameters; of one term alone where ``term`` is given."""
    t = group.table
    nets = bundle.circuit.nets
    values = []
    for name, value in zip(t.parameters, group.values[device].tolist(), strict=True):
        base, _, number = name.partition("_")
        if term is None or int(number or 0) == term:
            unit = UNITS[base]
            values.append(f"{name} = " + (format_si(value, unit, 6) if unit in "SAV" else f"{value:g} {unit}"))
    return [f"    {nets[t.source[device]]} to {nets[t.target[device]]}: {', '.join(values)}"]


def _device(bundle: Bundle, name: str) -> list[str]:
    for stage in bundle.circuit.stages:
        for group in stage.groups:
            if name in group.names:
                device, t = group.names.index(name), group.table
                members = range(int(t.first[device]), int(t.first[device + 1]))
                lines = [f"device {name} ({t.module}), phase {stage.number}:", *_values(bundle, group, device)]
                for m in members:
                    role = "" if t.shape is None else f"  {_role(int(t.term[m]))}: "
                    lines.append(f"  {role}{_trained(bundle, stage.number, int(t.edge[m]))}")
                return lines
    raise InvalidInputError(f"--trace {name}", ["is no edge and no device"], "Devices are in netlist/edge_map.csv.")
