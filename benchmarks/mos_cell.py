"""What the MOS edge cell does in ngspice with the foundries' own models, against what was asked of it.

    python benchmarks/mos_cell.py [--pdk gf180mcu --pdk ihp-sg13g2] [--edges 200] [--networks 20] [--trim 64]
        [--t-units 3e-7] [--edge-seed 20261701] [--seed 20261730] [--json OUT.json] [--plot OUT.html]

Random edges: θ uniform in the stated range, each calibrated and then measured over the whole box of node voltages.
Random networks: 3 to 8 nodes, their edges calibrated likewise, the largest node error over 2·T_u against the ideal law.
Beside each network's error stands what the network itself makes of errors of its edges (``amplification``), in the
ideal law: some multiply them so much that no circuit of edges as good as asked for would follow them. Then each network
is trimmed, as ``kcnet export --trim`` does, by runs from other initial voltages than the one that it is judged by.
Seeds are written here; those that are taken if none is given were not used while the cell was made. Edges of seeds
20240611, 20261201 and 20261301 and networks of 20240612, 20261124 to 20261127, 20261130 and 20261330 were, for its
well, clamp, lead, sink and trickle; four networks of 20261430 for the trimming; networks 1 of 20261530 and 9 of
20261830 to find what bends the corner on IHP.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.testbench import ORDERS, SolverSettings
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import RELU, eq6
from kcnet_eda.physical.calibration import TOLERANCE
from kcnet_eda.physical.cell_design import BOX, CellLimits
from kcnet_eda.physical.mos_cell import full_scale
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.mos.calibrate import calibrate
from kcnet_eda.study.mos.export import buildable, calibrated
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.mos.trim import trimmed
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE

EDGE_SEED, NETWORK_SEED = 20261701, 20261730
THETA1, THETA2 = 1.25, 1.25
T_UNITS = (1e-6, 300e-9, 100e-9, 30e-9, 10e-9)
JUDGED_T_UNIT = 300e-9
WORST_NODE = 0.12  # V_u, asked of the worst network
EDGE_RMS = 0.5  # % of full scale, asked of every edge's rms error
DRAWS, DRAWN_ERROR = 24, 1e-3  # of an edge's full scale, σ: small, so that the network is still linear in it
STEPS = 100  # a model unit of time
LIMITS = {"gf180mcu": (1.5, 0.5), "ihp-sg13g2": (1.5, 0.5), "sky130": (3.0, None)}
TIMEOUT_S = 600.0


def draw(rng: np.random.Generator, limits: CellLimits) -> tuple[float, float]:
    """One (θ1, θ2), uniform in the stated range."""
    while True:
        theta1, theta2 = rng.uniform(-THETA1, THETA1), rng.uniform(-THETA2, THETA2)
        if abs(theta1) >= limits.theta1_min and full_scale(np.array(theta1), np.array(theta2)) >= limits.full_scale_min:
            return theta1, theta2


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, 95 % quantile and worst."""
    kept = values[np.isfinite(values)]
    return {"median": float(np.median(kept)), "p95": float(np.quantile(kept, 0.95)), "worst": float(kept.max())}


def verdict(value: float, limit: float | None, unit: str = "") -> str:
    """A number against its target."""
    if limit is None:
        return f"{value:.4g}{unit}"
    if value <= limit:
        return f"{value:.4g}{unit} (target {limit:g}{unit}: met)"
    return f"{value:.4g}{unit} (target {limit:g}{unit}: MISSED by {value - limit:.3g}{unit})"


