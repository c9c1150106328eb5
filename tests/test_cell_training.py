"""Training for the MOS cell: gradients, the range, dies, fine-tuning, and the network that ships for it."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from kcnet_eda.api import train
from kcnet_eda.dynamics.cell_dies import TYPICAL, Departures, solve_die
from kcnet_eda.dynamics.solvers import rk4
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.files import resource_dir
from kcnet_eda.network.data import digits
from kcnet_eda.network.graph import Edges, Network, Phase, labels
from kcnet_eda.network.laws import eq6
from kcnet_eda.network.store import load_network, network_path
from kcnet_eda.physical.cell_design import BOX, CellLimits
from kcnet_eda.physical.mos_cell import cell_edges, first_sizes, range_problems, snap_sizes
from kcnet_eda.physical.pdk import load_pdk
from kcnet_eda.study.mos.rig import Bench
from kcnet_eda.study.mos.sizing import size_cells
from kcnet_eda.tools.pdk import prepare

torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")

from kcnet_eda.dynamics.cell import Cell, CellRange, Units, cell_rate, draw_dies, heun  # noqa: E402


@pytest.fixture(scope="module")
def shipped():
    return load_network(network_path("digits_mos"))


def ends_of(edges):
    return edges.source.astype(np.uintp), edges.target.astype(np.uintp)


def plain_rate(ends, corner, dies, v):
    """The right-hand side in torch's own words, one die after the other: the oracle."""
    loss = torch.zeros(1) if corner.compression is None else torch.from_numpy(corner.compression)
    source, target = (torch.from_numpy(nodes.astype(np.int64)) for nodes in ends)
    flows = []
    for die, share in enumerate(torch.tensor_split(v, dies[0].shape[1], dim=1)):
        theta1, theta2, gain = (p[:, die, None] for p in dies)
        x = theta1 * (share[source] - share[target]) + theta2
        bend = (x + corner.rounding) ** 2 / (4 * corner.rounding)
        current = torch.where(x.abs() < corner.rounding, bend, torch.relu(x))
        current = current - loss[:, None] * current**2 + corner.leakage
        flow = torch.zeros_like(share).index_add(0, target, current).index_add(0, source, -gain * current)
        flows.append(torch.cat([torch.zeros_like(flow[:1]), flow[1:]]))
    return torch.cat(flows, dim=1)


