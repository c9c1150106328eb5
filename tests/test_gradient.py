"""The fused solver and its gradients: against torch's own operations, finite differences, and the software truth."""

import numpy as np
import pytest
from conftest import random_network, repeating
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcnet_eda.dynamics.gradient import PhaseSolver
from kcnet_eda.dynamics.solvers import rk4
from kcnet_eda.network.graph import Edges, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, RELU, TANH

torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")

from kcnet_eda.dynamics.torch_path import evolve, paths  # noqa: E402

PHI = {
    RELU: torch.relu,
    LEAKY_RELU: lambda x: torch.nn.functional.leaky_relu(x, 0.01),
    TANH: torch.tanh,
    IDENTITY: lambda x: x,
}


def plain_rate(edges, law, v):
    """The right-hand side in torch's own words: the oracle."""
    flow = torch.zeros_like(v)
    for code, phi in PHI.items():
        of = np.flatnonzero(edges.phi == code)
        source, target = (torch.from_numpy(ends[of].astype(np.int64)) for ends in (edges.source, edges.target))
        a, b, c, k = (p[of, None] for p in law)
        current = k * phi(a * v[source] + b * v[target] + c)
        flow = flow.index_add(0, target, current).index_add(0, source, -current)
    return torch.cat([torch.zeros_like(flow[:1]), flow[1:]])


def plain_path(phase, law, v, steps, solver):
    h, path = phase.duration / steps, [v]
    for _ in range(steps):
        k1 = plain_rate(phase.edges, law, v)
        if solver == "heun":
            v = v + h / 2 * (k1 + plain_rate(phase.edges, law, v + h * k1))
        else:
            k2 = plain_rate(phase.edges, law, v + h / 2 * k1)
            k3 = plain_rate(phase.edges, law, v + h / 2 * k2)
            v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + plain_rate(phase.edges, law, v + h * k3))
        path.append(v)
    return torch.stack(path)


def law_of(phase):
    e = phase.edges
    return [torch.tensor(p).requires_grad_() for p in (e.a, e.b, e.c, e.k)]


def start(n_nodes, samples, seed):
    v0 = torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (n_nodes, samples)))
    v0[0] = 0.0
    return v0.requires_grad_()


def loss(found, end, seed):
    """Any function of the states after every step: here one with a corner, as the voltage penalty has."""
    pull = torch.from_numpy(np.random.default_rng(seed).normal(0, 1, tuple(end.shape)))
    return (pull * end).sum() + sum(torch.relu(path.abs() - 0.5).square().sum() for path in found)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    n_nodes=st.integers(2, 9),
    n_edges=st.integers(1, 80),
    samples=st.sampled_from([1, 5, 130, 300]),
    phases=st.integers(1, 3),
    solver=st.sampled_from(["heun", "rk4"]),
)
def test_states_and_gradients_equal_torchs_to_1e_10(seed, n_nodes, n_edges, samples, phases, solver):
    """Random graphs of all laws with ground edges and parallel edges, whose phases differ in nodes, fill and residual;
    samples in one block and in several. Sums of some hundred terms of order one, in doubles."""
    rng = np.random.default_rng(seed)
    kinds = []
    for number in range(phases):
        nodes = n_nodes + int(rng.integers(0, 3)) if number else n_nodes
        drawn = random_network(seed + number, nodes, n_edges).phases[0]
        earlier = next((n for n, kind in enumerate(kinds) if kind.n_nodes == nodes), None)
        kinds.append(Phase(nodes, 1.0, drawn.edges, "repeat" if rng.integers(2) else "zeros", earlier))
    laws, v0 = [law_of(kind) for kind in kinds], start(n_nodes, samples, seed)
    solvers = [PhaseSolver(kind, steps=3, solver=solver) for kind in kinds]

    def plainly():
        found, state = [], v0
        for kind, law in zip(kinds, laws, strict=True):
            held = state[: kind.n_nodes]
            new = kind.n_nodes - len(held)
            if new:
                again = [1 + (len(held) - 1 + n) % (len(held) - 1) for n in range(new)]
                more = held[again] if kind.fill == "repeat" else torch.zeros(new, samples, dtype=v0.dtype)
                held = torch.cat([held, more])
            found.append(plain_path(kind, law, held, 3, solver))
            state = found[-1][-1]
            if kind.residual_from is not None:
                state = state + found[kind.residual_from][-1]
        return found, state

    given_by = [v0, *(p for law in laws for p in law)]
    results = []
    for way in (lambda: paths(solvers, laws, v0), plainly):
        found, end = way()
        gradients = torch.autograd.grad(loss(found, end, seed), given_by, allow_unused=True)
        results.append([*(f.detach() for f in found), end.detach(), *gradients])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        assert float((ours - theirs).abs().max()) < 1e-10 * scale


