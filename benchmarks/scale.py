"""The paper's scaling claim on the shipped network: the same final voltages from (1 F, 1 s) to (1 fF, 1 fs).

    python benchmarks/scale.py [--samples 4]

Prints, for each simulator and scale, the largest difference to (1 F, 1 s) and the error against the reference, both
relative to the outputs' range, from one run; and the same with ngspice's default tolerances and step control, which
is what the solver settings of the exported testbench replace.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np

from kcnet_eda.dynamics.reference import final_states
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.bundle import export
from kcnet_eda.export.testbench import Sample, render_testbench
from kcnet_eda.network.data import digits
from kcnet_eda.study.legs import prepare_bench
from kcnet_eda.tools.rawfile import read_transient
from kcnet_eda.tools.simulators import NGSPICE, VACASK, Simulator

_TIMEOUT_S = 60.0  # a sample; at exported settings one takes a tenth of a second
SCALES = (("1", "1"), ("1n", "1n"), ("1p", "1p"), ("1f", "1f"))


def final_voltages(simulator: Simulator, c: str, t: str, n: int, folder: Path, defaults: bool) -> np.ndarray:
    """v(T) [n, nodes] in model units at a scale."""
    bundle = export("digits", folder / "bundle", c=c, t_unit=t)
    circuit = bundle.circuit
    bench = prepare_bench(bundle, simulator, folder / "work", False, _TIMEOUT_S)
    (leg,) = bench.legs(bundle.settings[simulator.name])
    x0 = bundle.network.initial_state(digits().x[:n])
    samples = [Sample(f"{i}", x[1:] * circuit.scaling.v_unit, f"s{i}") for i, x in enumerate(x0)]
    text = render_testbench(
        circuit,
        leg.window,
        bundle.settings[simulator.name],
        samples,
        simulator=simulator.name,
        netlist=leg.netlist,
        osdi=leg.osdi,
    )
    if defaults:
        text = re.sub(r"^\.options (?:reltol|klu).*$", "", text, flags=re.M)
        text = re.sub(r"^(tran \S+ \S+) 0 \S+ uic$", r"\1 uic", text, flags=re.M)
    deck = bench.folder / f"deck{simulator.suffix}"
    deck.write_text(text)
    simulator.run(deck, bench.folder / "log", _TIMEOUT_S)
    v = np.zeros((n, len(circuit.nets)))
    for i in range(n):
        v[i, 1:] = read_transient(bench.folder / f"s{i}.raw", circuit.nets[1:], circuit.t_end).values[-1]
    return v


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4)
    n = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        network = export("digits", folder / "bundle").network
        v_ref = final_states(network, network.initial_state(digits().x[:n]), 2)
        span = float(np.ptp(v_ref[:, network.readout]))
        for simulator, defaults in ((NGSPICE, False), (VACASK, False), (NGSPICE, True)):
            settings = "default tolerances and step" if defaults else "exported settings"
            first: tuple[str, np.ndarray] | None = None
            for c, t in SCALES:
                where = f"{simulator.version()}, {settings}, ({c}F, {t}s)"
                try:
                    v = final_voltages(simulator, c, t, n, folder, defaults)
                except KcnetError as error:  # ngspice's absolute tolerances may be below the rounding at this scale
                    print(f"{where}: NO RESULT: {error}", flush=True)
                    continue
                first = first or (f"({c}F, {t}s)", v)
                print(
                    f"{where}: {np.abs(v - first[1]).max() / span:.1e} from {first[0]}, "
                    f"{np.abs(v - v_ref).max() / span:.1e} from the reference ({n} samples, all nodes)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
