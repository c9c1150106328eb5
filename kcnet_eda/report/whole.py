"""Whether a run folder's files hold all that its record speaks of: arrays of ``outputs.npz``, rows of the store."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Network
from kcnet_eda.study.adjoint.record import STUDY as ADJOINT
from kcnet_eda.study.latency.record import STUDY as LATENCY
from kcnet_eda.study.pvt.record import STUDY as PVT
from kcnet_eda.study.simulate import OUTPUTS, RECORD, SIMULATE
from kcnet_eda.study.store import Status

Record = dict[str, Any]
Arrays = dict[str, NDArray[Any]]

_SOFTWARE = ("x0", "v_end_software", "index")
#: The arrays that runs of a kind have of their samples, by which they are in the chain; other kinds have none.
SAMPLES = {SIMULATE: (*_SOFTWARE, "v_end", "label"), PVT: _SOFTWARE}


@dataclass(frozen=True)
class _Wanted:
    """An array by its shape (None: of any length); at most ``failed`` of its rows may be not finite. ``infinite``: only
    what is no number counts as not finite."""

    shape: tuple[int | None, ...]
    failed: int = 0
    infinite: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the store: its key and variant, how it ended, and whether it has numbers."""

    key: str
    variant: str
    status: str
    numbers: bool


def odd_arrays(arrays: Arrays, record: Record, network: Network) -> str:
    """What of a run's arrays is not as its record says, in words after the file's name; '' where all is."""
    wanted = _wanted(arrays, record, network)
    if lost := [name for name in wanted if name not in arrays]:
        return f"lacks {', '.join(lost)}"
    shapes = {name: arrays[name].shape for name in wanted}
    if odd := [name for name, shape in shapes.items() if _other(shape, wanted[name])]:
        return (
            f"is not of this run: {'; '.join(f'{name} is {shapes[name]}, not {_told(wanted[name])}' for name in odd)}"
        )
    if odd := [name for name, want in wanted.items() if _unfit(arrays[name], want) > want.failed]:
        return f"has {' and '.join(odd)} that are not finite"
    twice = "index" in wanted and np.unique(arrays["index"]).size < arrays["index"].size
    return "has a sample twice in its index" if twice else ""


def _told(want: _Wanted) -> str:
    words = ["any" if n is None else str(n) for n in want.shape]
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"


def _other(shape: tuple[int, ...], want: _Wanted) -> bool:
    return len(shape) != len(want.shape) or any(n not in (None, m) for m, n in zip(shape, want.shape, strict=True))


def _unfit(array: NDArray[Any], want: _Wanted) -> int:
    """Rows that are not finite."""
    bad = np.isnan(array) if want.infinite else ~np.isfinite(array)
    return int(bad.reshape(len(array), -1).any(axis=1).sum())


def _wanted(arrays: Arrays, record: Record, network: Network) -> dict[str, _Wanted]:
    """What runs of the record's kind write."""
    kind = record.get("study", SIMULATE)
    makers = {SIMULATE: _of_simulate, PVT: _of_conditions, LATENCY: _of_latency, ADJOINT: _of_adjoint}
    return makers[kind](arrays, record, network) if kind in makers else {}


def _of_samples(n: int, network: Network) -> dict[str, _Wanted]:
    first, last = network.phases[0].n_nodes, network.phases[-1].n_nodes
    return {"x0": _Wanted((n, first)), "v_end_software": _Wanted((n, last)), "index": _Wanted((n,))}


def _of_simulate(arrays: Arrays, record: Record, network: Network) -> dict[str, _Wanted]:
    n, nodes = record["summary"]["n"], network.phases[-1].n_nodes
    failed = int((arrays["label"] < 0).sum()) if "label" in arrays else 0  # they have no voltages
    wanted = _of_samples(n, network) | {"v_end": _Wanted((n, nodes), failed), "label": _Wanted((n,))}
    if record.get("accuracy") is not None:
        wanted["y"] = _Wanted((n,))
    steps = record.get("software_steps") or {}
    # What a law makes of a start far away may be no number: a step of software is allowed that.
    return wanted | {f"v_end_{name}": _Wanted((n, nodes), n) for name, step in steps.items() if step["status"] == "run"}


def _of_conditions(arrays: Arrays, record: Record, network: Network) -> dict[str, _Wanted]:
    conditions, nodes = record["conditions"], network.phases[-1].n_nodes
    of_dies = (len(conditions), record["summary"]["dies"])
    wanted = {"right": _Wanted(of_dies), "not_finite": _Wanted(of_dies)}
    if conditions and "margin_v" in conditions[0]:  # older records have none of these
        # A die most of whose samples are not finite leads by minus infinity.
        wanted |= {"agree": _Wanted(of_dies), "margin": _Wanted(of_dies, infinite=True)}
    for name, key in (("case", "check"), ("case_mos", "check_mos")):
        if (check := record.get(key)) is not None:
            n = check["cases"]
            wanted |= {name: _Wanted((n, 3)), f"{name}_v_end": _Wanted((n, nodes), check["failed"])}
    if record.get("calibration") is not None:
        wanted |= {"right_calibrated": _Wanted((None, of_dies[1])), "trim_codes": _Wanted((None, None))}
    for name, step in (record.get("chain") or {}).items():
        n = step["check"]["cases"]
        wanted |= _of_samples(n, network) | {"y": _Wanted((n,))}
        wanted[f"v_end_{name}"] = _Wanted((n, nodes), step["check"]["failed"])
    return wanted


