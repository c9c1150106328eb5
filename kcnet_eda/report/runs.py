"""Run folders as a report reads them: what can be read, and in words what is missing, failed or corrupt."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, STORE

Record = dict[str, Any]


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
        return "unknown" if self.record is None else str(self.record.get("study", "simulate"))


def read_run(path: Path, name: str) -> Run:
    """Read all that can be read of a run folder, to be called ``name`` on the page.

    Raises
    ------
    InvalidInputError
        ``path`` is no folder, or has not one of a run's files.
    """
    parts = (RECORD, OUTPUTS, STORE, NETWORK)
    problems = [f"has no {part}" for part in parts if not (path / part).is_file()]
    if not path.is_dir() or len(problems) == len(parts):
        raise InvalidInputError(
            str(path), ["is not a run folder", *problems], "Name a folder that 'kcnet simulate' or a study made."
        )
    record, arrays, network, statuses = None, {}, None, {}
    if (path / RECORD).is_file():
        try:
            record = json.loads((path / RECORD).read_text())
            if not isinstance(record, dict) or "summary" not in record:
                record = None
                problems.append(f"{RECORD} is not the record of a run")
        except (ValueError, OSError) as error:
            problems.append(f"{RECORD} cannot be read: {error}")
    if (path / OUTPUTS).is_file():
        try:
            with np.load(path / OUTPUTS, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        except Exception as error:  # a damaged archive raises what zipfile, zlib or NumPy happen to meet first
            arrays = {}
            problems.append(f"{OUTPUTS} cannot be read: {error}")
    if (path / NETWORK).is_file():
        try:
            network = load_network(path / NETWORK)
        except KcnetError as error:
            problems.append(f"{NETWORK} cannot be read: {error}")
    if (path / STORE).is_file():
        try:
            statuses = _statuses(path / STORE)
        except sqlite3.Error as error:
            problems.append(f"{STORE} cannot be read: {error}")
    return Run(path, name, record, arrays, network, statuses, tuple(problems))


def _statuses(store: Path) -> dict[str, int]:
    """Rows by status; read only, so that a report never changes a run."""
    connection = sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)
    try:
        # A damaged page is met only when it is read: all columns, not the status alone.
        rows = connection.execute("SELECT * FROM runs").fetchall()
        del rows
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
