"""The software truth against closed forms, a naive sum, torch, and the orders its methods must show."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import driven_corner, driven_corner_solution, make_network, random_network, rc_pair

from kcnet_eda.dynamics import reference, solvers
from kcnet_eda.dynamics.contract import compare, node_scales, steps_for
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.network.graph import Network, Phase
from kcnet_eda.network.laws import IDENTITY, RELU, TANH


def naive_currents(phase, v):
    phi = [lambda x: max(x, 0), lambda x: x if x > 0 else 0.01 * x, math.tanh, lambda x: x]
    e = phase.edges
    return np.array(
        [e.k[j] * phi[e.phi[j]](e.a[j] * v[e.source[j]] + e.b[j] * v[e.target[j]] + e.c[j]) for j in range(len(e))]
    )


def naive_rate(phase, v):
    out = np.zeros_like(v)
    for j, i in enumerate(naive_currents(phase, v)):
        out[phase.edges.source[j]] -= i
        out[phase.edges.target[j]] += i
    out[0] = 0
    return out


@pytest.mark.parametrize("seed", range(5))
def test_right_hand_side_is_kirchhoffs_law(seed):
    phase = random_network(seed).phases[0]
    v = np.random.default_rng(seed).normal(0, 1, (phase.n_nodes, 3))
    v[0] = 0
    rate = RightHandSide(phase)
    for m in range(3):
        expected = naive_rate(phase, v[:, m])
        # Sums of at most 30 currents of order one: double rounding stays far below 1e-13.
        np.testing.assert_allclose(rate(np.ascontiguousarray(v[:, m])), expected, atol=1e-13)
        np.testing.assert_allclose(rate(v)[:, m], expected, atol=1e-13)

        i = naive_currents(phase, v[:, m])
        power = i * (v[phase.edges.source, m] - v[phase.edges.target, m])
        sums = [np.abs(i).sum(), power[power > 0].sum(), -power[power < 0].sum()]
        peak, found = rate.flows(v[:, m : m + 1])
        assert peak == pytest.approx(np.abs(i).max(), abs=1e-13)
        np.testing.assert_allclose(found[:, 0], sums, atol=1e-12)


def test_reference_meets_closed_forms():
    v = reference.final_states(rc_pair(0.7), np.array([[0, 1.0, -0.5]]))[0]
    assert v[1] + v[2] == pytest.approx(0.5, abs=1e-9)
    assert v[1] - v[2] == pytest.approx(1.5 * math.exp(-1.4), abs=1e-9)
    # The corner costs order: the error seen at one is near the square root of what the tolerance asks a step.
    np.testing.assert_allclose(
        reference.final_states(driven_corner(), np.zeros((1, 3)))[0, 1:], driven_corner_solution(), atol=1e-7
    )


def test_an_edge_that_does_not_conduct_leaves_its_nodes_alone():
    net = make_network([(1, 2, 1.0, -1.0, -5.0, 1.0, RELU)], 3)
    np.testing.assert_array_equal(reference.final_states(net, np.array([[0, 1.0, -0.5]]))[0], [0, 1.0, -0.5])


def test_tanh_edge_meets_its_closed_form():
    # u = v1 − v2 with u' = −2·tanh(u): sinh(u) = sinh(u0)·exp(−2τ)
    net = make_network([(1, 2, 1.0, -1.0, 0.0, 1.0, TANH)], 3)
    v = reference.final_states(net, np.array([[0, 1.2, 0.0]]))[0]
    assert v[1] - v[2] == pytest.approx(math.asinh(math.sinh(1.2) * math.exp(-2)), abs=1e-9)


def test_reference_error_on_the_digits_lies_far_below_the_contract(digits_network):
    """Against a tolerance a hundred times tighter: below 1e-6 of a unit, a thousandth of the contract's 1e-3."""
    x0 = digits_network.initial_state(digits_network.examples[:2])
    end = [digits_network.duration]
    for x in x0:
        tight = reference.trajectory(digits_network, x, end, rtol=1e-12)
        assert np.abs(tight - reference.trajectory(digits_network, x, end)).max() < 1e-6


