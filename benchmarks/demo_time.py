"""Where the demo's time goes, and ngspice beside VACASK on the same circuit, from one run.

    python benchmarks/demo_time.py [--samples N] [--jobs J]

Runs the main job once with each simulator in a temporary folder and prints the wall time of each stage.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kcnet_eda.export.bundle import export
from kcnet_eda.progress import Advance
from kcnet_eda.report.write import report
from kcnet_eda.study.simulate import simulate


class Stopwatch:
    """A progress display that only measures its stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """Measure one stage."""
        started = time.perf_counter()
        yield lambda n, note="": None
        self.seconds[f"{name} ({total} runs)"] = time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        bundle = export("digits", Path(scratch) / "bundle")
        print(f"export: {time.perf_counter() - started:.1f} s")
        for simulator in ("ngspice", "vacask"):
            watch = Stopwatch()
            out = Path(scratch) / simulator
            record = simulate(
                bundle.path, out, samples=arguments.samples, jobs=arguments.jobs, simulator=simulator, progress=watch
            )
            started = time.perf_counter()
            report(out)
            watch.seconds["report"] = time.perf_counter() - started
            s = record["summary"]
            print(f"{s['simulator_version']}, {arguments.jobs} jobs, {record['contract']['steps']} steps:")
            for name, seconds in watch.seconds.items():
                print(f"  {name}: {seconds:.1f} s")
            print(
                f"  agreement {record['agreement']['count']}/{s['n']}, max error {s['max_rel_error']:.2e}, "
                f"{1000 * record['run']['simulate_s_per_sample']:.0f} ms of simulator time a digit, "
                f"{record['run']['peak_mib']:.0f} MiB a process"
            )


if __name__ == "__main__":
    main()
