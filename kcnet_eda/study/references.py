"""The software truth of samples, solved once and kept in the run's store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.reference import final_states
from kcnet_eda.network.graph import Network
from kcnet_eda.progress import Progress
from kcnet_eda.study.store import Store

Floats = NDArray[np.float64]


def reference_states(
    store: Store, keys: Sequence[str], network: Network, x0: Floats, jobs: int, progress: Progress
) -> Floats:
    """Reference final states [n, nodes] of ``x0`` [n, nodes], of which the store knows each by its key; those in the
    store are not solved again."""
    due = np.flatnonzero([store.reference(key) is None for key in keys])
    with progress.stage("software reference", len(keys)) as advance:
        advance(len(keys) - len(due))

        def finished(rows: NDArray[np.int64], v_end: Floats) -> None:
            for row, v in zip(due[rows], v_end, strict=True):
                store.keep_reference(keys[row], v)
            advance(len(rows))

        if due.size:
            final_states(network, x0[due], jobs, finished)
    found = [store.reference(key) for key in keys]
    return np.stack([v for v in found if v is not None])
