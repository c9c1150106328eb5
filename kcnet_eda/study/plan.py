"""A planned study: which samples go through which circuit, and the keys of their runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.export.bundle import Bundle
from kcnet_eda.export.testbench import SolverSettings
from kcnet_eda.files import sha256_bytes, sha256_file
from kcnet_eda.network.data import DataSet
from kcnet_eda.study.batch import Job
from kcnet_eda.study.engine_run import ENGINE, VERSION
from kcnet_eda.study.mos.models import bundle_models
from kcnet_eda.study.references import reference_keys
from kcnet_eda.tools import openvaf
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.simulators import Simulator

_CHECKED = 8  # samples that a half-step run checks
_KEPT_WAVEFORMS = 12


@dataclass(frozen=True, eq=False)
class Plan:
    """Every sample once (``main``, by position in the data), some again at half the step (``half_step``), and the
    keys under which the software reference of each sample is stored. Keys are hashes of all that determines a run.
    """

    bundle: Bundle
    simulator: Simulator | None
    data: DataSet
    x0: NDArray[np.float64]
    seed: int
    gated: bool
    main: tuple[Job, ...]
    half_step: dict[int, Job]
    reference_keys: tuple[str, ...]

    @property
    def settings(self) -> SolverSettings:
        """The solver's settings of the main runs."""
        return self.bundle.settings[self.simulator_name]

    @property
    def simulator_name(self) -> str:
        """The simulator's name; ``engine`` where there is none but the fast engine."""
        return ENGINE if self.simulator is None else self.simulator.name

    @property
    def simulator_version(self) -> str:
        """What runs the samples, with its version."""
        return VERSION if self.simulator is None else self.simulator.version()

    @property
    def compiler_version(self) -> str:
        """What compiled the devices, with its version."""
        return "none" if self.simulator is None else openvaf.version(find_openvaf())

    @property
    def netlists(self) -> list[Path]:
        """The netlists that are run."""
        if self.simulator is None:
            return []
        return [self.bundle.netlist(self.simulator.name, part) for part in self.bundle.circuit.parts(self.gated)]

    @property
    def runs(self) -> list[tuple[Job, str]]:
        """Every run with its variant's name, as in the store."""
        return [(job, "main") for job in self.main] + [(job, "half_step") for job in self.half_step.values()]

    def sample(self, position: int) -> int:
        """The number within the whole data set of the sample at ``position``."""
        return int(self.data.index[position])


def make_plan(bundle: Bundle, simulator: Simulator | None, data: DataSet, seed: int, gated: bool) -> Plan:
    """Plan all of ``data``; ``seed`` draws the samples of the half-step check; ``simulator`` is
    None for the fast engine; ``gated`` is :attr:`kcnet_eda.study.legs.Bench.gated`."""
    x0 = bundle.network.initial_state(data.x)
    plan = Plan(bundle, simulator, data, x0, seed, gated, (), {}, ())
    tools = [plan.simulator_name, plan.simulator_version, plan.compiler_version]
    sources = [bundle.path / "network.kcnet"] if simulator is None else bundle.sources(simulator.name, gated)
    models = bundle_models(bundle)
    circuit = " ".join([*map(sha256_file, sources), *tools, *([models[1].sha256] if models else [])])

    def job(i: int, settings: SolverSettings, keep: bool) -> Job:
        return Job(_key(f"{circuit} {settings}", x0[i]), int(data.index[i]), x0[i], settings, keep)

    n, settings = len(data), plan.settings
    checked = np.sort(np.random.default_rng(seed).choice(n, size=min(_CHECKED, n), replace=False))
    return replace(
        plan,
        main=tuple(job(i, settings, keep=i < _KEPT_WAVEFORMS) for i in range(n)),
        half_step={int(i): job(int(i), settings.halved(), keep=False) for i in checked},
        reference_keys=reference_keys(bundle.path / "network.kcnet", bundle.network, x0),
    )


def _key(what: str, x0: NDArray[np.float64]) -> str:
    return sha256_bytes(what.encode() + b" " + x0.tobytes())
