"""Decks that run a circuit: solver settings from the error asked for, and one transient a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.export.circuit import Circuit, Stage
from kcnet_eda.export.handover import SETTLING
from kcnet_eda.export.netlist import all_nets
from kcnet_eda.export.render import render
from kcnet_eda.physical.scaling import Scaling

#: Newton's tolerance under the error asked for; at a thousandth it adds nothing that a half-step check could see.
_NEWTON = 1e-3
_NETS_A_LINE = 8
#: The order of the integration rule in each simulator: ngspice's implicit rules end at 2, and VACASK's Adams-Moulton
#: rule of order 3 needs a fifth of the steps at an error of 1e-3. The fast engine's rule is explicit.
ORDERS = {"ngspice": 2, "vacask": 3, "engine": 4}
METHODS = {2: "trapezoidal rule", 3: "Adams-Moulton rule of order 3", 4: "Runge-Kutta rule of order 4"}
GEAR = "Gear rule of order 2"


@dataclass(frozen=True, slots=True)
class SolverSettings:
    """The rule of ``order`` (:data:`METHODS`) with ``steps`` equal steps a phase; tolerances follow the scale, so that
    every scale sees the same arithmetic. ``error`` is the relative error that the settings were chosen for.
    ``adaptive``: the simulator chooses shorter steps by its own error control (transistors have poles far faster than
    the network). Of ngspice alone: ``gear`` takes Gear's rule for the trapezoidal one, ``iterations`` bounds those of
    Newton at a time point, and ``newton`` is its tolerance under ``error``."""

    error: float
    steps: int
    order: int
    adaptive: bool = False
    gear: bool = False
    iterations: int = 10
    newton: float = _NEWTON

    @property
    def method(self) -> str:
        """The rule's name."""
        return GEAR if self.gear else METHODS[self.order]

    def halved(self) -> SolverSettings:
        """The same at half the step."""
        # At order 2 half the step is a quarter of the error that an adaptive step is chosen by.
        return replace(self, steps=2 * self.steps, error=self.error / 4 if self.adaptive else self.error)

    def as_dict(self, scaling: Scaling) -> dict[str, Any]:
        """Everything, for manifests and reports."""
        return {
            "method": f"{self.method}, "
            + ("steps by local error, at least" if self.adaptive else "equal steps a phase"),
            "order": self.order,
            "steps": self.steps,
            "error": self.error,
            **({} if self.order == ORDERS["engine"] else self.tolerances(scaling)),
        }

    def tolerances(self, scaling: Scaling) -> dict[str, float]:
        """Newton tolerances in SI units: relative, current [A], voltage [V], charge [C].

        Node voltages decide when Newton has converged. The only branch current is the rail's, a difference of terms
        as large as 2C/h·v: held to the voltages' tolerance its rounding error alone would be too much at short steps.
        """
        if self.adaptive:
            return {
                "reltol": self.error,
                "abstol": self.error * self.newton * scaling.i_unit,
                "vntol": self.error * self.newton * scaling.v_unit,
                "chgtol": self.error * _NEWTON**2 * scaling.c * scaling.v_unit,
            }
        return {
            "reltol": self.error * self.newton,
            "abstol": self.error * scaling.i_unit,
            "vntol": self.error * _NEWTON * self.newton * scaling.v_unit,
            "chgtol": self.error * _NEWTON * self.newton * scaling.c * scaling.v_unit,
        }


@dataclass(frozen=True)
class Window:
    """What one transient run covers: the capacitors' nets, when it ends and the solver's step, in seconds. The network
    evolves from ``lead_in`` on; before that the nodes are written."""

    nets: tuple[str, ...]
    t_end: float
    t_step: float
    lead_in: float = 0.0


def stage_window(circuit: Circuit, stage: Stage, settings: SolverSettings, lead_in: float = 0.0) -> Window:
    """The window of one phase, after ``lead_in`` seconds of writing."""
    step = stage.duration / settings.steps
    return Window(circuit.nets[1 : stage.n_nodes], lead_in + stage.duration, step, lead_in)


def gated_window(circuit: Circuit, settings: SolverSettings) -> Window:
    """The window of the one netlist of all phases."""
    windows = [(end - begin) / SETTLING for begin, end in circuit.timeline.windows.values()]  # a buffer's C/g
    step = min([min(stage.duration for stage in circuit.stages) / settings.steps, *windows])
    return Window(all_nets(circuit), circuit.timeline.end, step)


@dataclass(frozen=True, eq=False)
class Sample:
    """One run: initial voltages ``v0`` in volts above the rail of the window's first nets (the others start at 0); its
    waveforms go to ``<output>.raw``."""

    title: str
    v0: NDArray[np.float64]
    output: str


def render_testbench(
    circuit: Circuit,
    window: Window,
    settings: SolverSettings,
    samples: Sequence[Sample],
    *,
    simulator: str,
    netlist: str,
    osdi: Sequence[str],
    header: str = "",
    ascii_output: bool = False,
) -> str:
    """A deck that parses the circuit once and runs every sample on it.

    ``netlist`` and ``osdi`` are paths as the simulator shall see them, relative to where it runs. ``header`` loads the
    models of the MOS level.
    """
    nets = window.nets
    return render(
        "mos/testbench.j2" if circuit.level == "mos" else f"{simulator}/testbench.j2",
        circuit=circuit,
        window=window,
        settings=settings,
        netlist=netlist,
        osdi=osdi,
        header=header,
        v_cm=circuit.scaling.v_cm,
        tolerances=settings.tolerances(circuit.scaling),
        ascii_output=ascii_output,
        save_lines=[nets[i : i + _NETS_A_LINE] for i in range(0, len(nets), _NETS_A_LINE)],
        samples=[
            {"title": s.title, "output": s.output, "initial": list(zip_longest(nets, s.v0.tolist(), fillvalue=0.0))}
            for s in samples
        ],
    )
