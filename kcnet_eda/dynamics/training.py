"""Training a one-phase Eq. (6) classifier with torch: cross-entropy at the read-out nodes at T, AdamW, pruning.

torch is imported by this module, ``augmentation``, ``cell`` and ``torch_path`` alone; nothing else needs it.
Source of the law: Gao, Sun, Boning, arXiv 2310.15872, Eq. (6).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy

from kcnet_eda import __version__
from kcnet_eda.config import Settings, load_settings
from kcnet_eda.dynamics.augmentation import Augmentation, augment
from kcnet_eda.dynamics.cell import Cell, cell_rate, draw_dies, straight_through
from kcnet_eda.dynamics.solvers import rk4
from kcnet_eda.dynamics.torch_path import EdgeColumns, heun, rate
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.files import require_writable
from kcnet_eda.network import topology
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Edges, Network, Phase, labels
from kcnet_eda.network.laws import RELU, eq6
from kcnet_eda.network.store import load_network, network_path, save_network
from kcnet_eda.progress import Progress

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

_EXAMPLES = 16  # training images kept in the network file, from which solver steps are chosen
_SCORED = 200  # training images that edges are scored on before each pruning
_CHECK_STEPS = 50  # RK4 steps of the final evaluation


class TopologySettings(Settings):
    """Pixels, hidden nodes and outputs, and what connects them. Hidden and output nodes connect both ways."""

    window: Annotated[int, Field(ge=1)] = 3  # pixel neighbourhood, odd; 1 is none
    hidden: Annotated[int, Field(ge=0)] = 16
    pixels_to_hidden: Literal["forward", "both"] = "both"
    pixels_to_outputs: Literal["none", "forward", "both"] = "none"
    between_hidden: bool = False
    between_outputs: bool = False
    ground: bool = True  # ground to every hidden and output node, and back

    @model_validator(mode="after")
    def _odd(self) -> TopologySettings:
        if self.window % 2 == 0:
            raise ValueError("window must be odd")
        return self


class Pruning(Settings):
    """The edges of the lowest score are dropped, from ``begin`` to ``end`` (fractions of the epochs), until ``edges``
    are left; the number kept falls steeply first, as the cube of what remains of the way.

    The score ``current`` is an edge's mean current. ``sensitivity`` is the mean over recent batches of the square of
    the loss's change, to first order, were the edge's current scaled to 0: θ1·∂L/∂θ1 + θ2·∂L/∂θ2 for Eq. (6).
    """

    edges: Count
    score: Literal["current", "sensitivity"] = "current"
    begin: Fraction = 0.25
    end: Fraction = 0.7

    @model_validator(mode="after")
    def _forward(self) -> Pruning:
        if self.begin >= self.end:
            raise ValueError("begin must lie before end")
        return self


class TrainSettings(Settings):
    """The whole of a ``train`` file. Voltages in model units."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    data: Literal["digits"] = "digits"
    seed: Annotated[int, Field(ge=0)]
    validation_fraction: Fraction = 0.0  # held out of the training set, never of the test set
    start: str | None = None  # a network file, or the name of a shipped one, to train on from: its edges, its θ
    topology: TopologySettings = TopologySettings()
    pruning: Pruning | None = None
    cell: Cell | None = None
    duration: Positive = 1.0  # T
    steps: Count = 5  # Heun steps over T while training
    epochs: Count = 100
    batch: Count = 128
    learning_rate: Positive = 0.04  # peak of a one-cycle schedule
    weight_decay: NotNegative = 0.05
    gradient_clip: Positive = 1.0
    init_theta1: Positive = 0.6  # standard deviation over 1/sqrt(edges at the busier end)
    init_theta2: Positive = 0.1
    logit_gain: Positive = 8.0  # cross-entropy sees gain · v(T): outputs need not swing far
    voltage_limit: Positive = 1.3
    voltage_penalty: NotNegative = 10.0  # of the squares of what lies beyond the limit, summed over nodes and steps
    average: Fraction = 0.98  # share of the running average of the parameters that is kept, a step
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _agree(self) -> TrainSettings:
        if self.pruning is not None and self.pruning.end * self.epochs > self.epochs - 1:
            raise ValueError(f"pruning.end is {self.pruning.end}, and no epoch begins between that and the end")
        if self.start is not None and "topology" in self.model_fields_set:
            raise ValueError("start and topology exclude each other: the start brings its edges")
        return self


