import dataclasses
import gzip
import json

import numpy as np
import pytest
from conftest import make_network, random_network, rc_pair
from safetensors.numpy import load, save

from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.network import store, topology
from kcnet_eda.network.data import digits, load_data, mnist
from kcnet_eda.network.graph import Edges, Network, Phase, carry_over, labels, margins, settle
from kcnet_eda.network.laws import RELU, eq6
from kcnet_eda.network.validate import check, problems, unreachable_readout


def _edges(**changes):
    base = {"source": [1, 2], "target": [2, 1], "a": [1.0, 1.0], "b": [-1.0, -1.0], "c": [0.0, 0.0]}
    return Edges(**{**base, "k": [1.0, 1.0], "phi": [RELU, RELU], **changes})


def test_arrays_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        rc_pair().phases[0].edges.a[0] = 3.0


def test_every_problem_is_found_at_once():
    bad = Network(
        "bad",
        (
            Phase(3, -1.0, _edges(source=[1, 9], target=[1, 2], a=[np.nan, 1.0], phi=[RELU, 17])),
            Phase(3, 1.0, Edges([], [], [], [], [], [], [])),
        ),
        [0, 1],
        [2, 2],
    )
    found = "\n".join(problems(bad))
    for expected in (
        "duration is -1.0",
        "source node outside 0..2 at edge 1",
        "same node at edge 0",
        "parameter a is not finite at edge 0",
        "unknown law code",
        "phase 1: is empty",
        "input nodes [0] are outside",
        "read-out nodes are named twice",
    ):
        assert expected in found
    with pytest.raises(InvalidInputError, match="8 problems"):
        check(bad, "bad")


def test_columns_of_different_length_are_a_problem_not_a_crash():
    assert "differ in shape" in problems(Network("x", (Phase(3, 1.0, _edges(a=[1.0])),), [1], [2]))[0]


def test_unreachable_readout_is_a_warning():
    # 1 -> 2 depends on both ends; node 3 is fed by ground alone.
    net = make_network(
        [(1, 2, 1.0, -1.0, 0.0, 1.0, RELU), (0, 3, 0.0, -1.0, 0.5, 1.0, RELU)], 4, inputs=[1], readout=[2, 3]
    )
    assert unreachable_readout(net) == [3]
    assert check(net, "net") == ["no input reaches read-out node n3 (3): its output is constant"]


def test_influence_follows_the_law_and_stops_at_ground():
    # The current depends on the target alone (a = 0), so the target moves the source, not the reverse.
    backwards = make_network([(1, 2, 0.0, 1.0, 0.0, 1.0, RELU)], 3, inputs=[2], readout=[1])
    assert unreachable_readout(backwards) == []
    assert unreachable_readout(dataclasses.replace(backwards, inputs=[1], readout=[2])) == [2]
    through_ground = make_network(
        [(1, 0, 1.0, 0.0, 0.0, 1.0, RELU), (0, 2, 1.0, 0.0, 0.0, 1.0, RELU)], 3, inputs=[1], readout=[2]
    )
    assert unreachable_readout(through_ground) == [2]


def test_eq6_is_the_canonical_law():
    a, b, c, k = eq6(np.array([2.0]), np.array([-0.5]))
    v_s, v_d = 0.7, 0.1
    assert k * max(a * v_s + b * v_d + c, 0) == pytest.approx(max(2.0 * (v_s - v_d) - 0.5, 0))


@pytest.mark.parametrize("seed", range(3))
def test_file_round_trip_is_exact(seed, tmp_path):
    net = dataclasses.replace(random_network(seed), record={"a": [1, 2.5], "ü": None})
    store.save_network(net, tmp_path / "n.kcnet")
    back = store.load_network(tmp_path / "n.kcnet")
    assert store.dump_network(back) == store.dump_network(net)
    assert back.record == net.record and back.node_names == net.node_names
    for field in dataclasses.fields(Edges):
        np.testing.assert_array_equal(
            getattr(back.phases[0].edges, field.name), getattr(net.phases[0].edges, field.name), strict=True
        )


def _with_header(net, **changes):
    data = store.dump_network(net)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["kcnet"]) | changes
    return save(load(data), metadata={"kcnet": json.dumps(header)})


def test_a_newer_file_is_refused_with_the_remedy():
    with pytest.raises(InvalidInputError, match=r"format version 99.*\n.*Update kcnet_eda"):
        store.parse_network(_with_header(rc_pair(), format_version=99), "n.kcnet")


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[: len(d) // 2],
        lambda d: b"",
        lambda d: d[:7],
        lambda d: b"\xff" * 64,
        lambda d: save(load(d)),
        lambda d: save({"x": np.zeros(3)}, metadata={"kcnet": "[1]"}),
        lambda d: save({}, metadata={"kcnet": "not json"}),
        lambda d: save({}, metadata={"kcnet": '{"format_version": 1}'}),
    ],
)
def test_damaged_files_are_refused_by_name(damage):
    with pytest.raises(InvalidInputError, match=r"^broken\.kcnet"):
        store.parse_network(damage(store.dump_network(rc_pair())), "broken.kcnet")


