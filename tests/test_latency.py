"""The latency study: read-out times, the comparator tree and laws in closed form; its circuits against theirs."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import decaying, make_network, repeating, repeating_solution
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_of_cells import published
from scipy.stats import norm
from typer.testing import CliRunner

from kcnet_eda import api
from kcnet_eda.cli.main import app
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.inference import comparator_tree, decode
from kcnet_eda.network.laws import IDENTITY, RELU
from kcnet_eda.network.store import save_network
from kcnet_eda.network.topology import grid_window
from kcnet_eda.physical.thermal import ktc_noise
from kcnet_eda.study.accuracy import decision_time
from kcnet_eda.study.latency import scaling as latency_scaling
from kcnet_eda.study.latency import written
from kcnet_eda.study.latency.pareto import not_dominated
from kcnet_eda.study.latency.power_law import fit_power_law
from kcnet_eda.study.latency.record import TABLES
from kcnet_eda.study.latency.size import grid_network
from kcnet_eda.study.readout import Reading, lost_to_jitter, right_at, tolerated_jitter, tolerated_shift
from kcnet_eda.study.store import Result, Status, open_store

G = 1.5  # of the conductance between nodes 1 and 2, model units


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study file's head: a conductance between nodes 1 and 2, an Eq. (6) edge from 3 to ground; six samples."""
    rows = [(1, 2, G, -G, 0.0, 1.0, IDENTITY), (3, 0, 0.7, -0.7, 0.0, 1.0, RELU)]
    network = make_network(rows, 4, examples=[[1.0, -0.5, 0.8]])
    save_network(network, tmp_path / "small.kcnet")
    x = np.array([[1.0, 0.0, 0.2], [0.1, 0.9, 0.3], [0.2, 0.1, 1.0], [0.9, 0.3, 0.5], [0.0, 0.2, 0.9], [0.3, 0.8, 0.1]])
    np.savez(tmp_path / "data.npz", x=x, y=x.argmax(axis=1))
    file = tmp_path / "study.yaml"
    file.write_text(f"network: {tmp_path / 'small.kcnet'}\ndata: {tmp_path / 'data.npz'}\n")
    return file


def ask(file: Path, more: str) -> Path:
    """The study file with further lines, as another file."""
    new = file.with_name(f"study{len(more)}.yaml")
    new.write_text(file.read_text() + more)
    return new


def small_solution(x: np.ndarray) -> np.ndarray:
    """[v1, v2, v3] of the small network at τ = 1: a difference that decays, a sum that stays, and a decay."""
    mean, half = (x[0] + x[1]) / 2, (x[0] - x[1]) / 2 * math.exp(-2 * G)
    return np.array([mean + half, mean - half, x[2] * math.exp(-0.7)])


# Read-out: two outputs whose difference is a straight line


def crossing(lead: float, slope: float = 1.0) -> Reading:
    """Output 0 leads by ``lead`` at T = 1 and the lead grows by ``slope`` a second: it began at 1 - lead/slope."""
    t = np.linspace(0, 1.5, 31)
    gap = lead + slope * (t - 1)
    return Reading(t, np.stack([gap, np.zeros_like(t)], axis=1), 1.0)


def test_when_a_label_began_and_when_it_ends_is_where_the_lines_cross() -> None:
    rising, falling = crossing(0.3), crossing(0.2, slope=-1.0)
    assert rising.label == falling.label == 0
    assert rising.decided == pytest.approx(0.7) and rising.leaves == 1.5  # the waveform's end: nobody has looked on
    assert falling.decided == 0.0 and falling.leaves == pytest.approx(1.2)
    assert rising.margin == pytest.approx(0.3) and rising.slope == pytest.approx(1.0)
    assert falling.slope == pytest.approx(-1.0)
    hits = right_at([rising, falling], np.array([0, 0]), np.array([0.65, 0.75, 1.0, 1.25]))
    assert hits.tolist() == [1, 2, 2, 1]


def test_the_clock_error_tolerated_is_the_first_room_that_may_not_be_lost() -> None:
    room, right = np.array([0.4, 0.1, 0.3, 0.2]), np.array([True, True, True, False])
    assert tolerated_shift(room, right, 4, 0.1) == 0.1
    assert tolerated_shift(room, right, 4, 25.0) == 0.3  # one of four may go; the wrong one is not lost
    assert tolerated_shift(room, right, 4, 75.0) == math.inf


