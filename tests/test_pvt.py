"""PVT and mismatch: the engine over dies, what a condition does to an edge, and the study of both."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sqlite3
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_network
from scipy.linalg import expm
from typer.testing import CliRunner

from kcnet_eda import api
from kcnet_eda.cli.main import app
from kcnet_eda.dynamics.cell_dies import Departures, solve_die
from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.dynamics.edge_law import eq6_edges
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import resource_dir
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import load_network, network_path, save_network
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.mos_cell import cell_edges
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.progress import NoProgress
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.study.pvt import dies, site
from kcnet_eda.study.pvt import repeat as pvt_repeat
from kcnet_eda.study.pvt.conditions import Point, inert_axes, nominal
from kcnet_eda.study.pvt.record import worst_of
from kcnet_eda.study.pvt.spread import kit_spread
from kcnet_eda.study.store import open_store
from kcnet_eda.tools.pdk import prepare

STUDY = """
network: digits_mos
pdk: generic180
corners: [tt, ss]
supplies: ["-10%", 3.3]
dies: 60
samples: 40
mismatch: {sigma_gain: 0.05, sigma_offset: 0.025, sigma_ratio: 0.1, bias_offset: 0.008}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "summary": {k: v for k, v in record["summary"].items() if k != "wall_s"}}


def test_one_edge_with_a_lag_decays_as_its_formula_says() -> None:
    # one conducting edge from node 1 to ground: dv/dτ = F, lag·dF/dτ = −(g·θ1·v + θ2') − F, settled at first
    model = EdgeModel((0.5, 1.0), (0.8, 0.9), (0.02, 0.0, 0.1), lag=6e-9)
    edges = model.edges(np.array([0.75]), np.array([0.3]), np.array([3.0]), 300e-9)
    a, b, lag = 0.85 * 0.75, 0.3 + 0.02 + 0.03, 0.02
    assert (edges.theta1[0], edges.theta2[0], edges.lag) == pytest.approx((a, b, lag))
    edges = replace(edges, theta1=edges.theta1[None], theta2=edges.theta2[None], ratio=edges.ratio[None])
    ends = (np.array([1]), np.array([0]))
    matrix = np.array([[0.0, 1.0, 0.0], [-a / lag, -1 / lag, -b / lag], [0.0, 0.0, 0.0]])
    exact = (expm(matrix) @ [1.0, -a - b, 1.0])[0]
    errors = []
    for steps in (10, 20):
        v = evolve_dies(ends, edges, np.array([[0.0, 1.0]]), 1.0, steps=steps, dtype=np.float64)
        assert v[0, 0, 0] == 0
        errors.append(abs(v[0, 1, 0] - exact))
    # the rule's order shows where the step is near the lag; at 2.5 and 5 lags a step it is at least 2
    assert errors[0] < 1e-4 and errors[1] < errors[0] / 4
    plain = evolve_dies(ends, replace(edges, lag=0.0), np.array([[0.0, 1.0]]), 1.0, steps=20, dtype=np.float64)
    assert plain[0, 1, 0] == pytest.approx((1 + b / a) * np.exp(-a) - b / a, abs=1e-8)


