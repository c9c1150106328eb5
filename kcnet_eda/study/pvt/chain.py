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
from kcnet_eda.study.pvt.repeat import Behavioral, Case
from kcnet_eda.study.pvt.work import Shared
from kcnet_eda.study.simulate import MOST_CHANGED
from kcnet_eda.study.store import Result

Floats = NDArray[np.float64]

#: Names of the two steps: of their rows in the store, in the record, and of their arrays ``v_end_<name>``.
CALIBRATED, WORST = "calibrated", "worst"
_INSTANTS = 101  # of the waveforms that are kept


@dataclass(frozen=True, eq=False)
class ChainStep:
    """Samples at a ``level`` and ``condition``, where the network's cells take ``power`` [W] from the supply."""

    level: Behavioral | Transistors
    cases: Sequence[Case]
    condition: Condition
    power: float

    def watched(self, samples: Sequence[int]) -> ChainStep:
        """The step with these samples alone, the first :data:`MOST_CHANGED` of them, that keeps their waveforms."""
        duration = self.level.dies.cells.network.phases[0].duration
        level = replace(self.level, outputs_at=np.linspace(0.0, duration, _INSTANTS))
        return replace(self, level=level, cases=[self.cases[i] for i in samples[:MOST_CHANGED]])

    def record(self, shared: Shared) -> dict[str, Any]:
        """Where it is, and what it takes, SI units."""
        latency = shared.network.phases[0].duration * shared.dies.t_unit
        return {"condition": self.condition.name, "latency_s": latency, "energy_j": self.power * latency}


def chain_steps(
    shared: Shared, transistors: Transistors, home: Condition, at_home: EdgeModel, worst: int | None
) -> dict[str, ChainStep]:
    """The study's ``chain`` samples on calibrated edges at ``home``, and in transistors at its point number ``worst``;
    where that is None, the first alone. Power is that of the netlist's own cells; elsewhere than at home it is scaled
    by what the measured cells take there."""
    dies, mos = shared.dies, transistors.mos

    def by_model(model: EdgeModel, condition: Condition) -> float:
        return (model.supply_current * float(dies.units.sum()) + model.bias_current) * condition.supply

    power = mos.static_current * home.supply
    calibrated = Behavioral(replace(dies, models=(at_home,)), [home], shared.scaling, CALIBRATED)
    steps = {CALIBRATED: ChainStep(calibrated, _cases(shared, 0), home, power)}
    if worst is not None:
        there, level = shared.points[worst].condition, replace(transistors, name=WORST)
        power *= by_model(dies.models[worst], there) / by_model(at_home, home)
        steps[WORST] = ChainStep(level, _cases(shared, worst), there, power)
    return steps


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
