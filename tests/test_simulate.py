"""The whole path on a few digits, its store, its resume, its report."""

import io
import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import random_network
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kcnet_eda.cli.progress import RichProgress
from kcnet_eda.dynamics.contract import node_scales
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.data import digits
from kcnet_eda.network.graph import labels
from kcnet_eda.network.store import save_network
from kcnet_eda.report.write import report
from kcnet_eda.study.accuracy import decision_time, wilson
from kcnet_eda.study.simulate import simulate
from kcnet_eda.study.store import PlannedRun, Result, Status, open_store

SUMMARY = {
    "n",
    "software_accuracy",
    "circuit_accuracy",
    "agreement",
    "max_abs_error",
    "max_rel_error",
    "t_total_s",
    "f_hz",
    "simulator",
    "simulator_version",
    "openvaf_version",
    "level",
    "wall_s",
    "failed_runs",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    record = simulate("digits", out, samples=14, jobs=2)
    report(out)
    return out, record


def test_the_circuit_is_the_network(run, digits_network):
    out, record = run
    s = record["summary"]
    assert set(s) == SUMMARY
    assert s["n"] == 14 and s["failed_runs"] == 0 and s["agreement"] == 1.0 and s["level"] == "behavioral"
    assert s["max_rel_error"] <= 1e-3 and record["contract"]["kept"]
    assert s["t_total_s"] == 1e-12 and s["f_hz"] == 1e12
    with np.load(out / "outputs.npz") as o:
        np.testing.assert_array_equal(o["x0"], digits_network.initial_state(digits().x[:14]))
        np.testing.assert_array_equal(o["label"], labels(digits_network, o["v_end"]))
        np.testing.assert_array_equal(o["y"], digits().y[:14])
        assert s["max_abs_error"] == np.abs(o["v_end"] - o["v_end_software"]).max()
        assert s["circuit_accuracy"] == (o["label"] == o["y"]).mean()


def test_the_half_step_estimate_tells_the_error_within_its_order(run):
    """Richardson's estimate on 8 of the samples against the error on all: the same within the factor 4 of a halving."""
    contract = run[1]["contract"]
    estimate = contract["half_step"]["estimated_error"]
    assert contract["half_step"]["samples"] == 8
    assert contract["reached"] / 4 < estimate < contract["reached"] * 4


def test_every_planned_run_is_a_row(run):
    with sqlite3.connect(run[0] / "study.sqlite") as connection:
        rows = connection.execute("SELECT variant, status, count(*) FROM runs GROUP BY 1, 2").fetchall()
    assert sorted(rows) == [("half_step", "passed", 8), ("main", "passed", 14)]
    assert not list((run[0] / "work").glob("batch_*"))


def test_a_finished_run_is_not_done_again_and_more_samples_only_add(run, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(run[0], out)
    with monkeypatch.context() as patch:
        patch.setattr("kcnet_eda.study.simulate.run_jobs", lambda *_: pytest.fail("ran again"))
        patch.setattr("kcnet_eda.study.references.final_states", lambda *_: pytest.fail("solved again"))
        assert simulate("digits", out, samples=14)["summary"]["agreement"] == 1.0
    ran = []
    from kcnet_eda.study import batch

    original = batch._run_batch
    monkeypatch.setattr(batch, "_run_batch", lambda *a: ran.extend(a[2]) or original(*a))
    more = simulate("digits", out, samples=16)
    assert more["summary"]["n"] == 16
    fresh = {job.sample for job in ran if job.settings.steps == more["contract"]["steps"]}
    assert fresh == set(digits().index[14:16].tolist())


def test_another_simulator_agrees_within_what_both_keep(tmp_path, digits_network):
    """At an error of 1e-5 each simulator keeps 1e-5 of a node's range, so the two differ by 2e-5 of it at most."""
    ends = []
    for name in ("ngspice", "vacask"):
        record = simulate("digits", tmp_path / name, samples=2, simulator=name, error=1e-5)
        assert record["contract"]["kept"] and record["contract"]["requested"] == 1e-5
        with np.load(tmp_path / name / "outputs.npz") as outputs:
            ends.append(outputs["v_end"])
            scales = node_scales(digits_network, outputs["x0"])
    assert (np.abs(ends[0] - ends[1])[:, 1:] <= 2e-5 * scales[1:]).all()


def test_a_store_that_is_none_and_a_bundle_that_is_given(tmp_path, run):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.sqlite").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(KcnetError, match="cannot be used as a store"):
        simulate(run[0] / "bundle", tmp_path / "run", samples=1)
    assert simulate(run[0] / "bundle", tmp_path / "fresh", samples=1)["summary"]["n"] == 1
    assert not (tmp_path / "fresh" / "bundle").exists()


def test_one_sample_and_all_laws(tmp_path):
    save_network(random_network(4), tmp_path / "n.kcnet")
    np.savez(tmp_path / "d.npz", x=random_network(4).examples[:1])
    record = simulate(tmp_path / "n.kcnet", tmp_path / "run", data=str(tmp_path / "d.npz"))
    assert record["summary"]["n"] == 1 and record["contract"]["kept"]
    assert report(tmp_path / "run").is_file()  # no image grid, no labels, and still a report


def test_store_keeps_results_over_closing(tmp_path):
    wave = (np.array([0.0, 1.0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    with open_store(tmp_path / "s.sqlite") as store:
        store.plan([PlannedRun("k", 7, "main")], "ngspice", "46", 0)
        store.finish("k", Result(Status.PASSED, "", 0.5, 100, np.array([1.5, -2.0]), 0.25, wave))
        store.plan([PlannedRun("k", 7, "main"), PlannedRun("l", 8, "main")], "ngspice", "46", 0)
        store.keep_reference("r", np.array([3.0]))
    with open_store(tmp_path / "s.sqlite") as store:
        back = store.result("k")
        assert back.status is Status.PASSED and back.v_end.tolist() == [1.5, -2.0] and back.decision_s == 0.25
        np.testing.assert_array_equal(back.waveform[1], wave[1])
        assert store.result("l").status is Status.PLANNED
        assert store.reference("r").tolist() == [3.0] and store.reference("none") is None


def test_wilson_interval_is_the_textbooks():
    # Agresti and Coull, The American Statistician 52 (1998): 0 of 10 and 5 of 10
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_its_proportion(kn):
    k, n = kn
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


def test_decision_time_is_the_last_change_of_the_lead():
    t = np.array([0.0, 1.0, 2.0, 3.0])
    a, b = np.array([0, 1.0, 2.0, 3.0]), np.array([0, 2.0, 1.5, 1.0])
    # b leads by 1 at t = 1 and trails by 0.5 at t = 2: they cross two thirds of the way
    assert decision_time(t, np.stack([a, b], axis=1)) == pytest.approx(1 + 2 / 3)
    assert decision_time(t, np.stack([a, a - 1], axis=1)) == 0.0


def test_the_report_is_one_file_with_every_number_of_the_record(run):
    out, record = run
    text = (out / "report.html").read_text()
    page = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "14 / 14" in page and "1 ps" in page and "1 THz" in page
    assert f"{record['summary']['max_rel_error']:.1e}" in page
    assert page.count("<td style=") == 64
    assert not re.search(
        r"\d\.\d{8,}", re.sub(r"<div id=\"waveforms\".*?</div>|<code>.*?</code>", "", page, flags=re.S)
    )
    assert json.loads((out / "report.json").read_text())["summary"] == record["summary"]
    elsewhere = report(out, out.parent / "elsewhere.html")
    assert elsewhere.read_text() == text
    assert json.loads(elsewhere.with_suffix(".json").read_text()) == json.loads((out / "report.json").read_text())


def _chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("NOT RUN: no Chromium on PATH to open the report in")


def test_the_report_opens_in_a_browser_without_errors_or_requests(run, tmp_path):
    netlog = tmp_path / "net.json"
    done = subprocess.run(
        [
            _chromium(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,1900",
            "--virtual-time-budget=10000",
            "--enable-logging=stderr",
            f"--log-net-log={netlog}",
            "--dump-dom",
            (run[0] / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.count('class="scatterlayer') == 1, "the waveforms were not drawn"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    # An address of the web asked for by the page, not by the browser's own housekeeping
    requests = [u for u in re.findall(r'"url":"(https?://[^"]*)', netlog.read_text()) if "google" not in u]
    assert requests == []


def test_no_machine_path_or_link_in_what_is_shipped():
    root = Path(__file__).parent.parent
    for folder in ("kcnet_eda", "veriloga", "jinja_templates", "examples"):
        for path in (root / folder).rglob("*"):
            if path.suffix in {".py", ".va", ".j2", ".yaml"}:
                assert not re.search(r"/(home|root|work)/", path.read_text()), path


def test_the_fast_engine_is_a_simulator_like_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # it needs no circuit simulator and no compiler
    record = simulate("digits", tmp_path / "r", samples=20, simulator="engine")
    s = record["summary"]
    assert (s["simulator"], s["level"], s["openvaf_version"], s["failed_runs"]) == ("engine", "fast engine", "none", 0)
    assert record["agreement"]["count"] == 20 and record["contract"]["kept"] and record["contract"]["reached"] > 0
    assert record["provenance"]["solver"]["order"] == 4 and record["decision_s"]["n"] == 20
    page = report(tmp_path / "r").read_text()
    assert "Runge-Kutta" in page and "no circuit was simulated" in page
    with np.load(tmp_path / "r" / "outputs.npz") as outputs:
        assert np.isfinite(outputs["v_end"]).all() and (outputs["v_end"] != outputs["v_end_software"]).any()


def test_where_there_is_no_terminal_a_stage_has_a_line_before_and_after():
    said = io.StringIO()
    with RichProgress(Console(file=said)) as progress, progress.stage("about 9 s a run", 2) as advance:
        assert said.getvalue() == "about 9 s a run: 2 to do\n"  # an estimate is one only if it comes before
        advance(2)
    assert re.fullmatch(r"about 9 s a run: 2 done in [\d.]+ s", said.getvalue().splitlines()[1])
