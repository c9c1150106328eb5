"""What noise costs against C, at the process's V_u and I_u: kT/C of what was written and white noise of the edges.

On the trained laws without lag, so that it is noise's alone and no C is too small to be tried. Some samples are run in
ngspice, that law in Verilog-A with a noise source at every edge (:mod:`kcnet_eda.export.calibrated`); all samples, many
times, in the fast engine (:mod:`kcnet_eda.dynamics.noise`), since some samples cannot tell a loss of a point.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import eq6_edges
from kcnet_eda.dynamics.noise import WhiteNoise, right_with_noise
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.calibrated import CalibratedDie, DrawnNoise, render_die
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.data import DataSet
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import dump_network
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.pdk import Pdk
from kcnet_eda.physical.thermal import kit_noise, ktc_noise
from kcnet_eda.study.accuracy import proportion
from kcnet_eda.study.engine_run import ENGINE, VERSION
from kcnet_eda.study.latency.bench import Floats, LatencyBench, Row, Task, failures, made_by
from kcnet_eda.study.latency.settings import Physical
from kcnet_eda.study.latency.subject import Subject
from kcnet_eda.study.mos.export import kit_scaling
from kcnet_eda.study.pvt.dies import NOMINAL, Cells, network_cells
from kcnet_eda.study.pvt.noise_spot import MODULES, POINTS, SETTINGS, noisy_start
from kcnet_eda.study.pvt.repeat import run_die, tools_of
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.simulators import NGSPICE

VARIANT = "physical_noise"
_DRAWN, _SPICE = 3, 4  # the first words of the keys by which noise is drawn: the engine's, ngspice's
# Of the rectifier's corner, V_u: at a sharp one ngspice's step collapses under noise. An edge's current is off by at
# most half of it times θ1, at the corner alone.
_ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class Noisy:
    """Noise of a network as ``cells`` of a kit; all samples from ``x0`` [samples, nodes] with labels ``y``."""

    bench: LatencyBench
    section: Physical
    kit: Pdk
    cells: Cells
    x0: Floats
    y: NDArray[np.int64]

    @cached_property
    def die(self) -> CalibratedDie:
        """The edges as trained, but for the rounding of their corner."""
        cells, count = self.cells, self.cells.theta1.size
        law = EdgeModel((0.0, 1.0), (1.0, 1.0), (0.0, 0.0, 0.0), rounding=_ROUNDING)
        edges, normals = eq6_edges(cells.theta1[None], cells.theta2[None]), np.zeros((3, count))
        at = self.kit.operating.nominal_temperature
        return CalibratedDie(cells.network, cells.ends, edges, np.ones(count), law, None, normals, NOMINAL, at)

    def drawn(self, c: float) -> tuple[float, WhiteNoise]:
        """kT/C in V_u, and the edges' noise, of a capacitance [F]; infinity has none."""
        return kit_noise(self.kit, c, self.kit.operating.nominal_temperature, self.section.excess, self.section.mirrors)

    def words(self, c: float) -> str:
        """What tells this noise from others."""
        sigma, white = self.drawn(c)
        return f"{sigma!r} {self.section.excess} {white.mirror} {self.bench.study.seed}"

    def rng(self, *words: int) -> np.random.Generator:
        """The stream of normal numbers of so many words of a key."""
        return np.random.default_rng(np.random.SeedSequence(self.bench.study.seed, spawn_key=words))

    def start(self, sample: int, x0: Floats, c: float) -> tuple[Floats, DrawnNoise]:
        """What a run in ngspice starts from instead of ``x0`` [nodes], and the noise of its edges: the same numbers at
        every ``c``."""
        sigma, white = self.drawn(c)
        edges = self.cells.theta1.size
        return noisy_start(self.rng(_SPICE, sample), x0, sigma, edges, self.section.excess, white)

    def in_engine(self, c: float, draws: int) -> Task:
        """All samples, ``draws`` times: how many are right, and of how many."""
        noise, network, y, steps = self.drawn(c), self.cells.network, self.y, self.section.noise_steps

        def make() -> Result:
            started, right = time.monotonic(), 0
            for k in range(draws):
                given = (self.x0, y, noise, self.rng(_DRAWN, k))
                right += right_with_noise(network, self.cells.ends, self.die.edges, *given, steps=steps)
            return Result(Status.PASSED, "", time.monotonic() - started, 0, np.array([right, draws * len(y)], float))

        same = sha256_bytes(dump_network(network) + self.x0.tobytes() + y.tobytes())
        words = f"{same} {steps} {draws} {self.words(c)}"
        return Task(words, 0, VARIANT, ENGINE, VERSION, make, self.bench.study.seed)

    def in_circuit(self, subject: Subject, c: float) -> list[Task]:
        """Each sample of ``subject`` in ngspice, once."""
        bench, scaling = self.bench, kit_scaling(self.kit, c, None)
        instants = subject.tau * scaling.t_unit
        same = f"{sha256_bytes(dump_network(self.cells.network))} {self.words(c)} {scaling} {self.die.model} {SETTINGS}"
        tools = tools_of(MODULES, NGSPICE.version())

        def task(i: int, x0: Floats) -> Task:
            words = f"{same} {POINTS} {sha256_bytes(x0.tobytes())} {i} {tools}"

            def make() -> Result:
                v0, drawn = self.start(i, x0, c)
                deck = render_die(self.die, scaling, SETTINGS, v0, "die", drawn)
                folder = bench.scratch(VARIANT, words)
                found = run_die(deck, MODULES, scaling, v0, folder, self.section.timeout_s, instants, bench.cancel)
                if found.status is Status.PASSED:
                    shutil.rmtree(folder)
                return found

            return Task(words, i, VARIANT, NGSPICE.name, NGSPICE.version(), make, bench.study.seed)

        return [task(i, x0) for i, x0 in enumerate(subject.x0)]


