import numpy as np
import pytest

from kcnet_eda.errors import BadDataError
from kcnet_eda.tools.rawfile import read_sweep, read_transient


def raw(names=("time", "v(a)", "v(B)"), table=None, flags="real", points=None):
    table = np.array([[1e-15, 1, 2], [0.5e-12, 3, 4], [1e-12, 5, 6]]) if table is None else np.asarray(table, float)
    head = [
        f"Flags: {flags}",
        f"No. Variables: {len(names)}",
        f"No. Points: {len(table) if points is None else points}",
        "Variables:",
        *(f"\t{i}\t{n}\tvoltage" for i, n in enumerate(names)),
        "Binary:",
        "",
    ]
    return "\n".join(head).encode() + table.astype("<f8").tobytes()


def read(tmp_path, data, wanted=("a", "b")):
    (tmp_path / "x.raw").write_bytes(data)
    return read_transient(tmp_path / "x.raw", wanted, 1e-12)


def test_reads_what_was_asked_for_in_that_order(tmp_path):
    waves = read(tmp_path, raw(), ("B", "a"))
    np.testing.assert_array_equal(waves.values, [[2, 1], [4, 3], [6, 5]])
    np.testing.assert_array_equal(waves.time, [1e-15, 0.5e-12, 1e-12])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (raw()[:-8], "cut short"),
        (raw() + b"12345678", "cut short"),
        (raw()[:40], "no data section"),
        (b"", "0 bytes"),
        (raw(table=np.empty((0, 3))), "no points"),
        (raw(points=0)[:-72], "no points"),
        (raw(points=2), "cut short"),
        (raw(table=[[1e-15, 1, np.nan], [1e-12, 1, 1]]), "not finite"),
        (raw(flags="complex"), "complex"),
        (raw(table=[[1e-15, 1, 1], [9e-13, 1, 1]]), "ends at 9e-13 s"),
        (raw(names=("time", "v(a)", "v(c)")), "node b"),
        (raw(table=[[1e-15, 1, 1], [1e-15, 1, 1], [1e-12, 1, 1]]), "does not rise"),
        (raw(names=("frequency", "v(a)", "v(b)")), "not a transient"),
        (b"Title: x\nBinary:\n", "header"),
    ],
)
def test_anything_less_is_an_error(tmp_path, data, message):
    with pytest.raises(BadDataError, match=message):
        read(tmp_path, data)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(BadDataError, match="wrote no such result"):
        read_transient(tmp_path / "none.raw", ("a",), 1e-12)


SWEEP = {"names": ("v-sweep", "i(v1)", "v(B)"), "table": [[0.0, 1, 2], [0.5, 3, 4], [1.0, 5, 6]]}


def test_a_sweep_is_read_as_strictly(tmp_path):
    path = tmp_path / "x.raw"
    path.write_bytes(raw(**SWEEP))
    swept, values = read_sweep(path, ("b", "i(V1)"), 1.0)
    np.testing.assert_array_equal(swept, [0, 0.5, 1])
    np.testing.assert_array_equal(values, [[2, 1], [4, 3], [6, 5]])
    for data, message in (
        (raw(**{**SWEEP, "table": SWEEP["table"][:2]}), "ends at 0.5, not at 1"),
        (raw(**{**SWEEP, "table": [[1.0, np.inf, 0]]}), "not finite"),
        (raw(), "not the result of a DC sweep"),
        (raw(**SWEEP)[:-1], "cut short"),
    ):
        path.write_bytes(data)
        with pytest.raises(BadDataError, match=message):
            read_sweep(path, ("b", "i(v1)"), 1.0)
