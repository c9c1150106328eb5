"""``report.html`` and the JSON beside it, from a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.errors import InvalidInputError
from kcnet_eda.export.handover import time_in_phases
from kcnet_eda.export.render import render
from kcnet_eda.files import write_atomic
from kcnet_eda.network.graph import Network
from kcnet_eda.network.store import load_network
from kcnet_eda.report import figures
from kcnet_eda.report.adjoint import adjoint_html
from kcnet_eda.report.latency import latency_html
from kcnet_eda.report.pvt import pvt_html
from kcnet_eda.study.adjoint_record import STUDY
from kcnet_eda.study.latency_record import STUDY as LATENCY
from kcnet_eda.study.pvt_record import STUDY as PVT
from kcnet_eda.study.simulate import NETWORK, OUTPUTS, RECORD, REPORT, STORE
from kcnet_eda.study.store import open_store


def report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder: HTML to ``out`` (``run/report.html`` where None), JSON beside it.

    Raises
    ------
    InvalidInputError
        ``run`` is not a finished run.
    """
    out = out or run / REPORT
    if out.suffix != ".html":
        raise InvalidInputError(f"--out {out}", ["a report is called *.html; its JSON is written beside it"])
    missing = [name for name in (RECORD, OUTPUTS, STORE, NETWORK) if not (run / name).is_file()]
    if missing:
        raise InvalidInputError(
            str(run),
            [f"has no {name}" for name in missing],
            "Finish the run first: the command that began it with the same --out goes on where it stopped.",
        )
    try:
        record = json.loads((run / RECORD).read_text())
        with np.load(run / OUTPUTS, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError) as error:
        raise InvalidInputError(str(run), [f"its results cannot be read: {error}"]) from None
    if record.get("study") == STUDY:
        html = adjoint_html(record)
    elif record.get("study") == PVT:
        html = pvt_html(record, arrays["right"])
    elif record.get("study") == LATENCY:
        html = latency_html(record, arrays)
    else:
        network = load_network(run / NETWORK)
        html = render(
            "report/report.html.j2",
            r=record,
            s=record["summary"],
            plotly_js=figures.plotly_js(),
            digit=_digit(run, network, record, arrays),
            clouds=_clouds(network, record, arrays),
        )
    write_atomic(out, html)
    if out.with_suffix(".json") != run / RECORD:
        write_atomic(out.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return out


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
