"""What a study over conditions gives to the reconciliation chain (:mod:`kcnet_eda.report.chain`): its first samples
in ngspice on the die without mismatch, on calibrated edges at the kit's own condition and in transistors at the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.data import DataSet
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.edge_model import EdgeModel
from kcnet_eda.study.pvt.dies import NOMINAL
from kcnet_eda.study.pvt.mos import Transistors
from kcnet_eda.study.pvt.repeat import Behavioral, Case, Level
from kcnet_eda.study.pvt.work import Shared
from kcnet_eda.study.store import Result

Floats = NDArray[np.float64]

#: Names of the two steps: of their rows in the store, in the record, and of their arrays ``v_end_<name>``.
CALIBRATED, WORST = "calibrated", "worst"


@dataclass(frozen=True, eq=False)
class ChainStep:
    """Samples at a ``level``: the kit's edges there are ``model``, at ``condition``."""

    level: Level
    cases: Sequence[Case]
    condition: Condition
    model: EdgeModel

    def record(self, shared: Shared) -> dict[str, Any]:
        """Where it is, and what it takes, SI units."""
        dies, model = shared.dies, self.model
        latency = shared.network.phases[0].duration * dies.t_unit
        current = model.supply_current * float(dies.units.sum()) + model.bias_current
        return {
            "condition": self.condition.name,
            "latency_s": latency,
            "energy_j": current * self.condition.supply * latency,
        }


def calibrated_step(shared: Shared, home: Condition, at_home: EdgeModel) -> ChainStep:
    """The study's ``chain`` samples on calibrated edges at ``home``."""
    dies = replace(shared.dies, models=(at_home,))
    level = Behavioral(dies, [home], shared.scaling, CALIBRATED)
    return ChainStep(level, _cases(shared, 0), home, at_home)


def worst_step(shared: Shared, transistors: Transistors, worst: int) -> ChainStep:
    """The same samples in transistors at the study's condition number ``worst``."""
    level = replace(transistors, name=WORST)
    return ChainStep(level, _cases(shared, worst), shared.points[worst].condition, shared.dies.models[worst])


def chain_arrays(
    shared: Shared, data: DataSet, truth: Floats, results: Mapping[str, Sequence[Result]]
) -> dict[str, NDArray[Any]]:
    """The chain's samples as a run of ``kcnet simulate`` has them; ``truth`` [n, nodes] are their final states by the
    reference, ``results`` of each step. NaN where a run failed."""
    n = len(truth)
    arrays: dict[str, NDArray[Any]] = {
        "index": data.index[:n],
        "x0": shared.x0[:n],
        "y": shared.y[:n],
        "v_end_software": truth,
    }
    for name, of in results.items():
        v_end = np.full_like(truth, np.nan)
        for i, result in enumerate(of):
            if result.v_end is not None:
                v_end[i] = result.v_end
        arrays[f"v_end_{name}"] = v_end
    return arrays


def _cases(shared: Shared, condition: int) -> list[Case]:
    return [Case(condition, NOMINAL, i) for i in range(min(shared.study.chain, len(shared.y)))]
