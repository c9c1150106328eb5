"""Circuits in real simulators against closed forms, within the accuracy contract, at any scale."""

import math

import numpy as np
import pytest
from conftest import (
    decaying,
    driven_corner,
    driven_corner_solution,
    make_network,
    random_network,
    rc_pair,
    repeating,
    repeating_solution,
)

from kcnet_eda.dynamics.contract import compare, node_scales
from kcnet_eda.dynamics.reference import final_states
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.bundle import export
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, RELU, TANH
from kcnet_eda.network.store import save_network
from kcnet_eda.study.batch import Job, run_jobs
from kcnet_eda.study.legs import prepare_bench
from kcnet_eda.study.store import Status
from kcnet_eda.tools.simulators import SIMULATORS


@pytest.fixture(params=["ngspice", "vacask"])
def simulator(request):
    try:
        SIMULATORS[request.param].find()
    except KcnetError as error:
        pytest.skip(f"NOT RUN: {error}")
    return SIMULATORS[request.param]


@pytest.fixture
def simulated(tmp_path):
    """``simulated(network, x0, simulator, gated, **export options)``: final states [n, nodes] in model units."""

    def run(network, x0, simulator, gated=False, **options):
        save_network(network, tmp_path / "net.kcnet")
        bundle = export(tmp_path / "net.kcnet", tmp_path / "bundle", **options)
        bench = prepare_bench(bundle, simulator, tmp_path / "work", gated, timeout_s=60)
        results = {}
        jobs = [Job(str(i), i, np.asarray(x, float), bundle.settings[simulator.name], False) for i, x in enumerate(x0)]
        run_jobs(bench, jobs, 1, results.__setitem__)
        assert [r.message for r in results.values() if r.status is not Status.PASSED] == []
        return np.stack([results[str(i)].v_end for i in range(len(x0))])

    return run


def test_rc_pair(simulated, simulator):
    v = simulated(rc_pair(1.3), [[0, 1.0, -0.5]], simulator)[0]
    u = 1.5 * math.exp(-2.6)
    # The contract: 1e-3 of each node's way, 0.75·(1 − exp(−2.6)) here.
    np.testing.assert_allclose(v[1:], [0.25 + u / 2, 0.25 - u / 2], atol=1e-3 * 0.69)


@pytest.mark.parametrize("theta1", [1.5, -0.8])
def test_two_node_edge_conducting(simulated, simulator, theta1):
    # u' = −2(θ1·u + θ2) from u = 1: conducting throughout, decaying or growing with the sign of θ1
    theta2, shift = 1.0, 1.0 / theta1
    net = make_network([(1, 2, theta1, -theta1, theta2, 1.0, RELU)], 3, examples=[[1.0, 0.0]])
    v = simulated(net, [[0, 1.0, 0.0]], simulator)[0]
    u = (1.0 + shift) * math.exp(-2 * theta1) - shift
    np.testing.assert_allclose(v[1:], [0.5 + u / 2, 0.5 - u / 2], atol=1e-3 * abs(u - 1))


def test_two_node_edge_blocking(simulated, simulator):
    net = make_network([(1, 2, 1.0, -1.0, -2.0, 1.0, RELU)], 3, examples=[[1.0, 0.0]])
    np.testing.assert_allclose(simulated(net, [[0, 1.0, 0.25]], simulator)[0], [0, 1.0, 0.25], atol=1e-9)


def test_two_node_edge_across_its_corner(simulated, simulator):
    v = simulated(driven_corner(), [[0, 0.0, 0.0]], simulator)[0]
    np.testing.assert_allclose(v[1:], driven_corner_solution(), atol=1e-3 * driven_corner_solution().min())


def test_current_sources(simulated, simulator):
    net = make_network(
        [
            (0, 1, 0.0, 0.0, 0.7, 1.0, IDENTITY),
            (2, 0, 0.0, 0.0, 0.4, 1.0, RELU),
            (1, 2, 0.0, 0.0, -0.1, -1.0, LEAKY_RELU),
        ],
        3,
        examples=[[0.0, 0.0]],
    )
    v = simulated(net, [[0, 0.1, 0.2]], simulator)[0]
    # constant currents: the trapezoidal rule is exact but for the netlist's nine digits
    np.testing.assert_allclose(v[1:], [0.1 + 0.7 - 0.001, 0.2 - 0.4 + 0.001], atol=1e-7)


