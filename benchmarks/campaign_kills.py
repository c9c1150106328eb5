"""What a campaign of ngspice runs survives: kills of the coordinator, failures of the simulator, a worker's death.

python benchmarks/campaign_kills.py [--cases 500] [--kills 10] [--workers 1] [--seed 0] [--out FOLDER]

1. A campaign that nothing happens to.
2. The same killed with SIGKILL at random moments, and resumed each time: no run that was finished begins again, every
   planned row is there once, and conditions.csv, calibration.json, outputs.npz and, but for time and memory, runs.csv
   and report.json are equal to the first.
3. The same with an ngspice that fails in 10 % of the runs, in eight ways: each is found, named and counted.
4. The same on a dask scheduler with two workers, processes of their own over TCP, of which one is killed with SIGKILL.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faulty_simulator import FAULTS, started, write_faulty

from kcnet_eda.study.campaign.runs_table import MEASURED
from kcnet_eda.tools.locate import find_ngspice

STUDY = """
network: digits_mos
pdk: generic180
dies: 200
repeat: {cases}
timeout_s: 5
"""
RUN = [sys.executable, "-c", "from kcnet_eda.cli.main import main\nif __name__ == '__main__': main()"]


def study(file: Path, out: Path, *words: object, simulator: Path | None = None) -> subprocess.Popen[bytes]:
    env = dict(os.environ) | ({"KCNET_NGSPICE": str(simulator)} if simulator else {})
    command = [*RUN, "study", "mc", str(file), "--out", str(out), *map(str, words)]
    with (file.parent / "said.txt").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=env)


def quiet(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "runs.csv").open() as stream:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(stream)]


def equal(one: Path, other: Path) -> bool:
    records = [json.loads((out / "report.json").read_text()) for out in (one, other)]
    for record in records:
        record["summary"].pop("wall_s")
    same = [(one / f).read_bytes() == (other / f).read_bytes() for f in ("conditions.csv", "calibration.json")]
    same += [(one / "outputs.npz").read_bytes() == (other / "outputs.npz").read_bytes()]
    return all(same) and rows(one) == rows(other) and records[0] == records[1]


def passed(out: Path) -> set[str]:
    try:
        with sqlite3.connect(f"file:{out / 'study.sqlite'}?mode=ro", uri=True) as connection:
            found = connection.execute("SELECT key FROM runs WHERE status = 'passed' AND variant = 'behavioral'")
            return {key[:16] for (key,) in found}
    except sqlite3.OperationalError:
        return set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.yaml"
    file.write_text(STUDY.format(cases=given.cases))
    workers = ("--workers", given.workers)

    begun = time.monotonic()
    code = study(file, folder / "whole", *workers).wait()
    cases = [row for row in rows(folder / "whole") if row["level"] == "behavioral"]
    ended = Counter(row["status"] for row in cases)
    print(f"whole: exit {code}, {len(cases)} cases {dict(ended)}, {time.monotonic() - begun:.0f} s", flush=True)

    rng, log, out = random.Random(given.seed), folder / "log", folder / "killed"
    counting = write_faulty(folder / "ngspice-counting", find_ngspice(), log)
    repeated, lost = 0, 0
    for kill in range(given.kills):
        before, first = passed(out), len(started(log))
        process = study(file, out, *workers, simulator=counting)
        goal = rng.randint(len(before) + 1, len(before) + 2 * given.cases // (given.kills + 1))
        goal = min(goal, given.cases - (given.kills - kill))
        while len(passed(out)) < goal and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.2))  # anywhere within a run
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        again = before & set(started(log)[first:])
        repeated, lost = repeated + len(again), lost + len(before - passed(out))
        print(f"kill {kill + 1}: {'killed' if killed else 'NOT KILLED'} at {len(passed(out))} finished", flush=True)
    before, first = passed(out), len(started(log))
    code = study(file, out, *workers, simulator=counting).wait()
    last = started(log)[first:]
    repeated += len(before & set(last))
    with sqlite3.connect(out / "study.sqlite") as connection:
        planned = connection.execute("SELECT count(*), count(DISTINCT key) FROM runs WHERE variant = 'behavioral'")
        there = planned.fetchone()
    print(f"killed: exit {code}, rows {there}, simulators begun {len(started(log))}, in the last run {len(last)}")
    print(f"killed: finished runs lost {lost}, finished runs repeated {repeated}, equal {equal(folder / 'whole', out)}")

    keys = sorted(row["key"] for row in cases)
    chosen = rng.sample(keys, len(keys) // 10)
    faults = {key: list(FAULTS)[i % len(FAULTS)] for i, key in enumerate(chosen)}
    short = {key[:16]: fault for key, fault in faults.items()}
    failing = write_faulty(folder / "ngspice-failing", find_ngspice(), folder / "log2", short)
    begun = time.monotonic()
    code = study(file, folder / "failing", *workers, simulator=failing).wait()
    found = {row["key"]: row for row in rows(folder / "failing") if row["level"] == "behavioral"}
    named = Counter((faults[key], found[key]["status"], found[key]["attempts"]) for key in chosen)
    for (fault, status, attempts), count in sorted(named.items()):
        print(f"failing: {fault}: {count} of {sum(f == fault for f in faults.values())} {status}, {attempts} attempts")
    wrong = sum(row["status"] != "passed" for key, row in found.items() if key not in faults)
    counted = [row for key, row in found.items() if key in faults and (row["correct"] or row["label"])]
    record = json.loads((folder / "failing" / "report.json").read_text())
    check, told = record["check"], {row["kind"]: row["runs"] for row in record["failures"]}
    print(f"failing: kinds in the report {told}, each on the page: ", end="")
    page = (folder / "failing" / "report.html").read_text()
    print(all(f"<td>{row['kind']} ({row['status']})</td>" in page for row in record["failures"]))
    print(f"failing: exit {code}, {len(found)} rows, {check['ended']}, others that failed {wrong}, with a label")
    print(
        f"  {len(counted)}, agreement {check['agree']} of {check['cases']}, {time.monotonic() - begun:.0f} s",
        flush=True,
    )

    address = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    bind = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)]
    processes = [quiet([*dask, "scheduler", *bind], folder)]
    try:
        while not address.exists():
            time.sleep(0.1)
        tcp = json.loads(address.read_text())["address"]
        one = [
            *dask,
            "worker",
            tcp,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            str(folder),
        ]
        processes += [quiet(one, folder) for _ in range(2)]
        begun, out = time.monotonic(), folder / "tcp"
        process = study(file, out, "--scheduler", tcp)
        processes.append(process)
        while len(passed(out)) < given.cases // 2 and process.poll() is None:
            time.sleep(0.05)
        processes[1].kill()
        at, code = len(passed(out)), process.wait()
        same = equal(folder / "whole", out)
        print(f"tcp: a worker killed at {at} finished; exit {code}, equal {same}, {time.monotonic() - begun:.0f} s")
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
