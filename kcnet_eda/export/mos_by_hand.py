"""What a designer checks by hand: pictures and symbol of the cells, a deck with one cell, and the words that go with
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcnet_eda.export.mos_bench import PIN_FREQUENCY
from kcnet_eda.export.mos_cells import BIAS
from kcnet_eda.export.mos_netlist import MosCircuit
from kcnet_eda.export.render import render
from kcnet_eda.export.schematic import write_schematics
from kcnet_eda.physical.calibration import example_cell
from kcnet_eda.physical.cell_design import BOX

CELL = "kc_cell"  # what testbench/cell.sp calls the kind that the reader put into it


def write_by_hand(folder: Path, mos: MosCircuit) -> None:
    """Write ``schematic/`` and ``testbench/cell.sp`` of a bundle."""
    examples = {
        g.found.kind: (g.names[example_cell(g.found)], g.found.theta[example_cell(g.found)]) for g in mos.groups
    }
    write_schematics(folder / "schematic", mos.pdk, mos.design, examples)
    header = mos.header("../models", [f"../osdi/{o.module}.osdi" for o in mos.pdk.osdi])
    text = render("mos/cell.j2", header=header, design=mos.design, box=BOX, cell=CELL, bias_name=BIAS)
    (folder / "testbench" / "cell.sp").write_text(text)


def by_hand(mos: MosCircuit) -> dict[str, Any]:
    """What the README says of that check: the kind of cell and what was measured of it."""
    group = mos.groups[0]
    at, c = example_cell(group.found), group.found
    return {
        "kind": group.names[at],
        "law": c.kind.name,
        "cell": CELL,
        "bias_name": BIAS,
        "frequency": PIN_FREQUENCY,
        "theta1": float(c.theta1[at]),
        "theta2": float(c.theta2[at]),
        "fitted1": float(c.fitted1[at]),
        "fitted2": float(c.fitted2[at]),
        "leakage": float(c.leakage[at]),
        "source_pin": float(c.source_pin[at]),
        "mismatch": float(c.mismatch[at]),
        "gain": float(c.theta[at, 2]),
        "fitted_gain": float(c.fitted[at, 2]),
        "full_scale": float(c.full_scale[at]),
    }