def test_jitter_loses_what_the_normal_distribution_says() -> None:
    rng = np.random.default_rng(0)
    early, late = rng.uniform(0.05, 1, (2, 40))
    right = np.arange(40) % 4 != 0
    z = rng.standard_normal((4000, 40))
    sigma = 0.2
    each = norm.cdf(-early / sigma) + norm.cdf(-late / sigma)
    expected = each[right].sum() / 40
    # The mean of 4000 draws of 30 independent readings: four standard deviations of it.
    spread = 4 * math.sqrt((each * (1 - each))[right].sum()) / 40 / math.sqrt(4000)
    assert lost_to_jitter(early, late, right, 40, sigma, z) == pytest.approx(expected, abs=spread)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 0.5))
def test_twice_the_jitter_never_loses_less_and_a_larger_loss_never_tolerates_less(seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    early, late = rng.uniform(0, 1, (2, 12))
    right, z = rng.random(12) < 0.8, rng.standard_normal((50, 12))
    lost = [lost_to_jitter(early, late, right, 12, s, z) for s in (sigma, 2 * sigma)]
    assert lost[0] <= lost[1]
    tolerated = [tolerated_jitter(early, late, right, 12, loss, z, 2.0) for loss in (0.1, 1.0, 5.0)]
    assert tolerated == sorted(tolerated)
    assert lost_to_jitter(early, late, right, 12, tolerated[1], z) <= 0.01


# The comparator tree, laws, fronts


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=17, unique=True))
def test_the_tree_finds_the_highest_of_any_number_of_voltages(volts: list[float]) -> None:
    nets = [f"h{i}" for i in range(len(volts))]
    levels = comparator_tree(nets)
    assert sum(map(len, levels)) == len(volts) - 1 and len(levels) == math.ceil(math.log2(len(volts)))
    level, decisions = dict(zip(nets, volts, strict=True)), {}
    for cell in (cell for cells in levels for cell in cells):
        level[cell.high] = max(level[cell.a], level[cell.b])
        decisions[cell.decision] = np.array([level[cell.a] - level[cell.b]])
    assert decode(levels, nets, decisions)[0] == int(np.argmax(volts))


def test_a_tree_that_has_not_decided_names_no_label() -> None:
    levels = comparator_tree(["a", "b", "c"])
    decisions = {cell.decision: np.array([0.0, 1.0, -1.0]) for cells in levels for cell in cells}
    assert decode(levels, ["a", "b", "c"], decisions).tolist() == [-1, 0, 2]


def test_a_power_law_is_found_with_its_interval() -> None:
    x = [1.0, 10.0, 100.0, 1000.0]
    exact = fit_power_law(x, [3 * v**1.5 for v in x])
    assert exact is not None and exact.exponent == pytest.approx(1.5) and exact.factor == pytest.approx(3)
    assert exact.interval == pytest.approx((1.5, 1.5))
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = fit_power_law(x, [v**0.7 * math.exp(0.1 * rng.standard_normal()) for v in x])
        assert found is not None and found.interval is not None
        held += found.interval[0] <= 0.7 <= found.interval[1]
    assert abs(held / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)
    assert fit_power_law([1.0, 1.0], [1.0, 2.0]) is None and fit_power_law([1.0, 2.0], [0.0, 1.0]) is None


def test_the_pareto_front() -> None:
    assert not_dominated([(1, 4), (2, 2), (3, 3), (2, 2), (4, 1)]) == [True, True, False, True, True]


def test_ktc_noise_of_a_picofarad_is_64_microvolts() -> None:
    assert ktc_noise(1e-12, 27.0) == pytest.approx(64.4e-6, rel=1e-3)
    assert ktc_noise(0.25e-12, 27.0) == pytest.approx(2 * ktc_noise(1e-12, 27.0))


def test_the_family_has_the_edges_that_were_asked_for_and_one_t() -> None:
    for asked in (300, 3000, 50_000):
        network = grid_network(asked, 0)
        side = math.isqrt(network.max_nodes - 1)
        assert network.n_edges == 4 * grid_window(side, side, 5)[0].size
        assert network.n_edges == pytest.approx(asked, rel=0.35) and network.duration == 1.0
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(grid_network(300, 0).phases[0].edges.a, grid_network(300, 1).phases[0].edges.a)


# The circuits


