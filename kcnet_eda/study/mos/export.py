"""``kcnet export --level mos``: a network as calibrated transistor cells of a process, and the bundle of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.contract import require_error
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.bundle import DEFAULT_ERROR, Bundle, Examples, require_place, solve_examples, write_bundle
from kcnet_eda.export.circuit import build_circuit, require_exportable
from kcnet_eda.export.mos_cells import BIAS
from kcnet_eda.export.mos_netlist import STARTS, MosCircuit
from kcnet_eda.export.testbench import ORDERS, SolverSettings
from kcnet_eda.network.data import load_data
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.laws import TANH
from kcnet_eda.network.published_form import is_generative
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.audit import voltage_ranges
from kcnet_eda.physical.calibration import CellGroup, ExampleRun, example_cell
from kcnet_eda.physical.cell_design import BOX, CellLimits
from kcnet_eda.physical.cell_kind import RELU_CELL, TANH_CELL, CellKind
from kcnet_eda.physical.mos_cell import CellEdges, cell_edges, range_problems
from kcnet_eda.physical.pdk import Pdk, is_shipped, load_pdk
from kcnet_eda.physical.scaling import Scaling, resolve
from kcnet_eda.physical.tanh_cell import TanhLimits, tanh_edges
from kcnet_eda.progress import NoProgress, Progress
from kcnet_eda.study.mos.calibrate import calibrate_kind
from kcnet_eda.study.mos.operating_point import operating_points
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.mos.trim import require_memory, trimmed
from kcnet_eda.study.simulate import require_fit
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.units import parse_si

Floats = NDArray[np.float64]

#: Seconds of a model unit of time, if nothing else is asked for: some fifty times the cells' lag.
DEFAULT_T_UNIT = 300e-9
_TRIM_SEED = 0
_HELD_OUT = 4  # runs to trim by for one that only judges
_STEPS_A_UNIT = 50  # the longest step is this part of a model unit of time


def export_mos(
    network: str | Path,
    out: Path,
    *,
    pdk: str | Path,
    models: Path | None = None,
    c: str | float | None = None,
    t_unit: str | float | None = None,
    error: float = DEFAULT_ERROR,
    start: str = "ic",
    trim: int = 0,
    data: str | None = None,
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Size and calibrate a cell for every edge of a network in the process ``pdk`` (a shipped kit's name or a YAML
    file), and write the bundle to the folder ``out``.

    Voltages, currents and the common mode are the kit's; ``c`` or ``t_unit`` sets the speed (T_u is 300 ns if neither
    is given). ``error`` is the simulator's local error, not the circuit's. ``models`` is a folder that has the kit's
    models, if they are not where the kit's file says. ``start``: nodes are held at their initial voltages by "ic", or
    written through "switches" before they evolve. ``trim``: the cells are trimmed by so many runs of the network
    (:mod:`kcnet_eda.study.mos.trim`), from inputs drawn from ``data`` (a name of
    :func:`kcnet_eda.network.data.load_data`; the network's own examples but the first if None), and a quarter as
    many others tell how much that helped.

    Raises
    ------
    InvalidInputError
        Edges cannot be built in this process: all of them are listed, and nothing is written; or ``out`` is
        somebody's.
    KcnetError
        The kit's models are not on this machine, or a tool failed.
    """
    if start not in STARTS:
        raise InvalidInputError(f"--start {start}", ["is not known"], f"Use {' or '.join(STARTS)}.")
    require_place(out)
    net = load_network(network_path(network))
    kit = load_pdk(pdk)
    scaling = kit_scaling(kit, c, t_unit)
    require_exportable(net, "mos")
    edges = buildable(net, kit)
    require_error(net, error)
    states = _trim_states(net, trim, data, data_dir)
    require_memory(net, edges, trim)
    examples = solve_examples(net)
    rig = size_cells(Bench(kit, prepare(kit, models)))
    settings = mos_settings(net, error)
    mos = calibrated_circuit(net, rig, scaling, progress)
    if len(states):
        mos = trimmed(rig, mos, net, settings, states[:trim], states[trim:], progress)
    if models is not None or (rig.models.origin == "source.path" and not is_shipped(kit)):
        mos = replace(mos, models=rig.models.folder)
    shown = [(group, example_cell(group.found)) for group in mos.groups]
    points = [operating_points(rig, group.found, at, group.names[at], BOX) for group, at in shown]
    shown_once = [p for i, found in enumerate(points) for p in found if not i or p.cell != BIAS]
    mos = replace(mos, warnings=_warnings(net, examples.x0), start=start, operating=tuple(shown_once))
    with (progress or NoProgress()).stage("the first example in transistors", 1) as advance:
        mos = replace(mos, example=_try_example(rig, mos, settings, net, examples))
        advance(1)
    return write_bundle(out, net, mos.circuit, {"ngspice": settings}, examples, None, mos)


