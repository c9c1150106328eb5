"""The published MNIST network as a circuit of 1 pF and T = 2 ps: is it right, and how long does a simulator take?

    python benchmarks/mnist_circuit.py accuracy [--images 200] [--in-ngspice 20] [--jobs 2]
    python benchmarks/mnist_circuit.py speed [--error 4e-3]

``accuracy``: test images drawn by a seed go through VACASK, the first of them through ngspice as well. A run that was
interrupted goes on (``--out``). ``speed``: images through the first phase, as one device an edge and lowered, in each
simulator and solver: a whole process with one image, parsing included, and what each further image on the parsed
circuit takes. Exit code 1 where a target is missed or data are not there. Data are found as by ``engine_mnist.py``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.api import simulate
from kcnet_eda.dynamics.contract import compare, node_scales
from kcnet_eda.dynamics.reference import final_states
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.bundle import Bundle, export
from kcnet_eda.export.testbench import Sample, SolverSettings, render_testbench
from kcnet_eda.network.data import mnist
from kcnet_eda.network.graph import Network
from kcnet_eda.network.idx import DATA_VARIABLE
from kcnet_eda.network.store import load_network, save_network
from kcnet_eda.study.import_network import import_network
from kcnet_eda.study.legs import prepare_bench
from kcnet_eda.study.simulate import OUTPUTS
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE, VACASK, Simulator

SEED = 2310
#: Asked of any node; of ngspice, whose steps are many, four times what is asked of the outputs.
ERRORS = {"vacask": 1e-3, "ngspice": 4e-3}
READOUT_ERROR = 1e-3  # of the read-out range
IN_NGSPICE, IN_FASTEST = 10, 20  # times below one device an edge
_TIMEOUT_S = 3600.0
_IMAGES = 3  # of speed


def verdict(ok: bool) -> str:
    """In words."""
    return "met" if ok else "MISSED"


def accuracy(net: Path, data_dir: Path, chosen: argparse.Namespace) -> bool:
    """Labels and voltages of drawn test images, and how far the two simulators are from each other."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    images = mnist("test", data_dir).draw(chosen.images, SEED)
    if images.y is None:
        raise SystemExit(f"{images.name} has no labels")
    file = chosen.out / f"images_{chosen.images}_seed{SEED}.npz"
    np.savez_compressed(file, x=images.x, y=images.y)
    records = {}
    for simulator, n in ((VACASK, chosen.images), (NGSPICE, chosen.in_ngspice)):
        error = ERRORS[simulator.name]
        bundle = chosen.out / f"bundle_{error:g}"
        if not bundle.is_dir():
            export(net, bundle, error=error)
        out = chosen.out / f"{simulator.name}_{n}_{error:g}"
        records[simulator.name] = simulate(
            bundle, out, data=str(file), samples=n, jobs=chosen.jobs, simulator=simulator.name, timeout_s=_TIMEOUT_S
        ) | {"out": out}
    good = True
    for name, r in records.items():
        c, n, same = r["contract"], r["summary"]["n"], r["agreement"]["count"]
        low, high = r["agreement"]["wilson95"]
        ok = same == n and c["max_rel_readout"] <= READOUT_ERROR and not r["summary"]["failed_runs"]
        good &= ok
        print(
            f"{r['summary']['simulator_version']}: same label as the software {same}/{n} (95 %: {100 * low:.1f} to "
            f"{100 * high:.1f} %), {r['summary']['failed_runs']} runs failed, largest error of an output "
            f"{c['max_rel_readout']:.1e} of the outputs' range ({c['readout_range']:.1f} model units), of any other "
            f"node {c['max_rel_other']:.1e} of its own; {c['steps']} steps a phase; asked: all, and {READOUT_ERROR:g}: "
            f"{verdict(ok)}"
        )
        correct = r["accuracy"]["circuit"]
        print(
            f"  {correct['count']}/{n} digits right in the circuit, {r['accuracy']['software']['count']}/{n} in "
            f"software; {r['run']['simulate_s_per_sample']:.1f} s an image, both phases, {chosen.jobs} at once; peak "
            f"{r['run']['peak_mib']:.0f} MiB a process ({name})"
        )
    network = load_network(net)
    with np.load(records["ngspice"]["out"] / OUTPUTS) as a, np.load(records["vacask"]["out"] / OUTPUTS) as b:
        n = len(a["x0"])
        apart = compare(network, a["v_end"], b["v_end"][:n], node_scales(network, a["x0"]))
    allowed = max(ERRORS.values())
    ok = apart.max_rel <= allowed
    print(
        f"the two simulators on the same {n} images: outputs {apart.max_rel_readout:.1e} of their range apart, any "
        f"other node {apart.max_rel_other:.1e} of its own; asked: {allowed:g}: {verdict(ok)}"
    )
    return good and ok


@dataclass(frozen=True)
class Way:
    """A way to simulate the first phase; ``edit`` changes the deck from what is exported."""

    what: str
    simulator: Simulator
    lowered: bool
    edit: Callable[[str], str] = lambda deck: deck


