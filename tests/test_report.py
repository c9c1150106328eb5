"""The combined report: its numbers against the stores they name, and what it says of damaged run folders."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import random_network
from runs_of_cells import published

from kcnet_eda.cli.main import main
from kcnet_eda.errors import InvalidInputError, ToolFailedError, ToolMissingError
from kcnet_eda.network.store import save_network
from kcnet_eda.report.chain import make_chain, share
from kcnet_eda.report.figures import waterfall
from kcnet_eda.report.runs import Run, look_up, names_of, read_run
from kcnet_eda.report.write import report, write_report
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.simulate import simulate
from kcnet_eda.study.tables import csv_text


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run by the fast engine, and a copy that stands for a simulator's: label 0 of a sample is another, one failed,
    and every voltage is off by a known 0.01."""
    root = tmp_path_factory.mktemp("report")
    network = random_network(3)
    save_network(network, root / "net.kcnet")
    rng = np.random.default_rng(1)
    np.savez(root / "d.npz", x=rng.uniform(-1, 1, (12, network.inputs.size)), y=rng.integers(0, 3, 12))
    before, after = root / "before", root / "after"
    simulate(root / "net.kcnet", before, data=str(root / "d.npz"), simulator="engine", jobs=1)
    shutil.copytree(before, after)
    record = json.loads((after / "report.json").read_text())
    record["summary"] |= {"level": "behavioral", "simulator": "ngspice"}
    (after / "report.json").write_text(json.dumps(record))
    with np.load(after / "outputs.npz") as archive:
        arrays = dict(archive)
    arrays["v_end"] = arrays["v_end_software"] + 0.01
    arrays["label"][0] = (arrays["label"][0] + 1) % 3
    arrays["label"][1], arrays["v_end"][1] = -1, np.nan
    np.savez(after / "outputs.npz", **arrays)
    with sqlite3.connect(after / "study.sqlite") as store:
        store.execute(
            "UPDATE runs SET status = 'timed_out' WHERE key = (SELECT key FROM runs WHERE sample = 1 LIMIT 1)"
        )
    return [before, after]


def test_the_chain_is_what_the_arrays_say(runs, tmp_path):
    page, record = write_report(runs, tmp_path / "both.html")
    steps = {step["step"]: step for step in record["chain"]["steps"]}
    assert record["chain"]["shared_samples"] == list(range(12))
    for name in ("MOS level", "worst PVT corner"):
        assert steps[name]["status"] == "not run" and steps[name]["accuracy"] is None
    lowered = steps["lowered network"]
    # RK4 at 200 steps against DOP853: of edges with corners a step of 1/200 is off by about its square
    assert lowered["agreement_software"]["count"] == 12 and lowered["error_max"]["value"] < 1e-4
    assert "rk4" in steps["trained torch model"]["cause"]  # there is no training record
    step = steps["behavioural ngspice"]
    assert step["agreement_software"]["count"] == 10 and step["agreement_software"]["n"] == 12
    assert step["agreement_software"]["wilson95"] == list(wilson(10, 12))
    # 0.01 was added to every node of the eleven samples that passed; rounding of a sum of order 1 is below 1e-12
    assert step["error_max"]["value"] == pytest.approx(0.01, abs=1e-12)
    assert step["error_rms"]["value"] == pytest.approx(0.01, abs=1e-12)
    assert step["margin_lost"]["value"] == pytest.approx(0, abs=1e-12)
    changed = {row["run"]: row for row in record["changed"]}["after"]
    assert [row["sample"] for row in changed["samples"]] == [0] and changed["failed"] == [1]
    html = page.read_text()
    assert "planned runs failed: timed_out" in html and "https://" not in html.replace(_plotly(), "")


