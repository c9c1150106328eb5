"""``report.html`` and the JSON beside it, from a run folder; one page out of several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.handover import time_in_phases
from kcnet_eda.export.render import render
from kcnet_eda.files import write_atomic
from kcnet_eda.network.graph import Network
from kcnet_eda.report import adjoint, figures, latency, pvt
from kcnet_eda.report.adjoint import adjoint_html
from kcnet_eda.report.combined import combined_csv, combined_html, combined_markdown, combined_record
from kcnet_eda.report.latency import latency_html
from kcnet_eda.report.pvt import pvt_html
from kcnet_eda.report.runs import Record, Run, names_of, read_run
from kcnet_eda.study.adjoint_record import STUDY
from kcnet_eda.study.latency_record import STUDY as LATENCY
from kcnet_eda.study.pvt_record import STUDY as PVT
from kcnet_eda.study.simulate import RECORD, REPORT, STORE
from kcnet_eda.study.store import open_store
from kcnet_eda.tools.browser import print_pdf


def report(runs: Path | Sequence[Path], out: Path | None = None, *, pdf: bool = False) -> Path:
    """Write the report of run folders: HTML to ``out`` (``RUN/report.html`` where None and there is one run), JSON
    beside it. A whole run alone gives its own page; several, or one with parts missing or corrupt, the combined page,
    with the same as Markdown and the chain as CSV beside it. ``pdf`` also prints it, to the same name with ``.pdf``.

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
    read = [read_run(path, name) for path, name in zip(paths, names_of(paths), strict=True)]
    record: Record | None = None
    if len(read) == 1 and not read[0].problems:
        own, html = read[0].record, _page(read[0])
    else:
        own = record = combined_record(read)
        html = combined_html(read, record, lambda run: _page(run, whole=False) if not run.problems else "")
    write_atomic(out, html)
    if record is not None:
        write_atomic(out.with_suffix(".md"), combined_markdown(record))
        write_atomic(out.with_suffix(".csv"), combined_csv(record))
    if out.with_suffix(".json") not in [path / RECORD for path in paths]:  # a run's own record is never written over
        write_atomic(out.with_suffix(".json"), json.dumps(own, indent=1) + "\n")
    if pdf:
        print_pdf(out, out.with_suffix(".pdf"))
    return out, record


def _page(run: Run, whole: bool = True) -> str:
    """The page of a run, or its body alone."""
    record, arrays = run.record, run.arrays
    assert record is not None and run.network is not None
    if run.kind == STUDY:
        return adjoint_html(record, adjoint.PAGE if whole else adjoint.BODY)
    if run.kind == PVT:
        return pvt_html(record, arrays["right"], pvt.PAGE if whole else pvt.BODY)
    if run.kind == LATENCY:
        return latency_html(record, arrays, latency.PAGE if whole else latency.BODY)
    return render(
        "report/report.html.j2" if whole else "report/report_body.html.j2",
        r=record,
        s=record["summary"],
        plotly_js=figures.plotly_js(),
        digit=_digit(run.path, run.network, record, arrays),
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


def _digit(run: Path, network: Network, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """What the report shows of one sample; None where no waveform was kept."""
    shown = record["shown"]
    if shown is None:
        return None
    with open_store(run / STORE) as store:
        result = store.result(shown["key"])
    if result.waveform is None or result.decision_s is None:
        raise InvalidInputError(str(run / STORE), [f"has lost the waveform of sample {shown['sample']}"])
    time_s, circuit = result.waveform
    row = shown["position"]
    scaling = record["scaling"]
    # Records from before there were transfer windows do not name them.
    tau = time_in_phases(time_s, record.get("time", {"windows_s": []})["windows_s"]) / scaling["t_unit"]
    software = trajectory(network, arrays["x0"][row], tau)[:, network.readout]
    grid = record["data_grid"]
    volts = scaling["v_cm"] + scaling["v_unit"] * arrays["x0"][row][network.inputs]
    return {
        "sample": shown["sample"],
        "label": int(arrays["label"][row]),
        "y": int(arrays["y"][row]) if "y" in arrays else None,
        "decision_s": result.decision_s,
        "n_inputs": network.inputs.size,
        "repeats": network.phases[0].fill == "repeat",
        "grid": None if grid is None else figures.voltage_grid(volts, (grid[0], grid[1])),
        "waveforms": figures.waveforms(
            time_s,
            circuit,
            scaling["v_cm"] + scaling["v_unit"] * software,
            [network.node_names[n] for n in network.readout],
            None if record["two_sample"] else result.decision_s,
            record["summary"]["simulator"],
        ),
    }
