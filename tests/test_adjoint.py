"""The adjoint circuit: closed forms, the differentiated software, the order of convergence, faults and resume."""

import re
import sys

import numpy as np
import pytest
from conftest import decaying, driven_corner, make_network, random_network, rc_pair

from kcnet_eda.cli.main import main
from kcnet_eda.dynamics.adjoint import edge_gradient, eq6_gradient, eq6_rows
from kcnet_eda.dynamics.loss import Loss
from kcnet_eda.dynamics.loss_gradient import (
    discrete_gradient,
    relative_error,
    software_gradient,
    steps_between_corners,
    way_of,
)
from kcnet_eda.dynamics.reference import final_states
from kcnet_eda.errors import InvalidInputError, ToolFailedError
from kcnet_eda.export.adjoint import render_adjoint
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, RELU, TANH
from kcnet_eda.network.store import save_network
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.adjoint.run import study_adjoint
from kcnet_eda.study.adjoint.simulate import AdjointJob, prepare_adjoint, run_adjoint
from kcnet_eda.study.store import Status

FIRST = Loss("output")  # with label 0: the first read-out node's voltage at T


def in_circuit(folder, network, v0, loss=FIRST, label=0, steps=(400,), scaling=None):
    """Gradients out of the adjoint circuit, one a step count."""
    circuit = build_circuit(network, scaling or resolve(), ())
    bench = prepare_adjoint(network, circuit, loss, folder / "bench", 60.0)
    found = []
    for n in steps:
        result = run_adjoint(bench, AdjointJob("key", 0, label, v0, SolverSettings(1e-3, n, 2)))
        assert result.status is Status.PASSED, result.message
        nodes = network.max_nodes
        found.append((result.v_end[:nodes], result.v_end[nodes:].reshape(4, -1)))
    return found


def complex_step(function, *at):
    """Derivatives of an analytic function by each of its arguments, exact to rounding."""
    grid = [[x + (1e-30j if i == j else 0) for j, x in enumerate(at)] for i in range(len(at))]
    return np.array([function(*row).imag / 1e-30 for row in grid])


@pytest.mark.parametrize("scaling", [resolve(), resolve(c=1e-9, t_unit=1e-6, v_unit=0.2, v_cm=0.9)])
def test_two_capacitors_and_a_conductance(tmp_path, scaling):
    """u = v1 − v2 decays as exp(−2gτ) and the sum stays, forward; so do λ1 − λ2 and their sum, backward."""
    g, p, q = 0.8, 1.0, -0.4
    network = rc_pair(g)
    ((v0, edges),) = in_circuit(tmp_path, network, np.array([0.0, p, q]), scaling=scaling)
    fall = np.exp(-2 * g)
    area = (1 - fall) / (2 * g)
    expected = [
        -0.5 * ((p + q) * area + (p - q) * fall),  # a
        -0.5 * ((p + q) * area - (p - q) * fall),  # b
        -area,  # c
        -g * (p - q) * fall,  # k
    ]
    np.testing.assert_allclose(v0, [0, (1 + fall) / 2, (1 - fall) / 2], atol=2e-6)
    np.testing.assert_allclose(edges[:, 0], expected, atol=5e-6)
    software = software_gradient(network, np.array([0.0, p, q]), FIRST, 0)
    np.testing.assert_allclose(software.edges[:, 0], expected, rtol=1e-10)


def opening(p, q, theta1, theta2, current):
    """v1(1) of ``driven_corner`` from [p, q]."""
    at = (-theta2 / theta1 - (p - q)) / current
    rest = (current / 2 - theta2) / theta1
    u = rest + (-theta2 / theta1 - rest) * np.exp(-2 * theta1 * (1 - at))
    return (p + q + current + u) / 2


