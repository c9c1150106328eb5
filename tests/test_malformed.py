"""Malformed checkpoints and configs: each is refused by one clear error, in under two seconds, and no code is run."""

import contextlib
import io
import os
import time
import zipfile

import numpy as np
import pytest
from published_files import config, full, params, torch, write

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.published import read_published

MIX = {"num_channel": 1, "width": 28, "height": 28, "neighbor_size": 4, "fully_connect_node": 50}
KEY = "circuit.layer_list.0.model.param"


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def nan():
    tensors = params(24)
    tensors[KEY][1, 3] = float("nan")
    tensors[KEY][2, 0] = float("inf")
    return tensors


def zip_bomb():
    stream = io.BytesIO()
    torch.save(params(24), stream)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(50_000_000))
    return stream.getvalue()


def cut(tensors):
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()[: stream.tell() // 2]


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
UNKNOWN = {"name": "_small_world", "args": {}}

# name: (config, checkpoint, what the error says)
CASES = {
    "rows": (config(), params(24, rows=2), r"shape \(2, 24\); ShiftTanh2 on 24 edges takes \(3, 24\)"),
    "columns": (config(), params(23), r"shape \(3, 23\)"),
    "dims": (config(), {KEY: torch.ones(3, 24, 1)}, r"shape \(3, 24, 1\)"),
    "nan and inf": (config(), nan(), "has 2 of 72 values that are not finite"),
    "missing phase": (config([full(4), full(4)]), params(24), "phase 1: the checkpoint has no"),
    "extra phase": (config(), params(24, 24), "a tensor that no phase of the config uses"),
    "mlp weights": (config(), params(24) | {"projector.net.0.weight": torch.ones(3)}, "a trained projector outside"),
    "a list": (config(), [1, 2], "holds a list"),
    "a number": (config(), {KEY: 3}, "is a int, not a tensor"),
    "complex": (config(), {KEY: torch.ones(3, 24, dtype=torch.complex64)}, "not numbers"),
    "a view of one value": (config(), {KEY: torch.ones(1).expand(3, 10**12)}, "but not that many values"),
    "cut off": (config(), cut(params(24)), "is damaged or no checkpoint"),
    "empty": (config(), b"", "is damaged or no checkpoint"),
    "text": (config(), b"hello, world", "is damaged or no checkpoint"),
    "zip bomb": (config(), zip_bomb(), "would unpack to"),
    "no checkpoint": (config(), None, r"model\.pth: no such file"),
    "yaml aliases": (ALIASES, params(24), "anchors or aliases"),
    "yaml depth": ("[" * 50_000, params(24), "more than 32 deep"),
    "yaml size": ("#" * 200_000, params(24), "larger than 64 KiB"),
    "not yaml": ("network: [", params(24), "is not YAML"),
    "python tag": ("!!python/object/apply:os.mkdir [x]", params(24), "is not YAML"),
    "a yaml list": ("- 1\n- 2\n", params(24), "must hold 'key: value' lines"),
    "nothing in it": ("foo: 1\n", params(24), r"network: Field required[\s\S]*simulation: Field required"),
    "unknown law": (config(law="ShiftSine1"), params(24), "ShiftSine1[\\s\\S]*ShiftRelu1"),
    "law arguments": (config(args={"slope": 1}), params(24), r"slope: Extra inputs"),
    "device arguments": (config(law="Device", args={"negation": 1, "activation": "gelu"}), params(24), "2 problems"),
    "unknown topology": (config([UNKNOWN]), params(24), "_small_world[\\s\\S]*_mix_connect"),
    "pregiven": (config([{"name": "_pregiven", "args": {}}]), params(24), "a graph given at training time"),
    "topology arguments": (
        config([{"name": "_mix_connect", "args": MIX | {"width": "28", "kernel": 3, "padding": 1}}]),
        params(24),
        "3 problems",
    ),
    "window": (
        config([{"name": "_neighbor_index", "args": {"num_channel": 1, "width": 3, "height": 3, "neighbor_size": 4}}]),
        params(24),
        "no window of neighbor_size 4",
    ),
    "no edges": (config([full(1)]), params(24), "gives no edges"),
    "huge": (config([full(1_000_000)]), params(24), "would give 2e\\+12 edges"),
    "huge windows": (
        config([{"name": "_mix_connect", "args": MIX | {"width": 16_000, "height": 16_000, "padding": True}}]),
        params(24),
        "pairs of places",
    ),
    "huge in all": (config([full(3000)] * 3), params(24), "5.4e\\+07 edges"),
    "exploding parallel": (
        config([{"name": "_mix_connect", "args": MIX | {"parallel": 24}}]),
        params(24),
        "edges; at most",
    ),
    "sides beyond reason": (
        config([{"name": "_mix_connect", "args": MIX | {"width": 10**12}}]),
        params(24),
        "less than or equal",
    ),
    "negative time": (config(t_end=[-1, 1]), params(24), "start at 0 or later"),
    "falling times": (config([full(4)] * 2, t_end=[0, 2, 1]), params(24, 24), "rise strictly"),
    "equal times": (config(t_end=[1, 1]), params(24), "rise strictly"),
    "time not a number": (config(t_end=[0, "soon"]), params(24), "t_end.1"),
    "time not finite": (config(t_end=[0, float("inf")]), params(24), "finite"),
    "too few slices": (config([full(4)] * 2, t_end=[0, 1]), params(24, 24), "has 2 times; 2 phases need 3"),
    "projector too wide": (config(projector="last10"), params(24), "last10 asks for 10 of 3 nodes"),
    "mlp projector": (config(projector="mlp_3_10"), params(24), "a trained layer outside the circuit"),
    "reshape": (config(projector=["last3", "reshape3"]), params(24), "mixes samples and nodes"),
    "last0": (config(projector="last0"), params(24), "'last0' is no projector"),
    "encoder": (config(encoder=[10, 3]), params(24), "an encoder is a trained network"),
    "misspelt": (config(filll="zeros"), params(24), "filll: Extra inputs"),
    "no fill": (config([full(4), full(5)]), params(24, 40), "gives no fill"),
    "unknown fill": (config(fill="ones"), params(24), "fill"),
    "residual sizes": (config([full(4), full(3)], residual=[0, 1]), params(24, 12), "adds the 4 nodes of phase 0"),
    "residual order": (config([full(4)] * 2, residual=[1, 0]), params(24, 24), "0 <= i <= j"),
    "residual beyond": (config([full(4)] * 2, residual=[0, 2]), params(24, 24), "beyond the 2"),
    "too many inputs": (config(bench="mnist"), params(24), "784 inputs for the 3 nodes"),
    "bench name": (config(bench="../../x"), params(24), "test_bench"),
    "two at once": (config(law="X", t_end=[1, 0]), b"", "3 problems"),
    "bare shapes": ("use_diff: true\n", {"topology": torch.ones(2, 3), "param": torch.ones(3, 3)}, r"take \(2, 3\)"),
    "bare nodes": (
        "use_diff: true\n",
        {"topology": torch.tensor([[0, -1], [1, 10**9]]), "param": torch.ones(2, 2)},
        "node numbers",
    ),
    "bare loop": (
        "use_diff: true\n",
        {"topology": torch.tensor([[1, 1], [1, 2]]), "param": torch.ones(2, 2)},
        "the same node",
    ),
    "bare names": ("use_diff: true\n", {"src_node": torch.ones(2)}, "has no des_node, model.param"),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_networks_are_refused(case, tmp_path):
    content, tensors, message = CASES[case]
    folder = write(tmp_path / "net", content, tensors)
    started = time.monotonic()
    with pytest.raises(InvalidInputError, match=message):
        read_published(folder)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("wrap", [lambda b: b, lambda b: {KEY: torch.ones(3, 24), "x": b}, lambda b: {KEY: [b]}])
def test_a_pickle_bomb_does_not_go_off(new, wrap, tmp_path):
    mark = tmp_path / "exploded"
    folder = write(tmp_path / "net", config(), wrap(Bomb(mark)), _use_new_zipfile_serialization=new)
    started = time.monotonic()
    with pytest.raises(InvalidInputError, match=r"holds more than tensors: it asks for posix\.mkdir"):
        read_published(folder)
    assert time.monotonic() - started < 2 and not mark.exists()


def test_npz_of_objects_and_wrong_places(tmp_path):
    write(tmp_path, "use_diff: true\n", None)
    np.savez(tmp_path / "n.npz", topology=np.array([Bomb(tmp_path / "exploded")], dtype=object))
    with pytest.raises(InvalidInputError, match="not a readable"):
        read_published(tmp_path / "n.npz")
    (tmp_path / "n.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InvalidInputError, match="no zip archive"):
        read_published(tmp_path / "n.npz")
    with pytest.raises(InvalidInputError, match="is not there"):
        read_published(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="must be at least 1"):
        read_published(tmp_path, inputs=0)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_byte_never_gives_more_than_an_error(seed, tmp_path):
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    torch.save(params(24), stream, _use_new_zipfile_serialization=bool(seed % 2))
    raw = bytearray(stream.getvalue())
    for place in rng.integers(0, len(raw), 8):
        raw[place] = rng.integers(256)
    with contextlib.suppress(InvalidInputError):
        read_published(write(tmp_path, config(), bytes(raw)))


def test_tensors_that_share_their_values_are_counted_before_they_are_copied(tmp_path):
    whole = torch.zeros(1_000_000)
    folder = write(tmp_path / "net", config(), {f"t{i}": whole for i in range(10_000)})
    started = time.monotonic()
    with pytest.raises(InvalidInputError, match="they share their values"):
        read_published(folder)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["config.yaml", "model.pth"])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    folder = write(tmp_path / "net", config(), params(24))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InvalidInputError, match="not a regular file"):
        read_published(folder)


def test_a_message_shows_the_first_problems_and_counts_the_rest():
    error = InvalidInputError("x", [f"problem {i}" for i in range(100)])
    assert len(error.problems) == 100 and "100 problems" in str(error) and "and 75 more" in str(error)
