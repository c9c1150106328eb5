"""The MOS and structural levels, held to closed forms and to the ideal law: on the process written here, and on
a real one where its models are found."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import installed_kit
from runs_of_cells import RING, ring

from kcnet_eda import api
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.mos_cells import series, source_fingers
from kcnet_eda.files import resource_dir
from kcnet_eda.network.graph import Edges, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, RELU
from kcnet_eda.network.store import save_network
from kcnet_eda.physical.calibration import TOLERANCE
from kcnet_eda.physical.cell_design import CellLimits
from kcnet_eda.physical.mos_cell import cell_edges, first_sizes, range_problems, snap_sizes
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.relu_fit import box_points, fit_relu
from kcnet_eda.study.mos import calibrate as calibration
from kcnet_eda.study.mos.calibrate import calibrate, pin_currents
from kcnet_eda.study.mos.operating_point import operating_points
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import prepare

GENERIC = load_pdk("generic180")


@pytest.fixture(scope="module")
def generic_rig():
    return size_cells(Bench(GENERIC, prepare(GENERIC)))


def relu(x):
    return np.maximum(x, 0)


def test_cells_carry_the_edges_currents_whatever_their_sign_and_law():
    rng = np.random.default_rng(3)
    n = 60
    a, c, k = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n), rng.choice([-1.5, -1.0, 0.5, 1.0], n)
    phi = rng.choice([RELU, IDENTITY], n)
    source, target = rng.integers(0, 5, n), rng.integers(0, 5, n)
    edges = Edges(source, target, a, -a, c, k, phi)
    cells, problems = cell_edges(edges)
    assert problems == []
    for v in rng.uniform(-2, 2, (20, 5)):
        z = a * (v[source] - v[target]) + c
        trained = k * np.where(phi == RELU, relu(z), z)
        expected = np.bincount(target, trained, 5) - np.bincount(source, trained, 5)
        sense = v[cells.source] - v[cells.target]
        flow = relu(cells.theta1[cells.cell] * sense + cells.theta2[cells.cell])
        got = np.bincount(cells.target, flow, 5) - np.bincount(cells.source, flow, 5)
        np.testing.assert_allclose(got, expected, atol=1e-4)  # θ has six decimals


def test_edges_that_no_cell_is_are_refused_with_their_reason():
    edges = Edges([1, 1, 1], [2, 2, 2], [1, 1, 1], [-1, -0.5, -1], [0, 0, -9], [1, 1, 1], [LEAKY_RELU, RELU, RELU])
    cells, problems = cell_edges(edges)
    assert len(problems) == 2 and "leaky_relu" in problems[0] and "v_s − v_d" in problems[1]
    assert cells.idle.tolist() == [2] and len(cells) == 0


def test_all_that_cannot_be_built_is_listed_and_nothing_written(tmp_path):
    theta1, theta2 = np.array([0.02, 3.0, 1.0, 0.5, 0.5]), np.array([1.0, 0.0, 2.5, -1.9, 0.0])
    assert len(range_problems(CellLimits(), theta1, theta2, list("abcde"))) == 4
    path = tmp_path / "net.kcnet"
    save_network(ring([(3.0, 0.0), (0.02, 0.1), (1, 1), (1, 1), (1, 1), (1, 1)]), path)
    with pytest.raises(InvalidInputError) as caught:
        api.export(path, tmp_path / "b", level="mos", pdk="generic180")
    (both,) = (p for p in caught.value.problems if "edge 1" in p)
    assert "too long a resistor" in both and "lost in the corner" in both  # an edge has one line, with all its reasons
    assert len(caught.value.problems) == 2 and "edge 0" in str(caught.value) and not (tmp_path / "b").exists()
    with pytest.raises(InvalidInputError, match="needs a process kit"):
        api.export(path, tmp_path / "b", level="mos")
    with pytest.raises(InvalidInputError, match="--v-unit"):
        api.export(path, tmp_path / "b", level="mos", pdk="generic180", v_unit="1")


def test_the_fit_finds_the_law_it_was_given():
    rng = np.random.default_rng(1)
    theta1, theta2 = rng.uniform(0.1, 1.5, 40), rng.uniform(-1, 1, 40)
    theta2 = np.maximum(theta2, 0.6 - 4 * theta1)
    x, _, weight = box_points(41, 5)
    found = fit_relu(x, weight, relu(theta1[:, None] * x + theta2[:, None]), 0.9 * theta1, theta2 + 0.05)
    np.testing.assert_allclose(found, [theta1, theta2], atol=1e-6)


def test_the_fit_is_the_least_one_where_the_corner_lies_on_a_column_of_points():
    """A corner at x = 0, rounded as a cell's is: off in one least sum of squares, on in another."""
    for n_u in (5, 9):
        x, _, weight = box_points(41, n_u)
        current = (2 * 0.05 * np.logaddexp(0, x / 0.05))[None]
        tried = [
            fit_relu(x, weight, current, np.array([2.0]), np.array([start])) for start in (-0.05, -1e-4, 1e-4, 0.05)
        ]
        np.testing.assert_allclose(tried, np.broadcast_to(tried[0], (4, 2, 1)), atol=1e-7)


