"""Run folders of studies that lack something, or have something of another study: what the report says of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs_of_cells import make_cells

from kcnet_eda import api
from kcnet_eda.report.runs import read_run
from kcnet_eda.report.write import write_report
from kcnet_eda.study.latency import inference

_LATENCY = "network: {net}\ndata: {data}\ndecision: {{draws: 5}}\ninference: {{samples: {samples}, draws: 1}}\n"
_ADJOINT = "network: {net}\ndata: {data}\nsamples: 2\nsteps: [50, 100]\n"
_PVT = (
    "network: {net}\ndata: {data}\npdk: generic180\ncorners: [tt, ss]\ndies: 2\nmismatch: {{sigma_offset: 0.02}}\n"
    "repeat: 2\nchain: 2\n"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind of study, by its kind."""
    root = tmp_path_factory.mktemp("whole")
    net, data = make_cells(root)
    for kind, text in (("latency", _LATENCY), ("adjoint", _ADJOINT), ("pvt", _PVT)):
        (root / f"{kind}.yaml").write_text(text.format(net=net, data=data, samples=2))
    api.study_latency(root / "latency.yaml", root / "latency", jobs=1)
    api.study_adjoint(root / "adjoint.yaml", root / "adjoint")
    api.study_pvt(root / "pvt.yaml", root / "pvt")
    return {kind: root / kind for kind in ("latency", "adjoint", "pvt")}


def _with(path: Path, **changed: np.ndarray | None) -> None:
    """``outputs.npz`` of a run with arrays changed, or without them."""
    with np.load(path / "outputs.npz") as archive:
        arrays = dict(archive) | changed
    np.savez(path / "outputs.npz", **{name: array for name, array in arrays.items() if array is not None})


def _spoilt(name: str, value: float = np.nan) -> Callable[[Path], None]:
    """Damage: the first number of an array is another."""

    def damage(path: Path) -> None:
        with np.load(path / "outputs.npz") as archive:
            array = archive[name].astype(float)
        array.flat[0] = value
        _with(path, **{name: array})

    return damage


def _without(*names: str) -> Callable[[Path], None]:
    return lambda path: _with(path, **dict.fromkeys(names))


def _shorter(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path / "outputs.npz") as archive:
            array = archive[name]
        _with(path, **{name: array[..., :-1]})

    return damage


def _sql(text: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path / "study.sqlite") as store:
            assert store.execute(text).rowcount

    return damage


@pytest.mark.parametrize(
    ("kind", "damage", "said"),
    [
        ("latency", _without("inference_time", "inference_volts"), "lacks inference_time, inference_volts"),
        ("latency", _without("x0"), "outputs.npz lacks x0"),
        ("latency", _spoilt("inference_volts"), "has inference_volts that are not finite"),
        ("latency", _spoilt("inference_time", np.inf), "has inference_time that are not finite"),
        ("latency", _spoilt("v_end_software"), "has v_end_software that are not finite"),
        ("latency", _shorter("inference_volts"), "is not of this run: inference_volts is ("),
        ("latency", _shorter("index"), "is not of this run: index is (5,), not (6,)"),
        (
            "latency",
            _sql("DELETE FROM runs WHERE variant LIKE 'infer%'"),
            "study.sqlite lacks 2 of 15 runs that report.json names, the first in sections.inference.samples",
        ),
        ("latency", _sql("DELETE FROM runs WHERE variant = 'decision' AND sample = 1"), "lacks 1 of 15 runs"),
        ("latency", _sql("UPDATE runs SET v_end = NULL WHERE variant = 'inference'"), "has lost the numbers of 2 runs"),
        ("adjoint", _without("of_edges"), "outputs.npz lacks of_edges"),
        ("adjoint", _spoilt("of_v0"), "has of_v0 that are not finite"),
        ("adjoint", _shorter("of_edges_software"), "is not of this run: of_edges_software is (2, 4, 2), not (2, 4, 3)"),
        ("adjoint", _sql("DELETE FROM runs WHERE variant = 'adjoint_50' AND sample = 0"), "has 1 of the 2 runs"),
        ("pvt", _without("right"), "outputs.npz lacks right"),
        ("pvt", _without("y"), "outputs.npz lacks y"),
        ("pvt", _spoilt("right"), "has right that are not finite"),
        ("pvt", _spoilt("margin"), "has margin that are not finite"),
        ("pvt", _spoilt("v_end_worst"), "has v_end_worst that are not finite"),
        ("pvt", _shorter("agree"), "is not of this run: agree is (2, 1), not (2, 2)"),
        ("pvt", _sql("DELETE FROM runs WHERE variant = 'block'"), "lacks 2 of 8 runs that it had planned"),
        ("pvt", _sql("UPDATE runs SET v_end = NULL WHERE variant = 'worst'"), "has lost the numbers of 2 runs"),
    ],
)
def test_what_a_study_lost_is_said_first(runs, tmp_path, kind, damage, said):
    run = tmp_path / "run"
    shutil.copytree(runs[kind], run)
    damage(run)
    page, record = write_report(run, tmp_path / "page.html")
    assert record is not None and record["summary"]["unreadable_runs"] == ["run"]
    (problem,) = record["runs"][0]["failures"]  # one sentence, and nothing that follows from it
    assert said in problem
    assert said in page.read_text().partition('<div class="tiles">')[0]


def test_whole_runs_are_whole(runs):
    for path in runs.values():
        run = read_run(path, path.name)
        assert run.problems == () and list(run.statuses) == ["passed"]


def test_a_lead_of_minus_infinity_is_a_finding(runs, tmp_path):
    shutil.copytree(runs["pvt"], tmp_path / "run")
    _spoilt("margin", -np.inf)(tmp_path / "run")
    assert read_run(tmp_path / "run", "run").problems == ()


def test_runs_of_an_interrupted_study_with_other_settings_are_not_counted(tmp_path, monkeypatch):
    """Three whole inferences are planned, and the second is interrupted; then one alone is asked for."""
    net, data = make_cells(tmp_path)
    file, out = tmp_path / "latency.yaml", tmp_path / "run"
    text = "network: {net}\ndata: {data}\ninference: {{samples: {samples}, draws: 1, capacitances: [1f]}}\n"
    file.write_text(text.format(net=net, data=data, samples=3))
    measured, calls = inference._measure, []

    def interrupted(*words):
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*words)

    with monkeypatch.context() as patch:
        patch.setattr(inference, "_measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.study_latency(file, out, jobs=1)
    assert "did not end" in " ".join(read_run(out, "run").problems)
    assert read_run(out, "run").statuses["planned"] == 2
    file.write_text(text.format(net=net, data=data, samples=1))
    api.study_latency(file, out, jobs=1)
    run = read_run(out, "run")
    assert run.problems == () and list(run.statuses) == ["passed"]
    with sqlite3.connect(out / "study.sqlite") as store:
        assert dict(store.execute("SELECT status, count(*) FROM runs GROUP BY status"))["planned"] == 2
    # What failed of this study is still counted: the record names its key.
    sample = json.loads((out / "report.json").read_text())["sections"]["inference"]["samples"][0]
    with sqlite3.connect(out / "study.sqlite") as store:
        store.execute("UPDATE runs SET status = 'timed_out' WHERE key = ?", (sample["key"],))
    assert read_run(out, "run").statuses["timed_out"] == 1
