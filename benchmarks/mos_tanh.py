"""What the MOS tanh cell does in ngspice, against what was asked of it.

    python benchmarks/mos_tanh.py [--pdk gf180mcu --pdk generic180] [--edges 100] [--networks 6]
        [--trim 64]

Random edges i = k·tanh(a·(v_s − v_d) + c): |a| from 0.2 to 1.25, |c| to 1 and |k| from 0.5 to 2, uniform, each
calibrated and then measured over the whole box of node voltages; errors are shares of full scale, which is k. Random
networks: 3 to 8 nodes, k = 1 as ShiftTanh1 has it, every other one with half of its edges Eq. (6)'s; the largest node
error over 2·T_u against the ideal law, also of each trimmed (``benchmarks/mos_cell.py``). The seeds were not used while
the cell was made.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from mos_cell import in_transistors, run_network, spread, trimmed_networks

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import RELU, TANH
from kcnet_eda.physical.cell_design import BOX
from kcnet_eda.physical.cell_kind import TANH_CELL
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.tanh_cell import TanhLimits
from kcnet_eda.study.mos.calibrate import calibrate_kind
from kcnet_eda.study.mos.rig import Bench, Rig
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE

EDGE_SEED, NETWORK_SEED = 20261128, 20261129
T_UNITS = (1e-6, 300e-9, 100e-9)


def draw(rng: np.random.Generator, n: int) -> np.ndarray:
    """|a|, |c|, |k| of ``n`` edges [n, 3]: signs only exchange pins."""
    can = TanhLimits()
    low, high = (can.slope_min, 0.0, can.gain_min), (can.slope_max, can.offset_max, can.gain_max)
    return rng.uniform(low, high, (n, 3))


def edges(rig: Rig, n: int) -> None:
    """Random edges, calibrated and measured."""
    started = time.monotonic()
    found = calibrate_kind(rig, TANH_CELL, draw(np.random.default_rng(EDGE_SEED), n))
    worst = 100 * found.share_of_full_scale(found.max_error)
    seconds, missed = time.monotonic() - started, found.out_of_reach.size
    print(f"  {n} random edges, seed {EDGE_SEED}: {found.passes} passes, {seconds:.0f} s, out of reach: {missed}")
    for i in found.out_of_reach:
        print(f"    a, c, k = {found.theta[i].round(3).tolist()}: {found.reason[i]}")
    rows = (
        ("largest error of k [%]", worst),
        ("rms error of k [%]", 100 * found.share_of_full_scale(found.rms_error)),
        ("fitted less trained a, c, k", found.miss),
        ("difference of the two ends' currents, of k [%]", 100 * found.mismatch),
        ("power over k [µW]", 1e6 * found.supply_current * rig.design.supply / found.full_scale),
        ("pin s [fF]", 1e15 * found.source_pin),
        ("pin d [fF]", 1e15 * found.target_pin),
    )
    for name, values in rows:
        s = spread(values)
        print(f"    {name}: median {s['median']:.3g}, 95 % below {s['p95']:.3g}, worst {s['worst']:.3g}")
    order = np.argsort(-worst)[:3]
    print("    worst: " + "; ".join(f"{found.theta[i].round(2).tolist()} {worst[i]:.2f} %" for i in order))


def random_network(rng: np.random.Generator, nodes: int, mixed: bool, number: int) -> Network:
    """Random edges, three a node, whose ideal run of 2·T_u stays in the box."""
    pairs = np.array([(s, d) for s in range(1, nodes + 1) for d in range(1, nodes + 1) if s != d])
    while True:
        chosen = pairs[np.sort(rng.choice(len(pairs), min(len(pairs), 3 * nodes), replace=False))]
        n = len(chosen)
        a, c, _ = draw(rng, n).T * rng.choice([-1.0, 1.0], (3, n))
        phi = np.where((np.arange(n) % 2 == 0) & mixed, RELU, TANH)
        c = np.where(phi == RELU, np.maximum(c, 0.5 - 4 * np.abs(a)), c)
        law = Edges(chosen[:, 0], chosen[:, 1], a, -a, c, np.ones(n), phi)
        every, start = np.arange(1, nodes + 1, dtype=np.int32), rng.uniform(-1, 1, nodes)
        net = Network(f"tanh{number}", (Phase(nodes + 1, 2.0, law),), every, every, examples=start[None])
        way = trajectory(net, net.initial_state(start)[0], np.linspace(0, 2, 101))
        if np.abs(way).max() <= BOX:
            return net


def networks(rig: Rig, n: int, trim: int) -> None:
    """Random networks at several speeds."""
    rng = np.random.default_rng(NETWORK_SEED)
    nets = [random_network(rng, 3 + i % 6, i % 2 == 1, i) for i in range(n)]
    print(f"  {n} random networks, seed {NETWORK_SEED}, every other one with half its edges ReLU")
    for t_unit in T_UNITS:
        errors = np.array([run_network(rig, net, in_transistors(rig, net, t_unit)) for net in nets])
        median, worst, each = np.nanmedian(errors), np.nanmax(errors), errors.round(3).tolist()
        print(f"    T_u {1e9 * t_unit:.0f} ns: largest node error, V_u: median {median:.3f}, worst {worst:.3f}; {each}")
    if trim:
        trimmed_networks(rig, nets, NETWORK_SEED, trim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", action="append")
    parser.add_argument("--edges", type=int, default=100)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--trim", type=int, default=64, help="runs that a network is trimmed by; 0: none is")
    given = parser.parse_args()
    for name in given.pdk or ["gf180mcu", "generic180"]:
        pdk = load_pdk(name)
        rig = size_cells(Bench(pdk, prepare(pdk)))
        where = f"{pdk.name}, {NGSPICE.version()}, nominal corner, {pdk.operating.nominal_temperature:g} °C"
        print(f"{where}; the pair's gm/I_D {rig.design.wide_gm_id:.1f} /V")
        if given.edges:
            edges(rig, given.edges)
        if given.networks:
            networks(rig, given.networks, given.trim)


if __name__ == "__main__":
    main()
