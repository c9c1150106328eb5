"""What published networks need of a run: both simulators, phases handed over, points as a distribution."""

import json

import numpy as np
import pytest
from conftest import decaying, random_network, repeating

from kcnet_eda.api import simulate
from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.bundle import export
from kcnet_eda.export.handover import time_in_phases
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.store import load_network, save_network
from kcnet_eda.study.simulate import STORE
from kcnet_eda.study.store import open_store


@pytest.fixture
def generative(tmp_path):
    """Two phases that move two Gaussian coordinates to two outputs."""
    made = [random_network(seed, 3, 20).phases[0] for seed in (1, 2)]
    phases = tuple(Phase(3, 0.5, p.edges) for p in made)
    net = Network("points", phases, [1, 2], [1, 2], examples=np.random.default_rng(0).normal(size=(4, 2)))
    save_network(net, tmp_path / "points.kcnet")
    return tmp_path / "points.kcnet"


def test_both_simulators_are_judged_by_one_contract(tmp_path, generative):
    record = simulate(generative, tmp_path / "r", data="gaussian:6", seed=1, simulator="both")
    both = record["both"]
    with open_store(tmp_path / "r" / "study.sqlite") as first, open_store(tmp_path / "r/vacask/study.sqlite") as second:
        assert first.references().keys() == second.references().keys() and len(first.references()) == 6
    assert both["kept"] and both["n"] == both["same_label"] == 6 and both["max_rel"] <= 1e-3
    assert [v.split()[0].split("-")[0] for v in both["simulators"]] == ["ngspice", "vacask"]
    assert json.loads((tmp_path / "r" / "report.json").read_text())["both"] == both
    assert "ngspice to VACASK" in (tmp_path / "r" / "report.html").read_text()
    assert (tmp_path / "r" / "vacask" / "report.html").is_file()


def test_points_are_compared_as_distributions(tmp_path, generative):
    record = simulate(generative, tmp_path / "r", data="gaussian:30", seed=1)
    found = record["two_sample"]
    # The same points in: within the contract of 1e-3 each, so the clouds are 1e-6 of the range squared apart at most.
    assert found["n"] == 30 and found["circuit_to_software"] < 1e-4
    assert found["circuit_to_other_software"] == pytest.approx(found["software_to_other_software"], rel=1e-2)
    assert "Generated points" in (tmp_path / "r" / "report.html").read_text()


def test_a_hand_over_is_named_or_refused(tmp_path, generative):
    gated = simulate(generative, tmp_path / "g", data="gaussian:3", seed=1, hand_over="gated")
    staged = simulate(generative, tmp_path / "s", data="gaussian:3", seed=1)
    assert (gated["network"]["hand_over"], staged["network"]["hand_over"]) == ("gated", "staged")
    with np.load(tmp_path / "g" / "outputs.npz") as a, np.load(tmp_path / "s" / "outputs.npz") as b:
        assert np.abs(a["v_end"] - b["v_end"]).max() <= 1e-3 * np.ptp(b["v_end"])
    with pytest.raises(InvalidInputError, match="staged or gated"):
        simulate(generative, tmp_path / "x", data="gaussian:3", hand_over="thrown")


@pytest.mark.parametrize("net", [repeating(), decaying(None, 0, 1)])
def test_the_record_counts_the_windows_where_the_run_has_them(tmp_path, net):
    save_network(net, tmp_path / "n.kcnet")
    data = "gaussian:3"
    gated = simulate(tmp_path / "n.kcnet", tmp_path / "g", data=data, seed=1, simulator="both", hand_over="gated")
    staged = simulate(tmp_path / "n.kcnet", tmp_path / "s", data=data, seed=1)
    assert gated["both"]["kept"] and staged["contract"]["kept"]
    windows = gated["time"]["windows_s"]
    spent = sum(end - begin for begin, end in windows)
    assert windows and staged["time"]["windows_s"] == []
    for record, total in ((gated, 1e-12 * net.duration + spent), (staged, 1e-12 * net.duration)):
        s = record["summary"]
        assert s["t_total_s"] == pytest.approx(total, abs=0) and s["f_hz"] == pytest.approx(1 / total)
        assert record["time"]["phases_s"] == pytest.approx(1e-12 * net.duration, abs=0)
        assert record["time"]["transfers_s"] == pytest.approx(spent, abs=0)
    assert "(both are in T)" in (tmp_path / "g" / "report.html").read_text()
    assert "not in T</b>" in (tmp_path / "s" / "report.html").read_text()

    for folder, record in (("g", gated), ("s", staged)):
        with open_store(tmp_path / folder / STORE) as store:
            result = store.result(record["shown"]["key"])
        with np.load(tmp_path / folder / "outputs.npz") as arrays:
            x0, v_end = arrays["x0"][0], arrays["v_end"][0]
        time, volts = result.waveform
        apart = [(time < begin - 2e-14) | (time > end + 2e-14) for begin, end in record["time"]["windows_s"]]
        inside = np.logical_and.reduce([*apart, time < time[-1]])
        # In a step next to a hand-over staged and software may stand on different sides of a residual's jump.
        edges = np.cumsum([p.duration for p in net.phases])
        tau = time_in_phases(time, record["time"]["windows_s"]) / 1e-12
        inside &= (np.abs(tau[:, None] - edges) > 2e-2).all(axis=1)
        inside &= tau > edges[-2] if net.readout.max() >= net.phases[0].n_nodes else True
        assert inside.sum() > 20
        v = trajectory(net, x0, tau[inside])[:, net.readout]
        np.testing.assert_allclose(volts[inside], v, atol=2e-3 * np.ptp(v))
        np.testing.assert_allclose(volts[-1], v_end[net.readout], atol=1e-9)


def test_a_run_says_when_nodes_leave_the_range_of_dropped_edges(tmp_path, generative):
    export(generative, tmp_path / "b", lower="all")
    for scale, nodes in ((0.5, False), (4.0, True)):
        x = scale * load_network(generative).examples
        np.savez(tmp_path / "d.npz", x=x)
        out = tmp_path / f"r{scale:g}"
        found = simulate(tmp_path / "b", out, data=str(tmp_path / "d.npz"))["outside_range"]
        assert (found["nodes"] > 0) == nodes and (found["by"] > 0) == nodes
        assert ("leave the voltage range" in (out / "report.html").read_text()) == nodes
