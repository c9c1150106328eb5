"""Campaigns: kills lose nothing, a failed run is found, named and counted, and no farm changes a byte."""

from __future__ import annotations

import csv
import html
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_network
from faulty_simulator import FAULTS, started, write_faulty

from kcnet_eda import api
from kcnet_eda.config import check_settings
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.network.laws import RELU
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.campaign.farm import batch_cluster, make_farm
from kcnet_eda.study.campaign.farm_settings import Queue
from kcnet_eda.study.campaign.ladder import climb, ladder
from kcnet_eda.study.campaign.runs_table import MEASURED
from kcnet_eda.study.pvt.dies import Dies, network_cells
from kcnet_eda.study.pvt.repeat import Behavioral, Case
from kcnet_eda.study.pvt.work import Block, run_block
from kcnet_eda.study.store import PlannedRun, Result, Status, open_store
from kcnet_eda.tools.locate import find_ngspice

CASES = 24
STUDY = f"""
network: digits_mos
pdk: generic180
corners: [tt, ss]
supplies: [3.3]
dies: 60
samples: 40
repeat: {CASES}
"""
RUN = "from kcnet_eda.cli.main import main\nif __name__ == '__main__': main()"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("campaign") / "study.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def whole(study: Path) -> Path:
    """A run that nothing happened to, by two workers."""
    out = study.parent / "whole"
    api.study_pvt(study, out, workers=2)
    return out


def rows(out: Path) -> list[dict[str, str]]:
    """The rows of ``runs.csv`` without what the machine's speed decides."""
    with (out / "runs.csv").open() as stream:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(stream)]


