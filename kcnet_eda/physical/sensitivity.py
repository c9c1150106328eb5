"""How the model of an edge moves with temperature and supply about a condition: coefficients of ``kc_cal_relu``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.physical.cell_design import CellLimits
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel

Floats = NDArray[np.float64]


def sensitivities(
    conditions: Sequence[Condition], models: Sequence[EdgeModel], about: Condition
) -> dict[str, float | None]:
    """Straight lines by least squares through the conditions that differ from ``about`` in one quantity alone, named as
    the device's parameters; ``*_residual`` is what the line through the gains misses at most, over the gain. None where
    there are not two such conditions."""
    # A unit is at most so much θ1: what the shift's slope over θ1 is a unit.
    a_unit = CellLimits().slope_per_unit
    gain = np.array([np.mean(m.gain) for m in models])
    offset = np.array([m.shift[1] * a_unit for m in models])
    rounding = np.log(np.maximum([m.rounding for m in models], 1e-9))
    found: dict[str, float | None] = {}
    for axis, names in (
        ("temperature", {"tc_scale": gain, "tc_offset": offset, "tc_rounding": rounding}),
        ("supply", {"vc_scale": gain}),
    ):
        rows = [i for i, c in enumerate(conditions) if _differs_in(c, about, axis)]
        at = np.array([getattr(conditions[i], axis) - getattr(about, axis) for i in rows])
        if np.unique(at).size < 2:
            found |= dict.fromkeys([*names, f"{axis}_residual"])
            continue
        base = gain[rows][int(np.argmin(np.abs(at)))]
        for name, values in names.items():
            over = base if name.endswith("scale") else 1.0
            found[name] = float(np.polyfit(at, values[rows] / over, 1)[0])
        line = np.polyval(np.polyfit(at, gain[rows], 1), at)
        found[f"{axis}_residual"] = float(np.abs(line / gain[rows] - 1).max())
    return found


def _differs_in(one: Condition, other: Condition, axis: str) -> bool:
    rest = [name for name in ("corner", "resistor", "supply", "temperature") if name != axis]
    return all(getattr(one, name) == getattr(other, name) for name in rest)