def test_tanh_edge(simulated, simulator):
    net = make_network([(1, 2, 1.0, -1.0, 0.0, 1.0, TANH)], 3, examples=[[1.2, 0.0]])
    v = simulated(net, [[0, 1.2, 0.0]], simulator)[0]
    u = math.asinh(math.sinh(1.2) * math.exp(-2))
    np.testing.assert_allclose(v[1] - v[2], u, atol=1e-3 * 1.2)


@pytest.mark.parametrize("lower", ["none", "merge,fold", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_all_laws_together_away_from_the_common_mode(simulated, simulator, seed, lower):
    net = random_network(seed)
    x0 = net.initial_state(net.examples)
    v = simulated(net, x0, simulator, c="3p", v_unit="0.2", i_unit="5u", v_cm="0.9", lower=lower)
    v_ref = final_states(net, x0)
    assert compare(net, v, v_ref, node_scales(net, x0)).max_rel <= 1e-3


def test_a_tighter_error_is_reached(simulated, simulator):
    net = driven_corner()
    x0 = net.initial_state(net.examples)
    v = simulated(net, x0, simulator, error=1e-5)
    exact = np.array([[0, *driven_corner_solution()]])
    assert compare(net, v, exact, node_scales(net, x0)).max_rel <= 1e-5


def test_the_scale_changes_no_voltage(simulated, simulator, digits_network):
    """The paper's claim on the digits network itself: (1 F, 1 s) to (1 fF, 1 fs), within 1e-6 of the range."""
    x0 = digits_network.initial_state(digits_network.examples[:2])
    ends = [
        simulated(digits_network, x0, simulator, c=c, t_unit=t)
        for c, t in (("1", "1"), ("1n", "1n"), ("1p", "1p"), ("1f", "1f"))
    ]
    spread = np.ptp(np.stack(ends), axis=0).max()
    assert spread <= 1e-6 * np.ptp(ends[0])


def _phases(*n_nodes):
    """Phases of random edges of every law, in which node sets shrink and grow."""
    made = [random_network(10 + i, n, 25).phases[0] for i, n in enumerate(n_nodes)]
    phases = tuple(Phase(p.n_nodes, 0.4 + 0.2 * i, p.edges) for i, p in enumerate(made))
    inputs = np.arange(1, n_nodes[0])
    examples = np.random.default_rng(0).uniform(-1, 1, (3, inputs.size))
    return Network("phases", phases, inputs, [1, 2], examples=examples)


@pytest.mark.parametrize("lower", ["none", "merge,fold"])
@pytest.mark.parametrize("gated", [False, True])
def test_phases_hand_over_staged_and_gated(simulated, simulator, gated, lower):
    """Three phases of 6, 4 and 7 nodes: two nodes vanish, come back empty, and one is new; either way within the
    contract, so the two ways agree within it."""
    net = _phases(6, 4, 7)
    x0 = net.initial_state(net.examples)
    v = simulated(net, x0, simulator, gated, v_cm="0.6", lower=lower)
    v_ref = final_states(net, x0)
    assert compare(net, v, v_ref, node_scales(net, x0)).max_rel <= 1e-3


@pytest.mark.parametrize("gated", [False, True])
def test_sixteen_phases_in_closed_form(simulated, simulator, gated):
    """A capacitor charged and discharged in turn: v' = 1 for a phase, v' = −v for the next."""
    charge = make_network([(0, 1, 0.0, 0.0, 1.0, 1.0, IDENTITY)], 2).phases[0].edges
    decay = make_network([(1, 0, 1.0, 0.0, 0.0, 1.0, IDENTITY)], 2).phases[0].edges
    phases = tuple(Phase(2, 0.1, decay if i % 2 else charge) for i in range(16))
    net = Network("sixteen", phases, [1], [1], examples=np.array([[0.3]]))
    v = simulated(net, [[0, 0.3]], simulator, gated)[0, 1]
    exact = 0.3
    for _ in range(8):
        exact = (exact + 0.1) * math.exp(-0.1)
    assert v == pytest.approx(exact, abs=1e-3 * (exact - 0.3))


@pytest.mark.parametrize("gated", [False, True])
def test_new_nodes_repeat_old_ones_in_closed_form(simulated, simulator, gated):
    """Two capacitors decay for a phase; three more start as their copies, and all five decay at rates of their own."""
    net = repeating()
    v = simulated(net, [[0, 1.0, -0.6]], simulator, gated, v_cm="0.6")
    np.testing.assert_allclose(v[0, 1:], repeating_solution(1.0, -0.6), atol=1e-3 * 0.1)


@pytest.mark.parametrize("gated", [False, True])
def test_residuals_in_closed_form(simulated, simulator, gated):
    """v decays by e in each phase: u = e^-1, then e^-2 + u, then that times e^-1 + u (the first phase's end again)."""
    net = decaying(None, 0, 0)
    v = simulated(net, [[0, 1.0]], simulator, gated)
    u = math.exp(-1)
    assert v[0, 1] == pytest.approx((u * u + u) * u + u, abs=2e-4)


@pytest.mark.parametrize("gated", [False, True])
def test_a_phase_that_adds_its_own_end_doubles_it(simulated, simulator, gated):
    v = simulated(decaying(0), [[0, 1.0]], simulator, gated, v_cm="0.5")
    assert v[0, 1] == pytest.approx(2 * math.exp(-1), abs=2e-4)


@pytest.mark.parametrize("c, t_unit", [("1", "1"), ("1p", "1p"), ("1f", "1n")])
def test_a_transfer_leaves_nothing_at_any_scale(simulated, simulator, c, t_unit):
    """At most 3e-9 of what a transfer moves: one constant current acts, which the solver follows exactly but for the
    enables' edges, and the nodes stand a million times farther off than they move."""
    edges = make_network([(0, 1, 0.0, 0.0, 1e-3, 1.0, IDENTITY)], 2).phases[0].edges
    phases = (Phase(2, 1.0, edges), Phase(4, 0.5, edges, "repeat"), Phase(4, 2.0, edges, residual_from=1))
    net = Network("ramp", phases, [1], [1, 2, 3], examples=np.array([[1000.0]]))
    v = simulated(net, [[0, 1000.0]], simulator, True, c=c, t_unit=t_unit)
    np.testing.assert_allclose(v[0, 1:], [1000.0015 + 1000.0035, 2000.002, 2000.002], atol=1e-5)


@pytest.mark.parametrize("lower", ["none", "merge,fold"])
@pytest.mark.parametrize("gated", [False, True])
def test_every_kind_of_hand_over_at_once(simulated, simulator, gated, lower):
    """Residuals of near and far phases and of the phase itself, nodes that vanish and come back as copies of others,
    a residual at the very end: against the reference, staged and gated."""
    p = _phases(5, 5, 3, 8, 5, 5).phases
    kinds = [("zeros", None), ("zeros", 0), ("zeros", 2), ("repeat", None), ("zeros", None), ("repeat", 1)]
    phases = tuple(Phase(q.n_nodes, q.duration, q.edges, *kind) for q, kind in zip(p, kinds, strict=True))
    examples = np.random.default_rng(3).uniform(-1, 1, (3, 4))
    net = Network("all", phases, [1, 2, 3, 4], [1, 4], examples=examples)
    x0 = net.initial_state(examples)
    v = simulated(net, x0, simulator, gated, v_cm="0.6", lower=lower)
    assert compare(net, v, final_states(net, x0), node_scales(net, x0)).max_rel <= 1e-3


def test_enables_let_every_sample_through(simulated, simulator):
    """Forty samples over three enable edges; with edges of a 200th of a step ngspice lost one in seven."""
    rng = np.random.default_rng(5)

    def phase():
        source = np.tile([0, 1, 2, 1, 0, 2], 25)
        target = np.tile([1, 2, 0, 0, 2, 1], 25)
        a, b, c = rng.normal(0, 0.3, (3, source.size))
        return Phase(3, 0.5, Edges(source, target, a, b, c, np.ones(source.size), np.full(source.size, TANH)))

    net = Network("moons", tuple(phase() for _ in range(4)), [1, 2], [1, 2], examples=rng.normal(0, 1, (8, 2)))
    x0 = net.initial_state(rng.normal(0, 1, (40, 2)))
    v = simulated(net, x0, simulator, gated=True)
    assert compare(net, v, final_states(net, x0), node_scales(net, x0)).max_rel <= 1e-3
