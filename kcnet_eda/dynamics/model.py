"""The network in training: its edges and what they start from, its parameters, and its states on samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kcnet_eda.dynamics.cell import Cell, cell_rate, draw_dies, heun, straight_through
from kcnet_eda.dynamics.gradient import PhaseSolver
from kcnet_eda.dynamics.torch_path import paths
from kcnet_eda.dynamics.train_settings import TopologySettings, TrainSettings
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.network import topology
from kcnet_eda.network.graph import Edges, Network, Phase
from kcnet_eda.network.laws import IDENTITY, RELU, TANH, eq6
from kcnet_eda.network.store import load_network, network_path


def classifier_topology(
    settings: TopologySettings, grid: tuple[int, int], n_outputs: int
) -> tuple[topology.Pairs, tuple[str, ...]]:
    """Edges of a phase and node names of an image classifier: ground, pixels row by row, hidden nodes, outputs."""
    rows, columns = grid
    n_pixels, n_hidden = rows * columns, settings.hidden
    pixels = np.arange(1, 1 + n_pixels)
    hidden = np.arange(1 + n_pixels, 1 + n_pixels + n_hidden)
    outputs = np.arange(1 + n_pixels + n_hidden, 1 + n_pixels + n_hidden + n_outputs)
    inward = topology.full(pixels, hidden)
    parts = [
        topology.grid_window(rows, columns, settings.window),
        topology.both_ways(inward) if settings.pixels_to_hidden == "both" else inward,
        topology.both_ways(topology.full(hidden, outputs)),
    ]
    if settings.pixels_to_outputs != "none":
        straight = topology.full(pixels, outputs)
        parts.append(topology.both_ways(straight) if settings.pixels_to_outputs == "both" else straight)
    if settings.between_hidden:
        parts.append(topology.full(hidden, hidden))
    if settings.between_outputs:
        parts.append(topology.full(outputs, outputs))
    if settings.ground:
        parts.append(topology.both_ways(topology.full([0], np.concatenate([hidden, outputs]))))
    names = (
        "gnd",
        *(f"p{r}_{c}" for r in range(rows) for c in range(columns)),
        *(f"h{i}" for i in range(n_hidden)),
        *(f"y{i}" for i in range(n_outputs)),
    )
    return topology.repeat(topology.join(*parts), settings.parallel), names


@dataclass(frozen=True)
class Start:
    """What training starts from: the edges of each phase, node names, and θ1 and θ2 of all edges, phase after phase,
    where they are not to be drawn."""

    pairs: tuple[topology.Pairs, ...]
    names: tuple[str, ...]
    theta: tuple[Tensor, Tensor] | None = None

    @property
    def n_edges(self) -> int:
        """Of all phases."""
        return sum(source.size for source, _ in self.pairs)


def read_start(name: str, n_pixels: int, n_outputs: int) -> Start:
    """The network ``name``, a file or a shipped one, as a start.

    Raises
    ------
    InvalidInputError
        It cannot be read, or is not what this module trains: phases of Eq. (6) edges between the same nodes, which are
        ground, then the pixels, and the outputs last.
    """
    network = load_network(network_path(name))
    edges, n_nodes = [p.edges for p in network.phases], network.max_nodes
    problems = []
    if any(p.n_nodes != n_nodes or p.residual_from is not None for p in network.phases):
        problems.append("has phases of different nodes, or a residual")
    if not all(((e.phi == RELU) & (e.b == -e.a) & (e.k == 1)).all() for e in edges):
        problems.append("has edges of another law than Eq. (6)")
    if not np.array_equal(network.inputs, 1 + np.arange(n_pixels)):
        problems.append(f"does not have its inputs at nodes 1 to {n_pixels}")
    if not np.array_equal(network.readout, np.arange(n_nodes - n_outputs, n_nodes)):
        problems.append(f"does not have its {n_outputs} outputs at its last nodes")
    if problems:
        raise InvalidInputError(f"start: {name}", problems, "Start from a network that kcnet train made for this data.")
    theta = tuple(torch.from_numpy(np.concatenate(p)) for p in ([e.a for e in edges], [e.c for e in edges]))
    return Start(tuple((e.source, e.target) for e in edges), network.node_names, (theta[0], theta[1]))


_PHI = {"eq6": RELU, "passive": RELU, "rc": IDENTITY, "tanh": TANH}
_CURRENT = {RELU: torch.relu, TANH: torch.tanh, IDENTITY: lambda x: x}


class Model:
    """θ1 and θ2 of every edge of all phases, and which edges are still alive.

    States are in single precision, or double where a cell replaces Eq. (6); parameters are in double.
    """

    def __init__(self, start: Start, settings: TrainSettings) -> None:
        source, target = (np.concatenate(ends).astype(np.int64) for ends in zip(*start.pairs, strict=True))
        self.source, self.target = torch.from_numpy(source), torch.from_numpy(target)
        self.phase = torch.from_numpy(np.repeat(np.arange(len(start.pairs)), [s.size for s, _ in start.pairs]))
        self.n_phases, self.n_nodes = len(start.pairs), len(start.names)
        self.settings = settings
        self.cell: Cell | None = None
        self._steps = settings.steps
        self.dies = torch.Generator().manual_seed(settings.seed + 2)
        self.degree = self._degree()
        self.parameters = [p.requires_grad_() for p in start.theta or self._random()]
        self.constrain()
        self.average = [p.detach().clone() for p in self.parameters]
        self.sensitivity = torch.zeros(len(self.source), dtype=torch.float64)
        self.keep(torch.arange(len(self.source)))

    def _degree(self) -> Tensor:
        """Of each edge: how many edges of its phase end at its busier end."""
        degree = torch.zeros(self.n_phases, self.n_nodes, dtype=torch.float64)
        for ends in (self.source, self.target):
            degree.index_put_((self.phase, ends), torch.ones(len(ends), dtype=torch.float64), accumulate=True)
        return torch.maximum(degree[self.phase, self.source], degree[self.phase, self.target])

    def _random(self) -> tuple[Tensor, ...]:
        spread = self.degree.rsqrt()
        generator = torch.Generator().manual_seed(self.settings.seed)
        return tuple(
            torch.randn(len(spread), generator=generator, dtype=torch.float64) * scale * spread
            for scale in (self.settings.init_theta1, self.settings.init_theta2)
        )

    def constrain(self) -> None:
        """Move the parameters to the nearest that the law and ``theta_limit`` allow."""
        s, (theta1, theta2) = self.settings, self.parameters
        with torch.no_grad():
            if s.law in ("passive", "rc"):
                theta1.clamp_(min=0)
            if s.law == "rc":
                theta2.zero_()
            if s.theta_limit is not None:
                for p in self.parameters:
                    p.clamp_(-s.theta_limit, s.theta_limit)

    def keep(self, alive: Tensor) -> None:
        """Let only the edges ``alive`` (their numbers) conduct from now on."""
        self.alive = alive
        self._parts = [alive[self.phase[alive] == n] for n in range(self.n_phases)]
        self.take_steps(self._steps)

    def take_steps(self, steps: int) -> None:
        """Solve each phase in as many steps from now on."""
        self._steps, backwards = steps, self.settings.gradient
        phases = self._phases(self.parameters)
        self._solvers = [PhaseSolver(phase, steps=steps, backwards=backwards) for phase in phases]

    def _phases(self, theta: list[Tensor]) -> tuple[Phase, ...]:
        duration = self.settings.duration / self.n_phases
        found = []
        for part in self._parts:
            ends = self.source[part].numpy(), self.target[part].numpy()
            law = eq6(*(p.detach()[part].numpy() for p in theta))
            found.append(
                Phase(self.n_nodes, duration, Edges(*ends, *law, np.full(len(part), _PHI[self.settings.law], np.uint8)))
            )
        return tuple(found)

    def paths(self, x: Tensor, theta: list[Tensor] | None = None) -> tuple[list[Tensor], Tensor]:
        """v [steps + 1, nodes, samples] of every phase and at the end, from pixels ``x`` [samples, pixels], by the
        parameters or by others. The parameters' edges are those of cells where a cell replaces Eq. (6)."""
        of_cells = self.cell is not None and theta is None
        v0 = torch.zeros(self.n_nodes, len(x), dtype=torch.float64 if of_cells else torch.float32)
        v0[1 : 1 + x.shape[1]] = x.T
        theta1, theta2 = self.parameters if theta is None else theta
        if of_cells:
            path = self._path_of_cells(v0, theta1[self.alive], theta2[self.alive])
            return [path], path[-1]
        if theta is None and self.settings.theta_noise:
            theta1, theta2 = (self._noisy(p) for p in (theta1, theta2))
        laws = [(theta1[p], -theta1[p], theta2[p], torch.ones(len(p), dtype=theta1.dtype)) for p in self._parts]
        return paths(self._solvers, laws, v0)

    def _noisy(self, theta: Tensor) -> Tensor:
        return theta * (
            1 + self.settings.theta_noise * torch.randn(theta.shape, generator=self.dies, dtype=theta.dtype)
        )

    def _path_of_cells(self, v0: Tensor, theta1: Tensor, theta2: Tensor) -> Tensor:
        cell = self.cell
        assert cell is not None
        near1, near2 = cell.range.nearest(theta1, theta2)
        near1, near2 = straight_through(near1, theta1), straight_through(near2, theta2)
        dies = draw_dies(cell, near1, near2, min(cell.dies, v0.shape[1]), self.dies)
        ends = tuple(e[self.alive].numpy().astype(np.uintp) for e in (self.source, self.target))
        corner = cell.corner(near1, near2)

        def slope(v: Tensor) -> Tensor:
            return cell_rate((ends[0], ends[1]), corner, dies, v, cell.lag)

        states = heun(slope, v0, self.settings.duration, self._steps)
        return torch.stack([v0, *states])

    def mean_currents(self, x: Tensor) -> Tensor:
        """Of the alive edges on samples ``x``, by their law, without sign, over samples and training steps."""
        theta1, theta2 = self.parameters
        phi = _CURRENT[_PHI[self.settings.law]]
        means = []
        with torch.no_grad():
            for part, path in zip(self._parts, self.paths(x)[0], strict=True):
                total = torch.zeros(len(part), dtype=torch.float64)
                for v in path[1:].double():
                    drop = v[self.source[part]] - v[self.target[part]]
                    total += phi(theta1[part, None] * drop + theta2[part, None]).abs().mean(dim=1)
                means.append(total / (len(path) - 1))
        return torch.cat(means)

    def prune(self, score: Tensor, keep: int) -> None:
        """Keep the ``keep`` alive edges of the highest score, one for each that is alive."""
        self.keep(self.alive[score.topk(keep).indices.sort().values])

    def update_averages(self) -> None:
        """Let the running averages of the parameters and of the sensitivities follow one step."""
        for mean, p in zip(self.average, self.parameters, strict=True):
            mean.lerp_(p.detach(), 1 - self.settings.average)
        effect = sum(p.detach() * p.grad for p in self.parameters)
        self.sensitivity.lerp_(effect.square(), 1 - self.settings.average)

    def trained(self) -> list[Tensor]:
        """θ1 and θ2 of all edges, averaged over the last steps, within the cell's range if there is a cell."""
        return self.average if self.cell is None else list(self.cell.range.nearest(*self.average))

    def network(self, names: tuple[str, ...], n_pixels: int, n_outputs: int, examples: Any) -> Network:
        """What has been trained, without a record."""
        nodes = np.arange(len(names), dtype=np.int32)
        return Network(
            self.settings.name,
            self._phases(self.trained()),
            nodes[1 : 1 + n_pixels],
            nodes[-n_outputs:],
            names,
            examples,
        )

    def state(self) -> dict[str, Any]:
        """All that training has changed, to go on from; see :meth:`restore`."""
        return {
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "sensitivity": self.sensitivity,
            "alive": self.alive,
            "dies": self.dies.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        with torch.no_grad():
            for p, was in zip(self.parameters, state["parameters"], strict=True):
                p.copy_(was)
        self.average, self.sensitivity = list(state["average"]), state["sensitivity"]
        self.dies.set_state(state["dies"])
        self.keep(state["alive"])
