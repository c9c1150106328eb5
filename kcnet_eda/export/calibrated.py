"""A die of a network as calibrated Verilog-A edges: one deck, one run. The device is ``veriloga/kc_cal_relu.va``,
and with transient noise also ``kc_cal_noise.va``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.edge_law import BuiltEdges
from kcnet_eda.export.circuit import RAIL, require_exportable
from kcnet_eda.export.render import render
from kcnet_eda.export.testbench import SolverSettings, Window
from kcnet_eda.network.graph import Network
from kcnet_eda.physical.edge_model import ADDED, EdgeModel
from kcnet_eda.physical.mismatch import UnitSpread
from kcnet_eda.physical.scaling import Scaling

Floats = NDArray[np.float64]

MODULE, NOISE = "kc_cal_relu", "kc_cal_noise"
_NETS_A_LINE = 8
_PAIRS_A_LINE = 8
_QUIET = ("conductance", "lag", "tnom")  # what the noise of an edge does not hang on


@dataclass(frozen=True, eq=False)
class CalibratedDie:
    """One die at one condition: ``edges`` [1, E] between ``ends`` without their own mismatch, of so many ``units``, by
    ``model``; ``normals`` [3, E] and ``spread`` are that mismatch (:class:`kcnet_eda.study.pvt.dies.Dies`)."""

    network: Network
    ends: tuple[NDArray[np.int64], NDArray[np.int64]]
    edges: BuiltEdges
    units: Floats
    model: EdgeModel
    spread: UnitSpread | None
    normals: Floats
    number: int
    temperature: float

    @property
    def nets(self) -> tuple[str, ...]:
        """The net of each node."""
        return (RAIL, *self.network.node_names[1:])


@dataclass(frozen=True, eq=False)
class DrawnNoise:
    """White noise of the edges of a transient run: normal ``numbers`` [points, E] at equal times from 0 to T, straight
    lines between them; γ is ``excess``, and ``mirror`` [G_u/I_u] as in :mod:`kcnet_eda.dynamics.noise`."""

    numbers: Floats
    excess: float
    mirror: float


def render_die(
    die: CalibratedDie,
    scaling: Scaling,
    settings: SolverSettings,
    v0: Floats,
    output: str,
    noise: DrawnNoise | None = None,
) -> tuple[str, Window]:
    """The deck that runs ``die`` from ``v0`` [nodes] in model units into ``<output>.raw``, and what that covers.
    ``noise`` is of a die without mismatch of its edges.

    Raises
    ------
    InvalidInputError
        The network cannot be a circuit.
    """
    require_exportable(die.network)
    duration = die.network.phases[0].duration * scaling.t_unit
    window = Window(die.nets[1:], duration, duration / settings.steps)
    names = ("theta1", "theta2", "size", "z_gain", "z_offset", "z_ratio")
    columns = np.stack([die.edges.theta1[0], die.edges.theta2[0], die.units, *die.normals], axis=1)
    shared = _shared(die, scaling)
    if die.spread is not None:
        shared |= {name: getattr(die.spread, name) for name in ("sigma_gain", "sigma_offset", "sigma_ratio")}
    nets = window.nets
    deck = render(
        "ngspice/calibrated.j2",
        die=die.number,
        name=die.network.name,
        scaling=scaling,
        rail=RAIL,
        nodes=list(zip(nets, (v0[1:] * scaling.v_unit).tolist(), strict=True)),
        temperature=die.temperature,
        settings=settings,
        tolerances=settings.tolerances(scaling),
        shared=shared,
        noise="" if noise is None else noise_lines(die, scaling, noise),
        edges=_instances(die, names, columns),
        save_lines=[nets[i : i + _NETS_A_LINE] for i in range(0, len(nets), _NETS_A_LINE)],
        t_step=window.t_step,
        t_end=window.t_end,
        output=output,
    )
    return deck, window


def noise_lines(die: CalibratedDie, scaling: Scaling, noise: DrawnNoise) -> str:
    """The devices and sources that make the noise of the edges of ``die``, which has no mismatch; none where γ is 0:
    kT/C alone is in the initial voltages, and a root of nothing has no slope for Newton to go by."""
    assert die.spread is None  # kc_cal_noise has no mismatch
    if noise.excess == 0:
        return ""
    time_ = np.linspace(0.0, die.network.phases[0].duration * scaling.t_unit, len(noise.numbers))
    columns = np.stack([die.edges.theta1[0], die.edges.theta2[0], die.units], axis=1)
    return render(
        "ngspice/noise.j2",
        rail=RAIL,
        shared={name: value for name, value in _shared(die, scaling).items() if name not in _QUIET},
        noise=noise,
        noise_step=time_[1],
        edges=_instances(die, ("theta1", "theta2", "size"), columns),
        sources=[_pairs(time_, numbers) for numbers in noise.numbers.T],
    )


def _shared(die: CalibratedDie, scaling: Scaling) -> dict[str, float]:
    """What all edges have in common."""
    shared = {name: getattr(die.model, name) for name in ADDED}
    return shared | {
        "lag": die.model.lag,
        "i_unit": scaling.i_unit,
        "v_unit": scaling.v_unit,
        "tnom": die.temperature,
    }


def _instances(
    die: CalibratedDie, names: tuple[str, ...], columns: Floats
) -> list[tuple[str, str, list[tuple[str, float]]]]:
    """Source, target and own parameters ``columns`` [E, names] of each edge."""
    source, target = ([die.nets[node] for node in end.tolist()] for end in die.ends)
    rows = (list(zip(names, row, strict=True)) for row in columns.tolist())
    return list(zip(source, target, rows, strict=True))


def _pairs(time_: Floats, values: Floats) -> list[str]:
    """Points of a piecewise linear source, several a line."""
    words = [f"{t:.9g} {v:.7g}" for t, v in zip(time_.tolist(), values.tolist(), strict=True)]
    return [" ".join(words[i : i + _PAIRS_A_LINE]) for i in range(0, len(words), _PAIRS_A_LINE)]
