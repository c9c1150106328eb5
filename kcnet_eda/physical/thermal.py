"""Thermal noise: of a capacitor, and of a kit's cells beside it."""

from __future__ import annotations

import math

from scipy.constants import Boltzmann, zero_Celsius

from kcnet_eda.dynamics.noise import WhiteNoise
from kcnet_eda.physical.pdk import Pdk


def ktc_noise(c: float, celsius: float) -> float:
    """sqrt(kT/C), the rms voltage [V] that any switch leaves on a capacitor ``c`` [F]; 0 of an infinite one."""
    return math.sqrt(Boltzmann * (celsius + zero_Celsius) / c)


def kit_noise(kit: Pdk, c: float, celsius: float, excess: float, mirrors: float) -> tuple[float, WhiteNoise]:
    """sqrt(kT/C) of ``c`` [F] in V_u, and the white noise of a kit's edges on such nodes: γ is ``excess``, and an edge
    has the noise of so many ``mirrors`` (:mod:`kcnet_eda.dynamics.noise`)."""
    op = kit.operating
    sigma = ktc_noise(c, celsius) / op.v0
    return sigma, WhiteNoise(excess * sigma**2, mirrors * op.gm_id.mirror * op.v0)
