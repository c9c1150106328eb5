"""What workers do in a study over conditions and dies: a block of dies in the fast engine, a case in ngspice."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import ToolFailedError
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.network.graph import Network
from kcnet_eda.study.dies import Dies
from kcnet_eda.study.ladder import climb
from kcnet_eda.study.pvt_repeat import Case, Level
from kcnet_eda.study.pvt_settings import PvtStudy
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_STEPS = 100  # of the engine where a case is held against it


@dataclass(frozen=True)
class Block:
    """A row of the store: some dies at one condition, by number."""

    condition: int
    dies: range


@dataclass(frozen=True, eq=False)
class Shared:
    """What all runs of a study have in common: ``x0`` [samples, nodes] and labels ``y``."""

    study: PvtStudy
    dies: Dies
    x0: Floats
    y: NDArray[np.int64]

    @property
    def network(self) -> Network:
        """The network as trained."""
        return self.dies.cells.network

    def engine(self, level: Level, case: Case, steps: int) -> Floats:
        """The final state [nodes] of a case by the engine, on the edges that ``level`` has."""
        v = self.dies.evolve(level.edges(case), self.x0[case.sample][None], steps, 1)
        return np.asarray(v[0, :, 0], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Repeat:
    """What the cases repeated at a level have in common; ``simulator_version`` is the ngspice they are planned for."""

    shared: Shared
    level: Level
    simulator_version: str


def run_block(shared: Shared, block: Block, threads: int = 1) -> Result:
    """Of each die of a block how many samples are right, and how many are not finite: ``v_end`` [2 · dies]."""
    begun = time.monotonic()
    v = shared.dies.evolve(shared.dies.edges(block.condition, block.dies), shared.x0, shared.study.steps, threads)
    counts = _counts(v, shared.network.readout, shared.y)
    return Result(Status.PASSED, "", time.monotonic() - begun, 0, counts.ravel())


def block_on_worker(shared: Shared, block: Block, scratch: Path) -> Result:
    """:func:`run_block` as a campaign's work."""
    return run_block(shared, block)


def case_on_worker(repeat: Repeat, case: Case, scratch: Path) -> Result:
    """A case in ngspice, along the ladder of solver options; as a campaign's work.

    A result that is complete and wrong would pass every test of its file, so each is held against the engine, for the
    same die; beyond the level's bound it is bad data that disagrees.
    """
    if NGSPICE.version() != repeat.simulator_version:
        here = f"{socket.gethostname()} has {NGSPICE.version()}"
        raise ToolFailedError(f"{here}, the campaign was planned for {repeat.simulator_version}")
    shared, level = repeat.shared, repeat.level
    engine, v0 = shared.engine(level, case, _STEPS), shared.x0[case.sample]

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


def _counts(v: NDArray[np.floating], readout: NDArray[np.int32], y: NDArray[np.int64]) -> Floats:
    """Right and not finite samples of each die, [2, dies], of final states ``v`` [dies, nodes, samples]. What is not
    finite is wrong."""
    finite = np.isfinite(v).all(axis=1)
    right = (v[:, readout].argmax(axis=1) == y) & finite
    return np.stack([right.sum(axis=1), (~finite).sum(axis=1)]).astype(np.float64)
