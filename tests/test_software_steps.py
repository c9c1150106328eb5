"""The chain's software steps: torch against the trainer's own kernel and the truth, lowered devices against both."""

from __future__ import annotations

import sqlite3
import sys

import numpy as np
import pytest
from conftest import random_network

from kcnet_eda.dynamics.reference import final_states
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.network.data import load_data
from kcnet_eda.network.graph import labels
from kcnet_eda.network.store import save_network
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.simulate import simulate
from kcnet_eda.study.software_steps import lowered_network, trained_with


@pytest.mark.parametrize("passes", [(), ("merge", "fold"), ("merge",), ("fold",)])
@pytest.mark.parametrize("seed", range(2))
def test_devices_as_edges_are_the_network(seed, passes):
    network = random_network(seed)
    circuit = build_circuit(network, resolve(c=1e-12, t_unit=1e-12), passes)
    lowered = lowered_network(network, circuit)
    assert passes != ("merge", "fold") or lowered.n_edges != network.n_edges
    x0 = network.initial_state(np.random.default_rng(seed).uniform(-1, 1, (2, network.inputs.size)))
    # The passes are exact; both solutions are within 1e-7 of the truth (test_dynamics)
    assert np.abs(final_states(lowered, x0) - final_states(network, x0)).max() < 5e-7


def test_torch_solves_what_training_solved(digits_network):
    pytest.importorskip("torch", reason="NOT RUN: torch is not installed")
    from kcnet_eda.dynamics.gradient import PhaseSolver
    from kcnet_eda.dynamics.torch_ode import torch_states

    network = digits_network
    assert trained_with(network)[:2] == ("heun", 5)
    x0 = network.initial_state(load_data("digits", None, features=64, seed=0).x[:3])
    edges = network.phases[0].edges
    path = PhaseSolver(network.phases[0], steps=5).evolve((edges.a, edges.b, edges.c, edges.k), x0.T.copy())
    v = torch_states(network, x0, "heun", 5)
    assert np.abs(path[-1].T - v).max() < 1e-12  # the same sums in another order
    # and in many steps it is the reference, to the steps' error at the edges' corners
    fine = torch_states(network, x0, "rk4", 200)
    assert np.abs(fine - final_states(network, x0)).max() < 1e-4


def test_torch_knows_every_law():
    pytest.importorskip("torch", reason="NOT RUN: torch is not installed")
    from kcnet_eda.dynamics.torch_ode import torch_states

    network = random_network(11)
    x0 = network.initial_state(np.random.default_rng(1).uniform(-1, 1, (5, network.inputs.size)))
    assert np.abs(torch_states(network, x0, "rk4", 400) - final_states(network, x0)).max() < 1e-4


def test_without_torch_the_step_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "kcnet_eda.dynamics.torch_ode", raising=False)
    save_network(random_network(5), tmp_path / "n.kcnet")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(1).uniform(-1, 1, (4, 6)), y=np.zeros(4, dtype=int))
    record = simulate(tmp_path / "n.kcnet", tmp_path / "r", data=str(tmp_path / "d.npz"), simulator="engine", jobs=1)
    assert record["software_steps"]["torch"] == {"status": "not run", "said": "torch is not installed"}
    assert record["software_steps"]["lowered"]["status"] == "run"
    with np.load(tmp_path / "r" / "outputs.npz") as arrays:
        assert "v_end_torch" not in arrays and "v_end_lowered" in arrays


def test_waveforms_of_changed_labels_are_kept(tmp_path, monkeypatch):
    """The truth of every other sample is fabricated, so that its label is another; some of them are among
    the first twelve samples, of which a run keeps waveforms anyway, and there are more than it keeps so."""
    from kcnet_eda.report.write import write_report
    from kcnet_eda.study import simulate as module

    real = module.reference_states

    def other(store, keys, network, *words):
        v = real(store, keys, network, *words).copy()
        for row in range(0, len(v), 2):
            outputs = v[row, network.readout]
            v[row, network.readout[(int(outputs.argmax()) + 1) % outputs.size]] += 10.0
        return v

    monkeypatch.setattr(module, "reference_states", other)
    network = random_network(3)
    save_network(network, tmp_path / "n.kcnet")
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "d.npz", x=rng.uniform(-1, 1, (30, network.inputs.size)), y=rng.integers(0, 3, 30))
    run = tmp_path / "run"
    record = simulate(tmp_path / "n.kcnet", run, data=str(tmp_path / "d.npz"), simulator="engine", jobs=1)
    with np.load(run / "outputs.npz") as arrays:
        changed = np.flatnonzero(arrays["label"] != labels(network, arrays["v_end_software"]))
    assert record["changed"]["count"] == changed.size == 15
    assert [entry["position"] for entry in record["changed"]["shown"]] == changed[:12].tolist()
    with sqlite3.connect(run / "study.sqlite") as store:
        for entry in record["changed"]["shown"]:
            row = store.execute("SELECT sample, status, waveform FROM runs WHERE key = ?", (entry["key"],)).fetchone()
            assert row[:2] == (entry["sample"], "passed") and row[2] is not None
    page, _ = write_report(run, tmp_path / "one.html")
    assert page.read_text().count('<div id="changed-') == min(12, changed.size)
    page, combined = write_report([run, run], tmp_path / "both.html")
    assert page.read_text().count('<div id="run1-changed-') == min(12, changed.size)
    assert [s["waveform_key"] is not None for s in combined["changed"][0]["samples"]] == [
        i < 12 for i in range(changed.size)
    ]
