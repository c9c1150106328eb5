"""The report of an adjoint study: errors of its gradients, sample by sample and against the steps."""

from __future__ import annotations

from typing import Any

from kcnet_eda.export.render import render
from kcnet_eda.report import figures

#: The templates of the whole page, and of its body as a section of a combined page.
PAGE, BODY = "report/adjoint.html.j2", "report/adjoint_body.html.j2"

#: What is drawn and judged, by its name in the record.
SHOWN = {"v0": "∂L/∂v(0)", "edges": "∂L/∂(a, b, c, k)", "theta": "∂L/∂(θ1, θ2)"}


def convergence_plot(record: dict[str, Any]) -> str | None:
    """An HTML fragment: worst errors over the samples against the steps; None where there is nothing to compare."""
    rows = record["convergence"]
    if len(rows) < 2 or not all(row["n"] for row in rows):
        return None
    errors = {
        text: [row["errors"][name]["max"] for row in rows] for name, text in SHOWN.items() if name in rows[0]["errors"]
    }
    order = record["provenance"]["solver"]["order"]
    return figures.convergence([row["steps"] for row in rows], errors, order, record["summary"]["requested"])


def adjoint_html(record: dict[str, Any], template: str = PAGE) -> str:
    """The report as one page, or its body alone by the template :data:`BODY`."""
    return render(
        template,
        r=record,
        s=record["summary"],
        plotly_js=figures.plotly_js(),
        plot=convergence_plot(record),
    )