def _of_conditions(network, like):
    """A study of conditions as a report reads it, with the samples 2 to 5 of the run ``like`` for the chain: those on
    calibrated edges are off by 0.02, of those at the worst corner the last failed."""
    steps = {
        "calibrated": {"condition": "tt", "latency_s": 3e-7, "energy_j": 2e-9},
        "worst": {"condition": "ss", "latency_s": 3e-7, "energy_j": 1e-9},
    }
    record = {"study": "pvt", "summary": {}, "check": None, "chain": steps, "conditions": [], "limits": []}
    record["provenance"] = {"data": like.record["provenance"]["data"], "pdk": "gf"}
    arrays = {name: like.arrays[name][2:6] for name in ("x0", "y", "index", "v_end_software")}
    arrays["v_end_calibrated"] = arrays["v_end_software"] + 0.02
    arrays["v_end_worst"] = arrays["v_end_software"].copy()
    arrays["v_end_worst"][-1] = np.nan
    return Run(Path("pvt"), "pvt", record, arrays, network, {}, ())


def test_the_steps_of_a_study_over_conditions_are_of_the_samples_that_all_share(runs):
    engine = read_run(runs[0], "before")
    study = _of_conditions(engine.network, engine)
    chain = make_chain([engine, study])
    assert chain.shared == [2, 3, 4, 5] and not chain.left_out
    steps = {step["step"]: step for step in chain.steps}
    calibrated, worst = steps["calibrated behavioural"], steps["worst PVT corner"]
    for step in (calibrated, worst):
        for what in ("accuracy", "agreement_before", "agreement_software"):
            assert step[what]["n"] == 4
        for what in ("latency_s", "energy_j"):
            assert step[what]["value"] == look_up(study.record, step[what]["source"]["key"])
    assert calibrated["error_max"]["value"] == pytest.approx(0.02, abs=1e-12)  # a rounding of a sum of order 1
    assert calibrated["agreement_before"]["count"] == 4 and worst["agreement_before"]["count"] == 3
    assert worst["error_max"]["value"] == 0 and worst["error_max"]["source"]["rows"] == [0, 1, 2]


def test_a_study_of_another_network_is_no_step_of_the_chain(runs):
    engine, twin = read_run(runs[0], "before"), read_run(runs[1], "after")
    other = _of_conditions(random_network(4), engine)
    chain = make_chain([engine, twin, other])
    assert chain.steps[-1]["status"] == "not run" and chain.left_out == ["pvt: another network or data set"]
    assert make_chain([other]).steps[-1]["status"] == "run"  # alone it is a chain of its own
    without = replace(other, record=other.record | {"chain": None}, arrays={})
    assert "chain: N" in make_chain([engine, without]).left_out[0]


def test_a_run_that_shares_no_sample_or_is_of_another_kit_leaves_the_chain_of_the_others(runs):
    engine, circuit = read_run(runs[0], "before"), read_run(runs[1], "after")
    study = _of_conditions(engine.network, engine)
    apart = replace(engine, name="apart", arrays=engine.arrays | {"index": engine.arrays["index"] + 100})
    chain = make_chain([apart, circuit, study])
    assert chain.shared == [2, 3, 4, 5] and "apart: has no sample" in chain.left_out[0] and len(chain.left_out) == 1
    assert [step["status"] for step in chain.steps if step["step"] != "trained torch model"].count("not run") == 2
    shifted = replace(circuit, arrays=circuit.arrays | {"x0": circuit.arrays["x0"] + (np.arange(12) > 7)[:, None]})
    chain = make_chain([engine, shifted])
    assert chain.shared == list(range(8)) and chain.left_out == [
        "4 samples: their inputs in after are not those in before"
    ]
    one = replace(circuit, arrays=circuit.arrays | {"x0": circuit.arrays["x0"] + (np.arange(12) > 10)[:, None]})
    assert make_chain([engine, one]).left_out == ["1 sample: its inputs in after are not those in before"]
    of_mos = {"level": "mos", "simulator": "ngspice", "t_total_s": 3e-7}
    mos = replace(circuit, record=circuit.record | {"summary": of_mos, "mos": {"pdk": "sky130", "static_power_w": 0.1}})
    chain = make_chain([engine, mos, study])
    assert "another kit or T than after's: gf, 300 ns, not sky130, 300 ns" in chain.left_out[0]
    same = replace(mos, record=mos.record | {"mos": {"pdk": "gf", "static_power_w": 0.1}})
    assert not make_chain([engine, same, study]).left_out
    # What the study found at the only condition it has is no corner.
    only = replace(study, record=study.record | {"chain": {"calibrated": study.record["chain"]["calibrated"]}})
    only.arrays.pop("v_end_worst")
    last = make_chain([engine, only]).steps[-1]
    assert last["status"] == "not run" and "no condition but" in last["cause"]


