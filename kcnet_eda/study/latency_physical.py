"""The physical section: a network in transistors of a process, from slow to fast, against its trained laws in software.

The cells are calibrated once; T_u then sets the nodes' capacitors, C = T_u·I_u/V_u, and with them how fast the cells
have to follow. Accuracy, labels and waveforms are of those runs; supply current and energy are those of the supply
source. What noise costs at each C is the fast engine's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from kcnet_eda.dynamics.engine import evolve
from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.store import dump_network, load_network, network_path
from kcnet_eda.physical.pdk import Pdk, load_pdk
from kcnet_eda.physical.thermal import ktc_noise
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.engine_run import ENGINE, VERSION
from kcnet_eda.study.export_mos import buildable, calibrated, kit_scaling, mos_settings
from kcnet_eda.study.latency_bench import Floats, LatencyBench, Row, Task, failures
from kcnet_eda.study.latency_settings import Physical
from kcnet_eda.study.mos_run import mos_deck, run_in_transistors
from kcnet_eda.study.pareto import not_dominated
from kcnet_eda.study.rig import Bench, Rig
from kcnet_eda.study.simulate import require_fit
from kcnet_eda.study.sizing import size_cells
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE

VARIANT, NOISE = "physical", "physical_ktc_noise"
_STEPS = 50  # RK4 steps of the engine: those of the audit
_GRID = 101  # instants of a run at which waveforms are compared
_DRAWN = 3  # the first word of the key by which noise is drawn


def run_physical(bench: LatencyBench, section: Physical) -> Row:
    """Run the section; its part of the record."""
    network = load_network(network_path(section.network))
    kit = load_pdk(section.pdk)
    data = load_data(section.data, bench.study.data_dir, features=network.inputs.size, seed=bench.study.seed)
    require_fit(data, network)
    some = data.head(min(section.samples, len(data)))
    x0 = network.initial_state(some.x)
    tau = np.linspace(0, network.duration, _GRID)
    ideal = np.stack([trajectory(network, x, tau) for x in x0])  # [samples, instants, nodes]
    software = labels(network, ideal[:, -1])
    y = software if some.y is None else some.y
    points: list[Row] = []
    failed: list[Row] = []
    for factor in section.currents:
        rig = size_cells(Bench(_at_current(kit, factor), prepare(kit, section.models)))
        groups = calibrated(rig, buildable(network, rig.pdk), bench.progress)
        for t_unit in sorted(section.t_units, reverse=True):
            circuit = build_circuit(network, kit_scaling(rig.pdk, None, t_unit), (), None, "mos")
            mos = MosCircuit(circuit, rig.pdk, rig.design, groups, rig.direct)
            row = _where(mos, network, factor, t_unit)
            problems = mos.capacitance_problems()
            if problems:
                points.append(row | {"built": False, "why": f"{len(problems)} nodes: {problems[0]}", "n": 0})
                continue
            settings = mos_settings(network, bench.study.error)
            same = sha256_bytes(mos.netlist().encode())
            tasks = [_task(section, rig, mos, same, settings, x, i) for i, x in enumerate(x0)]
            results = bench.attempt(tasks, f"transistors, {1e9 * t_unit:g} ns a unit of time")
            failed += failures(tasks, results)
            found = _judge(network, mos, results, ideal, tau, software, y)
            points.append(row | {"built": True, "why": None, "keys": [t.key for t in tasks]} | found)
    built = [p for p in points if p["built"]]
    noise_failed = [] if data.y is None else _noise(bench, section, network, data, built)
    right = int((software == y).sum())
    judged = [p for p in built if p["passed"]]
    front = not_dominated([(p["t_total_s"], p["energy_j"], -p["accuracy"]["value"]) for p in judged])
    for point, on_front in zip(judged, front, strict=True):
        point["on_front"] = on_front
    return {
        "level": "mos",
        "simulator": NGSPICE.name,
        "simulator_version": NGSPICE.version(),
        "pdk": kit.name,
        "network": network.name,
        "edges": network.n_edges,
        "n": len(x0),
        "software_accuracy": proportion(right, len(x0)),
        "asked": {"agreement": section.agreement, "accuracy_loss": section.accuracy_loss},
        "points": points,
        "knee": _knee(built, section, right / len(x0)),
        "failed": failed + noise_failed,
    }


def _at_current(kit: Pdk, factor: float) -> Pdk:
    """The kit with another unit current, for which its cells are sized and calibrated."""
    if factor == 1.0:
        return kit
    return kit.model_copy(update={"operating": kit.operating.model_copy(update={"i0": kit.operating.i0 * factor})})


def _where(mos: MosCircuit, network: Network, factor: float, t_unit: float) -> Row:
    op = mos.pdk.operating
    return {
        "current_factor": factor,
        "i_unit": op.i0,
        "v_unit": op.v0,
        "t_unit": t_unit,
        "t_total_s": t_unit * network.duration,
        "c": mos.circuit.scaling.c,
        "supply_v": op.supply,
        "edges_out_of_reach": sum(len(group.found.out_of_reach) for group in mos.groups),
        "pins_largest_f": float(mos.parasitics[1:].max()),
    }


def _task(
    section: Physical, rig: Rig, mos: MosCircuit, same: str, settings: SolverSettings, x0: Floats, i: int
) -> Task:
    def make() -> Result:
        run = run_in_transistors(rig, mos_deck(rig, mos, settings, x0), section.timeout_s)
        seconds = run.tau * mos.circuit.scaling.t_unit
        kept = np.concatenate([run.v, run.supply[:, None]], axis=1)
        end = np.append(0.0, run.v[-1])
        return Result(Status.PASSED, "", run.seconds, int(run.peak_mib * 1024), end, None, (seconds, kept))

    words = " ".join(
        [
            same,
            rig.header(),
            rig.models.sha256,
            str(settings),
            sha256_bytes(x0.tobytes()),
        ]
    )
    return Task(words, i, VARIANT, NGSPICE.name, NGSPICE.version(), make)


def _judge(
    network: Network, mos: MosCircuit, results: Sequence[Result], ideal: Floats, tau: Floats, software: Any, y: Any
) -> Row:
    """A speed's numbers over its samples; a run that failed is neither right nor in agreement."""
    n, supply, t_unit = len(results), mos.pdk.operating.supply, mos.circuit.scaling.t_unit
    worst, rms, current, peak, energy = [], [], [], [], []
    label = np.full(n, -1)
    for i, result in enumerate(results):
        if result.waveform is None or result.v_end is None:
            continue
        label[i] = labels(network, result.v_end[None])[0]
        seconds, kept = result.waveform
        at = np.stack([np.interp(tau * t_unit, seconds, column) for column in kept[:, :-1].T], axis=1)
        off, own = at - ideal[i][:, 1:], kept[:, -1]
        worst.append(float(np.abs(off).max()))
        rms.append(float(np.sqrt(np.mean(off**2))))
        charge = float(trapezoid(own, seconds))
        current.append(charge / (seconds[-1] - seconds[0]))
        peak.append(float(own.max()))
        energy.append(supply * charge)
    return {
        "n": n,
        "passed": len(worst),
        "labels": label.tolist(),
        "accuracy": proportion(int((label == y).sum()), n),
        "agreement": proportion(int((label == software).sum()), n),
        "error_max": max(worst, default=None),
        "error_rms": float(np.mean(rms)) if rms else None,
        "current_mean_a": float(np.mean(current)) if current else None,
        "current_peak_a": max(peak, default=None),
        "energy_j": float(np.mean(energy)) if energy else None,
        "wall_s": float(np.mean([r.wall_s for r in results])),
        "on_front": False,
    }