def assert_equal_runs(one: Path, other: Path) -> None:
    """All that does not tell of time or memory is the same, byte for byte."""
    for name in ("conditions.csv", "calibration.json", "outputs.npz"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert rows(one) == rows(other)
    records = [json.loads((out / "report.json").read_text()) for out in (one, other)]
    for record in records:
        record["summary"].pop("wall_s")
    assert records[0] == records[1]


def passed(out: Path, variant: str = "behavioral") -> set[str]:
    """First 16 digits of the keys of the runs that the store has as passed."""
    store = out / "study.sqlite"
    if not store.is_file():
        return set()
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        try:
            found = connection.execute("SELECT key FROM runs WHERE status = 'passed' AND variant = ?", (variant,))
            return {key[:16] for (key,) in found}
        except sqlite3.OperationalError:  # it is just being made
            return set()


def start_study(study: Path, out: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, "study", "pvt", str(study), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(condition: Any, timeout: float = 120) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_kill_9_loses_nothing_and_repeats_nothing(
    study: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out, rng = tmp_path / "log", tmp_path / "killed", random.Random(5)
    monkeypatch.setenv("KCNET_NGSPICE", str(write_faulty(tmp_path / "ngspice", find_ngspice(), log)))
    for _ in range(2):
        before, begun = passed(out), len(started(log))
        process = start_study(study, out)
        more = len(before) + rng.randint(2, 6)
        wait_for(lambda more=more: len(passed(out)) >= more)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not before & set(started(log)[begun:])  # what was finished was not begun again
        assert before < passed(out) and not (out / "report.json").exists()
    before, begun = passed(out), len(started(log))
    assert 0 < len(before) < CASES
    api.study_pvt(study, out)
    again = started(log)[begun:]
    assert not before & set(again) and len(set(again)) == CASES - len(before)
    with sqlite3.connect(out / "study.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM runs WHERE variant = 'behavioral'").fetchone() == (CASES,)
        assert connection.execute("SELECT DISTINCT status FROM runs").fetchall() == [("passed",)]
    assert_equal_runs(whole, out)


def test_injected_failures_are_all_found_named_and_counted(
    study: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + "timeout_s: 4\n")
    keys = sorted(row["key"] for row in rows(whole) if row["level"] == "behavioral")
    faults: dict[str, str | None] = dict.fromkeys(keys) | dict(zip(keys[::3], FAULTS, strict=True))
    given = {key[:16]: fault for key, fault in faults.items() if fault}
    log, out = tmp_path / "log", tmp_path / "run"
    monkeypatch.setenv("KCNET_NGSPICE", str(write_faulty(tmp_path / "ngspice", find_ngspice(), log, given)))
    record = api.study_pvt(file, out, workers=2)
    cases = [row for row in rows(out) if row["level"] == "behavioral"]
    assert sorted(row["key"] for row in cases) == keys
    for row in cases:
        fault = faults[row["key"]]
        if fault is None:
            assert row["status"] == "passed", row
            continue
        assert row["status"] == FAULTS[fault], (fault, row)
        assert row["label"] == row["correct"] == row["error"] == ""
        assert row["attempts"] == ("2" if fault == "hang" else str(len(ladder(SolverSettings(1e-3, 1, 2))))), row
        assert list((out / "repeat" / row["key"][:16]).glob("attempt0/die.sp"))
    said = {faults[row["key"]]: row["message"] for row in cases}
    for fault, words in {
        "lie_start": "does not begin where",
        "lie_end": "disagree with the engine",
        "short": "ends at",
        "nan": "not finite",
        "truncate": "cut short",
        "hang": "ran past its limit",
    }.items():
        assert words in said[fault]
    kinds = {
        "hang": "hang",
        "crash": "crash",
        "silent": "no result",
        "truncate": "truncated",
        "short": "ended early",
        "nan": "not finite",
        "lie_start": "lies from the start",
        "lie_end": "lies at the end",
    }
    page = (out / "report.html").read_text()
    lines = (out / "runs.csv").read_text().splitlines()
    assert {row["kind"]: row["runs"] for row in record["failures"]} == dict.fromkeys(kinds.values(), 1)
    for row in record["failures"]:
        assert kinds[str(faults[row["key"]])] == row["kind"] and row["message"] == said[faults[row["key"]]]
        assert row["key"] in lines[row["line"] - 1] and list((out / row["folder"]).glob("attempt0/die.sp"))
        assert f"<td>{row['kind']} ({row['status']})</td>" in page and f"<td>{row['folder']}</td>" in page
        assert row["message"] in html.unescape(page)
    failed = sum(fault is not None for fault in faults.values())
    check = record["check"]
    assert (check["cases"], check["failed"], check["agree"]) == (CASES, failed, CASES - failed)
    assert sum(check["ended"].values()) == CASES and check["ended"]["passed"] == CASES - failed
    assert not check["kept"] and record["summary"]["kept"] is False
    with np.load(out / "outputs.npz") as outputs:
        bad = np.array([faults[row["key"]] is not None for row in cases])
        assert np.isnan(outputs["case_v_end"][bad]).all() and np.isfinite(outputs["case_v_end"][~bad]).all()
    with open_store(out / "study.sqlite") as store:
        hung = next(key for key, fault in faults.items() if fault == "hang")
        assert [(a.rung, a.status) for a in store.attempts(hung)] == [
            ("as planned", Status.TIMED_OUT),
            ("half the step", Status.TIMED_OUT),
        ]


def test_a_scheduler_and_workers_over_tcp_one_of_them_killed(study: Path, whole: Path, tmp_path: Path) -> None:
    address = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    processes = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", address],
            **quiet,
        )
    ]
    try:
        wait_for(address.exists)
        tcp = json.loads(address.read_text())["address"]
        for _ in range(2):
            worker = [*dask, "worker", tcp, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            processes.append(subprocess.Popen([*worker, "--local-directory", str(tmp_path)], **quiet))
        out = tmp_path / "run"
        study_process = start_study(study, out, "--scheduler", tcp)
        processes.append(study_process)
        wait_for(lambda: len(passed(out)) >= 4)
        os.kill(processes[1].pid, signal.SIGKILL)
        assert study_process.wait(timeout=120) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert_equal_runs(whole, out)


def test_an_edited_study_takes_over_what_holds_and_counts_nothing_else(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, edited = tmp_path / "run", tmp_path / "edited.yaml"
    edited.write_text(STUDY.replace("[tt, ss]", "[ff, ss]").replace(f"repeat: {CASES}", "repeat: 3"))
    shutil.copytree(whole, out)
    assert (out / "report.html").exists()
    blocks: list[Block] = []
    stale: list[bool] = []
    monkeypatch.setattr(
        "kcnet_eda.study.pvt.run.run_block",
        lambda shared, block, threads: (
            blocks.append(block),
            stale.append((out / "report.html").exists()),
            run_block(shared, block, threads),
        )[2],
    )
    api.study_pvt(edited, out)
    assert [block.condition for block in blocks] == [
        1,
        1,
    ]  # of ff alone; ss has moved from the second place to the first
    assert stale == [False, False]
    now = rows(out)
    assert {row["condition"].split("/")[0] for row in now} == {"ff", "ss"} and len(now) == 4 + 3
    table = pq.read_table(out / "runs.parquet").to_pylist()
    with (out / "runs.csv").open() as stream:
        for text, row in zip(csv.DictReader(stream), table, strict=True):
            assert {k: "" if v is None else str(v) for k, v in row.items()} == text


def test_a_run_that_passes_on_a_later_rung_tells_its_way(tmp_path: Path) -> None:
    tried: list[SolverSettings] = []

    def attempt(settings: SolverSettings, folder: Path) -> Result:
        folder.mkdir()
        (folder / "die.log").write_text("timestep too small")
        tried.append(settings)
        if len(tried) < 3:
            return Result(Status.NOT_CONVERGED, f"gave up. Log: {folder}/die.log", 1.0)
        return Result(Status.PASSED, "", 2.0, v_end=np.zeros(2))

    planned = SolverSettings(1e-3, 200, 2)
    result = climb(planned, attempt, tmp_path)
    assert (result.status, result.wall_s, len(result.attempts)) == (Status.PASSED, 4.0, 3)
    assert [a.message for a in result.attempts] == [f"gave up. Log: attempt{i}/die.log" for i in (0, 1)] + [""]
    assert sorted(result.files) == ["attempt0/die.log", "attempt1/die.log"]
    assert tried[0] == planned and tried[1].steps == 400 and tried[2].gear
    with open_store(tmp_path / "study.sqlite") as store:
        store.plan_in_order([PlannedRun("k", 0, "repeat", "tt", "3")], "ngspice", "46", 0)
        store.finish("k", result)
        assert store.attempts("k") == result.attempts
        (row,) = store.planned()
        assert (row["attempts"], row["rung"], row["status"]) == (3, "half the step, gear", "passed")
        store.forget_plan()
        assert store.planned() == [] and store.result("k").status is Status.PASSED


def test_every_rung_keeps_the_error_asked_for_in_ngspice(tmp_path: Path) -> None:
    """A conductance to ground decays as exp(−τ): the trapezoidal rule is h²/12 of it off, Gear's h²/3."""
    network = make_network([(1, 0, 1.0, -1.0, 0.0, 1.0, RELU)], 2, examples=[[1.0]])
    edges = EdgeModel((1.0,), (1.0,), (0.0, 0.0, 0.0))
    dies = Dies(network_cells(network), (edges,), np.ones(1), None, 0, 1.0)
    level = Behavioral(dies, [Condition("tt", "typ", 3.3, 27.0)], resolve())
    planned = SolverSettings(1e-3, 40, 2)
    trapezoidal = (1 / 40) ** 2 / 12 * np.exp(-1)  # the leading term; the next is (1/40)² of it
    for i, (rung, share) in enumerate(zip(ladder(planned), (1, 1 / 4, 1, 1 / 4), strict=True)):
        result = level.run(Case(0, 0, 0), np.array([0.0, 1.0]), rung.settings, tmp_path / str(i), 60.0)
        assert result.v_end is not None, result.message
        # ngspice begins with short steps of order 1 and ends with a cut one, which a tenth of the error covers.
        assert abs(result.v_end[1] - np.exp(-1)) == pytest.approx(share * trapezoidal, rel=0.1), rung.name


QUEUE = {"queue": "short", "cores": 4, "memory": "8 GB", "walltime": "04:00:00", "jobs": 3, "account": "chip"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("slurm", ["#SBATCH -p short", "#SBATCH -A chip", "#SBATCH --cpus-per-task=4", "#SBATCH -t 04:00:00"]),
        ("lsf", ["#BSUB -q short", '#BSUB -P "chip"', "#BSUB -n 4", "#BSUB -W 04:00\n"]),
    ],
)
def test_the_job_that_a_batch_system_is_given(name: str, lines: list[str]) -> None:
    more = {
        "prologue": ["module load ngspice"],
        "directives": ["--exclusive"],
        "lsf_units": "mb",
        "scratch": "/scratch",
    }
    queue = check_settings(QUEUE | more, Queue, "study.yaml")
    with batch_cluster(name, queue) as cluster:
        script = cluster.job_script()
    for line in [*lines, "module load ngspice", "--exclusive", "--nworkers 4", "--nthreads 1", "/scratch"]:
        assert line in script, script


def test_where_to_run_is_checked_before_anything_runs() -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_farm(None, 1, "somewhere", "pbs")
    assert all(word in str(caught.value) for word in ("both", "tcp://", "slurm, lsf", "cluster:"))
    with pytest.raises(InvalidInputError, match="memory"):
        check_settings(QUEUE | {"memory": "much"}, Queue, "study.yaml")