def test_the_order_of_runs_changes_no_step(runs):
    engine, circuit = read_run(runs[0], "before"), read_run(runs[1], "after")
    study = _of_conditions(engine.network, engine)
    given = [engine, circuit, study]
    assert make_chain(given[::-1]).steps == make_chain(given).steps


def test_a_later_step_adds_to_or_takes_from_the_one_before():
    steps = [{"step": name, "accuracy": share(n, 10, {})} for name, n in (("a", 8), ("b", 10), ("c", 7))]
    html = waterfall(steps)
    drawn = json.JSONDecoder().raw_decode(html, html.index("[{"))[0][0]
    assert drawn["y"] == ["a", "b", "c"] and drawn["base"] == [0, 80, 100]
    assert drawn["x"] == pytest.approx([80, 20, -30])
    assert drawn["customdata"] == ["80.00 %", "+20.00 points", "-30.00 points"]


def _plotly() -> str:
    from kcnet_eda.report.figures import plotly_js

    return plotly_js()


def _step_labels(step, folders, readout):
    """Labels of a step that was run, out of the arrays its numbers name; -1 where it is not finite."""
    source = step["agreement_software"]["source"] if step["agreement_software"] else step["accuracy"]["source"]
    with np.load(folders[source["run"]] / source["file"]) as archive:
        a = archive[source["arrays"][0]][source["rows"]]
    if a.ndim == 1:
        return a
    return np.where(np.isfinite(a).all(axis=1), np.argmax(a[:, readout], axis=1), -1)


def _recomputed(name, step, before, source, folders, readout):
    """A number of the report, from the file that its source names and nothing else of the report."""
    folder = folders[source["run"]]
    if "key" in source:
        value = 1.0
        for key in source["key"].split(" × "):
            found = json.loads((folder / source["file"]).read_text())
            for word in key.split("."):
                found = found[word]
            value *= found
        return value
    with np.load(folder / source["file"]) as archive:
        arrays = [archive[key][source["rows"]] for key in source["arrays"]]
    if name == "accuracy":
        return (_step_labels(step, folders, readout) == arrays[1]).mean()
    own = _step_labels(step, folders, readout)
    if name == "agreement_before":
        return ((own == before) & (own >= 0)).mean()
    software = arrays[1][:, readout]
    if name == "agreement_software":
        return (own == software.argmax(axis=1)).mean()
    v, off = arrays[0][:, readout], arrays[0] - arrays[1]
    if name == "error_max":
        return np.abs(off).max()
    if name == "error_rms":
        return np.sqrt((off[:, 1:] ** 2).mean())
    assert name == "margin_lost"
    first = software.argmax(axis=1)
    lead = [
        [row[i] - max(x for j, x in enumerate(row) if j != i) for row, i in zip(volts, first, strict=True)]
        for volts in (software, v)
    ]
    return np.median(np.subtract(*lead))


