"""``study.sqlite``: every planned run is a row, written when planned and when it ended; kills lose nothing."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

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
    """``key`` is the hash of all that determines the run; ``sample`` its row in the data; ``variant`` its purpose. Of a
    study over conditions and dies also which these are."""

    key: str
    sample: int
    variant: str
    condition: str = ""
    dies: str = ""


@dataclass(frozen=True)
class Attempt:
    """One try of a run: the ``rung`` of the ladder of solver options, and how it ended."""

    rung: str
    status: Status
    message: str
    wall_s: float


@dataclass(frozen=True, eq=False)
class Result:
    """A run that ended: ``v_end`` [nodes] in model units (of an adjoint run the gradient, as
    :attr:`kcnet_eda.dynamics.gradient.Gradient.flat`), the waveforms kept ([points], [points, read-out]) in SI.

    Of a campaign's run also the ``attempts`` that led to it; ``label`` is what the read-out says, ``correct`` whether
    that is right, and ``error`` the largest voltage difference from the fast engine over the range. ``files`` are those
    of failed attempts, by path; the store has no place for them. Reading a result back leaves these out."""

    status: Status
    message: str = ""
    wall_s: float = 0.0
    peak_kib: int = 0
    v_end: Floats | None = None
    decision_s: float | None = None
    waveform: tuple[Floats, Floats] | None = None
    attempts: tuple[Attempt, ...] = ()
    label: int | None = None
    correct: bool | None = None
    error: float | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY, sample INTEGER NOT NULL, variant TEXT NOT NULL, simulator TEXT NOT NULL,
    simulator_version TEXT NOT NULL, seed INTEGER NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL DEFAULT '',
    wall_s REAL, peak_kib INTEGER, v_end BLOB, decision_s REAL, waveform BLOB
);
CREATE TABLE IF NOT EXISTS reference (key TEXT PRIMARY KEY, v_end BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS plan (
    place INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, condition TEXT NOT NULL, dies TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    key TEXT NOT NULL, number INTEGER NOT NULL, rung TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
    wall_s REAL NOT NULL, PRIMARY KEY (key, number)
);
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, label INTEGER, correct INTEGER, error REAL);
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

    def forget_plan(self) -> None:
        """Begin a new plan of :meth:`plan_in_order`: rows of older ones keep their results, and count no longer."""
        with self._guard():
            self._connection.execute("DELETE FROM plan")

    def plan_in_order(self, runs: Sequence[PlannedRun], simulator: str, version: str, seed: int) -> None:
        """As :meth:`plan`, and add the rows to the present plan, in their order."""
        self.plan(runs, simulator, version, seed)
        with self._guard():
            self._connection.executemany(
                "INSERT INTO plan (key, condition, dies) VALUES (?, ?, ?)", [(r.key, r.condition, r.dies) for r in runs]
            )

    def planned(self) -> list[dict[str, Any]]:
        """The rows of the present plan in its order: what each was, how it ended, and on which rung."""
        with self._guard():
            cursor = self._connection.execute(
                "SELECT variant, condition, dies, sample, runs.status, "
                "(SELECT count(*) FROM attempts WHERE attempts.key = runs.key) AS attempts, "
                "(SELECT rung FROM attempts WHERE attempts.key = runs.key ORDER BY number DESC LIMIT 1) AS rung, "
                "label, correct, error, wall_s, peak_kib, simulator, simulator_version, seed, runs.key, message "
                "FROM plan JOIN runs USING (key) LEFT JOIN answers USING (key) ORDER BY place"
            )
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def attempts(self, key: str) -> tuple[Attempt, ...]:
        """The attempts of a run, in their order."""
        with self._guard():
            rows = self._connection.execute(
                "SELECT rung, status, message, wall_s FROM attempts WHERE key = ? ORDER BY number", (key,)
            ).fetchall()
        return tuple(Attempt(rung, Status(status), message, wall) for rung, status, message, wall in rows)

    def finish(self, key: str, result: Result) -> None:
        """Write how a run ended, its attempts and its answer with it."""
        with self._guard():
            self._connection.execute("DELETE FROM attempts WHERE key = ?", (key,))
            self._connection.executemany(
                "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?)",
                [(key, i, a.rung, a.status, a.message, a.wall_s) for i, a in enumerate(result.attempts)],
            )
            self._connection.execute("DELETE FROM answers WHERE key = ?", (key,))
            if result.label is not None:
                answer = (key, result.label, result.correct, result.error)
                self._connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", answer)
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
        """The row of a planned run; one that cannot be read back is bad data, so that it is run again."""
        with self._guard():
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE key = ?", (key,)).fetchone()
        status, message, wall, peak, v_end, decision, waveform = row
        try:
            kept = None if waveform is None else _unpack_many(waveform)
            return Result(Status(status), message, wall or 0.0, peak or 0, _unpack(v_end), decision, kept)
        except (ValueError, KeyError, OSError, BadZipFile) as error:
            return Result(Status.BAD_DATA, f"the row in {self._path} is damaged: {error}")

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
        raise KcnetError(
            f"{path}: cannot be used as a store of runs: {error}. Put it back from a copy, or name a new folder for "
            "--out."
        ) from error
    try:
        yield Store(connection, path)
    finally:
        connection.close()


@contextmanager
def read_store(path: Path) -> Iterator[Store]:
    """Open a store that is there to read it alone: nothing is made, and its folder need not be writable.

    Raises
    ------
    KcnetError
        There is none.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise KcnetError(f"{path}: cannot be read as a store of runs: {error}") from error
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
