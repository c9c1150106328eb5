"""One page out of several run folders: verdicts first, then the reconciliation chain, then each run's own sections."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jinja2 import UndefinedError

from kcnet_eda import __version__
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.render import render
from kcnet_eda.network.graph import labels
from kcnet_eda.report import figures
from kcnet_eda.report.chain import RAN, make_chain
from kcnet_eda.report.headline import Row, differences, failures, numbers, verdicts
from kcnet_eda.report.runs import Run

_MOST_SHOWN = 12  # changed digits of a run that are drawn; all are named
FORMAT = 1


def combined_record(runs: Sequence[Run]) -> dict[str, Any]:
    """The record of the combined page; plain JSON values, each number with the run, file and rows it is from."""
    chain = make_chain(runs)
    judged = [verdict for run in runs for verdict in verdicts(run)]
    return {
        "format": FORMAT,
        "kcnet_eda": __version__,
        "runs": [
            {
                "name": run.name,
                "kind": run.kind,
                "readable": not run.problems,
                "failures": failures(run),
                "rows_by_status": run.statuses,
                "headline": numbers(run),
                "provenance": {} if run.record is None else run.record.get("provenance", {}),
            }
            for run in runs
        ],
        "verdicts": judged,
        "summary": {
            "unreadable_runs": [run.name for run in runs if run.problems],
            "limits": len(judged),
            "limits_missed": sum(not verdict["kept"] for verdict in judged),
        },
        "chain": {"shared_samples": chain.shared, "steps": chain.steps, "left_out": chain.left_out},
        "differences": differences(list(runs)),
        "changed": [changed for run in runs if (changed := _changed(run)) is not None],
    }


def combined_html(runs: Sequence[Run], record: dict[str, Any], body: Callable[[Run], str]) -> str:
    """The page; ``body`` gives the sections of a run's own page."""
    sections = []
    for number, run in enumerate(runs):
        try:
            html = figures.with_prefix(body(run), f"run{number}-")
        except (KeyError, TypeError, ValueError, IndexError, UndefinedError, KcnetError) as error:
            # A record that lacks what its page shows: said there, and nowhere made up.
            html, problem = "", f"its own page cannot be made: {type(error).__name__} {error}"
            sections.append({"name": run.name, "kind": run.kind, "html": html, "problem": problem})
            continue
        sections.append({"name": run.name, "kind": run.kind, "html": html, "problem": "" if html else "not readable"})
    ran = [step for step in record["chain"]["steps"] if step["status"] == RAN and step["accuracy"]]
    return render(
        "report/combined.html.j2",
        r=record,
        sections=sections,
        waterfall=figures.waterfall(ran) if ran else None,
        confusions=[table for run in runs if (table := _confusion(run)) is not None],
        digits={run.name: _digits(run) for run in runs if run.kind == "simulate"},
        plotly_js=figures.plotly_js(),
    )


def combined_markdown(record: dict[str, Any]) -> str:
    """Verdicts and chain of the combined record as Markdown."""
    return render("report/combined.md.j2", r=record)


def combined_csv(record: dict[str, Any]) -> str:
    """The chain of the combined record as CSV, a row a step; empty where there is no number."""
    text = io.StringIO()
    proportions = ("accuracy", "agreement_before", "agreement_software")
    plain = ("error_max", "error_rms", "margin_lost", "latency_s", "energy_j")
    parts = [f"{name}{part}" for name in proportions for part in ("", "_n", "_low", "_high")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "status", "run", *parts, *plain, "cause"])
    for step in record["chain"]["steps"]:
        cells: list[Any] = [step["step"], step["status"], step["run"]]
        for name in proportions:
            p = step[name]
            cells += [None] * 4 if p is None else [p["value"], p["n"], *p["wilson95"]]
        cells += [None if step[name] is None else step[name]["value"] for name in plain]
        writer.writerow([*cells, step["cause"]])
    return text.getvalue()


def _classifies(run: Run) -> bool:
    named = {"x0", "v_end_software", "label", "index"} <= set(run.arrays)
    return bool(
        run.kind == "simulate" and named and run.network is not None and run.record and not run.record.get("two_sample")
    )


def _changed(run: Run) -> Row | None:
    """Samples whose label is not the software's, by their index in the data set; failed runs are named apart."""
    if not _classifies(run) or run.network is None:
        return None
    own, software = run.arrays["label"], labels(run.network, run.arrays["v_end_software"])
    rows = np.flatnonzero((own != software) & (own >= 0))
    samples = [
        {"sample": int(run.arrays["index"][i]), "row": int(i), "software": int(software[i]), "circuit": int(own[i])}
        for i in rows
    ]
    failed = [int(run.arrays["index"][i]) for i in np.flatnonzero(own < 0)]
    return {"run": run.name, "n": int(own.size), "samples": samples, "failed": failed}


def _digits(run: Run) -> dict[int, str]:
    """The images of changed digits, by row of the run; empty where the data are no images."""
    changed, grid = _changed(run), run.record.get("data_grid") if run.record else None
    if changed is None or grid is None or run.network is None or grid[0] * grid[1] > 64:
        return {}
    assert run.record is not None
    scaling = run.record["scaling"]
    of_rows = [sample["row"] for sample in changed["samples"][:_MOST_SHOWN]]
    volts = {row: scaling["v_cm"] + scaling["v_unit"] * run.arrays["x0"][row][run.network.inputs] for row in of_rows}
    return {row: figures.voltage_grid(v, (grid[0], grid[1])) for row, v in volts.items()}


def _confusion(run: Run) -> Row | None:
    """Counts [true label, circuit's label] with a last column for failed runs; None where there are no labels."""
    if not _classifies(run) or "y" not in run.arrays or run.network is None:
        return None
    n = run.network.readout.size
    counts = np.zeros((n, n + 1), dtype=np.int64)
    np.add.at(counts, (run.arrays["y"].astype(np.int64), np.where(run.arrays["label"] < 0, n, run.arrays["label"])), 1)
    return {"run": run.name, "counts": counts.tolist(), "n": int(counts.sum())}