@pytest.mark.parametrize("seed", [2310, 15872, 7])
def test_numbers_drawn_at_random_are_in_the_runs(runs, tmp_path, seed):
    """Ten of all the numbers of chain and headlines, and one more of each kind that they missed."""
    _, record = write_report(runs, tmp_path / "both.html")
    folders = {path.name: path for path in runs}
    readout = random_network(3).readout
    told, before = [], None
    for step in record["chain"]["steps"]:
        told += [(key, step, before, x) for key, x in step.items() if isinstance(x, dict)]
        if step["status"] == "run":
            before = _step_labels(step, folders, readout)
    told += [(x["of"], None, None, x) for run in record["runs"] for x in run["headline"]]
    drawn = [told[i] for i in np.random.default_rng(seed).permutation(len(told))]
    kinds = {name for name, *_ in told}
    assert {"error_rms", "margin_lost", "latency_s", "energy_j", "agreement_before", "circuit accuracy"} <= kinds
    rest = {name: x for name, *x in drawn[10:]}
    chosen = drawn[:10] + [(name, *rest[name]) for name in kinds - {name for name, *_ in drawn[:10]}]
    for name, step, earlier, x in chosen:
        # sums in another order: a few roundings of numbers of order one
        assert x["value"] == pytest.approx(_recomputed(name, step, earlier, x["source"], folders, readout), rel=1e-12)
        if "wilson95" in x:
            assert x["wilson95"] == list(wilson(x["count"], x["n"])) and x["value"] == x["count"] / x["n"]


def test_markdown_and_csv_say_the_same(runs, tmp_path):
    write_report(runs, tmp_path / "both.html")
    with (tmp_path / "both.csv").open() as stream:
        rows = {row["step"]: row for row in csv.DictReader(stream)}
    step = rows["behavioural ngspice"]
    assert step["agreement_software_n"] == "12" and float(step["agreement_software"]) == 10 / 12
    assert rows["MOS level"]["status"] == "not run" and rows["MOS level"]["accuracy"] == ""
    with (tmp_path / "both_numbers.csv").open() as stream:
        numbers = list(csv.DictReader(stream))
    (own,) = [row for row in numbers if (row["run"], row["of"]) == ("after", "circuit accuracy")]
    record = json.loads((runs[1] / "report.json").read_text())
    assert float(own["value"]) == record["accuracy"]["circuit"]["value"] and own["key"] == "accuracy.circuit.value"
    assert [float(own[f"interval_{end}"]) for end in ("low", "high")] == record["accuracy"]["circuit"]["wilson95"]
    assert {row["kept"] for row in numbers if row["of"] == "error of final voltages"} == {"True"}
    text = (tmp_path / "both.md").read_text()
    assert "83.33 % (10/12;" in text and all(f"| {name} |" in text for name in rows)


def test_a_row_as_csv_has_an_interval_as_two_columns_and_what_is_nested_beside_it():
    share_of = {"value": 0.5, "wilson95": [0.25, 0.75], "n": 4}
    rows = [{"x": 1.0, "accuracy": share_of, "walls_s": [1, 2]}, {"x": None, "interval": None}]
    assert csv_text(rows).splitlines() == [
        "x,accuracy_value,accuracy_wilson95_low,accuracy_wilson95_high,accuracy_n,walls_s,interval_low,interval_high",
        "1.0,0.5,0.25,0.75,4,1 2,,",
        ",,,,,,,",
    ]


def test_exit_codes(runs, tmp_path, monkeypatch):
    def code(*words: object) -> object:
        monkeypatch.setattr("sys.argv", ["kcnet", "report", *map(str, words), "--out", str(tmp_path / "p.html")])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    missed, damaged = tmp_path / "missed", tmp_path / "damaged"
    shutil.copytree(runs[0], missed)
    record = json.loads((missed / "report.json").read_text())
    record["contract"]["kept"] = False
    (missed / "report.json").write_text(json.dumps(record))
    shutil.copytree(runs[0], damaged)
    (damaged / "outputs.npz").unlink()
    assert (
        code(*runs) == 0 and code(runs[0], missed) == 2 and code(runs[0], missed, damaged) == 1 and code(damaged) == 1
    )


def test_runs_of_one_kind_stand_side_by_side(runs, tmp_path):
    _, record = write_report(runs, tmp_path / "both.html")
    row = next(row for row in record["differences"] if row["of"] == "T")
    assert row["runs"] == ["before", "after"] and row["changes"] == [0, 0]


