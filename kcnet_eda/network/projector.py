"""Published projectors, as far as they choose nodes: ``lastN``, ``firstN`` and lists of them."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator

from kcnet_eda.network.graph import Ints


def _parse(value: object) -> tuple[tuple[str, int], ...]:
    steps = []
    for word in value if isinstance(value, list) else [value]:
        if word is None or word == "none":
            continue
        found = re.fullmatch(r"(last|first)([1-9]\d{0,8})", word) if isinstance(word, str) else None
        if found is None:
            raise ValueError(_why_not(str(word)))
        steps.append((found[1], int(found[2])))
    return tuple(steps)


def _why_not(word: str) -> str:
    if re.fullmatch(r"mlp_\d+_\d+", word):
        return f"the projector {word[:40]} is a trained layer outside the circuit; a circuit ends at its nodes"
    if re.fullmatch(r"reshape\d+", word):
        return f"the projector {word[:40]} mixes samples and nodes, which no circuit can"
    return f"{word[:40]!r} is no projector (known: none, lastN and firstN with N of at least 1, lists of them)"


#: The steps of a projector in turn: ``("last" | "first", N)``; none at all reads out every node.
Projector = Annotated[tuple[tuple[str, int], ...], BeforeValidator(_parse)]


def readout_nodes(projector: Projector, n_nodes: int) -> Ints:
    """The nodes, ascending, that ``projector`` keeps of the nodes 1 .. ``n_nodes`` − 1.

    Raises
    ------
    ValueError
        It asks for more nodes than there are.
    """
    nodes = np.arange(1, n_nodes, dtype=np.int32)
    for end, count in projector:
        if count > nodes.size:
            raise ValueError(f"the projector {end}{count} asks for {count} of {nodes.size} nodes")
        nodes = nodes[-count:] if end == "last" else nodes[:count]
    return nodes