def classifier_topology(
    settings: TopologySettings, grid: tuple[int, int], n_outputs: int
) -> tuple[topology.Pairs, tuple[str, ...]]:
    """Edges and node names of an image classifier: ground, pixels row by row, hidden nodes, outputs."""
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
    return topology.join(*parts), names


@dataclass(frozen=True)
class Start:
    """What training starts from: edges, node names, and θ1 and θ2 of the edges where they are not to be drawn."""

    pairs: topology.Pairs
    names: tuple[str, ...]
    theta: tuple[Tensor, Tensor] | None = None


def read_start(name: str, n_pixels: int, n_outputs: int) -> Start:
    """The network ``name``, a file or a shipped one, as a start.

    Raises
    ------
    InvalidInputError
        It cannot be read, or is not what this module trains: one phase of Eq. (6) edges whose nodes are ground, then
        the pixels, and the outputs last.
    """
    network = load_network(network_path(name))
    edges, n_nodes = network.phases[0].edges, network.max_nodes
    problems = []
    if len(network.phases) != 1:
        problems.append(f"has {len(network.phases)} phases, not one")
    if not ((edges.phi == RELU) & (edges.b == -edges.a) & (edges.k == 1)).all():
        problems.append("has edges of another law than Eq. (6)")
    if not np.array_equal(network.inputs, 1 + np.arange(n_pixels)):
        problems.append(f"does not have its inputs at nodes 1 to {n_pixels}")
    if not np.array_equal(network.readout, np.arange(n_nodes - n_outputs, n_nodes)):
        problems.append(f"does not have its {n_outputs} outputs at its last nodes")
    if problems:
        raise InvalidInputError(f"start: {name}", problems, "Start from a network that kcnet train made for this data.")
    theta = torch.from_numpy(edges.a.copy()), torch.from_numpy(edges.c.copy())
    return Start((edges.source, edges.target), network.node_names, theta)


class _Model:
    """θ1 and θ2 of every edge of the topology, and which edges are still alive."""

    def __init__(self, start: Start, settings: TrainSettings) -> None:
        self.source, self.target = (torch.from_numpy(ends.astype(np.int64)) for ends in start.pairs)
        self.n_nodes = len(start.names)
        self.settings = settings
        self.cell: Cell | None = None
        self.dies = torch.Generator().manual_seed(settings.seed + 2)
        self.parameters = [p.requires_grad_() for p in start.theta or self._random()]
        self.average = [p.detach().clone() for p in self.parameters]
        self.sensitivity = torch.zeros(len(self.source), dtype=torch.float64)
        self.keep(torch.arange(len(self.source)))

    def _random(self) -> tuple[Tensor, ...]:
        degree = torch.bincount(torch.cat([self.source, self.target]), minlength=self.n_nodes).double()
        spread = torch.maximum(degree[self.source], degree[self.target]).rsqrt()
        generator = torch.Generator().manual_seed(self.settings.seed)
        return tuple(
            torch.randn(len(spread), generator=generator, dtype=torch.float64) * scale * spread
            for scale in (self.settings.init_theta1, self.settings.init_theta2)
        )

    def keep(self, alive: Tensor) -> None:
        """Let only the edges ``alive`` (their numbers) conduct from now on."""
        self.alive = alive
        self._columns = EdgeColumns(self.source[alive], self.target[alive], RELU)

    def _slope(self, samples: int) -> Callable[[Tensor], Tensor]:
        theta1, theta2 = (p[self.alive] for p in self.parameters)
        columns, cell = self._columns, self.cell
        if cell is None:
            law = (theta1, -theta1, theta2, torch.ones_like(theta1))
            return lambda v: rate(columns, law, v)
        near1, near2 = cell.range.nearest(theta1, theta2)
        near1, near2 = straight_through(near1, theta1), straight_through(near2, theta2)
        dies = draw_dies(cell, near1, near2, min(cell.dies, samples), self.dies)
        return lambda v: cell_rate(columns, cell, dies, v)

    def states(self, x: Tensor) -> list[Tensor]:
        """v [nodes, samples] after each training step, from pixels ``x`` [samples, pixels]."""
        v = torch.zeros(self.n_nodes, len(x), dtype=torch.float64)
        v[1 : 1 + x.shape[1]] = x.T
        return list(heun(self._slope(len(x)), v, self.settings.duration, self.settings.steps))

    def mean_currents(self, x: Tensor) -> Tensor:
        """Of the alive edges on samples ``x``, by Eq. (6), over samples and training steps."""
        with torch.no_grad():
            v = torch.cat(self.states(x), dim=1)
            theta1, theta2 = (p[self.alive] for p in self.parameters)
            drop = v[self.source[self.alive]] - v[self.target[self.alive]]
            return torch.relu(theta1[:, None] * drop + theta2[:, None]).mean(dim=1)

    def prune(self, score: Tensor, keep: int) -> None:
        """Keep the ``keep`` alive edges of the highest score, one for each that is alive."""
        self.keep(self.alive[score.topk(keep).indices.sort().values])

    def update_averages(self) -> None:
        """Let the running averages of the parameters and of the sensitivities follow one step."""
        for mean, p in zip(self.average, self.parameters, strict=True):
            mean.lerp_(p.detach(), 1 - self.settings.average)
        effect = sum(p.detach() * p.grad for p in self.parameters)
        self.sensitivity.lerp_(effect.square(), 1 - self.settings.average)

    def trained(self) -> tuple[Tensor, Tensor]:
        """θ1 and θ2 of the alive edges, averaged over the last steps, within the cell's range if there is a cell."""
        theta1, theta2 = (p[self.alive] for p in self.average)
        return (theta1, theta2) if self.cell is None else self.cell.range.nearest(theta1, theta2)


