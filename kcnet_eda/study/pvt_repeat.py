"""Cases of the fast engine repeated in ngspice at behavioural level, on the die's own network: what it is worth.

A die's edges are again edges of Eq. (6), so its circuit is the ordinary behavioural one of the network with its θ.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import BadDataError, KcnetError
from kcnet_eda.export.circuit import build_circuit
from kcnet_eda.export.netlist import render_netlist
from kcnet_eda.export.testbench import ORDERS, Sample, SolverSettings, Window, render_testbench, stage_window
from kcnet_eda.files import resource_dir
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.scaling import resolve
from kcnet_eda.study.accuracy import wilson
from kcnet_eda.study.batch import status_of
from kcnet_eda.study.store import Result, Status
from kcnet_eda.tools.openvaf import compile_file, with_includes
from kcnet_eda.tools.rawfile import Waveforms, read_transient
from kcnet_eda.tools.simulators import NGSPICE, explain

#: Least share of labels on which simulator and engine agree for the engine's numbers to be given.
AGREEMENT = 0.99
#: Solver settings of a case, as planned.
SETTINGS = SolverSettings(1e-3, 200, ORDERS[NGSPICE.name])
_SLACK = 1e-6  # of a step and of the range: rounding of the simulator's own sums
_CASES = 1  # the first word of the key by which cases are drawn
_WORST_SHARE = 4  # one case in so many is of the worst condition


@dataclass(frozen=True, order=True)
class Case:
    """A condition, a die and a sample, by number."""

    condition: int
    die: int
    sample: int


def draw_cases(count: int, seed: int, worst: int, conditions: int, dies: int, samples: int) -> list[Case]:
    """``count`` different cases (all, where there are fewer), at least a quarter of them of the condition ``worst``."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_CASES,)))
    count = min(count, conditions * dies * samples)
    of_worst = min(-(-count // _WORST_SHARE), dies * samples)
    found = {Case(worst, *divmod(int(i), samples)) for i in rng.choice(dies * samples, of_worst, replace=False)}
    while len(found) < count:
        found.add(Case(int(rng.integers(conditions)), int(rng.integers(dies)), int(rng.integers(samples))))
    return sorted(found)


def run_case(
    network: Network, v0: NDArray[np.float64], folder: Path, settings: SolverSettings, timeout_s: float
) -> Result:
    """One sample, from ``v0`` [nodes], through a die's ``network`` in ngspice; its final state in model units. Deck and
    log stay in the new ``folder``."""
    started = time.monotonic()
    folder.mkdir(parents=True)
    circuit = build_circuit(network, resolve(), ())
    (stage,) = circuit.stages
    window, modules = stage_window(circuit, stage, settings), sorted(circuit.modules(gated=False))
    try:
        for module in modules:
            source = resource_dir("veriloga") / f"{module}.va"
            for file in with_includes(source):
                shutil.copyfile(file, folder / file.name)
            shutil.copyfile(compile_file(source), folder / f"{module}.osdi")
        (folder / "die.inc").write_text(render_netlist(circuit, stage, NGSPICE.name))
        deck = folder / f"die{NGSPICE.suffix}"
        start = circuit.scaling.v_unit * v0[1:]
        deck.write_text(
            render_testbench(
                circuit,
                window,
                settings,
                [Sample("case", start, "die")],
                simulator=NGSPICE.name,
                netlist="die.inc",
                osdi=[f"{module}.osdi" for module in modules],
            )
        )
        done = NGSPICE.run(deck, folder / "die.log", timeout_s)
        raw = folder / "die.raw"
        if not raw.exists():
            raise explain(done)
        waves = read_transient(raw, window.nets, window.t_end)
        require_planned(waves, window, circuit.scaling.v_cm + start, raw)
    except KcnetError as error:
        return Result(status_of(error), str(error), time.monotonic() - started)
    volts = (waves.values[-1] - circuit.scaling.v_cm) / circuit.scaling.v_unit
    return Result(Status.PASSED, "", time.monotonic() - started, done.peak_kib, np.concatenate([[0.0], volts]))


def require_planned(waves: Waveforms, window: Window, start: NDArray[np.float64], path: Path) -> None:
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
    readout: NDArray[np.int32], engine: Sequence[NDArray[np.float64]], results: Sequence[Result]
) -> dict[str, Any] | None:
    """How the engine's final states [nodes] compare with ngspice's; None where no case was repeated. A run that failed
    agrees with nothing. ``largest`` is the largest voltage difference over the range of ngspice's final voltages."""
    if not results:
        return None
    pairs = [(v, r.v_end) for v, r in zip(engine, results, strict=True) if r.v_end is not None]
    agree = sum(int(np.argmax(v[readout]) == np.argmax(end[readout])) for v, end in pairs)
    ends = np.array([end for _, end in pairs])
    largest = max((float(np.abs(v - end).max()) for v, end in pairs), default=None)
    failed = [r.message for r in results if r.v_end is None]
    ended = Counter(r.status.value for r in results)
    return {
        "cases": len(results),
        "agree": agree,
        "agreement": agree / len(results),
        "agreement_interval": list(wilson(agree, len(results))),
        "largest": None if largest is None else largest / float(np.ptp(ends)),
        "failed": len(failed),
        "ended": dict(sorted(ended.items())),
        "first_failure": failed[0] if failed else None,
        "kept": bool(agree >= AGREEMENT * len(results)),
    }
