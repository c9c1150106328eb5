"""The MOS digits network in transistors of real process kits, with the foundry's own models: does it classify?

    python benchmarks/mos_classify.py [--pdk gf180mcu ihp-sg13g2] [--samples 100] [--network digits_mos]
        [--trim 32] [--out DIR]

Test digits are drawn by a seed, every edge is a calibrated cell. A run that was interrupted goes on (``--out``). Prints
a block a kit; exit code 1 where a target is missed or a kit's models are not there ('kcnet pdk install NAME').
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from kcnet_eda.api import export, simulate
from kcnet_eda.cli.progress import RichProgress
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.bundle import read_bundle

SEED = 2310
TRIM_DATA = "digits:train"
ACCURACY, AGREEMENT = 0.93, 0.96
_TIMEOUT_S = 3600.0  # a sample


def one_kit(pdk: str, network: str, samples: int, jobs: int, trim: int, out: Path, progress: RichProgress) -> bool:
    """Export, simulate and print; whether the targets are met."""
    place = out / (f"{pdk}-trim{trim}" if trim else pdk)
    bundle = place / "bundle"
    options: dict[str, Any] = {"trim": trim, "data": TRIM_DATA} if trim else {}
    started = time.monotonic()
    exported = read_bundle(bundle) if bundle.is_dir() else export(network, bundle, level="mos", pdk=pdk, **options)
    took = time.monotonic() - started
    r = simulate(bundle, place / "run", samples=samples, seed=SEED, jobs=jobs, timeout_s=_TIMEOUT_S, progress=progress)
    s, mos, error = r["summary"], r["mos"], r["node_error"]
    circuit, agree = r["accuracy"]["circuit"], r["agreement"]
    fit = mos["fit"]
    print(
        f"{pdk}: {exported.network.n_edges} edges as {mos['cell_instances']} cells of {mos['cells']} kinds, calibrated "
        f"and exported in {took:.0f} s; θ within {fit['max_theta_error']:.4f}, largest error "
        f"{100 * fit['max_error_of_full_scale']:.2f} % of full scale"
    )
    if mos["trim"] is not None:
        t = mos["trim"]
        print(
            f"  trimmed by {t['runs']} digits of {TRIM_DATA}: largest node error of a run, median and worst, "
            f"{t['before'][0]:.3f}, {t['before'][1]:.3f} -> {t['after'][0]:.3f}, {t['after'][1]:.3f} model units; of "
            f"{t['held_out']} others of it {t['held_out_before'][0]:.3f}, {t['held_out_before'][1]:.3f} -> "
            f"{t['held_out_after'][0]:.3f}, {t['held_out_after'][1]:.3f}"
        )
    for what, p, target in (("accuracy", circuit, ACCURACY), ("same label as the software", agree, AGREEMENT)):
        low, high = (100 * bound for bound in p["wilson95"])
        met = "met" if p["value"] >= target else "MISSED"
        print(
            f"  {what} {100 * p['value']:.1f} % ({p['count']}/{p['n']}; 95 %: {low:.1f} to {high:.1f} %); asked: "
            f"{100 * target:.0f} %: {met}"
        )
    software = r["accuracy"]["software"]
    print(
        f"  software {software['count']}/{software['n']}; {s['failed_runs']} runs failed; largest node error of a "
        f"digit: median {error['median']:.3f}, worst {error['max']:.3f} model units of {r['scaling']['v_unit']:g} V"
    )
    power = mos["static_power_w"]
    print(
        f"  T = {1e9 * s['t_total_s']:.0f} ns, static power {1e3 * power:.1f} mW, "
        f"{1e9 * power * s['t_total_s']:.2f} nJ an inference; "
        f"{r['run']['simulate_s_per_sample']:.1f} s a digit in {s['simulator_version']}, {jobs} at once",
        flush=True,
    )
    return circuit["value"] >= ACCURACY and agree["value"] >= AGREEMENT and not s["failed_runs"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdk", nargs="+", default=["gf180mcu", "ihp-sg13g2"])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--network", default="digits_mos")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--trim", type=int, default=0, help="training digits that the cells are trimmed by")
    parser.add_argument("--out", type=Path, default=Path("runs/mos_classify"))
    chosen = parser.parse_args()
    good = True
    with RichProgress(Console(stderr=True)) as progress:
        for pdk in chosen.pdk:
            try:
                good &= one_kit(pdk, chosen.network, chosen.samples, chosen.jobs, chosen.trim, chosen.out, progress)
            except KcnetError as error:
                print(f"{pdk}: NOT MEASURED\n{error}", file=sys.stderr, flush=True)
                good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
