"""The MOS edge cell and a small network over process, supply and temperature, and with the kit's own mismatch.

    python benchmarks/mos_pvt.py [--pdk gf180mcu --pdk ihp-sg13g2] [--samples 100] [--json OUT.json]

One edge of each size class and one network of 8 nodes are calibrated at the nominal condition, then simulated at each
other condition as they are: transistor corners x supply x temperature at the nominal resistor, and the resistor's
corners x supply x temperature at the nominal transistors. The bias is V_ref over a resistor of the edge's type; V_ref
and the common mode stay, and node capacitors are ideal. The common time scale is the factor on all currents: the least
squares of fitted against trained θ1. "Final error" is the largest of any node's |v(T) - ideal| in units of V0, with the
read-out at T, and with the read-out at T over that scale, as a clock does that follows the same bias.

Random networks amplify errors by very different factors (an edge of negative θ1 is positive feedback), so the one here
is that of median sensitivity out of nine drawn: the largest node change at T, in software, of 0.02 I0 on every θ2.

Mismatch: the kit's own statistics, wrapper subcircuits, one deck a seed: cells and bias together.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mos_cell import TIMEOUT_S, random_network

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.testbench import ORDERS, Sample, SolverSettings, Window, render_testbench
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.physical.calibration import Calibration
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.physical.size_classes import class_names, size_classes
from kcnet_eda.study.mos.calibrate import calibrate, measure
from kcnet_eda.study.mos.export import buildable, calibrated
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import link_models, prepare
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE, explain

NETWORK_SEED, FIRST_DRAW = 20240613, 1  # draws are seeds FIRST_DRAW, FIRST_DRAW + 1, ...
NODES, T_UNIT = 8, 300e-9
DRAWN, SHIFT = 9, 0.02
STEPS = 50  # at least, a unit of time
LONGER = 1.4  # the run goes on beyond T, for circuits that are slow
ERROR = 1e-3
Floats = np.ndarray


class Circuit8:
    """One network, its cells calibrated at the nominal condition, run anywhere."""

    def __init__(self, rig: Rig, net: Network) -> None:
        design = rig.design
        c = T_UNIT * design.i_unit / design.v_unit
        scaling = resolve(c=c, v_unit=design.v_unit, i_unit=design.i_unit, v_cm=design.v_cm)
        self.net, self.circuit = net, build_circuit(net, scaling, (), None, "mos")
        self.groups = calibrated(rig, buildable(net, rig.pdk))
        for group in self.groups:
            for i in group.found.out_of_reach:
                print(f"Network, {group.names[i]}, used all the same: {group.found.reason[i]}.\n")
        self.x0 = net.initial_state(net.examples)[0]
        self.times = np.linspace(0, LONGER * net.duration, 561)
        self.ideal = trajectory(net, self.x0, np.array([0.0, net.duration]))[-1, 1:]

    def run(self, rig: Rig) -> Floats:
        """Node voltages [times, nodes] in model units at the condition of ``rig``."""
        design = rig.design
        mos = MosCircuit(self.circuit, rig.pdk, design, self.groups, rig.direct)
        assert not mos.capacitance_problems()
        supply = design.supply if rig.supply is None else rig.supply
        text, n = re.subn(r"(?m)^vvdd vdd 0 .*$", f"vvdd vdd 0 {supply:.9g}", mos.netlist())
        assert n == 1
        folder = Path(tempfile.mkdtemp(prefix="kcnet-pvt-"))
        (folder / "net.inc").write_text(text)
        t_end = LONGER * self.circuit.t_end
        settings = SolverSettings(ERROR, round(STEPS * LONGER * self.net.duration), ORDERS["ngspice"], adaptive=True)
        window = Window(self.circuit.nets[1:], t_end, t_end / settings.steps)
        link_models(rig.models, folder)
        header = rig.header()
        deck = folder / "deck.sp"
        sample = Sample("random start", self.x0[1:] * design.v_unit, "out")
        deck.write_text(
            render_testbench(
                self.circuit,
                window,
                settings,
                [sample],
                simulator="ngspice",
                netlist="net.inc",
                osdi=[],
                header=header,
            )
        )
        done = NGSPICE.run(deck, folder / "log.txt", TIMEOUT_S)
        if not (folder / "out.raw").is_file():
            raise explain(done)
        waves = read_transient(folder / "out.raw", self.circuit.nets[1:], t_end)
        shutil.rmtree(folder)
        volts = (waves.values - design.v_cm) / design.v_unit
        return np.stack([np.interp(self.times, waves.time / T_UNIT, v) for v in volts.T], axis=1)

    def at(self, waves: Floats, instant: float) -> Floats:
        """Node voltages at a model time."""
        return np.array([np.interp(instant, self.times, v) for v in waves.T])

    def error(self, waves: Floats, scale: float = 1.0) -> float:
        """The largest node error with the read-out at T/scale; NaN where the run is too short for it."""
        instant = self.net.duration / scale
        if instant > self.times[-1]:
            return float("nan")
        return float(np.abs(self.at(waves, instant) - self.ideal).max())


def sensitivity(net: Network) -> float:
    """The largest change of a node at T that a shift of every θ2 makes, in units of V0."""
    p, e = net.phases[0], net.phases[0].edges
    law = Edges(e.source, e.target, e.a, e.b, e.c + SHIFT, e.k, e.phi)
    moved = Network(net.name, (Phase(p.n_nodes, p.duration, law),), net.inputs, net.readout, examples=net.examples)
    x0, ends = net.initial_state(net.examples)[0], np.array([0.0, net.duration])
    return float(np.abs(trajectory(moved, x0, ends)[-1] - trajectory(net, x0, ends)[-1]).max())


def median_network(rig: Rig) -> tuple[Network, list[float]]:
    """The network of median sensitivity out of those drawn, and all their sensitivities."""
    rng = np.random.default_rng(NETWORK_SEED)
    nets = [random_network(rng, NODES, rig.design, i) for i in range(DRAWN)]
    found = [sensitivity(net) for net in nets]
    return nets[int(np.argsort(found)[DRAWN // 2])], sorted(found)


def time_scale(found: Calibration) -> float:
    """The common factor on θ1."""
    return float((found.fitted1 * found.theta1).sum() / (found.theta1**2).sum())


def condition(rig: Rig, nominal: Calibration, net: Circuit8) -> dict[str, Any]:
    """Cells and network at one condition."""
    cells = measure(rig, nominal)
    scale = time_scale(cells)
    sloped = nominal.theta1 > 0
    waves = net.run(rig)
    return {
        "corner": rig.corner,
        "resistor": rig.resistor_corner,
        "supply": rig.supply,
        "temperature": rig.temperature,
        "scale": scale,
        "theta1": cells.fitted1.tolist(),
        "theta2": cells.fitted2.tolist(),
        "theta1_rest_percent": 100 * float(np.abs(cells.fitted1[sloped] / nominal.theta1[sloped] / scale - 1).max()),
        "theta2_rest": float(np.abs(cells.fitted2 / scale - nominal.theta2).max()),
        "max_error_percent": 100 * float(np.max(cells.share_of_full_scale(cells.max_error))),
        "leakage_na": 1e9 * float(np.nanmax(cells.leakage)),
        "mismatch_percent": 100 * float(cells.mismatch.max()),
        "final_error": net.error(waves),
        "final_error_scaled": net.error(waves, scale),
    }


HEAD = (
    "| corner, R | VDD, V | °C | time scale | θ1 rest, % | θ2 rest, I0 | source/sink, % | leakage, nA | "
    "final error at T | at T/scale |\n|---|---|---|---|---|---|---|---|---|---|"
)


def row(r: dict[str, Any]) -> str:
    """One condition as a line of a table."""
    return (
        f"| {r['corner']}, {r['resistor']} | {r['supply']:.2f} | {r['temperature']:g} | {r['scale']:.3f} | "
        f"{r['theta1_rest_percent']:.2f} | {r['theta2_rest']:.3f} | {r['mismatch_percent']:.2f} | "
        f"{r['leakage_na']:.2f} | {r['final_error']:.3f} | {r['final_error_scaled']:.3f} |"
    )


def pvt(rig: Rig, nominal: Calibration, net: Circuit8) -> list[dict[str, Any]]:
    """Every condition, printed as it comes."""
    op = rig.pdk.operating
    supplies = [op.supply * f for f in (1 - op.supply_tolerance, 1.0, 1 + op.supply_tolerance)]
    pairs = [(c, "typ") for c in rig.pdk.corners] + [("tt", r) for r in rig.pdk.resistor_corners if r != "typ"]
    print(HEAD)
    found = []
    for corner, resistor in pairs:
        for supply in supplies:
            for t in op.temperatures:
                there = replace(rig, corner=corner, resistor_corner=resistor, supply=supply, temperature=t)
                found.append(condition(there, nominal, net))
                print(row(found[-1]), flush=True)
    return found


def fitted_by_class(names: list[str], nominal: Calibration, found: list[dict[str, Any]]) -> None:
    """The range of each class's θ over the conditions, as fitted and after the common scale."""
    print("\n| class | θ1 | fitted, over all conditions | θ1 over scale | θ2 | fitted | θ2 over scale |")
    print("|---|---|---|---|---|---|---|")
    one, two = np.array([r["theta1"] for r in found]), np.array([r["theta2"] for r in found])
    scale = np.array([r["scale"] for r in found])[:, None]
    for i, name in enumerate(names):
        spans = [f"{v[:, i].min():.3f} to {v[:, i].max():.3f}" for v in (one, one / scale, two, two / scale)]
        print(
            f"| {name} | {nominal.theta1[i]:.3f} | {spans[0]} | {spans[1]} | {nominal.theta2[i]:.3f} | {spans[2]} | "
            f"{spans[3]} |"
        )