def noisy_network(bench: LatencyBench, section: Physical, network: Network, data: DataSet, kit: Pdk) -> Noisy | None:
    """The network's noise; None where it is not asked for, the data have no labels, or the network has other than
    rectifying edges, for which no noise is known."""
    if data.y is None or not section.capacitances:
        return None
    try:
        cells = network_cells(network)
    except InvalidInputError:
        return None
    return Noisy(bench, section, kit, cells, network.initial_state(data.x), data.y)


def noise_against_c(noisy: Noisy, subject: Subject) -> tuple[list[Row], Row | None, list[Row]]:
    """The samples of ``subject`` in ngspice and all samples in the engine at each C, the engine's accuracy without
    noise, and the runs that failed."""
    bench, section, kit = noisy.bench, noisy.section, noisy.kit
    # Those of slower speeds too: noise that is not known there would leave open what ends the speed.
    speeds = (float(f"{kit_scaling(kit, None, t_unit).c:.9g}") for t_unit in section.t_units)
    sizes = sorted({*section.capacitances, *(c for c in speeds if c > max(section.capacitances))}, reverse=True)
    counts = [noisy.in_engine(math.inf, 1), *(noisy.in_engine(c, section.noise_draws) for c in sizes)]
    circuits = [noisy.in_circuit(subject, c) for c in sizes]
    runs = [task for tasks in circuits for task in tasks]
    counted = bench.attempt(counts, f"noise against C, {kit.name}, engine")
    ran = bench.attempt(runs, f"noise against C, {kit.name}, ngspice", bench.jobs)
    accuracies = [_share(result) for result in counted]
    rows = []
    for i, (c, tasks) in enumerate(zip(sizes, circuits, strict=True)):
        t_unit, own = kit_scaling(kit, c, None).t_unit, ran[i * len(tasks) : (i + 1) * len(tasks)]
        where: Row = {"c": c, "t_unit": t_unit, "t_total_s": t_unit * subject.network.duration}
        where |= {"sigma_v": ktc_noise(c, kit.operating.nominal_temperature), "keys": [task.key for task in tasks]}
        engine = {"simulator": ENGINE, "simulator_version": VERSION, "draws": section.noise_draws}
        engine |= {"accuracy": accuracies[1 + i], "key": counts[1 + i].key}
        rows.append(made_by(NGSPICE.name) | where | subject.judge(own, t_unit) | {"engine": engine})
    free = None if accuracies[0] is None else accuracies[0] | {"key": counts[0].key}
    return rows, free, [*failures(counts, counted), *failures(runs, ran)]


def accuracy_kept(subject: Subject, row: Row, noise_free: Row) -> bool | None:
    """Whether at a C labels in ngspice and accuracy in the engine are as asked; None where runs failed."""
    of_engine, labels = row["engine"]["accuracy"], subject.labels_kept(row)
    if of_engine is None or labels is None:
        return None
    return labels and subject.loss_allowed(noise_free["value"] - of_engine["value"])


def _share(result: Result) -> Row | None:
    return None if result.v_end is None else proportion(int(result.v_end[0]), int(result.v_end[1]))
