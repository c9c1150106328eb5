"""The reconciliation chain of the shipped digits network, from the trained model to a kit's worst corner.

    python benchmarks/chain_digits.py [--pdk generic180] [--samples 50] [--dies 100] [--jobs 2] [--out FOLDER]

Runs of every level on the same test digits, then a study over 45 conditions with the kit's mismatch, all on one page
(FOLDER/chain.html). An interrupted run goes on (``--out``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from kcnet_eda import api
from kcnet_eda.report.write import write_report

STUDY = """
network: digits_mos
pdk: {pdk}
corners: [tt, ff, ss, fs, sf]
supplies: ["-10%", "0%", "+10%"]
temperatures: [-40, 27, 125]
dies: {dies}
repeat: 40
chain: {samples}
limits: {{die_accuracy: 0.93, yield: {{minimum: 0.9}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", default="generic180")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--dies", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    several = {"data": "digits:test", "samples": given.samples, "jobs": given.jobs}
    runs = []
    for name in ("ngspice", "vacask"):
        runs.append(out / name)
        api.simulate("digits_mos", runs[-1], simulator=name, **several)
    if not (out / "bundle").exists():
        api.export("digits_mos", out / "bundle", level="mos", pdk=given.pdk)
    runs.append(out / "mos")
    api.simulate(out / "bundle", runs[-1], timeout_s=1200.0, **several)
    runs.append(out / "pvt")
    file = out / "pvt.yaml"
    file.write_text(STUDY.format(pdk=given.pdk, dies=given.dies, samples=given.samples))
    api.study_pvt(file, runs[-1], workers=given.jobs)
    page, record = write_report(runs, out / "chain.html")
    assert record is not None
    for step in record["chain"]["steps"]:
        numbers = []
        for of in ("accuracy", "agreement_before", "agreement_software"):
            p = step[of]
            if p is not None:
                low, high = p["wilson95"]
                numbers.append(f"{of} {p['count']}/{p['n']} ({100 * low:.1f} to {100 * high:.1f} %)")
        for of in ("error_max", "error_rms", "margin_lost", "latency_s", "energy_j"):
            if step[of] is not None:
                numbers.append(f"{of} {step[of]['value']:.3g}")
        print(f"{step['step']}: {'; '.join(numbers) or step['status']}; {step['cause']}")
    print("left out:", record["chain"]["left_out"] or "nothing")
    print(f"{page}: {page.stat().st_size / 1e6:.2f} MB; {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
