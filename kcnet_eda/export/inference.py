"""A whole inference as one netlist: nodes are written through switches, the network evolves, its outputs are sampled
and compared.

The order. All nodes are switched to the common mode (precharge: what the sample before left is erased); the switches'
sources step to the inputs (write); the switches open and the edges conduct (evolve, with transfer windows between
phases where there are any); at the end of T the edges' enable falls and the outputs stand; when the sample-and-holds
have settled to them they let go within the aperture; then the comparator tree is enabled, each level when those before
it have settled. The blocks are ``veriloga/kc_switch.va``, ``kc_sample_hold.va`` and ``kc_argmax.va``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.export.circuit import Circuit
from kcnet_eda.export.netlist import all_nets, render_gated_netlist
from kcnet_eda.export.render import render

MODULES = ("kc_switch", "kc_sample_hold", "kc_argmax")
#: Edges of the switches' enable and sources over the shortest time constant of the blocks: too short to be seen in it.
_EDGE = 0.02
_SIMULATOR = "ngspice"


@dataclass(frozen=True)
class Cell:
    """A cell of the comparator tree: nets of its two inputs, of the higher voltage, and of the decision."""

    a: str
    b: str
    high: str
    decision: str


def comparator_tree(nets: Sequence[str]) -> list[list[Cell]]:
    """The cells, level by level, that find the highest of ``nets``; an odd net goes on to the next level as it is."""
    levels: list[list[Cell]] = []
    now = list(nets)
    while len(now) > 1:
        number = len(levels)
        cells = [
            Cell(now[2 * i], now[2 * i + 1], f"kc_m{number}_{i}", f"kc_w{number}_{i}") for i in range(len(now) // 2)
        ]
        levels.append(cells)
        now = [cell.high for cell in cells] + now[2 * len(cells) :]
    return levels


def decode(
    levels: Sequence[Sequence[Cell]], nets: Sequence[str], decisions: dict[str, NDArray[np.float64]]
) -> NDArray[np.int64]:
    """The position in ``nets`` that the decisions [points] of the tree name, at every point; -1 where one of those on
    the way is 0: nothing has been decided."""
    points = next(iter(decisions.values())).size if decisions else 1
    label = {net: np.full(points, i) for i, net in enumerate(nets)}
    for cells in levels:
        for cell in cells:
            won = decisions[cell.decision]
            label[cell.high] = np.where(won > 0, label[cell.a], np.where(won < 0, label[cell.b], -1))
    return label[levels[-1][-1].high if levels else nets[0]]


@dataclass(frozen=True)
class Blocks:
    """What stands around the network, seconds and SI units: the time given to precharge, write, and following the
    outputs, the switches' resistance, the tracking buffers' and the comparators' time constants, the aperture, the
    comparators' resolution [V], and the time given to each level of their tree. All capacitors are the nodes' C."""

    precharge: float
    write: float
    follow: float
    switch_ohms: float
    tau_sample: float
    aperture: float
    tau_compare: float
    resolution: float
    level: float


@dataclass(frozen=True, eq=False)
class InferencePlan:
    """When a whole inference does what, in seconds from its start, and the nets that its outputs and decisions are
    on."""

    circuit: Circuit
    blocks: Blocks
    holds: tuple[str, ...]
    levels: tuple[tuple[Cell, ...], ...]

    @property
    def write_begin(self) -> float:
        """Where the precharge ends and the inputs are written."""
        return self.blocks.precharge

    @property
    def edge(self) -> float:
        """How long an edge of the enables takes."""
        b = self.blocks
        return _EDGE * min(b.switch_ohms * self.circuit.scaling.c, b.tau_sample, b.tau_compare)

    @property
    def written_at(self) -> float:
        """Where the switches are open: two edges before the network begins, which nothing then holds back."""
        return self.evolve_begin - 2 * self.edge

    @property
    def evolve_begin(self) -> float:
        """Where the switches are open and the edges begin to conduct."""
        return self.blocks.precharge + self.blocks.write

    @property
    def evolve_end(self) -> float:
        """T after that: where the edges stop."""
        return self.evolve_begin + self.circuit.run_time(True)

    @property
    def sample_at(self) -> float:
        """Where the sample-and-holds have settled and begin to let go."""
        return self.evolve_end + self.blocks.follow

    @property
    def compare_begin(self) -> float:
        """Where the aperture ends and the comparators begin."""
        return self.sample_at + self.blocks.aperture

    @property
    def end(self) -> float:
        """Where the label stands."""
        return self.compare_begin + len(self.levels) * self.blocks.level

    @property
    def nets(self) -> tuple[str, ...]:
        """Every net that has a capacitor: nodes, holds, and the comparators' outputs."""
        cells = [cell for level in self.levels for cell in level]
        return (*all_nets(self.circuit), *self.holds, *(n for cell in cells for n in (cell.high, cell.decision)))


def plan_inference(circuit: Circuit, blocks: Blocks, readout: Sequence[int]) -> InferencePlan:
    """The plan of a whole inference of ``circuit``, whose outputs are the nodes ``readout``."""
    holds = tuple(f"kc_h{i}" for i in range(len(readout)))
    return InferencePlan(circuit, blocks, holds, tuple(map(tuple, comparator_tree(holds))))


def render_inference(
    plan: InferencePlan, readout: Sequence[int], inputs: NDArray[np.float64], steps: int, title: str
) -> str:
    """The netlist of one inference: the network with enables, and the blocks around it; ``inputs`` [nodes of the first
    phase without ground] in volts above the rail are what is written. ``steps`` are the solver's steps a phase."""
    circuit, b = plan.circuit, plan.blocks
    outputs = [circuit.banks[-1].nets[n] for n in readout]
    # Each level is enabled when those before it have settled.
    level_begins = [plan.compare_begin + i * b.level for i in range(len(plan.levels))]
    corners = [
        plan.write_begin,
        plan.evolve_begin,
        plan.evolve_end,
        plan.sample_at,
        plan.compare_begin,
        *level_begins[1:],
    ]
    assert all(before < after for before, after in pairwise(corners))
    return render_gated_netlist(circuit, steps, _SIMULATOR, plan.evolve_begin, freeze=True) + render(
        "ngspice/inference.j2",
        title=title,
        plan=plan,
        blocks=b,
        edge=plan.edge,
        rail=circuit.nets[0],
        c=circuit.scaling.c,
        v_unit=circuit.scaling.v_unit,
        written=list(zip(all_nets(circuit), inputs.tolist(), strict=False)),
        followed=list(zip(outputs, plan.holds, strict=True)),
        levels=list(zip(level_begins, plan.levels, strict=True)),
        g_sample=circuit.scaling.c / b.tau_sample,
        g_compare=circuit.scaling.c / b.tau_compare,
    )