@pytest.mark.parametrize("part", ["outputs.npz", "study.sqlite", "report.json", "network.kcnet"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_run_still_has_a_report_that_says_so(runs, tmp_path, part, damage):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    if damage == "missing":
        (run / part).unlink()
    else:
        whole = (run / part).read_bytes()
        (run / part).write_bytes(whole[: len(whole) // 3])
    page, record = write_report([run, runs[1]], tmp_path / "page.html")
    first_screen = page.read_text().replace(_plotly(), "").partition('<div class="tiles">')[0]
    assert record["summary"]["unreadable_runs"] == ["run"]
    assert ("did not end" in first_screen) == ((part, damage) == ("report.json", "missing"))
    assert (f"has no {part}" if damage == "missing" else f"{part} cannot be read") in first_screen
    alone, record = write_report(run, tmp_path / "alone.html")
    assert record is not None and part in alone.read_text()


def test_one_whole_run_keeps_its_own_page(runs, tmp_path):
    page, record = write_report(runs[0], tmp_path / "one.html")
    assert record is None and "in one report" not in page.read_text()
    assert json.loads((tmp_path / "one.json").read_text())["summary"]["n"] == 12


def test_what_is_no_run_and_what_has_no_place_to_go(runs, tmp_path):
    with pytest.raises(InvalidInputError, match="is not a run folder"):
        report(tmp_path)
    with pytest.raises(InvalidInputError, match="is needed for several runs"):
        report(runs)


def test_names_tell_runs_apart():
    assert names_of([Path("/a/x/run"), Path("/a/y/run"), Path("/a/z")]) == ["x/run", "y/run", "z"]


def test_a_browser_that_prints_nothing_whole_is_found_out(runs, tmp_path, monkeypatch):
    """Told to print, it writes what ``said`` is and exits with 0."""
    browser = tmp_path / "browser"
    monkeypatch.setenv("KCNET_BROWSER", str(browser))
    for said in ("", "%PDF-1.4 cut short"):
        browser.write_text(
            f'#!/bin/sh\nfor a; do case $a in --print-to-pdf=*) printf %s "{said}" > "${{a#*=}}";; esac; done\n'
        )
        browser.chmod(0o755)
        with pytest.raises(ToolFailedError, match="no whole PDF"):
            report(runs, tmp_path / "all.html", pdf=True)
        assert (tmp_path / "all.html").is_file() and not (tmp_path / "all.pdf").exists()
    browser.write_text(browser.read_text().replace("cut short", "whole %%EOF"))
    report(runs, tmp_path / "all.html", pdf=True)
    assert (tmp_path / "all.pdf").read_bytes() == b"%PDF-1.4 whole %%EOF"
    monkeypatch.setenv("KCNET_BROWSER", str(tmp_path / "none"))
    with pytest.raises(ToolMissingError, match="KCNET_BROWSER"):
        report(runs, tmp_path / "all.html", pdf=True)


def test_records_are_what_the_published_schema_says(runs, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(runs[0], damaged)
    (damaged / "outputs.npz").unlink()
    validator = published("report")
    for given in (runs, [*runs, damaged], [damaged]):
        write_report(given, tmp_path / "p.html")
        validator.validate(json.loads((tmp_path / "p.json").read_text()))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), 1),
        (("chain", "steps", 0, "accuracy", "value"), 1.5),
        (("chain", "steps", 0, "accuracy", "source", "rows"), [-1]),
        (("chain", "steps", 0, "status"), "not run"),  # with numbers
        (("runs", 0, "headline", 0, "value"), "0.9"),
        (("runs", 0, "headline", 0, "source"), {}),
        (("verdicts", 0, "kept"), None),
        (("summary", "more"), 1),
        (("changed", 0, "samples"), None),
    ],
)
def test_a_damaged_record_is_not_what_the_schema_says(runs, tmp_path, place, value):
    _, record = write_report(runs, tmp_path / "p.html")
    at = record
    for word in place[:-1]:
        at = at[word]
    at[place[-1]] = value
    assert not published("report").is_valid(record)


def _truncated(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _edited(path, edit):
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def _emptied(store, of=""):
    with sqlite3.connect(store) as connection:
        connection.execute(f"DELETE FROM runs {of}")


def _with(path, **changed):
    with np.load(path) as archive:
        arrays = dict(archive) | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def _of_other_samples(path):
    with np.load(path) as archive:
        label = archive["label"]
    _with(path, label=label[:-1])


@pytest.mark.parametrize(
    ("part", "damage", "said"),
    [
        ("outputs.npz", _truncated, "outputs.npz cannot be read"),
        ("outputs.npz", lambda p: _with(p, v_end=None), "outputs.npz lacks v_end"),
        ("outputs.npz", lambda p: _with(p, v_end_lowered=None), "outputs.npz lacks v_end_lowered"),
        ("outputs.npz", lambda p: _with(p, y=None), "outputs.npz lacks y"),
        # One of the twelve failed.
        ("outputs.npz", lambda p: _with(p, v_end=np.full((12, 7), np.nan)), "has v_end that are not finite"),
        ("outputs.npz", lambda p: np.savez(p), "outputs.npz lacks x0, v_end_software"),
        ("outputs.npz", lambda p: _with(p, index=np.zeros(12, int)), "has a sample twice"),
        (
            "outputs.npz",
            lambda p: _with(p, v_end_software=np.full((12, 7), np.nan)),
            "v_end_software that are not finite",
        ),
        ("outputs.npz", _of_other_samples, "outputs.npz is not of this run: label is (11,), not (12,)"),
        ("study.sqlite", lambda p: p.write_bytes(b""), "study.sqlite cannot be read"),
        ("study.sqlite", lambda p: p.write_bytes(b"SQLite format 3\0" + bytes(4096)), "study.sqlite cannot be read"),
        ("study.sqlite", _emptied, "study.sqlite has no runs"),
        (
            "study.sqlite",
            lambda p: _emptied(p, "WHERE sample = 3"),
            "has 11 of the 12 runs that outputs.npz has samples of",
        ),
        ("report.json", lambda p: _edited(p, lambda r: r["contract"].update(reached=float("nan"))), "the number NaN"),
        ("report.json", lambda p: p.write_bytes(b"\xff\xfe{}"), "report.json cannot be read"),
        ("report.json", lambda p: p.write_text("[1, 2]"), "report.json is not the record of a run"),
        ("report.json", lambda p: _edited(p, lambda r: r["summary"].pop("t_total_s")), "what this version reads"),
        ("report.json", lambda p: _edited(p, lambda r: r.pop("scaling")), "again, which keeps what passed"),
        ("report.json", lambda p: _edited(p, lambda r: r.update(study="pvt", limits=[{}])), "what this version reads"),
        ("network.kcnet", lambda p: p.write_bytes(bytes(64)), "network.kcnet cannot be read"),
        ("network.kcnet", lambda p: save_network(random_network(3, n_nodes=9), p), "outputs.npz is not of"),
    ],
)
def test_whatever_is_broken_the_first_screen_says_so(runs, tmp_path, part, damage, said):
    run = tmp_path / "run"
    shutil.copytree(runs[1], run)
    damage(run / part)
    for given in (run, [runs[0], run]):
        page, record = write_report(given, tmp_path / "page.html")
        assert said in page.read_text().replace(_plotly(), "").partition('<div class="tiles">')[0].replace("&#39;", "'")
        assert record is not None and "run" in record["summary"]["unreadable_runs"]
        assert record["runs"][-1]["failures"]
        published("report").validate(json.loads((tmp_path / "page.json").read_text()))


def test_a_folder_that_may_not_be_entered(runs, tmp_path, monkeypatch):
    real, shut = Path.is_file, tmp_path / "shut"

    def is_file(path):
        if path.parent == shut:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    page, record = write_report([runs[0], shut], tmp_path / "page.html")
    assert record["summary"]["unreadable_runs"] == ["shut"]
    assert "cannot be looked into: Permission denied" in page.read_text().replace(_plotly(), "")


def test_reading_changes_nothing(runs, tmp_path):
    before = {path: path.read_bytes() for path in runs[0].iterdir() if path.is_file()}
    write_report(runs[0], tmp_path / "one.html")
    assert {path: path.read_bytes() for path in runs[0].iterdir() if path.is_file()} == before