def test_sizes_are_on_the_grid_and_add_up(generic_rig):
    sizes = first_sizes(generic_rig.design, np.array([0.5, 1.3, 0.0]), np.array([-0.4, 0.7, 1.0]))
    assert sizes.k.tolist() == [4, 9, 2] and sizes.mk.tolist() == [1, 3, 1] and np.isinf(sizes.resistance[2])
    snapped, reasons = snap_sizes(GENERIC, sizes)
    assert reasons == [[], [], []]
    for width, k in zip(snapped.source_width, snapped.k, strict=True):
        length = generic_rig.design.source.l
        fingers = source_fingers(GENERIC, width, length, int(k))
        assert sum(n for *_, n in fingers) == k
        # Half a step of the last finger's length is all that is left of the total
        left = 0.5 * GENERIC.devices.pmos.length.grid / length * fingers[-1][0]
        assert sum(w * length * n / drawn for w, drawn, n in fingers) == pytest.approx(width, abs=1.01 * left)
    parts = series(GENERIC, 3.3e6, "a", "b")
    assert parts[0][0] == "a" and parts[-1][1] == "b" and all(p[1] == q[0] for p, q in pairwise(parts))
    assert sum(GENERIC.resistor.resistance(length) for *_, length in parts) == pytest.approx(3.3e6, rel=1e-4)


def test_calibrated_cells_are_the_ideal_law_within_their_tolerance(generic_rig):
    rng = np.random.default_rng(11)
    theta1, theta2 = rng.uniform(0.15, 1.25, 24), rng.uniform(-0.1, 1.2, 24)
    theta1[::2] *= -1  # as wired in a network: the sensing pins exchanged, s low where it conducts
    found = calibrate(generic_rig, theta1, theta2)
    assert found.out_of_reach.size == 0
    assert np.abs(found.fitted1 - theta1).max() < TOLERANCE and np.abs(found.fitted2 - theta2).max() < TOLERANCE
    assert found.share_of_full_scale(found.max_error).max() < 0.025  # a long-channel textbook process, λ = 0.05/V
    assert found.share_of_full_scale(found.rms_error).max() < 0.01
    assert np.nanmax(found.leakage) < 50e-9 and (found.source_pin > 0).all() and (found.target_pin > 0).all()
    again = calibrate(generic_rig, theta1, theta2)  # from the cache
    assert (again.fitted1 == found.fitted1).all() and again.reason == found.reason


def test_a_constants_pins_are_taken_from_cells_that_are_off(generic_rig):
    """A cell that always conducts shows what the shared bias lines do to it as some femtofarads, of either sign."""
    found = calibrate(generic_rig, np.array([1.1, 0.6, 0.0]), np.array([0.3, -0.5, 0.5]))
    k = found.sizes.k
    for pin in (found.source_pin, found.target_pin):
        assert (pin > 0).all() and pin[2] == pytest.approx(k[2] * np.median(pin[:2] / k[:2]))


