"""Devices against the edges they stand for: the same currents, every edge found again, fewer devices."""

import numpy as np
import pytest
from conftest import make_network, random_network

from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.lowering.devices import gated
from kcnet_eda.lowering.passes import lower, parse_passes
from kcnet_eda.network.graph import Edges, Phase
from kcnet_eda.network.laws import IDENTITY, RELU, TANH

PHI = {"relu": lambda y: max(y, 0), "leaky_relu": lambda y: max(y, 0.01 * y), "identity": lambda y: y}
WAYS = [(), ("merge",), ("fold",), ("merge", "fold"), ("drop",), ("merge", "drop", "fold")]


def device_current(table, i, v):
    """The formula in the module's header, with its defaults."""
    p = dict(zip(table.parameters, table.values[i], strict=True))
    v_s, v_d = v[table.source[i]], v[table.target[i]]
    terms = range(1, table.shape.terms + 1) if table.shape else [None]
    if table.kind == "pwl":
        x = v_s - v_d
        return p.get("g", 0) * x + p.get("i0", 0) + sum(p[f"g_{j}"] * max(x - p[f"t_{j}"], 0) for j in terms)
    total = 0.0
    for j in terms:
        q = {name.partition("_")[0]: value for name, value in p.items() if j is None or name.endswith(f"_{j}")}
        if table.kind == "tanh":
            total += q["imax"] * np.tanh(q["ws"] * v_s + q["wd"] * v_d + q["x0"])
        else:
            total += q.get("k", 1.0) * PHI[table.kind](q["gs"] * v_s + q["gd"] * v_d + q["i0"])
    return total


def rate(lowered, v):
    out = np.zeros_like(v)
    for table in lowered.tables:
        for i in range(len(table)):
            current = device_current(table, i, v)
            out[table.source[i]] -= current
            out[table.target[i]] += current
    out[0] = 0.0
    return out


@pytest.mark.parametrize("passes", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_devices_carry_what_the_edges_carry(seed, passes):
    """400 edges on 5 nodes, at voltages inside the ranges: a few hundred terms of order one, so 1e-11 is rounding."""
    phase = random_network(seed, 5, 400).phases[0]
    lowered = lower(phase, passes, (np.full(5, -1.0), np.full(5, 1.0)))
    for sample in range(5):
        v = np.random.default_rng(sample).uniform(-1, 1, 5)
        v[0] = 0.0
        np.testing.assert_allclose(rate(lowered, v), RightHandSide(phase)(v), atol=1e-11)
    if "merge" in passes:
        assert lowered.n_devices < 80


@pytest.mark.parametrize("passes", WAYS)
def test_every_edge_is_found_exactly_once(passes):
    phase = random_network(1, 5, 400).phases[0]
    lowered = lower(phase, passes, (np.full(5, -1.0), np.full(5, 1.0)))
    found = np.concatenate([lowered.folded, lowered.dropped, *(t.edge for t in lowered.tables)])
    assert sorted(found.tolist()) == list(range(400))
    for t in lowered.tables:
        for i in range(len(t)):
            for m in range(t.first[i], t.first[i + 1]):
                e = phase.edges
                ends = {int(e.source[t.edge[m]]), int(e.target[t.edge[m]])}
                assert ends == {int(t.source[i]), int(t.target[i])}


def test_a_term_is_its_edges_breakpoint():
    """Of θ1·(v_s − v_d) + θ2 the breakpoint lies at −θ2/θ1, seen along the device's own direction."""
    e = random_network(4, 5, 200).phases[0].edges
    e = Edges(e.source, e.target, e.a, -e.a, e.c, e.k, np.full(200, RELU))
    lowered = lower(Phase(5, 1.0, e), ("merge",))
    seen = 0
    for t in lowered.tables:
        for i in range(len(t)):
            for m in range(t.first[i], t.first[i + 1]):
                edge, term = t.edge[m], t.term[m]
                p = dict(zip(t.parameters, t.values[i], strict=True))
                along = 1.0 if e.source[edge] == t.source[i] or (t.source[i] == 0 and e.target[edge] != 0) else -1.0
                bend = -e.c[edge] / (e.a[edge] if e.source[edge] != 0 else -e.b[edge])
                assert abs(p[f"t_{term}"]) == pytest.approx(abs(bend)) and abs(along) == 1.0
                assert abs(p[f"g_{term}"]) == pytest.approx(abs(e.k[edge] * e.a[edge]))
                seen += 1
    assert seen == 200


def test_drop_leaves_out_what_cannot_conduct_and_straightens_what_cannot_block():
    rows = [
        (1, 2, 1.0, -1.0, -3.0, 1.0, RELU),  # opens at a difference of 3, which ±1 never reaches
        (1, 2, 1.0, -1.0, 3.0, 1.0, RELU),  # never blocks
        (2, 1, 1.0, -1.0, 0.0, 1.0, RELU),
        (1, 2, 1.0, -1.0, 0.0, 0.0, IDENTITY),  # of gain 0
    ]
    lowered = lower(make_network(rows, 3).phases[0], ("merge", "drop"), (np.full(3, -1.0), np.full(3, 1.0)))
    assert lowered.dropped.tolist() == [0, 3]
    (table,) = lowered.tables
    assert table.shape.terms == 1 and "g" in table.parameters
    with pytest.raises(ValueError, match="ranges"):
        lower(make_network(rows, 3).phases[0], ("drop",))


def test_one_edge_a_pair_keeps_its_own_direction():
    table = lower(make_network([(1, 2, 2.0, -2.0, -0.5, 1.0, RELU)], 3).phases[0]).tables[0]
    assert (table.source[0], table.target[0], table.parameters) == (1, 2, ("g_1", "t_1"))
    assert table.values[0].tolist() == [2.0, 0.25]


def test_many_breakpoints_make_several_devices():
    e = make_network([(1, 2, 1.0, -1.0, 0.01 * i, 1.0 + i % 3, RELU) for i in range(150)], 3).phases[0]
    lowered = lower(e, ("merge",))
    assert sorted(t.shape.terms for t in lowered.tables for _ in range(len(t))) == [22, 64, 64]
    v = np.array([0.0, 0.3, 0.9])
    np.testing.assert_allclose(rate(lowered, v), RightHandSide(e)(v), atol=1e-11)


def test_gated_devices_are_generated_ones():
    table = lower(random_network(0).phases[0], ()).tables[0]
    assert gated(table).module == f"kc_{table.kind}1_gated"
    assert gated(table).parameters[0].endswith("_1")


def test_passes_are_named_or_refused():
    assert parse_passes("none") == () and parse_passes("all") == ("merge", "drop", "fold")
    assert parse_passes("fold, merge") == ("merge", "fold")
    with pytest.raises(InvalidInputError, match="'melt' is no pass"):
        parse_passes("merge,melt")


def test_edges_of_both_directions_become_one_device_whatever_their_law():
    rows = [(1, 2, 1.1, -0.4, 0.2, 0.7, TANH), (2, 1, 0.6, 0.3, -0.1, 1.2, TANH), (1, 2, 0.5, 0.8, 0.1, 1.0, RELU)]
    net = make_network(rows, 3)
    lowered = lower(net.phases[0], ("merge",))
    assert sorted((t.kind, len(t)) for t in lowered.tables) == [("relu", 1), ("tanh", 1)]
    (tanh,) = (t for t in lowered.tables if t.kind == "tanh")
    assert (tanh.source[0], tanh.target[0], tanh.shape.terms) == (2, 1, 2)