def test_a_rectifier_that_opens_on_the_way(tmp_path):
    """Eq. (6) in closed form: the edge opens at τ = 0.25 − u(0), within a step."""
    at = (0.05, 0.01, 2.0, -0.5, 1.0)
    exact = complex_step(opening, *at)
    network = driven_corner(*at[2:])
    v0 = np.array([0.0, *at[:2]])
    software = software_gradient(network, v0, FIRST, 0)
    for of_v0, of_edges, allowed in [
        (software.v0, software.edges, 2e-6),
        *((v, e, 5e-5) for v, e in in_circuit(tmp_path, network, v0)),
    ]:
        np.testing.assert_allclose(of_v0[1:], exact[:2], atol=allowed)
        np.testing.assert_allclose(eq6_gradient(of_edges[:, :1])[:, 0], exact[2:4], atol=allowed)
        assert of_edges[2, 1] == pytest.approx(exact[4], abs=allowed)
    assert eq6_rows(network.phases[0].edges).tolist() == [0]


def test_a_tanh_edge(tmp_path):
    """du/dτ = −2k·tanh(wu) keeps sinh(wu)·exp(2kwτ)."""
    at = (0.9, -0.3, 1.3, 0.7)

    def end(p, q, w, k):
        return (p + q + np.arcsinh(np.sinh(w * (p - q)) * np.exp(-2 * k * w)) / w) / 2

    exact = complex_step(end, *at)
    network = make_network([(1, 2, 1.3, -1.3, 0.0, 0.7, TANH)], 3)
    ((v0, edges),) = in_circuit(tmp_path, network, np.array([0.0, *at[:2]]))
    np.testing.assert_allclose(v0[1:], exact[:2], atol=5e-6)
    np.testing.assert_allclose([edges[0, 0] - edges[1, 0], edges[3, 0]], exact[2:], atol=5e-6)


@pytest.mark.parametrize("seed", [1, 4])
def test_all_laws_parallel_and_ground_edges(tmp_path, seed):
    """Laws that weigh their ends differently, ground at either end: both sides agree, and at the solver's order."""
    network = random_network(seed)
    v0 = network.initial_state(network.examples)[0]
    loss = Loss(gain=2.0)
    truth = software_gradient(network, v0, loss, 1)
    errors = [
        [relative_error(v, truth.v0), relative_error(e, truth.edges)]
        for v, e in in_circuit(tmp_path, network, v0, loss, 1, (100, 400))
    ]
    assert max(errors[1]) < 1e-4
    assert np.log(np.array(errors[0]) / errors[1]).min() / np.log(4) > 1.6  # of 2; corners fall anywhere in a step


