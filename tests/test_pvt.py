"""PVT and mismatch: the engine over dies, what a condition does to an edge, and the study of both."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from kcnet_eda import api
from kcnet_eda.cli.main import app
from kcnet_eda.dynamics.cell_dies import Departures, solve_die
from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.condition import Condition, EdgeShift
from kcnet_eda.physical.mos_cell import cell_edges
from kcnet_eda.study import dies
from kcnet_eda.study.conditions import inert_axes
from kcnet_eda.study.store import open_store

STUDY = """
network: digits_mos
pdk: generic180
corners: [tt, ss]
supplies: ["-10%", 3.3]
dies: 60
samples: 40
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "summary": {k: v for k, v in record["summary"].items() if k != "wall_s"}}


def test_one_edge_at_a_shifted_corner_decays_as_its_formula_says() -> None:
    # one conducting edge from node 1 to ground: dv/dτ = −(g·θ1·v + θ2')
    shift = EdgeShift((0.5, 1.0), (0.8, 0.9), (0.02, 0.0, 0.1), 0.0, 0.0, 0.0)
    theta1, theta2 = shift.at(np.array([[0.75]]), np.array([[0.3]]))
    assert theta1[0, 0] == pytest.approx(0.85 * 0.75)
    assert theta2[0, 0] == pytest.approx(0.3 + 0.02 + 0.03)
    ends = (np.array([1]), np.array([0]))
    v = evolve_dies(ends, theta1, theta2, np.array([[0.0, 1.0]]), 1.0, steps=20, dtype=np.float64)
    a, b = theta1[0, 0], theta2[0, 0]
    assert v[0, 1, 0] == pytest.approx((1 + b / a) * np.exp(-a) - b / a, abs=1e-8)
    assert v[0, 0, 0] == 0


def test_dies_are_those_of_the_plain_solver_and_the_same_in_any_number_of_threads() -> None:
    network = load_network(network_path("digits_mos"))
    (phase,) = network.phases
    cells = cell_edges(phase.edges)[0]
    theta1 = np.where(cells.swapped, -1, 1) * cells.theta1[cells.cell]
    theta2 = cells.theta2[cells.cell]
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 1, (5, network.inputs.size))
    many = theta1 * (1 + 0.03 * rng.standard_normal((7, len(cells))))
    many[0] = theta1
    args = ((cells.source, cells.target), many, np.tile(theta2, (7, 1)), network.initial_state(x), phase.duration)
    one, two = (evolve_dies(*args, steps=20, threads=threads) for threads in (1, 2))
    assert one.tobytes() == two.tobytes()
    plain, _ = solve_die(network, x, Departures(), np.random.default_rng(0), steps=200)
    assert np.abs(one[0].T - plain).max() < 2e-3 * np.ptp(plain)


def test_the_same_numbers_with_one_and_two_workers_and_common_dies(study: Path, tmp_path: Path) -> None:
    one, two = (api.study_pvt(study, tmp_path / f"run{n}", workers=n) for n in (1, 2))
    assert without_time(one) == without_time(two)
    assert (tmp_path / "run1/conditions.csv").read_bytes() == (tmp_path / "run2/conditions.csv").read_bytes()
    page = (tmp_path / "run1/report.html").read_text()
    assert "Yield against the accuracy" in page and "ss/typ 2.97 V" in page
    s = one["summary"]
    assert (s["conditions"], s["classifications"], s["kept"]) == (4, 4 * 60 * 40, True)
    assert s["worst"] in {row["condition"] for row in one["conditions"]}
    # a subset of the corners has the same dies, so the same numbers
    part = api.study_pvt(study, tmp_path / "part", corners=["s*"])
    assert part["conditions"] == [row for row in one["conditions"] if row["corner"] == "ss"]
    home = api.study_pvt(study, tmp_path / "mc", at_nominal=True)
    assert [row["accuracy"] for row in home["conditions"]] == [
        row["accuracy"] for row in one["conditions"] if (row["corner"], row["supply"]) == ("tt", 3.3)
    ]


