import itertools

import numpy as np
import pytest
from published_files import config, data_dir, full, official, params, torch, write
from typer.testing import CliRunner

from kcnet_eda.api import import_
from kcnet_eda.cli.main import app
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.published import read_published
from kcnet_eda.network.published_topology import FullArgs, MixArgs, NeighborArgs, SimpleArgs
from kcnet_eda.network.store import load_network
from kcnet_eda.network.toy import TOYS
from kcnet_eda.study.accuracy import wilson

leaky_relu, relu = torch.nn.functional.leaky_relu, torch.nn.functional.relu


def slow_neighbors(num_channel, width, height, neighbor_size, padding, repeat, sharing, parallel):
    """Rows (source, target, shared), one at a time."""
    reach = neighbor_size - 1 if padding else 0
    rows = []
    for top in range(-reach, width + reach - neighbor_size + 1):
        for left in range(-reach, height + reach - neighbor_size + 1):
            nodes = []
            for c, i, j in itertools.product(range(num_channel), range(neighbor_size), range(neighbor_size)):
                inside = 0 <= top + i < width and 0 <= left + j < height
                nodes.append(1 + (c * width + top + i) * height + left + j if inside else 0)
            pair = -1
            for a, b in itertools.product(range(len(nodes)), repeat=2):
                pair += a != b
                if a != b and nodes[a] and nodes[b]:
                    rows += [[nodes[a], nodes[b], pair]] * repeat
    pairs = (num_channel * neighbor_size**2) * (num_channel * neighbor_size**2 - 1)
    if not sharing:
        rows, pairs = [[s, d, n] for n, (s, d, _) in enumerate(rows)], len(rows)
    last = max((s for s, _, _ in rows), default=0)
    for copy in range(1, parallel):
        rows = rows + [[s + copy * last, d + copy * last, n + copy * pairs] for s, d, n in rows]
    return rows, pairs if parallel == 1 else max((n for _, _, n in rows), default=-1) + 1


def slow_mix(fully_connect_node, repeat, kernel_repeat, **windows):
    rows, count = slow_neighbors(repeat=kernel_repeat, **windows)
    last = max(s for s, _, _ in rows)
    pairs = [(n, 0) for n in range(1, last + 1)]
    pairs += [(i, n) for n in range(last + 1, last + 1 + fully_connect_node) for i in range(last + 1)]
    for one, other in pairs:
        for ends in [[one, other]] * repeat[0] + [[other, one]] * repeat[1]:
            rows.append([*ends, count])
            count += 1
    return rows


def slow_full(num_node, include_gnd, repeat):
    nodes = range(num_node) if include_gnd else range(1, num_node + 1)
    rows = []
    for i, j in itertools.product(nodes, nodes):
        if i != j:
            rows += [[i, j]] * repeat[0] + [[j, i]] * repeat[1]
    return [[*ends, n] for n, ends in enumerate(rows)]


def _same(args, rows):
    built = args.build()
    assert np.stack([built.source, built.target, built.shared], axis=1).tolist() == rows
    assert args.n_edges() == len(built) == len(rows)


@pytest.mark.parametrize("num_channel", [1, 3])
@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 2, 2), (3, 4, 2), (4, 2, 2), (3, 3, 3)])
def test_neighbor_edges_come_in_the_published_order(num_channel, shape):
    width, height, size = shape
    for padding, repeat, sharing, parallel in itertools.product([False, True], [0, 1, 2], [False, True], [1, 2, 3]):
        windows = {"num_channel": num_channel, "width": width, "height": height, "neighbor_size": size}
        windows |= {"padding": padding, "repeat": repeat, "sharing": sharing, "parallel": parallel}
        _same(NeighborArgs(**windows), slow_neighbors(**windows)[0])


