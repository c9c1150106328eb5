"""What (a, c, k) a measured edge has: the least-squares k·tanh(a·x + c) over the box of node voltages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROUNDS = 40
_SETTLED = 1e-9
_DAMPING = 1e-6  # of the normal equations' diagonal: a and k are hard to tell apart where tanh is nearly straight


def fit_tanh(x: Floats, weight: Floats, current: Floats, first: Floats) -> Floats:
    """(a, c, k) [n, 3] of ``current`` [n, points] at ``x`` with ``weight`` [points], from a guess ``first`` [n, 3]."""
    theta = first.copy()
    for _ in range(_ROUNDS):
        y = np.tanh(theta[:, :1] * x + theta[:, 1:2])
        inner = theta[:, 2:] * (1 - y**2)
        by = np.stack([inner * x, inner, y], axis=2)
        normal = np.einsum("npi,npj,p->nij", by, by, weight)
        normal += _DAMPING * np.einsum("nii,ij->nij", normal, np.eye(3))
        step = np.linalg.solve(normal, np.einsum("npi,np,p->ni", by, current - theta[:, 2:] * y, weight)[:, :, None])
        step = np.clip(step[:, :, 0], -0.5, 0.5)
        theta = theta + step
        if float(np.abs(step).max(initial=0)) < _SETTLED:
            break
    return theta
