"""The Verilog-A of a circuit's modules: hand-written for one edge, generated for the shapes that lowering makes."""

from __future__ import annotations

from kcnet_eda.export.render import render
from kcnet_eda.files import resource_dir
from kcnet_eda.lowering.devices import Shape


def module_source(module: str, shape: Shape | None) -> str:
    """The Verilog-A text of a module; of a hand-written one where ``shape`` is None."""
    if shape is None:
        return (resource_dir("veriloga") / f"{module}.va").read_text()
    return render("veriloga/device.va.j2", module=module, kind=shape.kind, terms=shape.terms, gated=shape.gated)
