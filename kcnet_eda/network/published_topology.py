"""The published code's topology generators by their names, edge for edge in its order: a checkpoint's parameter
columns belong to the edges in exactly this order, and nothing in the file says so.

Source: the code published with Gao, Sun, Boning, arXiv 2310.15872 (``utils/topology.py``), whose facts are kept and
whose text is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from kcnet_eda.config import Settings
from kcnet_eda.network.graph import Ints

#: Edges of all phases together beyond which nothing is allocated: forty times the largest published network.
MOST_EDGES = 20_000_000
_LARGEST = 1_000_000  # of any one argument

Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Size = Annotated[int, Field(ge=1, le=_LARGEST)]
Side = Annotated[int, Field(ge=1, le=16_384)]
Repeats = tuple[Count, Count]


@dataclass(frozen=True, eq=False)
class Topology:
    """``source`` and ``target`` [E], and ``shared`` [E]: the column of a shared parameter set that an edge uses."""

    source: Ints
    target: Ints
    shared: Ints

    def __len__(self) -> int:
        return int(self.source.size)


class _Args(Settings, ABC):
    model_config = ConfigDict(strict=True)

    @abstractmethod
    def n_edges(self) -> int:
        """The exact number of edges, without building them."""

    @abstractmethod
    def build(self) -> Topology:
        """The edges in the published order."""


A = TypeVar("A", bound=_Args)


class _Windows(_Args):
    """An image of ``num_channel`` x ``width`` x ``height`` nodes (``width`` counts rows) under windows of
    ``neighbor_size`` x ``neighbor_size`` pixels of all channels; ``padding`` lets them hang over the border by all but
    one row or column."""

    num_channel: Side
    width: Side
    height: Side
    neighbor_size: Side
    padding: bool = False
    sharing: bool = False
    parallel: Annotated[int, Field(ge=1, le=24)] = 1

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if not self.padding and self.neighbor_size > min(self.width, self.height):
            raise ValueError(f"no window of neighbor_size {self.neighbor_size} fits {self.width} x {self.height} nodes")
        places = len(self._inside(self.width)) * len(self._inside(self.height)) * self._window_pairs()
        if places > MOST_EDGES:
            raise ValueError(f"its windows have {places:.3g} pairs of places; at most {MOST_EDGES:,} are built")
        return self

    def _window_pairs(self) -> int:
        """Ordered pairs of places in a window."""
        size = self.num_channel * self.neighbor_size**2
        return size * (size - 1)

    def _inside(self, n: int) -> list[int]:
        """How many of a window's rows lie inside ``n`` rows, for each position of the window."""
        reach = self.neighbor_size - 1 if self.padding else 0
        starts = range(-reach, n + reach - self.neighbor_size + 1)
        return [min(i + self.neighbor_size, n) - max(i, 0) for i in starts]

    def _n_neighbors(self, repeat: int) -> int:
        """The exact number of edges within the windows."""
        rows, columns = self._inside(self.width), self._inside(self.height)
        pairs = self.num_channel**2 * sum(n * n for n in rows) * sum(n * n for n in columns)
        pairs -= self.num_channel * sum(rows) * sum(columns)
        return pairs * repeat << (self.parallel - 1)

    def _nodes(self) -> Ints:
        """Node numbers [windows, places] by channel, row, column; 0 where a window hangs over."""
        size, reach = self.neighbor_size, self.neighbor_size - 1 if self.padding else 0
        shape = (self.num_channel, self.width, self.height)
        image = np.arange(1, 1 + np.prod(shape), dtype=np.int32).reshape(shape)
        image = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
        view = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))
        return view.transpose(1, 2, 0, 3, 4).reshape(-1, self.num_channel * size * size)

    def _neighbors(self, repeat: int) -> Topology:
        """Window by window, row by row: each node to each other, by source and by target, ``repeat`` times."""
        nodes = self._nodes()
        first, second = _ordered_pairs(nodes.shape[1])
        source, target = nodes[:, first], nodes[:, second]
        shared = np.broadcast_to(np.arange(first.size, dtype=np.int32), source.shape)
        there = (source > 0) & (target > 0)
        source, target, shared = (np.repeat(column[there], repeat) for column in (source, target, shared))
        if not self.sharing:
            shared = np.arange(source.size, dtype=np.int32)
        next_node, next_shared = source.max(initial=0), first.size if self.sharing else source.size
        for i in range(1, self.parallel):  # the copies of copies are copied too: 2^(parallel − 1) in all
            source = np.concatenate([source, source + i * next_node])
            target = np.concatenate([target, target + i * next_node])
            shared = np.concatenate([shared, shared + i * next_shared])
        return _topology(source, target, shared)


class NeighborArgs(_Windows):
    """Within every window each node to each other, ``repeat`` times; once a window, so pairs recur."""

    repeat: Count = 1

    def n_edges(self) -> int:
        """The exact number of edges, without building them."""
        return self._n_neighbors(self.repeat)

    def build(self) -> Topology:
        """The edges, window by window."""
        return self._neighbors(self.repeat)


