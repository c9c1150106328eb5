"""One gradient out of two circuits: the forward run, its waveforms replayed, the adjoint run, the integrals."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from kcnet_eda.dynamics.adjoint import edge_gradient
from kcnet_eda.dynamics.loss import Loss
from kcnet_eda.dynamics.loss_gradient import Gradient
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.adjoint import adjoint_modules, render_adjoint, render_replay
from kcnet_eda.export.circuit import Circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import Sample, SolverSettings, render_testbench, stage_window
from kcnet_eda.files import resource_dir
from kcnet_eda.network.graph import Network
from kcnet_eda.study.batch import status_of
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.openvaf import compile_beside, with_includes
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_FORWARD, _ADJOINT = "forward", "adjoint"


@dataclass(frozen=True, eq=False)
class AdjointJob:
    """One run: its store key, its sample number and label, v(0) [nodes] in model units, and whether its decks and
    waveforms are kept."""

    key: str
    sample: int
    label: int
    v0: Floats
    settings: SolverSettings
    keep: bool = False


@dataclass(frozen=True, eq=False)
class AdjointBench:
    """Where runs happen: ``folder`` has both netlists and the devices (:func:`prepare_adjoint`);
    ``timeout_s`` bounds each of the two runs of the simulator."""

    network: Network
    circuit: Circuit
    loss: Loss
    folder: Path
    timeout_s: float


def module_files(circuit: Circuit) -> tuple[Path, ...]:
    """The Verilog-A of the forward and of the adjoint devices."""
    names = [*sorted(circuit.modules(gated=False)), *adjoint_modules(circuit)]
    return tuple(resource_dir("veriloga") / f"{name}.va" for name in names)


def prepare_adjoint(network: Network, circuit: Circuit, loss: Loss, folder: Path, timeout_s: float) -> AdjointBench:
    """Lay out ``folder``: both netlists, the devices, and these compiled. What earlier runs left in it stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in module_files(circuit):
        for file in with_includes(source):
            shutil.copyfile(file, folder / file.name)
        compile_beside(source, folder)
    (folder / f"{_FORWARD}.inc").write_text(render_netlist(circuit, circuit.stages[0], NGSPICE.name))
    (folder / f"{_ADJOINT}.inc").write_text(render_adjoint(circuit))
    return AdjointBench(network, circuit, loss, folder, timeout_s)


def run_adjoint(bench: AdjointBench, job: AdjointJob) -> Result:
    """Forward, back, and the gradient, in a folder of its own that stays where the job says so or something failed."""
    folder = bench.folder / f"sample{job.sample}_{job.settings.steps}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started = time.monotonic()
    run = _Run(bench, job, folder)
    try:
        gradient = _gradient(run)
    except KcnetError as error:
        return Result(status_of(error), str(error), time.monotonic() - started, max(run.peaks, default=0))
    if not job.keep:
        shutil.rmtree(folder)
    return Result(Status.PASSED, "", time.monotonic() - started, max(run.peaks), gradient.flat)


@dataclass(frozen=True, eq=False)
class _Run:
    """A job at its bench, in its own ``folder``; ``peaks`` collects the simulator's memory, KiB."""

    bench: AdjointBench
    job: AdjointJob
    folder: Path
    peaks: list[int] = field(default_factory=list)


def _gradient(run: _Run) -> Gradient:
    bench, job, circuit = run.bench, run.job, run.bench.circuit
    s, modules = circuit.scaling, sorted(circuit.modules(gated=False))
    t, volts = _transient(run, _FORWARD, f"../{_FORWARD}.inc", modules, s.v_unit * job.v0[1:])
    # Of order 4 where the waveform is smooth, of the solver's 2 in steps with a corner. With the same settings the
    # adjoint steps as the forward run did: its steps are known beforehand, and the replay is exact at each of them.
    record = CubicSpline(t, volts)
    end = t[-1]
    replay = run.folder / "replay.inc"
    title = f"sample {job.sample}, {job.settings.steps} steps"
    replay.write_text(render_replay(circuit, title, f"../{_ADJOINT}.inc", t, record(end - t)))

    v_end = np.concatenate([[0.0], volts[-1] / s.v_unit])
    of_end = bench.loss.gradient(bench.network, v_end, job.label)
    # The adjoint is linear, so its level is free: a volt-unit for the largest derivative keeps clear of tolerances.
    level = float(np.abs(of_end).max()) or 1.0
    start = s.v_unit * of_end[1:] / level
    back, pull = _transient(run, _ADJOINT, replay.name, adjoint_modules(circuit), start)
    tau = (end - back[::-1]) / s.t_unit
    v = _with_ground(record(end - back[::-1]) / s.v_unit)
    of_v = _with_ground(pull[::-1] * (level / s.v_unit))
    return Gradient(of_v[0], edge_gradient(bench.network.phases[0].edges, tau, v, of_v))


def _with_ground(columns: Floats) -> Floats:
    return np.hstack([np.zeros((len(columns), 1)), columns])


def _transient(run: _Run, name: str, netlist: str, modules: Sequence[str], start: Floats) -> tuple[Floats, Floats]:
    """Run one of the two circuits from ``start`` [nets]: times [points] in seconds from 0 to T, and the nets' voltages
    above the rail [points, nets]."""
    job, circuit = run.job, run.bench.circuit
    (stage,) = circuit.stages
    window = stage_window(circuit, stage, job.settings)
    deck = run.folder / f"{name}{NGSPICE.suffix}"
    deck.write_text(
        render_testbench(
            circuit,
            window,
            job.settings,
            [Sample(f"{name} run of sample {job.sample}", start, name)],
            simulator=NGSPICE.name,
            netlist=netlist,
            osdi=[f"../{module}.osdi" for module in modules],
        )
    )
    try:
        raw = run.folder / f"{name}.raw"
        run.peaks.append(NGSPICE.run_to(raw, deck, run.folder / f"{name}.log", run.bench.timeout_s).peak_kib)
        waves = read_transient(raw, window.nets, window.t_end)
    except KcnetError as error:
        raise type(error)(f"the {name} run of sample {job.sample} failed: {error}") from None
    # ngspice writes no point at 0, where the capacitors' initial voltages stand.
    times = np.concatenate([[0.0], waves.time])
    return times, np.vstack([start, waves.values - circuit.scaling.v_cm])
