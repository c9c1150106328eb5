"""The report of a latency study: a verdict for each claim, and a figure and a table for each section that was run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from kcnet_eda.export.render import render
from kcnet_eda.report import figures
from kcnet_eda.study.latency.record import BOUND_BY, NOT_RUN, QUANTITY, TABLES, kit_names
from kcnet_eda.study.tables import markdown_text

#: The templates of the whole page, and of its body as a section of a combined page.
PAGE, BODY = "report/latency.html.j2", "report/latency_body.html.j2"

Record = dict[str, Any]
_MARKED = ("write", "evolve", "freeze")  # instants that lie far enough apart to be named
_MOST_ROWS = 60  # of a table in Markdown
_PS = 1e12  # for axes: what picoseconds a second has


def latency_html(record: Record, arrays: dict[str, NDArray[Any]], template: str = PAGE) -> str:
    """The report as one page, or its body alone by the template :data:`BODY`.

    ``arrays`` are those of the run's ``outputs.npz``.
    """
    sections = record["sections"]
    drawers: dict[str, Callable[[Record], list[str]]] = {
        "size": _size,
        "decision": _decision,
        "inference": partial(_inference, arrays=arrays),
        "physical": _physical,
    }
    plots = {
        name: draw(sections[name])
        if sections[name]["status"] != NOT_RUN
        and sections[name].get(
            {"size": "rows", "decision": "early_exit", "inference": "steps", "physical": "points"}[name]
        )
        else []
        for name, draw in drawers.items()
    }
    return render(
        template,
        r=record,
        s=record["summary"],
        sections=sections,
        not_run=NOT_RUN,
        bound_by=BOUND_BY,
        quantity=QUANTITY,
        plotly_js=figures.plotly_js(),
        plots=plots,
    )


def latency_markdown(record: Record) -> str:
    """The same for people without a browser: verdicts, and each section's tables."""
    return render(
        "report/latency.md.j2", r=record, not_run=NOT_RUN, tables=TABLES, table=markdown_text, most=_MOST_ROWS
    )


def _size(section: Record) -> list[str]:
    rows = [row for row in section["rows"] if row["family"] == "grid" and row["current_peak"] is not None]
    quantities = {
        "T, ps": ("t_total_s", _PS),
        "total current, A": ("current_peak", 1.0),
        "charge, nC": ("charge", 1e9),
        "heat, nJ": ("energy_heat", 1e9),
    }
    once = list({row["edges"]: row for row in rows}.values())
    series = {
        text: ([row["edges"] for row in once], [row[name] * factor for row in once])
        for text, (name, factor) in quantities.items()
    }
    for simulator in dict.fromkeys(row["simulator"] for row in rows):
        own = [row for row in rows if row["simulator"] == simulator]
        series[f"simulation, {simulator}, s"] = ([row["edges"] for row in own], [row["wall_s"] for row in own])
    return [figures.lines("size", series, ("trained edges", "as the legend says"), (True, True))]


def _decision(section: Record) -> list[str]:
    curve = section["early_exit"]
    t, value = [p["share_of_t"] for p in curve], [100 * p["accuracy"]["value"] for p in curve]
    low, high = ([100 * p["accuracy"]["wilson95"][i] for p in curve] for i in range(2))
    decided = sorted(row["decision_s"] / section["t_read_s"] for row in section["samples"])
    share = [100 * (i + 1) / len(decided) for i in range(len(decided))]
    sigma = [p["sigma_s"] / section["t_read_s"] for p in section["jitter"] if p["sigma_s"]]
    lost = [100 * p["lost"] for p in section["jitter"] if p["sigma_s"]]
    return [
        figures.band("exit", t, value, low, high, ("read at, of T", "accuracy, % (95 % band)")),
        figures.lines("decided", {"decided": (decided, share)}, ("time, of T", "samples decided, %"), steps=True),
        figures.lines(
            "jitter",
            {"lost": (sigma, lost)},
            ("σ of the time of reading, of T", "accuracy lost, points"),
            (True, False),
        ),
    ]


