"""How node voltages pass from phase to phase in the one netlist of all phases: capacitor banks, transfers, and when.

A node keeps its capacitor into the next phase where it just goes on from its voltage. Where it has to start at another
one (a residual was added, a new node repeats an older one), or where its voltage is needed again later (as a residual),
it goes on as another capacitor. In a *transfer window* before that phase, in which no edge conducts, a buffer
(``veriloga/kc_transfer.va``) drives the new capacitor to the voltage of one older capacitor or the sum of two. Those
stand still meanwhile, so nothing is read while it is written, and the capacitors left behind are the memory that a
later residual reads.

The arithmetic. A window lasts W = ``WINDOW`` times the shortest phase D, a buffer's conductance g is ``SETTLING`` times
C/W. Of the voltage that a transfer moves exp(-g·t/C) remains; the enable's edges and the gaps that keep it apart from
the phases' enables cost at most 2 % of W, so that is at most exp(-19.6) = 3e-9, far under the smallest error that can
be asked for (1e-6). A run with windows takes steps of at most C/g, whatever its phases need: there the trapezoidal
rule's factor a step, 1/3 or less, is below exp(-1), and that of the Adams-Moulton rule of order 3 is 0.387, which
leaves 7e-9 after 19.6 of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.network.graph import Floats, Phase

MODULE = "kc_transfer"
#: A transfer window's length over that of the shortest phase.
WINDOW = 0.5
#: A transfer window's length over a buffer's time constant C/g.
SETTLING = 20.0


@dataclass(frozen=True)
class Transfer:
    """The capacitor on ``target`` takes the sum of the voltages on ``first`` and ``second`` (the rail: nothing)."""

    target: str
    first: str
    second: str


@dataclass(frozen=True, eq=False)
class Bank:
    """The capacitors that a phase runs on: ``nets[i]`` is the net of node i. ``transfers`` fill it in the window before
    the phase; without any there is no window."""

    nets: tuple[str, ...]
    transfers: tuple[Transfer, ...]


def make_banks(nets: Sequence[str], phases: Sequence[Phase]) -> tuple[Bank, ...]:
    """The bank of each phase, and one more: where the final voltages are read. ``nets`` are the nodes' own nets, the
    rail first.

    A node that a phase drops and a later one has again starts as that one's ``fill`` says, so it comes back as another
    capacitor: one that nothing has driven yet stands at the common mode.
    """
    rail = nets[0]
    remembered = {p.residual_from for number, p in enumerate(phases) if p.residual_from != number}
    banks = [Bank(tuple(nets[: phases[0].n_nodes]), ())]
    seen = set(banks[0].nets)
    for number, phase in enumerate(phases):
        now = banks[number].nets
        following = phases[number + 1] if number + 1 < len(phases) else None
        n_nodes = phase.n_nodes if following is None else following.n_nodes
        suffix = "end" if following is None else f"p{number + 1}"
        held = min(phase.n_nodes, n_nodes)
        earlier = None if phase.residual_from is None else banks[phase.residual_from].nets
        moved = earlier is not None or (following is not None and number in remembered)
        # The node of the phase that ends whose voltage a node starts at; ground: it starts at 0.
        source = list(range(held)) + (
            [1 + i % (held - 1) for i in range(n_nodes - held)]
            if following is not None and following.fill == "repeat"
            else [0] * (n_nodes - held)
        )
        names, transfers = [rail], []
        for node in range(1, n_nodes):
            if node < held and not moved:
                names.append(now[node])
                continue
            name = f"{nets[node]}_{suffix}" if nets[node] in seen else nets[node]
            names.append(name)
            if source[node]:
                second = rail if earlier is None else earlier[source[node]]
                transfers.append(Transfer(name, now[source[node]], second))
        banks.append(Bank(tuple(names), tuple(transfers)))
        seen.update(names)
    return tuple(banks)


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the one netlist does what, in seconds: (begin, end) of each phase, and of the transfer window before a bank,
    by the bank's number; ``end`` is that of the run."""

    phases: tuple[tuple[float, float], ...]
    windows: Mapping[int, tuple[float, float]]
    end: float

    @property
    def in_windows(self) -> float:
        """Time spent in transfer windows."""
        return sum(end - begin for begin, end in self.windows.values())


def make_timeline(durations: Sequence[float], banks: Sequence[Bank]) -> Timeline:
    """The timeline of phases of these ``durations``."""
    window = WINDOW * min(durations)
    at, phases, windows = 0.0, [], {}
    for number, bank in enumerate(banks):
        if bank.transfers:
            windows[number] = (at, at + window)
            at += window
        if number < len(durations):
            phases.append((at, at + durations[number]))
            at += durations[number]
    return Timeline(tuple(phases), windows, at)


def time_in_phases(times: NDArray[np.float64], windows: Sequence[Sequence[float]]) -> Floats:
    """``times`` without what of the ``windows`` (begin, end) lies before them: how long the network has evolved."""
    return np.asarray(times - sum(np.clip(times, begin, end) - begin for begin, end in windows))
