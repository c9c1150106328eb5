"""Cells trimmed by runs of their network: sensitivities against closed forms, the step against a linear world, the loop
on the process written here."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_network
from runs_of_cells import RING, make_cells

from kcnet_eda import api
from kcnet_eda.errors import InvalidInputError, ToolFailedError
from kcnet_eda.network.laws import RELU, TANH
from kcnet_eda.network.store import load_network, save_network
from kcnet_eda.physical.calibration import Calibration, CellGroup
from kcnet_eda.physical.cell_kind import RELU_CELL, TANH_CELL
from kcnet_eda.physical.mos_cell import CellEdges, CellSizes, cell_edges
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.physical.tanh_cell import tanh_edges
from kcnet_eda.physical.trim import Knobs, Trimmer
from kcnet_eda.study.mos import export, trim
from kcnet_eda.study.mos.export import calibrated_circuit, kit_scaling, mos_settings
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.run import MosRun
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import prepare


def group_of(kind, edges: CellEdges) -> CellGroup:
    """Cells of which nothing but the law is asked."""
    n = len(edges.theta)
    none = np.full(n, np.nan)
    sizes = CellSizes(*[none] * 5)
    return CellGroup(edges, Calibration(kind, edges.theta, sizes, edges.theta, *[none] * 7, ("",) * n, 0))


def knobs_of(rows, nodes):
    law = make_network(rows, nodes + 1).phases[0].edges
    found = [(RELU_CELL, cell_edges(law, (TANH,))[0]), (TANH_CELL, tanh_edges(law))]
    return Knobs([group_of(kind, edges) for kind, edges in found if len(edges)], nodes)


def test_sensitivities_of_a_leak_are_those_of_the_closed_form():
    """dv/dτ = −(1 + ρ)·(θ1·v + θ2)/(1 + γ) while the edge to ground conducts: v = (v0 + q)·exp(−r·τ) − q, q = θ2/θ1."""
    theta1, theta2, v0 = 0.9, 0.3, 1.2
    knobs = knobs_of([(1, 0, theta1, -theta1, theta2, 1.0, RELU)], 1)
    tau = np.linspace(0, 1.5, 4)
    found = knobs.sensitivity(np.array([v0]), tau)[:, 0]

    def v(t1=theta1, t2=theta2, ratio=1.0, c=1.0):
        return (v0 + t2 / t1) * np.exp(-t1 * ratio / c * tau) - t2 / t1

    h, scale = 1e-6, 4 * theta1 + theta2  # a share of full scale at the box's edge, v_s − v_d = 4
    wanted = [
        (v(t1=theta1 + h * scale / 4) - v()) / h,
        (v(t2=theta2 + h * scale) - v()) / h,
        (v(ratio=1 + h) - v()) / h,
        (v(c=1 + h) - v()) / h,
    ]
    # one-sided differences of 1e-4 are off by half of that times the second derivative, which is of order 10 here;
    # single precision by 1e-7 of the value
    np.testing.assert_allclose(found, np.stack(wanted, axis=1), atol=2e-3)


def test_sensitivities_of_tanh_cells_and_of_a_pair_of_nodes_are_those_of_runs_with_other_edges():
    rows = [(1, 2, 0.7, -0.7, 0.2, 1.0, TANH), (2, 1, 0.6, -0.6, 0.1, 1.0, RELU), (2, 0, 0.5, -0.5, 0.0, 1.0, RELU)]
    start, tau = np.array([0.8, -0.5]), np.linspace(0, 1, 3)
    found = knobs_of(rows, 2).sensitivity(start, tau)
    h = 1e-3
    scale = np.array([4 * 0.5 + 0.0, 4 * 0.6 + 0.1])  # cells are in the order of their θ
    others = {
        0: [rows[0], rows[1], (2, 0, 0.5 + h * scale[0] / 4, -0.5 - h * scale[0] / 4, 0.0, 1.0, RELU)],
        4: [rows[0], (2, 1, 0.6, -0.6, 0.1 + h * scale[1], 1.0, RELU), rows[2]],
        6: [(1, 2, 0.7 + h, -0.7 - h, 0.2, 1.0, TANH), *rows[1:]],  # its full scale is k = 1, its a as it is
        8: [(1, 2, 0.7, -0.7, 0.2, 1.0 + h, TANH), *rows[1:]],
    }
    zero = knobs_of(rows, 2)
    still = zero.runs(np.zeros((1, zero.size)), start, tau)
    for knob, other in others.items():
        there = knobs_of(other, 2)
        moved = (there.runs(np.zeros((1, there.size)), start, tau) - still)[:, 0] / h
        np.testing.assert_allclose(found[:, :, knob], moved, atol=5e-3)
    spread = zero.spread
    assert spread[9] == 0 and (spread[[0, 4, 6, 8]] > 0).all()  # a tanh cell has no ratio to turn
    assert zero.coarse.tolist() == [False, False, True] * 2 + [False] * 6


def test_in_a_linear_world_the_step_takes_away_what_knobs_can():
    rng = np.random.default_rng(1)
    knobs = knobs_of([(1, 2, 0.9, -0.9, 0.3, 1.0, RELU), (2, 0, 0.8, -0.8, 0.4, 1.0, RELU)], 2)
    ways = [rng.standard_normal((50, 2, knobs.size)) for _ in range(90)]  # 9000 numbers against a prior of 8
    off = knobs.spread * rng.standard_normal(knobs.size)
    there = [way @ off for way in ways]
    trimmer, rest = Trimmer(knobs, ways, there), np.zeros(knobs.size)
    stand = trimmer.better(rest, there, fine=False)
    # as one least-squares problem; the prior's share is σ_v²/(9000·σ²) of it, 0.5 % for the smallest σ
    every, sigma = np.concatenate(ways).reshape(-1, knobs.size), np.sqrt(np.mean(np.square(there)))
    both = np.concatenate([every / sigma, np.diag(1 / knobs.spread)])
    wanted = np.linalg.lstsq(both, np.concatenate([np.ravel(there) / sigma, rest]), rcond=None)[0]
    np.testing.assert_allclose(stand, -wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(stand, -off, atol=0.02 * np.abs(off).max())
    again = trimmer.better(stand, [way @ (off + stand) for way in ways], fine=False)
    np.testing.assert_allclose(again, stand, rtol=1e-6, atol=1e-12)
    fine = trimmer.better(rest, there, fine=True)
    assert (fine[knobs.coarse] == 0).all() and (fine[~knobs.coarse] != 0).all()
    dumb = Trimmer(knobs, [0 * way for way in ways], there)  # runs that say nothing leave all at rest
    assert (dumb.better(rest, there, fine=False) == 0).all()


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The network of three cells, its file and its data's."""
    return make_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def circuit(cells):
    net, kit = load_network(cells[0]), load_pdk("generic180")
    rig = size_cells(Bench(kit, prepare(kit)))
    mos = calibrated_circuit(net, rig, kit_scaling(kit, None, None))
    with np.load(cells[1]) as data:
        return rig, mos, net, mos_settings(net, 1e-3), net.initial_state(data["x"])