def _inference(section: Record, arrays: dict[str, NDArray[Any]]) -> list[str]:
    steps = [step for step in section["steps"] if step["given_s"]]
    times = [step["given_s"] / section["t_total_s"] for step in steps]
    plots = [figures.bars("blocks", [step["step"] for step in steps], times, "time, of T")]
    if "inference_time" in arrays:
        names = section["outputs"]
        t = (arrays["inference_time"] / section["t_total_s"]).tolist()
        held = arrays["inference_volts"][:, len(names) :].T.tolist()
        series = {f"held {name}": (t, volts) for name, volts in zip(names, held, strict=True)}
        marks = {name: at / section["t_total_s"] for name, at in section["instants_s"].items() if name in _MARKED}
        plots.append(figures.lines("whole", series, ("time, of T", "V"), markers=False, upright=marks))
    return plots


def _physical(section: Record) -> list[str]:
    points = [p for p in section["points"] if p["passed"]]
    if not points:
        return []
    names = kit_names(section["kits"])
    shares, errors, energies = {}, {}, {}
    for at in dict.fromkeys((p["kit"], p["current_factor"]) for p in points):
        own = [p for p in points if (p["kit"], p["current_factor"]) == at]
        several = len({p["current_factor"] for p in points if p["kit"] == at[0]}) > 1
        name = f"{names[at[0]]}{f', {at[1]:g} I_u' if several else ''}"
        t = [1e9 * p["t_total_s"] for p in own]
        shares[f"{name}: accuracy"] = (t, [100 * p["accuracy"]["value"] for p in own])
        shares[f"{name}: labels as software"] = (t, [100 * p["agreement"]["value"] for p in own])
        errors[f"{name}: median of the largest"] = (t, [p["error_median"] for p in own])
        errors[f"{name}: rms"] = (t, [p["error_rms"] for p in own])
        energies[name] = (t, [1e9 * p["energy_j"] for p in own])
    plots = [
        figures.lines("knee", shares, ("T, ns", "%"), (True, False)),
        figures.lines("error", errors, ("T, ns", "node error, V_u"), (True, True)),
        figures.lines("energy", energies, ("T, ns", "energy of an inference, nJ"), (True, True)),
    ]
    noise = {}
    for name, own in _by_kit(names, section["noise"], lambda row: row["passed"] > 0):
        noise[f"{name}: ngspice, {own[0]['n']} samples"] = _accuracies(own, lambda row: row["accuracy"])
    for name, own in _by_kit(names, section["noise"], lambda row: row["engine"]["accuracy"] is not None):
        of_engine = f"{name}: fast engine, {own[0]['engine']['accuracy']['n']}"
        noise[of_engine] = _accuracies(own, lambda row: row["engine"]["accuracy"])
    if noise:
        plots.append(figures.lines("noise", noise, ("C, F", "accuracy with noise, %"), (True, False)))
    supply = _by_kit(names, section["supply"], lambda row: row["passed"] > 0)
    if supply:
        drops = {name: ([r["drop_v"] for r in own], [r["error_median"] for r in own]) for name, own in supply}
        plots.append(
            figures.lines("supply", drops, ("lost in the supply's wiring, V", "median of the largest error, V_u"))
        )
    return plots


def _accuracies(rows: list[Record], of: Callable[[Record], Record]) -> tuple[list[float], list[float]]:
    return [row["c"] for row in rows], [100 * of(row)["value"] for row in rows]


def _by_kit(names: list[str], rows: list[Record], shown: Callable[[Record], bool]) -> list[tuple[str, list[Record]]]:
    """The rows to be shown of each kit, with its name."""
    own = ((name, [row for row in rows if row["kit"] == i and shown(row)]) for i, name in enumerate(names))
    return [(name, of_kit) for name, of_kit in own if of_kit]