def test_the_software_gradient_is_autograds_through_the_same_steps():
    """torch differentiates the laws and RK4 by itself; nothing of the compiled right-hand side is in it."""
    torch = pytest.importorskip("torch")
    network = random_network(5)
    e, loss, label = network.phases[0].edges, Loss(gain=2.0), 0
    start = network.initial_state(network.examples)[0]
    way = way_of(network, start, steps_between_corners(network, start, 50))
    found = discrete_gradient(network, way, loss.gradient(network, way.v[-1], label))

    v0 = torch.tensor(start, requires_grad=True)
    law = [torch.tensor(getattr(e, name), requires_grad=True) for name in ("a", "b", "c", "k")]
    source, target = torch.tensor(e.source.astype(np.int64)), torch.tensor(e.target.astype(np.int64))
    phi = torch.tensor(e.phi.astype(np.int64))
    free = torch.ones(v0.numel(), dtype=torch.float64)
    free[0] = 0.0

    def rate(v):
        a, b, c, k = law
        x = a * v[source] + b * v[target] + c
        shapes = torch.stack([torch.relu(x), torch.nn.functional.leaky_relu(x, 0.01), torch.tanh(x), x])
        i = k * shapes[phi, torch.arange(x.numel())]
        return free * torch.zeros_like(v).index_add(0, target, i).index_add(0, source, -i)

    v = v0
    for h in np.diff(way.times).tolist():
        k1 = rate(v)
        k2 = rate(v + h / 2 * k1)
        k3 = rate(v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * (k2 + k3) + rate(v + h * k3))
    torch.nn.functional.cross_entropy(2.0 * v[network.readout.tolist()][None], torch.tensor([label])).backward()
    np.testing.assert_allclose(found.v0[1:], v0.grad.numpy()[1:], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.edges, [p.grad.numpy() for p in law], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_software_gradient_is_that_of_finite_differences(seed):
    network = random_network(seed)
    phase = network.phases[0]
    v0 = network.initial_state(network.examples)[0]
    loss, label, eps = Loss(gain=2.0), 2, 1e-4
    found = software_gradient(network, v0, loss, label)

    def at(v, **changed):
        e = phase.edges
        columns = {name: changed.get(name, getattr(e, name)) for name in ("a", "b", "c", "k")}
        edges = Edges(e.source, e.target, *columns.values(), e.phi)
        moved = Network("moved", (Phase(phase.n_nodes, 1.0, edges),), network.inputs, network.readout)
        return loss.value(moved, way_of(moved, v, steps_between_corners(moved, v, 200)).v[-1], label)

    def slope(value):
        return (value(eps) - value(-eps)) / (2 * eps)

    end = way_of(network, v0, steps_between_corners(network, v0)).v[-1]
    np.testing.assert_allclose(end, final_states(network, v0[None])[0], atol=2e-7)
    unit = np.eye(v0.size)
    of_v0 = [slope(lambda x, i=i: at(v0 + x * unit[i])) for i in range(1, v0.size)]
    np.testing.assert_allclose(found.v0[1:], of_v0, atol=2e-6)
    for row, name in enumerate(("a", "b", "c", "k")):
        for edge in range(0, len(phase.edges), 7):
            one = np.eye(len(phase.edges))[edge]
            numeric = slope(lambda x, name=name, one=one: at(v0, **{name: getattr(phase.edges, name) + x * one}))
            assert found.edges[row, edge] == pytest.approx(numeric, abs=2e-6)


@pytest.mark.parametrize("phi", [RELU, LEAKY_RELU])
def test_the_quadrature_finds_the_corner(phi):
    """x = τ − 0.37 and λ_d − λ_s = 1 + τ, linear both: the integrals are exact whatever the steps are."""
    edges = Edges([1], [2], [1.0], [-1.0], [-0.37], [2.0], [phi])
    times = np.linspace(0, 1, 4)
    zero = np.zeros_like(times)
    found = edge_gradient(edges, times, np.stack([zero, times, zero], axis=1), np.stack([zero, zero, 1 + times], 1))

    def integral(low, high, *powers):
        antiderivative = np.polynomial.Polynomial(powers).integ()
        return antiderivative(high) - antiderivative(low)

    leak = 0.01 if phi == LEAKY_RELU else 0.0

    def both(*powers):
        return (1 - leak) * integral(0.37, 1, *powers) + leak * integral(0, 1, *powers)

    expected = [2 * both(0, 1, 1), 0.0, 2 * both(1, 1), both(-0.37, 0.63, 1)]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-14)


def test_both_circuits_have_the_same_devices_with_the_same_parameters():
    circuit = build_circuit(random_network(2), resolve(), ())

    def devices(text):
        rows = re.findall(r"^(n\w+) (\S+) (\S+) .*?kc_(?:edge|adjoint)_(\w+)(.*)$", text, re.M)
        return sorted((name, *sorted([s, d]), kind, values) for name, s, d, kind, values in rows)

    forward, adjoint = render_netlist(circuit, circuit.stages[0], "ngspice"), render_adjoint(circuit)
    assert devices(forward) == devices(adjoint) and len(devices(forward)) == 30
    capacitors = re.compile(r"^c\w+ .*$", re.M)
    assert capacitors.findall(forward) == capacitors.findall(adjoint)


def test_what_has_no_adjoint_is_refused(study, tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="2 problems") as error:
        render_adjoint(build_circuit(decaying(None, None), resolve()))
    assert "2 phases" in str(error.value) and "merge, fold" in str(error.value)
    save_network(decaying(None, None), tmp_path / "two.kcnet")
    (tmp_path / "study.yaml").write_text(f"network: {tmp_path / 'two.kcnet'}\ndata: gaussian:3\nloss: sum\n")
    with pytest.raises(InvalidInputError, match="has 2 phases; the adjoint is built for one"):
        study_adjoint(tmp_path / "study.yaml", tmp_path / "run")
    monkeypatch.setattr("kcnet_eda.study.adjoint.plan.LARGE", 1)
    with pytest.raises(InvalidInputError, match="has 2 edges; the software's gradient"):
        study_adjoint(study(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def study(tmp_path):
    """A study of a small network, two samples at two step counts; ``study(**changes)`` writes its file."""
    network = driven_corner()
    save_network(network, tmp_path / "net.kcnet")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).uniform(0, 0.1, (5, 2)), y=np.zeros(5, int))

    def write(**changes):
        content = {
            "network": tmp_path / "net.kcnet",
            "data": tmp_path / "data.npz",
            "samples": 2,
            "seed": 1,
            "loss": "output",
            "steps": [50, 100],
        } | changes
        file = tmp_path / "study.yaml"
        file.write_text("".join(f"{key}: {value}\n" for key, value in content.items()))
        return file

    return write


