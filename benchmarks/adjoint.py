"""Gradients of the shipped digits network out of its adjoint circuit in ngspice, beside the differentiated software.

    python benchmarks/adjoint.py [--samples 10] [--plot FILE.html] [--json FILE]

Runs the study examples/adjoint.yaml (10 test digits, seed 2310, five step counts) and prints relative errors in the
2-norm, the observed order and the times, both sides from one run. Then, at the same step counts, the same circuit with
devices that see the forward voltages of the instant alone (no neighbouring steps): why each has them. At last what
equal RK4 steps that ignore the corners would give as the software's gradient of the first sample.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from kcnet_eda.api import study_adjoint
from kcnet_eda.dynamics.loss import Loss
from kcnet_eda.dynamics.loss_gradient import discrete_gradient, relative_error, software_gradient, way_of
from kcnet_eda.export.adjoint import render_adjoint
from kcnet_eda.export.circuit import Circuit
from kcnet_eda.export.render import render
from kcnet_eda.files import resource_dir
from kcnet_eda.network.data import load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.report.adjoint import SHOWN
from kcnet_eda.report.figures import convergence, plotly_js

EQUAL = (400, 1600, 6400)


def sharp(circuit: Circuit) -> str:
    """The adjoint netlist whose devices read this instant's voltages in place of the neighbouring steps'."""
    return render_adjoint(circuit).replace(" _before_", " _now_").replace(" _after_", " _now_")


def show(record: dict[str, Any], title: str) -> None:
    print(f"{title}: {record['provenance']['simulator']}, {record['provenance']['data']}, n = {record['summary']['n']}")
    for row in record["convergence"]:
        cells = "; ".join(
            f"{text} median {row['errors'][name]['median']:.1e} worst {row['errors'][name]['max']:.1e}"
            for name, text in SHOWN.items()
        )
        print(f"  {row['steps']:4d} steps: {cells}; {row['wall_s']:.2f} s a sample, both runs")
    order = record["summary"]["order"]
    print("  observed order (median, least squares): " + ", ".join(f"{SHOWN[n]} {order[n]:.2f}" for n in SHOWN))
    print(f"  failed runs: {record['summary']['failed_runs']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--plot", type=Path, help="an HTML file")
    parser.add_argument("--json", type=Path, help="the record of the study")
    given = parser.parse_args()
    study = yaml.safe_load((resource_dir("examples") / "adjoint.yaml").read_text()) | {"samples": given.samples}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        record = study_adjoint(folder / "study.yaml", folder / "run")
        show(record, "adjoint circuit")
        print(f"  software's own error (half its steps): {record['summary']['software_halving']:.1e}")
        with (
            patch("kcnet_eda.study.adjoint.simulate.render_adjoint", sharp),
            patch("kcnet_eda.study.adjoint.plan.render_adjoint", sharp),
        ):
            without = study_adjoint(folder / "study.yaml", folder / "sharp")
        show(without, "the same, devices that see the instant alone")

    network = load_network(network_path(study["network"]))
    data = load_data(study["data"]).draw(given.samples, study["seed"])
    if data.y is None:
        raise SystemExit(f"{data.name} has no labels")
    v0, label, loss = network.initial_state(data.x)[0], int(data.y[0]), Loss(study["loss"], study["gain"])
    started = time.monotonic()
    truth = software_gradient(network, v0, loss, label)
    print(f"software, sample {data.index[0]}: {time.monotonic() - started:.1f} s, steps that end at the corners")
    for steps in EQUAL:
        way = way_of(network, v0, np.linspace(0, network.duration, steps + 1))
        found = discrete_gradient(network, way, loss.gradient(network, way.v[-1], label))
        print(
            f"  {steps} equal steps: {SHOWN['v0']} {relative_error(found.v0, truth.v0):.1e}, "
            f"{SHOWN['edges']} {relative_error(found.edges, truth.edges):.1e} from it"
        )
    if given.plot:
        errors = {
            text + words: [row["errors"][name]["max"] for row in found["convergence"]]
            for found, words in ((record, ""), (without, ", instant alone"))
            for name, text in (("v0", SHOWN["v0"]), ("edges", SHOWN["edges"]))
        }
        counts = [row["steps"] for row in record["convergence"]]
        body = convergence(counts, errors, 2, record["summary"]["requested"])
        page = render("report/page.html.j2", title="Adjoint circuit", body=body, plotly_js=plotly_js())
        given.plot.write_text(page)
        print(f"plot: {given.plot}")
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
