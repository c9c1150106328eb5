"""The circuit of a network: named nodes, capacitors and edge devices with parameters in SI units, as columns.

Everything downstream (netlists of each simulator, edge map, README) is text made from this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.handover import MODULE, SETTLING, WINDOW, Bank, Timeline, make_banks, make_timeline
from kcnet_eda.export.structural import two_terminal_problems
from kcnet_eda.lowering.devices import UNITS, DeviceTable, Shape, gated
from kcnet_eda.lowering.passes import DEFAULT_PASSES, Ranges, lower
from kcnet_eda.network.graph import Network
from kcnet_eda.network.validate import problems
from kcnet_eda.physical.scaling import Scaling

Floats = NDArray[np.float64]

#: The net that model ground maps to.
RAIL = "vcm"

#: What devices are: compiled Verilog-A; the paper's Figure 2 in plain SPICE elements; transistors of a process.
LEVELS = ("behavioral", "structural", "mos")

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = {RAIL, "time", "gnd", "temp", "hertz"}  # SPICE gives these a meaning of their own
_LONGEST_NAME = 32
_MOS_MADE = re.compile(r"vdd(_ideal)?|vref|vb[np]|vclp|wrb?|wi_.+")  # supply, bias and write lines of the MOS level
# What the one netlist of all phases makes itself: enables, and the capacitors of later banks.
_MADE = re.compile(r"(en|tr)\d+|.+_(p\d+|end)")


@dataclass(frozen=True, eq=False)
class DeviceGroup:
    """The devices of one table: ``values`` [n, parameters] in the units that the module declares, ``names`` the
    instances' names."""

    table: DeviceTable
    values: Floats
    names: tuple[str, ...]

    @cached_property
    def assignments(self) -> list[tuple[str, ...]]:
        """``name=value`` for every parameter of every device; empty where a linear part is 0, the module's default."""
        columns = [
            [f"{name}={value:.9g}" if value or name not in ("g", "i0") else "" for value in column]
            for name, column in zip(self.table.parameters, self.values.T.tolist(), strict=True)
        ]
        return list(zip(*columns, strict=True))

    @cached_property
    def gated(self) -> DeviceGroup:
        """The same devices with an enable terminal."""
        return DeviceGroup(gated(self.table), self.values, self.names)


@dataclass(frozen=True, eq=False)
class Stage:
    """One phase of the circuit: it runs for ``duration`` seconds on the nodes 0 .. ``n_nodes`` − 1. ``folded`` and
    ``dropped`` are its trained edges that have no device."""

    number: int
    n_nodes: int
    duration: float
    groups: tuple[DeviceGroup, ...]
    folded: NDArray[np.int64]
    dropped: NDArray[np.int64]

    @property
    def n_devices(self) -> int:
        """Edge devices of this phase."""
        return sum(len(g.names) for g in self.groups)


@dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit. ``nets[i]`` is the net of node i; ``nets[0]`` is the common-mode rail. ``passes`` are what was done on
    the way from edges to devices. ``banks`` are the capacitors of each phase in the one netlist of all phases, and
    those that its final voltages are read from. ``level`` is one of :data:`LEVELS`; at the MOS level the devices are
    those that the transistor cells stand for."""

    name: str
    nets: tuple[str, ...]
    scaling: Scaling
    stages: tuple[Stage, ...]
    passes: tuple[str, ...]
    banks: tuple[Bank, ...]
    level: str = "behavioral"

    @property
    def simulators(self) -> tuple[str, ...]:
        """The simulators that there are netlists for."""
        return ("ngspice", "vacask") if self.level == "behavioral" else ("ngspice",)

    @property
    def t_end(self) -> float:
        """Run time of all phases, in seconds, without transfer windows."""
        return sum(stage.duration for stage in self.stages)

    @cached_property
    def timeline(self) -> Timeline:
        """When the one netlist of all phases does what."""
        return make_timeline([stage.duration for stage in self.stages], self.banks)

    @property
    def sequenced(self) -> bool:
        """Whether there is more to do than to run one phase, so that there is a netlist with enables."""
        return len(self.stages) > 1 or self.n_transfers > 0

    @property
    def n_transfers(self) -> int:
        """Buffers of all transfer windows."""
        return sum(len(bank.transfers) for bank in self.banks)

    @property
    def g_transfer(self) -> float:
        """Conductance of a transfer's buffer, in siemens."""
        return SETTLING * self.scaling.c / (WINDOW * min(stage.duration for stage in self.stages))

    def run_time(self, gated: bool) -> float:
        """How long a run lasts, in seconds: all phases, and, in the one netlist of them, the transfer windows."""
        return self.timeline.end if gated else self.t_end

    def modules(self, gated: bool) -> dict[str, Shape | None]:
        """The Verilog-A modules that occur, by name, in the netlists of single phases, or in the one of all phases
        where ``gated``; None for a hand-written one. Only the behavioural level has any."""
        if self.level != "behavioral":
            return {}
        groups = [g.gated if gated else g for stage in self.stages for g in stage.groups]
        found = {g.table.module: g.table.shape for g in groups}
        return found | {MODULE: None} if gated and self.n_transfers else found

    def parts(self, gated: bool) -> tuple[Stage | None, ...]:
        """What there is a netlist of: each phase, or, where ``gated``, all of them together (None)."""
        return (None,) if gated else self.stages

    @property
    def n_devices(self) -> int:
        """Edge devices of all phases."""
        return sum(stage.n_devices for stage in self.stages)