def edges(rig: Rig, n: int, seed: int) -> dict[str, Any]:
    """Random edges, calibrated and measured."""
    rng = np.random.default_rng(seed)
    theta = np.array([draw(rng, rig.design) for _ in range(n)])
    started = time.monotonic()
    found = calibrate(rig, theta[:, 0].copy(), theta[:, 1].copy())
    worst = found.share_of_full_scale(found.max_error)
    miss = np.maximum(np.abs(found.fitted1 - found.theta1), np.abs(found.fitted2 - found.theta2))
    max_limit, rms_limit = LIMITS.get(rig.pdk.name, (None, None))
    result: dict[str, Any] = {
        "n": n,
        "seconds": time.monotonic() - started,
        "passes": found.passes,
        "out_of_reach": [found.reason[i] for i in found.out_of_reach],
        "max_error_percent": spread(100 * worst),
        "rms_error_percent": spread(100 * found.share_of_full_scale(found.rms_error)),
        "over_max_limit": None if max_limit is None else int((100 * worst > max_limit).sum()),
        "theta_error": spread(miss),
        "leakage_na": spread(1e9 * found.leakage),
        "source_sink_mismatch_percent": spread(100 * found.mismatch),
        "power_uw": spread(1e6 * found.supply_current * rig.design.supply),
    }
    e, r, t = result["max_error_percent"], result["rms_error_percent"], result["theta_error"]
    print(f"  {n} random edges, |θ1| {rig.design.theta1_min:g}..{THETA1:g}, |θ2| <= {THETA2:g}, full scale >= "
          f"{rig.design.full_scale_min:g}, seed {seed}; {found.passes} passes")  # fmt: skip
    print(f"    max error of full scale: median {e['median']:.2f} %, 95 % of edges below {e['p95']:.2f} %, worst "
          f"{verdict(e['worst'], max_limit, ' %')}; above the target: {result['over_max_limit']} of {n}")  # fmt: skip
    print(f"    rms error: median {r['median']:.2f} %, worst {verdict(r['worst'], rms_limit, ' %')}")
    print(f"    fitted θ: worst {verdict(t['worst'], TOLERANCE)}; out of reach: {len(result['out_of_reach'])}")
    print(
        f"    off current: median {result['leakage_na']['median']:.3f} nA, worst {result['leakage_na']['worst']:.2f} nA"
    )
    m = result["source_sink_mismatch_percent"]
    print(f"    source/sink mismatch of full scale: median {m['median']:.2f} %, worst {m['worst']:.2f} %")
    print(
        f"    power of an edge: median {result['power_uw']['median']:.0f} µW, most {result['power_uw']['worst']:.0f} µW"
    )
    order = np.argsort(-worst)[:3]
    print(
        "    worst: " + "; ".join(f"θ = ({theta[i, 0]:.3f}, {theta[i, 1]:.3f}) {100 * worst[i]:.2f} %" for i in order)
    )
    return result


def random_network(rng: np.random.Generator, nodes: int, limits: CellLimits, number: int) -> Network:
    """Random edges (three a node, all pairs where there are fewer) whose ideal run of 2·T_u stays in the box."""
    pairs = np.array([(s, d) for s in range(1, nodes + 1) for d in range(1, nodes + 1) if s != d])
    while True:
        chosen = pairs[np.sort(rng.choice(len(pairs), min(len(pairs), 3 * nodes), replace=False))]
        theta = np.array([draw(rng, limits) for _ in chosen])
        a, b, c, k = eq6(theta[:, 0], theta[:, 1])
        law = Edges(chosen[:, 0], chosen[:, 1], a, b, c, k, np.full(len(chosen), RELU))
        every = np.arange(1, nodes + 1, dtype=np.int32)
        start = rng.uniform(-1, 1, nodes)
        net = Network(f"random{number}", (Phase(nodes + 1, 2.0, law),), every, every, examples=start[None])
        way = trajectory(net, net.initial_state(start)[0], np.linspace(0, 2, 101))
        if np.abs(way).max() <= BOX:
            return net


def other_starts(net: Network, seed: int, n: int) -> np.ndarray:
    """Initial states [n, nodes] besides the network's own, drawn as that was."""
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    while len(found) < n:
        x0 = net.initial_state(rng.uniform(-1, 1, net.inputs.size))[0]
        if np.abs(trajectory(net, x0, np.linspace(0, 2, 101))).max() <= BOX:
            found.append(x0)
    return np.array(found)


def amplification(net: Network, seed: int) -> float:
    """Largest node error over the run in the ideal law, V_u, for 1 % of full scale of error in each edge: the median of
    :data:`DRAWS` draws, θ2 off by a normal share of the full scale and θ1 by another at the box's edge."""
    edges, x0 = net.phases[0].edges, net.initial_state(net.examples)[0]
    theta1, theta2 = edges.k * edges.a, edges.k * edges.c
    scale = full_scale(theta1, theta2)
    times = np.linspace(0, net.duration, 201)
    ideal = trajectory(net, x0, times)
    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        off1, off2 = DRAWN_ERROR * scale * rng.standard_normal((2, len(edges)))
        a, b, c, k = eq6(theta1 + off1 / (2 * BOX), theta2 + off2)
        law = Edges(edges.source, edges.target, a, b, c, k, edges.phi)
        other = replace(net, phases=(replace(net.phases[0], edges=law),))
        found.append(np.nanmax(np.abs(trajectory(other, x0, times) - ideal)))
    return float(np.median(found)) / (100 * DRAWN_ERROR)


