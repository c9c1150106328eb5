"""Tanh edges in transistors, held to closed forms and to independent solvers, on the process written here."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from kcnet_eda import api
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import LEAKY_RELU, RELU, TANH
from kcnet_eda.network.store import save_network
from kcnet_eda.physical.calibration import TOLERANCE
from kcnet_eda.physical.cell_kind import TANH_CELL
from kcnet_eda.physical.mos_cell import cell_edges
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.relu_fit import box_points
from kcnet_eda.physical.tanh_cell import TanhLimits, tanh_edges
from kcnet_eda.physical.tanh_fit import fit_tanh
from kcnet_eda.study.mos.calibrate import calibrate_kind
from kcnet_eda.study.mos.export import buildable
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import prepare

GENERIC = load_pdk("generic180")
# The process written here has no weak inversion, where a pair's law is tanh, and its transistors' output conductance is
# a large one: of 100 random edges (benchmarks/mos_tanh.py) the worst is off by 5.6 % of k, 1.9 % rms.
LAW_MAX, LAW_RMS = 0.06, 0.02


def network(edges, name, duration, start):
    n = 1 + int(max(edges.source.max(), edges.target.max()))
    nodes = np.arange(1, n)
    return Network(name, (Phase(n, duration, edges),), nodes, nodes, examples=[start])


def bundle_of(net, folder):
    save_network(net, folder / "net.kcnet")
    return api.export(folder / "net.kcnet", folder / "b", level="mos", pdk="generic180", t_unit="1u")


def simulated(bundle, folder, x):
    np.savez(folder / "x.npz", x=np.atleast_2d(x))
    record = api.simulate(bundle.path, folder / "run", data=str(folder / "x.npz"), jobs=1)
    assert record["summary"]["failed_runs"] == 0
    with np.load(folder / "run/outputs.npz") as arrays:
        return arrays["v_end"]


def test_tanh_cells_carry_the_edges_currents_whatever_their_signs():
    rng = np.random.default_rng(3)
    n = 80
    a, c, k = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n), rng.choice([-1.5, -1.0, 0.5, 1.0], n)
    source, target = rng.integers(0, 5, n), rng.integers(0, 5, n)
    cells = tanh_edges(Edges(source, target, a, -a, c, k, np.full(n, TANH)))
    assert (cells.theta2 >= 0).all() and (cells.gain > 0).all()
    for v in rng.uniform(-2, 2, (20, 5)):
        trained = k * np.tanh(a * (v[source] - v[target]) + c)
        expected = np.bincount(target, trained, 5) - np.bincount(source, trained, 5)
        sense = v[cells.source] - v[cells.target]
        row = cells.cell
        flow = cells.gain[row] * np.tanh(cells.theta1[row] * sense + cells.theta2[row])
        got = np.bincount(cells.target, flow, 5) - np.bincount(cells.source, flow, 5)
        np.testing.assert_allclose(got, expected, atol=1e-4)  # parameters have six decimals


def test_the_fit_finds_the_law_it_was_given():
    rng = np.random.default_rng(1)
    theta = np.stack([rng.uniform(0.3, 1.25, 40), rng.uniform(0, 1, 40), rng.uniform(0.5, 2, 40)], axis=1)
    x, _, weight = box_points(41, 5)
    found = fit_tanh(x, weight, theta[:, 2:] * np.tanh(theta[:, :1] * x + theta[:, 1:2]), theta * 0.9 + 0.03)
    np.testing.assert_allclose(found, theta, atol=1e-6)


def test_what_cannot_be_built_is_listed_with_its_reason_and_nothing_is_written(tmp_path):
    law = Edges([1, 1, 1, 1, 1, 1], [2] * 6, [3, 0.05, 1, 1, 1, 1], [-3, -0.05, -1, -1, -1, -0.5],
                [0, 0, -2, 0, 0, 0], [1, 1, 1, 5, 0.1, 1], [TANH] * 6)  # fmt: skip
    save_network(network(law, "odd", 1.0, [0.5, -0.5]), tmp_path / "net.kcnet")
    with pytest.raises(InvalidInputError) as caught:
        api.export(tmp_path / "net.kcnet", tmp_path / "b", level="mos", pdk="generic180")
    said = caught.value.problems
    assert len(said) == 6 and not (tmp_path / "b").exists()
    for words in ("edge 0: ", "edge 1: ", "edge 2: ", "edge 3: ", "edge 4: ", "do not depend on v_s − v_d alone"):
        assert sum(words in text for text in said) == 1
    assert TanhLimits().range_text() in str(caught.value)
    # elsewhere, where only rectifying cells are known, tanh is refused by name
    assert "tanh" in cell_edges(law)[1][0]
    mixed = Edges([1, 1], [2, 2], [1, 1], [-1, -1], [0, 0], [1, 1], [TANH, LEAKY_RELU])
    with pytest.raises(InvalidInputError, match="leaky_relu"):
        buildable(network(mixed, "mixed", 1.0, [0.5, -0.5]), GENERIC)


def test_calibrated_cells_have_the_law_and_equal_currents_at_both_ends():
    rig = size_cells(Bench(GENERIC, prepare(GENERIC)))
    rng = np.random.default_rng(11)
    theta = np.stack([rng.uniform(0.2, 1.25, 12), rng.uniform(0, 1, 12), rng.uniform(0.5, 2, 12)], axis=1)
    found = calibrate_kind(rig, TANH_CELL, theta)
    assert found.out_of_reach.size == 0 and found.miss.max() < TOLERANCE
    assert found.share_of_full_scale(found.max_error).max() < LAW_MAX
    assert found.share_of_full_scale(found.rms_error).max() < LAW_RMS
    assert found.mismatch.max() < 0.05  # the mirrors' output conductance, λ = 0.08 µm/V over L, over 0.8 V
    again = calibrate_kind(rig, TANH_CELL, theta)  # from the cache
    assert (again.fitted == found.fitted).all() and again.reason == found.reason and again.kind is TANH_CELL
    wild = calibrate_kind(rig, TANH_CELL, np.array([[6.0, 0.0, 1.0], [0.8, 0.2, 1.0]]))
    assert wild.out_of_reach.tolist() == [0] and "slope is too large" in wild.reason[0]


def test_two_nodes_and_a_tanh_edge_follow_the_closed_form(tmp_path):
    """u = v1 − v2 with u' = −2·tanh(a·u): sinh(a·u) decays as exp(−2·a·τ), and v1 + v2 stays."""
    a, duration = 0.8, 0.7
    net = network(Edges([1], [2], [a], [-a], [0], [1], [TANH]), "two", duration, [0.9, -0.7])
    bundle = bundle_of(net, tmp_path)
    starts = np.array([[0.9, -0.7], [-0.3, 0.5], [0.6, 0.4]])
    v_end = simulated(bundle, tmp_path, starts)[:, 1:]
    u0 = starts[:, 0] - starts[:, 1]
    u = np.arcsinh(np.sinh(a * u0) * np.exp(-2 * a * duration)) / a
    # Each end's current is off by at most LAW_MAX, for 0.7 units of time
    atol = LAW_MAX * duration
    np.testing.assert_allclose(v_end[:, 0] - v_end[:, 1], u, atol=2 * atol)
    np.testing.assert_allclose(v_end.sum(axis=1), starts.sum(axis=1), atol=atol)


