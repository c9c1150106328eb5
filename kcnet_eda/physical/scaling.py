"""Model units to volts, amperes, farads and seconds: V = V_cm + V_u·v, I = I_u·i, t = T_u·τ, T_u = C·V_u/I_u."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from kcnet_eda.errors import InvalidInputError

_AGREE = 1e-9  # relative; quantities written as decimal text agree to double rounding or mean something else


@dataclass(frozen=True, slots=True)
class Scaling:
    """A consistent set of units: node capacitance ``c`` [F], ``v_unit`` [V], ``i_unit`` [A] and the common-mode
    rail ``v_cm`` [V], to which model ground maps. Make one with :func:`resolve`."""

    c: float
    v_unit: float
    i_unit: float
    v_cm: float = 0.0

    @property
    def t_unit(self) -> float:
        """T_u = C·V_u/I_u, in seconds."""
        return self.c * self.v_unit / self.i_unit

    @property
    def g_unit(self) -> float:
        """G_u = I_u/V_u, in siemens."""
        return self.i_unit / self.v_unit

    def as_dict(self) -> dict[str, float]:
        """The units in SI, derived ones included, for manifests and reports."""
        return asdict(self) | {"t_unit": self.t_unit, "g_unit": self.g_unit}


def resolve(
    c: float = 1e-12,
    v_unit: float | None = None,
    i_unit: float | None = None,
    t_unit: float | None = None,
    g_unit: float | None = None,
    v_cm: float = 0.0,
) -> Scaling:
    """Complete a scaling. Besides C, two of V_u, I_u, T_u, G_u determine the rest.

    T_u and G_u alone do not (T_u = C/G_u leaves the voltage open): V_u is then 1 V. With fewer than two given, V_u
    is 1 V and then T_u is the paper's 1 ps.

    Raises
    ------
    InvalidInputError
        A unit is not above 0 and finite, or those given contradict each other.
    """
    given = {"C": c, "V_u": v_unit, "I_u": i_unit, "T_u": t_unit, "G_u": g_unit}
    bad = [
        f"{name} is {value:g}; it must be finite and above 0"
        for name, value in given.items()
        if value is not None and not (math.isfinite(value) and value > 0)
    ]
    if not math.isfinite(v_cm):
        bad.append(f"V_cm is {v_cm}; it must be finite")
    if bad:
        raise InvalidInputError("scaling", bad)
    # The conductance follows from any pair but (V_u, nothing); then one voltage or current fixes the level.
    g = g_unit or (c / t_unit if t_unit else None) or (i_unit / v_unit if i_unit and v_unit else None)
    if v_unit is None:
        v_unit = i_unit / g if i_unit and g else 1.0
    if g is None:
        g = i_unit / v_unit if i_unit else c / 1e-12
    scaling = Scaling(c, v_unit, i_unit or g * v_unit, v_cm)
    derived = {"V_u": scaling.v_unit, "I_u": scaling.i_unit, "T_u": scaling.t_unit, "G_u": scaling.g_unit}
    clashes = [
        f"{name} is given as {given[name]:g} where the others make it {value:g}"
        for name, value in derived.items()
        if given[name] is not None and not math.isclose(value, float(given[name] or 0), rel_tol=_AGREE)
    ]
    if clashes:
        raise InvalidInputError("scaling", clashes, "T_u = C·V_u/I_u and G_u = I_u/V_u: give C and two of the others.")
    return scaling
