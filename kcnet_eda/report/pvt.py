"""The report of a study over conditions and dies: a heat map of accuracy, the yield against its limit, the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcnet_eda.export.render import render
from kcnet_eda.report import figures
from kcnet_eda.report.sample import Labelled
from kcnet_eda.study.pvt.chain import CALIBRATED, WORST
from kcnet_eda.study.pvt.record import checks
from kcnet_eda.units import format_si

#: The templates of the whole page, and of its body as a section of a combined page.
PAGE, BODY = "report/pvt.html.j2", "report/pvt_body.html.j2"

_SHOWN = 20  # edges
#: How the page calls a level that cases were repeated at.
LEVEL_TEXT = {
    "behavioral": "calibrated Verilog-A edges",
    "mos": "transistors, nominal die",
    CALIBRATED: "the chain’s calibrated edges",
    WORST: "the chain’s transistors at the worst corner",
}


def pvt_html(record: dict[str, Any], right: figures.Counts, circuits: list[Labelled], template: str = PAGE) -> str:
    """The report as one page, or its body alone by the template :data:`BODY`.

    ``right`` [conditions, dies] are right samples of each die; ``circuits`` are those of the chain, whose
    changed labels are shown.
    """
    rows, s = record["conditions"], record["summary"]
    places = [(f"{row['corner']}/{row['resistor']}", _column(row)) for row in rows]
    corners, columns = (list(dict.fromkeys(of)) for of in zip(*places, strict=True))
    mean = np.full((len(corners), len(columns)), np.nan)  # a grid of one axis at a time leaves gaps
    for (corner, column), row in zip(places, rows, strict=True):
        mean[corners.index(corner), columns.index(column)] = row["accuracy"]
    of_dies = right / s["samples"]
    worst = of_dies[s["worst_index"]]
    sensitivity = record.get("sensitivity")
    return render(
        template,
        r=record,
        s=s,
        checks=list(checks(record).values()),
        level_text=LEVEL_TEXT,
        circuits=circuits,
        worst=rows[s["worst_index"]],
        least=min(rows, key=lambda row: row["accuracy"]),
        si=lambda value, unit: f"{100 * value:.2f} %" if unit == "" else format_si(value, unit),
        plotly_js=figures.plotly_js(),
        ranking=_ranking(sensitivity) if sensitivity else None,
        heat=figures.heat_map(corners, columns, 100 * mean),
        curve=figures.yield_curve({s["worst"]: worst, "every condition": of_dies.min(axis=0)}),
    )


def _column(row: dict[str, Any]) -> str:
    """What a row's point is but for its corners; records from before there were errors of writing and reading have
    none."""
    words = [f"{row['supply']:g} V, {row['temperature']:g} °C"]
    for name, unit in (("write_error", "V"), ("jitter", "s")):
        words += [f"{name.replace('_', ' ')} {format_si(row[name], unit)}"] if row.get(name) else []
    return ", ".join(words)


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