def test_a_trimmed_bundle_follows_the_laws_better_and_says_what_was_done(tmp_path):
    net, data = tmp_path / "ring.kcnet", tmp_path / "data.npz"
    save_network(RING, net)
    np.savez(data, x=np.random.default_rng(0).uniform(-1, 1, (13, 2)))
    bundle = api.export(net, tmp_path / "b", level="mos", pdk="generic180", trim=10, data=str(data))
    done = bundle.manifest["mos"]["trim"]
    assert done["runs"] == 10 and done["held_out"] == 3
    for before, after in (("before", "after"), ("held_out_before", "held_out_after")):
        assert done[after][0] < 0.6 * done[before][0] and done[after][1] < done[before][1]
    readme = (bundle.path / "README.md").read_text()
    assert "10 runs that they were trimmed by, before" in readme and f"{done['after'][1]:.3f}" in readme
    plain = api.export(net, tmp_path / "plain", level="mos", pdk="generic180")
    assert plain.manifest["mos"]["trim"] is None and "trimmed" not in (plain.path / "README.md").read_text()
    assert plain.manifest["mos"]["fit"]["max_theta_error"] < bundle.manifest["mos"]["fit"]["max_theta_error"] < 0.1
    # what is written is what was run: final voltages are no further off than the runs were anywhere
    record = api.simulate(bundle.path, tmp_path / "run", data=str(data), jobs=1)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "trimmed by 10 runs" in page and f"{done['held_out_after'][1]:.3f} after" in page
    assert record["node_error"]["max"] <= max(done["after"][1], done["held_out_after"][1]) + 1e-6  # as text is rounded


