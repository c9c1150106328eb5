"""Cases of the fast engine repeated in ngspice, on the calibrated Verilog-A edges of their condition and die or in
transistors (:mod:`kcnet_eda.study.pvt.mos`): what the engine is worth."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.errors import BadDataError, KcnetError
from kcnet_eda.export.calibrated import MODULE, CalibratedDie, render_die
from kcnet_eda.export.testbench import ORDERS, SolverSettings, Window
from kcnet_eda.files import sha256_bytes, sha256_file
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.condition import Condition
from kcnet_eda.physical.scaling import Scaling
from kcnet_eda.study.accuracy import decision_time, wilson
from kcnet_eda.study.batch import status_of
from kcnet_eda.study.pvt.dies import Dies
from kcnet_eda.study.store import Result, Status
from kcnet_eda.study.waveform import at_instants
from kcnet_eda.tools.locate import find_openvaf
from kcnet_eda.tools.openvaf import compile_beside, shipped, version, with_includes
from kcnet_eda.tools.rawfile import Waveforms, read_transient
from kcnet_eda.tools.simulators import NGSPICE

Floats = NDArray[np.float64]

_SETTINGS = SolverSettings(1e-3, 200, ORDERS[NGSPICE.name])
_SLACK = 1e-6  # of a step and of the range: rounding of the simulator's own sums
_CASES = 1  # the first word of the key by which cases are drawn
_WORST_SHARE = 4  # one case in so many is of the worst condition


@dataclass(frozen=True, order=True)
class Case:
    """A condition, a die and a sample, by number."""

    condition: int
    die: int
    sample: int


class Level(Protocol):
    """A way to repeat cases in a simulator; its headline stands where at least ``agreement`` of the labels agree."""

    @property
    def name(self) -> str:
        """As :data:`kcnet_eda.export.circuit.LEVELS` has it."""

    @property
    def agreement(self) -> float:
        """The least share of labels."""

    @property
    def bound(self) -> float | None:
        """The largest difference from the engine that a final voltage may have, of the range, for the run to be a
        solution of the case; None where the level's own law may be further off."""

    @property
    def settings(self) -> SolverSettings:
        """Solver settings as planned."""

    @property
    def outputs_at(self) -> Floats | None:
        """The instants [T_u] at which runs keep the outputs' voltages; None where they keep none."""

    @property
    def conditions(self) -> Sequence[Condition]:
        """The conditions that cases are numbered by."""

    @property
    def dies(self) -> Dies:
        """The dies of the cases."""

    def edges(self, case: Case) -> BuiltEdges:
        """What the engine compares with it: one die."""

    def key(self, case: Case, v0: Floats) -> str:
        """The hash of all that determines the run."""

    def run(self, case: Case, v0: Floats, settings: SolverSettings, folder: Path, timeout_s: float) -> Result:
        """One sample from ``v0`` [nodes]; its final state in model units. Deck and log stay in the new ``folder``."""


def draw_cases(
    count: int, seed: int, worst: int, conditions: int, dies: int, samples: int, stream: int = 0
) -> list[Case]:
    """``count`` different cases (all, where there are fewer), at least a quarter of them of the condition ``worst``;
    another ``stream`` draws others."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_CASES, stream)))
    count = min(count, conditions * dies * samples)
    of_worst = min(-(-count // _WORST_SHARE), dies * samples)
    found = {Case(worst, *divmod(int(i), samples)) for i in rng.choice(dies * samples, of_worst, replace=False)}
    while len(found) < count:
        found.add(Case(int(rng.integers(conditions)), int(rng.integers(dies)), int(rng.integers(samples))))
    return sorted(found)


@dataclass(frozen=True, eq=False)
class Behavioral:
    """Calibrated Verilog-A edges, of the condition and with the normal numbers of the die."""

    dies: Dies
    conditions: Sequence[Condition]
    scaling: Scaling
    name: str = "behavioral"
    agreement: float = 0.99
    settings: SolverSettings = _SETTINGS
    bound: float = 10 * _SETTINGS.error
    """Ten times the error that the settings are chosen for: no rung of the ladder has a larger one, and the engine's
    own is far below it, so what lies beyond is no solution of the case, whoever is wrong."""
    outputs_at: Floats | None = None

    def edges(self, case: Case) -> BuiltEdges:
        """The edges of the case's die."""
        return self.dies.edges(case.condition, range(case.die, case.die + 1))

    @cached_property
    def _tools(self) -> str:
        return tools_of((MODULE,), NGSPICE.version())

    def _deck(self, case: Case, v0: Floats, settings: SolverSettings) -> tuple[str, Window]:
        d, at = self.dies, case.condition
        die = CalibratedDie(
            d.cells.network,
            d.cells.ends,
            d.biased(at, case.die),
            d.units,
            d.models[at],
            d.spread,
            d.normals(case.die)[0],
            case.die,
            self.conditions[at].temperature,
        )
        return render_die(die, self.scaling, settings, v0, "die")

    def key(self, case: Case, v0: Floats) -> str:
        """The deck has all numbers of the case in it, but names its conditions only by what they change."""
        return sha256_bytes("\n".join([repr(case), self._tools, self._deck(case, v0, self.settings)[0]]).encode())

    def run(self, case: Case, v0: Floats, settings: SolverSettings, folder: Path, timeout_s: float) -> Result:
        """One sample in ngspice."""
        at = None if self.outputs_at is None else self.outputs_at * self.scaling.t_unit
        found = run_die(self._deck(case, v0, settings), (MODULE,), self.scaling, v0, folder, timeout_s, at)
        return with_outputs(found, self.dies.cells.network, self.scaling)


