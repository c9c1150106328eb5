"""Training an Eq. (6) classifier with torch: cross-entropy at the read-out nodes at T, AdamW, pruning.

torch is imported by this module and by ``train_settings``, ``model``, ``checkpoint``, ``augmentation``, ``cell`` and
``torch_path`` alone; nothing else needs it. Source of the law: Gao, Sun, Boning, arXiv 2310.15872, Eq. (6).
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kcnet_eda import __version__
from kcnet_eda.config import load_settings
from kcnet_eda.dynamics.augmentation import augment
from kcnet_eda.dynamics.checkpoint import Checkpoint, digest
from kcnet_eda.dynamics.engine import evolve
from kcnet_eda.dynamics.model import Model, Start, classifier_topology, read_start
from kcnet_eda.dynamics.train_settings import TrainSettings
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.files import require_writable
from kcnet_eda.network.data import DataSet, load_data
from kcnet_eda.network.graph import Network, labels
from kcnet_eda.network.store import save_network
from kcnet_eda.progress import Progress

_EXAMPLES = 16  # training images kept in the network file, from which solver steps are chosen
_SCORED = 200  # training images that edges are scored on before each pruning
_VALIDATED = 1024  # images at once


class _Fit:
    """A training on its way: the model, its optimiser and schedule, its random numbers, and what has been reached."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, grid: tuple[int, int]) -> None:
        s = model.settings
        self.model, self.x, self.y, self.grid = model, x, y, grid
        self.outputs = slice(model.n_nodes - int(y.max()) - 1, model.n_nodes)
        self.generator = torch.Generator().manual_seed(s.seed + 1)
        self.optimiser = torch.optim.AdamW(
            model.parameters, lr=s.learning_rate, weight_decay=s.weight_decay, betas=(0.9, 0.99)
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, s.learning_rate, total_steps=s.epochs * -(-len(x) // s.batch), pct_start=0.2
        )
        self.share = (model.degree.min() / model.degree) ** s.step_by_degree  # of each edge, of the optimiser's steps
        self.epochs: list[dict[str, float]] = []  # what each has reached
        self.best: dict[str, Any] | None = None  # of those that validated best: epoch, edges and averages
        self.wall_s = 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.model.state(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "epochs": self.epochs,
            "best": self.best,
            "wall_s": self.wall_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.model.restore(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.epochs, self.best, self.wall_s = state["epochs"], state["best"], state["wall_s"]
        self._enter(len(self.epochs) - 1)

    def _enter(self, epoch: int) -> None:
        s = self.model.settings
        if s.cell is not None and epoch >= s.cell.begin * s.epochs:
            self.model.cell = s.cell
        if s.refinement is not None and epoch >= s.refinement.begin * s.epochs:
            self.model.take_steps(s.refinement.steps)

    def train_epoch(self) -> None:
        """Prune as is due, then show every training image once."""
        s, model, epoch = self.model.settings, self.model, len(self.epochs)
        self._enter(epoch)
        if s.pruning is not None:
            keep = s.pruning.kept(len(model.source), epoch / s.epochs)
            if keep < len(model.alive):
                if s.pruning.score == "current":
                    score = model.mean_currents(augment(self.x[:_SCORED], self.grid, s.augmentation, self.generator))
                else:
                    score = model.sensitivity[model.alive]
                model.prune(score, keep)
        total = 0.0
        for rows in torch.split(torch.randperm(len(self.x), generator=self.generator), s.batch):
            paths, end = model.paths(augment(self.x[rows], self.grid, s.augmentation, self.generator))
            beyond = sum(torch.relu(path[1:].abs() - s.voltage_limit).square().sum(dim=(0, 1)).mean() for path in paths)
            loss = cross_entropy(s.logit_gain * end[self.outputs].T, self.y[rows]) + s.voltage_penalty * beyond
            self.optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters, s.gradient_clip)
            before = [p.detach().clone() for p in model.parameters]
            self.optimiser.step()
            self.schedule.step()
            for p, was in zip(model.parameters, before, strict=True):
                p.data = torch.lerp(was, p.detach(), self.share)
            model.constrain()
            model.update_averages()
            total += float(loss.detach()) * len(rows)
        self.epochs.append({"loss": total / len(self.x)})
        if not math.isfinite(total):
            raise KcnetError(
                f"training diverged in epoch {epoch + 1}: the loss is {total}. Lower learning_rate or init_theta1."
            )

    def validate(self, x: Tensor, y: Tensor) -> None:
        """Judge the averaged parameters on images that training does not see, and keep the best."""
        s, theta = self.model.settings, self.model.trained()
        with torch.no_grad():
            ends = [self.model.paths(part, theta)[1][self.outputs].T for part in torch.split(x, _VALIDATED)]
        logits = s.logit_gain * torch.cat(ends)
        epoch = self.epochs[-1]
        epoch["validation_loss"] = float(cross_entropy(logits, y))
        epoch["validation_accuracy"] = float((logits.argmax(dim=1) == y).double().mean())
        score = [epoch["validation_accuracy"], -epoch["validation_loss"]]
        number = len(self.epochs) - 1
        if s.patience is not None and s.settled(number) and (self.best is None or score > self.best["score"]):
            self.best = {
                "epoch": number,
                "score": score,
                "average": [p.clone() for p in self.model.average],
                "alive": self.model.alive,
            }

    @property
    def ended(self) -> bool:
        """All epochs are done, or the last of them validated no better."""
        s = self.model.settings
        waited = 0 if self.best is None else len(self.epochs) - 1 - self.best["epoch"]
        return len(self.epochs) >= s.epochs or (s.patience is not None and waited >= s.patience)

    def take_best(self) -> None:
        """Let the model be what validated best, where that was kept."""
        if self.best is not None:
            self.model.average = self.best["average"]
            self.model.keep(self.best["alive"])

    def note(self) -> str:
        """The last epoch in a few words."""
        epoch = self.epochs[-1]
        said = f"loss {epoch['loss']:.4f}"
        if "validation_accuracy" in epoch:
            said += f", validation {100 * epoch['validation_accuracy']:.2f} %"
        return said


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's operations here are small: threads that wait for the next one cost ten times the work on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    s: TrainSettings,
    data: DataSet,
    progress: Progress,
    *,
    held: DataSet | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
) -> tuple[Network, dict[str, Any]]:
    """Train a network on labelled images, judging each epoch by those ``held`` out; returns it, without a record, and
    how it went: the list ``epochs`` (of each the loss and what validation found), the number of the ``epoch`` that was
    kept (from 1), and the seconds ``wall_s``. After each epoch a ``checkpoint`` is written; to ``resume`` is to go on
    from it, with the same result as without the interruption.

    Raises
    ------
    InvalidInputError
        The data are not labelled images, pruning is to leave more edges than there are, or the checkpoint cannot be
        resumed from.
    KcnetError
        Training diverged, or the checkpoint could not be written.
    """
    if data.grid is None or data.y is None:
        raise InvalidInputError(data.name, ["training needs images with labels"])
    n_outputs = int(data.y.max()) + 1
    if s.start is None:
        pairs, names = classifier_topology(s.topology, data.grid, n_outputs)
        start = Start((pairs,) * s.topology.phases, names)
    else:
        start = read_start(s.start, data.x.shape[1], n_outputs)
    if s.pruning is not None and s.pruning.edges > start.n_edges:
        raise InvalidInputError("pruning.edges", [f"is {s.pruning.edges}; the topology has {start.n_edges} edges"])
    model = Model(start, s)
    way = _Fit(model, *_tensors(data), data.grid)
    if checkpoint is not None and resume:
        way.restore(checkpoint.load())
    before, began = way.wall_s, time.monotonic()
    with _one_thread(), progress.stage("training epochs", s.epochs) as advance:
        advance(len(way.epochs))
        while not way.ended:
            way.train_epoch()
            if held is not None:
                way.validate(*_tensors(held))
            way.wall_s = before + time.monotonic() - began
            if checkpoint is not None:
                checkpoint.save(way.state())
            advance(1, way.note())
    way.take_best()
    network = model.network(start.names, data.x.shape[1], n_outputs, data.x[:_EXAMPLES])
    kept = len(way.epochs) if way.best is None else way.best["epoch"] + 1
    return network, {"epochs": way.epochs, "epoch": kept, "wall_s": way.wall_s}


def _tensors(data: DataSet) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(data.x.astype(np.float32)), torch.from_numpy(data.y)


def evaluate(network: Network, data: DataSet) -> tuple[float, float]:
    """Accuracy and the largest |v| at any step of the fast engine's solution, in model units."""
    found = evolve(network, network.initial_state(data.x))
    largest = max(abs(reach[np.isfinite(reach)]).max() for reach in (found.low, found.high))
    return float((labels(network, found.v_end) == data.y).mean()), float(largest)


def _split(data: DataSet, fraction: float, seed: int) -> tuple[DataSet, DataSet | None]:
    """Hold a stratified ``fraction`` of the training set out for validation."""
    if fraction == 0:
        return data, None
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(np.arange(len(data)), test_size=fraction, stratify=data.y, random_state=seed)
    return data.rows(np.sort(kept), f"{data.name}, kept"), data.rows(np.sort(held), f"{data.name}, held out")


def train(
    config: Path, out: Path, progress: Progress, *, data_dir: Path | None = None, resume: bool = False
) -> dict[str, Any]:
    """Train as the YAML file ``config`` says and write the network, with its training record, to ``out``.

    ``data_dir`` (None: ``$KCNET_DATA``) has the files of data that do not ship. After each epoch the training is saved
    in ``out``'s name with ``.checkpoint``, from which ``resume`` goes on; the file is removed when ``out`` is written.

    Returns the record. The test set is looked at once, after all is fixed, for the record.

    Raises
    ------
    InvalidInputError
        The settings cannot be used, data are missing, or there is a checkpoint where none should be or none where one
        should.
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
    whole, test = (load_data(f"{s.data}:{part}", data_dir) for part in ("train", "test"))
    data, held = _split(whole, s.validation_fraction, s.seed)
    checkpoint = Checkpoint(out.with_suffix(".checkpoint"), s.model_dump(mode="json"), digest(whole))
    if not resume:
        checkpoint.require_absent()
    network, way = fit(s, data, progress, held=held, checkpoint=checkpoint, resume=resume)
    train_accuracy, largest = evaluate(network, data)
    test_accuracy, test_largest = evaluate(network, test)
    record: dict[str, Any] = {
        "settings": s.model_dump(mode="json"),
        "result": {
            "edges": network.n_edges,
            "epoch": way["epoch"],
            "last_loss": way["epochs"][-1]["loss"],
            "train_accuracy": train_accuracy,
            "train_images": len(data),
            "validation_accuracy": None if held is None else evaluate(network, held)[0],
            "test_accuracy": test_accuracy,
            "largest_voltage": max(largest, test_largest),
        },
        "epochs": way["epochs"],
        "made_with": {
            "kcnet_eda": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "wall_s": round(way["wall_s"], 1),
        },
    }
    save_network(replace(network, record=record), out)
    checkpoint.remove()
    return record
