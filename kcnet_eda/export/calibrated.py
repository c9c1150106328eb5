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
    if noise is not None and noise.excess == 0:
        noise = None  # kT/C alone, which is in v0; and a root of nothing has no slope for Newton to go by
    duration = die.network.phases[0].duration * scaling.t_unit
    window = Window(die.nets[1:], duration, duration / settings.steps)
    shared = {name: getattr(die.model, name) for name in ADDED}
    shared |= {"lag": die.model.lag, "i_unit": scaling.i_unit, "v_unit": scaling.v_unit, "tnom": die.temperature}
    if die.spread is not None:
        shared |= {name: getattr(die.spread, name) for name in ("sigma_gain", "sigma_offset", "sigma_ratio")}
    names = ("theta1", "theta2", "size", "z_gain", "z_offset", "z_ratio")
    columns = np.stack([die.edges.theta1[0], die.edges.theta2[0], die.units, *die.normals], axis=1).tolist()
    source, target = ([die.nets[node] for node in end.tolist()] for end in die.ends)
    nets = window.nets
    sources = []
    if noise is not None:
        assert die.spread is None  # kc_cal_noise has no mismatch
        time_ = np.linspace(0.0, duration, len(noise.numbers))
        sources = [_pairs(time_, numbers) for numbers in noise.numbers.T]
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
        noise=noise,
        noise_shared=[name for name in shared if name not in _QUIET],
        noise_step=None if noise is None else duration / (len(noise.numbers) - 1),
        sources=sources,
        edges=[(s, d, list(zip(names, row, strict=True))) for s, d, row in zip(source, target, columns, strict=True)],
        save_lines=[nets[i : i + _NETS_A_LINE] for i in range(0, len(nets), _NETS_A_LINE)],
        t_step=window.t_step,
        t_end=window.t_end,
        output=output,
    )
    return deck, window


def _pairs(time_: Floats, values: Floats) -> list[str]:
    """Points of a piecewise linear source, several a line."""
    words = [f"{t:.9g} {v:.7g}" for t, v in zip(time_.tolist(), values.tolist(), strict=True)]
    return [" ".join(words[i : i + _PAIRS_A_LINE]) for i in range(0, len(words), _PAIRS_A_LINE)]
