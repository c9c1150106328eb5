"""What workers do in a study over conditions and dies: a block of dies in the fast engine, a case in ngspice."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import ToolFailedError
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.physical.condition import EdgeShift
from kcnet_eda.study.dies import Cells
from kcnet_eda.study.ladder import climb
from kcnet_eda.study.pvt_repeat import SETTINGS, Case, run_case
from kcnet_eda.study.pvt_settings import PvtStudy
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

#: Largest difference from the engine that a final voltage may have, of the range. Ten times the error that the solver's
#: settings are chosen for: no rung of the ladder has a larger one, and the engine's own at _STEPS is far below it (7e-4
#: at 15 steps), so what lies beyond is no solution of the case, whoever is wrong.
BOUND = 10 * SETTINGS.error
_STEPS = 100


@dataclass(frozen=True)
class Block:
    """A row of the store: some dies at one condition, by number."""

    condition: int
    dies: range


@dataclass(frozen=True, eq=False)
class Shared:
    """What all runs of a study have in common: ``x0`` [samples, nodes] and labels ``y``; ``simulator_version`` is the
    ngspice that the runs are planned for."""

    study: PvtStudy
    cells: Cells
    shifts: Sequence[EdgeShift]
    x0: Floats
    y: NDArray[np.int64]
    simulator_version: str


def run_block(shared: Shared, block: Block, threads: int = 1) -> Result:
    """Of each die of a block how many samples are right, and how many are not finite: ``v_end`` [2 · dies]."""
    begun = time.monotonic()
    thetas = shared.cells.thetas(shared.study, shared.shifts[block.condition], block.dies)
    v = shared.cells.evolve(*thetas, shared.x0, shared.study.steps, threads)
    counts = _counts(v, shared.cells.network.readout, shared.y)
    return Result(Status.PASSED, "", time.monotonic() - begun, 0, counts.ravel())


def block_on_worker(shared: Shared, block: Block, scratch: Path) -> Result:
    """:func:`run_block` as a campaign's work."""
    return run_block(shared, block)


def case_on_worker(shared: Shared, case: Case, scratch: Path) -> Result:
    """A case in ngspice, along the ladder of solver options; as a campaign's work.

    A result that is complete and wrong would pass every test of its file, so each is held against the engine, for the
    same die; beyond :data:`BOUND` it is bad data that disagrees.
    """
    if NGSPICE.version() != shared.simulator_version:
        here = f"{socket.gethostname()} has {NGSPICE.version()}"
        raise ToolFailedError(f"{here}, the campaign was planned for {shared.simulator_version}")
    cells, v0 = shared.cells, shared.x0[case.sample]
    thetas = cells.thetas(shared.study, shared.shifts[case.condition], range(case.die, case.die + 1))
    engine = cells.evolve(*thetas, v0[None], _STEPS, 1)[0, :, 0].astype(np.float64)
    network = cells.on_die(thetas[0][0], thetas[1][0])

    def attempt(settings: SolverSettings, folder: Path) -> Result:
        result = run_case(network, v0, folder, settings, shared.study.timeout_s)
        return result if result.v_end is None else _held(result, engine)

    result = climb(SETTINGS, attempt, scratch)
    if result.v_end is None:
        return result
    label = int(np.argmax(result.v_end[network.readout]))
    return replace(result, label=label, correct=bool(label == shared.y[case.sample]))


def _held(result: Result, engine: Floats) -> Result:
    """``result`` with its difference from the engine's final state; no passed one where that is beyond the bound."""
    assert result.v_end is not None
    difference = np.abs(result.v_end - engine)
    error = float(difference.max() / max(float(np.ptp(engine)), np.finfo(float).tiny))
    if error <= BOUND:
        return replace(result, error=error)
    where = f"node {int(difference.argmax())} by {error:.2g} of the range (at most {BOUND:g} is possible)"
    return Result(
        Status.BAD_DATA, f"the final voltages disagree with the engine's, {where}", result.wall_s, result.peak_kib
    )


def _counts(v: NDArray[np.floating], readout: NDArray[np.int32], y: NDArray[np.int64]) -> Floats:
    """Right and not finite samples of each die, [2, dies], of final states ``v`` [dies, nodes, samples]. What is not
    finite is wrong."""
    finite = np.isfinite(v).all(axis=1)
    right = (v[:, readout].argmax(axis=1) == y) & finite
    return np.stack([right.sum(axis=1), (~finite).sum(axis=1)]).astype(np.float64)
