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
    print(
        f"{'checkpoint':12} {'phases':>6} {'edges':>7} {'devices':>7}  largest error of the range ({chosen.points} points)"
    )
    bad = 0
    for folder in chosen.folders:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "net.kcnet"
            try:
                read = import_network(folder, file, data_dir=chosen.data_dir)
                cells = []
                for way in HAND_OVERS:
                    run = Path(scratch) / way
                    r = simulate(file, run, data=f"gaussian:{chosen.points}", seed=3, hand_over=way)
                    good = (
                        r["contract"]["kept"]
                        and r["agreement"]["count"] + len(r["agreement"]["undecidable"]) == r["summary"]["n"]
                    )
                    bad += not good
                    cells.append(
                        f"{way} {r['contract']['reached']:.1e} {'kept' if good else 'MISSED'}, {r['run']['simulate_s_per_sample']:.3g} s a point"
                    )
                print(
                    f"{folder.name:12} {read['phases']:6} {read['edges']:7} {r['network']['devices']:7}  {'; '.join(cells)}",
                    flush=True,
                )
            except KcnetError as error:
                bad += 1
                print(f"{folder.name:12} FAILED: {error}", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
