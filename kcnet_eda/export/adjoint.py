"""The adjoint of a circuit as text: the forward circuit's nets, devices and parameters in another template.

Each device becomes a conductance (two transconductances, where its law weighs its ends differently) that the forward
voltages switch; those are replayed backwards by one source a node. docs/adjoint.md has the derivation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.circuit import Circuit, DeviceGroup
from kcnet_eda.export.render import render

Floats = NDArray[np.float64]

#: Where each forward voltage is replayed: at this instant, and one step of the simulator before and after. A node's own
#: name begins with a letter, so these nets are nobody's.
CONTROLS = ("_now_", "_before_", "_after_")


def adjoint_module(group: DeviceGroup) -> str:
    """The Verilog-A module of a group's adjoint devices."""
    return f"kc_adjoint_{group.table.kind}"


def adjoint_modules(circuit: Circuit) -> tuple[str, ...]:
    """The hand-written Verilog-A modules that the adjoint needs, each once."""
    return tuple(sorted({adjoint_module(g) for stage in circuit.stages for g in stage.groups}))


def render_adjoint(circuit: Circuit) -> str:
    """The adjoint netlist of ``circuit`` for ngspice: behavioural level, one phase, a device an edge.

    Raises
    ------
    InvalidInputError
        The circuit is none of this kind.
    """
    found = []
    if circuit.level != "behavioral":
        found.append(f"it is of the {circuit.level} level; the adjoint is built at the behavioral one")
    if circuit.sequenced:
        found.append(f"it has {len(circuit.stages)} phases or a residual; the adjoint is built for one phase without")
    if circuit.passes:
        found.append(f"its edges went through {', '.join(circuit.passes)}; the adjoint has a device an edge")
    if found:
        raise InvalidInputError(f"circuit {circuit.name!r} has no adjoint netlist", found)
    (stage,) = circuit.stages
    return render(
        "ngspice/adjoint.j2",
        circuit=circuit,
        scaling=circuit.scaling,
        n_devices=stage.n_devices,
        groups=[{"module": adjoint_module(g), "devices": list(_devices(g, circuit))} for g in stage.groups],
        rail=circuit.nets[0],
        nets=circuit.nets[1:],
    )


def _devices(group: DeviceGroup, circuit: Circuit) -> Iterator[tuple[str, ...]]:
    """Instance, s, d, each control's two nets, parameters."""
    rail, nets = circuit.nets[0], circuit.nets
    seen = [[rail, *(f"{control}{net}" for net in nets[1:])] for control in CONTROLS]
    t = group.table
    for name, s, d, text in zip(group.names, t.source.tolist(), t.target.tolist(), group.assignments, strict=True):
        controls = [net[node] for net in seen for node in (s, d)]
        yield name, nets[s], nets[d], *controls, " ".join(filter(None, text))


def render_replay(circuit: Circuit, title: str, netlist: str, knots: Floats, volts: Floats) -> str:
    """The sources that replay the forward voltages, and the adjoint ``netlist`` (a path) that they control.

    ``knots`` [points] are the adjoint's time steps in seconds, from 0 to T; ``volts`` [points, nets without the rail]
    are the forward voltages above the rail at T less each knot. At the ends, beyond which there is nothing, the step
    inward stands for both neighbours.
    """
    shifted = (volts, np.vstack([volts[1:2], volts[:-1]]), np.vstack([volts[1:], volts[-2:-1]]))

    def sources() -> Iterator[dict[str, Any]]:
        for control, values in zip(CONTROLS, shifted, strict=True):
            for net, column in zip(circuit.nets[1:], values.T.tolist(), strict=True):
                rows = list(zip(times, column, strict=True))
                yield {"net": f"{control}{net}", "rows": rows[:-1], "last": rows[-1]}

    times = knots.tolist()
    return render("ngspice/replay.j2", title=title, netlist=netlist, rail=circuit.nets[0], sources=sources())
