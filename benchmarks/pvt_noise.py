"""Noise of the digits network against C: what the block ``noise`` of ``kcnet study mc`` finds.

python benchmarks/pvt_noise.py [--pdk generic180] [--draws 4] [--steps 60] [--spot-checks 0] [--spot-c 1f]
                              [--workers 1] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from kcnet_eda import api

STUDY = """
network: digits_mos
pdk: {pdk}
dies: 1
mismatch: null
noise:
  capacitances: [3p, 1p, 300f, 150f, 10f, 5f, 3f, 2f, 1f, 100a, 10a]
  draws: {draws}
  steps: {steps}
  spot_checks: {spot_checks}
  spot_c: {spot_c}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", default="generic180")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--spot-checks", type=int, default=0)
    parser.add_argument("--spot-c", default="1f")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    file = out / "study.yaml"
    keys = ("pdk", "draws", "steps", "spot_checks", "spot_c")
    file.write_text(STUDY.format(**{key: getattr(given, key) for key in keys}))
    record = api.study_pvt(file, out / "run", at_nominal=True, workers=given.workers)
    noise = record["noise"]
    print(
        f"{noise['condition']}, excess {noise['excess']}, {noise['mirrors']} mirrors of {noise['mirror_gm_id']} /V: ",
        end="",
    )
    print(f"without noise {noise['reference']}; supply current {noise['supply_current_a']:.4g} A, ", end="")
    print(f"pins {noise['pins_f']:.3g} F; smallest C {noise['smallest']}")
    for row in noise["rows"]:
        print(f"C {row['c']:.3g} F, T {row['t_s']:.4g} s, kT/C {row['sigma_v']:.4g} V, energy {row['energy_j']:.4g} J:")
        for what in ("noise", "lag", "noise_and_lag"):
            of = row[what]
            print(f"  {what}: {of['right']} of {of['trials']}, {100 * of['value']:.2f} % ", end="")
            print(f"({100 * of['interval'][0]:.2f} to {100 * of['interval'][1]:.2f} %)")
    print(f"spot checks: {noise['spot']}")
    print(f"{record['summary']['wall_s']} s, {time.process_time():.0f} s of processor without ngspice")


if __name__ == "__main__":
    main()
