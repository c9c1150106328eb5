"""``kcnet export --level mos --trim N``: a network's cells trimmed by N of its own runs, a closed loop in ngspice."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.calibration import CellGroup, TrimRun
from kcnet_eda.physical.cell_kind import CellKind, drawn_sign
from kcnet_eda.physical.mos_cell import CellEdges
from kcnet_eda.physical.trim import INSTANTS, Knobs, Trimmer, Turned, knobs_of
from kcnet_eda.progress import Advance, NoProgress, Progress
from kcnet_eda.study.mos.calibrate import measure
from kcnet_eda.study.mos.rig import Rig
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.pool import simulator_pool
from kcnet_eda.study.waveform import at_instants

Floats = NDArray[np.float64]

ROUNDS = 3  # of turning the knobs; the best of what was run, untrimmed included, is taken
MOST_BYTES = 2e9  # of all runs' sensitivities
#: Finer times than the instants that runs are compared at: straight lines between are h²/8·v'' off, 1e-4 at v'' = 30.
_FINER = 10


@dataclass(frozen=True, eq=False)
class _Trained:
    """The trained runs from initial states ``x0`` [n, nodes] at model ``times``: ``v`` [n, times, nodes] without
    ground. Every ``_FINER``-th time is an instant that runs are compared at."""

    x0: Floats
    times: Floats
    v: Floats

    @staticmethod
    def of(net: Network, x0: Floats, times: Floats) -> _Trained:
        return _Trained(x0, times, np.stack([trajectory(net, x, times)[:, 1:] for x in x0]))


@dataclass(frozen=True, eq=False)
class _Run:
    """A run against the trained one: the largest node error at any of its steps, and the differences [instants,
    nodes] without ground, both in V_u."""

    error: float
    difference: Floats


def require_memory(net: Network, edges: Mapping[CellKind, CellEdges], runs: int) -> None:
    """Raise :class:`InvalidInputError` where a network's ``edges`` as cells and its nodes are too many to be trimmed by
    so many runs: before they are calibrated."""
    nodes = net.max_nodes - 1
    knobs = sum(knobs_of(kind, len(e.theta)) for kind, e in edges.items()) + nodes
    needed = 4 * runs * _instants(net).size * nodes * knobs
    if needed > MOST_BYTES:
        most = int(MOST_BYTES * runs / needed)
        raise InvalidInputError(
            f"--trim {runs}",
            [f"takes {needed / 1e9:.1f} GB for {knobs} knobs of network {net.name!r}, above {MOST_BYTES / 1e9:g}"],
            f"{most} runs can be had." if most else "Leave out --trim.",
        )


def _instants(net: Network) -> Floats:
    return np.linspace(0, net.duration, round(INSTANTS * net.duration) + 1)


def trimmed(
    rig: Rig,
    mos: MosCircuit,
    net: Network,
    settings: SolverSettings,
    starts: Floats,
    held_out: Floats,
    progress: Progress | None = None,
) -> MosCircuit:
    """The circuit with its cells and capacitors trimmed so that its runs from ``starts`` [n, nodes] follow the trained
    laws better, model units; those from ``held_out`` [m, nodes] only tell how much it helped, before and after.

    Cells that several edges share are trimmed as one. The cells' fits and errors are measured anew; the law that they
    are trimmed away from is still the trained one.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    knobs = Knobs(mos.groups, starts.shape[1] - 1)
    instants = _instants(net)
    runs = (ROUNDS + 1) * len(starts) + 2 * len(held_out)
    with (progress or NoProgress()).stage(f"trimming {knobs.size} knobs", runs) as advance:

        def compared(circuit: MosCircuit, trained: _Trained) -> list[_Run]:
            return _compared(rig, circuit, settings, trained, advance)

        times = np.linspace(0, net.duration, _FINER * (instants.size - 1) + 1)
        own, others = (_Trained.of(net, x0, times) for x0 in (starts, held_out))
        found = before = compared(mos, own)
        sensitivities = [knobs.sensitivity(x[1:], instants) for x in starts]
        trimmer = Trimmer(knobs, sensitivities, [run.difference for run in before])
        stand, best, best_runs = np.zeros(knobs.size), mos, before
        for number in range(ROUNDS):
            stand = trimmer.better(stand, [run.difference for run in found], fine=number > 0)
            turned = _turn(rig, mos, knobs.turned(stand))
            found = compared(turned, own)
            if _worst(found) < _worst(best_runs):
                best, best_runs = turned, found
        judged = [compared(circuit, others) for circuit in (mos, best)]
    report = TrimRun(len(starts), _summary(before), _summary(best_runs), len(held_out), *map(_summary, judged))
    return replace(best, groups=tuple(_measured(rig, group) for group in best.groups), trim=report)


def _compared(rig: Rig, mos: MosCircuit, settings: SolverSettings, trained: _Trained, advance: Advance) -> list[_Run]:
    """Runs from where the trained ones start, as many at once as there are processors."""
    cancel = threading.Event()

    def run(x: Floats, v: Floats) -> _Run:
        way = run_in_transistors(rig, mos_deck(rig, mos, settings, x), cancel=cancel)
        error = np.abs(way.v - at_instants(way.tau, trained.times, v)).max()
        return _Run(float(error), (at_instants(trained.times, way.tau, way.v) - v)[::_FINER])

    with simulator_pool(os.cpu_count() or 1, cancel) as pool:
        found: list[_Run] = []
        for done in pool.map(run, trained.x0, trained.v):
            found.append(done)
            advance(1)
    return found


def _turn(rig: Rig, mos: MosCircuit, turned: Turned) -> MosCircuit:
    """The circuit with its knobs turned from where ``mos`` has them, to sizes that can be drawn."""
    groups = []
    for group, parameters, ratio in zip(mos.groups, turned.parameters, turned.ratio, strict=True):
        found = group.found
        kind, sizes = found.kind, found.sizes
        asked = kind.asked(rig.design, sizes) + drawn_sign(kind, found.theta) * parameters
        snapped, _ = kind.corrected(rig.pdk, rig.design, asked, sizes, 1 / (1 + ratio))
        groups.append(CellGroup(group.edges, replace(found, sizes=snapped)))
    return replace(mos, groups=tuple(groups), capacitance_share=turned.capacitance)


def _measured(rig: Rig, group: CellGroup) -> CellGroup:
    """Trimmed cells measured anew. Their pins stay those that the runs' capacitors were drawn with, and a cell that
    calibration reached is still within reach: it was moved on purpose."""
    was = group.found
    now = measure(rig, was)
    return CellGroup(group.edges, replace(now, reason=was.reason, source_pin=was.source_pin, target_pin=was.target_pin))


def _worst(runs: list[_Run]) -> float:
    return max(run.error for run in runs)


def _summary(runs: list[_Run]) -> tuple[float, float]:
    """Median and largest error."""
    errors = [run.error for run in runs]
    return float(np.median(errors)), max(errors)
