"""What training knows of the MOS cell: the θ that can be built, and how a built edge differs from Eq. (6).

Of saturation only the onset is modelled, ``compression``: a cell is sized to carry, for every |v_s − v_d| up to twice
the node range, well less than it can, and the voltage penalty keeps nodes within that range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from kcnet_eda.config import Settings
from kcnet_eda.dynamics.cell_rhs import Corner, Dies, Ends, pull_back, rate_of_cells

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class CellRange(Settings):
    """The θ that a cell can be sized for: |θ1| from ``theta1_min`` to ``theta1_max`` or 0, θ2 up to ``theta2_max``, and
    a largest current in the box of node voltages of at least ``full_scale_min``."""

    theta1_min: Positive = 0.1
    theta1_max: Positive = 2.0
    theta2_max: Positive = 2.0
    full_scale_min: Positive = 0.5
    box: Positive = 2.0  # node voltages within ± this

    @model_validator(mode="after")
    def _not_empty(self) -> CellRange:
        if self.theta1_min > self.theta1_max or self.full_scale_min > self.theta2_max:
            raise ValueError("theta1_min must be at most theta1_max, and full_scale_min at most theta2_max")
        return self

    def nearest(self, theta1: Tensor, theta2: Tensor) -> tuple[Tensor, Tensor]:
        """θ1 and θ2 moved as little as brings each edge into the range; where the full scale is short, θ2 is moved."""
        size = theta1.abs()
        held = size.clamp(self.theta1_min, self.theta1_max) * torch.where(theta1 < 0, -1.0, 1.0)
        held = torch.where(size < self.theta1_min / 2, 0.0, held)
        return held, torch.maximum(theta2.clamp(max=self.theta2_max), self.full_scale_min - 2 * self.box * held.abs())

    def holds(self, theta1: Tensor, theta2: Tensor) -> bool:
        """Whether every edge is in the range, to a rounding error."""
        moved = self.nearest(theta1, theta2)
        return all(bool((a - b).abs().max() < 1e-9) for a, b in zip(moved, (theta1, theta2), strict=True))


class Units(Settings):
    """How many units of pedestal a cell of θ1, θ2 is: the least that carry ``slope_per_unit`` of |θ1| and
    ``offset_per_unit`` of θ2 each."""

    slope_per_unit: Positive = 2 / 13
    offset_per_unit: Positive = 0.65

    def of(self, theta1: Tensor, theta2: Tensor) -> Tensor:
        """The units of each cell, [E]; a whole number, which no gradient sees."""
        need = torch.maximum(theta1.detach().abs() / self.slope_per_unit, theta2.detach() / self.offset_per_unit)
        return torch.ceil(need - 1e-9).clamp(min=1)  # a θ1 of whole units is no unit more


class Cell(Settings):
    """Training for the MOS cell. Currents in I_u, voltages in V_u, times in T_u; each σ is of edges independent of each
    other, and a new set of dies is drawn for every batch.

    Without ``units`` all cells have the same σ. With it σ are those of a cell of one unit, and of k units by Pelgrom's
    rule: of θ1 and of the gain 1/√k of them, of θ2 √k times. ``bias_*`` are a die's own: they move all its cells.
    ``compression`` is the onset of saturation: of a cell of one unit, what its current loses over its square; a cell of
    k units loses 1/k of that. Without ``units`` every cell is of one unit.
    """

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0  # fraction of the epochs from which the cell replaces Eq. (6)
    range: CellRange = CellRange()
    rounding: NotNegative = 0.1  # half the width of the corner
    leakage: NotNegative = 0.00125  # of an edge that is off
    compression: NotNegative = 0.0  # over the square of the current, of a cell of one unit
    lag: NotNegative = 0.0  # of each edge current behind its voltages
    sigma_theta1: NotNegative = 0.03  # over θ1
    sigma_theta2: NotNegative = 0.04
    sigma_gain: NotNegative = 0.04  # of the current that leaves the source over that which enters the target
    units: Units | None = None
    bias_theta1: NotNegative = 0.0  # over θ1
    bias_theta2: NotNegative = 0.0  # a unit; 1 unit a cell without ``units``
    dies: Annotated[int, Field(ge=1)] = 8  # among which each batch is shared out

    @model_validator(mode="after")
    def _rises(self) -> Cell:
        most = self._most_a_unit()
        if 2 * self.compression * most >= 1:
            counted = " (without units every cell counts as one)" if self.units is None else ""
            raise ValueError(
                f"compression must be below {1 / (2 * most):.3g}: a current turns over at 1/(2·compression) a unit, "
                f"and in the range and its box there are currents of {most:.3g} a unit{counted}"
            )
        return self

    def _most_a_unit(self) -> float:
        """The largest current in the box over the units of its cell, of all cells in the range."""
        of_slope, held = 2 * self.range.box, self.range
        if self.units is None:
            return of_slope * held.theta1_max + held.theta2_max
        per_1, per_2 = self.units.slope_per_unit, self.units.offset_per_unit
        least = float(self.units.of(*torch.tensor([held.theta1_min, 0.0], dtype=torch.float64)))
        steep = of_slope * min(per_1, held.theta1_max / least) + min(per_2, held.theta2_max / least)
        return max(steep, min(per_2, held.theta2_max))  # a cell of θ1 = 0 can be of fewer units than any other

    def units_of(self, theta1: Tensor, theta2: Tensor) -> Tensor:
        """The units of each cell, [E], which no gradient sees."""
        return torch.ones_like(theta1.detach()) if self.units is None else self.units.of(theta1, theta2)

    def corner(self, theta1: Tensor, theta2: Tensor) -> Corner:
        """What all dies of cells made to be ``theta1`` and ``theta2`` [E] share."""
        if self.compression == 0:
            return Corner(self.rounding, self.leakage)
        return Corner(self.rounding, self.leakage, (self.compression / self.units_of(theta1, theta2)).numpy())


def draw_dies(
    cell: Cell, theta1: Tensor, theta2: Tensor, dies: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """θ1, θ2 and gain [E, dies] of as many random dies, differentiable in the nominal θ1 and θ2 [E]."""

    def normal(sigma: float, rows: int = len(theta1)) -> Tensor:
        return sigma * torch.randn(rows, dies, generator=generator, dtype=torch.float64)

    k = cell.units_of(theta1, theta2)[:, None]
    root = k.sqrt()
    theta1 = theta1[:, None] * (1 + normal(cell.sigma_theta1) / root)
    theta2, gain = theta2[:, None] + normal(cell.sigma_theta2) * root, 1 + normal(cell.sigma_gain) / root
    if cell.bias_theta1 or cell.bias_theta2:
        theta1, theta2 = theta1 * (1 + normal(cell.bias_theta1, 1)), theta2 + k * normal(cell.bias_theta2, 1)
    return theta1, theta2, gain


class _CellRate(torch.autograd.Function):  # type: ignore[misc]  # torch is not there where it is not needed
    @staticmethod
    def forward(ctx: Any, ends: Ends, corner: Corner, v: Tensor, *dies: Tensor) -> Tensor:
        ctx.ends, ctx.corner = ends, corner
        ctx.save_for_backward(v, *dies)
        return torch.from_numpy(rate_of_cells(ends, _numpy(dies), corner, v.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:
        v, *dies = ctx.saved_tensors
        of_v, of_theta = pull_back(
            ctx.ends, _numpy(dies), ctx.corner, v.detach().numpy(), pulls[0].contiguous().numpy()
        )
        return None, None, torch.from_numpy(of_v), *torch.from_numpy(of_theta), None


def _numpy(dies: Any) -> Dies:
    theta1, theta2, gain = (p.detach().contiguous().numpy() for p in dies)
    return theta1, theta2, gain


def cell_rate(ends: Ends, corner: Corner, dies: tuple[Tensor, Tensor, Tensor], v: Tensor, lag: float = 0.0) -> Tensor:
    """dv/dτ [nodes, samples] of cells at ``v`` [nodes, samples]; differentiable in v and in the dies' θ1 and θ2.

    A pole of time constant ``lag`` in every edge current acts, to first order in it, as currents that see the voltages
    of ``lag`` ago; that needs no state per edge.
    """
    rate: Tensor = _CellRate.apply(ends, corner, v, *dies)
    return rate if lag == 0 else _CellRate.apply(ends, corner, v - lag * rate, *dies)


def heun(slope: Callable[[Tensor], Tensor], v: Tensor, duration: float, steps: int) -> Iterator[Tensor]:
    """Yield the state after each of ``steps`` Heun steps (order 2) of dv/dτ = slope(v)."""
    h = duration / steps
    for _ in range(steps):
        first = slope(v)
        v = v + 0.5 * h * (first + slope(v + h * first))
        yield v


def straight_through(value: Tensor, parameter: Tensor) -> Tensor:
    """``value`` forward, the gradient handed on to ``parameter`` as it is: θ can cross what it cannot be."""
    return parameter + (value - parameter).detach()
