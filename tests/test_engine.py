"""The fused kernel against the edge-by-edge one, the fast engine against DOP853, and pairs against their edges."""

import numpy as np
import pytest
from conftest import driven_corner, make_network, random_network, rc_pair

from kcnet_eda.dynamics import reference
from kcnet_eda.dynamics.engine import estimate_error, evolve
from kcnet_eda.dynamics.fused import FusedPhase, vector_tanh
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import KcnetError
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, PHI_NAMES, RELU, TANH
from kcnet_eda.network.pairs import gather_pairs


def _states(n_nodes, samples, seed=0):
    v = np.random.default_rng(seed).normal(0, 2, (n_nodes, samples))
    v[0] = 0.0
    return v


def _difference_network(seed, n_nodes=9, n_edges=160):
    """Many parallel and anti-parallel edges of the difference, of every law."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, n_nodes, n_edges)
    target = (source + rng.integers(1, n_nodes, n_edges)) % n_nodes
    a, c, k = rng.normal(0, 0.5, (3, n_edges))
    a[::17] = 0.0  # constant edges
    edges = Edges(source, target, a, -a, c, k, rng.integers(0, 4, n_edges))
    return Network("d", (Phase(n_nodes, 1.0, edges),), np.arange(1, n_nodes), np.arange(1, n_nodes))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [lambda s: random_network(s, 7, 60), _difference_network])
def test_fused_rate_is_the_sum_over_edges(make, seed):
    """Reordered sums of about 100 terms of order 1: a few ulp each, far below 1e-12."""
    phase = make(seed).phases[0]
    edge_by_edge = RightHandSide(phase)
    v = _states(phase.n_nodes, 37, seed)
    expected = np.stack([edge_by_edge(np.ascontiguousarray(column)) for column in v.T], axis=1)
    np.testing.assert_allclose(FusedPhase(phase)(v), expected, atol=1e-12)
    single = FusedPhase(phase, np.float32)(v)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-4)


def test_pairs_trace_every_edge_both_ways():
    edges = _difference_network(3).phases[0].edges
    pairs = gather_pairs(edges)
    assert set(pairs.rest) == set(
        np.flatnonzero((edges.phi == TANH) & (edges.source != 0) & (edges.target != 0))
    ) | set(np.flatnonzero((edges.phi == TANH) & ((edges.source == 0) | (edges.target == 0))))
    for e in range(len(edges)):
        p, term = pairs.pair_of_edge[e], pairs.term_of_edge[e]
        if e in pairs.rest:
            assert p == term == -1
            continue
        assert {edges.source[e], edges.target[e]} == {pairs.source[p], pairs.target[p]}
        if term >= 0:
            assert pairs.term_edge[term] == e and pairs.first[p] <= term < pairs.first[p + 1]
        else:
            assert edges.phi[e] == IDENTITY or edges.a[e] == 0.0


def test_a_bend_beyond_all_numbers_is_left_to_its_edge():
    edges = make_network([(1, 2, 1e-300, -1e-300, 1e300, 1.0, RELU)], 3).phases[0].edges
    assert gather_pairs(edges).rest.tolist() == [0]


def test_a_pair_in_closed_form():
    """ReLU one way, leaky ReLU the other way, a conductance: i(x) = relu(2x − 1) − 3·leaky(−x + 0.5) + 4x."""
    rows = [
        (2, 1, 2.0, -2.0, -1.0, 1.0, RELU),
        (1, 2, 1.0, -1.0, 0.5, 3.0, LEAKY_RELU),
        (2, 1, 4.0, -4.0, 0.0, 1.0, IDENTITY),
    ]
    phase = make_network(rows, 3).phases[0]
    x = np.array([-1.0, 0.0, 0.5, 0.75, 2.0])
    y = 0.5 - x
    i = np.maximum(2 * x - 1, 0) - 3 * np.where(y > 0, y, 0.01 * y) + 4 * x
    rate = FusedPhase(phase)(np.stack([0 * x, 0 * x, x]))
    np.testing.assert_allclose(rate, [0 * x, i, -i], atol=1e-14)


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-14), (np.float32, 4e-6)])
def test_tanh(dtype, error):
    """Six squarings multiply the series' rounding by 64 at most: 64 ulp in each precision."""
    x = np.linspace(-30, 30, 20001).astype(dtype)
    out = np.empty_like(x)
    vector_tanh(x, out)
    assert np.abs(out - np.tanh(x.astype(np.float64))).max() < error


