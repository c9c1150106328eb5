"""The report of a latency study: a verdict for each claim, and a figure and a table for each section that was run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from kcnet_eda.export.render import render
from kcnet_eda.report import figures
from kcnet_eda.study.latency_record import NOT_RUN

#: The templates of the whole page, and of its body as a section of a combined page.
PAGE, BODY = "report/latency.html.j2", "report/latency_body.html.j2"

Record = dict[str, Any]
_MARKED = ("write", "evolve", "freeze")  # instants that lie far enough apart to be named
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
        plotly_js=figures.plotly_js(),
        plots=plots,
    )


def _size(section: Record) -> list[str]:
    rows = [row for row in section["rows"] if row["family"] == "grid" and row["current_peak"] is not None]
    quantities = {
        "T, ps": ("t_total_s", _PS),
        "simulation, s": ("wall_s", 1.0),
        "total current, A": ("current_peak", 1.0),
        "charge, nC": ("charge", 1e9),
        "heat, nJ": ("energy_heat", 1e9),
    }
    edges = [row["edges"] for row in rows]
    series = {text: (edges, [row[name] * factor for row in rows]) for text, (name, factor) in quantities.items()}
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
        figures.lines("decided", {"decided": (decided, share)}, ("time, of T", "samples decided, %"), markers=False),
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
    points = [p for p in section["points"] if p["built"] and p["passed"]]
    if not points:
        return []
    knee = section["knee"]
    shares, errors, energies = {}, {}, {}
    for factor in dict.fromkeys(p["current_factor"] for p in points):
        own = [p for p in points if p["current_factor"] == factor]
        t = [1e9 * p["t_total_s"] for p in own]
        of = "" if len({p["current_factor"] for p in points}) == 1 else f", {factor:g} I_u"
        shares[f"accuracy{of}"] = (t, [100 * p["accuracy"]["value"] for p in own])
        shares[f"labels as software{of}"] = (t, [100 * p["agreement"]["value"] for p in own])
        errors[f"largest node error{of}"] = (t, [p["error_max"] for p in own])
        errors[f"rms node error{of}"] = (t, [p["error_rms"] for p in own])
        energies[f"energy{of}"] = (t, [1e9 * p["energy_j"] for p in own])
    mark = {} if knee is None else {"knee": 1e9 * knee["t_total_s"]}
    return [
        figures.lines("knee", shares, ("T, ns", "%"), (True, False), upright=mark),
        figures.lines("error", errors, ("T, ns", "V_u"), (True, True)),
        figures.lines("energy", energies, ("T, ns", "energy of an inference, nJ"), (True, True)),
    ]
