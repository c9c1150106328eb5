"""The trained network: a frozen graph of arrays. Node 0 is ground; everything is in model units (C = 1).

    dv_k/dτ = Σ_{e into k} i_e − Σ_{e out of k} i_e,     i_e = k·φ(a·v_s + b·v_d + c),     0 ≤ τ ≤ T

Source: Gao, Sun, Boning, arXiv 2310.15872.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcnet_eda.network.laws import PHI_NAMES

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]


def _frozen(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype, ndmin=1)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False, slots=True)
class Edges:
    """E edges as columns; every array has shape [E].

    ``source`` and ``target`` are node numbers: the current leaves the source and enters the target.
    ``a``, ``b``, ``c``, ``k`` are the canonical law's parameters; ``phi`` is its code in ``laws.PHI_NAMES``.
    """

    source: Ints
    target: Ints
    a: Floats
    b: Floats
    c: Floats
    k: Floats
    phi: Codes

    def __post_init__(self) -> None:
        for f in fields(self):
            dtype = {"source": np.int32, "target": np.int32, "phi": np.uint8}.get(f.name, np.float64)
            object.__setattr__(self, f.name, _frozen(getattr(self, f.name), dtype))

    def __len__(self) -> int:
        return int(self.source.size)

    def rows(self, rows: NDArray[np.int64]) -> Edges:
        """Some of the edges."""
        return Edges(*(getattr(self, f.name)[rows] for f in fields(self)))


#: What a node starts at that the phase before did not have (in the first phase: that holds no input).
FILLS = ("zeros", "repeat")


@dataclass(frozen=True, eq=False, slots=True)
class Phase:
    """One time slice: its nodes (ground included), its duration in model time, its edges.

    A node that this phase does not have is dropped. One that the phase before did not have starts at 0, or, with
    ``fill`` = ``repeat``, at the voltage of the nodes 1, 2, ... before it, over and over. At the end of the phase the
    voltages that phase ``residual_from`` evolved to are added to its own (None: nothing is).
    """

    n_nodes: int
    duration: float
    edges: Edges
    fill: str = "zeros"
    residual_from: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Network:
    """A KirchhoffNet.

    ``inputs`` are the nodes of the first phase that hold the input at τ = 0 (every other node starts at 0);
    ``readout`` are the nodes of the last phase whose voltages at the end are the output; the label is the
    position of the largest. ``node_names`` has one name a node of the largest phase, ground first. ``examples``
    are a few typical inputs [n, inputs] (n may be 0), from which solver steps are chosen. ``record`` is what is
    known of its making (JSON values only).
    """

    name: str
    phases: tuple[Phase, ...]
    inputs: Ints
    readout: Ints
    node_names: tuple[str, ...] = ()
    examples: Floats = field(default_factory=lambda: np.empty((0, 0)))
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "inputs", _frozen(self.inputs, np.int32))
        object.__setattr__(self, "readout", _frozen(self.readout, np.int32))
        object.__setattr__(self, "examples", _frozen(self.examples, np.float64).reshape(-1, self.inputs.size))
        names = tuple(self.node_names) or ("gnd", *(f"n{i}" for i in range(1, self.max_nodes)))
        object.__setattr__(self, "node_names", names)

    @property
    def max_nodes(self) -> int:
        """Nodes of the largest phase, ground included."""
        return max((p.n_nodes for p in self.phases), default=0)

    @property
    def n_edges(self) -> int:
        """Edges of all phases together."""
        return sum(len(p.edges) for p in self.phases)

    @property
    def duration(self) -> float:
        """T, the sum of the phases' durations, in model time."""
        return sum(p.duration for p in self.phases)

    def initial_state(self, x: ArrayLike) -> Floats:
        """v(0) for inputs ``x`` of shape [n, inputs]: shape [n, nodes of the first phase].

        Raises
        ------
        ValueError
            The number of input values is not the number of input nodes.
        """
        x = np.atleast_2d(np.asarray(x, dtype=np.float64))
        if x.shape[1] != self.inputs.size:
            raise ValueError(f"{x.shape[1]} input values a sample for a network of {self.inputs.size} input nodes")
        first = self.phases[0]
        if first.fill == "repeat":  # its inputs are the nodes 1, 2, ...
            return carry_over(np.concatenate([np.zeros((len(x), 1)), x], axis=1), first)
        state = np.zeros((x.shape[0], first.n_nodes))
        state[:, self.inputs] = x
        return state


def carry_over(state: Floats, phase: Phase) -> Floats:
    """Hand a state [n, nodes] over to ``phase``: surplus nodes are dropped, new ones start as its ``fill`` says."""
    held = min(state.shape[1], phase.n_nodes)
    out = np.zeros((state.shape[0], phase.n_nodes))
    out[:, :held] = state[:, :held]
    if phase.fill == "repeat":
        out[:, held:] = state[:, 1 + np.arange(held - 1, phase.n_nodes - 1) % (held - 1)]
    return out


def settle(network: Network, evolved: Sequence[Floats]) -> Floats:
    """The state [n, nodes] that the last of the phases in ``evolved`` ends with.

    ``evolved`` has, for each phase so far, the state that its edges led to; a residual is added here.
    """
    earlier = network.phases[len(evolved) - 1].residual_from
    return evolved[-1] if earlier is None else evolved[-1] + evolved[earlier]


def labels(network: Network, v_end: Floats) -> NDArray[np.int64]:
    """The label of each final state [n, nodes]: the position in ``readout`` of the largest voltage, shape [n]."""
    return np.asarray(np.argmax(v_end[:, network.readout], axis=1), dtype=np.int64)


def margins(network: Network, v_end: Floats) -> Floats:
    """Largest minus second largest read-out voltage of each final state [n, nodes], shape [n], model units."""
    if network.readout.size < 2:
        return np.full(v_end.shape[0], np.inf)
    top = np.sort(v_end[:, network.readout], axis=1)
    return np.asarray(top[:, -1] - top[:, -2])


__all__ = ["FILLS", "PHI_NAMES", "Edges", "Network", "Phase", "carry_over", "labels", "margins", "settle"]