def find_knee(points: Sequence[Row], agreement: float, least_accuracy: float) -> Row | None:
    """The fastest of ``points`` at which, and at all slower ones of its unit current, labels agree and accuracy is as
    asked; None where the slowest already misses."""
    found = None
    for factor in dict.fromkeys(p["current_factor"] for p in points):
        for p in sorted((p for p in points if p["current_factor"] == factor), key=lambda p: -float(p["t_unit"])):
            if p["agreement"]["value"] < agreement or p["accuracy"]["value"] < least_accuracy:
                break
            if found is None or p["t_unit"] < found["t_unit"]:
                found = p
    return found


def _knee(points: Sequence[Row], section: Physical, software: float) -> Row | None:
    found = find_knee(points, section.agreement, software - section.accuracy_loss - 1e-12)
    if found is None:
        return None
    kept = ("t_unit", "t_total_s", "c", "current_factor", "accuracy", "agreement", "error_max", "energy_j")
    # Nothing faster was missed: the knee may lie beyond what was tried or can be built.
    misses = [p for p in points if p["t_unit"] < found["t_unit"]]
    return {name: found[name] for name in (*kept, "current_mean_a")} | {
        "f_hz": 1 / found["t_total_s"],
        "bracketed": bool(misses),
    }


def _noise(bench: LatencyBench, section: Physical, network: Network, data: DataSet, points: Sequence[Row]) -> list[Row]:
    """Into each of ``points`` what kT/C noise of its C does to the accuracy of all ``data``, by the engine."""
    x0 = network.initial_state(data.x)
    same = sha256_bytes(dump_network(network) + x0.tobytes())
    tasks = []
    for p in points:
        sigma = ktc_noise(p["c"], 27.0)
        p["noise"] = {"level": "engine", "simulator_version": VERSION, "sigma_v": sigma, "draws": section.noise_draws}

        def make(shift: float = sigma / p["v_unit"]) -> Result:
            started, right = time.monotonic(), 0
            for k in range(section.noise_draws):
                key = np.random.SeedSequence(bench.study.seed, spawn_key=(_DRAWN, k))
                z = np.random.default_rng(key).standard_normal(x0.shape)
                z[:, 0] = 0.0  # the rail is held
                v = evolve(network, x0 + shift * z, steps=_STEPS, dtype=np.float64, threads=bench.jobs).v_end
                right += int((labels(network, v) == data.y).sum())
            count = np.array([right, section.noise_draws * len(x0)], dtype=np.float64)
            return Result(Status.PASSED, "", time.monotonic() - started, 0, count)

        words = f"{same} {sigma!r} {p['v_unit']} {section.noise_draws} {bench.study.seed}"
        tasks.append(Task(words, 0, NOISE, ENGINE, VERSION, make, bench.study.seed))
    results = bench.attempt(tasks, "kT/C noise, engine")
    for p, task, r in zip(points, tasks, results, strict=True):
        p["noise"]["key"] = task.key
        p["noise"]["accuracy"] = None if r.v_end is None else proportion(int(r.v_end[0]), int(r.v_end[1]))
    return failures(tasks, results)
