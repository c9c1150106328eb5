"""Errors of writing, jitter of reading, grids, limits and failures of the study over conditions and dies."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import norm

from kcnet_eda import api
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import load_network, network_path, save_network
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.accuracy import decision_time
from kcnet_eda.study.campaign.failures import kind_of
from kcnet_eda.study.pvt import run as pvt
from kcnet_eda.study.pvt.conditions import Point, grid, nominal
from kcnet_eda.study.pvt.dies import Dies, network_cells
from kcnet_eda.study.pvt.record import make_record
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.study.pvt.work import Block, Outcome, Shared, run_block
from kcnet_eda.study.readout import Reading, room
from kcnet_eda.study.store import Status

KIT = "generic180"
IDEAL = EdgeModel((1.0,), (1.0,), (0.0, 0.0, 0.0))
RUN = "from kcnet_eda.cli.main import main\nif __name__ == '__main__': main()"


def outcome_of(shared: Shared) -> Outcome:
    """Every die at every point of ``shared``."""
    found = Outcome.zeros(len(shared.points), shared.study.dies)
    for number in range(len(shared.points)):
        block = Block(number, range(shared.study.dies))
        values = run_block(shared, block).v_end
        assert values is not None
        found.put(block, values)
    return found


def of_two(
    edges: list[tuple[int, int, float]], lead: float, points: list[Point], dies: int, samples: int, **keys: Any
) -> Shared:
    """Two outputs that begin ``lead`` V_u apart, the first ahead; ``edges`` (source, target, current) are constant."""
    network = make_network([(s, d, 0.0, 0.0, c, 1.0, RELU) for s, d, c in edges], 3, examples=[[1.0, 0.0]])
    cells = network_cells(network)
    made = Dies(cells, (IDEAL,) * len(points), np.ones(cells.theta1.size), None, 7, 1e-6)
    x0 = np.tile([0.0, lead / 2, -lead / 2], (samples, 1))
    y = np.zeros(samples, dtype=np.int64)
    study = PvtStudy(network="two", pdk=KIT, dies=dies, mismatch=None, write_error=[0.1], **keys)
    return Shared(study, made, points, resolve(c=1e-12, v_unit=0.2, t_unit=1e-6), x0, y, y)


def at(**errors: float) -> Point:
    return Point("tt", "typ", 3.3, 27.0, **errors)


@pytest.mark.parametrize("of", ["sample", "die"])
def test_an_error_of_writing_turns_as_many_labels_as_its_formula_says(of: str) -> None:
    """Nothing moves two outputs 0.3 V_u apart: each is off by σ, their difference by σ·√2."""
    sigmas, dies, samples = (0.02, 0.04, 0.08), 400, 50  # volts, of 0.2 a unit
    still = [(1, 0, 0.0)]  # an edge without current
    shared = of_two(still, 0.3, [at(write_error=s) for s in (0.0, *sigmas)], dies, samples, write_error_of=of)
    found = outcome_of(shared)
    assert (found.right[0] == samples).all() and np.allclose(found.margin[0], 0.3)
    for row, sigma in enumerate(sigmas, start=1):
        wanted = norm.cdf(0.3 / (np.sqrt(2) * sigma / 0.2))
        # 4σ of the binomial distribution of independent draws: of a die's own one a die, else one a die and sample
        draws = dies * samples if of == "sample" else dies
        share = found.right[row].mean() / samples
        assert share == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / draws))
        assert np.array_equal(found.right[row], found.agree[row])
        if of == "die":  # all samples of a die are off alike
            assert set(np.unique(found.right[row]).tolist()) <= {0, samples}
    # each doubling loses more, of every die: the draws are common to all σ
    assert (np.diff(found.right, axis=0) <= 0).all() and (np.diff(found.right.sum(axis=1)) < 0).all()


def test_jitter_loses_as_many_labels_as_its_formula_says() -> None:
    """The second output leads by 0.4, and the first gains 1 a unit of time on it: ahead from 0.4 of T on, for good."""
    sigmas, dies, samples = (0.25e-6, 0.5e-6, 1e-6), 200, 100  # of T = 1 µs
    shared = of_two([(0, 1, 1.0)], -0.4, [at(jitter=s) for s in (0.0, *sigmas)], dies, samples)
    found = outcome_of(shared)
    assert (found.right[0] == samples).all()
    for row, sigma in enumerate(sigmas, start=1):
        # too early, or later than T again, where nobody has looked
        wanted = norm.cdf(1e-6 / sigma) - norm.cdf(-0.6e-6 / sigma)
        noise = 4 * np.sqrt(wanted * (1 - wanted) / (dies * samples))
        assert found.right[row].mean() / samples == pytest.approx(wanted, abs=noise)
    assert (np.diff(found.right, axis=0) <= 0).all() and (np.diff(found.right.sum(axis=1)) < 0).all()
    assert np.array_equal(found.margin, np.broadcast_to(found.margin[:1], found.margin.shape))  # the margin is at T


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 5))
def test_how_far_a_label_stands_is_that_of_the_latency_studys_reading(seed: int, after: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    time_ = np.cumsum(rng.uniform(0.1, 1.0, 8 + after))
    volts = rng.standard_normal((time_.size, outputs, 4)).cumsum(axis=0)
    early, late = room(time_, volts, 7)
    for sample in range(4):
        reading = Reading(time_, volts[:, :, sample], float(time_[7]))
        assert early[sample] == pytest.approx(time_[7] - reading.decided, abs=1e-12)
        assert late[sample] == pytest.approx(reading.leaves - time_[7], abs=1e-12)


def test_what_is_not_finite_has_no_leader() -> None:
    volts = np.array([[1.0, 0.0], [np.nan, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert decision_time(np.arange(4.0), volts) == 2.0
    diverges = np.concatenate([volts[2:], volts[1:2]])[:, :, None]
    assert room(np.arange(3.0), diverges, 1)[1].tolist() == [0.0]


@pytest.fixture(scope="module")
def digits() -> Shared:
    """60 digits on 20 dies of the trained network, at rising errors of writing and rising jitter."""
    network = load_network(network_path("digits_mos"))
    cells = network_cells(network)
    points = [at(write_error=v) for v in (0.0, 0.02, 0.04, 0.08)] + [at(jitter=t) for t in (0.1e-6, 0.2e-6, 0.4e-6)]
    made = Dies(cells, (IDEAL,) * len(points), np.ones(cells.theta1.size), None, 3, 1e-6)
    x0 = network.initial_state(np.random.default_rng(3).uniform(0, 1, (60, network.inputs.size)))
    y = made.evolve(made.nominal(0), x0, 60, 1)[0][network.readout].argmax(axis=0)
    study = PvtStudy(network="digits_mos", pdk=KIT, dies=20, write_error=[0.1])
    return Shared(study, made, points, resolve(c=1e-12, v_unit=0.2, t_unit=1e-6), x0, y, y)


def test_doubling_each_error_moves_the_right_numbers_in_the_right_direction(digits: Shared) -> None:
    found = outcome_of(digits)
    written, read = found.right[:4].sum(axis=1), found.right[[0, 4, 5, 6]].sum(axis=1)
    assert written[0] == read[0] == 20 * 60
    assert (np.diff(written) < 0).all() and (np.diff(read) < 0).all()
    assert (np.diff(np.median(found.margin[:4], axis=1)) < 0).all()
    assert np.array_equal(found.margin[4:], np.broadcast_to(found.margin[0], (3, 20)))
    record = make_record(digits, KIT, "digits:test", found)
    assert record["summary"]["inert_axes"] == []


def test_an_error_of_a_die_and_sample_is_the_same_whatever_is_run_with_it(digits: Shared) -> None:
    whole = run_block(digits, Block(2, range(20))).v_end
    parts = [run_block(digits, Block(2, dies), threads).v_end for dies, threads in ((range(7), 1), (range(7, 20), 2))]
    assert whole is not None and all(part is not None for part in parts)
    joined = np.concatenate([part.reshape(4, -1) for part in parts if part is not None], axis=1)
    assert np.array_equal(whole.reshape(4, -1), joined)
    read = run_block(digits, Block(6, range(20))).v_end
    alone = run_block(digits, Block(6, range(11, 12))).v_end
    assert read is not None and alone is not None and np.array_equal(read.reshape(4, -1)[:, 11], alone)
    few = Shared(digits.study, digits.dies, digits.points, digits.scaling, digits.x0[:9], digits.y[:9], digits.y[:9])
    assert np.array_equal(few.start(digits.points[1], [4]), digits.start(digits.points[1], [4])[:, :9])


def test_more_steps_hardly_move_what_jitter_loses(digits: Shared) -> None:
    """Between the ends of steps outputs are taken as straight lines; 15 steps against 120."""
    lost = []
    for steps in (15, 120):
        study = digits.study.model_copy(update={"steps": steps})
        shared = Shared(study, digits.dies, digits.points, digits.scaling, digits.x0, digits.y, digits.software)
        values = run_block(shared, Block(5, range(20))).v_end
        assert values is not None
        lost.append(20 * 60 - values[:20].sum())
    # a line is off by at most curvature·h²/8: of 1,200 readings a few are within so little of their change
    assert lost[1] > 50 and abs(lost[0] - lost[1]) <= 0.1 * lost[1]


AXES = {
    "corners": ["tt", "ff", "ss", "fs", "sf"],
    "supplies": ["-10%", "0%", "+10%"],
    "temperatures": [-40, 27, 125],
    "write_error": [0, "5m", "1%"],
    "jitter": ["0", "1%"],
}


def test_grids_have_as_many_points_as_their_axes_say() -> None:
    kit = load_pdk(KIT)
    study = PvtStudy(network="digits_mos", pdk=KIT, **AXES)
    full = grid(study, kit, full_scale=2.0, duration=1.0)
    assert len(full) == len(set(full)) == 5 * 3 * 3 * 3 * 2
    assert len(grid(study, kit, ["tt", "s*"])) == 3 * 3 * 3 * 3 * 2
    # kit's V_u is 0.2 V, so a hundredth of 2 V_u is 4 mV; of T = 1 · 300 ns it is 3 ns
    assert {p.write_error for p in full} == {0.0, 0.005, 0.004} and {p.jitter for p in full} == {0.0, 3e-9}
    alone = grid(study.model_copy(update={"grid": "one_at_a_time"}), kit, full_scale=2.0, duration=1.0)
    assert len(alone) == 1 + 4 + 2 + 2 + 2 + 1
    home = Point(**vars(nominal(kit)))
    assert alone[0] == home
    assert all(sum(getattr(p, axis) != getattr(home, axis) for axis in vars(home)) == 1 for p in alone[1:])
    assert set(alone) <= set(full)
    mc = grid(study, kit, at_nominal=True)
    assert len(mc) == 3 * 2 and {p.condition for p in mc} == {nominal(kit)}


def test_a_grid_is_told_wrong_errors_and_names_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        PvtStudy(network="digits_mos", pdk=KIT, write_error=["-1m", "much"], jitter=[-1e-9], grid="half")
    assert all(word in str(caught.value) for word in ("write_error.0", "write_error.1", "jitter.0", "grid"))
    with pytest.raises(InvalidInputError, match="no corner among"):
        grid(PvtStudy(network="digits_mos", pdk=KIT, grid="one_at_a_time"), load_pdk(KIT), ["hot"])


STUDY = """
network: {folder}/net.kcnet
data: {folder}/data.npz
pdk: generic180
corners: [tt]
dies: 1
mismatch: null
t_unit: 2u
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One node discharged by one edge into another, on a kit: a study that takes a second."""
    network = make_network([(1, 2, 1.0, -1.0, 0.25, 1.0, RELU)], 3, 0.5, examples=[[1.0, -0.5]])
    save_network(network, tmp_path / "net.kcnet")
    np.savez(tmp_path / "data.npz", x=np.array([[1.0, -0.5], [0.5, -1.0], [-1.0, 1.0]] * 20), y=[0, 0, 1] * 20)
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(folder=tmp_path))
    return file


def test_limits_in_si_units_are_held_against_every_condition(small: Path, tmp_path: Path) -> None:
    limits = """
