"""The MOS cell of a ShiftTanh1 edge, i = I_u·tanh(slope·(v_s − v_d)/V_u + offset): sizes by a differential pair's law.

Near weak inversion a pair of tail current I_u carries I_u·tanh((v + n·U_T·ln(w1/w2)) / (2·n·U_T)); a resistor between
the sources takes the slope down, and the widths' ratio is the offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.physical.cell_design import CellDesign
from kcnet_eda.physical.pdk import Pdk

_N_UT = 1.4 * 0.02585  # volts: slope factor times the thermal voltage at 27 degC
_MODERATE = 1.3  # a pair of these widths is this much less steep than in weak inversion
_PAIR_W = 4.0  # µm of each of the pair's four fingers, for 2 µA
_LARGEST_RATIO = 8.0


@dataclass(frozen=True)
class TanhSizes:
    """Widths of a finger of the pair's two sides and of each half of the tail [µm], and the resistor [ohm]."""

    w1: float
    w2: float
    half_tail: float
    resistance: float


def tanh_sizes(pdk: Pdk, design: CellDesign, slope: float, offset: float) -> TanhSizes:
    """Sizes from the law; a first guess, as accurate as n·U_T is known.

    Raises
    ------
    InvalidInputError
        The pair alone is not as steep, or its widths cannot make the offset.
    """
    per_volt = slope / design.v_unit
    steepest = 1 / (2 * _N_UT * _MODERATE)
    problems = []
    if not 0 < per_volt < steepest:
        problems.append(f"slope {slope:g} is not above 0 and below {steepest * design.v_unit:.3g}, a pair's own")
    ratio = math.exp(min(abs(offset) / max(per_volt, 1e-9) / (_N_UT * _MODERATE), 50.0))
    if ratio > _LARGEST_RATIO:
        problems.append(f"offset {offset:g} takes widths of 1 to {ratio:.3g}, more than {_LARGEST_RATIO:g}")
    if problems:
        raise InvalidInputError(f"tanh cell in {pdk.name}", problems, "Scale the law, or its input.")
    width, tail = pdk.devices.nmos.width, design.tail.w / 2
    root = math.sqrt(ratio if offset >= 0 else 1 / ratio)
    # slope: (i1 - i2)/v = 1/(R/2 + 1/gm), and gm = I_u/(2 n U_T) of each side at half the tail current
    resistance = 2 * (1 / per_volt - 1 / steepest) / design.i_unit
    return TanhSizes(
        width.snap(_PAIR_W * root), width.snap(_PAIR_W / root), width.snap(max(tail, width.min)),
        max(resistance, pdk.resistor.resistance(pdk.resistor.length.min)),
    )  # fmt: skip
