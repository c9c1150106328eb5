"""A transistor's gm/I_D table: what it does at each length and gate voltage, a µm of width; the basis of sizing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.physical.pdk import DeviceKind, Pdk

Floats = NDArray[np.float64]

#: Current of a square device at which its threshold is read [A].
THRESHOLD_A = 100e-9
_LENGTHS = (1.0, 1.5, 2.0)  # of the shortest
_LENGTHS_UM = (0.6, 1.0, 1.6, 2.0, 4.0, 10.0)
_HIGHEST_GATE, _GATE_STEP = 0.7, 0.05  # of the supply; V
_WIDTH_UM = 2.0


@dataclass(frozen=True, eq=False)
class GmIdTable:
    """One kind of transistor, ``width`` [µm] wide, at |V_DS| = ``v_ds`` [V], bulk at its source.

    ``length`` [lengths] in µm, ``v_gs`` [gates] in volts (magnitudes); arrays [lengths, gates]: ``current`` (A/µm of
    width), ``gm_id`` and ``gds_id`` (1/V), ``cgg`` (all of the gate's capacitance, F/µm of width).
    """

    kind: DeviceKind
    width: float
    v_ds: float
    length: Floats
    v_gs: Floats
    current: Floats
    gm_id: Floats
    gds_id: Floats
    cgg: Floats

    @property
    def f_t(self) -> Floats:
        """gm/(2π·C_gg), Hz [lengths, gates]."""
        return np.asarray(self.gm_id * self.current / (2 * np.pi * self.cgg))

    @property
    def threshold(self) -> Floats:
        """|V_GS| where the current is 100 nA·W/L, volts [lengths]; NaN where that lies beyond the table."""
        wanted = np.log(THRESHOLD_A / self.length)
        return np.array(
            [
                np.interp(w, np.log(np.maximum(row, 1e-30)), self.v_gs, left=np.nan, right=np.nan)
                for w, row in zip(wanted, self.current, strict=True)
            ]
        )

    def _row(self, name: str, length: float) -> Floats:
        """A column over the gate voltage at a length between the table's [µm], by interpolation over log L."""
        column = getattr(self, name)
        at = np.interp(np.log(length), np.log(self.length), np.arange(self.length.size))
        low = min(int(at), self.length.size - 2) if self.length.size > 1 else 0
        high = min(low + 1, self.length.size - 1)
        # Currents go over decades: their logarithms are what is nearly straight.
        bent = np.log(np.maximum(column, 1e-30))
        return np.asarray(np.exp(bent[low] + (at - low) * (bent[high] - bent[low])))

    def gm_id_at(self, current: float, length: float) -> float:
        """gm/I_D [1/V] at a ``current`` [A/µm of width] and ``length`` [µm].

        Raises
        ------
        InvalidInputError
            The table does not reach that current.
        """
        density = self._row("current", length)
        self._require(current, density, f"{current:.3g} A/µm", length)
        return float(np.interp(np.log(current), np.log(density), self._row("gm_id", length)))

    def reaches(self, current: float, length: float) -> bool:
        """Whether the table covers a ``current`` [A/µm of width] at ``length`` [µm]: below the peak of gm/I_D leakage
        counts, not the gate."""
        density = self._row("current", length)
        first = int(np.argmax(self._row("gm_id", length)))
        return float(density[first]) <= current <= float(density.max())

    def current_span(self, length: float) -> tuple[float, float]:
        """The smallest and the largest current of the table at ``length`` [µm], A/µm of width."""
        density = self._row("current", length)
        return float(density.min()), float(density.max())

    def current_at(self, gm_id: float, length: float) -> float:
        """Current [A/µm of width] at which gm/I_D [1/V] is ``gm_id``, at ``length`` [µm].

        Raises
        ------
        InvalidInputError
            The table does not reach that gm/I_D.
        """
        efficiency, density = self._row("gm_id", length), self._row("current", length)
        first = int(np.argmax(efficiency))  # below it leakage counts, not the gate
        self._require(gm_id, efficiency[first:], f"gm/I_D = {gm_id:.3g} /V", length)
        return float(np.exp(np.interp(-gm_id, -efficiency[first:], np.log(density[first:]))))

    def _require(self, wanted: float, there: Floats, what: str, length: float) -> None:
        if not there.min() <= wanted <= there.max():
            raise InvalidInputError(
                f"gm/I_D table of {self.kind}, L = {length:g} µm",
                [f"has no point at {what}: it goes from {there.min():.3g} to {there.max():.3g}"],
                "Ask for a target between.",
            )


def table_lengths(pdk: Pdk, kind: DeviceKind) -> list[float]:
    """The lengths [µm] of a table: from the process's shortest to what mirrors and tails have."""
    span = pdk.transistor(kind).length
    wanted = (*(span.min * share for share in _LENGTHS), *_LENGTHS_UM)
    return sorted({span.snap(size) for size in wanted if span.min <= span.snap(size) <= span.max})


def table_width(pdk: Pdk, kind: DeviceKind) -> float:
    """The width [µm] of a table's devices."""
    span = pdk.transistor(kind).width
    return min(max(span.snap(_WIDTH_UM), span.min), span.max)


def table_gates(pdk: Pdk) -> list[float]:
    """The gate voltages [V] of a table."""
    return [round(_GATE_STEP * i, 9) for i in range(1, int(_HIGHEST_GATE * pdk.operating.supply / _GATE_STEP) + 1)]
