"""What the shipped network for MOS cells does in software, as Eq. (6) says and as built cells depart from it.

    python benchmarks/digits_mos.py [NETWORK] [--data digits:test] [--dies 20] [--seed 0]

Prints the edges, whether every θ can be built, and for each departure the accuracy with its interval and the largest
voltage. With mismatch, accuracies are over dies; the 95 % Wilson interval is that of the images, at the mean.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

from kcnet_eda.dynamics.cell import CellRange, Units
from kcnet_eda.dynamics.cell_dies import TYPICAL, Departures, solve_die
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network, labels, margins
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.study.accuracy import wilson

WORSE = replace(TYPICAL, sigma_theta1=0.04, sigma_theta2=0.06, sigma_gain=0.05)
#: The largest |θ1| and θ2 of a unit: a cell of k units loses 1/k of the compression.
UNIT = Units().slope_per_unit, Units().offset_per_unit
CASES = {
    "Eq. (6)": Departures(),
    "corner 0.1, parabola": Departures(rounding=0.1),
    "corner 0.1, softplus": Departures(rounding=0.1, shape="softplus"),
    "leakage 0.00125 (2.5 nA of 2 µA)": Departures(leakage=0.00125),
    "compression 0.03 a unit": Departures(compression=0.03, unit=UNIT),
    "lag 0.02": Departures(lag=0.02),
    "mismatch: θ1 3 %, θ2 0.04": Departures(sigma_theta1=0.03, sigma_theta2=0.04),
    "all together, parabola": TYPICAL,
    "all together, and compression 0.03 a unit": replace(TYPICAL, compression=0.03, unit=UNIT),
    "all together, softplus": replace(TYPICAL, shape="softplus"),
    "all together, and sink over source 4 %": replace(TYPICAL, sigma_gain=0.04),
    "worse: all, θ1 4 %, θ2 0.06, sink over source 5 %": WORSE,
}


def row(network: Network, data: DataSet, departures: Departures, dies: int, seed: int, ideal: np.ndarray) -> str:
    """A table row: accuracy over dies (one where nothing is random) with its interval, labels and read-out voltages
    against those of the ``ideal`` final state, and the largest |v|."""
    random = departures.sigma_theta1 + departures.sigma_theta2 + departures.sigma_gain > 0
    found = [
        solve_die(network, data.x, departures, np.random.default_rng(s))
        for s in np.random.SeedSequence(seed).spawn(dies if random else 1)
    ]
    label = np.array([labels(network, v) for v, _ in found])
    accuracy = (label == data.y).mean(axis=1)
    low, high = wilson(round(accuracy.mean() * len(data)), len(data))
    spread = f"{100 * accuracy.min():.2f} to {100 * accuracy.max():.2f} %, {len(found)} dies" if random else ""
    off = np.array([(v - ideal)[:, network.readout] for v, _ in found])
    return (
        f"{100 * accuracy.mean():.2f} % ({100 * low:.2f} to {100 * high:.2f} %) | {spread} | "
        f"{100 * (label == labels(network, ideal)).mean():.2f} % | {np.sqrt(np.mean(off**2)):.3f} | "
        f"{max(v for _, v in found):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="digits_mos")
    parser.add_argument("--data", default="digits:test")
    parser.add_argument("--dies", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    network, data = load_network(network_path(arguments.network)), load_data(arguments.data)
    edges, cell = network.phases[0].edges, CellRange()
    size, full_scale = np.abs(edges.a), 2 * cell.box * np.abs(edges.a) + edges.c
    used = np.unique(np.concatenate([edges.source, edges.target]))
    held = cell.holds(torch.tensor(edges.a), torch.tensor(edges.c))
    ideal, _ = solve_die(network, data.x, Departures(), np.random.default_rng())
    margin = margins(network, ideal)
    print(
        f"{network.name}: {network.n_edges} edges between {np.count_nonzero(used)} nodes and ground, T = "
        f"{network.duration:g}\n|θ1| {size[size > 0].min():.3f} to {size.max():.3f} "
        f"({np.count_nonzero(size == 0)} edges of 0), θ2 {edges.c.min():.3f} to {edges.c.max():.3f}, largest current "
        f"of an edge in the box {full_scale.min():.3f} to {full_scale.max():.3f}, of all {full_scale.sum():.0f}\n"
        f"every edge in the cell's range: {held}\n\n{data.name}, {len(data)} images, seed {arguments.seed}; read-out "
        f"margin by Eq. (6): median {np.median(margin):.2f}, below 0.1 for {np.count_nonzero(margin < 0.1)} images\n\n"
        "| departure | accuracy (95 %) | over dies | labels of Eq. (6) | rms off at read-out | largest \\|v\\| |\n"
        "|---|---|---|---|---|---|"
    )
    for name, departures in CASES.items():
        print(f"| {name} | {row(network, data, departures, arguments.dies, arguments.seed, ideal)}", flush=True)


if __name__ == "__main__":
    main()