def test_trajectory_passes_through_phases():
    first = Phase(3, 0.5, rc_pair().phases[0].edges)
    second = Phase(2, 0.5, make_network([(0, 1, 0.0, 0.0, 1.0, 1.0, IDENTITY)], 2).phases[0].edges)
    net = Network("two", (first, second), [1, 2], [1])
    v = reference.trajectory(net, np.array([0, 1.0, 0.0]), [0.0, 0.25, 0.5, 1.0])
    decay = 0.5 + 0.5 * np.exp(-2 * np.array([0, 0.25, 0.5]))
    np.testing.assert_allclose(v[:, 1], [*decay, decay[-1] + 0.5], atol=1e-9)
    assert np.isnan(v[2:, 2]).all() and not np.isnan(v[:2]).any()
    *_, (_, tau, end) = solvers.rk4(net, np.array([[0, 1.0, 0.0]]), 100)
    assert tau == 1.0
    assert end[1, 0] == pytest.approx(v[-1, 1], abs=1e-9)


def test_solvers_add_a_residual():
    """v decays by e in each of two phases, and the first phase's end is added at the end: e^-2 + e^-1."""
    decay = make_network([(1, 0, 1.0, 0.0, 0.0, 1.0, IDENTITY)], 2).phases[0].edges
    net = Network("two", (Phase(2, 1.0, decay), Phase(2, 1.0, decay, residual_from=0)), [1], [1])
    x0, exact = np.array([[0, 1.0]]), np.exp(-2) + np.exp(-1)
    assert reference.final_states(net, x0)[0, 1] == pytest.approx(exact, abs=1e-9)
    assert solvers.adams_moulton(net, x0, 100)[0, 1] == pytest.approx(exact, abs=2e-5)  # h²/12·(2e^-2 + e^-1)
    *_, (_, _, v) = solvers.rk4(net, x0, 100)
    assert v[1, 0] == pytest.approx(exact, abs=1e-9)


def test_processes_give_what_one_gives():
    net = random_network(3)
    x0 = net.initial_state(np.random.default_rng(0).uniform(-1, 1, (6, 6)))
    seen = {}

    def collect(rows, v):
        seen.update(zip(rows.tolist(), v, strict=True))

    np.testing.assert_array_equal(reference.final_states(net, x0, 2, collect), reference.final_states(net, x0))
    assert sorted(seen) == list(range(6))


def test_divergence_is_an_error_not_a_number():
    unstable = make_network([(1, 0, -80.0, 0.0, 0.0, 1.0, IDENTITY)], 2, duration=20.0)
    with pytest.raises(KcnetError, match="diverges"):
        reference.final_states(unstable, np.array([[0.0, 1.0]]))


@pytest.mark.parametrize(
    ("method", "order", "first"), [("rk4", 4, 8), ("adams_moulton", 2, 8), ("adams_moulton", 3, 32)]
)
def test_order_of_convergence(method, order, first):
    """On a smooth law halving the step divides the error by 2^order; the slope over two halvings, within 0.25,
    from ``first`` steps: a multistep rule needs more of them until its first, trapezoidal steps no longer tell."""
    net = make_network(
        [(1, 2, 1.3, -0.8, 0.2, 0.9, TANH), (2, 3, 1.0, 0.5, -0.1, 1.1, TANH), (3, 1, 0.7, -1.0, 0.0, 1.0, IDENTITY)], 4
    )
    x0 = np.array([[0, 0.9, -0.4, 0.3]])
    exact = reference.final_states(net, x0)

    def end(steps):
        if method == "adams_moulton":
            return solvers.adams_moulton(net, x0, steps, order)
        *_, (_, _, v) = solvers.rk4(net, x0, steps)
        return v.T

    errors = [np.abs(end(n) - exact).max() for n in (first, 2 * first, 4 * first)]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(slopes - order).max() < 0.25