def test_nan_in_a_network_is_refused_on_the_way_in_and_out(tmp_path):
    bad = Network("nan", (Phase(3, 1.0, _edges(c=[np.nan, 0.0])),), [1], [2])
    with pytest.raises(InvalidInputError, match="parameter c is not finite at edge 0"):
        store.save_network(bad, tmp_path / "n.kcnet")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidInputError, match="parameter c is not finite at edge 0"):
        store.parse_network(store.dump_network(bad), "n.kcnet")


def test_missing_files_and_names(tmp_path):
    with pytest.raises(InvalidInputError, match="no such file"):
        store.load_network(tmp_path / "none.kcnet")
    with pytest.raises(InvalidInputError, match=r"Shipped: .*digits"):
        store.network_path("nosuch")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "n.kcnet"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KcnetError, match="No space left on device"):
        store.save_network(rc_pair(), path)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["n.kcnet"]


def test_grid_window_connects_each_pixel_to_its_neighbours_once():
    source, target = topology.grid_window(3, 4, 3)
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == len(source) == 2 * (2 * 4 + 3 * 3 + 2 * 2 * 3)  # rows, columns, both diagonals
    assert {t for s, t in pairs if s == 1} == {2, 5, 6}
    assert all((t, s) in pairs for s, t in pairs)
    assert topology.grid_window(8, 8, 1)[0].size == 0
    with pytest.raises(ValueError, match="odd"):
        topology.grid_window(3, 3, 2)


def test_full_both_ways_repeat_join():
    source, target = topology.full([0, 1, 2], [1, 2])
    assert list(zip(source.tolist(), target.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (2, 1)]
    back = topology.both_ways((source, target))
    assert back[0].tolist() == [0, 0, 1, 2, 1, 2, 2, 1]
    joined = topology.join(topology.repeat((source, target), 3), back)
    assert joined[0].size == 3 * 4 + 8


def test_states_are_carried_over_labelled_and_measured():
    net = make_network([(1, 2, 1.0, -1.0, 0.0, 1.0, RELU)], 4, readout=[3, 1])
    v = np.array([[0.0, 0.2, 9.0, 0.5]])
    assert carry_over(v, Phase(3, 1.0, _edges())).tolist() == [[0.0, 0.2, 9.0]]
    assert carry_over(v, Phase(5, 1.0, _edges())).tolist() == [[0.0, 0.2, 9.0, 0.5, 0.0]]
    assert labels(net, v).tolist() == [0]
    assert margins(net, v) == pytest.approx([0.3])
    with pytest.raises(ValueError, match="2 input values"):
        net.initial_state([[1.0, 2.0]])


def test_new_nodes_repeat_the_held_ones_and_a_residual_is_added():
    v = np.array([[0.0, 0.2, 9.0]])
    assert carry_over(v, Phase(6, 1.0, _edges(), fill="repeat")).tolist() == [[0.0, 0.2, 9.0, 0.2, 9.0, 0.2]]
    first, second = Phase(4, 1.0, _edges(), "repeat"), Phase(4, 1.0, _edges(), residual_from=0)
    net = Network("twice", (first, second), [1, 2], [1])
    assert net.initial_state([[3.0, 4.0]]).tolist() == [[0.0, 3.0, 4.0, 3.0]]
    ends = [np.array([[0.0, 1.0, 2.0, 3.0]]), np.array([[0.0, 10.0, 20.0, 30.0]])]
    assert settle(net, ends[:1]).tolist() == ends[0].tolist()
    assert settle(net, ends).tolist() == [[0.0, 11.0, 22.0, 33.0]]


def test_a_phase_that_cannot_be_filled_or_added_is_refused():
    phases = (
        Phase(3, 1.0, _edges(), fill="ones"),
        Phase(4, 1.0, _edges(), residual_from=0),
        Phase(4, 1.0, _edges(), residual_from=3),
    )
    found = "\n".join(problems(Network("n", phases, [1], [1])))
    for what in ("fill is 'ones'", "adds the 3 nodes of phase 0 to its own 4", "phase 3, which is not one of 0..2"):
        assert what in found
    repeat = Network("n", (Phase(3, 1.0, _edges(), "repeat"),), [2], [1])
    assert any("must then be the nodes 1, 2" in p for p in problems(repeat))


def test_a_file_of_version_1_is_still_read():
    """The shipped digits network was written before phases had a fill and a residual."""
    phase = store.load_network(store.network_path("digits")).phases[0]
    assert (phase.fill, phase.residual_from) == ("zeros", None)


def test_digits_split_is_fixed_stratified_and_disjoint():
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1347, 450)
    assert not set(train.index.tolist()) & set(test.index.tolist())
    assert np.bincount(test.y).min() >= 43 and np.bincount(test.y).max() <= 46
    assert train.x.min() == 0.0 and train.x.max() == 1.0
    assert test.index[:5].tolist() == digits("test").index[:5].tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.ones(3)}, "no array x"),
        ({"x": np.ones(3)}, "shape"),
        ({"x": np.full((2, 2), np.nan)}, "not finite"),
        ({"x": np.ones((2, 2)), "y": np.ones(3, int)}, "y must be"),
        ({"x": np.array([["a"]])}, "numbers"),
    ],
)
def test_npz_data_are_checked(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InvalidInputError, match=message):
        load_data(str(tmp_path / "d.npz"))


