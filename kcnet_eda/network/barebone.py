"""The barebone form: one phase, its edges given one by one.

The parameter file, ``*.pth`` or ``*.npz``, holds either ``src_node`` [E], ``des_node`` [E] and ``model.param`` (the
state_dict of the published barebone code's ``Circuit``), or ``topology`` [2, E] and ``param``. Parameters have the
shape [2, E] with ``use_diff``, i = φ(p0·(v_s − v_d) + p1), and [3, E] without, i = φ(p0·v_s + p1·v_d + p2). Beside it
lies a ``config.yaml`` with at least one of the first two of these lines:

    use_diff: false          # the default
    activation: relu         # or tanh, leakyrelu; none if absent
    t_end: [0, 1]            # the default
    inputs: 6                # nodes 1..6 hold the input, the others start at 0; all nodes if absent
    readout: last3           # or firstN, lists of such; all nodes if absent

Source: the code published with Gao, Sun, Boning, arXiv 2310.15872 (``bare/``), whose facts are kept and whose text is
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from kcnet_eda.config import Settings
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network.checkpoint import Floats
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, LEAKY_RELU, RELU, TANH, barebone_device
from kcnet_eda.network.projector import Projector, readout_nodes

_PHI = {None: IDENTITY, "relu": RELU, "tanh": TANH, "leakyrelu": LEAKY_RELU}
_MOST_NODES = 1_000_000


def rising(times: list[float]) -> list[float]:
    """``times``, if they start at 0 or later and rise strictly; raises ValueError."""
    if any(t < 0 for t in times) or any(b <= a for a, b in pairwise(times)):
        raise ValueError("times must start at 0 or later and rise strictly")
    return times


class BareboneConfig(Settings):
    """The lines of a barebone ``config.yaml``."""

    use_diff: bool = False
    activation: Literal["relu", "tanh", "leakyrelu"] | None = None
    t_end: list[float] = Field([0.0, 1.0], min_length=2, max_length=2)
    inputs: int | None = Field(None, ge=1)
    readout: Projector = ()

    _rising = field_validator("t_end")(rising)


def is_barebone(content: Mapping[str, Any]) -> bool:
    """Whether a config's content is of this form and not of the published one."""
    return bool({"use_diff", "activation"} & content.keys()) and not {"network", "simulation"} & content.keys()


def assemble(
    config: BareboneConfig, arrays: Mapping[str, Floats], inputs: int | None, name: str, where: str
) -> Network:
    """The network of a barebone config and its arrays; ``inputs`` takes precedence over the config's, and
    ``where`` names the network in errors.

    Raises
    ------
    InvalidInputError
        Arrays are missing or do not fit each other or the config; every problem is listed.
    """
    law = barebone_device(config.use_diff, _PHI[config.activation])
    ends, param, problems = _take(arrays)
    if param is not None and ends is not None and param.shape != (law.rows, ends.shape[1]):
        problems.append(
            f"the parameters have the shape {param.shape}; {ends.shape[1]} edges with use_diff "
            f"{str(config.use_diff).lower()} take {(law.rows, ends.shape[1])}"
        )
    if ends is None or param is None or problems:
        raise InvalidInputError(where, problems)
    n_nodes = int(ends.max()) + 1
    n_inputs = inputs or config.inputs or n_nodes - 1
    if n_inputs >= n_nodes:
        problems.append(f"{n_inputs} inputs for {n_nodes - 1} nodes")
    try:
        readout = readout_nodes(config.readout, n_nodes)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise InvalidInputError(where, problems)
    edges = Edges(ends[0], ends[1], *law.canonical(param), np.full(ends.shape[1], law.phi))
    duration = config.t_end[1] - config.t_end[0]
    return Network(name, (Phase(n_nodes, duration, edges),), np.arange(1, n_inputs + 1, dtype=np.int32), readout)


def _take(arrays: Mapping[str, Floats]) -> tuple[Floats | None, Floats | None, list[str]]:
    """Topology [2, E] and parameters, under either set of names, and what is wrong with them."""
    problems = []
    by_node = {"src_node", "des_node", "model.param"}
    known = by_node if by_node & arrays.keys() else {"topology", "param"}
    if missing := sorted(known - arrays.keys()):
        problems.append(f"has no {', '.join(missing)} (found: {', '.join(sorted(arrays))[:200] or 'nothing'})")
    if foreign := sorted(arrays.keys() - known):
        problems.append(f"holds {', '.join(foreign)[:200]}, which is no part of the barebone form")
    if problems:
        return None, None, problems
    if known == by_node:
        source, target, param = arrays["src_node"], arrays["des_node"], arrays["model.param"]
        if source.ndim != 1 or source.shape != target.shape:
            return None, None, [f"src_node {source.shape} and des_node {target.shape} must have one shape (E,)"]
        ends = np.stack([source, target])
    else:
        ends, param = arrays["topology"], arrays["param"]
        if ends.ndim != 2 or ends.shape[0] != 2:
            return None, None, [f"topology has the shape {ends.shape}, not (2, E)"]
    if ends.size == 0:
        problems.append("it has no edges")
    elif (ends != np.floor(ends)).any() or ends.min() < 0 or ends.max() > _MOST_NODES:
        problems.append(f"node numbers must be whole, from 0 (ground) to {_MOST_NODES:,}")
    elif ends.max() == 0:
        problems.append("all its edges end at ground")
    return ends, param, problems