def test_every_scale_ends_at_the_closed_form(small: Path, tmp_path: Path) -> None:
    file = ask(small, "scaling: {samples: 2, simulators: [ngspice, vacask]}\n")
    record = api.study_latency(file, tmp_path / "run", jobs=1)
    x = record["sections"]["scaling"]
    assert len(x["rows"]) == 32 and x["kept"] and not record["failed"]
    data = np.load(small.with_name("data.npz"))["x"]
    with open_store(tmp_path / "run/study.sqlite") as store:
        for row in x["rows"]:
            for i, key in enumerate(row["keys"]):
                v = store.result(key).v_end
                assert v is not None
                # Settings are chosen for 1e-3 of the range, a quarter of it on the examples.
                np.testing.assert_allclose(v[1:], small_solution(data[i]), atol=1e-3 * x["range_v"])
    assert x["rows"][0]["solver"]["reltol"] == x["rows"][15]["solver"]["reltol"]
    page = (tmp_path / "run/report.html").read_text()
    assert "Not run: size, decision, inference, physical" in page
    assert record["summary"]["sections_not_run"] == ["size", "decision", "inference", "physical"]
    assert all(record["sections"][name] == {"status": "not run"} for name in record["summary"]["sections_not_run"])


def test_charge_and_heat_of_a_conductance_are_those_of_the_formula(small: Path, tmp_path: Path) -> None:
    two = make_network([(1, 2, G, -G, 0.0, 1.0, IDENTITY)], 3, examples=[[1.0, -0.5]])
    save_network(two, tmp_path / "two.kcnet")
    file = ask(small, f"size: {{edges: [300, 700], networks: ['{tmp_path / 'two.kcnet'}', published/nothing]}}\n")
    record = api.study_latency(file, tmp_path / "run", jobs=1)
    x = record["sections"]["size"]
    row = x["rows"][-1]
    left = 1 - math.exp(-2 * G)  # of the difference, decayed by T
    # At 1 pF, 1 ps, 1 V a unit of charge is 1 pC. The trapezoidal rule's own error at these steps is under 1e-3.
    assert row["charge"] == pytest.approx(1.5 / 2 * left * 1e-12, rel=2e-3)
    assert row["current_peak"] == pytest.approx(1.5 * G, rel=1e-6)
    assert row["energy_heat"] == pytest.approx(1.5**2 / 4 * (1 - math.exp(-4 * G)) * 1e-12, rel=2e-3)
    assert x["t_constant"] and len(x["absent"]) == 1
    laws = {law["of"]: law for law in x["laws"]}
    assert laws["t_total_s"]["exponent"] == pytest.approx(0, abs=1e-9) and laws["charge"]["exponent"] > 0.5
    assert laws["charge"]["interval"] is None  # two points: a line meets them always
    assert not laws["charge"]["stated"]  # so it is no law
    # Of three runs the fastest is shown, and a size above the first simulator's is run by both: the same circuit.
    both = "{edges: [300, 700], vacask_above: 500, ngspice_up_to: 800, repeats: 3}"
    x = api.study_latency(ask(small, f"size: {both}\n"), tmp_path / "both", jobs=1)["sections"]["size"]
    assert [row["simulator"] for row in x["rows"]] == ["ngspice", "ngspice", "vacask"]
    assert all(len(r["walls_s"]) == 3 and r["wall_s"] == min(r["walls_s"]) for r in x["rows"])
    assert {law["of"]: law["n"] for law in x["laws"]}["charge"] == 2  # a size counts once
    # Each simulator's settings are chosen for 1e-3.
    assert x["rows"][1]["charge"] == pytest.approx(x["rows"][2]["charge"], rel=1e-3)
    # Of one circuit nothing is said; the engine's are none.
    alone = api.study_latency(ask(small, "size: {edges: [300, 700], engine_above: 500}\n"), tmp_path / "one", jobs=1)
    assert alone["sections"]["size"]["t_constant"] is None
    (said,) = [v for v in alone["summary"]["verdicts"] if v["section"] == "size"]
    assert said["holds"] is None and "from 288 to 288 edges" in said["found"]
    # No two rules of different order leave the same error.
    errors = {row["from_reference"] for row in x["rows"]}
    assert len(errors) == 3 and all(0 < error <= 1e-3 for error in errors)


