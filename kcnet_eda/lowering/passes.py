"""The passes from edges to devices. ``merge`` and ``fold`` are exact; ``drop`` is exact within a stated voltage range.

- ``merge``: the edges between two nodes become one device with several breakpoints (or one for each φ where the law is
  not piecewise linear in the difference).
- ``drop``: an edge that never conducts while each node stays in its audited range is left out, and one that never
  blocks is linear there.
- ``fold``: what flows whatever the voltages becomes one constant current a node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.lowering.devices import DeviceTable, LoweredPhase, Shape, node_currents
from kcnet_eda.network.graph import Edges, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, LEAKY_SLOPE, PHI_NAMES, RELU, TANH
from kcnet_eda.network.pairs import Pairs, gather_pairs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PASSES = ("merge", "drop", "fold")
#: What is done unless somebody says otherwise: all that is exact for every input.
DEFAULT_PASSES = ("merge", "fold")
Ranges = tuple[Floats, Floats]

_MOST_TERMS = 64  # of one device; more edges between two nodes make several devices


def parse_passes(text: str) -> tuple[str, ...]:
    """The passes in ``merge,fold``, ``none`` or ``all``, in the order in which they are done.

    Raises
    ------
    InvalidInputError
        One is not known.
    """
    if text in ("none", "all"):
        return PASSES if text == "all" else ()
    named = [word.strip() for word in text.split(",")]
    unknown = [f"{word!r} is no pass" for word in named if word not in PASSES]
    if unknown:
        raise InvalidInputError(f"--lower {text}", unknown, f"Name some of {', '.join(PASSES)}, or none, or all.")
    return tuple(p for p in PASSES if p in named)


def lower(phase: Phase, passes: tuple[str, ...] = DEFAULT_PASSES, ranges: Ranges | None = None) -> LoweredPhase:
    """The devices of ``phase``. ``ranges`` are the lowest and highest voltage of each node [nodes], which ``drop``
    needs; while nodes are within them the currents differ from the edges' by rounding alone."""
    edges = phase.edges
    kept = np.arange(len(edges))
    dropped = folded = np.empty(0, dtype=np.int64)
    current = np.zeros(phase.n_nodes)
    if "drop" not in passes:
        ranges = None
    elif ranges is None:
        raise ValueError("dropping needs voltage ranges")
    else:
        ranges = _grounded(ranges)
        blocked = _never_conducts(edges, ranges)
        dropped, kept = np.flatnonzero(blocked), np.flatnonzero(~blocked)
    if "fold" in passes:
        constant = _is_constant(edges)[kept]
        folded, kept = kept[constant], kept[~constant]
        current += _into_nodes(edges, folded, _constant_current(edges)[folded], phase.n_nodes)
    if "merge" not in passes:
        tables = tuple(_edge_tables(edges, kept))
        return LoweredPhase(phase.n_nodes, _with_currents(tables, current), folded, dropped)
    part = edges.rows(kept)
    pairs = _turned(gather_pairs(part))
    linear, offset, inside = _linear_part(pairs, ranges)
    if "fold" in passes:
        current += np.bincount(pairs.target, offset, phase.n_nodes) - np.bincount(pairs.source, offset, phase.n_nodes)
        offset = np.zeros_like(offset)
    current[0] = 0.0
    tables = (*_pair_tables(pairs, linear, offset, inside, kept), *_sum_tables(part, pairs.rest, kept))
    return LoweredPhase(phase.n_nodes, _with_currents(tables, current), folded, dropped)


def _with_currents(tables: tuple[DeviceTable, ...], current: Floats) -> tuple[DeviceTable, ...]:
    return (*tables, node_currents(current)) if current.any() else tables


def _grounded(ranges: Ranges) -> Ranges:
    low, high = (bound.copy() for bound in ranges)
    low[0] = high[0] = 0.0
    return low, high


def _never_conducts(edges: Edges, ranges: Ranges) -> NDArray[np.bool_]:
    """Rectifying edges whose argument cannot rise above 0 within the ranges (interval arithmetic); edges of k = 0."""
    low, high = ranges
    top = edges.c.copy()
    for weight, node in ((edges.a, edges.source), (edges.b, edges.target)):
        top += np.where(weight > 0, weight * high[node], weight * low[node])
    return np.asarray(((edges.phi == RELU) & (top <= 0.0)) | (edges.k == 0.0))


def _is_constant(edges: Edges) -> NDArray[np.bool_]:
    """Edges that see no voltage: neither weight counts, or both ends' weights fall on ground."""
    sees_source, sees_target = (edges.a != 0) & (edges.source != 0), (edges.b != 0) & (edges.target != 0)
    return np.asarray(~(sees_source | sees_target))


