"""The report of a study over conditions and dies: a heat map of accuracy, the yield against its limit, the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcnet_eda.export.render import render
from kcnet_eda.report import figures

#: The templates of the whole page, and of its body as a section of a combined page.
PAGE, BODY = "report/pvt.html.j2", "report/pvt_body.html.j2"

_SHOWN = 20  # edges


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
    sensitivity = record.get("sensitivity")
    return render(
        template,
        r=record,
        s=s,
        plotly_js=figures.plotly_js(),
        ranking=_ranking(sensitivity) if sensitivity else None,
        heat=figures.heat_map(corners, columns, 100 * mean),
        curve=figures.yield_curve({s["worst"]: worst, "every condition": of_dies.min(axis=0)}),
    )


def _ranking(sensitivity: dict[str, Any]) -> str:
    """The first edges of the list as bars, in points of smoothed yield."""
    rows = [row for row in sensitivity["edges"] if row["difference"] is not None][:_SHOWN]
    return figures.ranking(
        [f"{row['source']} → {row['target']} (edge {row['edge']})" for row in rows],
        {
            "run again with half its σ": [100 * row["difference"] for row in rows],
            "by the gradient": [100 * row["gradient"] for row in rows],
        },
        [100 * row["error"] for row in rows],
        "smoothed yield gained, points",
    )