@pytest.mark.parametrize("shape", [(1, 2, 2, 2), (1, 3, 4, 2), (2, 4, 2, 2), (3, 2, 2, 1)])
@pytest.mark.parametrize("repeat", [(1, 0), (1, 1), (2, 3), (0, 0)])
def test_mix_edges_come_in_the_published_order(shape, repeat):
    windows = dict(zip(("num_channel", "width", "height", "neighbor_size"), shape, strict=True))
    for padding, again, sharing, parallel, more in itertools.product(
        [False, True], [1, 2], [False, True], [1, 3], [0, 3]
    ):
        args = {**windows, "padding": padding, "kernel_repeat": again, "sharing": sharing, "parallel": parallel}
        args |= {"fully_connect_node": more, "repeat": repeat}
        _same(MixArgs(**args), slow_mix(**args))


def test_full_and_simple_edges_come_in_the_published_order():
    for n, gnd, repeat in itertools.product([1, 2, 5], [True, False], [(1, 1), (2, 0), (0, 3), (3, 2)]):
        _same(FullArgs(num_node=n, include_gnd=gnd, repeat=repeat), slow_full(n, gnd, repeat))
        nodes = range(n) if gnd else range(1, n + 1)
        chain = [[i, i + 1] for i in nodes for _ in range(repeat[0])]
        _same(SimpleArgs(num_node=n, include_gnd=gnd, repeat=repeat), [[*e, i] for i, e in enumerate(chain)])


LAWS = {
    ("ShiftRelu1", ()): (2, lambda p, s, d: p[1] * relu(s - d - p[0])),
    ("ShiftLeakyRelu1", ()): (2, lambda p, s, d: p[1] * leaky_relu(s - d - p[0])),
    ("ShiftRelu2", ()): (3, lambda p, s, d: relu(s * p[0] + d * p[1] + p[2])),
    ("ShiftLeakyRelu2", ()): (3, lambda p, s, d: leaky_relu(s * p[0] + d * p[1] + p[2])),
    ("ShiftTanh1", ()): (3, lambda p, s, d: torch.tanh((s - d) * p[1] + p[0])),
    ("ShiftTanh2", ()): (3, lambda p, s, d: torch.tanh(s * p[0] + d * p[1] + p[2])),
    ("Conductance", ()): (3, lambda p, s, d: p[0] * (s - d)),
}
for name, phi in (("relu", relu), ("leaky_relu", leaky_relu), ("tanh", torch.tanh), (None, lambda x: x)):
    LAWS["Device", ("negation", True, name)] = (2, lambda p, s, d, phi=phi: phi(p[1] * (s - d) + p[0]))
    LAWS["Device", ("negation", False, name)] = (3, lambda p, s, d, phi=phi: phi(s * p[0] + d * p[1] + p[2]))


def published_rate(source, target, current, p, v):
    """The published formulation: gather, law, scatter_add, and ground cut off. v is [samples, nodes without ground]."""
    with_ground = torch.cat([torch.zeros_like(v[..., :1]), v], dim=-1)
    i = current(p, with_ground[..., source], with_ground[..., target])
    rate = torch.zeros_like(with_ground)
    rate.scatter_add_(-1, source.expand_as(i), -i)
    rate.scatter_add_(-1, target.expand_as(i), i)
    return rate[..., 1:].numpy()


def _agrees(phase, source, target, current, p):
    v = torch.tensor(np.random.default_rng(3).normal(0, 2, (6, phase.n_nodes - 1)))
    expected = published_rate(torch.as_tensor(source), torch.as_tensor(target), current, p.double(), v)
    state = np.ascontiguousarray(np.pad(v.numpy(), ((0, 0), (1, 0))).T)
    found = RightHandSide(phase)(state)[1:].T
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: "-".join(map(str, (law[0], *law[1]))))
def test_every_published_law_is_the_published_right_hand_side(law, tmp_path):
    name, settings = law
    rows, current = LAWS[law]
    args = {"negation": settings[1], "activation": settings[2]} if settings else {}
    rows_of_edges = slow_full(5, True, (2, 1))
    tensors = params(len(rows_of_edges), rows=rows)
    net = read_published(write(tmp_path, config([full(5, (2, 1))], name, args), tensors))
    ends = np.array(rows_of_edges)
    _agrees(net.phases[0], ends[:, 0], ends[:, 1], current, *tensors.values())