def test_dies_are_those_of_the_plain_solver_and_the_same_in_any_number_of_threads() -> None:
    network = load_network(network_path("digits_mos"))
    (phase,) = network.phases
    cells = cell_edges(phase.edges)[0]
    theta1 = cells.theta1[cells.cell]
    theta2 = cells.theta2[cells.cell]
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 1, (5, network.inputs.size))
    many = theta1 * (1 + 0.03 * rng.standard_normal((7, len(cells))))
    many[0] = theta1
    edges = eq6_edges(many, np.tile(theta2, (7, 1)))
    ends, x0 = (cells.source, cells.target), network.initial_state(x)
    one, two = (evolve_dies(ends, edges, x0, phase.duration, steps=20, threads=threads) for threads in (1, 2))
    assert one.tobytes() == two.tobytes()
    plain, _ = solve_die(network, x, Departures(), np.random.default_rng(0), steps=200)
    assert np.abs(one[0].T - plain).max() < 2e-3 * np.ptp(plain)
    # corner, leakage and lag, against a solver that keeps a state for each edge
    every = np.ones(len(cells))
    edges = replace(eq6_edges(theta1[None], theta2[None]), rounding=0.1 * every, leakage=0.01 * every, lag=0.02)
    wanted, _ = solve_die(network, x, Departures(0.1, leakage=0.01, lag=0.02), np.random.default_rng(0), steps=400)
    found = evolve_dies(ends, edges, x0, phase.duration, steps=15)[0].T
    assert np.abs(found - wanted).max() < 2e-3 * np.ptp(wanted)


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
    real = dies.Dies.evolve
    monkeypatch.setattr(dies.Dies, "evolve", lambda *args: (again.append(1), real(*args))[1])
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
    study.write_text(re.sub("mismatch: .*", "mismatch: null", STUDY))
    with pytest.raises(InvalidInputError, match="all dies are the same"):
        api.study_pvt(study, tmp_path / "run")
    study.write_text(STUDY.replace("digits_mos", "digits"))  # trained without the cell's range
    with pytest.raises(InvalidInputError, match="prune"):
        api.study_pvt(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_no_condition_and_no_value_can_be_is_told(study: Path, tmp_path: Path) -> None:
    study.write_text(
        STUDY + "temperatures: [27, -300]\n"
        "limits: {accuracy: {minimum: 0.9, maximum: 0.5}, energy: {minimum: 2n, maximum: 1n}, yeild: {minimum: 1}}\n"
    )
    with pytest.raises(InvalidInputError) as caught:
        api.study_pvt(study, tmp_path / "run")
    told = str(caught.value)
    assert "-300 °C is not above absolute zero" in told
    assert "the minimum 0.9 is above the maximum 0.5" in told and "minimum 2e-09 is above the maximum 1e-09" in told
    assert "known here: die_accuracy, accuracy, yield, agreement" in told  # as it is written in the file


def test_rows_damaged_in_the_store_are_run_again(study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY.replace("dies: 60", "dies: 3"))
    out = tmp_path / "run"
    whole = api.study_pvt(study, out)
    for damage in ("v_end = NULL", "v_end = x'00'", "status = 'nonsense'"):
        connection = sqlite3.connect(out / "study.sqlite")
        with connection:
            connection.execute(f"UPDATE runs SET {damage}")
        connection.close()
        again = api.study_pvt(study, out)
        assert again["conditions"] == whole["conditions"] and again["failures"] == []


def test_corners_may_be_named_with_spaces_after_the_commas(study: Path, tmp_path: Path) -> None:
    study.write_text(STUDY.replace("dies: 60", "dies: 3"))
    words = ["study", "pvt", str(study), "--out", str(tmp_path / "run"), "--corners", "s*, tt"]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "run/report.json").read_text())
    assert {row["corner"] for row in found["conditions"]} == {"tt", "ss"}
    page = (tmp_path / "run/report.html").read_text()
    low, high = (f"{100 * end:.2f} %" for end in found["summary"]["yield_everywhere_interval"])
    assert f"95 %: {low} to {high}" in page  # the headline stands with its interval


def test_a_kits_own_mismatch_is_what_its_devices_make_by_hand() -> None:
    kit = load_pdk("generic180")
    rig = size_cells(Bench(kit, prepare(kit)))
    found = kit_spread(rig, NoProgress())
    # θ1's is the copy by two mirror transistors of a unit: σ(Vt) = 6 mV µm, σ(β) = 1 % µm (generic180.lib), at the
    # gm/I_D of full current. At less current that is larger, and resistor and pair add a little: a quarter at most.
    mirror = rig.design.mirror
    copy = np.sqrt(2 * ((kit.operating.gm_id.mirror * 6e-3) ** 2 + 0.01**2) / (mirror.w * mirror.l))
    assert found.sigma_gain == pytest.approx(copy, rel=0.25)
    assert found.sigma_ratio > copy  # two more transistors of the sink
    assert found.dies == 32 and kit_spread(rig, NoProgress()) == found


def test_a_kit_without_statistics_is_told(study: Path, tmp_path: Path) -> None:
    shipped = resource_dir("pdk_examples")
    text = re.sub(r"(?m)^mismatch:\n( .*\n)*", "", (shipped / "generic180.yaml").read_text())
    bare = tmp_path / "bare.yaml"
    bare.write_text(text.replace("path: generic180 ", f"path: {shipped / 'generic180'} "))
    study.write_text(re.sub("mismatch: .*", "mismatch: kit", STUDY).replace("generic180", str(bare)))
    with pytest.raises(InvalidInputError, match="no key 'mismatch'"):
        api.study_pvt(study, tmp_path / "run")


