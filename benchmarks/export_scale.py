"""Time and memory of turning edges into text, from 10^3 to 10^6 trained edges: lowering, netlist of ngspice, edge map.
Choosing the solver's steps is not in it: that is a simulation in software, and grows with the network's stiffness too.

    python benchmarks/export_scale.py [--plot runs/export_scale.html]
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.netlist import edge_map_csv, render_netlist
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import RELU
from kcnet_eda.physical.scaling import resolve

SIZES = (1_000, 10_000, 100_000, 1_000_000)
_EDGES_A_PAIR = 4  # as in the published MNIST network


def random_relu(n_edges: int) -> Network:
    """Eq. (6) edges on random node pairs, about four on each that occurs, as many nodes as keep that so."""
    rng = np.random.default_rng(0)
    n_nodes = 2 + round(math.sqrt(2 * n_edges / _EDGES_A_PAIR))
    source = rng.integers(0, n_nodes, n_edges).astype(np.int32)  # after the draw: a draw of int32 gives others
    target = ((source + rng.integers(1, n_nodes, n_edges)) % n_nodes).astype(np.int32)
    a, c = rng.normal(0, 1, (2, n_edges))
    edges = Edges(source, target, a, -a, c, np.ones(n_edges), np.full(n_edges, RELU))
    nodes = np.arange(1, n_nodes, dtype=np.int32)
    return Network("random", (Phase(n_nodes, 1.0, edges),), nodes, nodes[:2])


def plot(seconds: list[float], file: Path) -> None:
    """Seconds over edges, both logarithmic, beside a line of exponent 1 through the last point."""
    line = [seconds[-1] * n / SIZES[-1] for n in SIZES]
    figure = go.Figure()
    figure.add_scatter(x=SIZES, y=seconds, mode="lines+markers", name="measured")
    figure.add_scatter(x=SIZES, y=line, mode="lines", line={"dash": "dot"}, name="in proportion to the edges")
    figure.update_layout(title="Lowering, netlist and edge map", width=800, height=500)
    figure.update_xaxes(type="log", title="trained edges", dtick=1)
    figure.update_yaxes(type="log", title="seconds", dtick=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(file)
    print(f"plot: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="an HTML file")
    chosen = parser.parse_args()
    headings = ("edges", "devices", "lower", "netlist", "edge map", "total", "text", "peak memory")
    print("".join(f"{heading:>12}" for heading in headings))
    seconds = []
    for n in SIZES:
        network = random_relu(n)
        marks = [time.perf_counter()]
        circuit = build_circuit(network, resolve())
        marks.append(time.perf_counter())
        text = len(render_netlist(circuit, circuit.stages[0], "ngspice"))
        marks.append(time.perf_counter())
        text += len(edge_map_csv(circuit))
        marks.append(time.perf_counter())
        seconds.append(marks[-1] - marks[0])
        spent = [*(after - before for before, after in pairwise(marks)), seconds[-1]]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cells = [f"{n:,}", f"{circuit.n_devices:,}", *(f"{s:.2f} s" for s in spent)]
        cells += [f"{text / 2**20:.1f} MiB", f"{peak:.0f} MiB"]
        print("".join(f"{cell:>12}" for cell in cells))
    exponents = [math.log10(b / a) for a, b in pairwise(seconds)]
    print("exponent of the time from decade to decade:", ", ".join(f"{e:.2f}" for e in exponents))
    if chosen.plot is not None:
        plot(seconds, chosen.plot)


if __name__ == "__main__":
    main()