def test_a_network_of_tanh_and_relu_edges_follows_the_ideal_law(tmp_path):
    law = Edges([1, 2, 3, 1, 3, 2], [2, 3, 1, 3, 2, 1], [1.0, -0.6, 0.4, 0.8, -0.5, 0.9],
                [-1.0, 0.6, -0.4, -0.8, 0.5, -0.9], [0.3, -0.7, 0.0, 0.4, 0.6, -0.2], [1, 1, -1, 1, 1, 0.6],
                [TANH, TANH, TANH, RELU, RELU, TANH])  # fmt: skip
    start, duration = [0.8, -0.6, 0.2], 1.0
    bundle = bundle_of(network(law, "mixed", duration, start), tmp_path)

    def slope(_, v):
        full = np.append(0.0, v)
        z = law.a * full[law.source] + law.b * full[law.target] + law.c
        i = law.k * np.where(law.phi == TANH, np.tanh(z), np.maximum(z, 0))
        return (np.bincount(law.target, i, 4) - np.bincount(law.source, i, 4))[1:]

    truth = solve_ivp(slope, (0, duration), start, method="DOP853", rtol=1e-9, atol=1e-12).y[:, -1]
    # Four edges of error LAW_RMS at a node for a unit of time, and what the rectifying cells were allowed (0.12)
    np.testing.assert_allclose(simulated(bundle, tmp_path, start)[0, 1:], truth, atol=4 * LAW_RMS)
    rows = list(csv.DictReader((bundle.path / "netlist/edge_map.csv").open()))
    assert [row["law"] for row in rows] == ["tanh", "tanh", "tanh", "relu", "relu", "tanh"]
    assert all(abs(float(row["fitted_gain"]) - float(row["gain"])) < TOLERANCE for row in rows)
    mos = json.loads((bundle.path / "manifest.json").read_text())["mos"]
    assert mos["kinds"]["tanh"]["instances"] == 4 and mos["kinds"]["relu"]["instances"] == 2
    assert mos["static_power_w"] > 0 and mos["area_um2"]["gates"] > 0
    readme = (bundle.path / "README.md").read_text()
    assert "k*tanh(a*" in readme and "ReLU(theta1*" in readme and "| kc_tanh_" in readme and "| kc_edge_" in readme
    assert {p.name for p in (bundle.path / "schematic").glob("*.sym")} == {"kc_edge.sym", "kc_tanh.sym"}
    assert bundle.example["node_error"] < 0.2
