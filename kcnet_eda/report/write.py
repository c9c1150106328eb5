"""``report.html`` and the JSON beside it, from a run folder; one page out of several."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.render import render
from kcnet_eda.files import write_atomic
from kcnet_eda.network.graph import Network
from kcnet_eda.report import adjoint, figures, latency, pvt
from kcnet_eda.report.adjoint import adjoint_html
from kcnet_eda.report.combined import (
    combined_csv,
    combined_html,
    combined_markdown,
    combined_record,
    numbers_csv,
    vetted,
)
from kcnet_eda.report.latency import latency_html, latency_markdown
from kcnet_eda.report.pvt import pvt_html
from kcnet_eda.report.runs import Run, names_of, read_run
from kcnet_eda.report.sample import labelled, shown_sample
from kcnet_eda.report.whole import Record
from kcnet_eda.study.adjoint.record import STUDY
from kcnet_eda.study.latency.record import STUDY as LATENCY
from kcnet_eda.study.pvt.record import STUDY as PVT
from kcnet_eda.study.simulate import RECORD, REPORT
from kcnet_eda.tools.browser import print_pdf


def report(runs: Path | Sequence[Path], out: Path | None = None, *, pdf: bool = False) -> Path:
    """Write the report of run folders: HTML to ``out`` (``RUN/report.html`` where None and there is one run), JSON
    beside it. A whole run alone gives its own page, a latency study also the same as Markdown. Several, or one with
    parts missing or corrupt, give the combined page, with the same as Markdown, the chain as CSV, and verdicts and
    headline numbers in ``*_numbers.csv``. ``pdf`` also prints it, to the same name with ``.pdf``.

    Raises
    ------
    InvalidInputError
        One of ``runs`` is no run folder, or several are given without ``out``.
    KcnetError
        ``pdf`` is asked for, and no browser is installed or it fails; the page is there all the same.
    """
    return write_report(runs, out, pdf=pdf)[0]


def write_report(
    runs: Path | Sequence[Path], out: Path | None = None, *, pdf: bool = False
) -> tuple[Path, Record | None]:
    """As :func:`report`; also the combined page's record, None where a run's own page was written."""
    paths = [runs] if isinstance(runs, Path) else list(runs)
    if out is None and len(paths) != 1:
        raise InvalidInputError("--out", ["is needed for several runs"], "Name the HTML file to write.")
    out = out or paths[0] / REPORT
    if out.suffix != ".html":
        raise InvalidInputError(f"--out {out}", ["a report is called *.html; its JSON is written beside it"])
    read = [vetted(read_run(path, name)) for path, name in zip(paths, names_of(paths), strict=True)]
    alone = len(read) == 1
    pages = [_tried(run, whole=alone) for run in read]
    read = [run for run, _ in pages]
    record: Record | None = None
    if alone and not read[0].problems:
        own, html = read[0].record, pages[0][1]
    else:
        own = record = combined_record(read)
        html = combined_html(read, record, [body for _, body in pages])
    write_atomic(out, html)
    beside: dict[Path, Callable[[Record], str]] = {out.with_suffix(".md"): combined_markdown}
    beside |= {out.with_suffix(".csv"): combined_csv, out.with_name(f"{out.stem}_numbers.csv"): numbers_csv}
    if record is None:
        if out == paths[0] / REPORT:  # those of a report that was made while the run was not whole
            for path in beside:
                path.unlink(missing_ok=True)
        beside = {out.with_suffix(".md"): latency_markdown} if read[0].kind == LATENCY else {}
    for path, text in beside.items():
        assert own is not None
        write_atomic(path, text(own))
    if out.with_suffix(".json") not in [path / RECORD for path in paths]:  # a run's own record is never written over
        write_atomic(out.with_suffix(".json"), json.dumps(own, indent=1, allow_nan=False) + "\n")
    if pdf:
        print_pdf(out, out.with_suffix(".pdf"))
    return out, record


def _tried(run: Run, whole: bool) -> tuple[Run, str]:
    """The page of a run that could be read, and the run; with one more problem and '' where it cannot be made."""
    if run.problems:
        return run, ""
    try:
        return run, _page(run, whole)
    except Exception as error:  # a record that lacks what its page shows: said, and nowhere made up
        problem = f"its own page cannot be made: {type(error).__name__} {error}; {run.remedy}"
        return replace(run, problems=(problem,)), ""


def _page(run: Run, whole: bool) -> str:
    """The page of a run, or its body alone."""
    record, arrays = run.record, run.arrays
    assert record is not None and run.network is not None
    if run.kind == STUDY:
        return adjoint_html(record, adjoint.PAGE if whole else adjoint.BODY)
    # Beside other runs what changed there has a place of its own on the page.
    circuits = labelled(run) if whole else []
    if run.kind == PVT:
        return pvt_html(record, arrays["right"], circuits, pvt.PAGE if whole else pvt.BODY)
    if run.kind == LATENCY:
        return latency_html(record, arrays, latency.PAGE if whole else latency.BODY)
    return render(
        "report/report.html.j2" if whole else "report/report_body.html.j2",
        r=record,
        s=record["summary"],
        plotly_js=figures.plotly_js(),
        digit=shown_sample(run),
        circuits=circuits,
        clouds=_clouds(run.network, record, arrays),
    )


def _clouds(network: Network, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> str | None:
    """Software and circuit as point clouds; None where the outputs are no points of a plane."""
    readout = network.readout
    if record["two_sample"] is None or readout.size != 2:
        return None
    sides = {"software": arrays["v_end_software"], record["summary"]["simulator"]: arrays["v_end"]}
    scaling = record["scaling"]
    return figures.clouds(
        {name: scaling["v_cm"] + scaling["v_unit"] * v[:, readout] for name, v in sides.items()},
        [network.node_names[n] for n in readout],
    )