def test_a_theta_that_the_loop_cannot_reach_is_reported_with_the_reason(generic_rig):
    tight = replace(
        generic_rig, design=replace(generic_rig.design, offset_per_unit=5.0)
    )  # one unit for θ2 = 2: no source is left
    found = calibrate(tight, np.array([0.15, 0.5]), np.array([2.0, 0.1]))
    assert found.out_of_reach.tolist() == [0] and "narrower" in found.reason[0] and found.reason[1] == ""


def test_a_cell_that_a_sweep_leaves_at_a_solution_of_no_circuit_is_measured_by_itself(generic_rig, monkeypatch):
    """Seen in sky130: a node at 1184 V, and a cell that was off for the rest of its deck."""
    known = calibrate(generic_rig, np.array([1.1, 0.5, 0.8]), np.array([0.3, 0.2, -0.4]))
    wanted = pin_currents(generic_rig, known, fine=False)
    swept, decks = calibration._sweep, []

    def stuck(rig, sizes, theta, points, capacitance):
        decks.append(theta[:, 0].tolist())
        found = swept(rig, sizes, theta, points, capacitance)
        if len(theta) > 1:
            for currents in (found.source, found.sink):
                currents.reshape(len(theta), points[1], points[0])[theta[:, 0] == 0.5, 1:] = 0.0
        return found

    monkeypatch.setattr(calibration, "_sweep", stuck)
    found = pin_currents(generic_rig, known, fine=False)
    assert decks == [[1.1, 0.5, 0.8], [1.1, 0.8], [0.5]]
    # each point is Newton's to reltol, from another point before it
    np.testing.assert_allclose(found.sink, wanted.sink, atol=1e-4)
    np.testing.assert_allclose(found.source, wanted.source, atol=1e-4)


def test_a_network_in_transistors_follows_the_ideal_law(tmp_path):
    path = tmp_path / "ring.kcnet"
    save_network(RING, path)
    bundle = api.export(path, tmp_path / "b", level="mos", pdk="generic180", t_unit="1u")
    assert bundle.circuit.level == "mos" and bundle.circuit.scaling.t_unit == pytest.approx(1e-6)
    rows = list(csv.DictReader((tmp_path / "b/netlist/edge_map.csv").open()))
    assert len(rows) == 6
    for row, (theta1, theta2) in zip(
        rows, zip(RING.phases[0].edges.a, RING.phases[0].edges.c, strict=True), strict=True
    ):
        assert float(row["theta1"]) == pytest.approx(theta1) and float(row["fitted_theta1"]) == pytest.approx(
            theta1, abs=0.01
        )
        assert float(row["fitted_theta2"]) == pytest.approx(theta2, abs=0.01)
    x = np.random.default_rng(5).uniform(-1, 1, (3, 2))
    np.savez(tmp_path / "x.npz", x=x)
    record = api.simulate(tmp_path / "b", tmp_path / "run", data=str(tmp_path / "x.npz"), jobs=1)
    assert record["summary"]["level"] == "mos" and record["summary"]["failed_runs"] == 0
    assert record["contract"]["kept"] is None and record["agreement"]["undecidable"] == []
    assert record["node_error"]["max"] < 0.12
    assert record["contract"]["half_step"]["estimated_error"] < 0.01
    assert record["mos"]["pdk"] == "generic180" and record["mos"]["static_power_w"] > 0
    with np.load(tmp_path / "run/outputs.npz") as arrays:
        np.testing.assert_allclose(arrays["v_end"], arrays["v_end_software"], atol=0.12)
    with pytest.raises(InvalidInputError, match="cannot run the mos level"):
        api.simulate(tmp_path / "b", tmp_path / "no", data=str(tmp_path / "x.npz"), simulator="vacask")


