"""PVT and mismatch: the engine over dies, what a condition does to an edge, and the study of both."""

from __future__ import annotations

import numpy as np
import pytest

from kcnet_eda.dynamics.cell_dies import Departures, solve_die
from kcnet_eda.dynamics.die_engine import evolve_dies
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.condition import EdgeShift
from kcnet_eda.physical.mos_cell import cell_edges


def test_one_edge_at_a_shifted_corner_decays_as_its_formula_says() -> None:
    # one conducting edge from node 1 to ground: dv/dτ = −(g·θ1·v + θ2')
    shift = EdgeShift((0.5, 1.0), (0.8, 0.9), (0.02, 0.0, 0.1), 0.0, 0.0, 0.0)
    theta1, theta2 = shift.at(np.array([[0.75]]), np.array([[0.3]]))
    assert theta1[0, 0] == pytest.approx(0.85 * 0.75)
    assert theta2[0, 0] == pytest.approx(0.3 + 0.02 + 0.03)
    ends = (np.array([1]), np.array([0]))
    v = evolve_dies(ends, theta1, theta2, np.array([[0.0, 1.0]]), 1.0, steps=20, dtype=np.float64)
    a, b = theta1[0, 0], theta2[0, 0]
    assert v[0, 1, 0] == pytest.approx((1 + b / a) * np.exp(-a) - b / a, abs=1e-8)
    assert v[0, 0, 0] == 0


def test_dies_are_those_of_the_plain_solver_and_the_same_in_any_number_of_threads() -> None:
    network = load_network(network_path("digits_mos"))
    (phase,) = network.phases
    cells = cell_edges(phase.edges)[0]
    theta1 = np.where(cells.swapped, -1, 1) * cells.theta1[cells.cell]
    theta2 = cells.theta2[cells.cell]
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 1, (5, network.inputs.size))
    many = theta1 * (1 + 0.03 * rng.standard_normal((7, len(cells))))
    many[0] = theta1
    args = ((cells.source, cells.target), many, np.tile(theta2, (7, 1)), network.initial_state(x), phase.duration)
    one, two = (evolve_dies(*args, steps=20, threads=threads) for threads in (1, 2))
    assert one.tobytes() == two.tobytes()
    plain, _ = solve_die(network, x, Departures(), np.random.default_rng(0), steps=200)
    assert np.abs(one[0].T - plain).max() < 2e-3 * np.ptp(plain)
