"""One page out of several run folders: verdicts first, then the reconciliation chain, then each run's own sections."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from kcnet_eda import __version__
from kcnet_eda.export.render import render
from kcnet_eda.report import figures
from kcnet_eda.report.chain import RAN, make_chain
from kcnet_eda.report.headline import Row, differences, failures, numbers, verdicts
from kcnet_eda.report.runs import Run, as_unread
from kcnet_eda.report.sample import Labelled, labelled
from kcnet_eda.study.tables import csv_text

#: Of the record; its schema is docs/report.schema.json.
FORMAT = 3


def vetted(run: Run) -> Run:
    """``run`` itself, or, where its record is not what this version reads, the run without a record, which says so."""
    try:
        make_chain([run])
        verdicts(run), numbers(run), failures(run), [_confusion(circuit) for circuit in labelled(run)]
    except Exception as error:  # another version's record lacks, or has otherwise, whatever is asked of it first
        return as_unread(run, error)
    return run


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
            **_count(judged, "limit", "limits", "limits_missed"),
            **_count(judged, "claim", "claims", "claims_refuted"),
        },
        "chain": {"shared_samples": chain.shared, "steps": chain.steps, "left_out": chain.left_out},
        "differences": differences(list(runs)),
        "changed": [_changed(circuit) for run in runs for circuit in labelled(run)],
    }


def _count(judged: Sequence[Row], which: str, of: str, not_kept: str) -> dict[str, int]:
    own = [verdict for verdict in judged if verdict[which]]
    return {of: len(own), not_kept: sum(not verdict["kept"] for verdict in own)}


def combined_html(runs: Sequence[Run], record: dict[str, Any], bodies: Sequence[str]) -> str:
    """The page; ``bodies`` are the sections of the runs' own pages, '' of one that cannot be read."""
    sections = [
        {"name": run.name, "kind": run.kind, "html": figures.with_prefix(html, f"run{number}-"), "number": number}
        for number, (run, html) in enumerate(zip(runs, bodies, strict=True))
    ]
    changed = [
        figures.with_prefix(render("report/changed.html.j2", changed=circuit.changed_samples), f"run{number}-")
        for number, run in enumerate(runs)
        for circuit in labelled(run)
    ]
    ran = [step for step in record["chain"]["steps"] if step["status"] == RAN and step["accuracy"]]
    return render(
        "report/combined.html.j2",
        r=record,
        sections=sections,
        waterfall=figures.waterfall(ran) if ran else None,
        confusions=[table for run in runs for circuit in labelled(run) if (table := _confusion(circuit)) is not None],
        changed=changed,
        plotly_js=figures.plotly_js(),
    )


def combined_markdown(record: dict[str, Any]) -> str:
    """Verdicts, headline numbers and chain of the combined record as Markdown."""
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


def numbers_csv(record: dict[str, Any]) -> str:
    """Headline numbers and verdicts of the combined record as CSV, a row each, with where it is from."""
    rows = [{"run": run["name"], **row} for run in record["runs"] for row in run["headline"]] + record["verdicts"]
    columns = ("run", "of", "value", "unit", "interval", "n", "found", "kept", "limit", "claim")
    return csv_text(
        [{name: row.get(name) for name in columns} | {k: row["source"][k] for k in ("file", "key")} for row in rows]
    )


def _changed(circuit: Labelled) -> Row:
    """Samples whose label is not the software's, by their index in the data set, and where the store has their
    waveforms; failed runs are named apart."""
    index = circuit.run.arrays["index"]
    samples = [
        {
            "sample": int(index[i]),
            "row": i,
            "software": int(circuit.software[i]),
            "circuit": int(circuit.label[i]),
            "waveform_key": circuit.keys.get(i),
        }
        for i in circuit.changed
    ]
    failed = [int(index[i]) for i in circuit.failed]
    of = {"run": circuit.run.name, "in": circuit.name}
    return of | {"n": int(circuit.label.size), "samples": samples, "failed": failed}


def _confusion(circuit: Labelled) -> Row | None:
    """Counts [true label, circuit's label] with a last column for failed runs; None where no label is known."""
    run = circuit.run
    if "y" not in run.arrays or run.network is None:
        return None
    n = run.network.readout.size
    counts = np.zeros((n, n + 1), dtype=np.int64)
    np.add.at(counts, (run.arrays["y"].astype(np.int64), np.where(circuit.label < 0, n, circuit.label)), 1)
    return {"run": run.name, "in": circuit.name, "counts": counts.tolist(), "n": int(counts.sum())}
