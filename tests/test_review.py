"""What users ran into: folders that are somebody's, names that are paths, options without effect, two runs in one."""

import fcntl
import json
from functools import reduce

import numpy as np
import pytest
from conftest import make_network, rc_pair
from safetensors.numpy import load, save

from kcnet_eda.api import simulate, train
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.export.bundle import MANIFEST, export, read_bundle
from kcnet_eda.network.graph import Network
from kcnet_eda.network.laws import IDENTITY
from kcnet_eda.network.store import dump_network, load_network, parse_network, save_network
from kcnet_eda.network.validate import problems


@pytest.fixture
def network_file(tmp_path):
    save_network(rc_pair(), tmp_path / "small.kcnet")
    return tmp_path / "small.kcnet"


def test_export_leaves_a_folder_alone_that_only_looks_like_a_bundle(tmp_path, network_file):
    folder = tmp_path / "extension"
    folder.mkdir()
    (folder / MANIFEST).write_text('{"name": "a browser extension", "manifest_version": 3}')
    (folder / "work.txt").write_text("precious")
    with pytest.raises(InvalidInputError, match="not a bundle that may be replaced"):
        export(network_file, folder)
    assert (folder / "work.txt").read_text() == "precious"


def test_export_does_not_wipe_what_a_designer_did_in_a_bundle(tmp_path, network_file):
    out = tmp_path / "bundle"
    export(network_file, out)
    (out / "results").mkdir()
    (out / "results" / "example.raw").write_text("made by run.sh")
    export(network_file, out)  # nothing of anybody's in it: replaced
    assert not (out / "results").exists()
    netlist = out / "netlist" / "small.sp"
    netlist.write_text(netlist.read_text() + "* my corner\n")
    (out / "mine.sp").write_text("* mine\n")
    with pytest.raises(InvalidInputError) as caught:
        export(network_file, out)
    assert "mine.sp was added or edited" in str(caught.value) and "small.sp was added or edited" in str(caught.value)
    assert netlist.read_text().endswith("* my corner\n")


@pytest.mark.parametrize("name", ["../../evil", "a/b", "two\nlines", "", 5, "x" * 65])
def test_a_network_is_not_called_what_a_file_cannot_be(name):
    small = rc_pair()
    assert any("its name" in p for p in problems(Network(name, small.phases, small.inputs, small.readout)))


def _with_header(**changes):
    data = dump_network(rc_pair())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["kcnet"]
    return save(load(data), metadata={"kcnet": json.dumps({**json.loads(header), **changes})})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_names": ["gnd", 5, "n2"]}, "node_names must be text"),
        ({"record": [1]}, "incomplete"),
        ({"laws": ["identity", "relu", "leaky_relu", "tanh"]}, "numbers the laws"),
        ({"format_version": 0}, "format version 0"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_network(_with_header(**changes), "x.kcnet")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (("scaling",), "c", "x", "cannot be used"),
        (("scaling",), "c", -1, "must be finite and above 0"),
        (("solver", "vacask"), "steps", -3, "-3 steps"),
    ],
)
def test_manifest_values_are_checked(tmp_path, network_file, section, key, value, message):
    export(network_file, tmp_path / "b")
    path = tmp_path / "b" / MANIFEST
    manifest = json.loads(path.read_text())
    part = reduce(dict.__getitem__, section, manifest)
    part[key] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(InvalidInputError, match=message):
        read_bundle(tmp_path / "b")
    part[key] = 2e-12 if key == "c" else 25
    path.write_text(json.dumps(manifest))
    assert read_bundle(tmp_path / "b").edited == (MANIFEST,)


def test_an_error_asked_of_a_bundle_counts(tmp_path, network_file):
    export(network_file, tmp_path / "b", error=1e-2)
    np.savez(tmp_path / "d.npz", x=np.array([[1.0, -0.5], [0.2, 0.9]]))
    asked = simulate(tmp_path / "b", tmp_path / "r", data=str(tmp_path / "d.npz"), error=1e-5)
    assert asked["contract"]["requested"] == 1e-5 and asked["contract"]["kept"]
    assert asked["contract"]["reached"] <= 1e-5
    assert (
        asked["contract"]["steps"]
        == asked["provenance"]["solver"]["steps"]
        > read_bundle(tmp_path / "b").settings[asked["summary"]["simulator"]].steps
    )


def test_data_that_do_not_fit_leave_nothing_behind(tmp_path, network_file):
    for arrays, message in (
        ({"x": np.ones((2, 3))}, "3 values a sample, the network takes 2"),
        ({"x": np.ones((2, 2)), "y": np.array([0, 20])}, "label 20; the network's 2 outputs say 0 to 1"),
    ):
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(InvalidInputError, match=message):
            simulate(network_file, tmp_path / "r", data=str(tmp_path / "d.npz"))
    (tmp_path / "d.npz").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="not a readable"):
        simulate(network_file, tmp_path / "r", data=str(tmp_path / "d.npz"))
    with pytest.raises(InvalidInputError, match="--seed -1"):
        simulate(network_file, tmp_path / "r", seed=-1)
    assert not (tmp_path / "r").exists()


def test_two_runs_do_not_share_a_folder(tmp_path, network_file):
    np.savez(tmp_path / "d.npz", x=np.ones((1, 2)))
    out = tmp_path / "r"
    simulate(network_file, out, data=str(tmp_path / "d.npz"))
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KcnetError, match="another kcnet is at work"):
            simulate(network_file, out, data=str(tmp_path / "d.npz"))


def test_samples_are_drawn_by_a_seed(tmp_path):
    net = make_network([(1, 2, 1.0, -1.0, 0.0, 1.0, IDENTITY)], 3, examples=[[1.0, 0.0]])
    save_network(net, tmp_path / "n.kcnet")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).uniform(size=(50, 2)))
    with_seed = simulate(tmp_path / "n.kcnet", tmp_path / "r", data=str(tmp_path / "d.npz"), samples=5, seed=7)
    with np.load(tmp_path / "r" / "outputs.npz") as found:
        index = found["index"]
    assert len(index) == 5 and index.tolist() != [0, 1, 2, 3, 4]
    assert "drawn by seed 7" in with_seed["provenance"]["data"]


def test_training_without_a_file_says_so_before_anything_else(tmp_path):
    with pytest.raises(InvalidInputError, match="no such file"):
        train(tmp_path / "none.yaml", tmp_path / "n.kcnet")
    assert load_network  # the module loads without torch
