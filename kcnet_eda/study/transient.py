"""One sample through a circuit at any scale, phase by phase, with the waveforms of all nodes."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import KcnetError
from kcnet_eda.export.circuit import Circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import Sample, SolverSettings, render_testbench, stage_window
from kcnet_eda.export.veriloga import module_source
from kcnet_eda.network.graph import Network, Phase, carry_over, settle
from kcnet_eda.tools.openvaf import compile_beside
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import Simulator

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Way:
    """A phase as simulated: times ``tau`` [points] within it and node voltages ``v`` [points, nodes], model units, both
    with its start."""

    phase: Phase
    tau: Floats
    v: Floats


@dataclass(frozen=True, eq=False)
class Transient:
    """All phases as simulated, the final state [nodes], and what the simulator's processes took."""

    ways: tuple[Way, ...]
    v_end: Floats
    wall_s: float
    peak_kib: int


def compile_into(folder: Path, sources: dict[str, str]) -> tuple[str, ...]:
    """Compile Verilog-A ``sources`` (text by module) in ``folder``; the compiled files' names."""
    names = []
    for module, text in sources.items():
        source = folder / f"{module}.va"
        source.write_text(text)
        names.append(compile_beside(source, folder))
    return tuple(sorted(names))


def run_transient(
    network: Network,
    circuit: Circuit,
    settings: SolverSettings,
    x0: Floats,
    simulator: Simulator,
    folder: Path,
    timeout_s: float,
) -> Transient:
    """Run one sample from ``x0`` [nodes of the first phase] in ``folder``, which stays only where it failed.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError, BadDataError
        The simulator gave no result.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = {module: module_source(module, shape) for module, shape in circuit.modules(gated=False).items()}
    compile_into(folder, sources)
    scaling = circuit.scaling
    state, evolved, ways = x0[None], [], []
    wall, peak = 0.0, 0
    for stage, phase in zip(circuit.stages, network.phases, strict=True):
        state = carry_over(state, phase)
        window = stage_window(circuit, stage, settings)
        netlist = folder / f"phase{stage.number}.inc"
        netlist.write_text(render_netlist(circuit, stage, simulator.name))
        deck = folder / f"phase{stage.number}{simulator.suffix}"
        output = f"out{stage.number}"
        deck.write_text(
            render_testbench(
                circuit,
                window,
                settings,
                [Sample(network.name, state[0, 1:] * scaling.v_unit, output)],
                simulator=simulator.name,
                netlist=netlist.name,
                osdi=[f"{module}.osdi" for module in sorted({g.table.module for g in stage.groups})],
            )
        )
        raw = folder / f"{output}.raw"
        started = time.monotonic()
        done = simulator.run_to(raw, deck, folder / f"phase{stage.number}.log", timeout_s)
        wall, peak = wall + time.monotonic() - started, max(peak, done.peak_kib)
        try:
            waves = read_transient(raw, window.nets, window.t_end)
        except KcnetError as error:
            raise type(error)(f"phase {stage.number} of {network.name}: {error}") from None
        later = waves.time > 0  # ngspice writes no point at 0, where the capacitors' initial voltages stand
        v = np.zeros((1 + int(later.sum()), phase.n_nodes))
        v[0], v[1:, 1:] = state[0], (waves.values[later] - scaling.v_cm) / scaling.v_unit
        ways.append(Way(phase, np.concatenate([[0.0], waves.time[later] / scaling.t_unit]), v))
        evolved.append(v[-1:])
        state = settle(network, evolved)
    shutil.rmtree(folder)
    return Transient(tuple(ways), state[0], wall, peak)
