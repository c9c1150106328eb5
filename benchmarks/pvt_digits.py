"""The digits network over conditions and dies: what ``kcnet study pvt`` finds, and what it takes.

python benchmarks/pvt_digits.py [--dies 1000] [--repeat 200] [--workers 2] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from kcnet_eda import api

STUDY = """
network: digits_mos
pdk: generic180
corners: [tt, ff, ss, fs, sf]
supplies: ["-10%", "0%", "+10%"]
temperatures: [-40, 27, 125]
limits: {{die_accuracy: 0.93}}
dies: {dies}
repeat: {repeat}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dies", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.yaml"
    file.write_text(STUDY.format(dies=given.dies, repeat=given.repeat))
    load = os.getloadavg()[0]
    record = api.study_pvt(file, out / "run", workers=given.workers)
    s, check = record["summary"], record["check"]
    print(f"{s['conditions']} conditions, {s['dies']} dies, {s['samples']} digits: {s['classifications']} labels")
    print(f"{s['wall_s']} s with {given.workers} threads; load before: {load:.1f}")
    for row in sorted(record["conditions"], key=lambda row: (row["yield"], row["accuracy"])):
        print(f"{row['condition']}: accuracy {row['accuracy']:.4f} {row['accuracy_interval']}, ", end="")
        print(f"dies {row['die_min']:.4f} to {row['die_max']:.4f}, yield {row['yield']:.4f} {row['yield_interval']}")
    print(f"good at every condition: {s['yield_everywhere']} {s['yield_everywhere_interval']}")
    print(f"changes nothing: {s['inert_axes']}")
    print(f"repeated in ngspice: {check}")


if __name__ == "__main__":
    main()