def test_an_axis_that_changes_nothing_is_inert() -> None:
    # points × dies; a margin differs by rounding where nothing changes, and tells of what no count does
    axes = {"supply": (3.0, 3.3), "temperature": (27.0, 125.0), "write_error": (0.0, 1e-3), "jitter": (0.0, 1e-9)}
    points = [Point("tt", "typ", *of) for of in product(*axes.values())]
    die = np.array([0.3, 0.4])
    for axis, values in axes.items():
        moved = np.array([[getattr(point, axis) == values[1]] for point in points])
        others = sorted(set(axes) - {axis}, key=list(axes).index)
        for counts, margins in ((90 - moved - 0 * die, 1e-7 * moved + 0.5 + die), (90 + 0 * moved * die, moved + die)):
            assert inert_axes(points, counts[None], margins) == others
    assert inert_axes(points, np.ones((1, 16, 2)), np.full((16, 2), -np.inf)) == [*axes, "dies"]


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
    assert (check["level"], check["cases"], check["agree"], check["failed"], check["kept"]) == (
        "behavioral", 8, 8, 0, True,
    )  # fmt: skip
    # 15 steps of the engine are within 1e-3 of the range, and so is ngspice's rule at 200 steps
    assert check["largest"] < 2e-3 and record["check_mos"] is None
    real = dies.evolve_dies
    monkeypatch.setattr(dies, "evolve_dies", lambda *args, **options: -real(*args, **options))
    record = api.study_pvt(study, tmp_path / "tampered")
    assert not record["check"]["kept"] and not record["summary"]["kept"]
    assert record["summary"]["yield_min"] is None and record["summary"]["accuracy_min"] is None
    # Nothing was asked for, so nothing is said to be missed; where something was, how much of it was kept.
    page = (tmp_path / "tampered/report.html").read_text()
    assert '<b>none asked for</b><span class="bad"> the engine is not to be believed here' in page
    assert "asked for</b></div>" in (tmp_path / "run/report.html").read_text()