def test_decision_times_and_tolerances_trace_to_the_waveforms_in_the_store(small: Path, tmp_path: Path) -> None:
    record = api.study_latency(ask(small, "decision: {draws: 50}\n"), tmp_path / "run", jobs=1)
    x = record["sections"]["decision"]
    assert x["n"] == 6 and not x["failed"]
    with open_store(tmp_path / "run/study.sqlite") as store:
        waves = [store.result(key).waveform for key in x["keys"]]
    for row, wave in zip(x["samples"], waves, strict=True):
        assert wave is not None and wave[0][-1] == pytest.approx(1.25e-12)
        upto = wave[0] <= 1e-12 * (1 + 1e-9)
        assert row["decision_s"] == pytest.approx(decision_time(wave[0][upto], wave[1][upto]), abs=1e-13)
    last = next(p for p in x["early_exit"] if abs(p["share_of_t"] - 1) < 1e-9)
    assert last["accuracy"] == x["accuracy_at_t"]
    assert [p["lost"] for p in x["jitter"]] == sorted(p["lost"] for p in x["jitter"])


RISE = 0.5  # by which the second output below rises in a unit of time


def rising(tmp_path: Path, more: str) -> dict[str, Any]:
    """A network whose first output holds its input while a source lifts the second, from 0: it leads from τ = x/RISE
    on. Fifteen inputs around RISE, so that eight leads change before T = 1 and seven after."""
    save_network(make_network([(0, 2, 0.0, 0.0, RISE, 1.0, IDENTITY)], 3, examples=[[0.6, 0.0]]), tmp_path / "up.kcnet")
    np.savez(tmp_path / "up.npz", x=HELD[:, None] * [1.0, 0.0], y=(HELD <= RISE).astype(int))
    file = tmp_path / "up.yaml"
    file.write_text(f"network: {tmp_path / 'up.kcnet'}\ndata: {tmp_path / 'up.npz'}\n{more}\n")
    return dict(api.study_latency(file, tmp_path / "run", jobs=1)["sections"])


HELD = RISE * np.linspace(0.86, 1.14, 15) - 1e-6


def test_twice_the_jitter_of_the_circuits_readings_loses_what_the_crossings_in_closed_form_say(tmp_path: Path) -> None:
    draws = 2000
    x = rising(tmp_path, f"decision: {{draws: {draws}}}")["decision"]
    lost = {round(row["sigma_s"] * 1e12, 6): row["lost"] for row in x["jitter"]}
    room = np.abs(HELD / RISE - 1)  # from T to where the lead changes, all within what is simulated
    assert x["accuracy_at_t"]["value"] == 1.0
    for sigma in (0.02, 0.05, 0.1):
        each = norm.cdf(-room / sigma)
        far = norm.cdf(-0.25 / sigma)  # beyond what is simulated a late reading is lost; an early one is not
        most = each + np.where(HELD <= RISE, far, 0.0)
        spread = 4 * math.sqrt(float((most * (1 - most)).sum())) / 15 / math.sqrt(draws)
        assert lost[sigma] == pytest.approx(most.mean(), abs=spread)
    assert lost[0.02] < lost[0.05] < lost[0.1] < lost[0.2]
    assert lost[0.1] > 1.3 * lost[0.05]  # twice the jitter


def test_twice_the_write_error_loses_the_samples_that_a_smaller_start_says(tmp_path: Path) -> None:
    x = rising(tmp_path, "inference: {samples: 1, draws: 1, write_errors: [0.03, 0.06]}")["inference"]
    counts = {row["left"]: row["accuracy"]["count"] for row in x["write_errors"]}
    assert counts == {left: int((HELD * (1 - left) > RISE).sum() + (HELD <= RISE).sum()) for left in (0.0, 0.03, 0.06)}
    assert counts[0.0] == 15 and counts[0.0] - counts[0.06] >= 2 * (counts[0.0] - counts[0.03]) - 1 > 0


