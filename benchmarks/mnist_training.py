"""Seconds an epoch of training on MNIST's 60,000 images: the fused kernel beside the published torch formulation.

    python benchmarks/mnist_training.py [--data-dir DIR] [--batches 3] [--config examples/mnist.yaml]

For the published MNIST topology and for that of CONFIG before pruning: forward and backward of a few batches through
Heun steps, on both sides the same ones, two threads, single precision, scaled to 60,000 images. And one whole epoch of
``kcnet train`` as CONFIG says, measured, with distortions, penalty, optimiser and averages. DIR (or $KCNET_DATA) is as
of engine_mnist.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kcnet_eda.config import load_settings
from kcnet_eda.dynamics.gradient import PhaseSolver
from kcnet_eda.dynamics.model import Model, Start, classifier_topology
from kcnet_eda.dynamics.torch_path import paths
from kcnet_eda.dynamics.train_settings import TrainSettings
from kcnet_eda.dynamics.training import fit
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.data import DataSet, mnist
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.idx import DATA_VARIABLE
from kcnet_eda.network.published import read_published
from kcnet_eda.progress import NoProgress

OURS, THEIRS = 256, 64  # samples a batch: what torch keeps for its gradient has to fit into memory
IMAGES = 60_000


def published_rate(phase: Phase) -> tuple[list[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """The published formulation of k·relu(a·(v_s − v_d) + c), written anew: dv/dτ [batch, nodes] by gather, ReLU and
    scatter_add; and its parameters, without those that are 1 for every edge."""
    e = phase.edges
    source, target = torch.tensor(e.source, dtype=torch.int64), torch.tensor(e.target, dtype=torch.int64)
    slope, shift, scale = (torch.tensor(p, dtype=torch.float32).requires_grad_() for p in (e.a, e.c, e.k))
    sloped, scaled = bool((e.a != 1).any()), bool((e.k != 1).any())

    def rate(v: torch.Tensor) -> torch.Tensor:
        difference = v[:, source] - v[:, target]
        current = torch.relu((difference * slope if sloped else difference) + shift)
        current = current * scale if scaled else current
        out = torch.zeros_like(v)
        out = out.scatter_add(1, target.expand(len(v), -1), current)
        out = out.scatter_add(1, source.expand(len(v), -1), -current)
        return torch.cat([torch.zeros_like(out[:, :1]), out[:, 1:]], dim=1)

    return [shift, *([slope] if sloped else []), *([scale] if scaled else [])], rate


def with_torch(network: Network, x0: np.ndarray, steps: int) -> Callable[[], None]:
    """One batch through all phases and back."""
    parts = [published_rate(phase) for phase in network.phases]
    v0 = torch.tensor(x0[:THEIRS], dtype=torch.float32)

    def batch() -> None:
        v = v0
        for phase, (_, rate) in zip(network.phases, parts, strict=True):
            h = phase.duration / steps
            for _ in range(steps):
                first = rate(v)
                v = v + h / 2 * (first + rate(v + h * first))
        torch.autograd.grad(v.square().sum(), [p for parameters, _ in parts for p in parameters])

    return batch


def fused(network: Network, x0: np.ndarray, steps: int) -> Callable[[], None]:
    """The same by the fused kernel."""
    solvers = [PhaseSolver(phase, steps=steps, threads=2) for phase in network.phases]
    laws = [
        tuple(torch.tensor(p, dtype=torch.float32).requires_grad_() for p in (e.a, e.b, e.c, e.k))
        for e in (phase.edges for phase in network.phases)
    ]
    v0 = torch.tensor(x0[:OURS].T, dtype=torch.float32).contiguous()

    def batch() -> None:
        _, end = paths(solvers, laws, v0)
        torch.autograd.grad(end.square().sum(), [p for law in laws for p in law])

    return batch


def epoch_seconds(batch: Callable[[], None], samples: int, batches: int) -> tuple[float, float]:
    """Of the fastest and of the median batch, after one that is not counted, scaled to an epoch."""
    batch()
    seconds = []
    for _ in range(batches):
        began = time.perf_counter()
        batch()
        seconds.append(time.perf_counter() - began)
    return min(seconds) * IMAGES / samples, float(np.median(seconds)) * IMAGES / samples


def compare(name: str, network: Network, images: DataSet, steps: int, batches: int) -> None:
    """Print a line of either side."""
    x0 = network.initial_state(images.x[:OURS])
    print(f"{name}: {network.n_edges:,} edges in {len(network.phases)} phases, {steps} Heun steps a phase")
    best, median = epoch_seconds(fused(network, x0, steps), OURS, 10 * batches)
    print(f"    fused kernel: best {best:.1f} s, median {median:.1f} s ({10 * batches} batches of {OURS})", flush=True)
    theirs, median = epoch_seconds(with_torch(network, x0, steps), THEIRS, batches)
    print(
        f"    published formulation, torch {torch.__version__}: best {theirs:.0f} s, median {median:.0f} s "
        f"({batches} batches of {THEIRS}); {theirs / best:.0f} times as long, best to best",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "examples" / "mnist.yaml")
    arguments = parser.parse_args()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data_dir = arguments.data_dir or Path(os.environ.get(DATA_VARIABLE, beside))
    try:
        published = read_published(data_dir / "official_checkpoints" / "mnist")
        images = mnist("train", data_dir)
    except KcnetError as error:
        print(f"mnist_training: NOT MEASURED, the data are not there\n{error}", file=sys.stderr)
        return 1
    settings = load_settings(arguments.config, TrainSettings)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    torch.set_num_threads(2)
    assert images.grid is not None
    pairs, names = classifier_topology(settings.topology, images.grid, 10)
    drawn = Model(Start((pairs,) * settings.topology.phases, names), settings)
    ours = drawn.network(names, images.x.shape[1], 10, images.x[:1])
    compare(f"the topology of {arguments.config.name}", ours, images, settings.steps, arguments.batches)
    compare("the published topology", published, images, settings.steps, arguments.batches)
    once = settings.model_copy(update={"epochs": 1, "pruning": None, "patience": None})
    _, way = fit(once, images, NoProgress())
    print(f"kcnet train {arguments.config.name}, one epoch of all {len(images):,} images: {way['wall_s']:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