def _of_latency(arrays: Arrays, record: Record, network: Network) -> dict[str, _Wanted]:
    wanted = _of_samples(record["provenance"]["samples"], network)
    inference = record["sections"]["inference"]
    if any(row["status"] == Status.PASSED for row in inference.get("samples", [])):
        points = len(arrays["inference_time"]) if "inference_time" in arrays else None
        volts = 2 * len(inference["outputs"])  # of each output, and of what holds it
        wanted |= {"inference_time": _Wanted((points,)), "inference_volts": _Wanted((points, volts))}
    return wanted


def _of_adjoint(arrays: Arrays, record: Record, network: Network) -> dict[str, _Wanted]:
    samples = record["samples"]
    n, nodes, edges = len(samples), network.max_nodes, network.n_edges
    failed = sum(sample["runs"][-1]["status"] != Status.PASSED for sample in samples)
    wanted = {"x0": _Wanted((n, nodes)), "index": _Wanted((n,))}
    for name, lost in (("", failed), ("_software", 0)):
        wanted |= {f"of_v0{name}": _Wanted((n, nodes), lost), f"of_edges{name}": _Wanted((n, 4, edges), lost)}
    return wanted | ({"y": _Wanted((n,))} if samples[0]["label"] is not None else {})


def read_rows(store: Path) -> tuple[list[Row], list[str]]:
    """The rows of a store, and the keys of its present plan, where it has one; read only, so that a report never
    changes a run."""
    with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        # A damaged page is met only when it is read: all columns, not those alone that are asked for.
        rows = [
            Row(row["key"], row["variant"], row["status"], row["v_end"] is not None)
            for row in connection.execute("SELECT * FROM runs")
        ]
        tables = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master")}
        planned = connection.execute("SELECT key FROM plan").fetchall() if "plan" in tables else []
    return rows, [row["key"] for row in planned]


def counted(rows: Sequence[Row], planned: Sequence[str], record: Record | None) -> list[Row]:
    """The rows of the run that the record is of: a store also keeps those of settings from before. Of a study with a
    plan they are its plan's, of latency those that the record names; of others nothing tells them, and all are."""
    keys = set(planned)
    if not keys and record is not None and record.get("study") == LATENCY:
        keys = {key for key, _ in _named(record)}
    return [row for row in rows if row.key in keys] if keys else list(rows)


def odd_rows(rows: Sequence[Row], planned: Sequence[str], record: Record, arrays: Arrays) -> list[str]:
    """What of a run is not in its store, in words after the file's name."""
    there, odd = {row.key for row in rows}, []
    named = dict(_named(record))
    if lost := [key for key in named if key not in there]:
        odd.append(f"lacks {len(lost)} of {_runs(len(named))} that {RECORD} names, the first in {named[lost[0]]}")
    if lost := [key for key in planned if key not in there]:
        odd.append(f"lacks {len(lost)} of {_runs(len(planned))} that it had planned")
    # The same sample twice is one run.
    n, found = len(np.unique(arrays["x0"], axis=0)) if "x0" in arrays else 0, Counter(row.variant for row in rows)
    for variant in _variants(record):
        if found[variant] < n:
            odd.append(f"has {found[variant]} of the {_runs(n)} that {OUTPUTS} has samples of ({variant})")
    if lost := [row.key for row in counted(rows, planned, record) if row.status == Status.PASSED and not row.numbers]:
        odd.append(f"has lost the numbers of {_runs(len(lost))} that passed")
    return odd


def _runs(n: int) -> str:
    return f"{n} run{'s' if n != 1 else ''}"


def _variants(record: Record) -> list[str]:
    """The variants of which a run without keys in its record has one row for each of its samples."""
    kind = record.get("study", SIMULATE)
    if kind == ADJOINT:
        return [f"adjoint_{row['steps']}" for row in record["convergence"]]
    return ["main"] if kind == SIMULATE else []


def _named(record: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Each key of the store that a record names, and the part of the record that does."""
    if isinstance(record, list):
        for part in record:
            yield from _named(part, place)
    if not isinstance(record, dict):
        return
    for name, value in record.items():
        if name == "key" and isinstance(value, str):
            yield value, place
        elif name == "keys" and isinstance(value, list):
            yield from ((key, place) for key in value)
        else:
            yield from _named(value, f"{place}.{name}" if place else name)
