"""The fast engine on the published MNIST network: accuracy, speed, and what its answers are worth, from one run.

    python benchmarks/engine_mnist.py [--data-dir DIR] [--images N] [--threads 2] [--reference 200]

DIR (or $KCNET_DATA) has ``official_checkpoints/mnist/`` (config.yaml, model.pth) and ``mnist/`` (the idx files);
without either, ../shared/data beside the repository is tried. Exit code 1 where they are not there or a
target is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kcnet_eda.dynamics import reference
from kcnet_eda.dynamics.engine import BLOCK, STEPS, estimate_error, evolve
from kcnet_eda.dynamics.fused import FusedPhase
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.data import DataSet, mnist
from kcnet_eda.network.graph import Network, Phase, labels
from kcnet_eda.network.idx import DATA_VARIABLE
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.published import read_published
from kcnet_eda.study.accuracy import wilson

RECORDED, WITHIN = 99.42, 0.05  # %, percentage points: what the network's authors recorded
IMAGES_A_SECOND, TIMES_FASTER, BATCH = 400, 200, 256
SEED, CHECKED, ESTIMATED = 2310, 200, 64
ADAPTIVE = 1e-6  # of each node's own range, a step


def verdict(ok: bool) -> str:
    """In words."""
    return "met" if ok else "MISSED"


def published_rate(phase: Phase) -> Callable[[torch.Tensor], torch.Tensor]:
    """The published formulation, written anew: dv/dτ [batch, nodes] by gather, shift, ReLU, scale and scatter_add."""
    e = phase.edges
    if not ((e.phi == RELU) & (e.a == 1.0) & (e.b == -1.0)).all():
        raise KcnetError("the published formulation is written here for k·relu(v_s − v_d + c) alone")
    source, target = torch.tensor(e.source, dtype=torch.int64), torch.tensor(e.target, dtype=torch.int64)
    shift, scale = torch.tensor(e.c, dtype=torch.float32), torch.tensor(e.k, dtype=torch.float32)

    def rate(v: torch.Tensor) -> torch.Tensor:
        current = torch.relu(v[:, source] - v[:, target] + shift) * scale
        out = torch.zeros_like(v)
        out.scatter_add_(1, target.expand(len(v), -1), current)
        out.scatter_add_(1, source.expand(len(v), -1), -current)
        out[:, 0] = 0.0
        return out

    return rate


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Best and median seconds of ``repeats`` calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds), float(np.median(seconds))


def through(pool: ThreadPoolExecutor, fused: FusedPhase, blocks: list[NDArray[Any]]) -> list[NDArray[np.float64]]:
    """The rates of all blocks, as many at once as the pool has threads."""
    return list(pool.map(fused, blocks))


def classify(network: Network, images: DataSet, threads: int) -> tuple[bool, Any]:
    """(a) All images, fixed steps, single precision."""
    x0 = network.initial_state(images.x)
    evolve(network, x0[: 2 * threads], threads=threads)  # compiles, or loads what was compiled
    started = time.perf_counter()
    ways = evolve(network, x0, threads=threads)
    seconds = time.perf_counter() - started
    sound = np.isfinite(ways.v_end).all(axis=1)
    correct, n = int(np.count_nonzero((labels(network, ways.v_end) == images.y) & sound)), len(images)
    low, high = wilson(correct, n)
    accurate = abs(100 * correct / n - RECORDED) <= WITHIN
    print(f"(a) {n:,} of MNIST's test images, RK4, {STEPS} steps a phase, float32, {threads} threads")
    print(
        f"    accuracy {100 * correct / n:.2f} % ({correct:,}; 95 %: {100 * low:.2f} to {100 * high:.2f} %), recorded "
        f"by its authors {RECORDED} %; asked: within {WITHIN} points: {verdict(accurate)}; {n - sound.sum()} not finite"
    )
    fast = n / seconds >= IMAGES_A_SECOND
    print(
        f"    {n / seconds:.0f} images/s ({seconds:.1f} s; reading and compiling are not counted, gathering edges by "
        f"pair is); asked: {IMAGES_A_SECOND}: {verdict(fast)}"
    )
    return accurate and fast, ways


def compare_rates(network: Network, x0: NDArray[np.float64], threads: int) -> bool:
    """(b) One right-hand side of the first phase, at the states a quarter of the way through it."""
    phase = network.phases[0]
    v = states_on_the_way(network, x0)
    published = published_rate(phase)
    batch = torch.tensor(v, dtype=torch.float32)
    found = published(batch).numpy()
    their_best, their_median = timed(lambda: published(batch), 5)
    print(f"(b) one right-hand side: {len(phase.edges):,} edges, {len(v)} samples")
    print(
        f"    published formulation, torch {torch.__version__}, float32, {torch.get_num_threads()} threads: "
        f"best {1e3 * their_best:.0f} ms, median {1e3 * their_median:.0f} ms of 5"
    )
    exact = FusedPhase(phase)(v.T).T
    ok, span = True, np.abs(exact).max()
    for dtype in (np.float32, np.float64):
        fused = FusedPhase(phase, dtype)
        blocks = [np.ascontiguousarray(v[i : i + BLOCK].T, dtype=dtype) for i in range(0, len(v), BLOCK)]
        with ThreadPoolExecutor(threads) as pool:
            best, median = timed(partial(through, pool, fused, blocks), 50)
        ours = np.concatenate([fused(block).T for block in blocks])
        ratio = their_best / best
        print(
            f"    fused kernel, {np.dtype(dtype).name}, {threads} threads: best {1e3 * best:.2f} ms, median "
            f"{1e3 * median:.2f} ms of 50: {ratio:.0f} times (best to best; median to median "
            f"{their_median / median:.0f}); largest difference {np.abs(ours - found).max():.1e} to the published "
            f"formulation, {np.abs(ours - exact).max():.1e} to float64; the largest rate is {span:.0f}"
        )
        if dtype is np.float32:
            ok = ratio >= TIMES_FASTER
            print(f"    asked: {TIMES_FASTER} times: {verdict(ok)} (float32 on both sides)")
    print(f"    the published formulation itself is {np.abs(found - exact).max():.1e} from float64")
    return ok


def states_on_the_way(network: Network, x0: NDArray[np.float64]) -> NDArray[np.float64]:
    """States [n, nodes] that do occur: after a quarter of the first phase."""
    first = network.phases[0]
    piece = Phase(first.n_nodes, first.duration / 4, first.edges, first.fill)
    quarter = Network("quarter", (piece,), network.inputs, network.inputs)
    return evolve(quarter, x0, dtype=np.float64).v_end


def errors(network: Network, images: DataSet, ways: Any, threads: int, checked: int) -> bool:
    """(c) What the engine says of its error, (d) and what the reference says, on the same seeded images."""
    x0 = network.initial_state(images.x)
    v_end = ways.v_end
    rows = np.sort(np.random.default_rng(SEED).choice(len(images), min(checked, len(images)), replace=False))
    span = float(np.ptp(v_end[:, network.readout]))
    found = estimate_error(network, x0, ways, samples=min(ESTIMATED, len(images)), seed=SEED, threads=threads)
    print(f"(c) estimate of the largest error at T by doubled steps in float64, {found.rows.size} images, seed {SEED}")
    print(
        f"    {found.bound[network.readout].max():.1e} model units, {found.bound[network.readout].max() / span:.1e} of "
        f"the outputs' range ({span:.1f})"
    )
    reach = (ways.high.max(axis=0) - ways.low.min(axis=0)).clip(min=1e-3)
    adaptive = evolve(network, x0[found.rows], tolerance=ADAPTIVE * reach, dtype=np.float64, threads=threads)
    off = np.abs(adaptive.v_end - v_end[found.rows])[:, network.readout].max()
    print(
        f"    the adaptive solver (float64, {ADAPTIVE:g} of each node's range a step) is {off:.1e} away, "
        f"{off / span:.1e}: {'within' if off <= found.bound[network.readout].max() else 'NOT within'} the estimate"
    )
    if not len(rows):
        print("(d) the reference: NOT MEASURED (--reference 0)")
        return True
    started = time.perf_counter()
    truth = reference.final_states(network, x0[rows], threads)
    seconds = time.perf_counter() - started
    same = int(np.count_nonzero(labels(network, truth) == labels(network, v_end[rows])))
    low, _ = wilson(same, len(rows))
    off = np.abs(truth - v_end[rows])[:, network.readout].max()
    print(
        f"(d) the reference ({reference.method(network)}), {len(rows)} images, seed {SEED}, {seconds:.0f} s", flush=True
    )
    print(
        f"    same label {same}/{len(rows)} (95 %: at least {100 * low:.1f} %); largest error of an output {off:.1e}, "
        f"{off / span:.1e} of the outputs' range"
    )
    return same == len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--images", type=int, default=None, help="the first N only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reference", type=int, default=CHECKED, help="images solved by the reference; 0: none")
    arguments = parser.parse_args()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data_dir = arguments.data_dir or Path(os.environ.get(DATA_VARIABLE, beside))
    try:
        network = read_published(data_dir / "official_checkpoints" / "mnist")
        images = mnist("test", data_dir).head(arguments.images)
    except KcnetError as error:
        print(f"engine_mnist: NOT MEASURED, the data are not there\n{error}", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    print(
        f"{network.max_nodes} nodes, {len(network.phases)} phases, {network.n_edges:,} edges; {os.cpu_count()} cores, "
        f"load {load:.1f} at the start"
    )
    good, ways = classify(network, images, arguments.threads)
    good &= compare_rates(network, network.initial_state(images.x[:BATCH]), arguments.threads)
    good &= errors(network, images, ways, arguments.threads, arguments.reference)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
