"""Cases of the fast engine repeated as real transistor netlists: the study's network, on its kit, at the condition.

The die is the nominal one: a kit's own mismatch draws devices, not edges, so that no draw of it is the engine's die.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.errors import BadDataError, KcnetError
from kcnet_eda.export.bundle import DEFAULT_ERROR
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import sha256_bytes
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.progress import Progress
from kcnet_eda.study.batch import status_of
from kcnet_eda.study.mos.export import calibrated_circuit, mos_settings
from kcnet_eda.study.mos.rig import Rig
from kcnet_eda.study.mos.run import MosDeck, mos_deck, run_in_transistors
from kcnet_eda.study.pvt.conditions import at_condition
from kcnet_eda.study.pvt.dies import NOMINAL, Dies
from kcnet_eda.study.pvt.repeat import Case, draw_cases, with_outputs
from kcnet_eda.study.store import Result, Status
from kcnet_eda.study.waveform import at_instants
from kcnet_eda.tools.pdk import prepare
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_SLOWER = 5  # than a case on calibrated edges, at most
_STREAM = 1  # of cases; the behavioural level's are another's


def draw_nominal(count: int, seed: int, worst: int, conditions: int, samples: int) -> list[Case]:
    """``count`` different cases of the nominal die, at least a quarter of them of the condition ``worst``."""
    return [replace(c, die=NOMINAL) for c in draw_cases(count, seed, worst, conditions, 1, samples, _STREAM)]


@dataclass(frozen=True, eq=False)
class Transistors:
    """Every edge a cell calibrated for its θ at the kit's nominal condition, simulated at another, without mismatch."""

    dies: Dies
    conditions: Sequence[Condition]
    rig: Rig
    mos: MosCircuit
    models: Path | None
    name: str = "mos"
    agreement: float = 0.95  # the model's fit error moves digits whose margin is small
    bound: None = None  # for the same reason
    outputs_at: Floats | None = None

    @property
    def settings(self) -> SolverSettings:
        """Those of an exported bundle."""
        return mos_settings(self.dies.cells.network, DEFAULT_ERROR)

    def edges(self, case: Case) -> BuiltEdges:
        """The edges of the nominal die."""
        return self.dies.nominal(case.condition)

    def _deck(self, case: Case, v0: Floats, settings: SolverSettings) -> MosDeck:
        return mos_deck(at_condition(self.rig, self.conditions[case.condition]), self.mos, settings, v0)

    def key(self, case: Case, v0: Floats) -> str:
        """The netlist has the cells' sizes in it, the deck the condition, the solver's settings and the sample."""
        deck = self._deck(case, v0, self.settings)
        words = [repr(case), deck.netlist, deck.text, self.rig.models.sha256, NGSPICE.version()]
        return sha256_bytes("\n".join(words).encode())

    def run(self, case: Case, v0: Floats, settings: SolverSettings, folder: Path, timeout_s: float) -> Result:
        """One sample in ngspice, with the models of the machine that runs it."""
        started = time.monotonic()
        folder.mkdir(parents=True)
        try:
            models = prepare(self.rig.pdk, self.models)
            if models.sha256 != self.rig.models.sha256:
                raise BadDataError(f"{models.origin}: are not the models that the study was planned with")
            rig = replace(self.rig, models=models)
            run = run_in_transistors(rig, self._deck(case, v0, settings), _SLOWER * timeout_s, folder)
        except KcnetError as error:
            return Result(status_of(error), str(error), time.monotonic() - started)
        scaling, at, kept = self.mos.circuit.scaling, self.outputs_at, None
        if at is not None:
            kept = at * scaling.t_unit, at_instants(at, run.tau, run.v)
        v_end = np.append(0.0, run.v[-1])
        found = Result(Status.PASSED, "", run.seconds, round(1024 * run.peak_mib), v_end, waveform=kept)
        return with_outputs(found, self.dies.cells.network, scaling)


def transistors(
    dies: Dies, conditions: Sequence[Condition], rig: Rig, models: Path | None, scaling: Scaling, progress: Progress
) -> Transistors:
    """The dies' network in the transistors of the rig's kit, whose ``models`` are where the study's file says.

    Raises
    ------
    InvalidInputError
        Edges cannot be built in this process: all of them are listed.
    KcnetError
        The simulator gave no result.
    """
    mos = calibrated_circuit(dies.cells.network, rig, scaling, progress)
    return Transistors(dies, conditions, rig, mos, models)
