"""The shipped MNIST network on the 10,000 test images by the fast engine, at two step counts that must agree.

    python benchmarks/mnist_accuracy.py [--data-dir DIR] [--network mnist] [--steps 20]

RK4 in single precision with STEPS and with twice as many steps a phase. DIR (or $KCNET_DATA) has MNIST's idx files.
Exit code 1 where they are not there, or the accuracy is below the paper's 98.86 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from kcnet_eda.dynamics.engine import STEPS, evolve
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.data import mnist
from kcnet_eda.network.graph import labels
from kcnet_eda.network.idx import DATA_VARIABLE
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.study.accuracy import wilson

PAPER = 0.9886


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--network", default="mnist")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    try:
        network = load_network(network_path(arguments.network))
        images = mnist("test", arguments.data_dir or Path(os.environ.get(DATA_VARIABLE, beside)))
    except KcnetError as error:
        print(f"mnist_accuracy: NOT MEASURED\n{error}", file=sys.stderr)
        return 1
    print(f"{network.max_nodes} nodes, {len(network.phases)} phases, {network.n_edges:,} edges")
    x0, ends, good = network.initial_state(images.x), [], True
    for steps in (arguments.steps, 2 * arguments.steps):
        began = time.perf_counter()
        found = evolve(network, x0, steps=steps)
        seconds = time.perf_counter() - began
        correct = int((labels(network, found.v_end) == images.y).sum())
        low, high = wilson(correct, len(images))
        reach = [float(r[np.isfinite(r)].min()) for r in (found.low, -found.high)]
        print(
            f"RK4, {steps} steps a phase: {100 * correct / len(images):.2f} % ({correct:,} of {len(images):,}; 95 %: "
            f"{100 * low:.2f} to {100 * high:.2f} %), voltages {reach[0]:.2f} to {-reach[1]:.2f}, {seconds:.1f} s"
        )
        ends.append(found.v_end)
        good &= correct / len(images) >= PAPER
    outputs = [end[:, network.readout] for end in ends]
    same = int((labels(network, ends[0]) == labels(network, ends[1])).sum())
    off, span = float(np.abs(outputs[0] - outputs[1]).max()), float(np.ptp(outputs[1]))
    print(
        f"same label {same:,} of {len(images):,}; largest difference of an output {off:.1e}, {off / span:.1e} of "
        "their range"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