def in_transistors(rig: Rig, net: Network, t_unit: float) -> MosCircuit:
    """The network in calibrated cells."""
    design = rig.design
    c = t_unit * design.i_unit / design.v_unit
    circuit = build_circuit(
        net, resolve(c=c, v_unit=design.v_unit, i_unit=design.i_unit, v_cm=design.v_cm), (), None, "mos"
    )
    return MosCircuit(circuit, rig.pdk, design, calibrated(rig, buildable(net, rig.pdk)), rig.direct)


def solver(net: Network) -> SolverSettings:
    """What a network is simulated with."""
    return SolverSettings(1e-4, round(STEPS * net.duration), ORDERS["ngspice"], adaptive=True)


def run_network(rig: Rig, net: Network, mos: MosCircuit) -> float:
    """The largest node error over the run, model units; NaN where the cells alone have more capacitance than C."""
    if mos.capacitance_problems():
        return float("nan")
    x0 = net.initial_state(net.examples)[0]
    run = run_in_transistors(rig, mos_deck(rig, mos, solver(net), x0), TIMEOUT_S)
    ideal = trajectory(net, x0, np.minimum(run.tau, net.duration))[:, 1:]
    return float(np.abs(run.v - ideal).max())


def networks(rig: Rig, nets: Sequence[Network], seed: int, t_units: Sequence[float]) -> dict[str, Any]:
    """Random networks, of ``seed``, at several speeds."""
    n = len(nets)
    amplified = np.array([amplification(net, seed) for net in nets])
    sane = amplified * EDGE_RMS <= WORST_NODE  # edges at their own target would keep these within the networks' target
    result: dict[str, Any] = {"n": n, "nodes": [p.max_nodes - 1 for p in nets], "edges": [p.n_edges for p in nets]}
    result["amplification_v_u_per_percent"] = amplified.tolist()
    print(f"  {n} random networks of 3 to 8 nodes, seed {seed}, {min(result['edges'])} to {max(result['edges'])} edges")
    print(f"    their own amplification, V_u for 1 % of error in every edge: median {np.median(amplified):.3f}, most "
          f"{amplified.max():.2f}; {sane.sum()} of {n} would stay within {WORST_NODE} V_u with edges {EDGE_RMS} % "
          "off")  # fmt: skip
    for t_unit in t_units:
        errors = np.array([run_network(rig, net, in_transistors(rig, net, t_unit)) for net in nets])
        result[f"{t_unit:g}"] = errors.tolist()
        kept = errors[np.isfinite(errors)]
        line = f"    T_u {1e9 * t_unit:6.0f} ns: max node error over 2·T_u, "
        if not kept.size:
            print(line + "no network: the cells' own capacitance is more than C")
        elif t_unit == JUDGED_T_UNIT:
            median, worst = verdict(float(np.median(kept)), 0.05), verdict(float(kept.max()), WORST_NODE)
            print(line + f"median {median}, worst {worst} V0")
            share = np.where(amplified > 0, errors, np.nan) / np.where(amplified > 0, amplified, 1)
            print(f"      as an error of every edge: median {np.nanmedian(share):.2f} %, 95 % below "
                  f"{np.nanquantile(share, 0.95):.2f} %, worst {np.nanmax(share):.2f} %; worst of those {sane.sum()}: "
                  f"{verdict(float(np.nanmax(errors[sane])), WORST_NODE)} V0")  # fmt: skip
            for i in np.argsort(-errors)[:3]:
                print(f"      network {i}, {nets[i].n_edges} edges: {errors[i]:.3f} V0, amplification "
                      f"{amplified[i]:.2f}: as {share[i]:.2f} % in every edge")  # fmt: skip
        else:
            print(line + f"median {np.median(kept):.3f}, worst {kept.max():.3f} V0")
        if 0 < kept.size < n:
            print(f"                 ({n - kept.size} networks have more capacitance in their cells than C)")
    return result