def _edges_kept(pruning: Pruning, n_edges: int, done: float) -> int:
    way = min(1.0, max(0.0, (done - pruning.begin) / (pruning.end - pruning.begin)))
    return int(pruning.edges + (n_edges - pruning.edges) * (1 - way) ** 3)


def _fit(model: _Model, x: Tensor, y: Tensor, grid: tuple[int, int], outputs: slice, progress: Progress) -> float:
    """Train in place; return the last epoch's mean loss."""
    s = model.settings
    n_edges, batches = len(model.source), -(-len(x) // s.batch)
    generator = torch.Generator().manual_seed(s.seed + 1)
    optimiser = torch.optim.AdamW(model.parameters, lr=s.learning_rate, weight_decay=s.weight_decay, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, s.learning_rate, total_steps=s.epochs * batches, pct_start=0.2
    )
    mean_loss = float("nan")
    with progress.stage("training epochs", s.epochs) as advance:
        for epoch in range(s.epochs):
            if s.cell is not None and epoch >= s.cell.begin * s.epochs:
                model.cell = s.cell
            if s.pruning is not None:
                keep = _edges_kept(s.pruning, n_edges, epoch / s.epochs)
                if keep < len(model.alive):
                    if s.pruning.score == "current":
                        score = model.mean_currents(augment(x[:_SCORED], grid, s.augmentation, generator))
                    else:
                        score = model.sensitivity[model.alive]
                    model.prune(score, keep)
            total = 0.0
            for rows in torch.split(torch.randperm(len(x), generator=generator), s.batch):
                states = torch.stack(model.states(augment(x[rows], grid, s.augmentation, generator)))
                beyond = torch.relu(states.abs() - s.voltage_limit).square().sum(dim=(0, 1)).mean()
                loss = cross_entropy(s.logit_gain * states[-1, outputs].T, y[rows]) + s.voltage_penalty * beyond
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(model.parameters, s.gradient_clip)
                optimiser.step()
                schedule.step()
                model.update_averages()
                total += float(loss.detach()) * len(rows)
            mean_loss = total / len(x)
            if not np.isfinite(mean_loss):
                raise KcnetError(
                    f"training diverged in epoch {epoch + 1}: the loss is {mean_loss}. Lower "
                    "learning_rate or init_theta1."
                )
            advance(1)
    return mean_loss


def _network(model: _Model, names: tuple[str, ...], n_pixels: int, n_outputs: int, examples: np.ndarray) -> Network:
    theta1, theta2 = model.trained()
    a, b, c, k = eq6(theta1.numpy(), theta2.numpy())
    source, target = model.source[model.alive].numpy(), model.target[model.alive].numpy()
    edges = Edges(source, target, a, b, c, k, np.full(source.size, RELU, np.uint8))
    nodes = np.arange(len(names), dtype=np.int32)
    return Network(
        model.settings.name,
        (Phase(len(names), model.settings.duration, edges),),
        nodes[1 : 1 + n_pixels],
        nodes[-n_outputs:],
        names,
        examples,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's operations here are small: threads that wait for the next one cost ten times the work on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(s: TrainSettings, data: DataSet, progress: Progress) -> tuple[Network, float]:
    """Train a network on labelled images; returns it, without a record, and the last epoch's mean loss.

    Raises
    ------
    InvalidInputError
        The data are not labelled images, or pruning is to leave more edges than there are.
    KcnetError
        Training diverged.
    """
    if data.grid is None or data.y is None:
        raise InvalidInputError(data.name, ["training needs images with labels"])
    n_outputs = int(data.y.max()) + 1
    if s.start is None:
        start = Start(*classifier_topology(s.topology, data.grid, n_outputs))
    else:
        start = read_start(s.start, data.x.shape[1], n_outputs)
    names, n_edges = start.names, len(start.pairs[0])
    if s.pruning is not None and s.pruning.edges > n_edges:
        raise InvalidInputError("pruning.edges", [f"is {s.pruning.edges}; the topology has {n_edges} edges"])
    torch.manual_seed(s.seed)
    model = _Model(start, s)
    with _one_thread():
        loss = _fit(
            model,
            torch.from_numpy(data.x),
            torch.from_numpy(data.y),
            data.grid,
            slice(len(names) - n_outputs, len(names)),
            progress,
        )
    return _network(model, names, data.x.shape[1], n_outputs, data.x[:_EXAMPLES]), loss


def evaluate(network: Network, data: DataSet) -> tuple[float, float]:
    """Accuracy and the largest |v| at any step of an RK4 solution, in model units."""
    largest, v = 0.0, np.empty((0, 0))
    for _, _, v in rk4(network, network.initial_state(data.x), _CHECK_STEPS):
        largest = max(largest, float(np.abs(v).max()))
    return float((labels(network, v.T) == data.y).mean()), largest


def _split(data: DataSet, fraction: float, seed: int) -> tuple[DataSet, DataSet | None]:
    """Hold a stratified ``fraction`` of the training set out for validation."""
    if fraction == 0:
        return data, None
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(np.arange(len(data)), test_size=fraction, stratify=data.y, random_state=seed)
    return data.rows(np.sort(kept), f"{data.name}, kept"), data.rows(np.sort(held), f"{data.name}, held out")


def train(config: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Train as the YAML file ``config`` says and write the network, with its training record, to ``out``.

    Returns the record. The test set is looked at once, after all is fixed, for the record.

    Raises
    ------
    InvalidInputError
        The settings cannot be used.
    KcnetError
        Training diverged, or ``out`` could not be written.
    """
    s = load_settings(config, TrainSettings)
    # What minutes of training made is neither lost to a wrong place nor written over another network.
    if out.suffix != ".kcnet":
        raise InvalidInputError(f"--out {out}", ["a network file is called *.kcnet"])
    if out.exists():
        raise InvalidInputError(f"--out {out}", ["exists"], "Name another file, or remove this one yourself.")
    require_writable(out.parent)
    started = time.monotonic()
    data, held = _split(load_data(f"{s.data}:train"), s.validation_fraction, s.seed)
    network, loss = fit(s, data, progress)
    train_accuracy, largest = evaluate(network, data)
    test_accuracy, test_largest = evaluate(network, load_data(f"{s.data}:test"))
    record: dict[str, Any] = {
        "settings": s.model_dump(mode="json"),
        "result": {
            "edges": network.n_edges,
            "last_loss": loss,
            "train_accuracy": train_accuracy,
            "train_images": len(data),
            "validation_accuracy": None if held is None else evaluate(network, held)[0],
            "test_accuracy": test_accuracy,
            "largest_voltage": max(largest, test_largest),
        },
        "made_with": {
            "kcnet_eda": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "wall_s": round(time.monotonic() - started, 1),
        },
    }
    save_network(
        Network(
            network.name, network.phases, network.inputs, network.readout, network.node_names, network.examples, record
        ),
        out,
    )
    return record
