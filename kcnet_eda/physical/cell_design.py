"""The edge cell's devices in one process: widths from its gm/I_D tables, and what the cell can do. Sizes in µm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.physical.gmid import GmIdTable
from kcnet_eda.physical.pdk import DeviceKind, Pdk

#: Node voltages that cells are made for, in model units on either side of the common mode.
BOX = 2.0


@dataclass(frozen=True)
class Geometry:
    """Drawn width and length, µm."""

    w: float
    l: float  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class CellLimits:
    """What the cell can do, the same in every process: ``slope_per_unit`` is the largest |θ1| of a unit of pedestal,
    ``offset_per_unit`` its largest θ2, ``full_scale_per_mirror`` the largest current of a mirror unit, I_u."""

    slope_per_unit: float = 2 / 13
    offset_per_unit: float = 0.65
    full_scale_per_mirror: float = 2.0
    theta1_min: float = 0.1
    theta1_max: float = 2.0
    theta2_max: float = 2.0
    full_scale_min: float = 0.5

    @property
    def full_scale_max(self) -> float:
        """The largest current of an edge anywhere in the box, I_u."""
        return 2 * BOX * self.theta1_max + self.theta2_max

    def range_text(self) -> str:
        """What can be built, in words."""
        return (
            f"|θ1| from {self.theta1_min:g} to {self.theta1_max:g} or 0, θ2 up to {self.theta2_max:g}, and a largest "
            f"current 4·|θ1| + θ2 of at least {self.full_scale_min:g} (edges of none at all need no cell)"
        )


@dataclass(frozen=True, kw_only=True)
class CellDesign(CellLimits):
    """One unit of each device of the cell in one process. A unit's pedestal is one I_u."""

    v_unit: float
    i_unit: float
    v_cm: float
    supply: float
    v_ref: float
    pair: Geometry
    tail: Geometry
    source: Geometry
    mirror: Geometry
    sink: Geometry
    cascode: Geometry
    clamp: Geometry
    trickle: Geometry
    """A few percent of I_u on the bias of ``source``: keeps the sink's gates near where they conduct."""
    clamp_share: float
    """Current of the clamp at the turn-on point, over the full scale: less rounds the corner less, wakes up later."""
    gate_resistance: float
    """Of a one-unit pair, 2/gm [ohm]: a first guess, which calibration corrects."""
    wide_gm_id: float
    """gm/I_D [1/V] of the tanh cell's pair, :data:`WIDER` times as wide as ``pair`` for the same current."""
    well_capacitance: tuple[float, float] = (10e-15, 3e-15)
    """Of the p-well of one side of the pair to its surroundings, F: fixed, and a unit; an estimate, since the kits'
    models leave it out."""
    lead: float = 5e-9
    """Time constant of the degeneration resistor and the capacitor across it, seconds: about the mirrors' lag."""


#: The tanh cell's pair over the rectifying cell's, for the same current: towards weak inversion, where its law is tanh.
WIDER = 6.0

#: Lengths in µm: mirrors and tails long for their output conductance; the sink and its cascodes no longer than they
#: must be, since their gates are charged at every turn-on.
_LENGTHS: tuple[tuple[str, DeviceKind, float], ...] = (
    ("pair", "nmos", 0.6),
    ("tail", "nmos", 10.0),
    ("source", "pmos", 4.0),
    ("mirror", "pmos", 1.0),
    ("sink", "nmos", 1.2),
    ("cascode", "nmos", 0.28),
)
_CLAMP = Geometry(0.75, 0.4)  # for 2 µA; at a few nA it is in weak inversion, whatever its size
_CLAMP_CURRENT = 2e-6
_TRICKLE_LENGTH = 10.0
_PROGRAMMED = 0.95  # of what a source unit can lose in width before it is the narrowest that the process draws


def design_cell(pdk: Pdk, nmos: GmIdTable, pmos: GmIdTable) -> CellDesign:
    """The cell in a process: each width carries I_u at the gm/I_D that the kit's file asks for, by the tables of its
    transistors at the nominal corner; no device is smaller than the process draws it.

    Raises
    ------
    InvalidInputError
        The process has no such gm/I_D; all targets that it lacks are listed.
    """
    op = pdk.operating
    tables = {"nmos": nmos, "pmos": pmos}
    sizes: dict[str, Any] = {}
    problems = []
    for role, kind, drawn in _LENGTHS:
        span, target = pdk.transistor(kind).length, getattr(op.gm_id, role)
        length = span.snap(min(max(drawn, span.min), span.max))
        try:
            sizes[role] = _fit(pdk, kind, op.i0 / tables[kind].current_at(target, length), length)
        except InvalidInputError as error:
            problems.append(f"operating.gm_id.{role}: {error.where} {'; '.join(error.problems)}")
    if problems:
        raise InvalidInputError(str(pdk.file), problems, "Ask for a gm/I_D between; 'kcnet characterize' tabulates it.")
    share = op.i0 / _CLAMP_CURRENT
    pair = sizes["pair"]
    lowest, highest = nmos.current_span(pair.l)
    wide = min(max(op.i0 / (WIDER * pair.w), lowest), highest)
    return CellDesign(
        v_unit=op.v0,
        i_unit=op.i0,
        v_cm=op.common_mode,
        supply=op.supply,
        v_ref=round(0.36 * op.supply, 2),
        clamp=_fit(pdk, "pmos", _CLAMP.w * share, max(_CLAMP.l, pdk.devices.pmos.length.min)),
        trickle=_fit(pdk, "pmos", pdk.devices.pmos.width.min, min(_TRICKLE_LENGTH, pdk.devices.pmos.length.max)),
        wide_gm_id=nmos.gm_id_at(wide, pair.l),
        clamp_share=op.clamp_share,
        gate_resistance=2 / (op.gm_id.pair * op.i0),
        offset_per_unit=min(
            CellLimits.offset_per_unit, _PROGRAMMED * (1 - pdk.devices.pmos.width.min / sizes["source"].w)
        ),
        **sizes,
    )


def _fit(pdk: Pdk, kind: DeviceKind, width: float, length: float) -> Geometry:
    device = pdk.transistor(kind)
    return Geometry(device.width.snap(min(max(width, device.width.min), device.width.max)), device.length.snap(length))