@pytest.mark.parametrize("use_diff", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "leakyrelu"])
@pytest.mark.parametrize("form", ["circuit", "topology", "npz"])
def test_the_barebone_form(use_diff, activation, form, tmp_path):
    phi = {None: lambda x: x, "relu": relu, "tanh": torch.tanh, "leakyrelu": leaky_relu}[activation]
    ends = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 5, 3, 2, 1, 0], [4, 2, 3, 4, 5, 6, 1, 6, 4, 3, 2, 1]])
    p = next(iter(params(12, rows=2 if use_diff else 3).values()))
    content = f"use_diff: {str(use_diff).lower()}\nreadout: last2\ninputs: 4\nt_end: [0, 2.5]\n"
    content += f"activation: {activation}\n" if activation else ""
    tensors = {"circuit": {"src_node": ends[0], "des_node": ends[1], "model.param": p}}.get(
        form, {"topology": ends, "param": p}
    )
    write(tmp_path, content, None if form == "npz" else tensors)
    if form == "npz":
        np.savez(tmp_path / "net.npz", topology=ends.numpy(), param=p.numpy())
    net = read_published(tmp_path / "net.npz" if form == "npz" else tmp_path)
    assert (net.duration, net.inputs.tolist(), net.readout.tolist()) == (2.5, [1, 2, 3, 4], [5, 6])
    assert net.record["imported"]["form"] == "barebone"

    def current(p, s, d):
        return phi(p[0] * (s - d) + p[1]) if use_diff else phi(p[0] * s + p[1] * d + p[2])

    _agrees(net.phases[0], ends[0], ends[1], current, p)


def test_phases_slices_fill_residual_projector_and_inputs(tmp_path):
    structs = [full(4), full(6), full(6)]
    content = config(structs, t_end=["0.5", "1e0", 3], fill="repeat", residual=[1, 2], projector=["last4", "first3"])
    content["simulation"]["t_end"] = ["0.5", "1e0", 3, 3.5]
    content["simulation"]["tol"] = "1e-3"
    folder = write(tmp_path, content, params(24, 60, 60))
    net = read_published(folder / "config.yaml", inputs=2)
    assert [p.duration for p in net.phases] == [0.5, 2.0, 0.5]
    assert [p.n_nodes for p in net.phases] == [4, 6, 6]
    assert [p.fill for p in net.phases] == ["repeat", "repeat", "zeros"]
    assert [p.residual_from for p in net.phases] == [None, None, 1]
    assert net.inputs.tolist() == [1, 2] and net.readout.tolist() == [2, 3, 4]
    assert net.record["imported"]["solver"]["tol"] == 1e-3
    assert read_published(folder).record["imported"]["notes"] == [
        "how many inputs test bench None has is not known: all 3 nodes are inputs"
    ]


def test_the_same_edges_under_shared_parameters(tmp_path):
    struct = {
        "name": "_neighbor_index",
        "args": {"num_channel": 1, "width": 3, "height": 3, "neighbor_size": 2, "sharing": True},
    }
    rows, count = slow_neighbors(1, 3, 3, 2, False, 1, True, 1)
    few = params(count)
    index = torch.tensor([n for _, _, n in rows])
    many = {key: value[:, index] for key, value in few.items()}
    nets = [read_published(write(tmp_path / str(len(t)), config([struct]), t)) for t in (few, many)]
    assert len(nets[0].phases[0].edges) == 48
    np.testing.assert_array_equal(nets[0].phases[0].edges.a, nets[1].phases[0].edges.a)


def test_generative_benches_ignore_what_their_script_ignores(tmp_path):
    content = config([full(5), full(3)], bench="gauss", projector="last1", fill="zeros")
    net = read_published(write(tmp_path, content, params(40, 12)))
    assert net.readout.tolist() == [1, 2, 3, 4] and [p.n_nodes for p in net.phases] == [5, 5]
    assert "does not use the config's fill, projector" in net.record["imported"]["notes"][0]
    grows = config([full(3), full(5)], bench="gauss")
    with pytest.raises(InvalidInputError, match="cannot add nodes"):
        read_published(write(tmp_path / "grows", grows, params(12, 40)))


