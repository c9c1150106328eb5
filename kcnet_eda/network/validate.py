"""Everything that can be wrong with a network, found at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.graph import FILLS, Network, Phase, carry_over, settle
from kcnet_eda.network.laws import PHI_NAMES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # it becomes file names and comment lines of decks
_SHOWN = 3  # places named for each kind of problem; the rest are counted


def _places(bad: NDArray[np.bool_]) -> str:
    where = np.flatnonzero(bad)
    more = f" and {where.size - _SHOWN} more" if where.size > _SHOWN else ""
    return ("edge " if where.size == 1 else "edges ") + ", ".join(map(str, where[:_SHOWN])) + more


def _phase_problems(number: int, phase: Phase, phases: tuple[Phase, ...]) -> Iterator[str]:
    at = f"phase {number}"
    edges = phase.edges
    if phase.fill not in FILLS:
        yield f"{at}: its fill is {phase.fill!r}; it must be one of {', '.join(FILLS)}"
    earlier = phase.residual_from
    if earlier is not None and not (isinstance(earlier, int) and 0 <= earlier <= number):
        yield f"{at}: adds the end of phase {earlier}, which is not one of 0..{number}"
    elif earlier is not None and phases[earlier].n_nodes != phase.n_nodes:
        yield f"{at}: adds the {phases[earlier].n_nodes} nodes of phase {earlier} to its own {phase.n_nodes}"
    if not (math.isfinite(phase.duration) and phase.duration > 0):
        yield f"{at}: its duration is {phase.duration}; it must be finite and above 0"
    if phase.n_nodes < 2:
        yield f"{at}: has {phase.n_nodes} nodes; it needs ground and at least one more"
    sizes = {f: getattr(edges, f).shape for f in ("source", "target", "a", "b", "c", "k", "phi")}
    if len(set(sizes.values())) != 1 or edges.source.ndim != 1:
        yield f"{at}: its edge columns differ in shape: " + ", ".join(f"{f} {s}" for f, s in sizes.items())
        return
    if len(edges) == 0:
        yield f"{at}: is empty, it has no edges"
    for end in ("source", "target"):
        nodes = getattr(edges, end)
        bad = (nodes < 0) | (nodes >= phase.n_nodes)
        if bad.any():
            yield f"{at}: {end} node outside 0..{phase.n_nodes - 1} at {_places(bad)}"
    loops = edges.source == edges.target
    if loops.any():
        yield f"{at}: source and target are the same node at {_places(loops)}"
    for name in ("a", "b", "c", "k"):
        bad = ~np.isfinite(getattr(edges, name))
        if bad.any():
            yield f"{at}: parameter {name} is not finite at {_places(bad)}"
    bad = edges.phi >= len(PHI_NAMES)
    if bad.any():
        yield f"{at}: unknown law code (known: 0..{len(PHI_NAMES) - 1}) at {_places(bad)}"


def _end_problems(network: Network) -> Iterator[str]:
    for what, nodes, phase in (
        ("input", network.inputs, network.phases[0]),
        ("read-out", network.readout, network.phases[-1]),
    ):
        if nodes.size == 0:
            yield f"it has no {what} nodes"
        bad = (nodes < 1) | (nodes >= phase.n_nodes)
        if bad.any():
            yield (
                f"{what} nodes {nodes[bad][:_SHOWN].tolist()} are outside 1..{phase.n_nodes - 1} "
                "(0 is ground, which holds no value)"
            )
        if np.unique(nodes).size != nodes.size:
            yield f"{what} nodes are named twice"
    if network.phases[0].fill == "repeat" and not np.array_equal(network.inputs, 1 + np.arange(network.inputs.size)):
        yield "its first phase repeats the inputs, which must then be the nodes 1, 2, ..."
    if not np.isfinite(network.examples).all():
        yield "its example inputs are not all finite"
    names = network.node_names
    if not all(isinstance(name, str) for name in names):
        yield "node_names must be text"
    elif len(names) != network.max_nodes or len(set(names)) != len(names):
        yield f"node_names must be {network.max_nodes} different names, ground first; found {len(names)}"


def problems(network: Network) -> list[str]:
    """Every reason why ``network`` cannot be used, in words; empty when there is none."""
    found = []
    if not (isinstance(network.name, str) and _NAME.fullmatch(network.name)):
        found.append(f"its name {network.name!r:.80} must be letters, digits, _ . and -, at most 64, no _ . - first")
    if not network.phases:
        return [*found, "it has no phases"]
    found += [p for i, phase in enumerate(network.phases) for p in _phase_problems(i, phase, network.phases)]
    return found + list(_end_problems(network))


def unreachable_readout(network: Network) -> list[int]:
    """Read-out nodes whose voltage cannot depend on any input: no path of edges leads there.

    An edge carries influence from its source to both its ends where a ≠ 0, from its target where b ≠ 0.
    """
    state = network.initial_state(np.ones((1, network.inputs.size)))  # above 0 where an input has influence
    evolved: list[NDArray[np.float64]] = []
    for phase in network.phases:
        reached = carry_over(state, phase)[0] > 0
        e = phase.edges
        while True:
            before = reached.sum()
            reached[e.target[reached[e.source] & (e.a != 0) & (e.k != 0)]] = True
            reached[e.source[reached[e.target] & (e.b != 0) & (e.k != 0)]] = True
            reached[0] = False  # ground stays at 0 V
            if reached.sum() == before:
                break
        evolved.append(reached[None].astype(np.float64))
        state = settle(network, evolved)
    return [int(n) for n in network.readout if state[0, n] == 0]


def check(network: Network, where: str) -> list[str]:
    """Raise :class:`InvalidInputError` with every problem of ``network``; return the warnings that remain."""
    found = problems(network)
    if found:
        raise InvalidInputError(where, found, "Mend the network and save it again.")
    lost = unreachable_readout(network)
    return [f"no input reaches read-out node {network.node_names[n]} ({n}): its output is constant" for n in lost]
