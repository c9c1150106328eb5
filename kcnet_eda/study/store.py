"""``study.sqlite``: every planned run is a row, written when planned and when it ended; kills lose nothing."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import KcnetError

Floats = NDArray[np.float64]


class Status(StrEnum):
    """How a run ended. Each but ``passed`` stays in every denominator."""

    PLANNED = "planned"
    PASSED = "passed"
    SPEC_FAIL = "spec_fail"
    NOT_CONVERGED = "not_converged"
    TIMED_OUT = "timed_out"
    TOOL_FAILED = "tool_failed"
    BAD_DATA = "bad_data"


@dataclass(frozen=True)
class PlannedRun:
    """``key`` is the hash of all that determines the run; ``sample`` its row in the data; ``variant`` its purpose."""

    key: str
    sample: int
    variant: str


@dataclass(frozen=True, eq=False)
class Result:
    """A run that ended: ``v_end`` [nodes] in model units (of an adjoint run the gradient, as
    :attr:`kcnet_eda.dynamics.gradient.Gradient.flat`), the waveforms kept ([points], [points, read-out]) in SI."""

    status: Status
    message: str = ""
    wall_s: float = 0.0
    peak_kib: int = 0
    v_end: Floats | None = None
    decision_s: float | None = None
    waveform: tuple[Floats, Floats] | None = None


_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY, sample INTEGER NOT NULL, variant TEXT NOT NULL, simulator TEXT NOT NULL,
    simulator_version TEXT NOT NULL, seed INTEGER NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL DEFAULT '',
    wall_s REAL, peak_kib INTEGER, v_end BLOB, decision_s REAL, waveform BLOB
);
CREATE TABLE IF NOT EXISTS reference (key TEXT PRIMARY KEY, v_end BLOB NOT NULL);
"""
_COLUMNS = "status, message, wall_s, peak_kib, v_end, decision_s, waveform"


class Store:
    """The open store of one run folder. Every method commits before it returns."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def plan(self, runs: Iterable[PlannedRun], simulator: str, version: str, seed: int) -> None:
        """Write rows for runs that are not there; those that are keep their results."""
        with self._guard():
            self._connection.executemany(
                "INSERT OR IGNORE INTO runs (key, sample, variant, simulator, simulator_version, seed, status) "
                "VALUES (?, ?, ?, ?, ?, ?, 'planned')",
                [(r.key, r.sample, r.variant, simulator, version, seed) for r in runs],
            )

    def finish(self, key: str, result: Result) -> None:
        """Write how a run ended."""
        with self._guard():
            self._connection.execute(
                f"UPDATE runs SET ({_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?) WHERE key = ?",
                (
                    result.status,
                    result.message,
                    result.wall_s,
                    result.peak_kib,
                    _pack(result.v_end),
                    result.decision_s,
                    _pack_many(result.waveform),
                    key,
                ),
            )

    def result(self, key: str) -> Result:
        """The row of a planned run."""
        with self._guard():
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE key = ?", (key,)).fetchone()
        status, message, wall, peak, v_end, decision, waveform = row
        kept = None if waveform is None else _unpack_many(waveform)
        return Result(Status(status), message, wall or 0.0, peak or 0, _unpack(v_end), decision, kept)

    def reference(self, key: str) -> Floats | None:
        """The stored reference final state of a sample, or None."""
        with self._guard():
            row = self._connection.execute("SELECT v_end FROM reference WHERE key = ?", (key,)).fetchone()
        return None if row is None else _unpack(row[0])

    def references(self) -> dict[str, Floats]:
        """All stored reference final states, by key."""
        with self._guard():
            rows = self._connection.execute("SELECT key, v_end FROM reference").fetchall()
        return {key: np.frombuffer(blob, dtype="<f8").copy() for key, blob in rows}

    def keep_reference(self, key: str, v_end: Floats) -> None:
        """Store a sample's reference final state."""
        with self._guard():
            self._connection.execute("INSERT OR REPLACE INTO reference VALUES (?, ?)", (key, _pack(v_end)))

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            with self._connection:
                yield
        except sqlite3.Error as error:
            raise KcnetError(
                f"{self._path}: {error}. What was finished before is kept; run the same command again "
                "when this is mended."
            ) from error


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open or make a store.

    Raises
    ------
    KcnetError
        The file is not a store, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        connection.executescript(_SCHEMA)
    except (sqlite3.Error, OSError) as error:
        raise KcnetError(f"{path}: cannot be used as a store of runs: {error}") from error
    try:
        yield Store(connection, path)
    finally:
        connection.close()


def _pack(array: Floats | None) -> bytes | None:
    return None if array is None else np.ascontiguousarray(array, dtype="<f8").tobytes()


def _unpack(blob: bytes | None) -> Floats | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f8").copy()


def _pack_many(waveform: tuple[Floats, Floats] | None) -> bytes | None:
    if waveform is None:
        return None
    out = io.BytesIO()
    np.savez_compressed(out, time=waveform[0], values=waveform[1])
    return out.getvalue()


def _unpack_many(blob: bytes) -> tuple[Floats, Floats]:
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        return archive["time"], archive["values"]
