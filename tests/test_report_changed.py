"""Samples whose label a study's chain changes: their waveforms are kept, and the report shows them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_network

from kcnet_eda import api
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import save_network
from kcnet_eda.report.write import write_report
from kcnet_eda.study.store import read_store

_STUDY = (
    "network: {net}\ndata: {data}\npdk: generic180\ncorners: [tt, ff]\nt_unit: 1u\ndies: 2\n"
    "mismatch: {{sigma_offset: 0.05}}\nchain: 4\n"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edge of slope 1 and offset 0.25 that conducts all the time takes the difference d of its ends to
    (d + 0.25)·exp(-2) - 0.25 in T: samples about its zero have outputs so close that calibrated edges and transistors
    change the label of some."""
    root = tmp_path_factory.mktemp("changed")
    net, data = root / "net.kcnet", root / "data.npz"
    rows = [(1, 2, 1.0, -1.0, 0.25, 1.0, RELU)]
    save_network(make_network(rows, 5, readout=[1, 2], examples=[[1.0, -0.5, 0.0, 0.0]]), net)
    d = 0.25 * (np.exp(2) - 1) + np.array([-0.05, -0.01, 0.01, 0.05])
    np.savez(data, x=np.stack([d / 2, -d / 2, 0 * d - 0.9, 0 * d - 0.9], axis=1), y=np.zeros(4, int))
    (root / "study.yaml").write_text(_STUDY.format(net=net, data=data))
    api.study_pvt(root / "study.yaml", root / "run")
    return root / "run"


def _arrays(run: Path) -> dict[str, Any]:
    with np.load(run / "outputs.npz") as archive:
        return dict(archive)


def _changed(arrays: dict[str, Any], part: str) -> list[int]:
    outputs = slice(1, 3)
    own, software = (arrays[name][:, outputs].argmax(axis=1) for name in (f"v_end_{part}", "v_end_software"))
    return np.flatnonzero(own != software).tolist()


def test_the_store_keeps_the_waveforms_of_changed_labels(run):
    record, arrays = json.loads((run / "report.json").read_text()), _arrays(run)
    v_cm, v_unit, t_unit = (record["scaling"][name] for name in ("v_cm", "v_unit", "t_unit"))
    for part, step in record["chain"].items():
        rows = _changed(arrays, part)
        assert rows and step["changed"]["count"] == len(rows)
        assert [entry["position"] for entry in step["changed"]["shown"]] == rows
        for entry in step["changed"]["shown"]:
            with read_store(run / "study.sqlite") as store:
                result = store.result(entry["key"])
            time_s, volts = result.waveform
            assert time_s[0] == 0 and time_s[-1] == pytest.approx(t_unit, rel=1e-12) and volts.shape == (101, 2)
            # The simulator's run is the same again, to the bit of its raw file.
            end = v_cm + v_unit * arrays[f"v_end_{part}"][entry["position"], 1:3]
            assert volts[-1] == pytest.approx(end, abs=1e-9)
            # ngspice's first point lies a small step after 0; a node moves by 2 V_u in T at most.
            start = v_cm + v_unit * arrays["x0"][entry["position"], 1:3]
            assert volts[0] == pytest.approx(start, abs=0.02 * v_unit)
            lead = volts.argmax(axis=1) == volts[-1].argmax()
            after = time_s >= result.decision_s
            assert lead[after].all() and not lead[~after][-1:].any()


def test_each_page_shows_them_with_image_and_waveforms(run, tmp_path):
    """The image is of 2 x 2 pixels, as the record says it."""
    shown = tmp_path / "run"
    shutil.copytree(run, shown)
    record, arrays = json.loads((shown / "report.json").read_text()), _arrays(shown)
    record["data_grid"] = [2, 2]
    (shown / "report.json").write_text(json.dumps(record))
    alone, none = write_report(shown, tmp_path / "alone.html")
    both, combined = write_report([shown, run], tmp_path / "both.html")
    assert none is None and combined is not None
    for part, name in (("calibrated", "calibrated edges"), ("worst", "transistors")):
        title = f"{name} at {record['chain'][part]['condition']}"
        rows, index = _changed(arrays, part), arrays["index"]
        (told,) = [
            row for row in combined["changed"] if row["in"] == title and row["run"] == combined["runs"][0]["name"]
        ]
        assert [s["sample"] for s in told["samples"]] == index[rows].tolist() and told["n"] == 4
        assert [s["waveform_key"] for s in told["samples"]] == [
            e["key"] for e in record["chain"][part]["changed"]["shown"]
        ]
        for page, prefix in ((alone, ""), (both, "run0-")):
            html = page.read_text()
            assert title in html
            for i, row in enumerate(rows):
                assert f'id="{prefix}changed-{name.split()[0]}-{row}"' in html
                software, circuit = told["samples"][i]["software"], told["samples"][i]["circuit"]
                assert f"sample {index[row]}: software {software}, circuit {circuit}, labelled 0" in html
    count = sum(len(_changed(arrays, part)) for part in record["chain"])
    assert alone.read_text().count('<table class="digit"') == both.read_text().count('<table class="digit"') == count
    assert combined["summary"]["unreadable_runs"] == []


def test_of_an_older_run_it_is_said_that_none_were_kept(run, tmp_path):
    old = tmp_path / "run"
    shutil.copytree(run, old)
    record = json.loads((old / "report.json").read_text())
    for name in ("scaling", "data_grid"):
        del record[name]
    for step in record["chain"].values():
        del step["changed"]
    (old / "report.json").write_text(json.dumps(record))
    page, _ = write_report(old, tmp_path / "page.html")
    html = page.read_text()
    row = _changed(_arrays(old), "worst")[0]
    assert f"sample {row}: software" in html and html.count("were not kept") == sum(
        len(_changed(_arrays(old), part)) for part in record["chain"]
    )


def test_a_store_without_them_runs_them_alone_again(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    with sqlite3.connect(again / "study.sqlite") as store:
        kept = [key for (key,) in store.execute("SELECT key FROM runs WHERE waveform IS NOT NULL")]
        for table in ("runs", "plan"):
            store.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in kept])
        store.execute("UPDATE runs SET wall_s = 12345.0")  # what is run again has another
    api.study_pvt(run.parent / "study.yaml", again)
    with sqlite3.connect(again / "study.sqlite") as store:
        ran = [key for (key,) in store.execute("SELECT key FROM runs WHERE wall_s != 12345.0")]
        assert sorted(ran) == sorted(kept)
