"""Final states of samples by software, solved once and kept in the run's store: the truth among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.reference import final_states, method
from kcnet_eda.files import sha256_bytes, sha256_file
from kcnet_eda.network.graph import Network
from kcnet_eda.progress import Progress
from kcnet_eda.study.store import Store

Floats = NDArray[np.float64]

#: Takes rows of the initial states that are asked for, and their final states.
Done = Callable[[NDArray[np.int64], Floats], None]


def reference_keys(file: Path, network: Network, x0: Floats) -> tuple[str, ...]:
    """The keys of ``x0`` [n, nodes] in a store: hashes of the network's ``file``, the method and the state."""
    words = f"{sha256_file(file)} {method(network)}".encode()
    return tuple(sha256_bytes(words + b" " + x.tobytes()) for x in x0)


def reference_states(
    store: Store, keys: Sequence[str], network: Network, x0: Floats, jobs: int, progress: Progress
) -> Floats:
    """Reference final states [n, nodes] of ``x0`` [n, nodes], of which the store knows each by its key; those in the
    store are not solved again."""
    with progress.stage("software reference", len(keys)) as advance:
        return kept_states(store, keys, x0, lambda v0, done: final_states(network, v0, jobs, done), advance)


def kept_states(
    store: Store,
    keys: Sequence[str],
    x0: Floats,
    solve: Callable[[Floats, Done], object],
    advance: Callable[[int], object] = lambda n: None,
) -> Floats:
    """Final states [n, nodes] of ``x0`` [n, nodes], of which the store knows each by its key; ``solve`` is asked for
    those that it does not know, and tells of pieces as they end."""
    due = np.flatnonzero([store.reference(key) is None for key in keys])
    advance(len(keys) - len(due))

    def done(rows: NDArray[np.int64], v_end: Floats) -> None:
        for row, v in zip(due[rows], v_end, strict=True):
            store.keep_reference(keys[row], v)
        advance(len(rows))

    if due.size:
        solve(x0[due], done)
    return np.stack([v for v in map(store.reference, keys) if v is not None])