def test_operating_points_obey_kirchhoff_and_stand_in_the_readme(generic_rig, tmp_path):
    found = calibrate(generic_rig, np.array([1.1]), np.array([0.3]))
    point = {(p.cell, p.device): p for p in operating_points(generic_rig, found, 0, "kc_edge_0", 1.0)}
    current = {device: p.current for (cell, device), p in point.items() if cell == "kc_edge_0"}
    assert current["pair1"] + current["pair2"] == pytest.approx(current["tail1"] + current["tail2"], rel=1e-6)
    assert current["fol"] == pytest.approx(current["folt"], rel=1e-6)
    assert current["snk1"] == pytest.approx(current["copy"] + current["trk1"], rel=1e-6)
    # what the pair takes more than the source gives comes from the mirror
    source = sum(i for device, i in current.items() if device.startswith("src"))
    assert current["pair1"] - source == pytest.approx(current["mir"], rel=1e-3)
    assert current["out"] / 2e-6 == pytest.approx(1.1 * 1.0 + 0.3, rel=0.03)
    mirror = point["kc_edge_0", "mir"]
    assert mirror.v_gs == pytest.approx(mirror.v_ds, rel=1e-9) and mirror.gm_id > 1  # a diode
    # off: what is left is leakage, of which a gate has no gm
    assert point["kc_edge_0", "clamp"].current < 1e-9 and point["kc_edge_0", "clamp"].gm_id is None
    assert point["kc_bias", "pm"].current == pytest.approx(2 * 2e-6, rel=0.02)
    save_network(RING, tmp_path / "ring.kcnet")
    bundle = api.export(tmp_path / "ring.kcnet", tmp_path / "b", level="mos", pdk="generic180", start="switches")
    readme = (bundle.path / "README.md").read_text()
    assert all(f"| {cell} | {device} |" in readme for cell, device in point if cell == "kc_bias")
    assert bundle.example["node_error"] < 0.15 and bundle.example["label_agrees"] is True
    assert bundle.example["peak_mib"] > 5 and "nodes within" in readme
    assert bundle.write_time == pytest.approx(30e-9, rel=1e-9)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(5).uniform(-1, 1, (2, 2)))
    record = api.simulate(bundle.path, tmp_path / "run", data=str(tmp_path / "x.npz"), jobs=1)
    assert record["summary"]["failed_runs"] == 0 and record["node_error"]["max"] < 0.15
    assert record["time"]["write_s"] == bundle.write_time and record["decision_s"]["max"] <= 600e-9


def test_the_bundle_runs_by_itself(tmp_path):
    path = tmp_path / "ring.kcnet"
    save_network(RING, path)
    for level, env in (("mos", {"MODELS": str(resource_dir("pdk_examples") / "generic180")}), ("structural", {})):
        bundle = tmp_path / level
        api.export(path, bundle, level=level, pdk="generic180" if level == "mos" else None)
        done = subprocess.run(["sh", bundle / "run.sh"], capture_output=True, text=True, env={**os.environ, **env})
        assert done.returncode == 0 and "PASS" in done.stdout, done.stdout + done.stderr
        assert str(tmp_path) not in "".join(p.read_text() for p in (bundle / "netlist").iterdir())
        api.export(path, bundle, level="structural")  # what run.sh made does not keep a bundle from being replaced


def test_figure_2_in_plain_spice_keeps_the_accuracy_contract(tmp_path):
    bundle = api.export("digits", tmp_path / "b", level="structural")
    assert not (tmp_path / "b/veriloga").exists() and bundle.circuit.simulators == ("ngspice",)
    record = api.simulate(tmp_path / "b", tmp_path / "run", data="digits:test", samples=3, jobs=1)
    assert record["contract"]["kept"] is True and record["agreement"]["count"] == 3
    path = tmp_path / "net.kcnet"
    e = RING.phases[0].edges
    odd = Edges(e.source, e.target, e.a, e.b, e.c, [1, -1, 0.5, 1, -2, 1], [RELU, RELU, IDENTITY, RELU, RELU, IDENTITY])
    save_network(replace(RING, phases=(Phase(4, 1.0, odd),)), path)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(6).uniform(-1, 1, (3, 2)))
    api.export(path, tmp_path / "c", level="structural")
    assert api.simulate(tmp_path / "c", tmp_path / "run2", data=str(tmp_path / "x.npz"), jobs=1)["contract"]["kept"]


