"""Run folders as a report reads them: what can be read, and in words what is missing, failed or corrupt."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network
from kcnet_eda.study.pvt.record import STUDY as PVT
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, SIMULATE, STORE, command_of

Record = dict[str, Any]
_T = TypeVar("_T")
_SOFTWARE = ("x0", "v_end_software", "index")
#: The arrays that runs of a kind have of their samples, by which they are in the chain; other kinds have none.
SAMPLES = {SIMULATE: (*_SOFTWARE, "v_end", "label"), PVT: _SOFTWARE}


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds. ``record`` and ``network`` are None and ``arrays`` empty where they cannot be read;
    ``problems`` say what could not; ``statuses`` counts the rows of the store by status."""

    path: Path
    name: str
    record: Record | None
    arrays: dict[str, NDArray[Any]]
    network: Network | None
    statuses: dict[str, int]
    problems: tuple[str, ...]

    @property
    def kind(self) -> str:
        """``simulate``, ``pvt``, ``latency``, ``adjoint``; ``unknown`` without a record."""
        return "unknown" if self.record is None else str(self.record.get("study", SIMULATE))

    @property
    def remedy(self) -> str:
        """What to do about a record that lacks what this version shows."""
        again = f"give '{command_of(self.kind)}' the same folder again, which keeps what passed"
        return f"it is damaged or of another version: {again}"


def read_run(path: Path, name: str) -> Run:
    """Read all that can be read of a run folder, to be called ``name`` on the page.

    Raises
    ------
    InvalidInputError
        ``path`` is no folder, or has not one of a run's files.
    """
    problems: list[str] = []
    parts = (RECORD, OUTPUTS, STORE, NETWORK)
    try:
        there = {part for part in parts if (path / part).is_file()}
    except PermissionError as error:
        return Run(path, name, None, {}, None, {}, (f"cannot be looked into: {error.strerror}",))
    problems += [f"has no {part}" for part in parts if part not in there]
    if RECORD not in there and STORE in there:
        problems.append("did not end, or is still running: the command that began it goes on from where it stopped")
    if not path.is_dir() or not there:
        raise InvalidInputError(
            str(path), ["is not a run folder", *problems], "Name a folder that 'kcnet simulate' or a study made."
        )

    def read(part: str, how: Callable[[Path], _T], otherwise: _T) -> _T:
        if part not in there:
            return otherwise
        try:
            return how(path / part)
        except _NotWholeError as error:
            problems.append(f"{part} {error}")
        except Exception as error:  # a damaged file raises what zipfile, zlib, sqlite3 or NumPy happen to meet first
            problems.append(f"{part} cannot be read: {error or type(error).__name__}")
        return otherwise

    record: Record | None = read(RECORD, _record, None)
    no_arrays: dict[str, NDArray[Any]] = {}
    arrays = read(OUTPUTS, _arrays, no_arrays)
    network: Network | None = read(NETWORK, load_network, None)
    if network is not None and (odd := _odd_shapes(arrays, network)):
        arrays = {}
        problems.append(f"{OUTPUTS} is not of {NETWORK}: {odd}")
    if arrays and record is not None and (odd := _odd_samples(arrays, record)):
        arrays = {}
        problems.append(f"{OUTPUTS} {odd}")
    no_rows: dict[str, int] = {}
    statuses = read(STORE, _statuses, no_rows)
    return Run(path, name, record, arrays, network, statuses, tuple(problems))


class _NotWholeError(Exception):
    """A file can be read, and is not what it should be; the message says what is wrong after the file's name."""


def _record(path: Path) -> Record:
    def refuse(word: str) -> None:
        raise _NotWholeError(f"has the number {word}, which no run writes")

    record = json.loads(path.read_text(), parse_constant=refuse)
    if not isinstance(record, dict) or not isinstance(record.get("summary"), dict):
        raise _NotWholeError("is not the record of a run")
    return record


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _odd_shapes(arrays: dict[str, NDArray[Any]], network: Network) -> str:
    """What of a run of samples has not the shape that its network gives it; '' where all has."""
    if "x0" not in arrays:
        return ""
    n, nodes = len(arrays["x0"]), network.phases[-1].n_nodes
    shapes: dict[str, tuple[int, ...]] = {"x0": (n, network.phases[0].n_nodes)}
    shapes |= {name: (n, nodes) for name in arrays if name.startswith("v_end")}
    shapes |= dict.fromkeys(("label", "index", "y"), (n,))
    found = {name: arrays[name].shape for name in shapes if name in arrays}
    return "; ".join(f"{name} is {of}, not {shapes[name]}" for name, of in found.items() if of != shapes[name])


def _odd_samples(arrays: dict[str, NDArray[Any]], record: Record) -> str:
    """What of the arrays is not as runs of the record's kind write them; '' where all is."""
    kind, chain = record.get("study", SIMULATE), record.get("chain") or {}
    wanted = SAMPLES.get(kind, ()) if kind == SIMULATE or chain else ()
    wanted += tuple(f"v_end_{name}" for name in chain)
    if lost := [name for name in wanted if name not in arrays]:
        return f"lacks {', '.join(lost)}"
    if not wanted:
        return ""
    if odd := [name for name in ("x0", "v_end_software") if not np.isfinite(arrays[name]).all()]:
        return f"has {' and '.join(odd)} that are not finite"
    return "has a sample twice in its index" if np.unique(arrays["index"]).size < arrays["index"].size else ""


def _statuses(store: Path) -> dict[str, int]:
    """Rows by status; read only, so that a report never changes a run."""
    connection = sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)
    try:
        # A damaged page is met only when it is read: all columns, not the status alone.
        rows = connection.execute("SELECT * FROM runs").fetchall()
        if not rows:
            raise _NotWholeError("has no runs")
        return dict(connection.execute("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status").fetchall())
    finally:
        connection.close()


def names_of(paths: list[Path]) -> list[str]:
    """A short name of each run folder: as many of its last parts as tell it from all others, and a number where the
    same folder is given twice."""
    parts = [path.resolve().parts[1:] for path in paths]
    depth = 1
    while depth < max(map(len, parts)) and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    last = ["/".join(p[-depth:] if [q[-1] for q in parts].count(p[-1]) > 1 else p[-1:]) for p in parts]
    return [
        name if last.count(name) == 1 else f"{name} ({last[: number + 1].count(name)})"
        for number, name in enumerate(last)
    ]


def look_up(record: Any, key: str) -> Any:
    """The value at a dotted ``key`` of a record, a list's part by its number in brackets; None where there is none:
    records grow, and older ones lack parts."""
    for word in key.replace("[", ".[").split("."):
        if word.startswith("["):
            at = int(word[1:-1])
            record = record[at] if isinstance(record, list) and at < len(record) else None
        else:
            record = record.get(word) if isinstance(record, dict) else None
    return record
