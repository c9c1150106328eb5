"""What published networks need of a run: both simulators, phases handed over, points as a distribution."""

import json

import numpy as np
import pytest
from conftest import random_network

from kcnet_eda.api import simulate
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.store import save_network


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
