"""The size section: T does not grow with the network; simulation time, current, charge and energy do, and by which law.

The family is an image grid: every pixel to the 24 in the 5x5 window around it, four edges of Eq. (6) on each such pair
(as many as the published MNIST network has), θ1 and θ2 normal with the standard deviation 1/sqrt(96), 96 being the
edges that leave an inner pixel. So the rates at a node are of order one whatever the size, and only the number of
nodes grows. Named networks are shown beside the family and take no part in its laws.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid

from kcnet_eda.dynamics.contract import compare
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.export.bundle import Examples, choose_settings, example_inputs, solve_examples
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.idx import DATA_VARIABLE
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import dump_network, load_network, network_path
from kcnet_eda.network.topology import grid_window, repeat
from kcnet_eda.physical.audit import audit
from kcnet_eda.physical.scaling import Scaling, resolve
from kcnet_eda.study.engine_run import ENGINE, VERSION
from kcnet_eda.study.import_network import import_network
from kcnet_eda.study.latency.bench import LatencyBench, Row, Task, failures, made_by
from kcnet_eda.study.latency.power_law import fit_power_law
from kcnet_eda.study.latency.settings import Size
from kcnet_eda.study.store import Result, Status
from kcnet_eda.study.transient import Transient, run_transient
from kcnet_eda.tools.simulators import SIMULATORS

VARIANT = "size"
#: An exponent is stated as a law where its 95 % interval is within so much of it; else only the sizes' own numbers are.
STATED_WITHIN = 0.15
#: A simulation time takes part in its law from so many times the shortest on, which is that of starting the program.
STARTED_TIMES = 5.0
_GROWING = ("current_peak", "current_mean", "charge", "energy_heat", "energy_supplied")
#: What a row of the store holds, in this order, SI units; the last is the largest error of a final voltage against the
#: reference, over the range (NaN of the engine, at whose sizes the reference is not solved).
MEASURED = (*_GROWING, "steps", "from_reference")
_WINDOW, _PARALLEL = 5, 4
_DEGREE = (_WINDOW**2 - 1) * _PARALLEL
_EXAMPLES = 2
PUBLISHED = "published/"


def grid_network(n_edges: int, seed: int) -> Network:
    """The square grid of the family whose number of edges is nearest to ``n_edges``; at least 3x3 pixels."""
    # An s x s grid has so many pairs: (5s - 6)^2 within the window, less the pixels themselves.
    side = max(3, round((np.sqrt(n_edges / _PARALLEL) + 6) / _WINDOW))
    source, target = repeat(grid_window(side, side, _WINDOW), _PARALLEL)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(side,)))
    a, c = rng.normal(0, _DEGREE**-0.5, (2, source.size))
    edges = Edges(source, target, a, -a, c, np.ones(source.size), np.full(source.size, RELU))
    nodes = np.arange(1, side * side + 1)
    examples = rng.uniform(0, 1, (_EXAMPLES, nodes.size))
    return Network(f"grid{side}", (Phase(side * side + 1, 1.0, edges),), nodes, nodes[:10], examples=examples)


def run_size(bench: LatencyBench, section: Size) -> Row:
    """Run the section; its part of the record."""
    study = bench.study
    scaling = resolve(c=study.c, v_unit=study.v_unit, t_unit=study.t_unit)
    sources: list[tuple[str, Callable[[], Network]]] = [
        ("grid", partial(grid_network, n, study.seed)) for n in sorted(section.edges)
    ]
    sources += [("named", partial(_named, bench, name)) for name in section.networks]
    rows, failed, absent = [], [], []
    for family, load in sources:
        try:
            network = load()
        except KcnetError as error:
            absent.append(str(error))
            continue
        subject = _Subject(network, bench.study.error)
        for simulator in _simulators(section, network.n_edges, both=family == "grid"):
            tasks = [_task(bench, section, subject, scaling, simulator, k) for k in range(section.repeats)]
            results = bench.attempt(tasks, f"{network.name}, {network.n_edges} edges")
            failed += failures(tasks, results)
            rows.append(_row(family, network, scaling, tasks, results))
    fitted = [row for row in rows if row["family"] == "grid" and row["status"] == Status.PASSED]
    laws = _laws(fitted)
    circuits = [row for row in fitted if row["simulator"] != ENGINE]
    off = max((row["from_reference"] for row in circuits), default=None)
    constant = None  # said of no size, or of one
    if off is not None and len({row["edges"] for row in circuits}) > 1:
        # That T is the same says nothing yet: the circuits have to be where the reference is, then.
        constant = len({row["t_total_s"] for row in circuits}) == 1 and off <= bench.study.error
    return {
        "rows": rows,
        "laws": laws,
        "family": f"{_WINDOW}x{_WINDOW} window, {_PARALLEL} edges of Eq. (6) a pair, θ normal of 1/sqrt({_DEGREE})",
        "stated_within": STATED_WITHIN,
        "started_times": STARTED_TIMES,
        "t_constant": constant,
        "largest_from_reference": off,
        "absent": absent,
        "failed": failed,
    }


def _simulators(section: Size, n_edges: int, both: bool) -> list[str]:
    """By what a network is run; ``both``: by two simulators where they overlap."""
    if n_edges > section.engine_above:
        return [ENGINE]
    if n_edges <= section.vacask_above:
        return ["ngspice"]
    return ["ngspice", "vacask"] if both and n_edges <= (section.ngspice_up_to or 0) else ["vacask"]


def _laws(fitted: Sequence[Row]) -> list[Row]:
    """What grows as which power of the edges. What the network does is taken once a size, since it is the same in all
    simulators; how long these take is each one's own, over the sizes at which starting it is no longer most of it."""
    simulators = list(dict.fromkeys(row["simulator"] for row in fitted))
    once = list({row["edges"]: row for row in reversed(fitted)}.values())
    subjects = [(quantity, "all", once) for quantity in ("t_total_s", *_GROWING)]
    for simulator in simulators:
        own = [row for row in fitted if row["simulator"] == simulator]
        start = min(row["wall_s"] for row in own)
        started = [row for row in own if row["wall_s"] >= STARTED_TIMES * start]
        subjects += [("wall_s", simulator, started)]
        subjects += [("wall_a_step_s", simulator, [row for row in started if row["wall_a_step_s"] is not None])]
    laws = []
    for quantity, by, rows in subjects:
        law = fit_power_law([row["edges"] for row in rows], [row[quantity] for row in rows])
        if law is not None:
            stated = law.interval is not None and law.interval[1] - law.exponent <= STATED_WITHIN
            laws.append({"of": quantity, "over": "edges", "simulator": by} | asdict(law) | {"stated": stated})
    return laws