def kcnet(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["kcnet", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_a_study_from_its_file_to_its_report_and_again(study, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert kcnet(monkeypatch, "study", "adjoint", study(), "--out", out) == 0
    assert "kept" in capsys.readouterr().out
    with np.load(out / "outputs.npz") as o:
        assert o["of_v0"].shape == (2, 3) and o["of_edges"].shape == (2, 4, 2)
        np.testing.assert_allclose(o["of_edges"], o["of_edges_software"], atol=1e-3)
    (kept,) = (out / "circuit").glob("sample*")
    assert {"forward.sp", "adjoint.sp", "replay.inc", "forward.raw", "adjoint.raw"} <= {f.name for f in kept.iterdir()}
    page = (out / "report.html").read_text()
    assert "gradients out of the adjoint circuit" in page and 'id="convergence"' in page
    # Again, with a step count more and a stricter limit: what is there is not run again, and the limit is missed.
    with monkeypatch.context() as patch:
        ran = []
        patch.setattr(
            "kcnet_eda.study.adjoint.run.run_adjoint", lambda bench, job: ran.append(job) or run_adjoint(bench, job)
        )
        patch.setattr("kcnet_eda.study.adjoint.run.software_gradient", lambda *_: pytest.fail("solved again"))
        assert kcnet(monkeypatch, "study", "adjoint", study(steps=[50, 100, 200]), "--out", out) == 0
        assert [job.settings.steps for job in ran] == [200, 200]
    assert kcnet(monkeypatch, "study", "adjoint", study(error=1e-9), "--out", tmp_path / "strict") == 2
    assert kcnet(monkeypatch, "report", out) == 0


def test_a_forward_run_that_fails_says_so(study, tmp_path, monkeypatch, fake_program):
    broken = fake_program("ngspice", 'case "$*" in *version*) echo ngspice-46;; *) echo "Error: no such device";; esac')
    monkeypatch.setenv("KCNET_NGSPICE", str(broken))
    with pytest.raises(ToolFailedError, match=r"none of the runs passed.*the forward run of sample \d failed.*no such"):
        study_adjoint(study(), tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()
    monkeypatch.delenv("KCNET_NGSPICE")
    assert study_adjoint(study(), tmp_path / "run")["summary"]["kept"]


def test_a_bad_study_file_is_told_whole(study, tmp_path):
    file = study(steps="[100, 50]", error=2, loss="hinge", gain=-1, sead=3, samples=0)
    with pytest.raises(InvalidInputError, match="6 problems") as error:
        study_adjoint(file, tmp_path / "run")
    for place in ("steps", "error", "loss", "gain", "sead", "samples"):
        assert place in str(error.value)
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)))
    with pytest.raises(InvalidInputError, match="has no labels, which the loss 'output' needs"):
        study_adjoint(study(), tmp_path / "run")


def test_the_losses():
    network = make_network([(1, 2, 1.0, -1.0, 0.0, 1.0, IDENTITY)], 4, readout=[2, 3])
    v = np.array([0.0, 0.3, 0.5, -0.2])
    for loss in (Loss(gain=3.0), Loss("output"), Loss("sum")):
        numeric = [
            (loss.value(network, v + 1e-6 * d, 1) - loss.value(network, v - 1e-6 * d, 1)) / 2e-6 for d in np.eye(4)
        ]
        np.testing.assert_allclose(loss.gradient(network, v, 1), numeric, atol=1e-8)