def _slow_run(study: Path, out: Path) -> None:
    once = dies.evolve_dies

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.2)
        return once(*args, **options)

    dies.evolve_dies = slow
    api.study_pvt(study, out)


def test_a_killed_study_goes_on_and_ends_as_if_it_had_not_been(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole = api.study_pvt(study, tmp_path / "whole")
    out = tmp_path / "killed"
    child = multiprocessing.get_context("spawn").Process(target=_slow_run, args=(study, out))
    child.start()
    done, started = 0, time.monotonic()
    while done < 2:
        assert child.is_alive() and time.monotonic() - started < 60
        time.sleep(0.05)
        done = _finished(out)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    done, again = _finished(out), []
    assert done < 8
    real = dies.Cells.evolve
    monkeypatch.setattr(dies.Cells, "evolve", lambda *args: (again.append(1), real(*args))[1])
    assert without_time(api.study_pvt(study, out)) == without_time(whole)
    assert len(again) == 8 - done


def _finished(out: Path) -> int:
    if not (out / "study.sqlite").is_file():
        return 0
    with open_store(out / "study.sqlite") as store:
        rows = store._connection.execute("SELECT count(*) FROM runs WHERE status = 'passed'").fetchone()
    return int(rows[0])


def test_all_that_is_wrong_with_a_study_file_is_told_at_once(study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY.replace("dies: 60", "dies: 0").replace('"-10%"', "low") + "colour: red\n")
    with pytest.raises(InvalidInputError) as caught:
        api.study_pvt(study, tmp_path / "run")
    assert all(word in str(caught.value) for word in ("dies", "'low'", "colour"))
    study.write_text(STUDY.replace("[tt, ss]", "[tt, hot_*]"))
    with pytest.raises(InvalidInputError, match="hot_"):
        api.study_pvt(study, tmp_path / "run")
    study.write_text(STUDY + "mismatch: null\n")
    with pytest.raises(InvalidInputError, match="all dies are the same"):
        api.study_pvt(study, tmp_path / "run")
    study.write_text(STUDY.replace("digits_mos", "digits"))  # trained without the cell's range
    with pytest.raises(InvalidInputError, match="prune"):
        api.study_pvt(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_axis_that_changes_nothing_is_inert() -> None:
    hot, cold = (EdgeShift((0.5,), (gain,), (0.0, 0.0, 0.0), 0.0, 0.0, 0.0) for gain in (0.9, 1.1))
    conditions = [Condition("tt", "typ", v, t) for v in (3.0, 3.3) for t in (27.0, 125.0)]
    assert inert_axes(conditions, [cold, hot, cold, hot]) == ["supply"]
    assert inert_axes(conditions, [cold, hot, cold, cold]) == []


def test_a_missed_limit_is_exit_code_2(study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY + "limits: {accuracy: {minimum: 0.5, typical: 1.0}}\n")
    done = CliRunner().invoke(app, ["study", "mc", str(study), "--out", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert done.exit_code == 2, done.output
    assert "typical 1" in done.output and "MISSED" in done.output
    assert [limit["kept"] for limit in json.loads((tmp_path / "run/report.json").read_text())["limits"]] == [
        True,
        False,
    ]


def test_the_repeat_in_ngspice_agrees_and_finds_a_tampered_engine(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.write_text(STUDY + "repeat: 8\n")
    record = api.study_pvt(study, tmp_path / "run")
    check = record["check"]
    assert (check["cases"], check["agree"], check["failed"], check["kept"]) == (8, 8, 0, True)
    assert check["largest"] < 2e-3
    real = dies.evolve_dies
    monkeypatch.setattr(dies, "evolve_dies", lambda *args, **options: -real(*args, **options))
    record = api.study_pvt(study, tmp_path / "tampered")
    assert not record["check"]["kept"] and not record["summary"]["kept"]
    assert record["summary"]["yield_min"] is None and record["summary"]["accuracy_min"] is None
