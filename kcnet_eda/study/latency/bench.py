"""What the sections of a latency study share: the study's network as an exported bundle, and the store of its runs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda import __version__
from kcnet_eda.dynamics.reference import method
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.bundle import Bundle
from kcnet_eda.files import sha256_bytes
from kcnet_eda.network.data import DataSet
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import dump_network
from kcnet_eda.progress import Progress
from kcnet_eda.study.batch import status_of
from kcnet_eda.study.campaign.failures import DIGITS
from kcnet_eda.study.latency.settings import LatencyStudy
from kcnet_eda.study.pool import simulator_pool
from kcnet_eda.study.references import reference_states
from kcnet_eda.study.store import PlannedRun, Result, Status, Store
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.simulators import SIMULATORS

Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """One run of the store: ``words`` are all that determines it; ``make`` runs it. ``seed`` is what it draws by."""

    words: str
    sample: int
    variant: str
    simulator: str
    version: str
    make: Callable[[], Result]
    seed: int = 0

    @property
    def key(self) -> str:
        """The store's key."""
        return sha256_bytes(f"{__version__} {self.variant} {self.simulator} {self.version} {self.words}".encode())


@dataclass(frozen=True, eq=False)
class LatencyBench:
    """The study with its network as the exported ``bundle``, its ``data``, and the run folder ``out`` with its
    ``store``; ``jobs`` simulators run at once where a section has many runs of one circuit."""

    study: LatencyStudy
    bundle: Bundle
    data: DataSet
    store: Store
    out: Path
    jobs: int
    progress: Progress
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def network(self) -> Network:
        """The study's network."""
        return self.bundle.network

    @cached_property
    def x0(self) -> Floats:
        """v(0) of every sample, [n, nodes]."""
        return self.network.initial_state(self.data.x)

    @cached_property
    def v_ref(self) -> Floats:
        """The reference final states of every sample, [n, nodes]; those in the store are not solved again."""
        truth = sha256_bytes(dump_network(self.network)) + method(self.network)
        keys = [sha256_bytes(truth.encode() + x.tobytes()) for x in self.x0]
        return reference_states(self.store, keys, self.network, self.x0, self.jobs, self.progress)

    def scratch(self, variant: str, words: str) -> Path:
        """The folder of a run's deck and log, by the words that determine it; what is left of an earlier one is not in
        it any more, nor is the folder itself there."""
        folder = self.out / "work" / variant / sha256_bytes(words.encode())[:DIGITS]
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def attempt(self, tasks: Sequence[Task], what: str, at_once: int = 1) -> list[Result]:
        """The results of ``tasks``; those that passed before are taken from the store, of others ``at_once`` run beside
        each other. Those of more than one have to heed ``cancel``, which Ctrl-C sets."""
        for task in tasks:
            row = [PlannedRun(task.key, task.sample, task.variant)]
            self.store.plan(row, task.simulator, task.version, task.seed)
        due = [task for task in tasks if self.store.result(task.key).status is not Status.PASSED]
        with self.progress.stage(what, len(tasks)) as advance, simulator_pool(at_once, self.cancel) as pool:
            advance(len(tasks) - len(due))
            for task, found in zip(due, (map if at_once == 1 else pool.map)(_made, due), strict=True):
                self.store.finish(task.key, found)
                advance(1)
        return [self.store.result(task.key) for task in tasks]


def _made(task: Task) -> Result:
    try:
        return task.make()
    except KcnetError as error:
        return Result(status_of(error), str(error))


def made_by(simulator: str, level: str = "behavioral") -> Row:
    """Who made a number: level, simulator with its version, compiler."""
    return {
        "level": level,
        "simulator": simulator,
        "simulator_version": SIMULATORS[simulator].version(),
        "compiler": openvaf.version(find_openvaf()),
    }


def right_means(data: DataSet) -> str:
    """What a label is right by, in words."""
    return "the label in the data" if data.y is not None else "the label of the software at T"


def failures(tasks: Sequence[Task], results: Sequence[Result]) -> list[Row]:
    """The runs that did not pass."""
    return [
        {"run": task.variant, "sample": task.sample, "status": r.status, "message": r.message, "key": task.key}
        for task, r in zip(tasks, results, strict=True)
        if r.status is not Status.PASSED
    ]