def _named(bench: LatencyBench, name: str) -> Network:
    if not name.startswith(PUBLISHED):
        return load_network(network_path(name))
    file = bench.out / "networks" / f"{name.removeprefix(PUBLISHED)}.kcnet"
    if not file.is_file():
        data = bench.study.data_dir or os.environ.get(DATA_VARIABLE)
        folder = Path(data or ".") / "official_checkpoints" / name.removeprefix(PUBLISHED)
        if not folder.is_dir():
            remedy = f"Name the folder that has official_checkpoints/ as data_dir, or in ${DATA_VARIABLE}."
            raise InvalidInputError(name, ["no such published network here"], remedy)
        file.parent.mkdir(exist_ok=True)
        import_network(folder, file, data_dir=bench.study.data_dir, progress=bench.progress)
    return load_network(file)


@dataclass(frozen=True, eq=False)
class _Subject:
    """A network of the section; what solver settings for an ``error`` need of it is found once, and only if it is
    run."""

    network: Network
    error: float

    @cached_property
    def examples(self) -> Examples:
        """The network's examples; the first of them is what is run."""
        return solve_examples(self.network)

    @cached_property
    def settings(self) -> dict[str, SolverSettings]:
        """Solver settings of each simulator."""
        return choose_settings(self.network, self.examples, self.error)


