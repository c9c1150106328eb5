"""Single samples as a page shows them: the image as initial voltages, and the waveforms that the run kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.errors import InvalidInputError, KcnetError
from kcnet_eda.export.handover import time_in_phases
from kcnet_eda.network.graph import labels
from kcnet_eda.report import figures
from kcnet_eda.report.runs import Run
from kcnet_eda.study.simulate import STORE
from kcnet_eda.study.store import read_store

View = dict[str, Any]


def shown_sample(run: Run) -> View | None:
    """What a run's own page shows of one sample; None where no waveform was kept."""
    assert run.record is not None
    shown = run.record["shown"]
    return None if shown is None else _view(run, shown["position"], shown["sample"], shown["key"], "waveforms")


def changed_rows(run: Run) -> list[int] | None:
    """Rows of a run's outputs whose label is not software's; None where the outputs are no labels."""
    needed = {"x0", "v_end_software", "label", "index"} <= set(run.arrays)
    if run.kind != "simulate" or not needed or run.network is None or not run.record or run.record.get("two_sample"):
        return None
    own, software = run.arrays["label"], labels(run.network, run.arrays["v_end_software"])
    return [int(row) for row in np.flatnonzero((own != software) & (own >= 0))]


def waveform_keys(run: Run) -> dict[int, str]:
    """Where the run's store has the waveforms of samples whose label changed, by row."""
    told = (run.record or {}).get("changed") or {}
    return {entry["position"]: entry["key"] for entry in told.get("shown", [])}


def changed_samples(run: Run) -> list[View]:
    """The samples whose label changed, as far as the run has been asked to keep their waveforms; what a store does not
    have is said, not drawn."""
    rows, keys = changed_rows(run), waveform_keys(run)
    found = []
    for row in rows or []:
        if row in keys:
            sample = int(run.arrays["index"][row])
            try:
                found.append(_view(run, row, sample, keys[row], f"changed-{row}"))
            except (KcnetError, ValueError, TypeError) as error:
                found.append(
                    {"sample": sample, "row": row, "grid": _image(run, row), "waveforms": None, "problem": str(error)}
                )
    return found


def _image(run: Run, row: int) -> str | None:
    """The image of a sample; None where the data are no images."""
    assert run.record is not None and run.network is not None
    grid, scaling = run.record.get("data_grid"), run.record["scaling"]
    if grid is None:
        return None
    volts = scaling["v_cm"] + scaling["v_unit"] * run.arrays["x0"][row][run.network.inputs]
    return figures.voltage_grid(volts, (grid[0], grid[1]))


def _view(run: Run, row: int, sample: int, key: str, div_id: str) -> View:
    record, network, arrays = run.record, run.network, run.arrays
    assert record is not None and network is not None
    with read_store(run.path / STORE) as store:
        result = store.result(key)
    if result.waveform is None or result.decision_s is None:
        raise InvalidInputError(str(run.path / STORE), [f"has lost the waveform of sample {sample}"])
    time_s, circuit = result.waveform
    scaling = record["scaling"]
    # Records from before there were transfer windows do not name them.
    tau = time_in_phases(time_s, record.get("time", {"windows_s": []})["windows_s"]) / scaling["t_unit"]
    software = trajectory(network, arrays["x0"][row], tau)[:, network.readout]
    return {
        "sample": sample,
        "row": row,
        "label": int(arrays["label"][row]),
        "software": int(labels(network, arrays["v_end_software"][row : row + 1])[0]),
        "y": int(arrays["y"][row]) if "y" in arrays else None,
        "decision_s": result.decision_s,
        "n_inputs": network.inputs.size,
        "repeats": network.phases[0].fill == "repeat",
        "grid": _image(run, row),
        "problem": "",
        "waveforms": figures.waveforms(
            time_s,
            circuit,
            scaling["v_cm"] + scaling["v_unit"] * software,
            [network.node_names[n] for n in network.readout],
            None if record["two_sample"] else result.decision_s,
            record["summary"]["simulator"],
            div_id,
        ),
    }
