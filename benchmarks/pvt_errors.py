"""The digits network written and read with errors: accuracy, agreement with software and margin at the nominal
condition.

    python benchmarks/pvt_errors.py [--pdk generic180] [--dies 100] [--workers 1] [--out FOLDER]

Errors of writing are drawn for each sample on each die, then for each die; jitter is of the time of reading. Last, the
energy of the study is held against the supply current of one digit in transistors, from the start to T.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda import api
from kcnet_eda.export.bundle import DEFAULT_ERROR
from kcnet_eda.network.data import load_data
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.study.mos.export import calibrated_circuit, kit_scaling, mos_settings
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.run import mos_deck, run_in_transistors
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.pvt.conditions import at_condition
from kcnet_eda.tools.pdk import prepare

STUDY = """
network: digits_mos
pdk: {pdk}
dies: {dies}
corners: {corners}
supplies: [{supply}]
temperatures: {temperatures}
write_error: {write_error}
write_error_of: {of}
jitter: {jitter}
"""


def energy(kit_name: str, rows: list[dict[str, Any]]) -> None:
    """Print the energy of ``rows`` and what one digit in transistors takes from the supply."""
    kit = load_pdk(kit_name)
    rig, network = size_cells(Bench(kit, prepare(kit))), load_network(network_path("digits_mos"))
    mos = calibrated_circuit(network, rig, kit_scaling(kit, None, None))
    x0 = network.initial_state(load_data("digits:test", None, features=network.inputs.size, seed=0).x)[0]
    for row in rows:
        names = ("corner", "resistor", "supply", "temperature")
        there = at_condition(rig, Condition(*(row[name] for name in names)))
        run = run_in_transistors(there, mos_deck(there, mos, mos_settings(network, DEFAULT_ERROR), x0))
        current = float(np.trapezoid(run.supply, run.tau) / np.ptp(run.tau))
        joules = current * row["supply"] * row["latency_s"]
        print(f"{row['condition']}: energy {1e9 * row['energy_j']:.3g} nJ, in transistors {1e9 * joules:.3g} nJ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", default="generic180")
    parser.add_argument("--dies", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    home = load_pdk(given.pdk).operating

    def study(name: str, **keys: object) -> list[dict[str, Any]]:
        plain = {
            "pdk": given.pdk, "dies": given.dies, "corners": "[tt]", "supply": home.supply,
            "temperatures": f"[{home.nominal_temperature}]", "write_error": "[0]", "of": "sample", "jitter": "[0]",
        }  # fmt: skip
        file = out / f"{name}.yaml"
        file.write_text(STUDY.format(**(plain | keys)))
        record = api.study_pvt(file, out / name, workers=given.workers)
        print(f"{name}: {record['summary']['samples']} digits, changes nothing: {record['summary']['inert_axes']}")
        rows: list[dict[str, Any]] = record["conditions"]
        for row in rows:
            low, high = row["accuracy_interval"]
            print(
                f"  write error {1e3 * row['write_error']:g} mV, jitter {1e9 * row['jitter']:g} ns: accuracy "
                f"{100 * row['accuracy']:.2f} % ({100 * low:.2f} to {100 * high:.2f} %), worst die "
                f"{100 * row['die_min']:.1f} %, as in software {100 * row['agreement']:.2f} %, margin "
                f"{1e3 * row['margin_v']:.1f} mV, of the worst die {1e3 * row['margin_die_min_v']:.1f} mV",
                flush=True,
            )
        return rows

    errors = "[0, 5m, 10m, 20m, 40m, 80m]"
    study("sample", write_error=errors)
    study("die", write_error=errors, of="die")
    study("jitter", jitter="[0, 1%, 2%, 4%, 8%, 16%, 32%]")
    energy(given.pdk, study("energy", corners="[tt, ff, ss]", temperatures=f"[{home.nominal_temperature}, 125]"))


if __name__ == "__main__":
    main()
