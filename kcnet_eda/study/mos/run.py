"""One run of a network in transistors, from a state to T: what a bundle's example is tried with."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.export.calibrated import NOISE
from kcnet_eda.export.circuit import Circuit
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.testbench import Sample, SolverSettings, Window, render_testbench, stage_window
from kcnet_eda.study.mos.rig import Rig
from kcnet_eda.tools.openvaf import compile_beside, shipped
from kcnet_eda.tools.pdk import link_models
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_SUPPLY = "i(vvdd)"


@dataclass(frozen=True, eq=False)
class MosRun:
    """``tau`` [points] and node voltages ``v`` [points, nodes without ground] in model units, from where the network
    begins to evolve; the current that the supply delivers [points, A]; the run's wall time and its largest resident
    set."""

    tau: Floats
    v: Floats
    supply: Floats
    seconds: float
    peak_mib: float


@dataclass(frozen=True, eq=False)
class MosDeck:
    """One run as text: the ``netlist`` that the deck ``text`` includes as ``net.inc``, and what it covers; ``modules``
    are the shipped Verilog-A modules that it loads beside the kit's models."""

    circuit: Circuit
    netlist: str
    text: str
    window: Window
    modules: tuple[str, ...] = ()


def mos_deck(
    rig: Rig, mos: MosCircuit, settings: SolverSettings, x0: Floats, supply_ohms: float = 0.0, noise: str = ""
) -> MosDeck:
    """A run of a one-phase network from ``x0`` [nodes] in model units, at the condition of ``rig``, its supply behind
    ``supply_ohms``, with the lines of :func:`kcnet_eda.export.calibrated.noise_lines` in it."""
    modules = (NOISE,) if noise else ()
    circuit = mos.circuit
    window = stage_window(circuit, circuit.stages[0], settings, mos.write_time)
    text = render_testbench(
        circuit,
        window,
        settings,
        [Sample("one run", x0[1:] * circuit.scaling.v_unit, "out")],
        simulator="ngspice",
        netlist="net.inc",
        osdi=[],
        header=rig.header([f"{module}.osdi" for module in modules]),
    )
    return MosDeck(circuit, mos.netlist(rig.supply, supply_ohms) + noise, text, window, modules)


def run_in_transistors(
    rig: Rig,
    run: MosDeck,
    timeout_s: float = 600.0,
    folder: Path | None = None,
    cancel: threading.Event | None = None,
) -> MosRun:
    """Run a deck beside the models of ``rig``, in a ``folder`` that is the caller's, or in one that stays only where
    the run fails. Setting ``cancel`` ends it early.

    Raises
    ------
    ToolFailedError, NotConvergedError, RunTimeoutError
        The simulator gave no result; the message names its log.
    """
    scaling, window = run.circuit.scaling, run.window
    own = folder is None
    folder = folder or Path(tempfile.mkdtemp(prefix="kcnet-run-"))
    link_models(rig.models, folder)
    for module in run.modules:
        compile_beside(shipped(module), folder)
    (folder / "net.inc").write_text(run.netlist)
    deck, raw = folder / "deck.sp", folder / "out.raw"
    deck.write_text(run.text)
    started = time.monotonic()
    done = NGSPICE.run_to(raw, deck, folder / "log.txt", timeout_s, cancel)
    seconds = time.monotonic() - started
    waves = read_transient(raw, [*window.nets, _SUPPLY], window.t_end)
    if own:
        shutil.rmtree(folder)
    evolving = waves.time >= window.lead_in
    return MosRun(
        (waves.time[evolving] - window.lead_in) / scaling.t_unit,
        (waves.values[evolving, :-1] - scaling.v_cm) / scaling.v_unit,
        -waves.values[evolving, -1],  # SPICE counts the current into the source
        seconds,
        done.peak_kib / 1024,
    )
