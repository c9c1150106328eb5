"""Waveforms of a simulator's own steps, looked at when one likes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def at_instants(instants: Floats, time: Floats, v: Floats) -> Floats:
    """Waveforms ``v`` [points, nodes] of ``time`` [points] at ``instants``, linear between points."""
    return np.stack([np.interp(instants, time, wave) for wave in v.T], axis=1)