def test_older_and_wrapped_checkpoints_are_read(tmp_path):
    plain = read_published(write(tmp_path / "a", config(), params(24)))
    wrapped = {f"module.{key}": torch.nn.Parameter(value) for key, value in params(24).items()}
    old = read_published(write(tmp_path / "b", config(), wrapped, _use_new_zipfile_serialization=False))
    np.testing.assert_array_equal(plain.phases[0].edges.a, old.phases[0].edges.a)


def test_twomoon_is_imported_and_verified(tmp_path):
    found = import_(official("twomoon"), tmp_path / "t.kcnet")
    assert found["verified"]["passed"] and found["verified"]["energy_distance"] < 0.01
    net = load_network(tmp_path / "t.kcnet")
    assert net.examples.shape == (64, 2) and net.n_edges == 600 and len(net.phases) == 2
    assert net.record["imported"]["verified"] == found["verified"]


def test_twomoon_with_its_parameters_on_other_edges_is_a_failed_import(tmp_path):
    source = official("twomoon")
    tensors = torch.load(source / "model.pth", weights_only=True, map_location="cpu")
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    write(tmp_path, (source / "config.yaml").read_text(), {k: v[:, order] for k, v in tensors.items()})
    with pytest.raises(InvalidInputError, match="failed import: edge order or law does not fit"):
        import_(tmp_path, tmp_path / "t.kcnet")
    assert not (tmp_path / "t.kcnet").exists()


def test_mnist_is_imported_and_verified(tmp_path):
    source = official("mnist")
    if not (data_dir() / "mnist").is_dir():
        pytest.skip(f"NOT TESTED: no MNIST in {data_dir()}")
    found = import_(source, tmp_path / "m.kcnet", data_dir=data_dir())
    assert (found["nodes"], found["edges"], found["inputs"]) == (835, 460_136, 784)
    assert found["readout"] == list(range(825, 835)) and found["warnings"] == []
    v = found["verified"]
    assert v["passed"] and v["wilson95"] == list(wilson(v["count"], 500)) and v["count"] >= 490
    assert load_network(tmp_path / "m.kcnet").examples.shape == (64, 784)


def test_an_mnist_network_at_chance_is_a_failed_import(tmp_path):
    if not (data_dir() / "mnist").is_dir():
        pytest.skip(f"NOT TESTED: no MNIST in {data_dir()}")
    struct = [{"name": "_simple_connect", "args": {"num_node": 800}}]
    write(tmp_path, config(struct, bench="mnist", projector="last10", fill="zeros"), params(800))
    with pytest.raises(InvalidInputError, match=r"failed import.*of 500 training images"):
        import_(tmp_path, tmp_path / "m.kcnet", data_dir=data_dir())


def test_without_data_the_network_is_written_with_a_loud_warning(tmp_path, monkeypatch):
    monkeypatch.delenv("KCNET_DATA", raising=False)
    struct = [{"name": "_simple_connect", "args": {"num_node": 800}}]
    write(tmp_path, config(struct, bench="mnist", projector="last10", fill="zeros"), params(800))
    result = CliRunner().invoke(app, ["import", str(tmp_path), "-o", str(tmp_path / "m.kcnet")])
    assert result.exit_code == 0 and "NOT VERIFIED" in result.stderr and "KCNET_DATA" in result.stderr
    assert load_network(tmp_path / "m.kcnet").record["imported"]["verified"]["passed"] is None


def test_the_output_is_never_over_anothers_file(tmp_path):
    write(tmp_path, config(), params(24))
    (tmp_path / "n.kcnet").write_text("mine")
    for out, why in (("n.kcnet", "exists"), ("n.txt", r"\*\.kcnet")):
        with pytest.raises(InvalidInputError, match=why):
            import_(tmp_path, tmp_path / out)
    assert (tmp_path / "n.kcnet").read_text() == "mine"


@pytest.mark.parametrize("name", TOYS)
def test_toy_distributions_are_reproducible_and_of_order_one(name):
    points = TOYS[name](500, np.random.default_rng(1))
    assert points.shape == (500, 2) and np.abs(points).max() < 7
    np.testing.assert_array_equal(points, TOYS[name](500, np.random.default_rng(1)))
