"""Published checkpoints through the whole path: import, export, and the circuit against the software, phases handed
over both ways. Prints one line a checkpoint.

    python benchmarks/published.py FOLDER [FOLDER ...] [--points 50] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from kcnet_eda.errors import KcnetError
from kcnet_eda.study.import_network import import_network
from kcnet_eda.study.simulate import HAND_OVERS, simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="checkpoints: folders with config.yaml and model.pth")
    parser.add_argument("--points", type=int, default=50, help="Gaussian samples through each circuit, seed 3")
    parser.add_argument("--data-dir", type=Path, default=None)
    chosen = parser.parse_args()
    print(f"{'checkpoint':12} {'phases':>6} {'edges':>7} {'devices':>7}  largest error, of the range")
    bad = 0
    for folder in chosen.folders:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "net.kcnet"
            try:
                read = import_network(folder, file, data_dir=chosen.data_dir)
                cells = []
                for way in HAND_OVERS:
                    r = simulate(file, Path(scratch) / way, data=f"gaussian:{chosen.points}", seed=3, hand_over=way)
                    differ = len(r["agreement"]["disagreeing"]) + r["summary"]["failed_runs"]
                    verdict = "kept" if r["contract"]["kept"] and not differ else f"MISSED ({differ} samples differ)"
                    bad += verdict != "kept"
                    seconds = r["run"]["simulate_s_per_sample"]
                    half = r["contract"]["half_step"]["estimated_error"]
                    cells.append(
                        f"{way} {r['contract']['reached']:.1e}, by half steps {half:.1e}, {verdict}; {seconds:.2g} s"
                    )
                sizes = f"{read['phases']:6} {read['edges']:7} {r['network']['devices']:7}"
                print(f"{folder.name:12} {sizes}  {' | '.join(cells)}", flush=True)
            except KcnetError as error:
                bad += 1
                print(f"{folder.name:12} FAILED: {error}", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