def _constant_current(edges: Edges) -> Floats:
    c = edges.c
    of_phi = {RELU: np.maximum(c, 0.0), LEAKY_RELU: np.maximum(c, LEAKY_SLOPE * c), TANH: np.tanh(c), IDENTITY: c}
    return np.asarray(edges.k * np.select([edges.phi == code for code in of_phi], list(of_phi.values())))


def _into_nodes(edges: Edges, rows: Ints, current: Floats, n_nodes: int) -> Floats:
    into = np.bincount(edges.target[rows], current, n_nodes) - np.bincount(edges.source[rows], current, n_nodes)
    into[0] = 0.0
    return np.asarray(into, dtype=np.float64)


def _edge_tables(edges: Edges, kept: Ints) -> Iterator[DeviceTable]:
    """One device an edge, one table a φ."""
    for code in np.unique(edges.phi[kept]):
        rows = kept[edges.phi[kept] == code]
        rows = rows[np.lexsort((edges.source[rows], edges.target[rows]))]
        names, values = _edge_parameters(edges, int(code), rows)
        yield DeviceTable(
            PHI_NAMES[code], None, "e", rows, edges.source[rows].astype(np.int64), edges.target[rows].astype(np.int64),
            names, values, np.arange(rows.size + 1), rows, np.ones_like(rows),
        )  # fmt: skip


def _edge_parameters(edges: Edges, code: int, rows: Ints) -> tuple[tuple[str, ...], Floats]:
    a, b, c, k = (column[rows] for column in (edges.a, edges.b, edges.c, edges.k))
    if code == TANH:
        return ("imax", "ws", "wd", "x0"), np.stack([k, a, b, c], axis=1)
    if (k == 1.0).all():  # the module's default, and Eq. (6)'s: not worth a column
        return ("gs", "gd", "i0"), np.stack([a, b, c], axis=1)
    return ("gs", "gd", "i0", "k"), np.stack([a, b, c, k], axis=1)


def _turned(pairs: Pairs) -> Pairs:
    """The same pairs, each drawn in the direction in which most of its terms rise: they need no linear part then."""
    pair = np.repeat(np.arange(len(pairs)), np.diff(pairs.first))
    turn = 2 * np.bincount(pair[pairs.falling], minlength=len(pairs)) > np.diff(pairs.first)
    sign, term = np.where(turn, -1.0, 1.0), turn[pair]
    return replace(
        pairs,
        source=np.where(turn, pairs.target, pairs.source),
        target=np.where(turn, pairs.source, pairs.target),
        i0=sign * pairs.i0,
        gain=sign[pair] * pairs.gain,
        threshold=sign[pair] * pairs.threshold,
        falling=pairs.falling ^ term,
    )