def _trim_states(net: Network, runs: int, data: str | None, data_dir: Path | None) -> Floats:
    """Initial states [n, nodes] of ``runs`` to trim by and of a quarter as many others, none of them twice."""
    if not runs:
        if data is not None:
            raise InvalidInputError(f"--data {data}", ["is what --trim draws from"], "Add --trim, or leave it out.")
        return np.empty((0, 0))
    wanted = runs + -(-runs // _HELD_OUT)
    if data is None:
        source, inputs = f"the examples of network {net.name!r}, but the first", net.examples[1:]
    else:
        found = load_data(data, data_dir, features=net.inputs.size)
        require_fit(found, net)
        source, inputs = data, found.x
    if not 0 < wanted <= len(inputs):
        raise InvalidInputError(
            f"--trim {runs}",
            [f"takes {wanted} inputs, a quarter of them to judge by; of {source}, there are {len(inputs)}"],
            "Ask for 1 run or more, and no more than there are, or name other inputs with --data.",
        )
    rows = np.random.default_rng(_TRIM_SEED).choice(len(inputs), wanted, replace=False)
    return net.initial_state(inputs[rows])


def calibrated_circuit(net: Network, rig: Rig, scaling: Scaling, progress: Progress | None = None) -> MosCircuit:
    """The network's edges as cells, sized and calibrated at the nominal condition.

    Raises
    ------
    InvalidInputError
        Edges cannot be built in this process: all of them are listed.
    KcnetError
        The simulator gave no result.
    """
    kit = rig.pdk
    groups = calibrated(rig, buildable(net, kit), progress)
    mos = MosCircuit(build_circuit(net, scaling, (), None, "mos"), kit, rig.design, groups, rig.direct)
    problems = [
        f"{edges[i]} (θ1 = {group.found.theta1[i]:g}, θ2 = {group.found.theta2[i]:g}): {group.found.reason[i]}"
        for group in groups
        for edges in [_first_edges(group.edges)]
        for i in group.found.out_of_reach
    ]
    problems += mos.capacitance_problems()
    if problems:
        raise InvalidInputError(
            f"network {net.name!r} in {kit.name}", problems, "Train within the cell's range, or raise --c or --t-unit."
        )
    return mos


def _try_example(rig: Rig, mos: MosCircuit, settings: SolverSettings, net: Network, examples: Examples) -> ExampleRun:
    run = run_in_transistors(rig, mos_deck(rig, mos, settings, examples.x0[0]))
    v, v_ref = np.append(0.0, run.v[-1]), examples.v_ref[0]
    agrees = None if is_generative(net) else bool(labels(net, v[None])[0] == labels(net, v_ref[None])[0])
    return ExampleRun(float(np.abs(v - v_ref).max()), agrees, run.seconds, run.peak_mib)


def mos_settings(net: Network, error: float) -> SolverSettings:
    """Solver settings of the MOS level: steps by local error, and none longer than a part of a unit of time."""
    return SolverSettings(error, max(1, round(_STEPS_A_UNIT * net.duration)), ORDERS["ngspice"], adaptive=True)


def buildable(net: Network, kit: Pdk) -> dict[CellKind, CellEdges]:
    """The network's edges as cells of each kind; :class:`InvalidInputError` lists every edge that cannot be one, with
    the reason."""
    limits, tanh_limits = CellLimits(), TanhLimits()
    law = net.phases[0].edges
    edges, problems = cell_edges(law, (TANH,))
    curved = tanh_edges(law)
    problems += range_problems(limits, edges.theta1, edges.theta2, _first_edges(edges))
    problems += tanh_limits.problems(curved.theta1, curved.theta2, curved.gain, _first_edges(curved))
    if not len(edges) + len(curved) and not problems:
        problems.append("no edge conducts anywhere in the box")
    if problems:
        can = [cell.range_text() for cell, used in ((limits, len(edges)), (tanh_limits, len(curved))) if used]
        remedy = f"The cells can do {'; '.join(can or [limits.range_text(), tanh_limits.range_text()])}."
        raise InvalidInputError(f"network {net.name!r} in {kit.name}", problems, remedy)
    idle = np.union1d(edges.idle, curved.idle)  # said once, of the first kind that has cells
    found = {kind: e for kind, e in ((RELU_CELL, edges), (TANH_CELL, curved)) if len(e)}
    return {kind: replace(e, idle=idle if not i else idle[:0]) for i, (kind, e) in enumerate(found.items())}


def _first_edges(edges: CellEdges) -> list[str]:
    """For each distinct cell, the first edge that is one."""
    return [f"edge {edges.edge[np.flatnonzero(edges.cell == i)[0]]}" for i in range(edges.theta1.size)]


def calibrated(
    rig: Rig, edges: Mapping[CellKind, CellEdges], progress: Progress | None = None
) -> tuple[CellGroup, ...]:
    """Each kind's cells, calibrated; errors are those of :func:`kcnet_eda.study.mos.calibrate.calibrate_kind`."""
    return tuple(CellGroup(e, calibrate_kind(rig, kind, e.theta, progress)) for kind, e in edges.items())


def kit_scaling(kit: Pdk, c: str | float | None, t_unit: str | float | None) -> Scaling:
    """The kit's own voltages and currents, at the speed that ``c`` or ``t_unit`` sets."""
    op = kit.operating
    seconds = None if t_unit is None else parse_si(t_unit)
    if c is None:
        c = (seconds if seconds is not None else DEFAULT_T_UNIT) * op.i0 / op.v0
    return resolve(c=parse_si(c), v_unit=op.v0, i_unit=op.i0, t_unit=seconds, v_cm=op.common_mode)


def _warnings(net: Network, x0: Floats) -> tuple[str, ...]:
    low, high = voltage_ranges(net, x0)[0]
    reach = np.maximum(-low, high)
    outside = np.flatnonzero(reach > BOX)
    if not outside.size:
        return ()
    worst = int(outside[np.argmax(reach[outside])])
    return (
        f"{outside.size} nodes leave the ±{BOX:g} units that cells are made for, over the examples and a margin of a "
        f"tenth: {net.node_names[worst]} reaches {reach[worst]:.2f}",
    )