def with_outputs(result: Result, network: Network, scaling: Scaling) -> Result:
    """``result`` with the waveforms of the outputs alone, in volts, and when they decide, where it has those of all
    nodes but ground in model units."""
    if result.waveform is None:
        return result
    time_s, v = result.waveform
    volts = scaling.v_cm + scaling.v_unit * v[:, network.readout - 1]
    return replace(result, waveform=(time_s, volts), decision_s=decision_time(time_s, volts))


def tools_of(modules: Sequence[str], simulator_version: str) -> str:
    """What a deck of the Verilog-A ``modules`` is run with: hashes of their files, compiler and simulator."""
    files = [file for module in modules for file in with_includes(shipped(module))]
    return "\n".join([*map(sha256_file, files), version(find_openvaf()), simulator_version])


def run_die(
    deck: tuple[str, Window],
    modules: Sequence[str],
    scaling: Scaling,
    v0: Floats,
    folder: Path,
    timeout_s: float,
    instants: Floats | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """A ``deck`` of :func:`kcnet_eda.export.calibrated.render_die`, whose output is ``die``, in ngspice from ``v0``
    [nodes]: its final state in model units, and where ``instants`` [s] are given the waveform there, [instants, nodes
    without ground]. Deck and log stay in the new ``folder``. Setting ``cancel`` ends it early."""
    started = time.monotonic()
    folder.mkdir(parents=True)
    text, window = deck
    try:
        for module in modules:
            compile_beside(shipped(module), folder)
        file, raw = folder / f"die{NGSPICE.suffix}", folder / "die.raw"
        file.write_text(text)
        done = NGSPICE.run_to(raw, file, folder / "die.log", timeout_s, cancel)
        waves = read_transient(raw, window.nets, window.t_end)
        _require_planned(waves, window, scaling.v_cm + scaling.v_unit * v0[1:], raw)
    except KcnetError as error:
        return Result(status_of(error), str(error), time.monotonic() - started)
    v = (waves.values - scaling.v_cm) / scaling.v_unit
    kept = None if instants is None else (instants, at_instants(instants, waves.time, v))
    return Result(Status.PASSED, "", time.monotonic() - started, done.peak_kib, np.append(0.0, v[-1]), waveform=kept)


def _require_planned(waves: Waveforms, window: Window, start: NDArray[np.float64], path: Path) -> None:
    """Hold waveforms to what was planned: no step longer than asked for, and a beginning at ``start`` [nets], volts.

    ngspice writes no point at t = 0; its first lies a small step after it. Over so short a time the rate of a node is
    that of the next step, and twice the largest of them bounds what any has moved.

    Raises
    ------
    BadDataError
        They are not.
    """
    time_, values = waves.time, waves.values
    longest = float(np.diff(time_, prepend=0.0).max())
    if len(time_) < 2 or longest > window.t_step * (1 + _SLACK):
        raise BadDataError(f"{path}: has a step of {longest:g} s, where at most {window.t_step:g} s was asked for")
    rate = float(np.abs(values[1] - values[0]).max()) / float(time_[1] - time_[0])
    off = np.abs(values[0] - start)
    if off.max() > 2 * rate * time_[0] + _SLACK * float(np.ptp(values)):
        worst = int(off.argmax())
        raise BadDataError(
            f"{path}: does not begin where it was told to: node {window.nets[worst]} is off by {off[worst]:.2g} V"
        )


def judge(
    level: Level, readout: NDArray[np.int32], engine: Sequence[Floats], results: Sequence[Result]
) -> dict[str, Any] | None:
    """How the engine's final states [nodes] compare with a level's; None where no case was repeated. A run that failed
    agrees with nothing. ``largest`` and ``median`` (over cases, of their largest) are voltage differences over the
    range of the level's final voltages."""
    if not results:
        return None
    pairs = [(v, r.v_end) for v, r in zip(engine, results, strict=True) if r.v_end is not None]
    agree = sum(int(np.argmax(v[readout]) == np.argmax(end[readout])) for v, end in pairs)
    span = float(np.ptp(np.array([end for _, end in pairs]))) if pairs else float("nan")
    differences = [float(np.abs(v - end).max()) / span for v, end in pairs]
    failed = [r.message for r in results if r.v_end is None]
    ended = Counter(r.status.value for r in results)
    return {
        "level": level.name,
        "cases": len(results),
        "agree": agree,
        "agreement": agree / len(results),
        "agreement_interval": list(wilson(agree, len(results))),
        "asked": level.agreement,
        "largest": max(differences, default=None),
        "median": float(np.median(differences)) if pairs else None,
        "failed": len(failed),
        "ended": dict(sorted(ended.items())),
        "first_failure": failed[0] if failed else None,
        "kept": bool(agree >= level.agreement * len(results)),
    }