def test_the_best_of_what_was_run_is_taken(circuit, monkeypatch):
    """Runs that only get worse: the circuit stays as it was calibrated."""
    rig, mos, net, settings, x0 = circuit
    calls = []

    def worse(rig, deck, cancel=None):
        calls.append(deck)
        tau = np.linspace(0, net.duration, 21)
        return MosRun(tau, np.full((21, 3), 10.0 * len(calls)), tau, 0.0, 0.0)

    monkeypatch.setattr(trim, "run_in_transistors", worse)
    monkeypatch.setattr(trim.os, "cpu_count", lambda: 1)
    kept = trim.trimmed(rig, mos, net, settings, x0[:2], x0[2:3])
    assert len(calls) == (trim.ROUNDS + 1) * 2 + 2
    assert kept.capacitance_share is None and kept.netlist() == mos.netlist()
    assert kept.trim.before == kept.trim.after


def test_knobs_turn_sizes_that_can_be_drawn_and_capacitors(circuit):
    rig, mos = circuit[:2]
    knobs = Knobs(mos.groups, 3)
    turn = np.zeros(knobs.size)
    turn[[0, 1, 2, -1]] = 5e-3, -5e-3, 1e-2, -2e-2
    turned = trim._turn(rig, mos, knobs.turned(turn))
    before, after = mos.groups[0].found.sizes, turned.groups[0].found.sizes
    assert after.resistance[0] < before.resistance[0] and after.source_width[0] > before.source_width[0]
    assert after.sink_length[0] < before.sink_length[0]  # more leaves s
    np.testing.assert_array_equal(after.resistance[1:], before.resistance[1:])
    grid = rig.pdk.devices.nmos.length.grid
    assert after.sink_length[0] / grid == pytest.approx(round(after.sink_length[0] / grid), abs=1e-6)
    c = mos.circuit.scaling.c
    np.testing.assert_allclose(turned.drawn_capacitance - mos.drawn_capacitance, [0, 0, 0, -0.02 * c], atol=1e-20)


def test_a_run_that_fails_ends_the_trimming_and_nothing_is_written(cells, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ToolFailedError("the simulator wrote no result")

    monkeypatch.setattr(trim, "run_in_transistors", fails)
    with pytest.raises(ToolFailedError, match="no result"):
        api.export(cells[0], tmp_path / "b", level="mos", pdk="generic180", trim=4, data=str(cells[1]))
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_trimmed_is_refused_before_any_work(cells, tmp_path, monkeypatch):
    net, data = cells
    common = {"level": "mos", "pdk": "generic180"}
    for options, message in (
        ({"trim": 6, "data": str(data)}, "takes 8 inputs, a quarter of them to judge by; of .*data.npz, there are 6"),
        ({"trim": -3, "data": str(data)}, "--trim -3"),
        ({"trim": 2}, "of the examples of network 'small', but the first, there are 0"),
        ({"data": str(data)}, "is what --trim draws from"),
        ({"trim": 2, "data": "digits:train"}, "has 64 values a sample"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            api.export(net, tmp_path / "b", **common, **options)
    with pytest.raises(InvalidInputError, match="--trim 2: has no meaning at the behavioral level"):
        api.export(net, tmp_path / "b", trim=2)
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(trim, "MOST_BYTES", 4 * 2.5 * 21 * 3 * 12)  # of two runs and a half
    monkeypatch.setattr(export, "calibrate_kind", None)  # it is told before anything is calibrated
    with pytest.raises(InvalidInputError, match=r"for 12 knobs of network 'small'[^/]*2 runs can be had"):
        api.export(net, tmp_path / "b", **common, trim=3, data=str(data))
