"""``kcnet doctor``: what was found, whether compiler and simulator fit together, and what to do about the rest."""

from __future__ import annotations

import math
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from kcnet_eda.errors import KcnetError
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import ORDERS, Sample, SolverSettings, render_testbench, stage_window
from kcnet_eda.files import cache_dir, resource_dir
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import RELU, eq6
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE, VACASK, Simulator

_PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "safetensors", "pydantic", "jinja2", "plotly", "typer")
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. ``needed`` is False where the program can do without."""

    what: str
    good: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def doctor() -> list[Finding]:
    """Examine this machine: Python, packages, compiler, simulators, and a one-device circuit through each pair.

    One simulator that works is enough; the other is then not needed.
    """
    findings = [Finding("Python", True, f"{platform.python_version()} on {platform.machine()} {platform.system()}")]
    findings += [_package(name) for name in _PACKAGES]
    findings.append(_package("torch", needed=False, remedy="only training needs it: pip install 'kcnet_eda[train]'"))
    findings.append(_tool("OpenVAF (Verilog-A compiler)", find_openvaf, lambda: openvaf.version(find_openvaf())))
    checked = [(s, _tool(name, s.find, s.version), _fits(s)) for s, name in ((NGSPICE, "ngspice"), (VACASK, "VACASK"))]
    one_works = any(fit.good for _, _, fit in checked)
    for _, tool, fit in checked:
        findings += [Finding(f.what, f.good, f.detail, f.remedy, needed=not one_works) for f in (tool, fit)]
    findings.append(Finding("cache of compiled devices", True, str(cache_dir())))
    return findings


def _package(name: str, needed: bool = True, remedy: str = "pip install kcnet_eda again") -> Finding:
    try:
        return Finding(f"Python package {name}", True, version(name), needed=needed)
    except PackageNotFoundError:
        return Finding(f"Python package {name}", False, "not installed", remedy, needed)


def _tool(name: str, find: Callable[[], Path], ask: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, f"{ask()} at {find()}")
    except KcnetError as error:
        return Finding(name, False, "not usable", str(error))


def _fits(simulator: Simulator) -> Finding:
    """Compile kc_edge_relu and let it discharge one capacitor into another; the answer is known in closed form."""
    what = f"compiler and {simulator.name} together"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            error = _one_device(simulator, Path(scratch))
    except KcnetError as problem:
        return Finding(what, False, "a one-device circuit does not run", str(problem))
    if not error < 1e-4:
        return Finding(
            what,
            False,
            f"a one-device circuit is off by {error:.1e} of its range",
            "Try another version of the simulator or of the compiler.",
        )
    return Finding(what, True, f"a one-device circuit runs, {error:.1e} off its closed form")


def _one_device(simulator: Simulator, folder: Path) -> float:
    """Error of an Eq. (6) edge between two capacitors from (1, 0): the difference decays as exp(−2τ)."""
    a, b, c, k = eq6(np.ones(1), np.zeros(1))
    one, two = np.array([1], np.int32), np.array([2], np.int32)
    edge = Edges(one, two, a, b, c, k, np.array([RELU], np.uint8))
    network = Network("doctor", (Phase(3, 1.0, edge),), one, two)
    circuit = build_circuit(network, resolve(), passes=())
    settings, stage = SolverSettings(1e-5, 200, ORDERS[simulator.name]), circuit.stages[0]
    (folder / "circuit.inc").write_text(render_netlist(circuit, stage, simulator.name))
    compiled = openvaf.compile_file(resource_dir("veriloga") / "kc_edge_relu.va")
    (folder / "kc_edge_relu.osdi").write_bytes(compiled.read_bytes())
    deck = folder / f"deck{simulator.suffix}"
    deck.write_text(
        render_testbench(
            circuit,
            stage_window(circuit, stage, settings),
            settings,
            [Sample("doctor", np.array([1.0, 0.0]), "doctor")],
            simulator=simulator.name,
            netlist="circuit.inc",
            osdi=["kc_edge_relu.osdi"],
        )
    )
    raw = folder / "doctor.raw"
    simulator.run_to(raw, deck, folder / "log.txt", _TIMEOUT_S)
    v1, v2 = read_transient(raw, circuit.nets[1:], circuit.t_end).values[-1]
    return abs(float(v1 - v2) - math.exp(-2.0))


def healthy(findings: list[Finding]) -> bool:
    """Whether all that is needed is there."""
    return all(f.good or not f.needed for f in findings)