def test_the_cell_in_gf180mcu():
    kit = installed_kit("gf180mcu")
    rig = size_cells(Bench(kit, prepare(kit)))
    found = calibrate(rig, np.array([1.1, 0.35, 0.6, 0.2, 0.0]), np.array([0.6, 0.5, -0.9, 0.1, 0.8]))
    assert found.out_of_reach.size == 0
    share = found.share_of_full_scale(found.max_error)
    assert share[:4].max() < 0.015  # the target of the stated range, which begins at |θ1| = 0.1
    assert share[4] < 0.02  # a constant current: it is all tail, and the tails' output conductance shows
    assert found.share_of_full_scale(found.rms_error)[:4].max() < 0.005


def test_edges_that_calibration_cannot_reach_are_named_with_the_reason_and_nothing_is_written(tmp_path):
    """A hundred times the current: the largest slope needs a resistor shorter than the process draws."""
    models = resource_dir("pdk_examples") / "generic180"
    text = models.with_suffix(".yaml").read_text().replace("i0: 2u", "i0: 200u")
    (tmp_path / "kit.yaml").write_text(text.replace("path: generic180", f"path: {models}"))
    save_network(RING, tmp_path / "ring.kcnet")
    with pytest.raises(InvalidInputError) as caught:
        api.export(tmp_path / "ring.kcnet", tmp_path / "b", level="mos", pdk=tmp_path / "kit.yaml")
    (short,) = (p for p in caught.value.problems if "the shortest that is drawn" in p)
    assert short.startswith("edge 0 (θ1 = 1.1, θ2 = 0.64): θ fitted as (") and not (tmp_path / "b").exists()


def test_a_process_of_ones_own_needs_one_yaml_file_from_export_to_simulation(tmp_path, monkeypatch):
    """Of another supply, common mode and current, simulated from elsewhere; and with models in another folder."""
    examples = resource_dir("pdk_examples")
    text = (examples / "generic180.yaml").read_text()
    for old, new in (
        ("name: generic180", "name: moon"),
        ("supply: 3.3", "supply: 3.0"),
        ("common_mode: 1.8", "common_mode: 1.6"),
        ("i0: 2u", "i0: 1u"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    home = tmp_path / "site"
    home.mkdir()
    (home / "moon.yaml").write_text(text)
    shutil.copytree(examples / "generic180", home / "generic180")
    shutil.copytree(examples / "generic180", tmp_path / "models")
    save_network(RING, tmp_path / "ring.kcnet")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(5).uniform(-1, 1, (1, 2)))
    for kit, models in (("moon", None), ("moon", "models"), ("generic180", "models")):
        monkeypatch.chdir(home)
        folder = tmp_path / f"{kit}-{models}"
        named = "moon.yaml" if kit == "moon" else kit
        where = None if models is None else tmp_path / models
        api.export(tmp_path / "ring.kcnet", folder, level="mos", pdk=named, models=where)
        monkeypatch.chdir(tmp_path)
        written = load_pdk(folder / "pdk.yaml")
        assert written.operating == load_pdk(home / "moon.yaml" if kit == "moon" else kit).operating
        assert written.source.path == str(where or home / "generic180")
        assert "`pdk.yaml`" in (folder / "README.md").read_text()
        record = api.simulate(folder, tmp_path / f"run-{kit}-{models}", data="x.npz", jobs=1)
        assert record["summary"]["failed_runs"] == 0 and record["node_error"]["max"] < 0.15


def test_a_folder_that_is_somebodys_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "notes").write_text("mine")
    for module, work in (("study.mos.export", "size_cells"), ("export.bundle", "solve_examples")):
        monkeypatch.setattr(f"kcnet_eda.{module}.{work}", lambda *_: pytest.fail("it worked first"))
    for level, pdk in (("mos", "generic180"), ("structural", None)):
        with pytest.raises(InvalidInputError, match="not a bundle that may be replaced"):
            api.export("digits_mos", tmp_path, level=level, pdk=pdk)
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]