def _linear_part(pairs: Pairs, ranges: Ranges | None) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Each pair's g and i0 once falling terms are turned round, relu(t − x) = relu(x − t) + t − x, and terms that no
    voltage in ``ranges`` reaches the bend of are linear or gone; and which terms remain."""
    pair = np.repeat(np.arange(len(pairs)), np.diff(pairs.first))
    slope = np.where(pairs.falling, -pairs.gain, 0.0)
    inside = np.ones(pair.size, dtype=bool)
    if ranges is not None:
        low, high = ranges
        lowest = (low[pairs.source] - high[pairs.target])[pair]
        highest = (high[pairs.source] - low[pairs.target])[pair]
        inside = (pairs.threshold > lowest) & (pairs.threshold < highest)
        slope = slope + np.where(~inside & (pairs.threshold <= lowest), pairs.gain, 0.0)  # beyond its bend: g·(x − t)
    linear = pairs.g + np.bincount(pair, slope, len(pairs))
    offset = pairs.i0 - np.bincount(pair, slope * pairs.threshold, len(pairs))
    return linear, offset, inside


def _pair_tables(
    pairs: Pairs, linear: Floats, offset: Floats, inside: NDArray[np.bool_], kept: Ints
) -> Iterator[DeviceTable]:
    """One table for each number of breakpoints that occurs. A pair with very many has several devices, the first of
    which carries its linear part; one through which nothing flows has none."""
    pair_of_term = np.repeat(np.arange(len(pairs)), np.diff(pairs.first))
    term = np.flatnonzero(inside)
    term = term[np.lexsort((pairs.threshold[term], pair_of_term[term]))]
    count = np.bincount(pair_of_term[term], minlength=len(pairs))
    place = np.full(pair_of_term.size, -1)
    place[term] = np.arange(term.size) - np.repeat(np.cumsum(count) - count, count)

    devices = np.maximum(1, -(-count // _MOST_TERMS))
    first_device = np.cumsum(devices) - devices
    pair = np.repeat(np.arange(len(pairs)), devices)
    leads = np.zeros(pair.size, dtype=bool)
    leads[first_device] = True
    device_of_term = first_device[pair_of_term] + np.maximum(place, 0) // _MOST_TERMS
    terms_of = np.bincount(device_of_term[term], minlength=pair.size)
    begin = np.cumsum(terms_of) - terms_of
    g, i0 = np.where(leads, linear[pair], 0.0), np.where(leads, offset[pair], 0.0)

    edge = np.flatnonzero(pairs.pair_of_edge >= 0)
    own = pairs.term_of_edge[edge]
    device = first_device[pairs.pair_of_edge[edge]]
    role = np.zeros_like(device)
    bends = own >= 0
    device[bends] = device_of_term[own[bends]]
    role[bends] = np.where(place[own[bends]] >= 0, place[own[bends]] % _MOST_TERMS + 1, 0)

    for terms in np.unique(terms_of):
        rows = np.flatnonzero((terms_of == terms) & ((terms > 0) | (g != 0.0) | (i0 != 0.0)))
        if rows.size == 0:
            continue
        rows = rows[np.lexsort((pairs.source[pair[rows]], pairs.target[pair[rows]]))]
        at = term[begin[rows][:, None] + np.arange(terms)]
        columns = [(name, column[rows]) for name, column in (("g", g), ("i0", i0)) if column[rows].any()]
        for j in range(int(terms)):
            columns += [(f"g_{j + 1}", pairs.gain[at[:, j]]), (f"t_{j + 1}", pairs.threshold[at[:, j]])]
        first, member = _members(device, rows, pair.size)
        yield DeviceTable(
            "pwl", Shape("pwl", int(terms)), "p", rows, pairs.source[pair[rows]], pairs.target[pair[rows]],
            tuple(name for name, _ in columns), np.stack([v for _, v in columns], axis=1),
            first, kept[edge[member]], role[member],
        )  # fmt: skip


def _members(device: Ints, rows: Ints, n_devices: int) -> tuple[Ints, Ints]:
    """For the devices in ``rows``: where each one's members begin [rows + 1], and the members, as positions in
    ``device``, which says for every edge which device it is in."""
    order = np.full(n_devices, -1)
    order[rows] = np.arange(rows.size)
    member = np.flatnonzero(order[device] >= 0)
    member = member[np.argsort(order[device[member]], kind="stable")]
    return np.searchsorted(order[device[member]], np.arange(rows.size + 1)), member


def _sum_tables(edges: Edges, rest: Ints, kept: Ints) -> Iterator[DeviceTable]:
    """Edges whose law is not piecewise linear in the difference: a device for each φ and pair of nodes. An edge from
    the lower to the higher of them is drawn the other way round: k changes its sign, a and b their places."""
    number, turn = 0, edges.source < edges.target
    edges = replace(
        edges,
        source=np.where(turn, edges.target, edges.source),
        target=np.where(turn, edges.source, edges.target),
        a=np.where(turn, edges.b, edges.a),
        b=np.where(turn, edges.a, edges.b),
        k=np.where(turn, -edges.k, edges.k),
    )
    for code in np.unique(edges.phi[rest]):
        rows = rest[edges.phi[rest] == code]
        rows = rows[np.lexsort((rows, edges.source[rows], edges.target[rows]))]
        key = edges.target[rows].astype(np.int64) * (int(edges.source.max()) + 1) + edges.source[rows]
        group = np.cumsum(np.concatenate([[0], np.diff(key) != 0]))
        within = np.arange(rows.size) - np.searchsorted(group, group)
        key = group * (rows.size + 1) + within // _MOST_TERMS  # a long group becomes several devices
        _, start, count = np.unique(key, return_index=True, return_counts=True)
        names, values = _edge_parameters(edges, int(code), rows)
        for terms in np.unique(count):
            chosen = start[count == terms]
            at = chosen[:, None] + np.arange(terms)
            yield DeviceTable(
                PHI_NAMES[code], Shape(PHI_NAMES[code], int(terms)), "s", number + np.arange(chosen.size),
                edges.source[rows[chosen]].astype(np.int64), edges.target[rows[chosen]].astype(np.int64),
                tuple(f"{name}_{j + 1}" for j in range(int(terms)) for name in names),
                values[at].reshape(chosen.size, -1), terms * np.arange(chosen.size + 1),
                kept[rows[at.ravel()]], np.tile(np.arange(terms) + 1, chosen.size),
            )  # fmt: skip
            number += chosen.size