def test_fixed_steps_do_not_depend_on_the_company():
    net = random_network(1)
    x0 = net.initial_state(np.random.default_rng(0).uniform(-1, 1, (300, 6)))
    together = evolve(net, x0, threads=2)
    np.testing.assert_array_equal(together.v_end, evolve(net, x0, threads=2).v_end)
    np.testing.assert_allclose(evolve(net, x0[:1]).v_end, together.v_end[:1], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_engine_against_dop853(seed):
    """RK4 loses orders at corners only: at 200 steps of a network with rates of order one, 1e-5 is ten times what the
    corners leave (h² times the change of slope, a few of them). The adaptive solver converges with its tolerance; how
    much larger its error is depends on how the network amplifies it (here |v| grows to 16) and on its corners."""
    net = random_network(seed, 7, 60)
    x0 = net.initial_state(np.random.default_rng(seed).uniform(-1, 1, (5, 6)))
    exact = reference.final_states(net, x0)
    assert np.abs(evolve(net, x0, steps=200, dtype=np.float64).v_end - exact).max() < 1e-5
    errors = [
        np.abs(evolve(net, x0, tolerance=np.full(7, tol), dtype=np.float64).v_end - exact).max()
        for tol in (1e-4, 1e-6, 1e-8)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < 1e-4


def test_engine_sees_ranges_phases_and_divergence():
    edges = make_network([(1, 0, 1.0, 0.0, 0.0, 1.0, IDENTITY)], 2).phases[0].edges
    net = Network("two", (Phase(2, 1.0, edges), Phase(3, 1.0, edges, residual_from=None)), [1], [1])
    ways = evolve(net, np.array([[0.0, 1.0], [0.0, -2.0]]), dtype=np.float64)
    np.testing.assert_allclose(ways.v_end[:, 1], np.exp(-2) * np.array([1, -2]), rtol=1e-6)
    np.testing.assert_allclose(ways.low[0, 1], -2.0)
    np.testing.assert_allclose(ways.high[1, 1], np.exp(-1), rtol=1e-6)
    assert ways.low[0, 2] == np.inf
    wild = make_network([(1, 0, -900.0, 0.0, 0.0, 1.0, IDENTITY)], 2, duration=2.0)
    with pytest.raises(KcnetError, match="step became too small"):
        evolve(wild, np.array([[0.0, 1.0]]), tolerance=np.full(2, 1e-12), dtype=np.float64)


def test_reference_of_a_large_network_stands_still_where_dop853_does(monkeypatch):
    net = random_network(2, 7, 60)
    x0 = net.initial_state(np.random.default_rng(2).uniform(-1, 1, (5, 6)))
    exact = reference.final_states(net, x0)
    monkeypatch.setattr(reference, "LARGE", 10)
    assert reference.method(net).startswith("RK4")
    seen = []
    found = reference.final_states(net, x0, 2, lambda rows, v: seen.extend(rows))
    assert sorted(seen) == list(range(5))
    assert np.abs(found - exact).max() < 1e-5 * np.ptp(exact)
    assert len(PHI_NAMES) == 4


def _decay(rng):
    """An RC pair from any two voltages, in closed form."""
    x = rng.uniform(-1, 1, (40, 2))
    difference = (x[:, 0] - x[:, 1]) * np.exp(-2.0)
    return rc_pair(), x, (x.sum(axis=1, keepdims=True) + np.stack([difference, -difference], axis=1)) / 2


def _corner(rng):
    """:func:`driven_corner`'s closed form with node 1 starting at −s: its edge opens s later, anywhere in a step."""
    s = rng.uniform(0, 0.5, 40)
    u = 0.5 - 0.25 * np.exp(-4.0 * (0.75 - s))
    return driven_corner(), np.stack([-s, 0 * s], axis=1), np.stack([1 - s + u, 1 - s - u], axis=1) / 2


@pytest.mark.parametrize(("steps", "dtype"), [(5, np.float64), (20, np.float64), (5, np.float32), (200, np.float32)])
@pytest.mark.parametrize("solved", [_decay, _corner])
def test_error_estimate_lies_between_the_error_and_three_times_it(solved, steps, dtype):
    """Doubled steps at least halve the error e: the difference is e/2 to 3e/2, and the estimate twice that."""
    net, x, exact = solved(np.random.default_rng(1))
    x0 = net.initial_state(x)
    ways = evolve(net, x0, steps=steps, dtype=dtype)
    found = estimate_error(net, x0, ways, steps=steps, samples=100)
    np.testing.assert_array_equal(found.rows, np.arange(40))
    error = np.abs(ways.v_end[:, 1:] - exact).max(axis=0)
    assert (error <= found.bound[1:]).all() and (found.bound[1:] <= 3 * error).all()
    assert found.bound[0] == 0.0


def test_error_estimate_draws_by_its_seed_and_refuses_what_diverges():
    net, x, _ = _decay(np.random.default_rng(1))
    x0 = net.initial_state(x)
    ways = evolve(net, x0)
    one, same, other = (estimate_error(net, x0, ways, samples=5, seed=seed).rows for seed in (1, 1, 2))
    assert one.size == 5 and (one == same).all() and (one != other).any()
    stiff = rc_pair(1e30)
    with pytest.raises(KcnetError, match="no error estimate: 40 of 40"):
        estimate_error(stiff, x0, evolve(stiff, x0))
