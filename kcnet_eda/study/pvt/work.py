"""What workers do in a study over conditions and dies: a block of dies in the fast engine, a case in ngspice."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import ToolFailedError
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.study.campaign.ladder import climb
from kcnet_eda.study.pvt.conditions import Point
from kcnet_eda.study.pvt.dies import Dies
from kcnet_eda.study.pvt.repeat import Case, Level
from kcnet_eda.study.pvt.settings import PvtStudy
from kcnet_eda.study.readout import lost_to_jitter, room
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_STEPS = 100  # of the engine where a case is held against it
SOFTWARE_STEPS = 200  # of RK4 in double precision, for the labels of the network as trained


@dataclass(frozen=True)
class Block:
    """A row of the store: some dies at one condition, by number."""

    condition: int
    dies: range


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of each die at each point, or of the dies of a block, [..., dies]: how many samples are right, are
    not finite, and have the label of the software; and the median over samples of the right output's lead over the
    largest other [V_u], −inf where most are not finite."""

    right: Floats
    not_finite: Floats
    agree: Floats
    margin: Floats

    @classmethod
    def zeros(cls, points: int, dies: int) -> Outcome:
        """One to be filled."""
        return cls(*np.zeros((len(fields(cls)), points, dies)))

    @property
    def arrays(self) -> Floats:
        """All of it, [4, ..., dies]."""
        return np.stack([getattr(self, f.name) for f in fields(self)])

    def put(self, block: Block, values: Floats) -> None:
        """Fill in a block from :attr:`arrays` of it, flat."""
        columns = slice(block.dies.start, block.dies.stop)
        for f, row in zip(fields(self), values.reshape(len(fields(self)), -1), strict=True):
            getattr(self, f.name)[block.condition, columns] = row