def summary(found: list[dict[str, Any]]) -> None:
    """Worst and range over groups of conditions."""
    nominal_t = 27.0
    groups = {
        "transistor corners and VDD, 27 °C": [
            r for r in found if r["resistor"] == "typ" and r["temperature"] == nominal_t
        ],
        "transistor corners, VDD, temperature": [r for r in found if r["resistor"] == "typ"],
        "resistor corners, VDD, temperature": [r for r in found if r["resistor"] != "typ"],
        "all": found,
    }
    print("\n| conditions | n | time scale | θ1 rest, % | θ2 rest, I0 | final error at T: median, worst | at T/scale |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in groups.items():
        column = {key: np.array([r[key] for r in rows]) for key in rows[0] if key not in ("corner", "resistor")}
        s, e, f = column["scale"], column["final_error"], column["final_error_scaled"]
        read = np.isfinite(f)
        lacking = "" if read.all() else f" (of {int(read.sum())}: the others end before T/scale)"
        print(
            f"| {name} | {len(rows)} | {s.min():.3f} to {s.max():.3f} | {column['theta1_rest_percent'].max():.2f} | "
            f"{column['theta2_rest'].max():.3f} | {np.median(e):.3f}, {e.max():.3f} | "
            f"{np.median(f[read]):.3f}, {f[read].max():.3f}{lacking} |"
        )


def monte_carlo(rig: Rig, names: list[str], nominal: Calibration, net: Circuit8, n: int) -> dict[str, Any]:
    """Cells and network with mismatch drawn ``n`` times."""
    one, two, ratio, ends, errors, scales = [], [], [], [], [], []
    for seed in range(FIRST_DRAW, FIRST_DRAW + n):
        there = replace(rig, seed=seed)
        cells, waves = measure(there, nominal), net.run(there)
        one.append(cells.fitted1)
        two.append(cells.fitted2)
        ratio.append(cells.mismatch)
        scales.append(time_scale(cells))
        ends.append(net.at(waves, net.net.duration))
        errors.append(net.error(waves))
    theta1, theta2, mismatch, final = np.array(one), np.array(two), np.array(ratio), np.array(ends)
    spread = final.std(axis=0, ddof=1)
    # the bias's own deviation is common to a sample's cells, so it is told apart
    print("\n| class | σ(θ1)/θ1, % | σ(θ1/common)/θ1, % | σ(θ2), I0 | source/sink: median, largest, % of full scale |")
    print("|---|---|---|---|---|")
    common = np.array(scales)[:, None]
    for i, name in enumerate(names):
        t1 = nominal.theta1[i]
        own = [f"{100 * v[:, i].std(ddof=1) / t1:.2f}" if t1 else "–" for v in (theta1, theta1 / common)]
        print(
            f"| {name} | {own[0]} | {own[1]} | {theta2[:, i].std(ddof=1):.4f} | "
            f"{100 * np.median(mismatch[:, i]):.2f}, {100 * mismatch[:, i].max():.2f} |"
        )
    e = np.array(errors)
    print(
        f"\nCommon time scale: mean {common.mean():.4f}, σ {common.std(ddof=1):.4f}. Final voltages of the network's "
        f"{spread.size} nodes: σ from {spread.min():.3f} to {spread.max():.3f}, rms {np.sqrt((spread**2).mean()):.3f} "
        f"V0; largest node error of a sample: median {np.median(e):.3f}, 95 % below {np.quantile(e, 0.95):.3f}, worst "
        f"{e.max():.3f} V0 ({n} samples: a σ is known to ±{100 / np.sqrt(2 * (n - 1)):.0f} %)."
    )
    return {
        "seeds": [FIRST_DRAW, FIRST_DRAW + n - 1],
        "theta1": theta1.tolist(),
        "theta2": theta2.tolist(),
        "mismatch": mismatch.tolist(),
        "scale": scales,
        "final": final.tolist(),
        "final_error": errors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", action="append")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for name in given.pdk or ["gf180mcu", "ihp-sg13g2"]:
        pdk = load_pdk(name)
        rig = size_cells(Bench(pdk, prepare(pdk)))
        names = class_names(rig.design)
        nominal = calibrate(rig, *size_classes(rig.design))
        chosen, sensitivities = median_network(rig)
        net = Circuit8(rig, chosen)
        print(f"\n## {pdk.name}\n\n{NGSPICE.version()}, models {rig.models.sha256[:16]} ({rig.models.origin}), "
              f"{len(names)} size classes; network of {NODES} nodes and {net.net.n_edges} edges, seed {NETWORK_SEED}, "
              f"T = {net.net.duration:g} units of {1e9 * T_UNIT:g} ns; {SHIFT:g} I0 on every θ2 moves it by "
              f"{sensitivity(chosen):.3f} V0, median of {', '.join(f'{v:.3f}' for v in sensitivities)}.\n")  # fmt: skip
        started = time.monotonic()
        found = pvt(rig, nominal, net)
        summary(found)
        fitted_by_class(names, nominal, found)
        print(f"\n{len(found)} conditions, {time.monotonic() - started:.0f} s.\n")
        results[name] = {"conditions": found}
        if given.samples and pdk.mismatch is not None:
            print(f"### Mismatch, {given.samples} samples, seeds {FIRST_DRAW} to {FIRST_DRAW + given.samples - 1}")
            started = time.monotonic()
            results[name]["mismatch"] = monte_carlo(rig, names, nominal, net, given.samples)
            print(f"\n{given.samples} samples, {time.monotonic() - started:.0f} s.")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
