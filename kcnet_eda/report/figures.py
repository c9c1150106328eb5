"""Figures of the report: a digit as its initial voltages, and waveforms of circuit and software together."""

from __future__ import annotations

import html
import math
import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from kcnet_eda.units import format_si

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_WINNER, _RUNNER_UP, _OTHER = "#0072B2", "#D55E00", "#8c8c8c"  # Okabe and Ito's: safe for colour-blind readers
_COLOURS = (_WINNER, _RUNNER_UP, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES, _SYMBOLS = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "x", "triangle-up")
_BELOW = {
    "orientation": "h",
    "yref": "container",
    "y": 0.0,
    "yanchor": "bottom",
}  # wraps on a narrow page, over nothing
_MOST_POWERS = 3
_LABELLED = 64  # pixels: with more of them no number fits into one
# The function that is the whole library. In parentheses it is compiled when it is read; without, browsers read it once
# to find its end and again to compile it.
_WHOLE = re.compile(r"(?<=\? self : this, )(\(\) => \{.*\})(?=\)\);\s*$)", re.DOTALL)
_AXIS = {
    "gridcolor": "rgba(128,128,128,0.25)",
    "zerolinecolor": "rgba(128,128,128,0.5)",
    "linecolor": "#8c8c8c",
    "ticklabelstandoff": 6,  # at the corner of a plot the first numbers of both axes would touch
}


def plotly_js() -> str:
    """The library's text, once a page, so that the page needs no network."""
    from plotly.offline import get_plotlyjs

    return _WHOLE.sub(r"(\1)", get_plotlyjs())


def waveforms(
    time_s: Floats,
    circuit: Floats,
    software: Floats,
    names: list[str],
    decision_s: float | None,
    simulator: str,
    div_id: str = "waveforms",
) -> str:
    """An HTML fragment: read-out waveforms in volts, ``circuit`` and ``software`` [points, outputs] at ``time_s``.

    The circuit is a line, the software solution open circles on it; the decision time is marked, where there is one.
    """
    scale, unit = _time_unit(float(time_s[-1]))
    t = time_s * scale
    order = np.argsort(circuit[-1])[::-1]
    figure = go.Figure()
    # The names of the first two at T would lie on each other where the two end close together.
    apart = 9 if len(names) > 1 and np.diff(circuit[-1, order[1::-1]])[0] < 0.06 * np.ptp(circuit) else 0
    marks = np.unique(np.linspace(0, len(t) - 1, 18).astype(int))
    for rank in reversed(range(len(names))):  # the winner last, so that it lies on top
        output = int(order[rank])
        colour = _WINNER if rank == 0 else _RUNNER_UP if rank == 1 else _OTHER
        figure.add_scatter(
            x=t,
            y=circuit[:, output],
            mode="lines",
            name=names[output],
            legendrank=output,
            legendgroup=names[output],
            line={"color": colour, "width": 3 if rank < 2 else 1.4},
            hovertemplate="%{y:.4f} V at %{x:.4f} " + unit,
        )
        figure.add_scatter(
            x=t[marks],
            y=software[marks, output],
            mode="markers",
            name=f"{names[output]}, software",
            legendgroup=names[output],
            showlegend=False,
            hovertemplate="%{y:.4f} V",
            marker={"color": colour, "symbol": "circle-open", "size": 8},
        )
        if rank < 2:
            figure.add_annotation(
                x=t[-1],
                y=circuit[-1, output],
                text=f"<b>{html.escape(names[output])}</b>",
                xanchor="left",
                showarrow=False,
                font={"color": colour, "size": 15},
                xshift=4,
                yshift=-apart if rank else apart,
            )
    if decision_s is not None:
        figure.add_vline(x=decision_s * scale, line={"color": "#8c8c8c", "dash": "dot"})
        figure.add_annotation(
            x=decision_s * scale,
            y=1.0,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=f"decided at {format_si(decision_s, 's', 3)}",
            font={"size": 13},
        )
    figure.update_layout(
        height=440,
        margin={"l": 70, "r": 30, "t": 50, "b": 55},  # above the plot is the toolbar's place
        hovermode="closest",
        xaxis={"title": f"time, {unit}", **_AXIS},
        yaxis={"title": "output voltage, V", **_AXIS},
        # Beside the plot, names leave a narrow page no room for it.
        legend={**_BELOW, "title": {"text": f"{simulator} (○ software)", "side": "top"}},
    )
    return _fragment(figure, div_id)


