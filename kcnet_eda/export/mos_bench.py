"""The deck that measures edge cells: all of them swept over the box of node voltages at once."""

from __future__ import annotations

from collections.abc import Sequence

from kcnet_eda.export.mos_cells import bench
from kcnet_eda.export.render import render
from kcnet_eda.physical.cell_design import BOX, CellDesign
from kcnet_eda.physical.cell_kind import Sizes
from kcnet_eda.physical.pdk import Pdk

#: Hertz at which pin capacitances are measured: slow for every node of the cell.
PIN_FREQUENCY = 1e5


def render_calibration(
    pdk: Pdk,
    design: CellDesign,
    header: str,
    sizes: Sizes,
    theta: Sequence[Sequence[float]],
    *,
    points: tuple[int, int],
    capacitance: bool,
    direct: bool,
    supply: float | None = None,
) -> str:
    """Sweep every cell at ``points`` (of :func:`kcnet_eda.physical.relu_fit.box_points`) into ``sweep.raw``; with
    ``capacitance`` also an AC point with s moved into ``pin_s.raw`` and one with d moved into ``pin_d.raw``.
    ``supply`` [V] is the design's if None."""
    return render(
        "mos/calibrate.j2",
        **bench(pdk, design, header, sizes, theta, len(sizes), direct=direct, supply=supply),
        theta=theta,
        box=BOX,
        n_x=points[0],
        n_u=points[1],
        capacitance=capacitance,
        frequency=PIN_FREQUENCY,
    )