@pytest.mark.parametrize("solver", ["heun", "rk4"])
def test_gradcheck(solver):
    """torch's own check by finite differences, tanh and identity edges alone too, an edge from a node to itself too."""
    e = random_network(5, 6, 30).phases[0].edges
    loop = Edges(
        *(np.append(getattr(e, f), value) for f, value in zip(e.__slots__, (3, 3, 1, 1, 1, 1, 0), strict=True))
    )
    for edges in (loop, e.rows(np.flatnonzero(e.phi == TANH)), e.rows(np.flatnonzero(e.phi == IDENTITY))):
        phase = Phase(6, 1.0, edges)
        ways = PhaseSolver(phase, steps=3, solver=solver)
        assert torch.autograd.gradcheck(lambda v, *law, w=ways: evolve(w, law, v), (start(6, 3, 1), *law_of(phase)))


def test_the_training_path_and_the_software_truth_share_one_law():
    network = repeating()
    v0 = network.initial_state(network.examples)
    solvers = [PhaseSolver(phase, steps=7, solver="rk4") for phase in network.phases]
    _, end = paths(solvers, [law_of(phase) for phase in network.phases], torch.from_numpy(v0.T.copy()))
    *_, (_, _, truth) = rk4(network, v0, 7)
    np.testing.assert_allclose(end.detach(), truth, atol=1e-12)


@pytest.mark.parametrize(("solver", "order"), [("heun", 2), ("rk4", 4)])
def test_the_adjoint_nears_the_gradient_at_the_solvers_order(solver, order):
    """Smooth laws; the loss looks at a state on the way as well as at the last."""
    e = random_network(3, 6, 40).phases[0].edges
    phase = Phase(6, 1.0, e.rows(np.flatnonzero(e.phi >= TANH)))
    v0, law = start(6, 4, 2), law_of(phase)

    def gradient(backwards, steps):
        path = evolve(PhaseSolver(phase, steps=steps, solver=solver, backwards=backwards), law, v0)
        return torch.autograd.grad(path[-1].square().sum() + path[steps // 2].sum(), [v0, *law])

    exact = torch.cat([g.flatten() for g in gradient("steps", 512)])
    errors = [float((torch.cat([g.flatten() for g in gradient("adjoint", n)]) - exact).norm()) for n in (8, 16, 32)]
    found = np.log2(np.divide(errors[:-1], errors[1:]))
    assert errors[-1] < 1e-3 * float(exact.norm())
    assert (found > order - 0.3).all(), (errors, found)


@pytest.mark.parametrize("backwards", ["steps", "adjoint"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_whatever_the_threads(backwards, dtype):
    phase = random_network(1, 7, 60).phases[0]
    e, rng = phase.edges, np.random.default_rng(0)
    v0 = rng.normal(0, 1, (7, 700)).astype(dtype)
    v0[0] = 0
    pulls = rng.normal(0, 1, (6, 7, 700)).astype(dtype)
    found = []
    for threads in (1, 2, 5):
        ways = PhaseSolver(phase, steps=5, backwards=backwards, threads=threads)
        path = ways.evolve((e.a, e.b, e.c, e.k), v0)
        of_v0, of_law = ways.pull_back((e.a, e.b, e.c, e.k), path, pulls)
        found.append([path, of_v0, *of_law])
    for other in found[1:]:
        for ours, first in zip(other, found[0], strict=True):
            assert ours.dtype == dtype
            np.testing.assert_array_equal(ours, first)


def test_single_precision_is_near_double():
    phase = random_network(2, 7, 60).phases[0]
    v0, law = start(7, 20, 0), law_of(phase)
    double, single = (
        evolve(PhaseSolver(phase, steps=5), law, v0.to(kind))[-1] for kind in (torch.float64, torch.float32)
    )
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.detach(), double.detach(), atol=1e-4)