def clouds(sides: dict[str, Floats], names: list[str]) -> str:
    """An HTML fragment: the points [n, 2], in volts, of each side beside each other, on equal axes."""
    figure = make_subplots(1, len(sides), subplot_titles=list(sides), shared_yaxes=True, horizontal_spacing=0.04)
    for column, points in enumerate(sides.values(), start=1):
        figure.add_scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="markers",
            marker={"color": _WINNER, "size": 4, "opacity": 0.6},
            hovertemplate="%{x:.4f} V, %{y:.4f} V<extra></extra>",
            row=1,
            col=column,
        )
        figure.update_xaxes(title=f"{names[0]}, V", matches="x", row=1, col=column, **_AXIS)
    figure.update_yaxes(scaleanchor="x", **_AXIS)
    figure.update_yaxes(title=f"{names[1]}, V", row=1, col=1)
    figure.update_layout(
        height=470,
        margin={"l": 70, "r": 20, "t": 40, "b": 55},
        showlegend=False,
    )
    return _fragment(figure, "clouds")


def convergence(steps: list[int], errors: dict[str, list[float]], order: int, limit: float) -> str:
    """An HTML fragment: relative ``errors`` [step counts] of each quantity against ``steps``, both logarithmic, with
    the slope of ``order`` and the ``limit`` asked for."""
    figure = go.Figure()
    for (name, values), colour in zip(errors.items(), (_WINNER, _RUNNER_UP, "#009E73", "#CC79A7"), strict=False):
        figure.add_scatter(x=steps, y=values, mode="lines+markers", name=name, line={"color": colour, "width": 2})
    top = max(values[0] for values in errors.values())
    slope = [top * (steps[0] / n) ** order for n in steps]
    figure.add_scatter(x=steps, y=slope, mode="lines", name=f"order {order}", line={"color": _OTHER, "dash": "dot"})
    asked = {"color": _OTHER, "dash": "dash"}
    figure.add_scatter(x=[steps[0], steps[-1]], y=[limit, limit], mode="lines", name="asked for", line=asked)
    figure.update_layout(
        height=440,
        margin={"l": 70, "r": 30, "t": 40, "b": 55},
        xaxis={"title": "steps over T", "type": "log", "tickvals": steps, **_AXIS},
        yaxis={"title": "relative error, 2-norm", "type": "log", "exponentformat": "power", "dtick": 1, **_AXIS},
    )
    return _fragment(figure, "convergence")


def _fragment(figure: go.Figure, div_id: str) -> str:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7a7a7a", "size": 14},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8c8c8c"},
    )
    # The page draws it, when its library is there; JSON of plotly's has no "<" that could end the script.
    return (
        f'<div id="{div_id}" class="plotly-graph-div" style="height:{figure.layout.height}px"></div>'
        f'<script type="application/json">{figure.to_json()}</script>'
    )


def _time_unit(t_end: float) -> tuple[float, str]:
    """Factor and name of the SI unit in which ``t_end`` is at least 1, from seconds."""
    for exponent, name in ((0, "s"), (3, "ms"), (6, "µs"), (9, "ns"), (12, "ps")):
        if t_end * 10.0**exponent >= 0.9999:
            return 10.0**exponent, name
    return 1e15, "fs"


def voltage_grid(volts: Floats, grid: tuple[int, int]) -> str:
    """An HTML table: the input nodes' initial voltages as an image of ``grid`` (rows, columns), each cell labelled
    where there is room for it."""
    image = volts.reshape(grid)
    low, span = float(image.min()), float(np.ptp(image)) or 1.0
    labelled = image.size <= _LABELLED
    rows = []
    for line in image:
        cells = []
        for v in line:
            shade = round(255 * (v - low) / span)
            ink = "#000" if shade > 140 else "#fff"
            text = f"{v:.2f}" if labelled else ""
            cells.append(f'<td style="background:rgb({shade},{shade},{shade});color:{ink}">{text}</td>')
        rows.append("<tr>" + "".join(cells) + "</tr>")
    name, about = ("digit", "") if labelled else ("digit fine", f", from {low:.2f} (black) to {low + span:.2f} (white)")
    return f'<table class="{name}" aria-label="initial voltages in volts{about}">' + "".join(rows) + "</table>"