def trimmed_networks(rig: Rig, nets: Sequence[Network], seed: int, runs: int) -> dict[str, Any]:
    """The same networks at the speed that they are judged at, each trimmed by ``runs`` runs from other starts."""
    n = len(nets)
    errors, others, cells = [], [], []
    for i, net in enumerate(nets):
        starts = other_starts(net, seed + 1 + i, runs + runs // 4)
        mos = trimmed(rig, in_transistors(rig, net, JUDGED_T_UNIT), net, solver(net), starts[:runs], starts[runs:])
        errors.append(run_network(rig, net, mos))
        assert mos.trim is not None
        others.append([*mos.trim.held_out_before, *mos.trim.held_out_after])
        cells.append(max(float(g.found.share_of_full_scale(g.found.max_error).max()) for g in mos.groups))
    median, worst = verdict(float(np.median(errors)), 0.05), verdict(max(errors), WORST_NODE)
    print(f"  each trimmed by {runs} runs from other initial voltages, T_u {1e9 * JUDGED_T_UNIT:.0f} ns:")
    print(f"    max node error over 2·T_u of the judged run, median {median}, worst {worst} V0; above {WORST_NODE}: "
          f"{sum(e > WORST_NODE for e in errors)} of {n}")  # fmt: skip
    before, after = np.array(others)[:, :2], np.array(others)[:, 2:]
    print(f"    of {runs // 4} further runs of each, neither judged nor trimmed by: median of a network's medians "
          f"{np.median(before[:, 0]):.3f} -> {np.median(after[:, 0]):.3f}, worst of all "
          f"{before[:, 1].max():.3f} -> {after[:, 1].max():.3f} V0; networks with one above {WORST_NODE}: "
          f"{(before[:, 1] > WORST_NODE).sum()} -> {(after[:, 1] > WORST_NODE).sum()}")  # fmt: skip
    print(f"    the cells' largest error of full scale over the box after it: {100 * max(cells):.2f} %")
    for i in np.argsort(-np.array(errors))[:3]:
        print(f"      network {i}, {nets[i].n_edges} edges: {errors[i]:.3f} V0")
    return {"runs": runs, "errors": errors, "held_out": others, "cells_max_error": cells}


def plot(results: dict[str, Any], t_units: list[float], file: Path) -> None:
    """Median and worst error of the networks against T_u, a colour a kit."""
    figure = go.Figure()
    for (name, found), colour in zip(results.items(), ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), strict=False):
        for word, statistic, dash in (("worst", np.nanmax, "solid"), ("median", np.nanmedian, "dot")):
            y = [float(statistic(found["networks"][f"{t:g}"])) for t in t_units]
            line = {"color": colour, "dash": dash, "width": 2}
            figure.add_scatter(x=t_units, y=y, mode="lines+markers", line=line, name=f"{name}, {word}")
    for limit, word in ((WORST_NODE, "target, worst"), (0.05, "target, median")):
        bar = {"symbol": "line-ew-open", "size": 26, "color": "#444"}
        where = {"text": [word], "textposition": "bottom right", "showlegend": False}
        figure.add_scatter(x=[JUDGED_T_UNIT], y=[limit], mode="markers+text", marker=bar, **where)
    figure.update_xaxes(type="log", title="T_u, a model unit of time [s]", exponentformat="SI")
    figure.update_yaxes(type="log", title="largest node error over 2 T_u [V0]", dtick=1)
    figure.update_layout(template="simple_white", width=820, height=480, legend={"x": 0.68, "y": 0.98})
    figure.write_html(file, include_plotlyjs=True)
    print(f"plot: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", action="append")
    parser.add_argument("--models", action="append", help="folder of the models, in the order of --pdk")
    parser.add_argument("--edges", type=int, default=200)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--t-units", type=float, nargs="+", default=T_UNITS, help="speeds of the networks, s")
    parser.add_argument("--trim", type=int, default=64, help="runs that a network is trimmed by; 0: none is")
    parser.add_argument("--edge-seed", type=int, default=EDGE_SEED, help="of the edges")
    parser.add_argument("--seed", type=int, default=NETWORK_SEED, help="of the networks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="an HTML file")
    given = parser.parse_args()
    results = {}
    names = given.pdk or ["gf180mcu", "ihp-sg13g2"]
    for name, models in zip(names, [*(given.models or []), *[None] * len(names)], strict=False):
        pdk = load_pdk(name)
        rig = size_cells(Bench(pdk, prepare(pdk, Path(models) if models else None)))
        print(f"{pdk.name}, {NGSPICE.version()}, nominal corner, {pdk.operating.nominal_temperature:g} °C")
        rng = np.random.default_rng(given.seed)
        nets = [random_network(rng, 3 + i % 6, rig.design, i) for i in range(given.networks)]
        results[pdk.name] = {
            "edges": edges(rig, given.edges, given.edge_seed) if given.edges else None,
            "networks": networks(rig, nets, given.seed, given.t_units) if nets else None,
            "trimmed": trimmed_networks(rig, nets, given.seed, given.trim) if nets and given.trim else None,
        }
    if given.plot:
        plot(results, given.t_units, given.plot)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
