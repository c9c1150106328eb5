"""The scaling section: the same network from (1 F, 1 s) down in decades, with the same solver settings."""

from __future__ import annotations

import numpy as np

from kcnet_eda.dynamics.contract import node_scales
from kcnet_eda.export.circuit import Circuit, build_circuit
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.graph import labels
from kcnet_eda.network.store import dump_network
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.latency.bench import Floats, LatencyBench, Row, Task, failures, made_by
from kcnet_eda.study.latency.settings import Scaling
from kcnet_eda.study.store import Result, Status
from kcnet_eda.study.transient import run_transient
from kcnet_eda.tools.simulators import SIMULATORS

VARIANT = "scaling"


def run_scaling(bench: LatencyBench, section: Scaling) -> Row:
    """Run the section; its part of the record."""
    network, n = bench.network, min(section.samples, len(bench.data))
    x0, v_ref = bench.x0[:n], bench.v_ref[:n]
    span = float(node_scales(network, x0)[network.readout[0]])
    same = sha256_bytes(dump_network(network))
    tasks: list[Task] = []
    places: list[tuple[str, int, Circuit, SolverSettings]] = []
    for name in section.simulators:
        settings = bench.bundle.settings[name]
        for decade in range(section.smallest + 1):
            unit = float(f"1e-{decade}")
            scaling = resolve(c=unit, t_unit=unit, v_unit=bench.study.v_unit)
            circuit = build_circuit(network, scaling, bench.bundle.circuit.passes)
            places.append((name, decade, circuit, settings))
            tasks += [_task(bench, name, circuit, settings, x0[i], i, same) for i in range(n)]
    results = bench.attempt(tasks, "scales")
    rows, outputs = [], []
    for number, (simulator, decade, circuit, settings) in enumerate(places):
        mine = slice(number * n, (number + 1) * n)
        first = slice(number // (section.smallest + 1) * (section.smallest + 1) * n, None)
        found = [r.v_end for r in results[mine]]
        at_first = [r.v_end for r in results[first][:n]]
        pairs = [(a, b) for a, b in zip(found, at_first, strict=True) if a is not None and b is not None]
        ended = [(v, ref) for v, ref in zip(found, v_ref, strict=True) if v is not None]
        label = [-1 if v is None else int(labels(network, v[None])[0]) for v in found]
        software = labels(network, v_ref).tolist()
        row = {
            "c": circuit.scaling.c,
            "t_unit": circuit.scaling.t_unit,
            "t_total_s": circuit.t_end,
            "decade": decade,
            "n": n,
            "passed": len(ended),
            "labels": label,
            "labels_as_software": sum(a == b for a, b in zip(label, software, strict=True)),
            "from_first": max((float(np.abs(a - b).max()) / span for a, b in pairs), default=None),
            "from_reference": max((float(np.abs(v - ref).max()) / span for v, ref in ended), default=None),
            "solver": settings.as_dict(circuit.scaling),
            "keys": [task.key for task in tasks[mine]],
        } | made_by(simulator)
        rows.append(row)
        outputs += _outputs(bench, row, found)
    worst = [row["from_first"] for row in rows if row["from_first"] is not None]
    complete = all(row["passed"] == n for row in rows)
    off = any(v > section.difference for v in worst)
    missed = off or any(row["labels_as_software"] < row["passed"] for row in rows)
    return {
        "rows": rows,
        "outputs": outputs,
        "range_v": span * bench.study.v_unit,
        "largest_from_first": max(worst, default=None),
        "limit": section.difference,
        "kept": False if missed else True if complete else None,
        "failed": failures(tasks, results),
    }


def _task(
    bench: LatencyBench, name: str, circuit: Circuit, settings: SolverSettings, x0: Floats, i: int, same: str
) -> Task:
    simulator = SIMULATORS[name]

    def make() -> Result:
        folder = bench.out / "work" / f"{name}_{circuit.scaling.c:g}_{i}"
        done = run_transient(bench.network, circuit, settings, x0, simulator, folder, bench.study.timeout_s)
        return Result(Status.PASSED, "", done.wall_s, done.peak_kib, done.v_end)

    words = f"{same} {circuit.scaling} {circuit.passes} {settings} {sha256_bytes(x0.tobytes())}"
    return Task(words, int(bench.data.index[i]), VARIANT, name, simulator.version(), make)


def _outputs(bench: LatencyBench, row: Row, found: list[Floats | None]) -> list[Row]:
    """The final output voltages of each sample, for the table."""
    names = [bench.network.node_names[node] for node in bench.network.readout]
    common = {"simulator": row["simulator_version"], "c": row["c"], "t_unit": row["t_unit"]}
    return [
        common
        | {"sample": int(bench.data.index[i]), "label": row["labels"][i]}
        | {
            f"{name}_v": None if v is None else float(v[node]) * bench.study.v_unit
            for name, node in zip(names, bench.network.readout.tolist(), strict=True)
        }
        for i, v in enumerate(found)
    ]
