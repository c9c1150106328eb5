"""SPICE raw files, read strictly: all of what was asked for, finite, up to the end, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import BadDataError

Floats = NDArray[np.float64]
_LARGEST_HEADER = 64 << 20
_MARK = b"Binary:\n"
_REAL = np.dtype("<f8")


@dataclass(frozen=True, eq=False)
class Waveforms:
    """``time`` [points] in seconds, ``values`` [points, names] in volts or amperes, columns as in ``names``."""

    time: Floats
    names: tuple[str, ...]
    values: Floats


def read_transient(path: Path, wanted: Sequence[str], t_end: float) -> Waveforms:
    """Read a binary real transient raw file and hold it to what was asked for.

    ``wanted`` are node names (without ``v()``), any case; ``t_end`` [s] is where the run must end.

    Raises
    ------
    BadDataError
        The file is missing, cut short, of another kind, lacks a vector, holds a value that is not finite, its time
        does not rise, or it does not end at ``t_end``.
    """
    time, values = _read_columns(path, wanted, "time", "a transient result")
    if (np.diff(time) <= 0).any():
        raise BadDataError(f"{path}: its time does not rise throughout")
    if abs(time[-1] - t_end) > 1e-6 * t_end:
        raise BadDataError(f"{path}: ends at {time[-1]:g} s, not at {t_end:g} s")
    return Waveforms(time, tuple(wanted), values)


def read_sweep(path: Path, wanted: Sequence[str], last: float) -> tuple[Floats, Floats]:
    """Read a binary raw file of a DC sweep as strictly: the swept source [points] and ``values`` [points, wanted].

    ``wanted`` are node names (without ``v()``) and currents such as ``i(v1)``; ``last`` is the sweep's last value.

    Raises
    ------
    BadDataError
        The file is missing, cut short, of another kind, lacks a vector, holds a value that is not finite, or does not
        end at ``last``.
    """
    swept, values = _read_columns(path, wanted, "v-sweep", "the result of a DC sweep")
    if abs(swept[-1] - last) > 1e-6 * abs(last):
        raise BadDataError(f"{path}: ends at {swept[-1]:g}, not at {last:g}")
    return swept, values


def _read_columns(path: Path, wanted: Sequence[str], scale: str, kind: str) -> tuple[Floats, Floats]:
    """The scale vector [points] and the wanted ones [points, wanted], all finite."""
    names, table = _read_table(path)
    columns = {name: i for i, name in enumerate(names)}
    if not names or names[0] != scale:
        raise BadDataError(f"{path}: is not {kind}: its first vector is {names[0] if names else 'absent'}")
    missing = [name for name in wanted if name.lower() not in columns]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BadDataError(f"{path}: has no vector for node {', '.join(missing[:3])}{more}")
    if table.shape[0] == 0:
        raise BadDataError(f"{path}: holds no points")
    points, values = table[:, 0], table[:, [columns[name.lower()] for name in wanted]]
    if not (np.isfinite(points).all() and np.isfinite(values).all()):
        raise BadDataError(f"{path}: holds values that are not finite")
    return points, np.ascontiguousarray(values)


def _read_table(path: Path, kind: np.dtype[Any] = _REAL) -> tuple[list[str], NDArray[Any]]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadDataError(f"{path}: the simulator wrote no such result") from None
    start = raw[:_LARGEST_HEADER].find(_MARK)
    if start < 0:
        raise BadDataError(f"{path}: is not a binary raw file ({len(raw)} bytes, no data section)")
    names: list[str] = []
    fields: dict[str, str] = {}
    in_variables = False
    for line in raw[:start].decode("utf-8", errors="replace").splitlines():
        if in_variables and line.startswith(("\t", " ")):
            # "<number> <name> <type>"; ngspice writes v(name), VACASK writes name
            name = line.split()[1].lower()
            names.append(name[2:-1] if name.startswith("v(") and name.endswith(")") else name)
        else:
            key, _, value = line.partition(":")
            in_variables = key == "Variables"
            fields[key] = value.strip()
    try:
        n_names, n_points = int(fields["No. Variables"]), int(fields["No. Points"].split()[0])
    except (KeyError, ValueError, IndexError):
        raise BadDataError(f"{path}: its header is not that of a raw file") from None
    if ("complex" in fields.get("Flags", "")) != (kind != _REAL):
        raise BadDataError(f"{path}: holds {fields.get('Flags', 'real')} values, not what was asked for")
    data = raw[start + len(_MARK) :]
    expected = n_names * n_points * kind.itemsize
    if len(names) != n_names or len(data) != expected:
        raise BadDataError(
            f"{path}: is cut short or malformed: {len(names)} of {n_names} vectors named, {len(data)} of {expected} "
            "data bytes"
        )
    return names, np.frombuffer(data, dtype=kind).reshape(n_points, n_names)


def read_ac(path: Path, wanted: Sequence[str]) -> NDArray[np.complex128]:
    """Read a binary raw file of an AC analysis at one frequency: complex values [wanted].

    Raises
    ------
    BadDataError
        The file is missing, cut short, of another kind, lacks a vector, or holds a value that is not finite.
    """
    names, table = _read_table(path, np.dtype("<c16"))
    columns = {name: i for i, name in enumerate(names)}
    missing = [name for name in wanted if name.lower() not in columns]
    if missing:
        raise BadDataError(f"{path}: has no vector {missing[0]} ({len(missing)} of {len(wanted)} lack)")
    if table.shape[0] != 1:
        raise BadDataError(f"{path}: holds {table.shape[0]} frequencies, not one")
    values = table[0, [columns[name.lower()] for name in wanted]]
    if not np.isfinite(values).all():
        raise BadDataError(f"{path}: holds values that are not finite")
    return np.asarray(values, dtype=np.complex128)
