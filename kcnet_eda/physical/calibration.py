"""Edge cells as calibrated: what a study measures and a bundle documents."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.cell_design import BOX
from kcnet_eda.physical.cell_kind import KINDS, CellKind, Sizes
from kcnet_eda.physical.mos_cell import CellEdges, CellSizes
from kcnet_eda.physical.tanh_cell import TanhSizes

Floats = NDArray[np.float64]

#: Largest |fitted θ − θ| that counts as calibrated, in model units.
TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Calibration:
    """Cells of one kind as calibrated and measured; ``theta`` and ``fitted`` [cells, 3] are what
    :mod:`kcnet_eda.physical.cell_kind` says, other arrays [cells], currents in I_u, over the whole box at the nominal
    corner.

    ``max_error`` and ``rms_error`` are of both pins' currents against the trained law. ``leakage`` [A] is the largest
    current at x = −4, where a cell with θ2 < 4·θ1 is off (NaN for others); ``mismatch`` the largest difference of the
    two pins' currents over the full scale; ``source_pin`` and ``target_pin`` capacitances [F]. ``supply_current`` [A]
    is the mean over the box of each cell's share. ``reason`` says why a cell is out of reach, '' where it is not.
    """

    kind: CellKind
    theta: Floats
    sizes: Sizes
    fitted: Floats
    max_error: Floats
    rms_error: Floats
    leakage: Floats
    mismatch: Floats
    source_pin: Floats
    target_pin: Floats
    supply_current: Floats
    reason: tuple[str, ...]
    passes: int

    @property
    def theta1(self) -> Floats:
        """Slopes."""
        return np.asarray(self.theta[:, 0])

    @property
    def theta2(self) -> Floats:
        """Offsets."""
        return np.asarray(self.theta[:, 1])

    @property
    def fitted1(self) -> Floats:
        """Fitted slopes."""
        return np.asarray(self.fitted[:, 0])

    @property
    def fitted2(self) -> Floats:
        """Fitted offsets."""
        return np.asarray(self.fitted[:, 1])

    @property
    def miss(self) -> Floats:
        """The largest difference of fitted and trained parameters, [cells]."""
        return np.asarray(np.abs(self.fitted - self.theta).max(axis=1, initial=0.0))

    @property
    def full_scale(self) -> Floats:
        """What errors are a share of, I_u."""
        return self.kind.full_scale(self.theta)

    @property
    def out_of_reach(self) -> NDArray[np.int64]:
        """Cells whose θ was not met."""
        return np.flatnonzero([bool(text) for text in self.reason])

    def share_of_full_scale(self, error: Floats) -> Floats:
        """An error in I_u as a share of the largest current of each cell."""
        return np.asarray(error / self.full_scale)


@dataclass(frozen=True, eq=False)
class CellGroup:
    """A network's edges of one kind of cell, and their distinct cells as calibrated."""

    edges: CellEdges
    found: Calibration

    @property
    def names(self) -> tuple[str, ...]:
        """The subcircuit of each distinct cell."""
        return tuple(f"{self.found.kind.prefix}_{i}" for i in range(len(self.found.theta)))


@dataclass(frozen=True)
class OperatingPoint:
    """One drawn transistor of a cell, ``m`` of it in parallel, sizes in µm: the current of all of them [A], voltages
    [V], all positive where the transistor conducts as drawn, and gm/I_D [1/V] by its kit's table at that current and
    half the supply (None: beyond the table)."""

    cell: str
    device: str
    kind: str
    w: float
    l: float  # noqa: E741
    m: int
    current: float
    v_gs: float
    v_ds: float
    gm_id: float | None


@dataclass(frozen=True)
class ExampleRun:
    """What one example did in the simulator: the largest node error at T in model units, whether its label is the
    software's (None: it has none), and what it cost."""

    node_error: float
    label_agrees: bool | None
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class TrimRun:
    """What trimming a network's cells did to its runs: the largest node error of a run in model units, (median, worst)
    over the ``runs`` that it was trimmed by and over ``held_out`` others, before and after."""

    runs: int
    before: tuple[float, float]
    after: tuple[float, float]
    held_out: int
    held_out_before: tuple[float, float]
    held_out_after: tuple[float, float]


def example_cell(found: Calibration) -> int:
    """The cell that documents show: the one whose argument is largest at half the largest x."""
    return int(np.argmax(np.where(found.theta1 != 0, BOX * np.abs(found.theta1) + found.theta2, -np.inf)))


def pack(found: Calibration) -> bytes:
    """A calibration as the bytes of a file."""
    arrays: dict[str, Any] = {
        f.name: getattr(found, f.name) for f in fields(Calibration) if f.name not in ("kind", "sizes")
    }
    arrays |= {f"sizes.{f.name}": getattr(found.sizes, f.name) for f in fields(found.sizes)}
    arrays["kind"] = found.kind.name
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> Calibration:
    """A calibration from :func:`pack`'s bytes."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        plain = {
            f.name: arrays[f.name] for f in fields(Calibration) if f.name not in ("kind", "sizes", "reason", "passes")
        }
        kind = KINDS[str(arrays["kind"])]
        made = CellSizes if kind is KINDS["relu"] else TanhSizes
        sizes = made(*(arrays[f"sizes.{f.name}"] for f in fields(made)))
        reason, passes = tuple(arrays["reason"].tolist()), int(arrays["passes"])
        return Calibration(**plain, kind=kind, sizes=sizes, reason=reason, passes=passes)