@dataclass(frozen=True, eq=False)
class Shared:
    """What all runs of a study have in common: the ``points`` of its grid, samples as they are to be written ``x0``
    [samples, nodes], labels ``y`` and those of the software [samples]."""

    study: PvtStudy
    dies: Dies
    points: Sequence[Point]
    scaling: Scaling
    x0: Floats
    y: NDArray[np.int64]
    software: NDArray[np.int64]

    @property
    def network(self) -> Network:
        """The network as trained."""
        return self.dies.cells.network

    def start(self, point: Point, dies: Sequence[int]) -> Floats:
        """Initial states as written at ``point``: [samples, nodes], or [dies, samples, nodes] where there are errors.
        σ apart they are the same errors at every point."""
        if point.write_error == 0:
            return self.x0
        sigma = point.write_error / self.scaling.v_unit
        shape = self.x0.shape if self.study.write_error_of == "sample" else self.x0.shape[1:]
        return np.stack([self.x0 + sigma * self.dies.written(die, shape) for die in dies])

    def v0(self, case: Case) -> Floats:
        """The initial state [nodes] of a case; the nominal die is written without error."""
        point = self.points[case.condition]
        if case.die < 0 or point.write_error == 0:
            return np.asarray(self.x0[case.sample])
        return np.asarray(self.start(point, [case.die])[0, case.sample])

    def engine(self, level: Level, case: Case, steps: int) -> Floats:
        """The final state [nodes] of a case by the engine, on the edges that ``level`` has."""
        v = self.dies.evolve(level.edges(case), self.v0(case)[None], steps, 1)
        return np.asarray(v[0, :, 0], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Repeat:
    """What the cases repeated at a level have in common; ``simulator_version`` is the ngspice they are planned for."""

    shared: Shared
    level: Level
    simulator_version: str


def run_block(shared: Shared, block: Block, threads: int = 1) -> Result:
    """The :class:`Outcome` of a block of dies: ``v_end`` [4 · dies]."""
    begun = time.monotonic()
    point, steps = shared.points[block.condition], shared.study.steps
    edges, x0 = shared.dies.edges(block.condition, block.dies), shared.start(point, block.dies)
    if point.jitter == 0:
        v = shared.dies.evolve(edges, x0, steps, threads)
        found = _outcome(v, shared, lambda right: np.zeros(len(right)))
    else:
        z = np.stack([shared.dies.read(die, len(shared.y)) for die in block.dies])
        step, sigma = shared.network.phases[0].duration / steps, point.jitter / shared.scaling.t_unit
        beyond = min(steps, max(0, math.ceil(sigma * float(z.max()) / step)) + 1)
        v, outputs = shared.dies.watch(edges, x0, steps, beyond, threads)
        time_ = np.linspace(0.0, step * (steps + beyond), steps + beyond + 1)
        rooms = [room(time_, seen, steps) for seen in outputs]
        found = _outcome(v, shared, lambda right: _lost(rooms, right, sigma, z))
    return Result(Status.PASSED, "", time.monotonic() - begun, 0, found.arrays.ravel())


def block_on_worker(shared: Shared, block: Block, scratch: Path) -> Result:
    """:func:`run_block` as a campaign's work."""
    return run_block(shared, block)


def require_version(planned: str) -> None:
    """Refuse to run what was ``planned`` for another ngspice than this worker's."""
    if NGSPICE.version() != planned:
        here = f"{socket.gethostname()} has {NGSPICE.version()}"
        raise ToolFailedError(f"{here}, the campaign was planned for {planned}")


def case_on_worker(repeat: Repeat, case: Case, scratch: Path) -> Result:
    """A case in ngspice, along the ladder of solver options; as a campaign's work.

    A result that is complete and wrong would pass every test of its file, so each is held against the engine, for the
    same die; beyond the level's bound it is bad data that disagrees.
    """
    require_version(repeat.simulator_version)
    shared, level = repeat.shared, repeat.level
    engine, v0 = shared.engine(level, case, _STEPS), shared.v0(case)

    def attempt(settings: SolverSettings, folder: Path) -> Result:
        result = level.run(case, v0, settings, folder, shared.study.timeout_s)
        return result if result.v_end is None else _held(result, engine, level.bound)

    result = climb(level.settings, attempt, scratch)
    if result.v_end is None:
        return result
    label = int(np.argmax(result.v_end[shared.network.readout]))
    return replace(result, label=label, correct=bool(label == shared.y[case.sample]))


def _held(result: Result, engine: Floats, bound: float | None) -> Result:
    """``result`` with its difference from the engine's final state; no passed one where that is beyond ``bound``."""
    assert result.v_end is not None
    difference = np.abs(result.v_end - engine)
    error = float(difference.max() / max(float(np.ptp(engine)), np.finfo(float).tiny))
    if bound is None or error <= bound:
        return replace(result, error=error)
    where = f"node {int(difference.argmax())} by {error:.2g} of the range (at most {bound:g} is possible)"
    return Result(
        Status.BAD_DATA, f"the final voltages disagree with the engine's, {where}", result.wall_s, result.peak_kib
    )


def _outcome(v: NDArray[np.floating], shared: Shared, lost: Callable[[NDArray[np.bool_]], Floats]) -> Outcome:
    """The outcome of dies whose final states are ``v`` [dies, nodes, samples]; ``lost`` says how many of labels
    [dies, samples] that are good at T do not stand when they are read. What is not finite is wrong."""
    finite, outputs = np.isfinite(v).all(axis=1), v[:, shared.network.readout]
    label = outputs.argmax(axis=1)
    right, agree = (label == shared.y) & finite, (label == shared.software) & finite
    at = np.broadcast_to(shared.y[None, None], (len(v), 1, v.shape[2]))
    wanted = np.take_along_axis(outputs, at, axis=1)[:, 0].astype(np.float64)
    np.put_along_axis(outputs, at, -np.inf, axis=1)
    lead = np.where(finite, wanted - outputs.max(axis=1), -np.inf)
    # of an even number of samples the lower of the two in the middle: half of the samples lead by no less
    middle = (lead.shape[1] - 1) // 2
    return Outcome(
        right.sum(axis=1) - lost(right),
        (~finite).sum(axis=1).astype(np.float64),
        agree.sum(axis=1) - lost(agree),
        np.partition(lead, middle, axis=1)[:, middle],
    )


def _lost(rooms: Sequence[tuple[Floats, Floats]], good: NDArray[np.bool_], sigma: float, z: Floats) -> Floats:
    """How many labels of each die that are ``good`` [dies, samples] at T do not stand when they are read: each is read
    once, off by ``sigma`` [T_u] times ``z``."""
    n = good.shape[1]
    shares = [lost_to_jitter(*rooms[i], good[i], n, sigma, z[i : i + 1]) for i in range(len(good))]
    return np.asarray(np.rint(n * np.array(shares)))
