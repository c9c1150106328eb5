"""What is done about a yield: gradients of a die, the ranked edges, calibration of a die, mismatch in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_network
from typer.testing import CliRunner

from kcnet_eda import api
from kcnet_eda.cli.main import app
from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.dynamics.die_gradient import edge_gradients
from kcnet_eda.dynamics.edge_law import BuiltEdges, eq6_edges
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.data import digits
from kcnet_eda.network.laws import RELU
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.cell_design import CellLimits
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.physical.mismatch import UnitSpread
from kcnet_eda.study.pvt.die_calibration import Trims, fit_readout, fit_trims
from kcnet_eda.study.pvt.dies import Dies, network_cells
from kcnet_eda.study.pvt.record import withhold
from kcnet_eda.study.pvt.remedies import Due, Fitting, Kind, effect, fitting_samples, run_step
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.study.pvt.yield_sensitivity import (
    SoftYield,
    by_gradient,
    halved,
    of_dies,
    sensitivity_record,
    yield_gradient,
)
from kcnet_eda.study.pvt.yield_settings import Sensitivity
from kcnet_eda.study.store import Result, open_store

#: Edges that are what they were trained to be.
IDEAL = EdgeModel((0.1, 2.0), (1.0, 1.0), (0.0, 0.0, 0.0))

STUDY = """
network: digits_mos
pdk: generic180
dies: 12
samples: 60
mismatch: {sigma_gain: 0.08, sigma_offset: 0.03, sigma_ratio: 0.2, bias_offset: 0.015}
limits: {die_accuracy: 0.95}
sensitivity: {dies: 12, samples: 30, top: 4}
calibration: {samples: 40, trims: 3}
"""


@pytest.mark.parametrize("lag", [0.0, 0.05])
def test_the_gradient_of_a_die_is_that_of_central_differences(lag: float) -> None:
    rng = np.random.default_rng(0)
    n, e, dies = 6, 20, 2
    source = rng.integers(0, n, e)
    ends = source, (source + rng.integers(1, n, e)) % n
    theta = [rng.normal(0, 0.5, (dies, e)), rng.normal(0, 0.3, (dies, e)), 1 + 0.1 * rng.normal(size=(dies, e))]
    shared = [rng.uniform(0.1, 1, e) * of for of in (0.05, 0.2, 0.05, 0.01)]
    edges = BuiltEdges(*theta, *shared, 0.03, lag)
    x0 = np.c_[np.zeros(4), rng.normal(0, 1, (4, n - 1))]
    weight = rng.normal(size=(dies, n, 4))
    found = edge_gradients(ends, edges, x0, 1.3, lambda die, v: weight[die], steps=7)

    def value(of: BuiltEdges) -> Any:
        return (weight * evolve_dies(ends, of, x0, 1.3, steps=7, dtype=np.float64)).sum(axis=(1, 2))

    h = 1e-5
    for i, name in enumerate(("theta1", "theta2", "ratio")):
        for edge in range(e):
            step = h * (np.arange(e) == edge)
            up, down = (value(replace(edges, **{name: getattr(edges, name) + s * step})) for s in (1, -1))
            # h² of a third derivative, and rounding over h: some 1e-9 of sums of up to 100
            np.testing.assert_allclose(found[:, i, edge], (up - down) / (2 * h), atol=1e-6)


def test_the_gradient_of_the_smoothed_yield_is_that_of_differences() -> None:
    rng = np.random.default_rng(1)
    outputs, y, soft = rng.normal(0, 0.2, (4, 30)), rng.integers(0, 4, 30), SoftYield(0.5, 0.1, 0.05)
    step, h = rng.normal(size=outputs.shape), 1e-6
    slope = np.diff([float(soft.of((outputs + s * h * step)[None], y)[0]) for s in (-1, 1)])[0] / (2 * h)
    assert (soft.pull(outputs, y) * step).sum() == pytest.approx(slope, rel=1e-5)
    # sharp, it is the yield: here two of three dies are right on at least half of the samples
    right = np.zeros((3, 2, 4))
    right[0, 0], right[1, 0, :3], right[1, 1, 3], right[2, 1] = 1, 1, 1, 1
    sharp = SoftYield(0.5, 1e-3, 1e-3).of(right, np.zeros(4, dtype=np.int64))
    np.testing.assert_allclose(sharp, [1, 1, 0], atol=1e-12)
    lost = np.full((1, 2, 4), np.nan)
    assert SoftYield(0.5, 0.1, 0.1).of(lost, np.zeros(4, dtype=np.int64))[0] < 0.01  # not finite: wrong


def decided_by_one_edge() -> tuple[Dies, Any, Any]:
    """Outputs 1 and 2 start level. Edge 1 sets which is higher by its θ2 less that of edge 0, which is a small cell's
    (little σ); edges 2 and 3 charge and drain node 3, which no output sees."""
    rows = [
        (0, 2, 0.0, 0.0, 0.55, 1.0, RELU),
        (0, 1, 0.0, 0.0, 1.9, 1.0, RELU),
        (0, 3, 0.0, 0.0, 1.9, 1.0, RELU),
        (3, 0, 0.3, -0.3, 0.5, 1.0, RELU),
    ]
    network = make_network([rows[1], rows[2], rows[0], rows[3]], 4, 1.0, readout=[1, 2])
    dies = Dies(network_cells(network), (IDEAL,), np.array([3.0, 3.0, 1.0, 2.0]), UnitSpread(0.0, 0.2, 0.0), 5, 300e-9)
    x = np.random.default_rng(2).uniform(-0.5, 0.5, (40, 3))
    x[:, 1] = x[:, 0] + 1.35  # behind by 1.35, output 1 gains 1.9 − 0.55: level without mismatch
    y = np.zeros(40, dtype=np.int64)
    return dies, network.initial_state(x), y


def test_an_edge_that_decides_the_label_ranks_first_and_one_that_none_sees_has_no_effect() -> None:
    dies, x0, y = decided_by_one_edge()
    # right where the decisive edge is at least as strong as drawn on average: halving its σ moves dies to the limit
    settings = Sensitivity(dies=50, samples=40, top=4, margin=0.3, accuracy=0.1)
    which, soft = range(7, 57), SoftYield(0.4, settings.margin, settings.accuracy)
    gain, lost = yield_gradient(dies, 0, which, x0, y, soft, 15, 1)
    again = [of_dies(dies, 0, which, halved(4, int(e)), x0, y, soft, 15, 1) for e in by_gradient(gain)]
    drawn = of_dies(dies, 0, which, 1.0, x0, y, soft, 15, 1)
    record = sensitivity_record(dies, which, settings, 0.4, gain, lost, drawn, again)
    by_difference = [row["edge"] for row in record["edges"]]
    assert record["by_gradient"][0] == by_difference[0] == 0
    found = {row["edge"]: row for row in record["edges"]}
    assert (
        found[0]["difference"] > 5 * abs(found[2]["difference"]) > 0
    )  # σ of its θ2 is √3 of the other's, and half is curved
    for unseen in (1, 3):
        assert found[unseen]["gradient"] == found[unseen]["difference"] == 0
    # by hand, edge 0 in a rerun with its own numbers halved
    built = dies.edges(0, range(7, 57))
    z = np.array([dies.normals(die)[0][1, 0] for die in range(7, 57)])
    theta2 = built.theta2.copy()
    theta2[:, 0] = 1.9 + 0.5 * 0.2 * np.sqrt(3.0) * z
    soft = SoftYield(0.4, 0.3, 0.1)
    change = [soft.of(dies.outputs(e, x0, 15, 1)[0], y) for e in (built, replace(built, theta2=theta2))]
    # single precision: 1e-7 of voltages of 2 over logistics of 0.3 and 0.1
    assert found[0]["difference"] == pytest.approx(float((change[1] - change[0]).mean()), abs=1e-5)
    # one edge's gradient by its own closed form: v1 − v2 at T is 1.35 short of what z adds
    z2 = np.array([dies.normals(die)[0][1, 2] for die in range(7, 57)])
    margin = 0.2 * np.sqrt(3.0) * z - 0.2 * z2
    a = 1 / (1 + np.exp(-margin / 0.3))
    good = 1 / (1 + np.exp(-(a - 0.4) / 0.1))
    slope = good * (1 - good) / 0.1 * a * (1 - a) / 0.3 * 0.2 * np.sqrt(3.0) * z
    assert found[0]["gradient"] == pytest.approx(-0.5 * slope.mean(), abs=1e-6)


def test_a_die_with_a_pure_offset_or_gain_of_its_outputs_is_repaired_exactly() -> None:
    rng = np.random.default_rng(3)
    target = rng.normal(0, 1, (10, 30))
    offset, gain = rng.normal(0, 1, (2, 10)), rng.uniform(0.5, 2, (2, 10))
    moved = target + offset[:, :, None]
    for kind in ("offset", "affine"):
        np.testing.assert_allclose(fit_readout(moved, target, kind).corrected(moved) - target, 0, atol=1e-12)
    scaled = gain[:, :, None] * target + offset[:, :, None]
    np.testing.assert_allclose(fit_readout(scaled, target, "affine").corrected(scaled) - target, 0, atol=1e-12)
    # a die that is not finite, and an output that never moves, keep their gain
    scaled[0, 3, 4], scaled[1, 2] = np.nan, 0.7
    found = fit_readout(scaled, target, "affine")
    assert (found.gain[0] == 1).all() and (found.offset[0] == 0).all() and found.gain[1, 2] == 1
    np.testing.assert_allclose(found.offset[1, 2], target[2].mean() - 0.7)


def test_whole_steps_of_a_trimmed_edge_are_found_and_codes_end_at_the_dac() -> None:
    """Constant currents into two outputs: what a trim does is its θ2 times T, so the codes are known."""
    ends = np.array([0, 0]), np.array([1, 2])
    nominal = eq6_edges(np.zeros((1, 2)), np.array([[1.0, 1.0]]))
    trims = Trims(np.array([0, 1]), np.array([0.4, 0.4]), np.array([0.05, 0.05]), 5)
    off = np.array([[3, -7], [-30, 12], [0, 0]])
    built = eq6_edges(np.zeros((3, 2)), 1.0 - 0.05 * off)
    x0 = np.zeros((4, 3))

    def measure(edges: BuiltEdges) -> Any:
        return evolve_dies(ends, edges, x0, 1.0, steps=5, dtype=np.float64)[:, 1:]

    target = measure(nominal)[0]
    codes = fit_trims(trims, nominal, built, measure, target, 3)
    assert codes.tolist() == np.clip(off, -16, 15).tolist()


def test_the_effect_counts_dies_repaired_and_spoilt() -> None:
    found = effect(np.array([9, 10, 8]), np.array([8, 10, 9]), 10, 0.9)
    assert (found["repaired"], found["spoilt"], found["yield"]["count"]) == (1, 1, 2)
    assert found["change"] == pytest.approx(0) and found["accuracy"]["n"] == 30


def test_samples_that_are_measured_on_are_not_fitted_on() -> None:
    network = load_network(network_path("digits_mos"))
    study = PvtStudy(network="digits_mos", pdk="generic180")
    test = digits("test")
    fitted = fitting_samples("digits:train", 1347, study, test, network)
    assert not set(fitted.index) & set(test.index)
    with pytest.raises(InvalidInputError, match="samples to fit on are also measured on"):
        fitting_samples("digits:all", 1797, study, test, network)
    with pytest.raises(InvalidInputError, match="also measured on"):
        fitting_samples("digits:test", 5, study, test, network)


def test_a_study_with_remedies_is_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    one, two = (api.study_pvt(file, tmp_path / f"run{n}", at_nominal=True, workers=n) for n in (1, 2))
    assert one["sensitivity"] == two["sensitivity"] and one["calibration"] == two["calibration"]
    for name in ("sensitivity.csv", "outputs.npz"):
        assert (tmp_path / "run1" / name).read_bytes() == (tmp_path / "run2" / name).read_bytes()
    s, c = one["sensitivity"], one["calibration"]
    assert (s["first_die"], s["run_again"], len(s["edges"])) == (12, 4, 250)  # no die of the study's 0 to 11
    # as built is what the study itself counts on the same dies and samples
    (row,) = one["conditions"]
    assert c["rows"][0]["what"] == "as built" and s["larger"]["before"]["accuracy"] == c["rows"][0]["accuracy"]
    same = pytest.approx((row["accuracy"], row["yield"]), rel=1e-12)  # counts over n, and a mean of shares
    assert (c["rows"][0]["accuracy"]["value"], c["rows"][0]["yield"]["value"]) == same
    assert c["edges"] == s["by_gradient"][:3] and c["numbers_of_a_die"] == 3 + 20
    assert c["runs_of_a_die"] == 40 * 3
    page = (tmp_path / "run1/report.html").read_text()
    assert "What the yield hangs on" in page and "Each die calibrated" in page


def test_remedies_are_rows_that_a_resumed_or_edited_study_does_not_compute_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "study.yaml", tmp_path / "run"
    file.write_text(STUDY)
    ran: list[Kind] = []

    def seen(of: Fitting, due: Due, threads: int = 1) -> Result:
        if len(ran) == killed_after:
            raise KeyboardInterrupt
        ran.append(due.step.kind)
        return run_step(of, due, threads)

    monkeypatch.setattr("kcnet_eda.study.pvt.run.run_step", seen)
    killed_after = -1
    whole = api.study_pvt(file, tmp_path / "whole", at_nominal=True)
    # gradient, σ as drawn and of 4 edges halved, none and 4 edges larger, a fit, and as built and in three ways
    steps, once = len(ran), list(ran)
    assert steps == 1 + 5 + 2 + 1 + 4
    ran.clear()
    for killed_after in (3, 7, 10, -1):
        if killed_after > 0:
            with pytest.raises(KeyboardInterrupt):
                api.study_pvt(file, out, at_nominal=True)
            with open_store(out / "study.sqlite") as store:
                rows = [row for row in store.planned() if row["variant"] == "remedy"]
            assert len(rows) == steps and sum(row["status"] == "passed" for row in rows) == killed_after
    resumed = api.study_pvt(file, out, at_nominal=True)
    assert ran == once  # none of them twice
    assert all(resumed[name] == whole[name] for name in ("sensitivity", "calibration"))
    for name in ("outputs.npz", "sensitivity.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ran.clear()
    file.write_text(STUDY.replace("trims: 3", "trims: 2").replace("top: 4", "top: 5"))
    api.study_pvt(file, out, at_nominal=True)
    # one edge more run again, five edges larger, and all of the calibration
    assert sorted(ran) == sorted([Kind.HALVED, Kind.LARGER, Kind.FIT, *[Kind.COUNT] * 4])


def test_the_command_tells_the_effect_and_an_engine_that_is_not_believed_has_none(
    tmp_path: Path,
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    done = CliRunner().invoke(app, ["study", "mc", str(file), "--out", str(tmp_path / "run")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "the yield hangs most on" in done.output and "DACs and read-out, calibrated at" in done.output
    record: dict[str, Any] = {
        "summary": {},
        "limits": [],
        "noise": None,
        "sensitivity": {"edges": []},
        "calibration": {"rows": []},
        "check": {"kept": False},
    }
    withhold(record)
    assert record["sensitivity"] is None and record["calibration"] is None and record["summary"]["kept"] is False


def test_remedies_that_cannot_be_are_told(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("sensitivity: {dies", "# {dies"))
    with pytest.raises(InvalidInputError, match="needs sensitivity"):
        api.study_pvt(file, tmp_path / "run")
    file.write_text(STUDY.replace("{samples: 40", "{data: 'digits:test', samples: 40"))
    with pytest.raises(InvalidInputError, match="also measured on"):
        api.study_pvt(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # told before anything is computed
    file.write_text("network: digits_mos\npdk: generic180\ndies: 1\nmismatch: null\nsensitivity: {}\n")
    with pytest.raises(InvalidInputError, match="dies with mismatch"):
        api.study_pvt(file, tmp_path / "run")


def test_dies_in_training_follow_pelgroms_rule_and_the_kits_units() -> None:
    torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")
    from kcnet_eda.dynamics.cell import Cell, Units, draw_dies

    cells = network_cells(load_network(network_path("digits_mos")))
    theta1, theta2 = torch.tensor(cells.theta1), torch.tensor(cells.theta2)
    limits = CellLimits()
    units = Units()
    assert (units.slope_per_unit, units.offset_per_unit) == (limits.slope_per_unit, limits.offset_per_unit)
    k = units.of(theta1, theta2).numpy()
    need = np.maximum(np.abs(cells.theta1) / limits.slope_per_unit, cells.theta2 / limits.offset_per_unit)
    assert (k == np.maximum(1, np.ceil(need - 1e-9))).all()
    spread = UnitSpread(0.07, 0.023, 0.18, 0.02, 0.014)
    cell = Cell(
        units=units, sigma_theta1=0.07, sigma_theta2=0.023, sigma_gain=0.18, bias_theta1=0.02, bias_theta2=0.014
    )
    n = 4000
    drawn = [p.numpy() for p in draw_dies(cell, theta1, theta2, n, torch.Generator().manual_seed(1))]
    of_gain, of_offset, of_ratio = spread.of(k)
    wanted = [np.hypot(of_gain, 0.02), np.hypot(of_offset, 0.014 * k), of_ratio]
    conducts = np.abs(cells.theta1) > 0
    found = [
        (drawn[0][conducts] / cells.theta1[conducts, None]).std(axis=1),
        drawn[1].std(axis=1),
        drawn[2].std(axis=1),
    ]
    wanted[0] = wanted[0][conducts]
    for sigma, of in zip(found, wanted, strict=True):
        # σ of n draws is known to 1/√(2n) = 1.1 %; the largest of 250 is within 5 of these
        np.testing.assert_allclose(sigma, of, rtol=5 / np.sqrt(2 * n))
    # what cells share moves them together: the mean over the network is the bias's where cells' own averages out
    shared = ((drawn[1] - cells.theta2[:, None]) / k[:, None]).mean(axis=0)
    own = np.sqrt((0.023**2 / k).sum()) / k.size
    assert shared.std() == pytest.approx(np.hypot(0.014, own), rel=5 / np.sqrt(2 * n))