def _without_klu(deck: str) -> str:
    return re.sub(r"(?m)^\.options klu ", ".options ", deck)


WAYS = (
    Way("ngspice, its default solver, one device an edge", NGSPICE, False, _without_klu),
    Way("ngspice, KLU, one device an edge", NGSPICE, False),
    Way("VACASK, one device an edge", VACASK, False),
    Way("ngspice, as exported", NGSPICE, True),
    Way("VACASK, as exported", VACASK, True),
)


def speed(net: Path, data_dir: Path, chosen: argparse.Namespace) -> bool:
    """Seconds for one image and phase, at equal error asked for, and the error reached."""
    whole = load_network(net)
    first = Network(whole.name, whole.phases[:1], whole.inputs, whole.readout, whole.node_names, whole.examples)
    x0 = first.initial_state(mnist("test", data_dir).draw(_IMAGES, SEED).x)
    v_ref, scales = final_states(first, x0, os.cpu_count() or 1), node_scales(first, x0)
    load = os.getloadavg()[0]
    print(
        f"first phase: {first.n_edges:,} edges, {first.max_nodes - 1} capacitors, load {load:.1f}; seconds of a "
        f"process with one image, and of each further one (of {_IMAGES})"
    )
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        save_network(first, Path(scratch) / "first.kcnet")
        for lowered in (True, False):
            bundle = export(
                Path(scratch) / "first.kcnet",
                Path(scratch) / f"bundle{lowered}",
                error=chosen.error,
                lower="merge,fold" if lowered else "none",
            )
            for way in WAYS:
                if way.lowered != lowered:
                    continue
                alone, _, _ = _run(bundle, way, x0[:1], Path(scratch) / "work")
                together, v, settings = _run(bundle, way, x0, Path(scratch) / "work")
                seconds[way.what] = (together - alone) / (_IMAGES - 1)
                found = compare(first, v, v_ref, scales)
                print(
                    f"  {alone:7.1f} s {seconds[way.what]:7.2f} s  error {found.max_rel:.1e} of the range, "
                    f"{settings.steps} steps, {bundle.circuit.n_devices:,} devices: {way.what}",
                    flush=True,
                )
    slowest, with_klu, _, ngspice, vacask = (seconds[way.what] for way in WAYS)
    fastest = min(ngspice, vacask)
    good = slowest / ngspice >= IN_NGSPICE and slowest / fastest >= IN_FASTEST
    print(
        f"below one device an edge, ngspice's default solver: ngspice {slowest / ngspice:.1f} times (asked "
        f"{IN_NGSPICE}), the fastest {slowest / fastest:.1f} times (asked {IN_FASTEST}): {verdict(good)}"
    )
    print(
        f"below one device an edge with KLU, which an expert would switch on: ngspice {with_klu / ngspice:.1f} times, "
        f"the fastest {with_klu / fastest:.1f} times"
    )
    return good


def _run(bundle: Bundle, way: Way, x0: np.ndarray, folder: Path) -> tuple[float, np.ndarray, SolverSettings]:
    """Seconds of a process, v(T) [n, nodes] in model units, and the solver's settings."""
    circuit, settings = bundle.circuit, bundle.settings[way.simulator.name]
    bench = prepare_bench(bundle, way.simulator, folder, False, _TIMEOUT_S)
    (leg,) = bench.legs(settings)
    deck = folder / f"deck{way.simulator.suffix}"
    samples = [Sample(f"image {i}", x[1:] * circuit.scaling.v_unit, f"out{i}") for i, x in enumerate(x0)]
    text = render_testbench(
        circuit, leg.window, settings, samples, simulator=way.simulator.name, netlist=leg.netlist, osdi=leg.osdi
    )
    deck.write_text(way.edit(text))
    started = time.monotonic()
    way.simulator.run(deck, folder / "log.txt", _TIMEOUT_S)
    took = time.monotonic() - started
    column = {net: i for i, net in enumerate(leg.window.nets)}
    ((_, nets),) = leg.spans
    v = np.zeros((len(x0), len(nets)))
    for row, sample in zip(v, samples, strict=True):
        waves = read_transient(folder / f"{sample.output}.raw", leg.window.nets, leg.window.t_end)
        row[1:] = waves.values[-1, [column[net] for net in nets[1:]]] / circuit.scaling.v_unit
    return took, v, settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "speed"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--in-ngspice", type=int, default=20)
    parser.add_argument("--error", type=float, default=4e-3, help="asked for, of speed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_circuit"))
    chosen = parser.parse_args()
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data_dir = chosen.data_dir or Path(os.environ.get(DATA_VARIABLE, beside))
    with tempfile.TemporaryDirectory() as scratch:
        net = Path(scratch) / "mnist.kcnet"
        try:
            import_network(data_dir / "official_checkpoints" / "mnist", net, data_dir=data_dir)
            run: Callable[..., Any] = {"accuracy": accuracy, "speed": speed}[chosen.what]
            return 0 if run(net, data_dir, chosen) else 1
        except KcnetError as error:
            print(f"mnist_circuit: NOT MEASURED\n{error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
