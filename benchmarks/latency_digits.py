"""The full latency study of the shipped digits network, and its numbers: docs/latency.md.

    python benchmarks/latency_digits.py [--samples 450] [--sections size physical] [--pdk gf180mcu ihp-sg13g2]
        [--mos-samples 10 6] [--noise-samples 50] [--currents 0.5 2] [--jobs 1] [--out FOLDER]

The published MNIST network takes part where $KCNET_DATA has it. An interrupted run goes on (``--out``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from kcnet_eda import api
from kcnet_eda.cli.progress import RichProgress

Row = dict[str, Any]

STUDY = """
network: digits
data: digits:test
samples: {samples}
"""
SECTIONS = {
    "scaling": "{samples: 4, simulators: [ngspice, vacask]}",
    "size": """
  edges: [300, 1000, 3000, 6000, 10000, 15000, 20000, 30000, 45000, 60000, 80000,
          100000, 150000, 200000, 300000, 1000000]
  networks: [digits, digits_mos, mnist, published/mnist]
  ngspice_up_to: 100000
  vacask_above: 2000
  repeats: 5
  timeout_s: 1200""",
    "decision": "{}",
    "inference": "{samples: 10}",
}
#: The physical section's speeds; fewer where a digit takes a minute.
T_UNITS = "1u, 300n, 100n, 30n, 10n, 3n, 1n, 0.3n, 0.1n, 0.03n"
FEW_T_UNITS = {"sky130": "1u, 300n, 100n, 30n, 10n, 3n"}


def study_file(given: argparse.Namespace) -> str:
    """The study that the options ask for."""
    wanted = given.sections or [*SECTIONS, "physical"]
    text = STUDY.format(samples=given.samples)
    text += "".join(f"{name}: {SECTIONS[name]}\n" for name in wanted if name != "physical")
    if "physical" in wanted:
        samples = (given.mos_samples * len(given.pdk))[: len(given.pdk)]
        blocks = [
            f"- {{pdk: {kit}, samples: {n}, t_units: [{FEW_T_UNITS.get(kit, T_UNITS)}], noise_draws: 10, "
            f"noise_samples: {given.noise_samples}, drops: [0.1, 0.2, 0.3]}}\n"
            for kit, n in zip(given.pdk, samples, strict=True)
        ]
        if given.currents:
            rest = f"currents: {given.currents}, t_units: [300n, 100n, 30n, 10n, 3n], drops: [], capacitances: []"
            blocks.append(f"- {{pdk: {given.pdk[0]}, samples: 4, {rest}}}\n")
        text += "physical:\n" + "".join(blocks)
    return text


def _scaling(section: Row) -> None:
    for row in section["rows"]:
        print(
            f"scale {row['c']:g} F, {row['simulator_version']}: {row['from_first']:.1e} from the first, "
            f"{row['from_reference']:.1e} from the reference, {row['labels_as_software']} of {row['n']} labels"
        )


def _size(section: Row) -> None:
    for row in section["rows"]:
        if row["current_peak"] is None:
            print(f"size {row['network']}: {row['status']}")
            continue
        print(
            f"size {row['network']}: {row['edges']} edges, {row['nodes']} nodes, T {row['t_total_s']:g} s, simulation "
            f"{row['wall_s']:.3f} s (least of {len(row['walls_s'])}, most {max(row['walls_s']):.3f}) in "
            f"{row['steps']:g} steps, {row['peak_mib']:.0f} MiB, {row['current_peak']:.4g} A peak, "
            f"{row['current_mean']:.4g} A mean, {row['charge']:.4g} C, heat {row['energy_heat']:.4g} J, supplied "
            f"{row['energy_supplied']:.4g} J; from the reference {row['from_reference'] or float('nan'):.1e} "
            f"of the range; {row['level']}, {row['simulator_version']}"
        )
    print("absent:", section["absent"])
    for law in section["laws"]:
        said = f"edges^{law['exponent']:.3f}" if law["stated"] else f"no law stated ({law['exponent']:.3f})"
        print(f"law {law['of']} ({law['simulator']}): {said} {law['interval']}, {law['n']} sizes")


def _decision(d: Row) -> None:
    print(f"decision: {d['decision_s']}; accuracy {d['accuracy_at_t']}; as software {d['labels_as_software']}")
    print(f"margin {d['margin_v']}; slope {d['slope_v_per_s']}")
    for p in d["early_exit"][::5]:
        print(f"read at {p['share_of_t']:.3f} T: {p['accuracy']['value']:.4f} {p['accuracy']['wilson95']}")
    for row in (*d["tolerances"], *d["jitter"]):
        print(row)


def _inference(w: Row) -> None:
    for step in w["steps"]:
        print(step)
    print(f"total {w['total_s']:g} s, {w['total_over_t']:.3f} T, labels {w['labels_as_software']}")
    print(f"write left {w['write_left']}, by RC {w['write_left_by_rc']}")
    for row in (*w["noise"], *w["write_errors"]):
        print({name: row[name] for name in row if name not in ("key", "simulator", "simulator_version")})


def _physical(m: Row) -> None:
    for kit in m["kits"]:
        print(kit)
    for table in ("limits", "points", "noise", "supply"):
        for p in m[table]:
            print(table, {name: p[name] for name in p if name not in ("kit", "key", "keys", "labels", "supply_v")})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=450)
    parser.add_argument("--sections", nargs="+", choices=[*SECTIONS, "physical"], help="all if not given")
    parser.add_argument("--pdk", nargs="+", default=["gf180mcu", "ihp-sg13g2"], help="kits of the physical section")
    parser.add_argument("--mos-samples", type=int, nargs="+", default=[10], help="digits at a speed, for each kit")
    parser.add_argument("--noise-samples", type=int, default=50, help="digits in ngspice with noise, at each C")
    parser.add_argument("--currents", type=float, nargs="*", default=[], help="also, in the first kit: of its I_u")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.yaml"
    file.write_text(study_file(given))
    load = os.getloadavg()[0]
    with RichProgress(Console(stderr=True)) as progress:
        r = api.study_latency(file, out / "run", jobs=given.jobs, progress=progress)
    s, x = r["summary"], r["sections"]
    print(f"{s['wall_s']} s with {given.jobs} jobs; load before: {load:.1f}; {s['failed_runs']} runs failed")
    for v in s["verdicts"]:
        print(f"{v['claim']}: {v['holds']}; {v['found']}")
    printers = {
        "scaling": _scaling,
        "size": _size,
        "decision": _decision,
        "inference": _inference,
        "physical": _physical,
    }
    for name, section in x.items():
        if section["status"] == "run":
            printers[name](section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
