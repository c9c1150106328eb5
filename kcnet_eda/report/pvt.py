"""The report of a study over conditions and dies: a heat map of accuracy, the yield against its limit, the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcnet_eda.export.render import render
from kcnet_eda.report import figures


def pvt_html(record: dict[str, Any], right: figures.Counts) -> str:
    """The report as one page; ``right`` [conditions, dies] are right samples of each die."""
    rows, s = record["conditions"], record["summary"]
    corners = list(dict.fromkeys(f"{row['corner']}/{row['resistor']}" for row in rows))
    columns = list(dict.fromkeys(f"{row['supply']:g} V, {row['temperature']:g} °C" for row in rows))
    mean = np.array([row["accuracy"] for row in rows]).reshape(len(corners), len(columns))
    of_dies = right / s["samples"]
    worst = of_dies[s["worst_index"]]
    return render(
        "report/pvt.html.j2",
        r=record,
        s=s,
        plotly_js=figures.plotly_js(),
        heat=figures.heat_map(corners, columns, 100 * mean),
        curve=figures.yield_curve({s["worst"]: worst, "every condition": of_dies.min(axis=0)}),
    )