def test_data_names_and_sample_counts(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2)))
    data = load_data(str(tmp_path / "d.npz"))
    assert data.y is None and len(data.head(2)) == 2
    for wrong in (0, 4):
        with pytest.raises(InvalidInputError, match="has 3 samples"):
            data.head(wrong)
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    for name in (str(tmp_path / "bad.npz"), str(tmp_path / "none.npz"), "mnist:half", "gaussian:2", "digits:half"):
        with pytest.raises(InvalidInputError):
            load_data(name)


def _write_idx(folder, part, images, labels, compress=False, head=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
        raw = (head or header) + values.astype(np.uint8).tobytes()
        path = folder / (name + ".gz" if compress else name)
        path.write_bytes(gzip.compress(raw) if compress else raw)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("inner", ["", "mnist"])
def test_mnist_is_read_from_its_idx_files(tmp_path, monkeypatch, compress, inner):
    images = np.arange(3 * 2 * 4).reshape(3, 2, 4)
    _write_idx(tmp_path / inner, "t10k", images, np.array([3, 0, 9]), compress)
    data = load_data("mnist:test", tmp_path)
    assert data.grid == (2, 4) and data.y.tolist() == [3, 0, 9] and data.name == "mnist:test"
    np.testing.assert_array_equal(data.x, images.reshape(3, 8) / 255.0)
    monkeypatch.setenv("KCNET_DATA", str(tmp_path))
    assert load_data("mnist").x.dtype == np.float64
    some = mnist("test", samples=2, seed=4)
    np.testing.assert_array_equal(some.x, data.x[some.index])
    with pytest.raises(InvalidInputError, match="has not MNIST's four files train-images"):
        load_data("mnist:train", tmp_path)


def test_mnist_that_is_not_there_or_not_whole_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("KCNET_DATA", raising=False)
    for folder in (None, tmp_path):
        with pytest.raises(
            InvalidInputError, match=r"train-images-idx3-ubyte, .*t10k-labels[\s\S]*--data-dir.*KCNET_DATA"
        ):
            load_data("mnist", folder)
    images, labels = np.ones((3, 2, 2)), np.array([1, 2, 3])

    def refused(message, damage=lambda raw: raw, name="t10k-images-idx3-ubyte", **changes):
        for path in tmp_path.iterdir():
            path.unlink()
        _write_idx(tmp_path, "t10k", **({"images": images, "labels": labels} | changes))
        path = next(tmp_path.glob(name + "*"))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(InvalidInputError, match=message):
            load_data("mnist", tmp_path)

    refused("truncated: it should hold 12", lambda raw: raw[:-1])
    refused("truncated within its header", lambda raw: raw[:9])
    refused("longer than its header", lambda raw: raw + b"x")
    refused("no idx file of bytes in 3 dimensions", lambda raw: b"\x89PNG" + raw[4:])
    refused("which cannot be", lambda raw: raw[:4] + b"\xff" * 12)
    refused("cannot be read", lambda raw: raw[:20], compress=True)
    refused("cannot be read", lambda raw: b"not gzip", compress=True)
    refused("has 2 labels for the 3 images", labels=labels[:2])
    refused("digits end at 9", labels=labels + 9)


def test_gaussian_samples_follow_their_seed():
    data = load_data("gaussian:500", features=3, seed=3)
    assert data.x.shape == (500, 3) and data.y is None and abs(data.x.std() - 1) < 0.1
    np.testing.assert_array_equal(data.x, load_data("gaussian:500", features=3, seed=3).x)
    assert not np.array_equal(data.x, load_data("gaussian:500", features=3, seed=4).x)
    assert len(load_data("gaussian", features=1)) == 1000
    for bad in ("gaussian:0", "gaussian:x", "gaussian:-1", "gaussian:1e3", "gaussian:99999999999"):
        with pytest.raises(InvalidInputError, match="takes 1 to"):
            load_data(bad, features=2)