def test_a_repeat_is_run_again_where_the_device_or_its_compiler_changed(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.write_text(STUDY + "repeat: 2\n")
    out, ran = tmp_path / "run", []
    real = site.run_campaign
    monkeypatch.setattr(
        site,
        "run_campaign",
        lambda farm, work, of_all, due, done: (ran.extend(due), real(farm, work, of_all, due, done)),
    )
    api.study_pvt(study, out)
    api.study_pvt(study, out)
    assert len(ran) == 2
    monkeypatch.setattr(pvt_repeat, "version", lambda compiler: "another openvaf")
    api.study_pvt(study, out)
    assert len(ran) == 4
    other = tmp_path / "kc_cal_relu.va"
    other.write_text(pvt_repeat.shipped("kc_cal_relu").read_text() + "// changed\n")
    monkeypatch.setattr(pvt_repeat, "shipped", lambda module: other)
    api.study_pvt(study, out)
    assert len(ran) == 6


def test_cases_repeated_in_transistors_are_of_the_nominal_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One node that an edge discharges through transistors at a corner, against the calibrated edge there."""
    network = make_network([(1, 2, 1.0, -1.0, 0.25, 1.0, RELU)], 3, 1.0, examples=[[1.0, -0.5]])
    save_network(network, tmp_path / "net.kcnet")
    np.savez(tmp_path / "data.npz", x=np.array([[1.0, -0.5], [0.5, -1.0], [-1.0, 1.0]]), y=np.array([0, 0, 1]))
    file = tmp_path / "study.yaml"
    file.write_text(
        f"network: {tmp_path / 'net.kcnet'}\ndata: {tmp_path / 'data.npz'}\npdk: generic180\ncorners: [ff]\n"
        "temperatures: [125]\nt_unit: 1u\ndies: 3\nrepeat_mos: 3\nmismatch: {sigma_offset: 0.5}\n"
    )
    record = api.study_pvt(file, tmp_path / "run")
    check = record["check_mos"]
    assert (check["level"], check["cases"], check["agree"], check["kept"]) == ("mos", 3, 3, True)
    # the model's error of full scale, some 2 % of up to 2.25 I_u on both nodes over T, of a range of 2.5 V_u
    assert check["largest"] < 0.05
    calibration = json.loads((tmp_path / "run/calibration.json").read_text())
    (row,) = calibration["conditions"]
    assert row["edges"]["error"]["largest"] < row["edges"]["plain_error"]["largest"] < row["edges"]["departure"]
    monkeypatch.setattr(site, "run_campaign", lambda *args: args[3] and pytest.fail("a finished case was run again"))
    assert api.study_pvt(file, tmp_path / "run")["check_mos"] == check


def test_the_worst_condition_is_of_least_yield_then_accuracy_then_margin() -> None:
    def row(*numbers: float | None, temperature: float = 27.0) -> dict[str, Any]:
        condition = {"corner": "tt", "resistor": "typ", "supply": 3.3, "temperature": temperature}
        return condition | dict(zip(("yield", "accuracy", "margin_v"), numbers, strict=True))

    rows = [row(0.5, 0.9, 0.1), row(0.5, 0.8, 0.1), row(0.5, 0.8, 0.05), row(0.6, 0.7, 0.0, temperature=125.0)]
    home = Condition("tt", "typ", 3.3, 27.0)
    assert worst_of(rows) == 2 and worst_of([*rows, row(0.5, 0.8, None)]) == 4
    assert worst_of(rows, home) == 3 and worst_of(rows[:3], home) is None


def test_samples_of_the_chain_are_of_the_die_without_mismatch(tmp_path: Path) -> None:
    """As above; the calibrated edge at the kit's own condition against the closed form of its own parameters."""
    network = make_network([(1, 2, 1.0, -1.0, 0.25, 1.0, RELU)], 3, 1.0, examples=[[1.0, -0.5]])
    save_network(network, tmp_path / "net.kcnet")
    x = np.array([[1.0, -0.5], [0.5, -1.0], [-1.0, 1.0]])
    np.savez(tmp_path / "data.npz", x=x, y=np.array([0, 0, 1]))
    file = tmp_path / "study.yaml"
    file.write_text(
        f"network: {tmp_path / 'net.kcnet'}\ndata: {tmp_path / 'data.npz'}\npdk: generic180\ncorners: [tt, ff]\n"
        "temperatures: [27, 125]\nt_unit: 1u\ndies: 3\nrepeat_mos: 12\nchain: 2\nmismatch: {sigma_offset: 0.5}\n"
    )
    record = api.study_pvt(file, tmp_path / "run")
    chain, rows = record["chain"], record["conditions"]
    for step in chain.values():
        assert (step["check"]["cases"], step["check"]["failed"], step["check"]["kept"]) == (2, 0, True)
    home, worst = (next(i for i, row in enumerate(rows) if row["condition"] == chain[of]["condition"]) for of in chain)
    assert rows[home]["condition"] == "tt/typ 3.3 V 27 °C" and worst == worst_of(rows, nominal(load_pdk("generic180")))
    # The same cells: what they take changes as that of the cells measured does.
    change = chain["worst"]["energy_j"] / chain["calibrated"]["energy_j"]
    assert change == pytest.approx(rows[worst]["energy_j"] / rows[home]["energy_j"], rel=1e-12)
    alone = api.study_pvt(file, tmp_path / "mc", at_nominal=True)["chain"]
    assert list(alone) == ["calibrated"]  # a study of the kit's own condition knows no corner
    with np.load(tmp_path / "run/outputs.npz") as archive:
        a = dict(archive)
    assert np.array_equal(a["index"], [0, 1]) and np.array_equal(a["x0"][:, 1:], x[:2])
    # In transistors there is one deck of a sample at a condition.
    same = [int(np.flatnonzero((a["case_mos"] == (worst, -1, i)).all(axis=1))[0]) for i in (0, 1)]
    assert np.array_equal(a["v_end_worst"], a["case_mos_v_end"][same])
    # Conducting all the time, an edge of slope θ1 between two capacitors moves both ends by what exp(-2·θ1·t) says of
    # its current; the step is 1/200 of T, and the rest (lag, compression, common mode) is of the fit: 2 % of 2 I_u.
    current = x[:2, 0] - x[:2, 1] + 0.25
    moved = current * (1 - np.exp(-2.0)) / 2
    assert np.abs(a["v_end_calibrated"][:, 2] - (x[:2, 1] + moved)).max() < 0.04
    assert (
        np.abs(a["v_end_worst"] - a["v_end_software"]).max() > np.abs(a["v_end_calibrated"] - a["v_end_software"]).max()
    )
    with sqlite3.connect(tmp_path / "run/study.sqlite") as store:
        rows = store.execute(
            "SELECT variant, condition, dies FROM plan JOIN runs USING (key) WHERE variant IN ('calibrated', 'worst')"
        )
        assert {tuple(row) for row in rows} == {
            ("calibrated", chain["calibrated"]["condition"], "nominal"),
            ("worst", chain["worst"]["condition"], "nominal"),
        }