def test_steps_follow_the_error_asked_for():
    net = driven_corner()
    x0 = np.array([[0, 0.0, 0.0], [0, 0.3, 0.1]])
    v_ref = reference.final_states(net, x0)
    scales = node_scales(net, x0)
    coarse, fine = steps_for(net, x0, v_ref, scales, 1e-2), steps_for(net, x0, v_ref, scales, 1e-5)
    assert coarse < fine
    v = solvers.adams_moulton(net, x0, fine)
    assert compare(net, v, v_ref, scales).max_rel <= 1e-5
    with pytest.raises(InvalidInputError, match="between"):
        steps_for(net, x0, v_ref, scales, 0.0)


def test_a_stiff_network_gets_a_step_that_resolves_it_or_an_error():
    net = make_network([(1, 0, 400.0, 0.0, -200.0, 1.0, IDENTITY)], 2)
    x0 = np.array([[0.0, 1.0]])
    v_ref = reference.final_states(net, x0)
    assert node_scales(net, x0)[1] == pytest.approx(0.5, rel=0.05)  # 50 explicit steps would say 1e45, or more
    assert np.isnan(solvers.adams_moulton(net, x0, 50)).all()
    assert steps_for(net, x0, v_ref, node_scales(net, x0), 1e-3) > 200


def test_scales_are_the_readouts_range_and_each_other_nodes_own():
    # Node 1 rises by 1 and node 2 falls by 2 from wherever they start; node 3 goes up and is an output; 4 rests.
    net = make_network(
        [
            (0, 1, 0.0, 0.0, 1.0, 1.0, IDENTITY),
            (2, 0, 0.0, 0.0, 2.0, 1.0, IDENTITY),
            (0, 3, 0.0, 0.0, 0.5, 1.0, IDENTITY),
        ],
        5,
        inputs=[1, 2],
        readout=[2, 3],
    )
    x0 = np.array([[0, 1.0, 0, 0, 0], [0, 3.0, 0.4, 0, 0]])
    v_ref = x0 + np.array([0, 1.0, -2.0, 0.5, 0.0])
    scales = node_scales(net, x0)
    # one sample and an example are two samples
    np.testing.assert_allclose(node_scales(dataclasses.replace(net, examples=[[3.0, 0.4]]), x0[:1]), scales)
    # node 1 covers 1 .. 4; the outputs end between −2 and 0.5; the widest range stands for the node at rest
    np.testing.assert_allclose(scales[1:], [3.0, 2.5, 2.5, 3.0])
    found = compare(net, v_ref + np.array([0, 0, 0, 0.25, 0]), v_ref, scales)
    assert found.max_rel_readout == pytest.approx(0.1) and found.max_rel_other == 0.0
    assert found.max_rel == found.max_rel_readout and found.worst_node == 3


def test_a_stiff_network_is_solved_not_called_divergent():
    """An RC pair with a rate of 2e4 relaxes at once; the slow one beside it follows e^-2τ."""
    net = make_network(
        [(1, 2, 1e4, -1e4, 0.0, 1.0, IDENTITY), (3, 4, 1.0, -1.0, 0.0, 1.0, IDENTITY)], 5, examples=[[1.0, 0, 1.0, 0]]
    )
    v = reference.trajectory(net, np.array([0, 1.0, 0, 1.0, 0]), [0.0, 0.5, 1.0])
    slow = 0.5 + 0.5 * np.exp(-2 * np.array([0, 0.5, 1.0]))
    np.testing.assert_allclose(v[:, 3], slow, atol=1e-7)
    np.testing.assert_allclose(v[1:, 1:3], 0.5, atol=1e-7)


def test_workers_do_not_run_the_callers_script_again(tmp_path):
    """A plain script without a __main__ guard, as users write them."""
    script = tmp_path / "mine.py"
    script.write_text(
        "print('started')\n"
        "import numpy as np\n"
        "from kcnet_eda.dynamics.reference import final_states\n"
        "from kcnet_eda.network.store import load_network, network_path\n"
        "net = load_network(network_path('digits'))\n"
        "print(final_states(net, net.initial_state(net.examples[:4]), jobs=2).shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["started", "(4,", "99)"]