def drawn_at_random(seed):
    """Ends and θ of 60 edges between 6 nodes, v [6, 6]."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 6, 60)
    target = (source + rng.integers(1, 6, 60)) % 6
    ends = source.astype(np.uintp), target.astype(np.uintp)
    theta = [torch.from_numpy(p).requires_grad_() for p in rng.normal(0, 0.3, (2, 60))]
    return ends, theta, torch.from_numpy(rng.normal(0, 1, (6, 6))).requires_grad_()


SATURATING = {"compression": 0.04}, {"compression": 0.3, "units": Units()}


@pytest.mark.parametrize("saturation", [{}, *SATURATING])
@pytest.mark.parametrize("dies", [1, 3, 6])
def test_value_and_gradient_equal_torchs_to_1e_10(dies, saturation):
    ends, theta, v0 = drawn_at_random(dies)
    pull = torch.from_numpy(np.random.default_rng(9).normal(0, 1, (6, 6)))
    cell = Cell(rounding=0.2, leakage=0.01, sigma_theta1=0.1, **saturation)
    corner = cell.corner(*theta)
    found = []
    for of_cells in (cell_rate, plain_rate):
        drawn = draw_dies(cell, *theta, dies, torch.Generator().manual_seed(1))
        *_, end = heun(lambda v, f=of_cells, d=drawn: f(ends, corner, d, v), v0, 1.0, 4)
        found.append([end.detach(), *torch.autograd.grad((pull * end).sum(), [v0, *theta])])
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-10


@pytest.mark.parametrize("saturation", SATURATING)
def test_the_gradient_with_compression_equals_finite_differences(saturation):
    ends, theta, v0 = drawn_at_random(4)
    cell = Cell(rounding=0.2, lag=0.02, **saturation)

    def rate(v, theta1, theta2):
        dies = draw_dies(cell, theta1, theta2, 3, torch.Generator().manual_seed(1))
        return cell_rate(ends, cell.corner(theta1, theta2), dies, v, cell.lag)

    assert torch.autograd.gradcheck(rate, (v0, *theta), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_without_compression_the_kernel_has_no_such_term():
    """A term of 0 would round sums otherwise, and the shipped network is reproducible bit by bit."""
    _, theta, _ = drawn_at_random(0)
    assert Cell(units=Units()).corner(*theta).compression is None


@pytest.mark.parametrize(("units", "k"), [(None, 1), (Units(), 7)])
def test_a_saturating_edge_from_ground_follows_the_logistic(units, k):
    """y = θ2 − θ1·v of an edge into a free node has dy/dτ = −θ1·(y − c·y²)."""
    theta1, theta2, c = 1.0, 1.0, 0.04 / k
    decay = np.exp(-theta1)
    wanted = (theta2 - 1 / (c + (1 / theta2 - c) / decay)) / theta1
    theta = [torch.tensor([p], dtype=torch.float64) for p in (theta1, theta2)]
    none = dict.fromkeys(("rounding", "leakage", "sigma_theta1", "sigma_theta2", "sigma_gain"), 0.0)
    cell = Cell(compression=0.04, units=units, **none)
    ends = np.zeros(1, np.uintp), np.ones(1, np.uintp)
    dies = draw_dies(cell, *theta, 1, torch.Generator())
    v0 = torch.zeros(2, 1, dtype=torch.float64)
    *_, trained = heun(lambda v: cell_rate(ends, cell.corner(*theta), dies, v), v0, 1.0, 2000)
    assert float(trained[1, 0]) == pytest.approx(wanted, abs=1e-7)
    phase = Phase(2, 1.0, Edges(*ends, *eq6(np.array([theta1]), np.array([theta2])), np.zeros(1, np.uint8)))
    network = Network("one", (phase,), np.array([1]), np.array([1]), ("0", "a"))
    unit = None if units is None else (units.slope_per_unit, units.offset_per_unit)
    built, _ = solve_die(network, np.zeros((1, 1)), Departures(compression=0.04, unit=unit), np.random.default_rng(0))
    assert built[0, 1] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("saturation", SATURATING)
def test_saturating_cells_in_training_are_those_of_the_independent_check(shipped, saturation):
    x, edges = digits("train").x[:20], shipped.phases[0].edges
    cell = Cell(sigma_theta1=0, sigma_theta2=0, sigma_gain=0, **saturation)
    unit = None if cell.units is None else (cell.units.slope_per_unit, cell.units.offset_per_unit)
    plain = Departures(rounding=cell.rounding, leakage=cell.leakage)
    built, linear = (
        solve_die(shipped, x, departures, np.random.default_rng(0))[0]
        for departures in (replace(plain, compression=cell.compression, unit=unit), plain)
    )
    theta = torch.tensor(edges.a), torch.tensor(edges.c)
    corner, dies = cell.corner(*theta), draw_dies(cell, *theta, 1, torch.Generator())
    v0 = torch.from_numpy(shipped.initial_state(x).T.copy())
    *_, trained = heun(lambda v: cell_rate(ends_of(edges), corner, dies, v), v0, shipped.duration, 1600)
    moved = np.abs(built - linear).max()
    assert np.abs(trained.numpy().T - built).max() < 1e-3 * moved


def test_compression_that_turns_a_current_over_is_refused():
    """Without units the largest current is 4·2 + 2 of one unit; with them 4·2/13 + 0.65, and less a unit of others."""
    of_unit = 4 * 2 / 13 + 0.65
    steep = CellRange(theta1_min=1.0)  # 7 units at least: 4·2/13 + 2/7 each; a cell of θ1 = 0 has 0.65
    cases = [({}, 10.0), ({"units": Units()}, of_unit), ({"units": Units(), "range": steep}, 4 * 2 / 13 + 2 / 7)]
    for settings, largest in cases:
        Cell(compression=0.499 / largest, **settings)
        with pytest.raises(ValueError, match=r"compression must be below .* turns over"):
            Cell(compression=0.501 / largest, **settings)
    # no cell of the range has a larger current a unit
    held, units = CellRange(), Units()
    theta1, theta2 = torch.from_numpy(np.random.default_rng(0).uniform([[0], [-2]], [[2], [2]], (2, 100_000)))
    theta1, theta2 = held.nearest(theta1, theta2)
    assert float(((4 * theta1 + theta2) / units.of(theta1, theta2)).max()) <= of_unit


def test_a_die_without_departures_is_eq6(shipped):
    x = digits("train").x[:20]
    v, largest = solve_die(shipped, x, Departures(), np.random.default_rng(0))
    states = [state for _, _, state in rk4(shipped, shipped.initial_state(x), 50)]
    np.testing.assert_allclose(v, states[-1].T, atol=1e-12)
    assert largest == pytest.approx(max(np.abs(state).max() for state in states))


def test_the_lag_without_a_state_per_edge_is_near_the_pole(shipped):
    """The cheap form is of first order in the lag: it leaves a small part of what the lag does."""
    x, edges = digits("train").x[:20], shipped.phases[0].edges
    nominal, lagging = (
        solve_die(shipped, x, Departures(rounding=0.1, lag=lag), np.random.default_rng(0))[0] for lag in (0.0, 0.02)
    )
    cell = Cell(lag=0.02, leakage=0, sigma_theta1=0, sigma_theta2=0, sigma_gain=0)
    dies = draw_dies(cell, torch.tensor(edges.a), torch.tensor(edges.c), 1, torch.Generator())
    v0 = torch.from_numpy(shipped.initial_state(x).T.copy())
    corner = cell.corner(torch.tensor(edges.a), torch.tensor(edges.c))
    *_, cheap = heun(lambda v: cell_rate(ends_of(edges), corner, dies, v, cell.lag), v0, shipped.duration, 50)
    left, moved = (np.sqrt(((v - lagging) ** 2).mean()) for v in (cheap.numpy().T, nominal))
    assert left < 0.35 * moved


def test_the_nearest_that_can_be_built():
    theta1 = torch.tensor([0.04, 0.06, -0.07, -3.0, 1.0, 0.1, 0.0, 0.5], dtype=torch.float64)
    theta2 = torch.tensor([0.6, 0.6, 0.6, 0.0, 2.5, -2.0, 0.0, -1.0], dtype=torch.float64)
    cell = CellRange()
    assert not cell.holds(theta1, theta2)
    near1, near2 = cell.nearest(theta1, theta2)
    assert near1.tolist() == [0.0, 0.1, -0.1, -2.0, 1.0, 0.1, 0.0, 0.5]
    assert near2.tolist() == pytest.approx([0.6, 0.6, 0.6, 0.0, 2.0, 0.1, 0.5, -1.0])
    assert cell.holds(near1, near2)


SMALL = {
    "name": "small",
    "seed": 3,
    "epochs": 8,
    "learning_rate": 0.1,
    "gradient_clip": 4.0,
    "topology": {"hidden": 0, "window": 1, "pixels_to_outputs": "both", "between_outputs": True},
    "pruning": {"edges": 300, "score": "sensitivity"},
    "cell": {"begin": 0.5},
}


def write(tmp_path, **changes):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def test_a_fine_tune_is_reproducible_and_in_range(tmp_path):
    train(write(tmp_path), tmp_path / "first.kcnet")
    fine = tmp_path / "fine.yaml"
    changes = {"start": str(tmp_path / "first.kcnet"), "epochs": 4, "pruning": {"edges": 200}, "cell": {"lag": 0.02}}
    fine.write_text(yaml.safe_dump({k: v for k, v in (SMALL | changes).items() if k != "topology"}))
    records = [train(fine, tmp_path / f"{i}.kcnet") for i in range(2)]
    first, *tuned = (load_network(tmp_path / f"{i}.kcnet") for i in ("first", 0, 1))
    assert first.n_edges == 300 and [n.n_edges for n in tuned] == [200, 200]
    for n in (first, *tuned):
        e = n.phases[0].edges
        assert CellRange().holds(torch.tensor(e.a), torch.tensor(e.c))
    np.testing.assert_array_equal(tuned[0].phases[0].edges.a, tuned[1].phases[0].edges.a)
    assert records[0]["result"] == records[1]["result"] and records[0]["result"]["test_accuracy"] > 0.5
    ends = [set(zip(n.phases[0].edges.source, n.phases[0].edges.target, strict=True)) for n in (first, tuned[0])]
    assert ends[1] < ends[0]


def test_every_wrong_setting_of_the_cell_is_named(tmp_path):
    bad = {"rounding": -1, "dies": 0, "begin": 1, "range": {"theta1_min": 3.0}, "colour": "red"}
    with pytest.raises(InvalidInputError) as caught:
        train(write(tmp_path, cell=bad, pruning={"edges": 9, "score": "luck"}), tmp_path / "n.kcnet")
    for place in ("cell.rounding", "cell.dies", "cell.begin", "cell.range", "cell.colour", "pruning.score"):
        assert place in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"start and topology"):
        train(write(tmp_path, start="digits"), tmp_path / "n.kcnet")
    with pytest.raises(InvalidInputError, match="no epoch begins"):
        train(write(tmp_path, epochs=2), tmp_path / "n.kcnet")
    with pytest.raises(InvalidInputError, match=r"cell: compression must be below 0\.05: "):
        train(write(tmp_path, cell={"compression": 0.06}), tmp_path / "n.kcnet")
    alone = {k: v for k, v in SMALL.items() if k != "topology"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(alone | {"start": "nowhere"}))
    with pytest.raises(InvalidInputError, match="no network of this name"):
        train(tmp_path / "c.yaml", tmp_path / "n.kcnet")
    assert not (tmp_path / "n.kcnet").exists()


def test_the_shipped_network_is_what_is_claimed(shipped):
    """At most 300 edges, all in the cell's range, at least 95 % of the 450 test digits, every voltage within ±2, and
    its record says how it was made."""
    from kcnet_eda.dynamics.training import evaluate

    test = digits("test")
    accuracy, largest = evaluate(shipped, test)
    assert len(test) == 450 and accuracy >= 0.95 and largest <= 2.0
    edges = shipped.phases[0].edges
    assert shipped.n_edges <= 300 and CellRange().holds(torch.tensor(edges.a), torch.tensor(edges.c))
    result = shipped.record["result"]
    assert result["test_accuracy"] == accuracy and result["edges"] == shipped.n_edges
    settings = yaml.safe_load((resource_dir("examples") / "digits_mos.yaml").read_text())
    for name, value in settings.items():
        made_with = shipped.record["settings"][name]
        assert value.items() <= made_with.items() if isinstance(value, dict) else made_with == value


def test_the_cell_can_be_sized_for_the_shipped_network(shipped):
    """And what training takes for the cell's range is what the cell takes for it."""
    process = load_pdk("generic180")
    limits, trained = CellLimits(), CellRange()
    assert all(getattr(limits, name) == value for name, value in trained if name != "box") and trained.box == BOX
    cells, problems = cell_edges(shipped.phases[0].edges)
    names = [f"cell {i}" for i in range(cells.theta1.size)]
    assert problems == range_problems(limits, cells.theta1, cells.theta2, names) == []
    assert len(cells) == shipped.n_edges and cells.idle.size == 0
    design = size_cells(Bench(process, prepare(process))).design
    assert not any(snap_sizes(process, first_sizes(design, cells.theta1, cells.theta2))[1])


def test_the_shipped_network_bears_its_cells(shipped):
    """Two dies with everything together: benchmarks/digits_mos.py has twenty."""
    test, rng = digits("test"), np.random.default_rng(5)
    for departures in (TYPICAL, replace(TYPICAL, shape="softplus", sigma_gain=0.04)):
        v, largest = solve_die(shipped, test.x, departures, rng)
        assert (labels(shipped, v) == test.y).mean() >= 0.94 and largest <= 2.0
