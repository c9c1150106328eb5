"""Topology generators: which node pairs carry edges. Each gives ``(source, target)`` arrays of shape [E]."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kcnet_eda.network.graph import Ints

Pairs = tuple[Ints, Ints]


def grid_window(rows: int, columns: int, size: int = 3, first_node: int = 1) -> Pairs:
    """Every pixel of an image grid to each other pixel in the ``size`` x ``size`` window around it.

    Nodes are numbered row by row from ``first_node``. Both directions of a pair occur, each once.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a window has an odd size of at least 1, not {size}")
    reach = size // 2
    row, column = np.divmod(np.arange(rows * columns), columns)
    sources, targets = [], []
    for dr in range(-reach, reach + 1):
        for dc in range(-reach, reach + 1):
            if dr == dc == 0:
                continue
            keep = (row + dr >= 0) & (row + dr < rows) & (column + dc >= 0) & (column + dc < columns)
            here = np.flatnonzero(keep)
            sources.append(here)
            targets.append(here + dr * columns + dc)
    if not sources:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    return _pairs(np.concatenate(sources) + first_node, np.concatenate(targets) + first_node)


def full(sources: ArrayLike, targets: ArrayLike) -> Pairs:
    """Every source node to every target node, self-loops left out."""
    s, t = np.meshgrid(np.asarray(sources), np.asarray(targets), indexing="ij")
    keep = s != t
    return _pairs(s[keep], t[keep])


def both_ways(pairs: Pairs) -> Pairs:
    """``pairs`` and the same in the opposite direction."""
    source, target = pairs
    return _pairs(np.concatenate([source, target]), np.concatenate([target, source]))


def repeat(pairs: Pairs, times: int) -> Pairs:
    """``times`` parallel edges in place of each: what lets a pair's law have several breakpoints."""
    return _pairs(np.tile(pairs[0], times), np.tile(pairs[1], times))


def join(*parts: Pairs) -> Pairs:
    """All the pairs of ``parts``, in order."""
    return _pairs(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def _pairs(source: ArrayLike, target: ArrayLike) -> Pairs:
    return np.asarray(source, dtype=np.int32), np.asarray(target, dtype=np.int32)