def lines(
    div_id: str,
    series: dict[str, tuple[list[float], list[float]]],
    titles: tuple[str, str],
    logarithmic: tuple[bool, bool] = (False, False),
    markers: bool = True,
    steps: bool = False,
    upright: dict[str, float] | None = None,
) -> str:
    """An HTML fragment: each of ``series`` (abscissae, ordinates) by its name; ``titles`` and ``logarithmic`` of x and
    y; ``steps``: an ordinate holds up to the next; ``upright`` are abscissae to be marked, by their text."""
    figure = go.Figure()
    for number, (name, (x, y)) in enumerate(series.items()):
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers" if markers and not steps else "lines",
            name=name,
            line={
                "color": _COLOURS[number % len(_COLOURS)],
                "width": 2,
                "dash": _DASHES[number % len(_DASHES)],
                "shape": "hv" if steps else "linear",
            },
            marker={"symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 8},
        )
    for number, (text, at) in enumerate((upright or {}).items()):
        figure.add_vline(x=at, line={"color": _OTHER, "dash": "dot"})
        where = float(np.log10(at)) if logarithmic[0] else at  # an annotation's place is the axis's own
        label = {"yref": "paper", "yanchor": "bottom", "showarrow": False}
        # In turn higher and lower: the names of marks close together would lie on each other.
        figure.add_annotation(x=where, y=1.0, text=html.escape(text), yshift=16 * (number % 2), **label)
    axes = [
        {"title": title, **(_powers([pair[axis] for pair in series.values()]) if of_log else {}), **_AXIS}
        for axis, (title, of_log) in enumerate(zip(titles, logarithmic, strict=True))
    ]
    figure.update_layout(
        height=440,
        margin={"l": 80, "r": 30, "t": 50, "b": 60},
        xaxis=axes[0],
        yaxis=axes[1],
        legend=_BELOW,
    )
    return _fragment(figure, div_id)


def _powers(values: list[list[float]]) -> dict[str, Any]:
    """A logarithmic axis with no more powers of ten named than a narrow screen has place for."""
    shown = np.concatenate([np.asarray(own, dtype=np.float64) for own in values])
    shown = shown[shown > 0]
    span = float(np.log10(shown.max() / shown.min())) if shown.size else 0.0
    # Within a decade there may be no power of ten: 2 and 5 are named too.
    tick: str | int = "D2" if 0 < span < 1 else max(1, math.ceil(span / _MOST_POWERS))
    return {"type": "log", "exponentformat": "power", "dtick": tick}


def band(
    div_id: str, x: list[float], y: list[float], low: list[float], high: list[float], titles: tuple[str, str]
) -> str:
    """An HTML fragment: ``y`` over ``x`` with the band of its interval from ``low`` to ``high``."""
    figure = go.Figure()
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=x, y=high, **edge)
    figure.add_scatter(x=x, y=low, fill="tonexty", fillcolor="rgba(0,114,178,0.2)", **edge)
    figure.add_scatter(x=x, y=y, mode="lines", name=titles[1], line={"color": _WINNER, "width": 2}, showlegend=False)
    figure.update_layout(
        height=400,
        margin={"l": 80, "r": 30, "t": 20, "b": 60},
        xaxis={"title": titles[0], **_AXIS},
        yaxis={"title": titles[1], **_AXIS},
    )
    return _fragment(figure, div_id)


def bars(div_id: str, names: list[str], values: list[float], title: str) -> str:
    """An HTML fragment: one bar made of the ``values`` by ``names``, after each other: what a time is made of."""
    figure = go.Figure()
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        figure.add_bar(y=[""], x=[value], name=name, orientation="h", marker={"color": colour})
    figure.update_layout(
        barmode="stack",
        height=300,
        margin={"l": 30, "r": 30, "t": 40, "b": 60},
        xaxis={"title": title, **_AXIS},
        legend={**_BELOW, "traceorder": "normal"},
    )
    return _fragment(figure, div_id)


