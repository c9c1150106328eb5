"""The transient runs that a sample goes through: a phase each, or all of them in one netlist with phase enables."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kcnet_eda.export.bundle import Bundle
from kcnet_eda.export.circuit import Stage
from kcnet_eda.export.testbench import SolverSettings, Window, gated_window, stage_window
from kcnet_eda.study.mos.models import mos_header
from kcnet_eda.tools.openvaf import compile_beside
from kcnet_eda.tools.simulators import Simulator

_PROGRAM_MIB, _KIB_A_DEVICE = 15.0, 2.0


@dataclass(frozen=True, eq=False)
class Leg:
    """One transient run of a sample: one of the ``phases``, or all. ``spans`` are pairs (until when in seconds, the
    nets of the nodes 0, 1, ... until then); ``netlist`` and ``osdi`` are files in the bench's folder."""

    window: Window
    phases: range
    spans: tuple[tuple[float, tuple[str, ...]], ...]
    netlist: str
    osdi: tuple[str, ...]
    header: str = ""


@dataclass(frozen=True, eq=False)
class Bench:
    """Where runs happen: ``folder`` is laid out by :func:`prepare_bench`; ``timeout_s`` bounds one leg of a sample.
    ``gated``: all phases in one netlist; otherwise staged, node voltages handed over exactly from phase to phase.
    ``header`` loads the models of the MOS level."""

    bundle: Bundle
    simulator: Simulator
    folder: Path
    gated: bool
    timeout_s: float
    header: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)

    def legs(self, settings: SolverSettings) -> list[Leg]:
        """What a sample runs through, one leg after the other."""
        circuit = self.bundle.circuit
        if self.gated:
            # In a window the outputs are already those that it fills.
            until = [*(end for _, end in circuit.timeline.phases), circuit.timeline.end]
            spans = tuple((t, bank.nets) for t, bank in zip(until, circuit.banks, strict=True))
            return [
                Leg(
                    gated_window(circuit, settings),
                    range(len(circuit.stages)),
                    spans,
                    _netlist_file(None),
                    _osdi(circuit.modules(gated=True)),
                )
            ]
        return [
            Leg(
                stage_window(circuit, stage, settings, self.bundle.write_time),
                range(stage.number, stage.number + 1),
                ((self.bundle.write_time + stage.duration, circuit.nets[: stage.n_nodes]),),
                _netlist_file(stage),
                _osdi(circuit.modules(gated=False) and [g.table.module for g in stage.groups]),
                self.header,
            )
            for stage in circuit.stages
        ]


def expected_mib(bench: Bench, settings: SolverSettings) -> float:
    """About how much memory one simulator process will take: its program, its devices, and the waveforms of one sample.

    2 KiB a device is what ngspice was seen to take (132 MiB with 57,404 multi-breakpoint devices); VACASK takes less.
    Of transistors it is what the example took when it was exported.
    """
    if bench.bundle.example is not None:
        return float(bench.bundle.example["peak_mib"])
    circuit = bench.bundle.circuit
    devices = (
        circuit.n_devices + circuit.n_transfers if bench.gated else max(stage.n_devices for stage in circuit.stages)
    )
    windows = [leg.window for leg in bench.legs(settings)]
    points = max(window.t_end / window.t_step * len(window.nets) for window in windows)
    return _PROGRAM_MIB + (_KIB_A_DEVICE * devices + 8 * points / 1024) / 1024


def _osdi(modules: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{name}.osdi" for name in sorted(set(modules)))


def _netlist_file(stage: Stage | None) -> str:
    return "all_phases.inc" if stage is None else f"phase{stage.number}.inc"


def prepare_bench(bundle: Bundle, simulator: Simulator, folder: Path, gated: bool, timeout_s: float) -> Bench:
    """Compile the bundle's devices and copy netlists and devices to ``folder``, so that decks name plain relative
    paths whatever the run folder is called."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    circuit = bundle.circuit
    for module in circuit.modules(gated):
        compile_beside(bundle.path / "veriloga" / f"{module}.va", folder)
    for part in circuit.parts(gated):
        shutil.copyfile(bundle.netlist(simulator.name, part), folder / _netlist_file(part))
    return Bench(bundle, simulator, folder, gated, timeout_s, mos_header(bundle, folder, "../../"))
