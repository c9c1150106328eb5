"""The full latency study of the shipped digits network, and its numbers: docs/latency.md.

    python benchmarks/latency_digits.py [--samples 450] [--mos-samples 20] [--currents 1] [--jobs 1] [--out FOLDER]

The published MNIST network takes part where $KCNET_DATA has it. An interrupted run goes on (``--out``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from kcnet_eda import api
from kcnet_eda.cli.progress import RichProgress

STUDY = """
network: digits
data: digits:test
samples: {samples}
scaling: {{samples: 4, simulators: [ngspice, vacask]}}
size:
  edges: [300, 1000, 3000, 10000, 30000, 100000, 300000, 1000000]
  networks: [digits, digits_mos, mnist, published/mnist]
  vacask_above: 20000
  engine_above: 500000
  timeout_s: 1200
decision: {{}}
inference: {{samples: 10}}
physical:
  samples: {mos_samples}
  t_units: [1u, 300n, 100n, 50n, 30n, 16n, 10n]
  currents: {currents}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=450)
    parser.add_argument("--mos-samples", type=int, default=20)
    parser.add_argument("--currents", type=float, nargs="+", default=[1.0], help="of the kit's unit current")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.yaml"
    file.write_text(STUDY.format(samples=given.samples, mos_samples=given.mos_samples, currents=given.currents))
    load = os.getloadavg()[0]
    with RichProgress(Console(stderr=True)) as progress:
        r = api.study_latency(file, out / "run", jobs=given.jobs, progress=progress)
    s, x = r["summary"], r["sections"]
    print(f"{s['wall_s']} s with {given.jobs} jobs; load before: {load:.1f}; {s['failed_runs']} runs failed")
    for v in s["verdicts"]:
        print(f"{v['claim']}: {v['holds']}; {v['found']}")
    for row in x["scaling"]["rows"]:
        print(
            f"scale {row['c']:g} F, {row['simulator_version']}: {row['from_first']:.1e} from the first, "
            f"{row['from_reference']:.1e} from the reference, {row['labels_as_software']} of {row['n']} labels"
        )
    for row in x["size"]["rows"]:
        if row["current_peak"] is None:
            print(f"size {row['network']}: {row['status']}")
            continue
        print(
            f"size {row['network']}: {row['edges']} edges, {row['nodes']} nodes, T {row['t_total_s']:g} s, simulation "
            f"{row['wall_s']:.2f} s in {row['steps']:g} steps, {row['peak_mib']:.0f} MiB, {row['current_peak']:.4g} A "
            f"peak, {row['current_mean']:.4g} A mean, {row['charge']:.4g} C, heat {row['energy_heat']:.4g} J, supplied "
            f"{row['energy_supplied']:.4g} J; {row['level']}, {row['simulator_version']}"
        )
    print("absent:", x["size"]["absent"])
    for law in x["size"]["laws"]:
        print(f"law {law['of']} ({law['simulator']}): edges^{law['exponent']:.3f} {law['interval']}, {law['n']} sizes")
    d = x["decision"]
    print(f"decision: {d['decision_s']}; accuracy {d['accuracy_at_t']}; as software {d['labels_as_software']}")
    print(f"margin {d['margin_v']}; slope {d['slope_v_per_s']}")
    for p in d["early_exit"][::5]:
        print(f"read at {p['share_of_t']:.3f} T: {p['accuracy']['value']:.4f} {p['accuracy']['wilson95']}")
    for row in (*d["tolerances"], *d["jitter"]):
        print(row)
    w = x["inference"]
    for step in w["steps"]:
        print(step)
    print(f"total {w['total_s']:g} s, {w['total_over_t']:.3f} T, labels {w['labels_as_software']}")
    print(f"write left {w['write_left']}, by RC {w['write_left_by_rc']}")
    for row in (*w["noise"], *w["write_errors"]):
        print({name: row[name] for name in row if name not in ("key", "simulator", "simulator_version")})
    m = x["physical"]
    print(f"software {m['software_accuracy']}; knee {m['knee']}")
    for p in m["points"]:
        print({name: p[name] for name in p if name not in ("keys", "labels")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
