"""Training a one-phase Eq. (6) classifier with torch: cross-entropy at the read-out nodes at T, AdamW, pruning.

torch is imported by this module, ``augmentation`` and ``torch_path`` alone; nothing else in the package needs it.
Source of the law: Gao, Sun, Boning, arXiv 2310.15872, Eq. (6).
"""

from __future__ import annotations

import platform
import time
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
from kcnet_eda.dynamics.solvers import rk4
from kcnet_eda.dynamics.torch_path import EdgeColumns, heun, rate
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.files import require_writable
from kcnet_eda.network import topology
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Edges, Network, Phase, labels
from kcnet_eda.network.laws import RELU, eq6
from kcnet_eda.network.store import save_network
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
    hidden: Count = 16
    pixels_to_hidden: Literal["forward", "both"] = "both"
    ground: bool = True  # ground to every hidden and output node, and back

    @model_validator(mode="after")
    def _odd(self) -> TopologySettings:
        if self.window % 2 == 0:
            raise ValueError("window must be odd")
        return self


class Pruning(Settings):
    """Edges of the least mean current are dropped, from ``begin`` to ``end`` (fractions of the epochs), until
    ``edges`` are left; the number kept falls steeply first, as the cube of what remains of the way."""

    edges: Count
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
    topology: TopologySettings = TopologySettings()
    pruning: Pruning | None = None
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
    if settings.ground:
        parts.append(topology.both_ways(topology.full([0], np.concatenate([hidden, outputs]))))
    names = (
        "gnd",
        *(f"p{r}_{c}" for r in range(rows) for c in range(columns)),
        *(f"h{i}" for i in range(n_hidden)),
        *(f"y{i}" for i in range(n_outputs)),
    )
    return topology.join(*parts), names


class _Model:
    """θ1 and θ2 of every edge of the topology, and which edges are still alive."""

    def __init__(self, pairs: topology.Pairs, n_nodes: int, settings: TrainSettings) -> None:
        self.source, self.target = (torch.from_numpy(ends.astype(np.int64)) for ends in pairs)
        self.n_nodes = n_nodes
        self.settings = settings
        degree = torch.bincount(torch.cat([self.source, self.target]), minlength=n_nodes).double()
        spread = torch.maximum(degree[self.source], degree[self.target]).rsqrt()
        generator = torch.Generator().manual_seed(settings.seed)
        self.parameters = [
            (torch.randn(len(spread), generator=generator, dtype=torch.float64) * scale * spread).requires_grad_()
            for scale in (settings.init_theta1, settings.init_theta2)
        ]
        self.average = [p.detach().clone() for p in self.parameters]
        self.keep(torch.arange(len(spread)))

    def keep(self, alive: Tensor) -> None:
        """Let only the edges ``alive`` (their numbers) conduct from now on."""
        self.alive = alive
        self._columns = EdgeColumns(self.source[alive], self.target[alive], RELU)

    def states(self, x: Tensor) -> list[Tensor]:
        """v [nodes, samples] after each training step, from pixels ``x`` [samples, pixels]."""
        v = torch.zeros(self.n_nodes, len(x), dtype=torch.float64)
        v[1 : 1 + x.shape[1]] = x.T
        theta1, theta2 = (p[self.alive] for p in self.parameters)
        law = (theta1, -theta1, theta2, torch.ones_like(theta1))
        return list(heun(lambda v: rate(self._columns, law, v), v, self.settings.duration, self.settings.steps))

    def prune(self, x: Tensor, keep: int) -> None:
        """Keep the ``keep`` alive edges that carry the largest mean current on samples ``x``."""
        with torch.no_grad():
            v = torch.cat(self.states(x), dim=1)
            theta1, theta2 = (p[self.alive] for p in self.parameters)
            drop = v[self.source[self.alive]] - v[self.target[self.alive]]
            current = torch.relu(theta1[:, None] * drop + theta2[:, None]).mean(dim=1)
        self.keep(self.alive[current.topk(keep).indices.sort().values])

    def update_average(self) -> None:
        """Let the running average of the parameters follow them one step."""
        for mean, p in zip(self.average, self.parameters, strict=True):
            mean.lerp_(p.detach(), 1 - self.settings.average)


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
            if s.pruning is not None:
                keep = _edges_kept(s.pruning, n_edges, epoch / s.epochs)
                if keep < len(model.alive):
                    model.prune(augment(x[:_SCORED], grid, s.augmentation, generator), keep)
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
                model.update_average()
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
    theta1, theta2 = (p[model.alive].numpy() for p in model.average)
    a, b, c, k = eq6(theta1, theta2)
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
    pairs, names = classifier_topology(s.topology, data.grid, n_outputs)
    if s.pruning is not None and s.pruning.edges > len(pairs[0]):
        raise InvalidInputError("pruning.edges", [f"is {s.pruning.edges}; the topology has {len(pairs[0])} edges"])
    torch.manual_seed(s.seed)
    model = _Model(pairs, len(names), s)
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
