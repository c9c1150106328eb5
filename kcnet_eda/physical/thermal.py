"""Thermal noise of a capacitor."""

from __future__ import annotations

import math

from scipy.constants import Boltzmann, zero_Celsius


def ktc_noise(c: float, celsius: float) -> float:
    """sqrt(kT/C), the rms voltage [V] that any switch leaves on a capacitor ``c`` [F]."""
    return math.sqrt(Boltzmann * (celsius + zero_Celsius) / c)
