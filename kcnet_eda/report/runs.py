"""Run folders as a report reads them: what can be read, and in words what is missing, failed or corrupt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network
from kcnet_eda.report.whole import Arrays, Record, Row, counted, odd_arrays, odd_rows, read_rows
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, SIMULATE, STORE, command_of

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds. ``record`` and ``network`` are None and ``arrays`` empty where they cannot be read;
    ``problems`` say what could not; ``statuses`` counts the run's rows of the store by status."""

    path: Path
    name: str
    record: Record | None
    arrays: Arrays
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
    arrays: Arrays | None = read(OUTPUTS, _arrays, None)
    network: Network | None = read(NETWORK, load_network, None)
    no_rows: tuple[list[Row], list[str]] = [], []
    rows, planned = read(STORE, _rows, no_rows)
    statuses = dict(sorted(Counter(row.status for row in counted(rows, planned, record)).items()))
    run = Run(path, name, record, arrays or {}, network, statuses, tuple(problems))
    if record is None or network is None:
        return run
    try:
        if rows:
            problems += [f"{STORE} {odd}" for odd in odd_rows(rows, planned, record, run.arrays)]
        if arrays is not None and (odd := odd_arrays(arrays, record, network)):
            run = replace(run, arrays={})
            problems.append(f"{OUTPUTS} {odd}")
    except Exception as error:  # another version's record has not what says how much there must be
        return as_unread(replace(run, problems=tuple(problems)), error)
    return replace(run, problems=tuple(problems))


def as_unread(run: Run, error: Exception) -> Run:
    """``run`` without its record, of which ``error`` says that it is not what this version reads."""
    problem = f"{RECORD} is not what this version reads: {type(error).__name__} {error}; {run.remedy}"
    return replace(run, record=None, problems=(*run.problems, problem))


class _NotWholeError(Exception):
    """A file can be read, and is not what it should be; the message says what is wrong after the file's name."""


def _record(path: Path) -> Record:
    def refuse(word: str) -> None:
        raise _NotWholeError(f"has the number {word}, which no run writes")

    record = json.loads(path.read_text(), parse_constant=refuse)
    if not isinstance(record, dict) or not isinstance(record.get("summary"), dict):
        raise _NotWholeError("is not the record of a run")
    return record


def _arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _rows(store: Path) -> tuple[list[Row], list[str]]:
    rows, planned = read_rows(store)
    if not rows:
        raise _NotWholeError("has no runs")
    return rows, planned


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
