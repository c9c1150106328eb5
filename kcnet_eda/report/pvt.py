"""The report of a study over conditions and dies: a heat map of accuracy, the yield against its limit, the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcnet_eda.export.render import render
from kcnet_eda.report import figures

#: The templates of the whole page, and of its body as a section of a combined page.
PAGE, BODY = "report/pvt.html.j2", "report/pvt_body.html.j2"


def pvt_html(record: dict[str, Any], right: figures.Counts, template: str = PAGE) -> str:
    """The report as one page, or its body alone by the template :data:`BODY`.

    ``right`` [conditions, dies] are right samples of each die.
    """
    rows, s = record["conditions"], record["summary"]
    corners = list(dict.fromkeys(f"{row['corner']}/{row['resistor']}" for row in rows))
    columns = list(dict.fromkeys(f"{row['supply']:g} V, {row['temperature']:g} °C" for row in rows))
    mean = np.array([row["accuracy"] for row in rows]).reshape(len(corners), len(columns))
    of_dies = right / s["samples"]
    worst = of_dies[s["worst_index"]]
    return render(
        template,
        r=record,
        s=s,
        plotly_js=figures.plotly_js(),
        heat=figures.heat_map(corners, columns, 100 * mean),
        curve=figures.yield_curve({s["worst"]: worst, "every condition": of_dies.min(axis=0)}),
    )