def test_a_run_with_noise_that_fails_is_right_nowhere_and_is_tried_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = written.run_jobs

    def first_fails(rig: Any, jobs: Any, workers: int, done: Any) -> None:
        real(rig, jobs[1:], workers, done)
        done(jobs[0].key, Result(Status.TIMED_OUT, "killed"))

    file = ask(small, "inference: {samples: 1, draws: 2, capacitances: [1p], write_errors: []}\n")
    monkeypatch.setattr(written, "run_jobs", first_fails)
    record = api.study_latency(file, tmp_path / "run", jobs=1)
    x = record["sections"]["inference"]
    (noisy,), (whole_,) = x["noise"], x["write_errors"]
    n = noisy["accuracy"]["n"]
    assert n == 2 * whole_["accuracy"]["n"] and (noisy["failed"], whole_["failed"]) == (1, 1)
    assert record["summary"]["failed_runs"] == 2 and f"1 of {n}, the first: killed" in x["failed"][0]["message"]
    monkeypatch.setattr(written, "run_jobs", real)
    again = api.study_latency(file, tmp_path / "run", jobs=1)["sections"]["inference"]
    assert not again["failed"] and again["noise"][0]["accuracy"]["count"] - noisy["accuracy"]["count"] in (0, 1)


def whole(file: Path, out: Path, switch: float) -> dict[str, Any]:
    text = f"inference: {{samples: 2, switch: {switch}, write: 0.3, draws: 2}}\n"
    return dict(api.study_latency(ask(file, text), out, jobs=1)["sections"]["inference"])


def test_what_the_write_leaves_is_exp_of_time_over_rc_and_more_where_the_switch_has_twice_the_resistance(
    small: Path, tmp_path: Path
) -> None:
    one, two = whole(small, tmp_path / "one", 0.05), whole(small, tmp_path / "two", 0.1)
    data = np.load(small.with_name("data.npz"))["x"]
    for x, tau in ((one, 0.05), (two, 0.1)):
        left = math.exp(-0.3 / tau)
        assert not x["failed"] and x["labels_as_software"]["count"] == 2
        assert x["write_left_by_rc"] == pytest.approx(left)
        for i, row in enumerate(x["samples"]):
            before = small_solution(data[i - 1]) * left  # what the precharge leaves of the sample before
            expected = np.abs(data[i] - before).max() * left / data[i].max()
            # Edges take 2 % of the shortest time constant, 0.01, each; the write loses half of two and the two that
            # keep it apart from the network. The trapezoidal rule's own error at 0.001 a step is under 0.03 %.
            expected *= math.exp(3 * 0.02 * 0.01 / tau)
            assert row["write_left"] == pytest.approx(expected, rel=0.003)
            assert row["precharge_left"] == pytest.approx(left, rel=0.003)
        assert x["switch_ohms"] == pytest.approx(tau)  # of a model unit of 1 ps over 1 pF
    assert two["write_left"] > 5 * one["write_left"]
    steps = {step["step"]: step for step in one["steps"]}
    assert one["total_s"] == pytest.approx(sum(step["given_s"] for step in steps.values()))
    assert one["total_over_t"] > 1.6 and steps["evolve"]["given_s"] == 1e-12
    assert steps["compare"]["needed_s"] <= steps["compare"]["given_s"]


def test_phases_hand_over_within_the_one_deck(tmp_path: Path) -> None:
    save_network(repeating(), tmp_path / "two.kcnet")
    x = np.array([[1.0, -0.6], [-0.2, 0.9], [0.3, 0.5]])
    np.savez(tmp_path / "x.npz", x=x)
    file = tmp_path / "study.yaml"
    file.write_text(
        f"network: {tmp_path / 'two.kcnet'}\ndata: {tmp_path / 'x.npz'}\ninference: {{samples: 3, draws: 1}}\n"
    )
    found = api.study_latency(file, tmp_path / "run", jobs=1)["sections"]["inference"]
    labels = [int(np.argmax(repeating_solution(*row)[[0, 2, 3]])) for row in x]
    assert [row["label"] for row in found["samples"]] == labels
    steps = {step["step"]: step["given_s"] for step in found["steps"]}
    assert steps["evolve"] == pytest.approx(1.5e-12) and steps["hand over between phases"] == pytest.approx(0.25e-12)
    assert found["t_total_s"] == pytest.approx(1.75e-12)


# The run folder and the study file


def _slow_run(file: Path, out: Path) -> None:
    once = latency_scaling.run_transient

    def slow(*args: Any) -> Any:
        time.sleep(0.2)
        return once(*args)

    latency_scaling.run_transient = slow
    api.study_latency(file, out, jobs=1)


def _finished(out: Path) -> int:
    if not (out / "study.sqlite").is_file():
        return 0
    with open_store(out / "study.sqlite") as store:
        return int(store._connection.execute("SELECT count(*) FROM runs WHERE status = 'passed'").fetchone()[0])