def ranking(names: list[str], series: dict[str, list[float]], errors: list[float], title: str) -> str:
    """An HTML fragment: a bar of each of ``series`` for each of ``names``, the first on top; ``errors`` are those of
    the first of them."""
    figure = go.Figure()
    for number, (name, values) in enumerate(series.items()):
        error = {"type": "data", "array": errors} if number == 0 else None
        marker = {"color": _COLOURS[number % len(_COLOURS)]}
        figure.add_bar(y=names, x=values, name=name, orientation="h", marker=marker, error_x=error)
    figure.update_layout(
        height=140 + 34 * len(names),
        margin={"l": 10, "r": 30, "t": 20, "b": 90},
        xaxis={"title": title, **_AXIS},
        yaxis={"autorange": "reversed", "automargin": True, **_AXIS},
        legend=_BELOW,
    )
    return _fragment(figure, "ranking")


def heat_map(rows: list[str], columns: list[str], values: Floats) -> str:
    """An HTML fragment: ``values`` [rows, columns] as colours, with their numbers."""
    cells = go.Heatmap(z=values, x=columns, y=rows, colorscale="Cividis", texttemplate="%{z:.1f}")
    figure = go.Figure(cells)
    # Lying, the names of two conditions touch on a narrow page; how far down they reach is the browser's to measure.
    across = {"tickangle": -90, "automargin": True}
    figure.update_layout(height=240 + 40 * len(rows), margin={"l": 90, "r": 30, "t": 20, "b": 90}, xaxis=across)
    return _fragment(figure, "heat")


def yield_curve(of_dies: dict[str, Floats]) -> str:
    """An HTML fragment: the share of dies whose accuracy ([dies], by name) is at least that on the abscissa."""
    figure = go.Figure()
    for (name, accuracy), colour in zip(of_dies.items(), (_WINNER, _RUNNER_UP), strict=True):
        x = np.unique(accuracy)
        share = [100 * float((accuracy >= at).mean()) for at in x]
        line = {"color": colour, "shape": "vh", "width": 2}
        figure.add_scatter(x=100 * x, y=share, mode="lines+markers", name=name, line=line)
    figure.update_layout(
        height=400,
        margin={"l": 70, "r": 30, "t": 20, "b": 55},
        xaxis={"title": "accuracy asked of a die, %", **_AXIS},
        yaxis={"title": "yield, %", **_AXIS},
        legend=_BELOW,
    )
    return _fragment(figure, "yield")


def waterfall(steps: list[dict[str, Any]]) -> str:
    """An HTML fragment: the accuracy of the first of ``steps`` and what each later one adds or takes, with Wilson's
    interval of each; a step has its name and a proportion ``accuracy``, all of the same samples."""
    names = [step["step"] for step in steps]
    value = [100 * step["accuracy"]["value"] for step in steps]
    low, high = (
        [abs(100 * s["accuracy"]["wilson95"][i] - v) for s, v in zip(steps, value, strict=True)] for i in (0, 1)
    )
    base = [0.0, *value[:-1]]
    length = [v - b for v, b in zip(value, base, strict=True)]
    colour = [_OTHER, *(_WINNER if more >= 0 else _RUNNER_UP for more in length[1:])]
    text = [f"{value[0]:.2f} %", *(f"{more:+.2f} points" for more in length[1:])]
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=length,
        base=base,
        orientation="h",
        customdata=text,
        marker={"color": colour},
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )
    spread = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": "#7a7a7a"}
    figure.add_scatter(
        y=names,
        x=value,
        mode="markers",
        marker={"color": "#7a7a7a", "size": 8, "symbol": "diamond"},
        error_x=spread,
        hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
    )
    least = min(v - below for v, below in zip(value, low, strict=True))
    figure.update_layout(
        height=120 + 46 * len(steps),
        margin={"l": 10, "r": 32, "t": 20, "b": 60},
        showlegend=False,
        xaxis={"title": "accuracy, %", "range": [max(0.0, least - 3), 101], **_AXIS},
        yaxis={"autorange": "reversed", "automargin": True, **_AXIS},
    )
    return _fragment(figure, "waterfall")


def with_prefix(fragments: str, prefix: str) -> str:
    """HTML with the ids of its figures renamed, so that pages of several runs can stand on one."""
    return re.sub(r'(<div id=")([^"]+" class="plotly-graph-div")', rf"\g<1>{prefix}\g<2>", fragments)
