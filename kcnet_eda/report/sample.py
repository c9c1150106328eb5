"""Single samples as a page shows them: the image as initial voltages, and the waveforms that the run kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcnet_eda.dynamics.reference import trajectory
from kcnet_eda.errors import KcnetError
from kcnet_eda.export.handover import time_in_phases
from kcnet_eda.network.graph import labels
from kcnet_eda.report import figures
from kcnet_eda.report.chain import finite_labels
from kcnet_eda.report.runs import Run
from kcnet_eda.study.pvt.chain import CALIBRATED, WORST
from kcnet_eda.study.pvt.record import STUDY as PVT
from kcnet_eda.study.simulate import MOST_CHANGED, SIMULATE, STORE, command_of
from kcnet_eda.study.store import Status, read_store

View = dict[str, Any]
Labels = NDArray[np.int64]

_STEPS = {CALIBRATED: "calibrated edges", WORST: "transistors"}


@dataclass(frozen=True, eq=False)
class Labelled:
    """The samples of a ``run`` in a circuit: the labels it gave them (-1 where it failed) and those of software. Runs
    of ``kcnet simulate`` have one circuit, whose ``name`` is ''; studies over conditions those of their chain. ``keys``
    are where the store has the waveforms of samples whose label changed, by row."""

    run: Run
    name: str
    simulator: str
    label: Labels
    software: Labels
    keys: dict[int, str]

    @property
    def changed(self) -> list[int]:
        """Rows whose label is not software's."""
        return [int(row) for row in np.flatnonzero((self.label != self.software) & (self.label >= 0))]

    @property
    def failed(self) -> list[int]:
        """Rows without a label."""
        return [int(row) for row in np.flatnonzero(self.label < 0)]

    @property
    def changed_samples(self) -> list[View]:
        """The first of the samples whose label changed; what a store does not have of them is said, not drawn."""
        return [self._shown(row) for row in self.changed[:MOST_CHANGED]]

    def _shown(self, row: int) -> View:
        key = self.keys.get(row)
        try:
            if key is None:
                again = f"{command_of(self.run.kind)!r} with the same folder runs the sample again for them"
                raise KcnetError(f"they were not kept; {again}")
            drawn = _waveforms(self.run, row, key, self.simulator, f"changed-{'-'.join([*self._place, str(row)])}")
        except (KcnetError, ValueError, TypeError) as error:
            drawn = {"waveforms": None, "problem": str(error)}
        own = {"label": int(self.label[row]), "software": int(self.software[row])}
        return _sample(self.run, row) | own | drawn

    @property
    def _place(self) -> list[str]:
        return [self.name.partition(" ")[0]] if self.name else []


def labelled(run: Run) -> list[Labelled]:
    """The circuits of a run that gave its samples labels; none where its outputs are no labels."""
    record, arrays, network = run.record, run.arrays, run.network
    if (
        not record
        or network is None
        or record.get("two_sample")
        or not {"x0", "v_end_software", "index"} <= set(arrays)
    ):
        return []
    software = labels(network, arrays["v_end_software"])
    if run.kind == SIMULATE and "label" in arrays:
        keys = _keys(record.get("changed"))
        return [Labelled(run, "", record["summary"]["simulator"], arrays["label"], software, keys)]
    if run.kind != PVT:
        return []
    return [
        Labelled(
            run,
            f"{_STEPS[part]} at {step['condition']}",
            step["simulator"],
            finite_labels(network, arrays[f"v_end_{part}"]),
            software,
            _keys(step.get("changed")),
        )
        for part, step in (record.get("chain") or {}).items()
    ]


def shown_sample(run: Run) -> View | None:
    """What a run's own page shows of one sample; None where no waveform was kept."""
    assert run.record is not None and run.network is not None
    shown = run.record["shown"]
    if shown is None:
        return None
    row, network = shown["position"], run.network
    own = {
        "label": int(run.arrays["label"][row]),
        "software": int(labels(network, run.arrays["v_end_software"][row : row + 1])[0]),
        "n_inputs": network.inputs.size,
        "repeats": network.phases[0].fill == "repeat",
    }
    simulator = run.record["summary"]["simulator"]
    return _sample(run, row) | own | _waveforms(run, row, shown["key"], simulator, "waveforms")


def _keys(changed: dict[str, Any] | None) -> dict[int, str]:
    """Where the store has waveforms, as a record says it; older ones do not."""
    return {entry["position"]: entry["key"] for entry in (changed or {}).get("shown", [])}


def _sample(run: Run, row: int) -> View:
    return {
        "sample": int(run.arrays["index"][row]),
        "row": row,
        "y": int(run.arrays["y"][row]) if "y" in run.arrays else None,
        "grid": _image(run, row),
    }


def _image(run: Run, row: int) -> str | None:
    """The image of a sample; None where the data are no images, or the record is older than such images."""
    assert run.record is not None and run.network is not None
    grid, scaling = run.record.get("data_grid"), run.record.get("scaling")
    if grid is None or scaling is None:
        return None
    volts = scaling["v_cm"] + scaling["v_unit"] * run.arrays["x0"][row][run.network.inputs]
    return figures.voltage_grid(volts, (grid[0], grid[1]))


def _waveforms(run: Run, row: int, key: str, simulator: str, div_id: str) -> View:
    """The figure of the waveforms that the store has of a sample, beside software's."""
    record, network = run.record, run.network
    assert record is not None and network is not None
    with read_store(run.path / STORE) as store:
        result = store.result(key)
    if result.waveform is None or result.decision_s is None:
        lost = f"the run for them ended so: {result.status}, {result.message}"
        raise KcnetError(f"{STORE} has lost them" if result.status is Status.PASSED else lost)
    time_s, circuit = result.waveform
    scaling = record["scaling"]
    # Records from before there were transfer windows do not name them.
    tau = time_in_phases(time_s, record.get("time", {"windows_s": []})["windows_s"]) / scaling["t_unit"]
    software = trajectory(network, run.arrays["x0"][row], tau)[:, network.readout]
    return {
        "decision_s": result.decision_s,
        "problem": "",
        "waveforms": figures.waveforms(
            time_s,
            circuit,
            scaling["v_cm"] + scaling["v_unit"] * software,
            [network.node_names[n] for n in network.readout],
            None if record.get("two_sample") else result.decision_s,
            simulator,
            div_id,
        ),
    }