class MixArgs(_Windows):
    """The edges of :class:`NeighborArgs` (whose ``repeat`` is ``kernel_repeat`` here), then ``repeat`` = [to, from]
    edges between each of its nodes and ground, then ``fully_connect_node`` more nodes, each with ``repeat`` edges from
    and to every node of the image and ground."""

    fully_connect_node: Count
    repeat: Repeats = Field((1, 0), strict=False)
    kernel_repeat: Count = 1

    @model_validator(mode="after")
    def _neighbors_exist(self) -> Self:
        if self._n_neighbors(self.kernel_repeat) == 0:
            raise ValueError("its windows hold no edges, where the published generator stops")
        return self

    def n_edges(self) -> int:
        """The exact number of edges, without building them: every pixel lies in a window."""
        copies = 1 + self.parallel * (self.parallel - 1) // 2
        nodes = copies * self.num_channel * self.width * self.height
        pairs = nodes + self.fully_connect_node * (nodes + 1)
        return self._n_neighbors(self.kernel_repeat) + sum(self.repeat) * pairs

    def build(self) -> Topology:
        """The edges: the windows', to and from ground node by node, then each further node's."""
        base = self._neighbors(self.kernel_repeat)
        last = int(base.source.max())
        image = np.arange(1, last + 1)
        others = np.tile(np.arange(last + 1), self.fully_connect_node)
        further = np.repeat(last + 1 + np.arange(self.fully_connect_node), last + 1)
        rest = _both_directions(np.concatenate([image, others]), np.concatenate([0 * image, further]), self.repeat)
        # Shared columns are counted over all pairs of places, also where no window holds both.
        start = self._window_pairs() if self.sharing and self.parallel == 1 else int(base.shared.max()) + 1
        return _topology(
            np.concatenate([base.source, rest.source]),
            np.concatenate([base.target, rest.target]),
            np.concatenate([base.shared, start + rest.shared]),
        )


class FullArgs(_Args):
    """Each node to each other: for every ordered pair (i, j), ``repeat[0]`` edges i to j, then ``repeat[1]`` back."""

    num_node: Size
    include_gnd: bool = True
    repeat: Repeats = Field((1, 1), strict=False)

    def n_edges(self) -> int:
        """The exact number of edges, without building them."""
        return self.num_node * (self.num_node - 1) * sum(self.repeat)

    def build(self) -> Topology:
        """The edges, by first and by second node of the pair; ``include_gnd`` counts ground among ``num_node``."""
        start = 0 if self.include_gnd else 1
        first, second = _ordered_pairs(self.num_node)
        return _both_directions(first + start, second + start, self.repeat)


class SimpleArgs(_Args):
    """A chain: each of ``num_node`` nodes to the next, ``repeat[0]`` times; ``repeat[1]`` is never read."""

    num_node: Size
    include_gnd: bool = True
    repeat: Repeats = Field((1, 1), strict=False)

    def n_edges(self) -> int:
        """The exact number of edges, without building them."""
        return self.num_node * self.repeat[0]

    def build(self) -> Topology:
        """The edges along the chain, which starts at ground with ``include_gnd`` and at node 1 without."""
        start = 0 if self.include_gnd else 1
        node = np.arange(start, start + self.num_node)
        return _both_directions(node, node + 1, (self.repeat[0], 0))


def _sane(args: A) -> A:
    n = args.n_edges()
    if not 1 <= n <= MOST_EDGES:
        raise ValueError("gives no edges" if n == 0 else f"would give {n:.3g} edges; at most {MOST_EDGES:,} are built")
    return args


class Neighbor(Settings):
    name: Literal["_neighbor_index"]
    args: Annotated[NeighborArgs, AfterValidator(_sane)]


class Mix(Settings):
    name: Literal["_mix_connect"]
    args: Annotated[MixArgs, AfterValidator(_sane)]


class Full(Settings):
    name: Literal["_fully_connect"]
    args: Annotated[FullArgs, AfterValidator(_sane)]


class Simple(Settings):
    name: Literal["_simple_connect"]
    args: Annotated[SimpleArgs, AfterValidator(_sane)]


class Pregiven(Settings):
    """Known by name to be refused."""

    name: Literal["_pregiven"]
    args: Any = None

    @model_validator(mode="after")
    def _refuse(self) -> Self:
        raise ValueError("its edges came from a graph given at training time, which neither file holds")


#: One entry of ``net_struct``: a generator's name and its arguments.
NetStruct = Annotated[Neighbor | Mix | Full | Simple | Pregiven, Field(discriminator="name")]


def _ordered_pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (i, j), i ≠ j, by i and then by j."""
    first, second = np.indices((n, n)).reshape(2, -1)
    apart = first != second
    return first[apart], second[apart]


def _both_directions(first: NDArray[Any], second: NDArray[Any], repeat: tuple[int, int]) -> Topology:
    """For each pair in turn ``repeat[0]`` edges first → second, then ``repeat[1]`` edges second → first."""
    forth, back = ((first.size, n) for n in repeat)
    one, other = first[:, None], second[:, None]
    source = np.concatenate([np.broadcast_to(one, forth), np.broadcast_to(other, back)], axis=1)
    target = np.concatenate([np.broadcast_to(other, forth), np.broadcast_to(one, back)], axis=1)
    return _topology(source.ravel(), target.ravel(), np.arange(source.size))


def _topology(source: NDArray[Any], target: NDArray[Any], shared: NDArray[Any]) -> Topology:
    return Topology(*(np.asarray(column, dtype=np.int32) for column in (source, target, shared)))
