"""Which of several points nobody beats in every respect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def not_dominated(costs: Sequence[Sequence[float]]) -> list[bool]:
    """For each point of ``costs`` [points][costs] whether no other is at most as dear in all and cheaper in one."""
    if not costs:
        return []
    table = np.asarray(costs, dtype=np.float64)
    return [not bool(((table <= row).all(axis=1) & (table < row).any(axis=1)).any()) for row in table]