def _export_problems(network: Network) -> list[str]:
    found = problems(network)
    bad = [
        n for n in network.node_names[1:] if not _IDENTIFIER.fullmatch(n) or n in _RESERVED or len(n) > _LONGEST_NAME
    ]
    if bad:
        found.append(
            f"{len(bad)} node names cannot be nets in every simulator (first: {bad[0]!r}); use lower-case letters, "
            f"digits and _, a letter first, at most {_LONGEST_NAME}, and none of {', '.join(sorted(_RESERVED))}"
        )
    made = [n for n in network.node_names[1:] if _MADE.fullmatch(n)]
    if made and (len(network.phases) > 1 or any(phase.residual_from is not None for phase in network.phases)):
        found.append(
            f"{len(made)} node names are kept for nets of the netlist of all phases (first: {made[0]!r}); use none of "
            "en<number>, tr<number>, <name>_p<number> and <name>_end"
        )
    return found


def require_exportable(network: Network, level: str = "behavioral") -> None:
    """Raise :class:`InvalidInputError` with every reason why ``network`` cannot become a circuit at ``level``."""
    found = _export_problems(network)
    if level != "behavioral" and len(network.phases) > 1:
        found.append(f"it has {len(network.phases)} phases; the {level} level is for one")
    made = [n for n in network.node_names[1:] if _MOS_MADE.fullmatch(n)]
    if level == "mos" and made:
        found.append(
            f"{len(made)} node names are kept for nets of the MOS level (first: {made[0]!r}); use none of vdd, vref, "
            "vbn, vbp, vclp, vdd_ideal, wr, wrb and wi_<name>"
        )
    if level == "structural":
        found += [text for phase in network.phases for text in two_terminal_problems(phase.edges)]
    if found:
        raise InvalidInputError(f"network {network.name!r} cannot be exported", found)


def build_circuit(
    network: Network,
    scaling: Scaling,
    passes: tuple[str, ...] = DEFAULT_PASSES,
    ranges: Sequence[Ranges] | None = None,
    level: str = "behavioral",
) -> Circuit:
    """The circuit of ``network`` at ``scaling`` and ``level``, lowered by ``passes``; ``ranges`` are the voltage ranges
    of each phase, in model units, that the pass ``drop`` needs.

    Raises
    ------
    InvalidInputError
        The network cannot become one; every reason is listed, and nothing was written.
    """
    require_exportable(network, level)
    stages = []
    several = len(network.phases) > 1
    for number, phase in enumerate(network.phases):
        lowered = lower(phase, passes, None if ranges is None else ranges[number])
        prefix = f"n{number}" if several else "n"
        groups = tuple(
            DeviceGroup(t, _in_si(t, scaling), tuple(f"{prefix}{t.letter}{i}" for i in t.number.tolist()))
            for t in lowered.tables
        )
        duration = phase.duration * scaling.t_unit
        stages.append(Stage(number, phase.n_nodes, duration, groups, lowered.folded, lowered.dropped))
    nets = (RAIL, *network.node_names[1:])
    return Circuit(network.name, nets, scaling, tuple(stages), passes, make_banks(nets, network.phases), level)


def _in_si(table: DeviceTable, s: Scaling) -> Floats:
    factor = {"S": s.g_unit, "A": s.i_unit, "V": s.v_unit, "1/V": 1 / s.v_unit, "1": 1.0}
    return table.values * [factor[UNITS[name.partition("_")[0]]] for name in table.parameters]
