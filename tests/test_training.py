"""Training: gradients against torch's own, settings, reproducibility, and the network that ships."""

import numpy as np
import pytest
import yaml
from conftest import random_network

from kcnet_eda.api import train
from kcnet_eda.dynamics.rhs import RightHandSide
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.files import resource_dir
from kcnet_eda.network.data import digits
from kcnet_eda.network.graph import labels
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, RELU, TANH
from kcnet_eda.network.store import load_network

torch = pytest.importorskip("torch", reason="NOT RUN: torch is not installed")

from kcnet_eda.dynamics.augmentation import Augmentation, augment  # noqa: E402
from kcnet_eda.dynamics.torch_path import EdgeColumns, heun, rate  # noqa: E402

SMALL = {"name": "small", "seed": 3, "epochs": 12, "topology": {"hidden": 4}, "pruning": {"edges": 500}}


def torch_rate(columns, code, law, v):
    """The right-hand side in torch's own words: the oracle."""
    a, b, c, k = law
    source, target = (torch.from_numpy(ends.astype(np.int64)) for ends in columns.ends)
    phi = {
        RELU: torch.relu,
        LEAKY_RELU: lambda x: torch.nn.functional.leaky_relu(x, 0.01),
        TANH: torch.tanh,
        IDENTITY: lambda x: x,
    }[code]
    current = k[:, None] * phi(a[:, None] * v[source] + b[:, None] * v[target] + c[:, None])
    flow = torch.zeros_like(v).index_add(0, target, current).index_add(0, source, -current)
    return torch.cat([torch.zeros_like(flow[:1]), flow[1:]])


@pytest.mark.parametrize("code", [RELU, LEAKY_RELU, TANH, IDENTITY])
def test_value_and_gradient_equal_torchs_to_1e_10(code):
    """Random graphs with parallel and ground edges; sums of some hundred terms of order one, in doubles."""
    rng = np.random.default_rng(code)
    source = rng.integers(0, 6, 60)
    target = (source + rng.integers(1, 6, 60)) % 6
    columns = EdgeColumns(torch.from_numpy(source), torch.from_numpy(target), code)
    law = [torch.from_numpy(p).requires_grad_() for p in rng.normal(0, 0.3, (4, 60))]
    v0 = torch.from_numpy(rng.normal(0, 1, (6, 5))).requires_grad_()
    pull = torch.from_numpy(rng.normal(0, 1, (6, 5)))
    found = []
    for slope in (lambda v: rate(columns, law, v), lambda v: torch_rate(columns, code, law, v)):
        *_, end = heun(slope, v0, 1.0, 4)
        found.append([end.detach(), *torch.autograd.grad((pull * end).sum(), [v0, *law])])
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-10


def test_the_training_path_and_the_software_truth_share_one_law():
    network = random_network(0)
    e = network.phases[0].edges
    v = np.random.default_rng(0).normal(0, 1, (network.max_nodes, 3))
    v[0] = 0.0  # ground
    total = sum(
        rate(
            EdgeColumns(*(torch.tensor(x[e.phi == code]).long() for x in (e.source, e.target)), code),
            tuple(torch.tensor(x[e.phi == code]) for x in (e.a, e.b, e.c, e.k)),
            torch.from_numpy(v),
        ).numpy()
        for code in range(4)
    )
    np.testing.assert_allclose(total, RightHandSide(network.phases[0])(v), atol=1e-12)


def test_no_distortion_gives_the_image_back_and_distortion_moves_it():
    x = torch.from_numpy(digits("train").x[:5])
    still = Augmentation(rotate_degrees=0, shift_pixels=0, scale=0, elastic_pixels=0)
    np.testing.assert_allclose(augment(x, (8, 8), still, torch.Generator()), x, atol=1e-9)
    moved = augment(x, (8, 8), Augmentation(), torch.Generator().manual_seed(0))
    assert moved.shape == x.shape and float(moved.min()) >= 0 and float(moved.max()) <= 1
    assert 0.005 < float((moved - x).abs().mean()) < 0.2


def write(tmp_path, **changes):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def test_the_same_settings_give_the_same_network(tmp_path):
    config = write(tmp_path, validation_fraction=0.2)
    records = [train(config, tmp_path / f"{i}.kcnet") for i in range(2)]
    first, second = (load_network(tmp_path / f"{i}.kcnet") for i in range(2))
    np.testing.assert_array_equal(first.phases[0].edges.a, second.phases[0].edges.a)
    assert first.n_edges == 500 and first.record["settings"]["seed"] == 3
    result = records[0]["result"]
    assert result["train_images"] == 1077 and result["validation_accuracy"] > 0.5  # a few epochs, far above chance
    assert result == records[1]["result"]


def test_every_wrong_setting_is_named(tmp_path):
    config = write(tmp_path, epochs=0, learning_rate="fast", colour="red", topology={"window": 4})
    with pytest.raises(InvalidInputError) as caught:
        train(config, tmp_path / "n.kcnet")
    for place in ("epochs", "learning_rate", "colour", "topology"):
        assert place in str(caught.value)
    for bad, words in (
        ({"pruning": {"edges": 10**6}}, "the topology has"),
        ({"pruning": {"edges": 5, "begin": 0.8}}, "begin"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            train(write(tmp_path, **bad), tmp_path / "n.kcnet")
    (tmp_path / "mine.kcnet").write_bytes(b"hours of work")
    with pytest.raises(InvalidInputError, match="exists"):
        train(write(tmp_path), tmp_path / "mine.kcnet")
    assert (tmp_path / "mine.kcnet").read_bytes() == b"hours of work"
    with pytest.raises(KcnetError, match="cannot be written to"):
        train(write(tmp_path), tmp_path / "mine.kcnet" / "n.kcnet")
    with pytest.raises(InvalidInputError, match=r"called \*\.kcnet"):
        train(write(tmp_path), tmp_path / "n.pth")
    for text, words in (("a: [", "is not YAML"), ("- 1", "key: value")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(InvalidInputError, match=words):
            train(tmp_path / "c.yaml", tmp_path / "n.kcnet")
    assert not (tmp_path / "n.kcnet").exists()


def test_divergence_is_said(tmp_path):
    with pytest.raises(KcnetError, match="training diverged"):
        train(write(tmp_path, init_theta1=1e200), tmp_path / "n.kcnet")


def test_the_shipped_network_is_what_is_claimed(digits_network):
    """At least 98 % of the 450 test digits, at most 6,000 edges, every voltage within ±2, under 1 MB, and its record
    says how it was made."""
    from kcnet_eda.dynamics.training import evaluate

    test = digits("test")
    accuracy, largest = evaluate(digits_network, test)
    assert len(test) == 450 and accuracy >= 0.98 and largest <= 2.0
    assert digits_network.n_edges <= 6000
    assert (resource_dir("examples") / "digits.kcnet").stat().st_size < 1_000_000
    record = digits_network.record
    assert record["result"]["test_accuracy"] == accuracy and record["result"]["edges"] == digits_network.n_edges
    settings = yaml.safe_load((resource_dir("examples") / "digits.yaml").read_text())
    for name, value in settings.items():
        made_with = record["settings"][name]
        assert value.items() <= made_with.items() if isinstance(value, dict) else made_with == value
    assert (labels(digits_network, np.zeros((1, digits_network.max_nodes))) == 0).all()