supplies: [2.97, 3.3]
limits:
  agreement: {minimum: 0.99}
  margin: {minimum: 1m, typical: 10}
  latency: {maximum: 2u, typical: 0.5u}
  energy: {minimum: 1f, typical: 1, maximum: 1f}
"""
    small.write_text(small.read_text() + limits)
    record = api.study_pvt(small, tmp_path / "run")
    verdicts = {(limit["of"], limit["kind"]): limit for limit in record["limits"]}
    assert {key: limit["kept"] for key, limit in verdicts.items()} == {
        ("agreement", "minimum"): True,
        ("margin", "minimum"): True,
        ("margin", "typical"): False,
        ("latency", "typical"): False,  # 1 µs is more than half of it: the mean is to be at most that
        ("latency", "maximum"): True,
        ("energy", "minimum"): True,
        ("energy", "typical"): True,
        ("energy", "maximum"): False,
    }
    low, high = record["conditions"]
    assert low["latency_s"] == high["latency_s"] == verdicts["latency", "typical"]["found"] == pytest.approx(1e-6)
    for row in (low, high):
        assert row["energy_j"] == pytest.approx(row["supply_current_a"] * row["supply"] * 1e-6)
        # some mA per thousand units: one cell of few units and the bias, tens of µA
        assert 5e-6 < row["supply_current_a"] < 5e-4
    assert low["energy_j"] < high["energy_j"]
    # Of most samples x = v1 − v2 falls from 1.5 by dx/dτ = −2·(x + 0.25) for half a unit of time; V_u is 0.2 V. The
    # cell is some % of its full scale of 2.25 I_u off.
    assert high["margin_v"] == pytest.approx(0.2 * (1.75 * np.exp(-1) - 0.25), abs=0.2 * 0.02 * 2.25)
    with (tmp_path / "run/conditions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["margin_v"]) for row in rows] == [low["margin_v"], high["margin_v"]]
    assert {"agreement_interval_low", "energy_j", "latency_s", "write_error", "jitter", "margin_die_min_v"} <= set(
        rows[0]
    )
    page = (tmp_path / "run/report.html").read_text()
    assert "<h2>Limits</h2>" in page and "the largest value is at most this" in page and "2 µs" in page
    assert "<h2>Runs that failed</h2>\n<p>None.</p>" in page


def test_errors_reach_the_runs_tables_and_ngspice(small: Path, tmp_path: Path) -> None:
    more = "write_error: [0, 50m]\njitter: [0, 10%]\ngrid: one_at_a_time\nrepeat: 12\nseed: 2\n"
    small.write_text(small.read_text() + more)
    record = api.study_pvt(small, tmp_path / "run")
    names = [row["condition"] for row in record["conditions"]]
    assert names == ["tt/typ 3.3 V 27 °C" + end for end in ("", ", write error 50 mV", ", jitter 100 ns")]
    check = record["check"]
    # a case of a die whose voltages are written wrong begins there in ngspice too
    assert (check["cases"], check["agree"], check["kept"]) == (12, 12, True) and check["largest"] < 2e-3
    calibration = json.loads((tmp_path / "run/calibration.json").read_text())
    assert len(calibration["conditions"]) == 1
    with np.load(tmp_path / "run/outputs.npz") as outputs:
        case, end = outputs["case"], outputs["case_v_end"]
        assert {1, 2} <= set(case[:, 0].tolist())
        # samples repeat every third: at point 1 the same sample ends elsewhere, at 0 and 2 it does not
        kinds: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
        for (condition, _, sample), v in zip(case.tolist(), end, strict=True):
            kinds.setdefault((int(condition == 1), sample % 3), []).append(v)
        for (wrong, _), values in kinds.items():
            assert len(values) < 2 or (np.ptp(np.array(values), axis=0).max() > 1e-2) == bool(wrong)
    assert "3.3 V, 27 \\u00b0C, write error 50 mV" in (tmp_path / "run/report.html").read_text()


def test_noise_is_rows_of_the_store_and_goes_on_after_a_kill(small: Path, tmp_path: Path, monkeypatch: Any) -> None:
    small.write_text(small.read_text() + "noise: {capacitances: [1e-18, 10p], draws: 3, steps: 2000}\n")
    whole, out = tmp_path / "whole", tmp_path / "killed"
    record = api.study_pvt(small, whole)
    with (whole / "runs.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if "draw" in row["condition"] or "noise" in row["condition"]]
    assert len(rows) == 1 + 2 * (2 * 3) and {row["level"] for row in rows} == {"engine"}
    with (whole / "runs.csv").open() as stream:
        assert sum(1 for _ in stream) == 1 + 1 + 1 + 2 * (2 * 3 + 1)  # heading, one block, without noise, each C
    process = subprocess.Popen([sys.executable, "-c", RUN, "study", "pvt", str(small), "--out", str(out)])
    ended = 0
    while ended < 2:
        assert process.poll() is None
        time.sleep(0.01)
        ended = finished(out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended, again = finished(out), list[int]()
    assert ended < 16
    real = pvt.run_noise
    monkeypatch.setattr(pvt, "run_noise", lambda noise, run: (again.append(1), real(noise, run))[1])
    assert api.study_pvt(small, out)["noise"] == record["noise"]
    assert len(again) == 16 - ended
    tables = [
        [{k: v for k, v in row.items() if k not in ("wall_s", "peak_kib")} for row in csv.DictReader(text.splitlines())]
        for text in ((folder / "runs.csv").read_text() for folder in (whole, out))
    ]
    assert tables[0] == tables[1]


def finished(out: Path) -> int:
    if not (out / "study.sqlite").is_file():
        return 0
    done = subprocess.run(
        [sys.executable, "-c", "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute("
         "\"SELECT count(*) FROM runs WHERE status = 'passed'\").fetchone()[0])", str(out / "study.sqlite")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return int(done.stdout or 0)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (Status.TIMED_OUT, "ngspice ran past its limit of 5 s and was killed. Log: x", "hang"),
        (Status.TOOL_FAILED, "the simulator wrote no result: it exited -11 and admits nothing. Log: x", "crash"),
        (Status.TOOL_FAILED, "the simulator wrote no result: it exited 0 and admits nothing. Log: x", "no result"),
        (Status.TOOL_FAILED, "the worker died on it, 4 times over", "worker lost"),
        (Status.NOT_CONVERGED, "timestep too small", "no convergence"),
        (Status.BAD_DATA, "x.raw: has no vector for node a", "not as asked for"),
        (Status.PLANNED, "", "planned"),
    ],
)
def test_a_failure_is_known_by_its_status_and_words(status: Status, message: str, kind: str) -> None:
    assert kind_of(status, message) == kind