def _task(bench: LatencyBench, section: Size, subject: _Subject, scaling: Scaling, name: str, repeat: int) -> Task:
    network = subject.network
    version = VERSION if name == ENGINE else SIMULATORS[name].version()
    x0 = network.initial_state(example_inputs(network)[0][:1])

    def in_engine() -> Result:
        started = time.monotonic()
        found = audit(network, x0, scaling)
        numbers = [
            *(found.total_current_peak, found.total_current_mean, found.charge_moved),
            *(found.energy_dissipated, found.energy_delivered, 0.0, float("nan")),
        ]
        return Result(Status.PASSED, "", time.monotonic() - started, 0, np.array(numbers))

    def in_circuit() -> Result:
        simulator = SIMULATORS[name]
        examples, settings = subject.examples, subject.settings[name]
        circuit = build_circuit(network, scaling)
        folder = bench.out / "work" / f"size_{network.n_edges}_{name}"
        run = run_transient(network, circuit, settings, x0[0], simulator, folder, section.timeout_s)
        error = compare(network, run.v_end[None], examples.v_ref[:1], examples.scales).max_rel
        numbers = [*_flows(run, scaling), float(settings.steps * len(network.phases)), error]
        return Result(Status.PASSED, "", run.wall_s, run.peak_kib, np.array(numbers))

    given = f"{sha256_bytes(dump_network(network))} {sha256_bytes(x0.tobytes())}"
    words = f"{given} {scaling} {bench.study.error} {' '.join(MEASURED)} {repeat}"
    make = in_engine if name == ENGINE else in_circuit
    return Task(words, repeat, VARIANT, name, version, make, bench.study.seed)


def _flows(run: Transient, scaling: Scaling) -> list[float]:
    """Peak and mean of the total of all edge currents, charge, heat and supplied energy of one inference: the laws of
    the edges at the node voltages that the simulator found, integrated by the trapezoidal rule on its own steps. SI
    units."""
    peak, duration, integrals = 0.0, 0.0, np.zeros(3)
    for way in run.ways:
        _, sums = RightHandSide(way.phase).flows(way.v.T)
        peak = max(peak, float(sums[0].max()))
        integrals += trapezoid(sums, way.tau, axis=1)
        duration += float(way.tau[-1])
    charge, heat, supplied = integrals
    i, t, v = scaling.i_unit, scaling.t_unit, scaling.v_unit
    return [peak * i, charge / duration * i, charge * i * t, heat * i * t * v, supplied * i * t * v]


def _row(family: str, network: Network, scaling: Scaling, tasks: Sequence[Task], results: Sequence[Result]) -> Row:
    """A network by one simulator: the fastest of its runs, since other load on the machine only ever adds; failed where
    one of them failed."""
    passed = [k for k, result in enumerate(results) if result.status is Status.PASSED]
    fastest = min(passed, key=lambda k: results[k].wall_s, default=0)
    bad = next((k for k in range(len(results)) if k not in passed), None)
    shown = fastest if bad is None else bad
    task, result = tasks[shown], results[shown]
    row: Row = {
        "network": network.name,
        "family": family,
        "edges": network.n_edges,
        "nodes": network.max_nodes - 1,
        "phases": len(network.phases),
        "n": 1,
        "status": result.status,
        "t_total_s": network.duration * scaling.t_unit,
        "wall_s": result.wall_s,
        "walls_s": [results[k].wall_s for k in passed],
        "peak_mib": result.peak_kib / 1024,
    }
    numbers = [None] * len(MEASURED) if result.v_end is None else result.v_end.tolist()
    row |= dict(zip(MEASURED, numbers, strict=True))
    row["from_reference"] = None if task.simulator == ENGINE else row["from_reference"]
    row["wall_a_step_s"] = result.wall_s / row["steps"] if row["steps"] else None  # the engine's are not a circuit's
    engine = {"level": "engine", "simulator": ENGINE, "simulator_version": VERSION, "compiler": "none"}
    row |= engine if task.simulator == ENGINE else made_by(task.simulator)
    return row | {"key": task.key}