def test_a_killed_study_goes_on_and_ends_as_if_it_had_not_been(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    file = ask(small, "scaling: {samples: 1}\n")
    whole_record = api.study_latency(file, tmp_path / "whole", jobs=1)
    out = tmp_path / "killed"
    child = multiprocessing.get_context("spawn").Process(target=_slow_run, args=(file, out))
    child.start()
    done, started = 0, time.monotonic()
    while done < 3:
        assert child.is_alive() and time.monotonic() - started < 60
        time.sleep(0.05)
        done = _finished(out)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    done, again = _finished(out), []
    assert done < 16
    real = latency_scaling.run_transient
    monkeypatch.setattr(latency_scaling, "run_transient", lambda *args: (again.append(1), real(*args))[1])
    record = api.study_latency(file, out, jobs=1)
    assert len(again) == 16 - done
    for r in (record, whole_record):
        r["summary"].pop("wall_s")
    assert record == whole_record


def test_a_run_that_fails_is_in_the_denominator_and_on_the_first_screen(
    small: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    real = latency_scaling.run_transient

    def broken(network: Any, circuit: Any, *args: Any) -> Any:
        if circuit.scaling.c == 1e-12:
            raise InvalidInputError("deck", ["was broken on purpose"])
        return real(network, circuit, *args)

    monkeypatch.setattr(latency_scaling, "run_transient", broken)
    done = CliRunner().invoke(
        app,
        ["study", "latency", str(ask(small, "scaling: {samples: 1}\n")), "--out", str(tmp_path / "run"), "--jobs", "1"],
        env={"COLUMNS": "200"},
    )
    assert done.exit_code == 1, done.output
    record = json.loads((tmp_path / "run/report.json").read_text())
    published("latency").validate(record)
    row = record["sections"]["scaling"]["rows"][12]
    assert (row["n"], row["passed"], row["labels_as_software"], row["from_first"]) == (1, 0, 0, None)
    # Of one scale nothing is known: the claim is not refuted by that, nor a limit missed.
    assert record["sections"]["scaling"]["kept"] is None and record["summary"]["failed_runs"] == 1
    assert "1 runs failed" in (tmp_path / "run/report.html").read_text()


def test_all_that_is_wrong_with_a_study_file_is_told_at_once(small: Path, tmp_path: Path) -> None:
    bad = ask(small, "colour: red\nscaling: {samples: 0}\ninference: {switch: -1}\n")
    with pytest.raises(InvalidInputError) as caught:
        api.study_latency(bad, tmp_path / "run")
    assert all(word in str(caught.value) for word in ("colour", "scaling.samples", "inference.switch"))
    with pytest.raises(InvalidInputError) as caught:
        api.study_latency(ask(small, "physical: {currents: [0, 1, -2]}\n"), tmp_path / "run")
    assert [p.split(":")[0] for p in caught.value.problems] == ["physical.0.currents.0", "physical.0.currents.2"]
    more = "size: {edges: [300], networks: [nowhere, published/nowhere]}\n"
    more += "physical: [{network: nobody}, {network: digits}, {pdk: nothing}, {pdk: sky130, models: /nowhere}]\n"
    with pytest.raises(InvalidInputError) as caught:
        api.study_latency(ask(small, more), tmp_path / "run")
    places = ["physical.0: nobody", "physical.1: network 'digits'", "physical.2: PDK 'nothing'", "physical.3: "]
    assert all(p.startswith(w) for p, w in zip(caught.value.problems, [*places, "size.networks: nowhere"], strict=True))
    assert "problems, the first: edge" in str(caught.value) and not (tmp_path / "run").exists()
    with pytest.raises(InvalidInputError, match="no section"):
        api.study_latency(small, tmp_path / "run")
    save_network(decaying(None), tmp_path / "one.kcnet")
    alone = tmp_path / "alone.yaml"
    alone.write_text(f"network: {tmp_path / 'one.kcnet'}\ndata: gaussian:3\ndecision: {{}}\n")
    with pytest.raises(InvalidInputError, match="nothing to decide"):
        api.study_latency(alone, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_example_study_asks_for_every_section(tmp_path: Path) -> None:
    from kcnet_eda.config import load_settings
    from kcnet_eda.study.latency.settings import LatencyStudy

    study = load_settings(Path(__file__).parents[1] / "examples/latency.yaml", LatencyStudy)
    assert all(getattr(study, name) is not None for name in TABLES)
