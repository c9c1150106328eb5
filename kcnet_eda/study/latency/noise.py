"""What noise costs against C, at the process's V_u and I_u: kT/C of what was written and white noise of the edges.

By the fast engine (:mod:`kcnet_eda.dynamics.noise`) on the trained laws without lag, so that it is noise's alone: no
circuit is run, and no C is too small to be tried.
"""

from __future__ import annotations

import math
import time

import numpy as np

from kcnet_eda.dynamics.edge_law import eq6_edges
from kcnet_eda.dynamics.noise import right_with_noise
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.data import DataSet
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import dump_network
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.thermal import kit_noise, ktc_noise
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.engine_run import ENGINE, VERSION
from kcnet_eda.study.latency.bench import LatencyBench, Row, Task, failures
from kcnet_eda.study.latency.settings import Physical
from kcnet_eda.study.pvt.dies import network_cells
from kcnet_eda.study.store import Result, Status

VARIANT = "physical_noise"
_DRAWN = 3  # the first word of the key by which noise is drawn


def noise_against_c(
    bench: LatencyBench, section: Physical, network: Network, data: DataSet, kit: Pdk
) -> tuple[list[Row], Row | None, list[Row]]:
    """Accuracy of all ``data`` at each C, that without noise, and the runs that failed; nothing where the data have no
    labels or the network has other than rectifying edges, for which the engine knows no noise."""
    try:
        cells = network_cells(network)
    except InvalidInputError:
        return [], None, []
    if data.y is None:
        return [], None, []
    y, op = data.y, kit.operating
    x0 = network.initial_state(data.x)
    edges = eq6_edges(cells.theta1[None], cells.theta2[None])
    same = f"{sha256_bytes(dump_network(network) + x0.tobytes() + y.tobytes())} {section.noise_steps}"

    def task(c: float, draws: int) -> Task:
        """Of a capacitance ``c`` [F]; infinity has no noise."""
        sigma, white = noise = kit_noise(kit, c, op.nominal_temperature, section.excess, section.mirrors)

        def make() -> Result:
            started, right = time.monotonic(), 0
            for k in range(draws):
                rng = np.random.default_rng(np.random.SeedSequence(bench.study.seed, spawn_key=(_DRAWN, k)))
                right += right_with_noise(network, cells.ends, edges, x0, y, noise, rng, steps=section.noise_steps)
            return Result(Status.PASSED, "", time.monotonic() - started, 0, np.array([right, draws * len(y)], float))

        words = f"{same} {sigma!r} {section.excess} {white.mirror} {draws} {bench.study.seed}"
        return Task(words, 0, VARIANT, ENGINE, VERSION, make, bench.study.seed)

    sizes = sorted(section.capacitances, reverse=True)
    tasks = [task(math.inf, 1), *(task(c, section.noise_draws) for c in sizes)]
    results = bench.attempt(tasks, "noise against C, engine")
    found = [None if r.v_end is None else proportion(int(r.v_end[0]), int(r.v_end[1])) for r in results]
    rows = [
        {
            "c": c,
            "sigma_v": ktc_noise(c, op.nominal_temperature),
            "accuracy": accuracy,
            "draws": section.noise_draws,
            "key": job.key,
            "level": "engine",
            "simulator": ENGINE,
            "simulator_version": VERSION,
        }
        for c, accuracy, job in zip(sizes, found[1:], tasks[1:], strict=True)
    ]
    free = None if found[0] is None else found[0] | {"key": tasks[0].key}
    return rows, free, failures(tasks, results)
